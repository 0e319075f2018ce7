//! The directory of a chunk's body: shapes, transactions, and the sections with all of their rows that isn't Arrow.

use super::batch::{ALIGNMENT, EncodedBatch, decode_batch, encode_batch, padding};
use super::filter::{Filtered, put_filtered, read_filtered, restore};
use super::transactions::{put_transactions, read_transactions};
use super::wire::{Wire, put_bytes, put_int, put_len};
use super::{Section, damaged};
use crate::error::{Error, Result};
use crate::event::{ChangeBatch, ChangedColumns, Operation, TableId, TableSchema, TransactionStamp};
use arrow::array::{Array, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use std::ops::Range;
use std::sync::Arc;

const ROWS: u8 = 1;
const TRUNCATE: u8 = 2;
const NEW_SHAPE: u8 = 3;

const ONE_OPERATION: u8 = 0;
const EACH_OPERATION: u8 = 1;

const CHANGED_UNKNOWN: u8 = 0;
const CHANGED_ALL: u8 = 1;
const CHANGED_SOME: u8 = 2;

/// Collects shapes and transactions while sections are written.
#[derive(Debug, Default)]
pub(super) struct Directory<'a> {
    shapes: Vec<&'a Arc<TableSchema>>,
    lists: Vec<TransactionList<'a>>,
    sections: Vec<u8>,
    batches: Vec<EncodedBatch>,
}

/// The transactions of one shared list that the chunk's rows refer to.
#[derive(Debug)]
struct TransactionList<'a> {
    all: &'a [TransactionStamp],
    /// For each of `all`, whether a row of this chunk refers to it.
    is_used: Vec<bool>,
    /// For each of `all`, its index among the used ones.
    index: Vec<u32>,
}

impl<'a> Directory<'a> {
    /// The directory's bytes, and the batches to which it refers, in order.
    pub(super) fn encode(sections: &'a [Section]) -> Result<(Vec<u8>, Vec<EncodedBatch>)> {
        let mut directory = Directory::default();
        sections.iter().try_for_each(|section| directory.use_transactions(section))?;
        for list in &mut directory.lists {
            list.index = Vec::with_capacity(list.is_used.len());
            let mut next = 0;
            for used in &list.is_used {
                list.index.push(next);
                next += u32::from(*used);
            }
        }
        sections.iter().try_for_each(|section| directory.put_section(section))?;
        let mut out = Vec::with_capacity(directory.sections.len() + 1024);
        put_len(&mut out, directory.batches.len());
        for batch in &directory.batches {
            put_len(&mut out, batch.message.len());
            put_len(&mut out, batch.body.len());
            put_filtered(&mut out, &batch.filtered);
        }
        put_len(&mut out, directory.shapes.len());
        for shape in &directory.shapes {
            let text =
                serde_json::to_vec(shape).map_err(|error| Error::bug("a table's shape can't be written").caused_by(error))?;
            put_bytes(&mut out, &text);
        }
        put_len(&mut out, directory.lists.len());
        for list in &directory.lists {
            let used: Vec<_> = list.all.iter().zip(&list.is_used).filter_map(|(stamp, used)| used.then_some(stamp)).collect();
            put_transactions(&mut out, used.into_iter());
        }
        put_len(&mut out, sections.len());
        out.append(&mut directory.sections);
        Ok((out, directory.batches))
    }

    fn use_transactions(&mut self, section: &'a Section) -> Result<()> {
        match section {
            Section::Rows(rows) => {
                check_batch(rows)?;
                let list = self.list(&rows.transactions);
                let is_used = &mut self.lists[list].is_used;
                let mut last = u32::MAX;
                for stamp in rows.stamps.values() {
                    if *stamp != last {
                        last = *stamp;
                        *is_used
                            .get_mut(last as usize)
                            .ok_or_else(|| Error::bug("a row refers to a transaction that its batch does not have"))? = true;
                    }
                }
            }
            Section::Truncate { stamp, .. } | Section::NewShape { stamp, .. } => {
                let list = self.list(std::slice::from_ref(stamp));
                self.lists[list].is_used[0] = true;
            }
        }
        Ok(())
    }

    /// The list with these very transactions; batches that were built together share one.
    fn list(&mut self, all: &'a [TransactionStamp]) -> usize {
        self.lists.iter().position(|list| std::ptr::eq(list.all, all)).unwrap_or_else(|| {
            self.lists.push(TransactionList { all, is_used: vec![false; all.len()], index: Vec::new() });
            self.lists.len() - 1
        })
    }

    fn shape(&mut self, shape: &'a Arc<TableSchema>) -> usize {
        self.shapes.iter().position(|known| Arc::ptr_eq(known, shape) || *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        })
    }

    fn put_section(&mut self, section: &'a Section) -> Result<()> {
        match section {
            Section::Rows(rows) => {
                let shape = self.shape(&rows.schema);
                let list = self.list(&rows.transactions);
                let out = &mut self.sections;
                out.push(ROWS);
                put_len(out, shape);
                put_len(out, list);
                self.put_batch(&rows.rows)?;
                let out = &mut self.sections;
                put_operations(out, rows.operations.values());
                put_stamps(out, rows.stamps.values(), &self.lists[list].index);
                put_changed(out, rows.changed.as_ref());
                Ok(())
            }
            Section::Truncate { table, stamp } => {
                let list = self.list(std::slice::from_ref(stamp));
                let out = &mut self.sections;
                out.push(TRUNCATE);
                put_bytes(out, table.database().as_bytes());
                put_bytes(out, table.name().as_bytes());
                put_len(out, list);
                Ok(())
            }
            Section::NewShape { schema, fill, stamp } => {
                let shape = self.shape(schema);
                let list = self.list(std::slice::from_ref(stamp));
                let out = &mut self.sections;
                out.push(NEW_SHAPE);
                put_len(out, shape);
                put_len(out, list);
                put_len(out, fill.as_ref().map_or(0, RecordBatch::num_columns));
                let Some(fill) = fill.as_ref().filter(|fill| fill.num_columns() > 0) else { return Ok(()) };
                for field in fill.schema_ref().fields() {
                    let column = schema.index_of(field.name());
                    put_len(out, column.ok_or_else(|| Error::bug("a fill value for a column that the shape does not have"))?);
                }
                self.put_batch(fill)
            }
        }
    }

    fn put_batch(&mut self, rows: &RecordBatch) -> Result<()> {
        self.batches.push(encode_batch(rows)?);
        Ok(())
    }
}

/// What decoding relies on.
fn check_batch(batch: &ChangeBatch) -> Result<()> {
    let rows = batch.rows.num_rows();
    let changed_fits = batch.changed.as_ref().is_none_or(|changed| changed.len() == rows);
    let types_fit = batch.rows.num_columns() == batch.schema.columns.len()
        && batch
            .schema
            .columns
            .iter()
            .zip(batch.rows.columns())
            .all(|(column, array)| column.source_type.lake_type() == *array.data_type());
    if batch.operations.len() != rows || batch.stamps.len() != rows || !changed_fits || !types_fit {
        return Err(Error::bug("a batch of changes contradicts itself").with("table", &batch.schema.table));
    }
    Ok(())
}

fn put_operations(out: &mut Vec<u8>, operations: &[u8]) {
    match operations.first() {
        Some(first) if operations.iter().all(|operation| operation == first) => out.extend_from_slice(&[ONE_OPERATION, *first]),
        _ => {
            out.push(EACH_OPERATION);
            out.extend_from_slice(operations);
        }
    }
}

/// Runs of rows of one transaction: how many runs, then a pair each of steps to the transaction and rows less one.
fn put_stamps(out: &mut Vec<u8>, stamps: &[u32], index: &[u32]) {
    let mut runs = Vec::with_capacity(64);
    let (mut count, mut at) = (0_usize, 0_u32);
    for run in stamps.chunk_by(|a, b| a == b) {
        let to = index[run[0] as usize];
        put_int(&mut runs, i64::from(to) - i64::from(at));
        put_len(&mut runs, run.len() - 1);
        at = to;
        count += 1;
    }
    put_len(out, count);
    out.append(&mut runs);
}

fn put_changed(out: &mut Vec<u8>, changed: Option<&ChangedColumns>) {
    let Some(changed) = changed else { return out.push(CHANGED_UNKNOWN) };
    out.push(if changed.null_count() == 0 { CHANGED_ALL } else { CHANGED_SOME });
    put_len(out, usize::try_from(changed.value_length()).unwrap_or(0));
    out.extend_from_slice(changed.values());
    if let Some(nulls) = changed.nulls().filter(|nulls| nulls.null_count() > 0) {
        out.extend_from_slice(&nulls.inner().sliced());
    }
}

/// A body that is being read.
struct Reader<'a> {
    body: &'a Buffer,
    /// The directory, from `directory_start` in `body` on.
    wire: Wire<'a>,
    directory_start: usize,
    shapes: Vec<(Arc<TableSchema>, SchemaRef)>,
    lists: Vec<Arc<Vec<TransactionStamp>>>,
    /// Arrow messages and bodies that were not yet taken.
    batches: std::vec::IntoIter<(Buffer, Buffer)>,
}

/// Where a batch lies in a body.
struct Piece {
    message: Range<usize>,
    body: Range<usize>,
    filtered: Vec<Filtered>,
}

/// Reads where the batches lie: one after the other from `at` on, in a body of `len` bytes.
fn read_pieces(wire: &mut Wire<'_>, mut at: usize, len: usize) -> Result<Vec<Piece>> {
    let mut next = |bytes: usize| {
        let range = at..at.checked_add(bytes).filter(|end| *end <= len).ok_or_else(|| damaged("a batch ends early"))?;
        at = range.end + padding(range.end);
        Ok(range)
    };
    (0..wire.count()?)
        .map(|_| {
            let (message, body) = (wire.len()?, wire.len()?);
            Ok(Piece { message: next(message)?, body: next(body)?, filtered: read_filtered(wire)? })
        })
        .collect()
}

/// Reads a whole body.
pub(super) fn decode_sections(mut body: Vec<u8>) -> Result<Vec<Section>> {
    let mut start = Wire::new(&body);
    let len: [u8; 4] = start.take(4)?.try_into().map_err(|_| damaged("it ends early"))?;
    let directory = start.take(u32::from_le_bytes(len) as usize)?;
    let directory_end = start.position();
    let mut wire = Wire::new(directory);
    let pieces = read_pieces(&mut wire, directory_end.next_multiple_of(ALIGNMENT), body.len())?;
    let directory_start = directory_end - wire.remaining();
    for piece in &pieces {
        restore(&piece.filtered, &mut body[piece.body.clone()])?;
    }
    let body = &Buffer::from_vec(body);
    let slice = |range: Range<usize>| body.slice_with_length(range.start, range.len());
    let batches: Vec<_> = pieces.into_iter().map(|piece| (slice(piece.message), slice(piece.body))).collect();
    let wire = Wire::new(&body[directory_start..directory_end]);
    let batches = batches.into_iter();
    let mut reader = Reader { body, wire, directory_start, shapes: Vec::new(), lists: Vec::new(), batches };
    for _ in 0..reader.wire.count()? {
        let shape: TableSchema = serde_json::from_slice(reader.wire.bytes()?)
            .map_err(|error| damaged("a table's shape can't be read").caused_by(error))?;
        if shape.columns.is_empty() || shape.key.iter().any(|column| *column >= shape.columns.len()) {
            return Err(damaged("a table's shape contradicts itself"));
        }
        let arrow = shape.arrow();
        reader.shapes.push((Arc::new(shape), arrow));
    }
    for _ in 0..reader.wire.count()? {
        reader.lists.push(Arc::new(read_transactions(&mut reader.wire)?));
    }
    let count = reader.wire.count()?;
    (0..count).map(|_| reader.section()).collect()
}

impl Reader<'_> {
    fn section(&mut self) -> Result<Section> {
        match self.wire.byte()? {
            ROWS => {
                let (schema, arrow) = self.shape()?;
                let transactions = self.list()?;
                let rows = self.batch(&arrow)?;
                let operations = self.operations(rows.num_rows())?;
                let stamps = self.stamps(rows.num_rows(), transactions.len())?;
                let changed = self.changed(rows.num_rows(), schema.columns.len())?;
                Ok(Section::Rows(ChangeBatch { schema, rows, operations, stamps, transactions, changed, before: None }))
            }
            TRUNCATE => {
                let table = TableId::new(self.wire.text()?, self.wire.text()?);
                Ok(Section::Truncate { table, stamp: self.stamp()? })
            }
            NEW_SHAPE => {
                let (schema, arrow) = self.shape()?;
                let stamp = self.stamp()?;
                let fields = (0..self.wire.count()?)
                    .map(|_| Ok(arrow.field(self.wire.index(arrow.fields().len())?).clone().with_nullable(true)))
                    .collect::<Result<Vec<_>>>()?;
                let fill = if fields.is_empty() { None } else { Some(self.batch(&Arc::new(Schema::new(fields)))?) };
                Ok(Section::NewShape { schema, fill, stamp })
            }
            _ => Err(damaged("a section of an unknown kind")),
        }
    }

    fn shape(&mut self) -> Result<(Arc<TableSchema>, SchemaRef)> {
        Ok(self.shapes[self.wire.index(self.shapes.len())?].clone())
    }

    fn list(&mut self) -> Result<Arc<Vec<TransactionStamp>>> {
        Ok(self.lists[self.wire.index(self.lists.len())?].clone())
    }

    fn stamp(&mut self) -> Result<TransactionStamp> {
        self.list()?.first().cloned().ok_or_else(|| damaged("a section without a transaction"))
    }

    fn batch(&mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let (message, body) = self.batches.next().ok_or_else(|| damaged("a batch is not there"))?;
        decode_batch(schema, &message, &body)
    }

    /// Bytes of the directory, uncopied.
    fn shared(&mut self, len: usize) -> Result<Buffer> {
        let at = self.directory_start + self.wire.position();
        self.wire.take(len)?;
        Ok(self.body.slice_with_length(at, len))
    }

    fn operations(&mut self, rows: usize) -> Result<UInt8Array> {
        let codes = match self.wire.byte()? {
            ONE_OPERATION => ScalarBuffer::from(vec![self.wire.byte()?; rows]),
            EACH_OPERATION => ScalarBuffer::from(self.shared(rows)?),
            _ => return Err(damaged("operations of an unknown form")),
        };
        let is_known = |code: &u8| Operation::from_code(*code).is_some();
        if codes.chunk_by(|a, b| a == b).all(|run| is_known(&run[0])) {
            Ok(UInt8Array::new(codes, None))
        } else {
            Err(damaged("an unknown operation"))
        }
    }

    fn stamps(&mut self, rows: usize, transactions: usize) -> Result<UInt32Array> {
        let mut stamps: Vec<u32> = Vec::with_capacity(rows);
        let mut at = 0_i64;
        for _ in 0..self.wire.count()? {
            at = at.wrapping_add(self.wire.int()?);
            let run = self.wire.len()?;
            let stamp = u32::try_from(at).ok().filter(|stamp| (*stamp as usize) < transactions);
            let (Some(stamp), true) = (stamp, run < rows - stamps.len()) else {
                return Err(damaged("a row refers to a transaction that is not there"));
            };
            stamps.resize(stamps.len() + run + 1, stamp);
        }
        if stamps.len() == rows { Ok(stamps.into()) } else { Err(damaged("rows without a transaction")) }
    }

    fn changed(&mut self, rows: usize, columns: usize) -> Result<Option<ChangedColumns>> {
        let form = self.wire.byte()?;
        if form == CHANGED_UNKNOWN {
            return Ok(None);
        }
        let width = self.wire.len()?;
        if width != columns.div_ceil(8) || form > CHANGED_SOME {
            return Err(damaged("changed columns of an unknown form"));
        }
        let values = self.shared(width.checked_mul(rows).ok_or_else(|| damaged("a length is out of range"))?)?;
        let nulls = match form {
            CHANGED_SOME => Some(NullBuffer::new(BooleanBuffer::new(self.shared(rows.div_ceil(8))?, 0, rows))),
            _ => None,
        };
        let width = i32::try_from(width).map_err(|_| damaged("a length is out of range"))?;
        FixedSizeBinaryArray::try_new(width, values, nulls)
            .map(Some)
            .map_err(|error| damaged("changed columns contradict themselves").caused_by(error))
    }
}
