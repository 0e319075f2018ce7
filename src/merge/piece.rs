//! A batch of changes as it waits for its commit, and sorted batches made of such pieces.

use super::history::{Came, End, SourceOrder, Trace};
use super::order::{Entry, KeyMaker, Keys, Newness, last_of_each, sorted};
use super::partition::{PartitionNames, evaluate};
use super::shape::{LakeShape, Origin, adapt, arrow_error, data};
use crate::error::{Error, Result};
use crate::event::{ChangeBatch, CutPoint, Operation};
use crate::table::{MadeOnce, SortedChanges};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt32Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{filter, filter_record_batch, interleave};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that a sort needs a row besides the row itself.
const SORT_BYTES_A_ROW: usize = 40;
/// Most rows in a batch of sorted changes.
const OUTPUT_ROWS: usize = 16 * 1024;

/// What rows say about their transactions: commit times, and position texts in one buffer.
#[derive(Debug)]
pub(super) struct Stamps {
    commit_times: Vec<i64>,
    texts: String,
    ends: Vec<usize>,
}

impl Stamps {
    fn of(batch: &ChangeBatch) -> Self {
        let count = batch.transactions.len();
        let mut stamps = Self {
            commit_times: Vec::with_capacity(count),
            texts: String::with_capacity(count * 44),
            ends: Vec::with_capacity(count),
        };
        for stamp in batch.transactions.iter() {
            stamps.commit_times.push(stamp.source_commit_time.as_micros());
            // writing into a String doesn't fail
            let _ = match &stamp.gtid {
                Some(gtid) => write!(stamps.texts, "{gtid}"),
                None => write!(stamps.texts, "{}", stamp.coordinates),
            };
            stamps.ends.push(stamps.texts.len());
        }
        stamps
    }

    fn text(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.texts[start..self.ends[i]]
    }

    fn bytes(&self) -> usize {
        self.texts.len() + 16 * self.ends.len()
    }
}

/// Where a piece belongs in its table's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The cut that closes its window.
    pub(super) closing: CutPoint,
    /// How many truncations of the table came before it on its lane.
    pub(super) generation: u64,
    /// Its number among all pieces of the table: later pieces win.
    pub(super) arrival: u64,
}

/// Changes of one table that wait for their commit, in the shape that they came in.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) place: Place,
    pub(super) bytes: usize,
    rows: RecordBatch,
    is_delete: BooleanArray,
    stamps: UInt32Array,
    transactions: Stamps,
    is_snapshot: bool,
    trace: Option<PieceTrace>,
}

/// What a history needs of a piece besides.
#[derive(Debug)]
struct PieceTrace {
    operations: UInt8Array,
    /// Each transaction's place.
    orders: Vec<SourceOrder>,
}

impl Piece {
    /// Takes `batch` without the rows of the transactions that `is_covered` names; `None` if nothing remains.
    /// `is_traced`: with what a history needs.
    pub(super) fn new(
        place: Place,
        batch: &ChangeBatch,
        is_traced: bool,
        is_covered: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>> {
        check(batch)?;
        let covered: Vec<bool> = (0..batch.transactions.len()).map(is_covered).collect();
        let deletes = batch.operations.values().iter().map(|code| *code == Operation::Delete.code());
        let is_delete = BooleanArray::new(arrow::buffer::BooleanBuffer::from_iter(deletes), None);
        let (rows, is_delete, stamps, operations) = if covered.contains(&true) {
            let kept = batch.stamps.values().iter().map(|stamp| !covered[*stamp as usize]);
            let mask = BooleanArray::new(arrow::buffer::BooleanBuffer::from_iter(kept), None);
            let filtered = |array: &dyn Array| filter(array, &mask).map_err(arrow_error);
            (
                filter_record_batch(&batch.rows, &mask).map_err(arrow_error)?,
                BooleanArray::from(filtered(&is_delete)?.to_data()),
                UInt32Array::from(filtered(&batch.stamps)?.to_data()),
                UInt8Array::from(filtered(&batch.operations)?.to_data()),
            )
        } else {
            (batch.rows.clone(), is_delete, batch.stamps.clone(), batch.operations.clone())
        };
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let transactions = Stamps::of(batch);
        let values: usize = rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        let bytes = values + transactions.bytes() + rows.num_rows() * SORT_BYTES_A_ROW;
        let is_snapshot = batch.transactions[stamps.value(0) as usize].is_snapshot;
        let trace = is_traced.then(|| PieceTrace {
            operations,
            orders: (0..).zip(batch.transactions.iter()).map(|(i, stamp)| SourceOrder::of(stamp, place.arrival, i)).collect(),
        });
        Ok(Some(Self { place, bytes, rows, is_delete, stamps, transactions, is_snapshot, trace }))
    }

    /// The transactions that it has rows of.
    pub(super) fn source_transactions(&self) -> impl Iterator<Item = Came> {
        let mut last = None;
        let stamps = self.stamps.values().iter().map(|stamp| *stamp as usize);
        // rows of one transaction follow each other
        let stamps = stamps.filter(move |stamp| last.replace(*stamp) != Some(*stamp));
        let trace = self.trace.iter();
        trace.zip(std::iter::once(stamps)).flat_map(move |(trace, stamps)| stamps.map(move |stamp| self.came(trace, stamp)))
    }

    /// The transactions that have a DELETE in it (`any`: all), with their positions; one may come more than once.
    pub(super) fn ends(&self, any: bool) -> impl Iterator<Item = End> {
        let mut last = None;
        let is_end = move |row: &usize| any || self.is_delete.value(*row);
        let stamps = (0..self.rows.num_rows()).filter(is_end).map(|row| self.stamps.value(row) as usize);
        let stamps = stamps.filter(move |stamp| last.replace(*stamp) != Some(*stamp));
        let came = |trace: &PieceTrace, stamp: usize| (self.came(trace, stamp), self.transactions.text(stamp).to_owned());
        let trace = self.trace.iter();
        trace.zip(std::iter::once(stamps)).flat_map(move |(trace, stamps)| stamps.map(move |stamp| came(trace, stamp)))
    }

    fn came(&self, trace: &PieceTrace, stamp: usize) -> Came {
        Came {
            epoch: self.place.closing.epoch,
            order: trace.orders[stamp],
            source_commit_time: self.transactions.commit_times[stamp],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// When the source committed its first transaction; `None` for a snapshot's rows.
    pub(super) fn first_commit_time(&self) -> Option<i64> {
        self.stamps.values().first().filter(|_| !self.is_snapshot).map(|stamp| self.transactions.commit_times[*stamp as usize])
    }
}

/// Whether a batch's parts fit together: they came from the stream.
fn check(batch: &ChangeBatch) -> Result<()> {
    let rows = batch.rows.num_rows();
    let transactions = u32::try_from(batch.transactions.len()).unwrap_or(u32::MAX);
    let fits = batch.operations.len() == rows
        && batch.stamps.len() == rows
        && batch.stamps.null_count() == 0
        && batch.stamps.values().iter().all(|stamp| *stamp < transactions)
        && batch.operations.values().iter().all(|code| Operation::from_code(*code).is_some());
    if fits {
        Ok(())
    } else {
        Err(Error::new(crate::error::Area::Stream, crate::error::Kind::Corrupt, "a batch of changes contradicts itself"))
    }
}

/// A piece of a sorted sequence of changes, with the lake's columns.
#[derive(Debug)]
pub(super) struct SortedPiece {
    pub(super) rows: RecordBatch,
    pub(super) is_delete: BooleanArray,
    /// Each row's partition number; empty: the table is unpartitioned.
    pub(super) partitions: Vec<u32>,
    /// Each row's arrival.
    pub(super) arrivals: Vec<u64>,
    /// Where all changes are kept: what a history needs of each.
    pub(super) trace: Option<Trace>,
}

impl SortedPiece {
    /// What a table takes of it.
    pub(super) fn into_changes(self) -> SortedChanges {
        SortedChanges { rows: self.rows, is_delete: self.is_delete }
    }
}

/// Rows, and whether each is a delete, by their places among a fold's rows as they are sorted: a table and its history both want them.
pub(super) type Gathered = MadeOnce<(usize, usize), (RecordBatch, BooleanArray)>;

/// Bytes of gathered rows that may wait.
const GATHERED_BYTES: usize = 32 << 20;

/// None yet.
pub(super) fn gathered() -> Gathered {
    MadeOnce::new(GATHERED_BYTES, |(rows, _)| rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum())
}

/// Pieces, sorted and folded: gives their rows out in the lake's columns.
#[derive(Debug)]
pub(super) struct SortedPieces {
    shape: Arc<LakeShape>,
    pieces: Vec<Arc<Piece>>,
    /// The source's columns in today's shape: [piece][column].
    columns: Vec<Vec<ArrayRef>>,
    partitions: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    next: usize,
    row_bytes: Vec<usize>,
    most_bytes: usize,
    keeps_all: bool,
    /// Where all rows are kept, because that is wanted or because no key has two: what is put together for the other one as well.
    gathered: Option<Arc<Gathered>>,
}

impl SortedPieces {
    /// Sorts `pieces` (in the order of arrival) by (partition, key) and keeps each key's last row.
    /// Batches of about `most_bytes` are given out.
    pub(super) fn new(
        shape: &Arc<LakeShape>,
        pieces: Vec<Arc<Piece>>,
        fill: Option<&RecordBatch>,
        names: &mut PartitionNames,
        most_bytes: usize,
    ) -> Result<Self> {
        Self::sorted(shape, pieces, fill, Some(names), most_bytes)
    }

    /// Sorts `pieces` by key and keeps all rows, those of a key in the order of arrival.
    pub(super) fn all(
        shape: &Arc<LakeShape>,
        pieces: Vec<Arc<Piece>>,
        fill: Option<&RecordBatch>,
        most_bytes: usize,
    ) -> Result<Self> {
        Self::sorted(shape, pieces, fill, None, most_bytes)
    }

    fn sorted(
        shape: &Arc<LakeShape>,
        pieces: Vec<Arc<Piece>>,
        fill: Option<&RecordBatch>,
        mut names: Option<&mut PartitionNames>,
        most_bytes: usize,
    ) -> Result<Self> {
        let key = &shape.source().key;
        let types: Vec<_> = key.iter().map(|&i| shape.source_arrow().field(i).data_type().clone()).collect();
        let maker = KeyMaker::new(shape.key_names(), &types)?;
        let mut columns = Vec::with_capacity(pieces.len());
        let mut keys: Vec<Keys> = Vec::with_capacity(pieces.len());
        let mut partitions = Vec::new();
        for piece in &pieces {
            let adapted = adapt(&piece.rows, shape.source_arrow(), fill)?;
            let key_columns: Vec<_> = key.iter().map(|&i| adapted[i].clone()).collect();
            keys.push(maker.keys(&key_columns)?);
            if let Some(names) = names.as_deref_mut().filter(|_| shape.partition_by().is_some()) {
                partitions.push(names.numbers(shape.partition_columns(), &partition_values(shape, &adapted)?)?);
            }
            columns.push(adapted);
        }
        let of_number = names.as_deref().map(PartitionNames::ranks).unwrap_or_default();
        let ranks: Vec<Vec<u32>> =
            partitions.iter().map(|numbers| numbers.iter().map(|number| of_number[*number as usize]).collect()).collect();
        let newness = match shape.ordering().and_then(|name| shape.source().index_of(name)) {
            None => None,
            Some(ordering) => {
                let newness = Newness::new(shape.source_arrow().field(ordering).data_type())?;
                Some(columns.iter().map(|columns| newness.of(&columns[ordering])).collect::<Result<Vec<_>>>()?)
            }
        };
        let keeps_all = names.is_none();
        let entries = if keeps_all {
            sorted(&keys, &[])
        } else {
            let (entries, late) = last_of_each(&keys, &ranks, newness.as_deref());
            count_late(shape, late);
            entries
        };
        let row_bytes = pieces.iter().map(|piece| piece.bytes / piece.len().max(1) + 1).collect();
        let (shape, gathered) = (shape.clone(), None);
        Ok(Self { shape, pieces, columns, partitions, entries, next: 0, row_bytes, most_bytes, keeps_all, gathered })
    }

    /// From now on what `gathered` has is taken from there, where these are all rows and in the order of keys alone.
    pub(super) fn sharing(mut self, gathered: Option<&Arc<Gathered>>) -> Self {
        let rows: usize = self.pieces.iter().map(|piece| piece.len()).sum();
        let has_all = self.entries.len() == rows && self.partitions.is_empty();
        self.gathered = gathered.filter(|_| has_all).cloned();
        self
    }

    /// Rows in all.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn gather(&self, range: Range<usize>) -> Result<SortedPiece> {
        let entries = &self.entries[range.clone()];
        let indices: Vec<(usize, usize)> = entries.iter().map(|entry| (entry.batch as usize, entry.row as usize)).collect();
        let (rows, is_delete) = match self.gathered.as_ref().filter(|gathered| gathered.is_worthwhile()) {
            Some(gathered) => gathered.get((range.start, range.end), || self.rows(&indices))?,
            None => self.rows(&indices)?,
        };
        Ok(SortedPiece {
            rows,
            is_delete,
            partitions: match self.shape.partition_by() {
                Some(_) if !self.keeps_all => indices.iter().map(|(piece, row)| self.partitions[*piece][*row]).collect(),
                _ => Vec::new(),
            },
            arrivals: indices.iter().map(|(piece, _)| self.pieces[*piece].place.arrival).collect(),
            trace: if self.keeps_all { Some(self.trace(&indices)?) } else { None },
        })
    }

    /// Rows of the pieces in the lake's columns, and whether each is a delete.
    fn rows(&self, indices: &[(usize, usize)]) -> Result<(RecordBatch, BooleanArray)> {
        let mut source: Vec<ArrayRef> = Vec::with_capacity(self.shape.source_arrow().fields().len());
        for i in 0..self.shape.source_arrow().fields().len() {
            let values: Vec<&dyn Array> = self.columns.iter().map(|columns| columns[i].as_ref()).collect();
            source.push(interleave(&values, indices).map_err(arrow_error)?);
        }
        let transactions =
            || indices.iter().map(|(piece, row)| (&self.pieces[*piece], self.pieces[*piece].stamps.value(*row) as usize));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.shape.origins().len());
        for origin in self.shape.origins() {
            columns.push(match *origin {
                Origin::Source(i) => source[i].clone(),
                Origin::CommitTs => {
                    let times: ScalarBuffer<i64> =
                        transactions().map(|(piece, stamp)| piece.transactions.commit_times[stamp]).collect();
                    Arc::new(TimestampMicrosecondArray::new(times, None).with_timezone("UTC"))
                }
                Origin::Position => Arc::new(texts(transactions().map(|(piece, stamp)| piece.transactions.text(stamp)))?),
                Origin::Derived(field) => {
                    let field = &self.shape.partition_by().map_or(&[][..], |by| &by.fields)[field];
                    evaluate(field, &self.shape.partition_source(&field.column, &source)?)?
                }
            });
        }
        let deleted = indices.iter().map(|(piece, row)| self.pieces[*piece].is_delete.value(*row));
        let rows = RecordBatch::try_new(self.shape.carried().clone(), columns)
            .map_err(|error| data("a row doesn't fit the table's columns").caused_by(error))?;
        Ok((rows, BooleanArray::new(arrow::buffer::BooleanBuffer::from_iter(deleted), None)))
    }
}

impl SortedPieces {
    fn trace(&self, indices: &[(usize, usize)]) -> Result<Trace> {
        let mut trace = Trace::default();
        for (piece, row) in indices {
            let piece = &self.pieces[*piece];
            let of = piece.trace.as_ref().ok_or_else(|| Error::bug("a change came without what its history needs"))?;
            trace.operations.push(of.operations.value(*row));
            trace.orders.push(of.orders[piece.stamps.value(*row) as usize]);
        }
        Ok(trace)
    }
}

impl Iterator for SortedPieces {
    type Item = Result<SortedPiece>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        let mut bytes = 0;
        while self.next < self.entries.len() && (self.next == start || (bytes < self.most_bytes && self.next - start < OUTPUT_ROWS))
        {
            bytes += self.row_bytes[self.entries[self.next].batch as usize];
            self.next += 1;
        }
        (self.next > start).then(|| self.gather(start..self.next))
    }
}

/// Notes rows that lost against a newer one.
pub(super) fn count_late(shape: &LakeShape, late: u64) {
    if late > 0 {
        metrics::counter!(crate::metrics::LATE_ROWS, "table" => shape.source().table.to_string()).increment(late);
    }
}

/// The partition columns' values, from the source's columns.
fn partition_values(shape: &LakeShape, source: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let fields = shape.partition_by().map_or(&[][..], |by| &by.fields);
    fields.iter().map(|field| evaluate(field, &shape.partition_source(&field.column, source)?)).collect()
}

/// A string array without an allocation a value.
fn texts<'a>(values: impl Iterator<Item = &'a str>) -> Result<StringArray> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut ends: Vec<i32> = vec![0];
    for value in values {
        bytes.extend_from_slice(value.as_bytes());
        ends.push(i32::try_from(bytes.len()).map_err(|_| Error::bug("a batch of positions is too large"))?);
    }
    StringArray::try_new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), None).map_err(arrow_error)
}
