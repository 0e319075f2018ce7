//! Reading rows back while a table is written: those with certain keys, those behind a key, or all, in the order of keys.
//!
//! A *prefix* is the first columns of the key (of sort prefix and record key): bytes of `arrow::row` over the first columns are the first bytes of the
//! whole key, so a prefix is looked for among keys without knowing the rest. What is read is what the table held after its last commit. All methods
//! block, and are to be called outside of the runtime's own threads.

use super::base_file::{BaseFile, FileLayout, RowGroupBytes, assign_field_ids, memory_type};
use super::file_group::{FileKeys, KeyCodec, KeyIndex, file_path, row_group_keys};
use super::{FileSlice, Table};
use crate::error::{Area, Error, Kind, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Reads a table's rows: see the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct RowReader {
    store: Arc<dyn ObjectStore>,
    base: Path,
    layout: Arc<FileLayout>,
    codec: Arc<KeyCodec>,
    index: KeyIndex,
    runtime: Handle,
    slices: BTreeMap<String, Vec<FileSlice>>,
    /// The last file that was open.
    open: Option<(String, Arc<OpenFile>)>,
}

impl fmt::Debug for RowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowReader").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A file and the first and last key of each of its row groups.
struct OpenFile {
    file: Arc<BaseFile>,
    ends: Rows,
}

/// A row group under way: its bytes, and where it is.
struct RowGroup {
    file: Arc<BaseFile>,
    number: usize,
    bytes: RowGroupBytes,
}

/// The beginning of keys behind which rows are wanted; `None`: all are.
struct Bound(Option<Vec<u8>>);

impl Bound {
    fn is_before(&self, key: &[u8]) -> bool {
        self.0.as_deref().is_none_or(|bound| key > bound && !key.starts_with(bound))
    }
}

/// Rows that were found, and for each the number of the prefix that it was found by.
#[derive(Debug)]
pub struct FoundRows {
    /// In the columns that the reader was made for.
    pub rows: RecordBatch,
    /// Rising, by row.
    pub prefixes: Vec<u32>,
}

impl Table {
    /// Reads the rows of the last commit with `columns`: the table's, or more, which are NULL then. To be made within the runtime.
    pub fn row_reader(&self, columns: &Schema) -> Result<RowReader> {
        let ids = assign_field_ids(None, columns, &[])?;
        let layout = FileLayout::new(columns, &self.spec.sort_prefix, self.record_key(), 0, &ids)?;
        let mut slices: BTreeMap<String, Vec<FileSlice>> = BTreeMap::new();
        for slice in self.slices(None)? {
            slices.entry(slice.partition_path.clone()).or_default().push(slice);
        }
        Ok(RowReader {
            store: self.view.store.object_store().clone(),
            base: self.view.store.base().clone(),
            codec: Arc::new(KeyCodec::new(&layout)?),
            layout: Arc::new(layout),
            index: self.index.clone(),
            runtime: Handle::current(),
            slices,
            open: None,
        })
    }
}

impl RowReader {
    /// The columns of the rows.
    pub fn columns(&self) -> &SchemaRef {
        &self.layout.columns
    }

    /// The paths of the partitions that have rows.
    pub fn partitions(&self) -> Vec<String> {
        self.slices.keys().cloned().collect()
    }

    /// Whether the partition at `path` has rows.
    pub fn has_rows(&self, path: &str) -> bool {
        self.slices.contains_key(path)
    }

    /// The rows of a partition whose keys begin with one of the rows of `prefixes`, which are sorted and differ.
    pub fn find(&mut self, partition: &str, prefixes: &[ArrayRef]) -> Result<FoundRows> {
        let wanted = self.prefix_rows(prefixes)?;
        let mut found = Vec::new();
        let mut of = Vec::new();
        for (slice, keys) in self.files(partition)? {
            let Some((first, last)) = &keys.range else { continue };
            let range = between(&wanted, 0, first, last);
            if range.is_empty() {
                continue;
            }
            let open = self.open(&slice)?;
            for number in 0..open.ends.num_rows() / 2 {
                let (first, last) = (open.ends.row(2 * number), open.ends.row(2 * number + 1));
                let range = between(&wanted, range.start, first.data(), last.data());
                if range.is_empty() {
                    continue;
                }
                let group = self.fetch(&open.file, number)?;
                // what is the same in all keys needn't be compared
                let (same, bytes) = self.codec.common(first.data(), last.data());
                let (same, bytes) = if same < prefixes.len() { (same, bytes) } else { (0, 0) };
                let keys = self.codec.encode_rest(same, &self.key_columns(&group, same..prefixes.len())?)?;
                let ranges = matches(&wanted, bytes, range, &keys, &mut of);
                if !ranges.is_empty() {
                    found.push(self.rows_of(&group, Some(&ranges))?);
                }
            }
        }
        Ok(FoundRows { rows: self.joined(&found)?, prefixes: of })
    }

    /// The rows of a partition behind all keys that begin with the one row of `bound` (`None`: all) that `keep` wants, by the columns of their keys.
    pub fn scan(
        &mut self,
        partition: &str,
        bound: Option<&[ArrayRef]>,
        keep: &mut dyn FnMut(&RecordBatch) -> Result<BooleanArray>,
    ) -> Result<RecordBatch> {
        let bound = self.bound(bound)?;
        let is_behind = |key: &[u8]| bound.is_before(key);
        let mut found = Vec::new();
        for (slice, keys) in self.files(partition)? {
            if !keys.range.is_some_and(|(_, last)| is_behind(&last)) {
                continue;
            }
            let open = self.open(&slice)?;
            for number in 0..open.ends.num_rows() / 2 {
                if !is_behind(open.ends.row(2 * number + 1).data()) {
                    continue;
                }
                let group = self.fetch(&open.file, number)?;
                let columns = self.key_columns(&group, 0..self.layout.key.len())?;
                let keys = self.codec.encode(&columns)?;
                let kept = keep(&self.key_batch(columns)?)?;
                let mut ranges: Vec<Range<usize>> = Vec::new();
                for row in (0..keys.num_rows()).filter(|row| kept.value(*row) && is_behind(keys.row(*row).data())) {
                    match ranges.last_mut() {
                        Some(last) if last.end == row => last.end += 1,
                        _ => ranges.push(row..row + 1),
                    }
                }
                if !ranges.is_empty() {
                    found.push(self.rows_of(&group, Some(&ranges))?);
                }
            }
        }
        self.joined(&found)
    }

    /// All rows of a partition in the order of their keys, a row group at a time.
    pub fn stream(self, partition: &str) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        self.stream_behind(partition, None)
    }

    /// The same of the rows behind all keys that begin with the one row of `bound` (`None`: all).
    pub fn stream_behind(
        mut self,
        partition: &str,
        bound: Option<&[ArrayRef]>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let bound = self.bound(bound)?;
        let mut files = self.files(partition)?.into_iter();
        let mut open: Option<(Arc<OpenFile>, usize)> = None;
        let mut next = move || -> Result<Option<RecordBatch>> {
            loop {
                if let Some((file, number)) = &mut open
                    && *number < file.ends.num_rows() / 2
                {
                    let at = *number;
                    *number += 1;
                    if !bound.is_before(file.ends.row(2 * at + 1).data()) {
                        continue;
                    }
                    let group = self.fetch(&file.file, at)?;
                    if bound.is_before(file.ends.row(2 * at).data()) {
                        return self.rows_of(&group, None).map(Some);
                    }
                    let keys = self.codec.encode(&self.key_columns(&group, 0..self.layout.key.len())?)?;
                    let first = (0..keys.num_rows()).find(|row| bound.is_before(keys.row(*row).data()));
                    let behind = first.map_or(0..0, |first| first..keys.num_rows());
                    return self.rows_of(&group, Some(&[behind])).map(Some);
                }
                let Some((slice, keys)) = files.next() else { return Ok(None) };
                if keys.range.is_none_or(|(_, last)| bound.is_before(&last)) {
                    open = Some((self.open(&slice)?, 0));
                }
            }
        };
        Ok(std::iter::from_fn(move || next().transpose()))
    }

    /// The partition's files in the order of their keys.
    fn files(&self, partition: &str) -> Result<Vec<(FileSlice, FileKeys)>> {
        let Some(slices) = self.slices.get(partition) else { return Ok(Vec::new()) };
        let keys = self.index.of(&self.store, &self.base, &self.layout, &self.codec, slices);
        let keys = self.runtime.block_on(keys)?;
        let mut files: Vec<_> = slices.iter().cloned().zip(keys).collect();
        files.sort_by(|a, b| a.1.range.cmp(&b.1.range));
        Ok(files)
    }

    fn open(&mut self, slice: &FileSlice) -> Result<Arc<OpenFile>> {
        let path = slice.path();
        if let Some((_, open)) = self.open.as_ref().filter(|(known, _)| *known == path) {
            return Ok(Arc::clone(open));
        }
        let file = BaseFile::open(&self.store, file_path(&self.base, slice), slice.file_bytes);
        let file = Arc::new(self.runtime.block_on(file)?);
        let ends = row_group_keys(&file, &self.codec, &self.layout)?.ok_or_else(|| {
            Error::new(Area::Lake, Kind::Data, "another writer's file can't be read in the order of its keys")
                .with("path", &file.path)
                .remedy("run `binlake backfill --table` for the table: its rows are then written anew")
        })?;
        let open = Arc::new(OpenFile { file, ends });
        self.open = Some((path, Arc::clone(&open)));
        Ok(open)
    }

    fn fetch(&self, file: &Arc<BaseFile>, number: usize) -> Result<RowGroup> {
        let bytes = self.runtime.block_on(file.fetch(&self.store, number))?;
        Ok(RowGroup { file: Arc::clone(file), number, bytes })
    }

    /// Columns of the keys in a row group.
    fn key_columns(&self, group: &RowGroup, which: Range<usize>) -> Result<Vec<ArrayRef>> {
        let columns = self.layout.key[which].iter().map(|i| {
            let field = self.layout.columns.field(*i);
            let column = group.file.read_column(&group.bytes, group.number, field.name(), field.data_type())?;
            column.ok_or_else(|| Error::bug("a base file lacks a key column").with("path", &group.file.path))
        });
        columns.collect()
    }

    fn key_batch(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let fields = self.layout.key_names.iter().zip(columns);
        RecordBatch::try_from_iter(fields).map_err(unexpected)
    }

    /// Rows of a row group in the reader's columns.
    fn rows_of(&self, group: &RowGroup, ranges: Option<&[Range<usize>]>) -> Result<RecordBatch> {
        let count = match ranges {
            Some(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
            None => group.file.row_group_rows(group.number),
        };
        let mut columns = Vec::with_capacity(self.layout.columns.fields().len());
        for field in self.layout.columns.fields() {
            let (name, data_type) = (field.name(), field.data_type());
            let column = match (ranges, group.file.column(name)) {
                (_, None) => None,
                (Some(ranges), _) => Some(group.file.read_rows(&group.bytes, group.number, name, data_type, ranges)?),
                (None, _) => group.file.read_column(&group.bytes, group.number, name, data_type)?,
            };
            columns.push(match column {
                None => new_null_array(data_type, count),
                Some(column) if column.data_type() == data_type => column,
                Some(column) => cast(&column, data_type).map_err(unexpected)?,
            });
        }
        RecordBatch::try_new(self.layout.columns.clone(), columns).map_err(unexpected)
    }

    fn joined(&self, found: &[RecordBatch]) -> Result<RecordBatch> {
        concat_batches(&self.layout.columns, found).map_err(unexpected)
    }

    fn bound(&self, bound: Option<&[ArrayRef]>) -> Result<Bound> {
        let rows = bound.map(|bound| self.prefix_rows(bound)).transpose()?;
        Ok(Bound(rows.map(|rows| rows.row(0).data().to_vec())))
    }

    /// The first columns of keys as bytes that compare with those of whole keys.
    fn prefix_rows(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let types: Vec<DataType> =
            self.layout.key.iter().take(columns.len()).map(|i| memory_type(self.layout.columns.field(*i).data_type())).collect();
        let typed = columns.iter().zip(&types).map(|(column, data_type)| cast(column, data_type).map_err(unexpected));
        let typed = typed.collect::<Result<Vec<_>>>()?;
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect()).map_err(unexpected)?;
        converter.convert_columns(&typed).map_err(unexpected)
    }
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("rows of a table can't be read back").caused_by(error)
}

/// The rows of `wanted`, from `start` on, that keys between `first` and `last` may begin with.
fn between(wanted: &Rows, start: usize, first: &[u8], last: &[u8]) -> Range<usize> {
    let from = first_at(wanted, start, |prefix| prefix >= first || first.starts_with(prefix));
    from..first_at(wanted, from, |prefix| prefix > last)
}

/// The first row from `start` on for which `is_reached` holds, which holds for all behind it as well.
fn first_at(rows: &Rows, start: usize, is_reached: impl Fn(&[u8]) -> bool) -> usize {
    // by doubling steps: what is looked for mostly lies near
    let (mut low, mut step) = (start, 1);
    while low + step < rows.num_rows() && !is_reached(rows.row(low + step - 1).data()) {
        low += step;
        step *= 2;
    }
    let mut high = (low + step).min(rows.num_rows());
    while low < high {
        let middle = low + (high - low) / 2;
        if is_reached(rows.row(middle).data()) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The rows of `keys` that are in `wanted[range]`, both sorted, as ranges; each one's number goes to `of`. The first `same` bytes are the same in all of
/// them, and left out in `keys`.
fn matches(wanted: &Rows, same: usize, range: Range<usize>, keys: &Rows, of: &mut Vec<u32>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for number in range {
        let prefix = &wanted.row(number).data()[same..];
        at = first_at(keys, at, |key| key >= prefix);
        while at < keys.num_rows() && keys.row(at).data() == prefix {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => ranges.push(at..at + 1),
            }
            of.push(u32::try_from(number).unwrap_or(u32::MAX));
            at += 1;
        }
    }
    ranges
}
