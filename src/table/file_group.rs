//! Which keys each file group holds.
//!
//! Keys are compared as the bytes of `arrow::row` over the typed key columns. The ranges of our own files come from their footers; another writer's
//! file is read once, key columns only, to learn its range and whether it is sorted. What was learnt is kept from commit to commit.

use super::FileSlice;
use super::base_file::{BaseFile, FileLayout, MAX_ROW_GROUP_ROWS, memory_type, parquet_error};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;

/// Turns typed keys into bytes that compare as the keys do.
pub(super) struct KeyCodec {
    types: Vec<DataType>,
    converter: RowConverter,
}

impl fmt::Debug for KeyCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCodec").field("types", &self.types).finish_non_exhaustive()
    }
}

impl KeyCodec {
    /// For the key of `layout`.
    pub(super) fn new(layout: &FileLayout) -> Result<Self> {
        let types: Vec<DataType> = layout.key.iter().map(|i| memory_type(layout.columns.field(*i).data_type())).collect();
        let fields = types.iter().map(|stored| SortField::new(stored.clone())).collect();
        let converter =
            RowConverter::new(fields).map_err(|error| Error::config("the table's key columns can't be sorted").caused_by(error))?;
        Ok(Self { types, converter })
    }

    /// The keys whose columns are `columns`, in any type that the table's key had before.
    pub(super) fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let unexpected = |error| Error::bug("keys can't be compared").caused_by(error);
        let mut typed = Vec::with_capacity(columns.len());
        for (column, wanted) in columns.iter().zip(&self.types) {
            typed.push(if column.data_type() == wanted { Arc::clone(column) } else { cast(column, wanted).map_err(unexpected)? });
        }
        self.converter.convert_columns(&typed).map_err(unexpected)
    }

    /// How many of the first columns are the same in all keys from `first` to `last`, and how many of the keys' bytes those are; never all columns.
    pub(super) fn common(&self, first: &[u8], last: &[u8]) -> (usize, usize) {
        let (mut columns, mut bytes) = (0, 0);
        for stored in &self.types[..self.types.len().saturating_sub(1)] {
            // a byte that says whether it is NULL, then the value
            let Some(end) = stored.primitive_width().map(|width| bytes + 1 + width) else { break };
            if first.get(bytes..end).is_none_or(|value| last.get(bytes..end) != Some(value)) {
                break;
            }
            (columns, bytes) = (columns + 1, end);
        }
        (columns, bytes)
    }

    /// The bytes that the key columns from the number `from` on add to their keys; `columns` are those, as many as are at hand, in their types in memory.
    pub(super) fn encode_rest(&self, from: usize, columns: &[ArrayRef]) -> Result<Rows> {
        let unexpected = |error| Error::bug("keys can't be compared").caused_by(error);
        let fields = self.types[from..from + columns.len()].iter().map(|stored| SortField::new(stored.clone())).collect();
        RowConverter::new(fields).and_then(|converter| converter.convert_columns(columns)).map_err(unexpected)
    }
}

/// A key as bytes.
pub(super) type Key = Box<[u8]>;

/// What is known of one base file's keys.
#[derive(Debug, Clone)]
pub(super) struct FileKeys {
    /// First and last key; `None` if it has no rows.
    pub(super) range: Option<(Key, Key)>,
    /// Whether the rows are sorted by key, each key once.
    pub(super) sorted: bool,
}

/// The keys of files seen so far, by path. Cheap to clone: clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyIndex(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    types: Vec<DataType>,
    files: HashMap<String, FileKeys>,
}

impl KeyIndex {
    /// The keys of `slices`, in their order: reads the footers of those that are not known.
    pub(super) async fn of(
        &self,
        store: &Arc<dyn ObjectStore>,
        base: &Path,
        layout: &FileLayout,
        codec: &KeyCodec,
        slices: &[FileSlice],
    ) -> Result<Vec<FileKeys>> {
        let known: Vec<Option<FileKeys>> = {
            let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if index.types != codec.types {
                // a wider key has other bytes
                *index = Known { types: codec.types.clone(), files: HashMap::new() };
            }
            slices.iter().map(|slice| index.files.get(&slice.path()).cloned()).collect()
        };
        stream::iter(slices.iter().zip(known))
            .map(|(slice, known)| async move {
                match known {
                    Some(keys) => Ok(keys),
                    None => {
                        let file = BaseFile::open(store, file_path(base, slice), slice.file_bytes).await?;
                        let keys = keys_of(store, &file, layout, codec).await?;
                        self.learn(slice.path(), keys.clone());
                        Ok(keys)
                    }
                }
            })
            .buffered(FOOTERS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Remembers a file's keys.
    pub(super) fn learn(&self, path: String, keys: FileKeys) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).files.insert(path, keys);
    }

    /// Forgets all files but `live`: for after a commit.
    pub(super) fn retain(&self, live: &[FileSlice]) {
        let live: std::collections::HashSet<String> = live.iter().map(FileSlice::path).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).files.retain(|path, _| live.contains(path));
    }
}

/// Where a slice's file is in the store.
pub(super) fn file_path(base: &Path, slice: &FileSlice) -> Path {
    // partition paths are stored as they are: `Path::from` would escape their `%` once more
    let text = if base.as_ref().is_empty() { slice.path() } else { format!("{base}/{}", slice.path()) };
    Path::parse(&text).unwrap_or_else(|_| Path::from(text))
}

/// First and last key of each row group of one of our files, in key bytes: two rows a row group.
pub(super) fn row_group_keys(file: &BaseFile, codec: &KeyCodec, layout: &FileLayout) -> Result<Option<Rows>> {
    let Some(ranges) = &file.ranges else { return Ok(None) };
    let Some(columns) = key_columns(layout, &ranges.0) else { return Ok(None) };
    codec.encode(&columns).map(Some)
}

fn key_columns(layout: &FileLayout, batch: &RecordBatch) -> Option<Vec<ArrayRef>> {
    layout.key_names.iter().map(|name| batch.column_by_name(name).cloned()).collect()
}

async fn keys_of(store: &Arc<dyn ObjectStore>, file: &BaseFile, layout: &FileLayout, codec: &KeyCodec) -> Result<FileKeys> {
    if let Some(rows) = row_group_keys(file, codec, layout)? {
        let range = (rows.num_rows() > 0).then(|| (Key::from(rows.row(0).data()), Key::from(rows.row(rows.num_rows() - 1).data())));
        return Ok(FileKeys { range, sorted: true });
    }
    let mut keys = FileKeys { range: None, sorted: true };
    let mut last: Option<Key> = None;
    for row_group in 0..file.metadata.num_row_groups() {
        let bytes = file.fetch(store, row_group).await?;
        let names: Vec<&str> = layout.key_names.iter().map(String::as_str).collect();
        for batch in file.batches(&bytes, row_group, &names, MAX_ROW_GROUP_ROWS)? {
            let batch = batch.map_err(|error| parquet_error(error, &file.path))?;
            let columns =
                key_columns(layout, &batch).ok_or_else(|| Error::bug("a base file lacks a key column").with("path", &file.path))?;
            for row in &codec.encode(&columns)? {
                let row = row.data();
                keys.sorted &= last.as_deref().is_none_or(|last| last < row);
                match &mut keys.range {
                    None => keys.range = Some((Key::from(row), Key::from(row))),
                    Some((min, max)) => {
                        if row < &**min {
                            *min = Key::from(row);
                        }
                        if row > &**max {
                            *max = Key::from(row);
                        }
                    }
                }
                if keys.sorted {
                    last = Some(Key::from(row));
                }
            }
        }
    }
    Ok(keys)
}

/// One or more file groups that are rewritten together, and all keys of a partition that lie in or around their range.
#[derive(Debug)]
pub(super) struct Unit {
    /// The file groups' slices: one that is sorted, or several that overlap or are not.
    pub(super) slices: Vec<FileSlice>,
    /// The least key in them; the unit also takes the keys from here up to the next unit's.
    pub(super) min: Key,
    /// Whether rows have to be sorted anew.
    pub(super) restore: bool,
}

/// Groups a partition's slices into units with disjoint ranges, in the order of keys. Slices without rows come second.
pub(super) fn units(slices: Vec<FileSlice>, keys: Vec<FileKeys>) -> (Vec<Unit>, Vec<FileSlice>) {
    let mut empty = Vec::new();
    let mut ranged = Vec::new();
    for (slice, keys) in slices.into_iter().zip(keys) {
        match keys.range {
            Some((min, max)) => ranged.push((min, max, keys.sorted, slice)),
            None => empty.push(slice),
        }
    }
    ranged.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let mut units: Vec<Unit> = Vec::new();
    let mut reaches: Option<Key> = None;
    for (min, max, sorted, slice) in ranged {
        match (units.last_mut(), &mut reaches) {
            (Some(unit), Some(reach)) if min <= *reach => {
                unit.slices.push(slice);
                unit.restore = true;
                if max > *reach {
                    *reach = max;
                }
            }
            _ => {
                units.push(Unit { slices: vec![slice], min, restore: !sorted });
                reaches = Some(max);
            }
        }
    }
    (units, empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str) -> FileSlice {
        FileSlice::parse("", &format!("{name}_0-0-0_20260101000000000.parquet"), 1).unwrap()
    }

    fn keys(min: u8, max: u8, sorted: bool) -> FileKeys {
        FileKeys { range: Some((Box::new([min]), Box::new([max]))), sorted }
    }

    #[test]
    fn overlapping_and_unsorted_groups_are_restored_together() {
        let slices = ["a", "b", "c", "d", "e", "f"].map(slice).to_vec();
        let none = FileKeys { range: None, sorted: true };
        let known = vec![keys(50, 60, true), keys(0, 10, true), keys(11, 20, false), keys(60, 70, true), keys(65, 66, true), none];
        let (units, empty) = units(slices, known);
        let found: Vec<(Vec<&str>, bool)> =
            units.iter().map(|unit| (unit.slices.iter().map(|slice| slice.file_id.as_str()).collect(), unit.restore)).collect();
        assert_eq!(found, [(vec!["b"], false), (vec!["c"], true), (vec!["a", "d", "e"], true)]);
        assert_eq!(empty.len(), 1);
    }
}
