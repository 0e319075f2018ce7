//! Changes that come in any order and are given out in the table's: in memory as far as that goes, the rest in sorted runs on local disk.

use super::keys::unexpected;
use super::shape::{HistoryShape, PLACE, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO};
use crate::error::{Error, Result};
use crate::merge::heap::{heapify, sift_down};
use crate::merge::spill::{SpillFolder, spill_error};
use crate::table::SortedChanges;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::row::{RowConverter, Rows, SortField};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

/// Rows of a batch of changes.
const BATCH_ROWS: usize = 16 * 1024;
/// Rows of a batch in a run: one of each run is in memory at once.
const RUN_BATCH_ROWS: usize = if cfg!(test) { 16 } else { 2 * 1024 };

/// A sequence of sorted changes.
pub(super) type Sorted = Box<dyn Iterator<Item = Result<SortedChanges>> + Send>;

/// What changes are sorted by: place, ends, record key.
#[derive(Debug)]
struct Order {
    converter: RowConverter,
    names: Vec<String>,
}

impl Order {
    fn keys(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns: Vec<ArrayRef> = self.names.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
        self.converter.convert_columns(&columns).map_err(unexpected)
    }
}

/// Takes changes in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    batches: Vec<SortedChanges>,
    bytes: usize,
    order: Arc<Order>,
    spill: SpillFolder,
    /// Bytes that may wait in memory.
    memory_bytes: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// For the history's rows.
    pub(super) fn new(shape: &HistoryShape, spill: SpillFolder, memory_bytes: usize) -> Result<Self> {
        Self::by(&[PLACE, SYSTEM_TO, VALID_TO], shape, spill, memory_bytes)
    }

    /// For the history's rows, key by key, wherever they lie.
    pub(super) fn by_key(shape: &HistoryShape, spill: SpillFolder, memory_bytes: usize) -> Result<Self> {
        Self::by(&[], shape, spill, memory_bytes)
    }

    fn by(first: &[&str], shape: &HistoryShape, spill: SpillFolder, memory_bytes: usize) -> Result<Self> {
        // as the table is sorted: the record key has its columns in another order
        let names = first.iter().map(|name| (*name).to_owned()).chain(shape.key().to_vec());
        let names = names.chain([VALID_FROM, SYSTEM_FROM].map(str::to_owned)).collect::<Vec<_>>();
        let fields = names.iter().map(|name| Ok(SortField::new(shape.columns().field_with_name(name)?.data_type().clone())));
        let fields = fields.collect::<Result<Vec<_>, arrow::error::ArrowError>>().map_err(unexpected)?;
        let order = Order { converter: RowConverter::new(fields).map_err(unexpected)?, names };
        Ok(Self { batches: Vec::new(), bytes: 0, order: Arc::new(order), spill, memory_bytes, runs: Vec::new() })
    }

    pub(super) fn push(&mut self, changes: SortedChanges) -> Result<()> {
        if changes.rows.num_rows() == 0 {
            return Ok(());
        }
        self.bytes += changes.rows.get_array_memory_size();
        self.batches.push(changes);
        if self.bytes < self.memory_bytes { Ok(()) } else { self.write_run() }
    }

    /// Whether nothing was pushed.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.runs.is_empty()
    }

    /// All of it together with `others`, which are in the same order.
    pub(super) fn sorted_with(self, others: Sorted) -> Result<Sorted> {
        let order = self.order.clone();
        Ok(Box::new(Merged::new(order, vec![self.sorted()?, others])?))
    }

    /// Moves what is in memory to disk.
    fn write_run(&mut self) -> Result<()> {
        self.bytes = 0;
        let batches = std::mem::take(&mut self.batches);
        let schema = with_mark(&batches[0].rows.schema());
        let failed =
            |error: arrow::error::ArrowError| self.spill.failed("a history's changes can't be written to local disk", error);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(unexpected)?;
        let mut writer =
            StreamWriter::try_new_with_options(BufWriter::new(self.spill.file()?), &schema, options).map_err(failed)?;
        for changes in in_memory(&self.order, batches, RUN_BATCH_ROWS)? {
            let SortedChanges { rows, is_delete } = changes?;
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(is_delete));
            writer.write(&RecordBatch::try_new(schema.clone(), columns).map_err(unexpected)?).map_err(failed)?;
        }
        let mut buffered = writer.into_inner().map_err(failed)?;
        let failed = |error: std::io::Error| self.spill.failed("a history's changes can't be written to local disk", error);
        buffered.flush().map_err(failed)?;
        self.runs.push(buffered.into_inner().map_err(|error| failed(error.into_error()))?);
        Ok(())
    }

    /// All of it, sorted.
    pub(super) fn sorted(self) -> Result<Sorted> {
        if self.runs.is_empty() {
            return Ok(Box::new(in_memory(&self.order, self.batches, BATCH_ROWS)?));
        }
        let mut sequences: Vec<Sorted> = Vec::with_capacity(self.runs.len() + 1);
        for mut file in self.runs {
            let failed = self.spill.clone();
            let failed =
                move |error: arrow::error::ArrowError| failed.failed("a history's changes can't be read from local disk", error);
            file.seek(SeekFrom::Start(0)).map_err(|error| failed(error.into()))?;
            let reader = StreamReader::try_new(BufReader::with_capacity(64 << 10, file), None).map_err(&failed)?;
            sequences.push(Box::new(reader.map(move |batch| without_mark(&batch.map_err(&failed)?))));
        }
        sequences.push(Box::new(in_memory(&self.order, self.batches, BATCH_ROWS)?));
        Ok(Box::new(Merged::new(self.order, sequences)?))
    }
}

/// The columns, and whether a row goes.
fn with_mark(columns: &Schema) -> SchemaRef {
    let mark = Arc::new(Field::new("_is_delete", DataType::Boolean, false));
    Arc::new(Schema::new(columns.fields().iter().cloned().chain([mark]).collect::<Vec<_>>()))
}

fn without_mark(batch: &RecordBatch) -> Result<SortedChanges> {
    let last = batch.num_columns() - 1;
    let rows = batch.project(&(0..last).collect::<Vec<_>>()).map_err(unexpected)?;
    Ok(SortedChanges { rows, is_delete: BooleanArray::from(batch.column(last).to_data()) })
}

/// Sorts batches in memory.
fn in_memory(
    order: &Order,
    batches: Vec<SortedChanges>,
    batch_rows: usize,
) -> Result<impl Iterator<Item = Result<SortedChanges>> + Send + use<>> {
    let keys = batches.iter().map(|batch| order.keys(&batch.rows)).collect::<Result<Vec<_>>>()?;
    let mut spots: Vec<(usize, usize)> =
        keys.iter().enumerate().flat_map(|(batch, keys)| (0..keys.num_rows()).map(move |row| (batch, row))).collect();
    spots.sort_unstable_by(|a, b| keys[a.0].row(a.1).cmp(&keys[b.0].row(b.1)));
    drop(keys);
    let mut next = 0;
    Ok(std::iter::from_fn(move || {
        let part = &spots[next..spots.len().min(next + batch_rows)];
        next += part.len();
        (!part.is_empty()).then(|| chosen(&batches, part))
    }))
}

fn chosen(batches: &[SortedChanges], part: &[(usize, usize)]) -> Result<SortedChanges> {
    let schema = batches[0].rows.schema();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for column in 0..schema.fields().len() {
        let values: Vec<&dyn Array> = batches.iter().map(|batch| batch.rows.column(column).as_ref()).collect();
        columns.push(interleave(&values, part).map_err(unexpected)?);
    }
    let deleted = part.iter().map(|(batch, row)| Some(batches[*batch].is_delete.value(*row)));
    Ok(SortedChanges {
        rows: RecordBatch::try_new(schema, columns).map_err(unexpected)?,
        is_delete: BooleanArray::from_iter(deleted),
    })
}

/// Several sorted sequences as one.
struct Merged {
    order: Arc<Order>,
    sequences: Vec<Sorted>,
    /// The batch that each sequence is in, with its keys.
    loaded: Vec<(SortedChanges, Rows)>,
    rows: Vec<usize>,
    /// Numbers of the sequences that aren't exhausted: a binary heap with the least row first.
    heap: Vec<usize>,
    is_over: bool,
}

impl Merged {
    fn new(order: Arc<Order>, sequences: Vec<Sorted>) -> Result<Self> {
        let mut merged =
            Self { order, sequences: Vec::new(), loaded: Vec::new(), rows: Vec::new(), heap: Vec::new(), is_over: false };
        for mut sequence in sequences {
            if let Some(loaded) = merged.load(&mut sequence)? {
                merged.heap.push(merged.sequences.len());
                merged.sequences.push(sequence);
                merged.loaded.push(loaded);
                merged.rows.push(0);
            }
        }
        let mut heap = std::mem::take(&mut merged.heap);
        heapify(&mut heap, |a, b| merged.is_before(a, b));
        merged.heap = heap;
        Ok(merged)
    }

    fn load(&self, sequence: &mut Sorted) -> Result<Option<(SortedChanges, Rows)>> {
        let Some(changes) = sequence.next().transpose()? else { return Ok(None) };
        let keys = self.order.keys(&changes.rows)?;
        Ok(Some((changes, keys)))
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        self.loaded[a].1.row(self.rows[a]) < self.loaded[b].1.row(self.rows[b])
    }

    fn sift_down(&mut self) {
        let mut heap = std::mem::take(&mut self.heap);
        sift_down(&mut heap, 0, |a, b| self.is_before(a, b));
        self.heap = heap;
    }

    /// Rows until a batch is used up.
    fn step(&mut self) -> Result<Option<SortedChanges>> {
        let mut spots = Vec::new();
        while let Some(&first) = self.heap.first() {
            spots.push((first, self.rows[first]));
            self.rows[first] += 1;
            if self.rows[first] < self.loaded[first].1.num_rows() {
                self.sift_down();
                continue;
            }
            let batches: Vec<SortedChanges> = self.loaded.iter().map(|(changes, _)| changes.clone()).collect();
            let out = chosen(&batches, &spots)?;
            let mut sequence = std::mem::replace(&mut self.sequences[first], Box::new(std::iter::empty()));
            match self.load(&mut sequence)? {
                Some(loaded) => {
                    (self.loaded[first], self.rows[first], self.sequences[first]) = (loaded, 0, sequence);
                }
                None => _ = self.heap.swap_remove(0),
            }
            self.sift_down();
            return Ok(Some(out));
        }
        Ok(None)
    }
}

impl Iterator for Merged {
    type Item = Result<SortedChanges>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let step = self.step().transpose();
        self.is_over = !matches!(step, Some(Ok(_)));
        step
    }
}

impl SpillFolder {
    fn failed(&self, what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        spill_error(self.path(), what, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int32Type;

    /// Rows of (id, end in system time), in this order.
    fn changes(shape: &HistoryShape, rows: &[(i32, i64)]) -> SortedChanges {
        let time = |value: &dyn Fn(&(i32, i64)) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(value)).with_timezone("UTC"))
        };
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
        let places: ArrayRef = Arc::new(StringArray::from(vec!["closed-1970-01"; rows.len()]));
        let columns = vec![ids, time(&|_| 0), time(&|_| 9), time(&|_| 0), time(&|row| row.1), places];
        let is_delete = BooleanArray::from_iter(rows.iter().map(|row| Some(row.0 % 3 == 0)));
        SortedChanges { rows: RecordBatch::try_new(shape.columns().clone(), columns).unwrap(), is_delete }
    }

    #[test]
    fn what_exceeds_memory_comes_out_in_the_same_order() {
        let columns = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
        let shape = HistoryShape::new(&"s.t".parse().unwrap(), &columns, &["id".to_owned()], None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sorted = |memory_bytes: usize| {
            let mut sorter = Sorter::new(&shape, SpillFolder::new(folder.path()), memory_bytes).unwrap();
            for batch in 0..40 {
                let rows: Vec<(i32, i64)> =
                    (0..25).map(|row| ((row * 7919 + batch * 104_729) % 1_009, i64::from(row * batch % 11))).collect();
                sorter.push(changes(&shape, &rows)).unwrap();
            }
            let runs = sorter.runs.len();
            let mut found = Vec::new();
            for changes in sorter.sorted().unwrap() {
                let changes = changes.unwrap();
                let ids = changes.rows.column(0).as_primitive::<Int32Type>().clone();
                let ends = changes.rows.column(4).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
                found.extend((0..ids.len()).map(|row| (ends.value(row), ids.value(row), changes.is_delete.value(row))));
            }
            (runs, found)
        };
        let (none, in_memory) = sorted(usize::MAX);
        let (runs, spilled) = sorted(4 << 10);
        assert_eq!((none, in_memory.len()), (0, 1_000));
        assert!(runs > 5, "{runs}");
        assert_eq!(spilled, in_memory);
        assert!(in_memory.is_sorted_by_key(|(end, id, _)| (*end, *id)));
        assert!(in_memory.iter().all(|(_, id, is_delete)| *is_delete == (id % 3 == 0)));
    }
}
