//! Several sorted sequences become one, with each key's last arrival.

use super::heap::{heapify, sift_down};
use super::history::Trace;
use super::order::{KeyMaker, Keys, Newness};
use super::piece::{SortedPiece, count_late};
use super::shape::{LakeShape, arrow_error};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use std::cmp::Ordering;
use std::sync::Arc;

/// Most rows in a batch that comes out.
const OUTPUT_ROWS: usize = 8 * 1024;

/// A sorted sequence that is read piece by piece.
pub(super) type Sequence = Box<dyn Iterator<Item = Result<SortedPiece>> + Send>;

/// A piece of a sequence, with what its rows sort by.
struct Loaded {
    piece: SortedPiece,
    keys: Keys,
    /// Each row's partition rank; empty: unpartitioned.
    ranks: Vec<u32>,
    /// The values of the ordering column, where there is one.
    newness: Option<Rows>,
}

/// Where a sequence stands.
struct Cursor {
    sequence: Sequence,
    /// Index into `loaded`.
    slot: usize,
    row: usize,
}

/// A row in `loaded`.
#[derive(Debug, Clone, Copy)]
struct Spot {
    slot: usize,
    row: usize,
}

/// Merges sequences that are each sorted by (partition, key) and free of duplicates.
pub(super) struct MergedRuns {
    shape: Arc<LakeShape>,
    maker: KeyMaker,
    key_columns: Vec<usize>,
    /// The ordering column, and what compares its values.
    ordering: Option<(usize, Newness)>,
    ranks: Vec<u32>,
    cursors: Vec<Cursor>,
    /// Indices into `cursors`, a binary heap with the smallest row first.
    heap: Vec<usize>,
    loaded: Vec<Loaded>,
    chosen: Vec<Spot>,
    failed: bool,
    keeps_all: bool,
    /// Those of the rows.
    columns: SchemaRef,
}

impl MergedRuns {
    /// `ranks` has the rank of each partition number.
    pub(super) fn new(shape: &Arc<LakeShape>, ranks: Vec<u32>, sequences: Vec<Sequence>) -> Result<Self> {
        Self::of(shape, shape.carried().clone(), false, ranks, sequences)
    }

    fn of(shape: &Arc<LakeShape>, rows: SchemaRef, keeps_all: bool, ranks: Vec<u32>, sequences: Vec<Sequence>) -> Result<Self> {
        let key_names = shape.key_names();
        let key_columns: Vec<usize> =
            key_names.iter().map(|name| rows.index_of(name).map_err(arrow_error)).collect::<Result<_>>()?;
        let types: Vec<_> = key_columns.iter().map(|&i| rows.field(i).data_type().clone()).collect();
        let ordering = match shape.ordering() {
            None => None,
            Some(name) => {
                let column = rows.index_of(name).map_err(arrow_error)?;
                Some((column, Newness::new(rows.field(column).data_type())?))
            }
        };
        let mut merged = Self {
            ordering,
            shape: shape.clone(),
            maker: KeyMaker::new(key_names, &types)?,
            key_columns,
            ranks,
            cursors: Vec::new(),
            heap: Vec::new(),
            loaded: Vec::new(),
            chosen: Vec::new(),
            failed: false,
            keeps_all,
            columns: rows,
        };
        for mut sequence in sequences {
            if let Some(slot) = merged.load(&mut sequence)? {
                merged.heap.push(merged.cursors.len());
                merged.cursors.push(Cursor { sequence, slot, row: 0 });
            }
        }
        let mut heap = std::mem::take(&mut merged.heap);
        heapify(&mut heap, |a, b| merged.is_before(a, b));
        merged.heap = heap;
        Ok(merged)
    }

    /// The same, with all rows, in the lake's columns: `sequences` may have a key more than once, in the order of arrival.
    pub(super) fn all(shape: &Arc<LakeShape>, sequences: Vec<Sequence>) -> Result<Self> {
        Self::of(shape, shape.columns().clone(), true, Vec::new(), sequences)
    }

    /// The next piece of a sequence that has rows.
    fn load(&mut self, sequence: &mut Sequence) -> Result<Option<usize>> {
        let piece = loop {
            match sequence.next().transpose()? {
                Some(piece) if piece.rows.num_rows() == 0 => {}
                Some(piece) => break piece,
                None => return Ok(None),
            }
        };
        let columns: Vec<ArrayRef> = self.key_columns.iter().map(|&i| piece.rows.column(i).clone()).collect();
        let keys = self.maker.keys(&columns)?;
        // where all rows are kept, partitions don't count
        let ranks = piece.partitions.iter().filter_map(|number| self.ranks.get(*number as usize).copied()).collect();
        let newness = match &self.ordering {
            Some((column, newness)) => Some(newness.of(piece.rows.column(*column))?),
            None => None,
        };
        self.loaded.push(Loaded { piece, keys, ranks, newness });
        Ok(Some(self.loaded.len() - 1))
    }

    /// By partition and key alone.
    fn compare_keys(&self, a: Spot, b: Spot) -> Ordering {
        let (x, y) = (&self.loaded[a.slot], &self.loaded[b.slot]);
        let rank = |loaded: &Loaded, row: usize| loaded.ranks.get(row).copied().unwrap_or(0);
        rank(x, a.row).cmp(&rank(y, b.row)).then_with(|| x.keys.compare(a.row, &y.keys, b.row))
    }

    /// Whether the table's ordering says that `a` is older than `b`.
    fn is_older(&self, a: Spot, b: Spot) -> bool {
        match (&self.loaded[a.slot].newness, &self.loaded[b.slot].newness) {
            (Some(x), Some(y)) => x.row(a.row) < y.row(b.row),
            _ => false,
        }
    }

    fn spot(&self, cursor: usize) -> Spot {
        Spot { slot: self.cursors[cursor].slot, row: self.cursors[cursor].row }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.spot(a), self.spot(b));
        let arrival = |spot: Spot| self.loaded[spot.slot].piece.arrivals[spot.row];
        self.compare_keys(a, b).then_with(|| arrival(a).cmp(&arrival(b))).is_lt()
    }

    fn sift_down(&mut self) {
        let mut heap = std::mem::take(&mut self.heap);
        sift_down(&mut heap, 0, |a, b| self.is_before(a, b));
        self.heap = heap;
    }

    /// Moves the first cursor on by one row.
    fn advance(&mut self) -> Result<()> {
        let first = self.heap[0];
        self.cursors[first].row += 1;
        if self.cursors[first].row == self.loaded[self.cursors[first].slot].piece.rows.num_rows() {
            let mut sequence = std::mem::replace(&mut self.cursors[first].sequence, Box::new(std::iter::empty()));
            match self.load(&mut sequence)? {
                Some(slot) => self.cursors[first] = Cursor { sequence, slot, row: 0 },
                None => {
                    self.heap.swap_remove(0);
                }
            }
        }
        self.sift_down();
        Ok(())
    }

    fn step(&mut self) -> Result<Option<SortedPiece>> {
        while let Some(&first) = self.heap.first() {
            let spot = self.spot(first);
            match self.chosen.last().copied() {
                Some(last) if !self.keeps_all && self.compare_keys(last, spot).is_eq() => {
                    if self.is_older(spot, last) {
                        count_late(&self.shape, 1);
                    } else if let Some(last) = self.chosen.last_mut() {
                        *last = spot;
                    }
                }
                _ => {
                    // pieces that are used up stay until the rows chosen from them are out
                    if self.chosen.len() >= OUTPUT_ROWS || self.loaded.len() > 2 * self.cursors.len() + 8 {
                        return self.gather().map(Some);
                    }
                    self.chosen.push(spot);
                }
            }
            self.advance()?;
        }
        if self.chosen.is_empty() { Ok(None) } else { self.gather().map(Some) }
    }

    /// The chosen rows; lets go of the pieces that are used up.
    fn gather(&mut self) -> Result<SortedPiece> {
        let indices: Vec<(usize, usize)> = self.chosen.iter().map(|spot| (spot.slot, spot.row)).collect();
        let columns: Vec<ArrayRef> = (0..self.columns.fields().len())
            .map(|i| {
                let values: Vec<&dyn Array> = self.loaded.iter().map(|loaded| loaded.piece.rows.column(i).as_ref()).collect();
                interleave(&values, &indices).map_err(arrow_error)
            })
            .collect::<Result<_>>()?;
        let deleted = self.chosen.iter().map(|spot| self.loaded[spot.slot].piece.is_delete.value(spot.row));
        let is_delete = BooleanArray::new(arrow::buffer::BooleanBuffer::from_iter(deleted), None);
        let rows = RecordBatch::try_new(self.columns.clone(), columns).map_err(arrow_error)?;
        let mut trace = self.keeps_all.then(Trace::default);
        if let Some(trace) = &mut trace {
            for spot in &self.chosen {
                let of = self.loaded[spot.slot].piece.trace.as_ref();
                let of = of.ok_or_else(|| Error::bug("a change came without what its history needs"))?;
                trace.operations.push(of.operations[spot.row]);
                trace.orders.push(of.orders[spot.row]);
            }
        }
        self.chosen.clear();
        let mut kept: Vec<Option<Loaded>> = std::mem::take(&mut self.loaded).into_iter().map(Some).collect();
        for &cursor in &self.heap {
            let slot = self.cursors[cursor].slot;
            let loaded = kept[slot].take().ok_or_else(|| Error::bug("two cursors share a piece"))?;
            self.cursors[cursor].slot = self.loaded.len();
            self.loaded.push(loaded);
        }
        Ok(SortedPiece { rows, is_delete, partitions: Vec::new(), arrivals: Vec::new(), trace })
    }
}

impl Iterator for MergedRuns {
    type Item = Result<SortedPiece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}
