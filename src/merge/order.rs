//! The order of a table's changes: by partition path, then by key as `arrow::row` has it, then by arrival.
//!
//! A key becomes a 64-bit prefix that sorts as the key does. For a single integer or date column the prefix is the key; for all others
//! it is the first eight bytes of the row encoding, and equal prefixes are told apart by the whole encoding.

use super::shape::{arrow_error, data};
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use std::cmp::Ordering;

/// The keys of some rows, comparable with those of any other rows of the table.
#[derive(Debug)]
pub(super) struct Keys {
    prefixes: Vec<u64>,
    /// `None`: the prefix is the key.
    rows: Option<Rows>,
}

impl Keys {
    pub(super) fn prefix(&self, i: usize) -> u64 {
        self.prefixes[i]
    }

    /// Compares the whole keys of two rows whose prefixes are equal.
    pub(super) fn compare_rest(&self, i: usize, other: &Keys, j: usize) -> Ordering {
        match (&self.rows, &other.rows) {
            (Some(mine), Some(theirs)) => mine.row(i).cmp(&theirs.row(j)),
            _ => Ordering::Equal,
        }
    }

    pub(super) fn compare(&self, i: usize, other: &Keys, j: usize) -> Ordering {
        self.prefix(i).cmp(&other.prefix(j)).then_with(|| self.compare_rest(i, other, j))
    }
}

/// Makes the [`Keys`] of a table's rows.
#[derive(Debug)]
pub(super) struct KeyMaker {
    names: Vec<String>,
    converter: Option<RowConverter>,
}

impl KeyMaker {
    /// For keys of columns called `names` with `types`.
    pub(super) fn new(names: Vec<String>, types: &[DataType]) -> Result<Self> {
        let converter = match types {
            [DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)] => None,
            types => {
                let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
                Some(RowConverter::new(fields).map_err(|error| {
                    data("a column of this type can't be part of a key")
                        .caused_by(error)
                        .remedy("declare another `key` in the [[table]]")
                })?)
            }
        };
        Ok(Self { names, converter })
    }

    /// The keys in `columns`, one array a key column. A NULL in a key is an error of kind `Data`.
    pub(super) fn keys(&self, columns: &[ArrayRef]) -> Result<Keys> {
        for (name, column) in self.names.iter().zip(columns) {
            if column.null_count() > 0 {
                return Err(data("a row has NULL in its key")
                    .with("column", name)
                    .remedy("declare a `key` without NULLs in the [[table]]"));
            }
        }
        let Some(converter) = &self.converter else { return integer_keys(&columns[0]) };
        let rows = converter.convert_columns(columns).map_err(arrow_error)?;
        let prefixes = rows
            .iter()
            .map(|row| {
                let bytes = row.as_ref();
                let mut first = [0; 8];
                let length = bytes.len().min(8);
                first[..length].copy_from_slice(&bytes[..length]);
                u64::from_be_bytes(first)
            })
            .collect();
        Ok(Keys { prefixes, rows: Some(rows) })
    }
}

fn integer_keys(column: &ArrayRef) -> Result<Keys> {
    /// Signed order as unsigned order.
    fn flip(value: i64) -> u64 {
        value as u64 ^ (1 << 63)
    }
    let prefixes = match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| flip(i64::from(*v))).collect(),
        DataType::Date32 => column.as_primitive::<Date32Type>().values().iter().map(|v| flip(i64::from(*v))).collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().iter().map(|v| flip(*v)).collect(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().values().iter().map(|v| flip(*v)).collect()
        }
        other => return Err(data("the key's column has changed its type").with("type", other)),
    };
    Ok(Keys { prefixes, rows: None })
}

/// What of two rows with one key the newer one is: the values of the table's ordering column, comparable with those of any other rows of the table.
#[derive(Debug)]
pub(super) struct Newness {
    converter: RowConverter,
}

impl Newness {
    /// For an ordering column of this type. NULL is older than any value.
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())]).map_err(|error| {
            data("a column of this type can't be the ordering")
                .caused_by(error)
                .remedy("declare another `ordering` in the [[table]]")
        })?;
        Ok(Self { converter })
    }

    /// The values of some rows.
    pub(super) fn of(&self, column: &ArrayRef) -> Result<Rows> {
        self.converter.convert_columns(std::slice::from_ref(column)).map_err(arrow_error)
    }
}

/// A row among several batches, and what it sorts by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    prefix: u64,
    rank: u32,
    /// Index of the batch.
    pub(super) batch: u32,
    /// Index of the row in it.
    pub(super) row: u32,
}

/// Sorts the rows of all batches, and keeps of each (partition, key) the last one: batches and rows are in the order of arrival.
/// `ranks` has each row's partition rank; empty: the table is unpartitioned.
///
/// With `newness` (of each batch) a row that is older than one before it loses; equal ones are kept by arrival. Says how many lost so.
pub(super) fn last_of_each(keys: &[Keys], ranks: &[Vec<u32>], newness: Option<&[Rows]>) -> (Vec<Entry>, u64) {
    let mut entries = sorted(keys, ranks);
    let rest = |a: &Entry, b: &Entry| keys[a.batch as usize].compare_rest(a.row as usize, &keys[b.batch as usize], b.row as usize);
    let exact = keys.iter().all(|keys| keys.rows.is_none());
    let same = |a: &Entry, b: &Entry| (a.rank, a.prefix) == (b.rank, b.prefix) && (exact || rest(a, b).is_eq());
    let is_older = |a: &Entry, b: &Entry| {
        newness.is_some_and(|all| all[a.batch as usize].row(a.row as usize) < all[b.batch as usize].row(b.row as usize))
    };
    let (mut kept, mut late) = (0, 0);
    let mut newest: Option<Entry> = None;
    for i in 0..entries.len() {
        let entry = match newest {
            Some(before) if is_older(&entries[i], &before) => {
                late += 1;
                before
            }
            _ => entries[i],
        };
        if i + 1 == entries.len() || !same(&entries[i], &entries[i + 1]) {
            entries[kept] = entry;
            kept += 1;
            newest = None;
        } else {
            newest = Some(entry);
        }
    }
    entries.truncate(kept);
    (entries, late)
}

/// Sorts the rows of all batches by (partition, key), and those of one key in the order of arrival.
pub(super) fn sorted(keys: &[Keys], ranks: &[Vec<u32>]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(keys.iter().map(|keys| keys.prefixes.len()).sum());
    for (batch, keys) in keys.iter().enumerate() {
        let ranks = ranks.get(batch);
        for (row, prefix) in keys.prefixes.iter().enumerate() {
            let rank = ranks.map_or(0, |ranks| ranks[row]);
            entries.push(Entry { prefix: *prefix, rank, batch: batch as u32, row: row as u32 });
        }
    }
    let rest = |a: &Entry, b: &Entry| keys[a.batch as usize].compare_rest(a.row as usize, &keys[b.batch as usize], b.row as usize);
    let exact = keys.iter().all(|keys| keys.rows.is_none());
    // stable: equal keys stay in the order of arrival, and runs that are sorted already cost a comparison a row
    if exact {
        entries.sort_by_key(|entry| (entry.rank, entry.prefix));
    } else {
        entries.sort_by(|a, b| (a.rank, a.prefix).cmp(&(b.rank, b.prefix)).then_with(|| rest(a, b)));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn integers_sort_as_signed_numbers_and_the_last_arrival_wins() {
        let maker = KeyMaker::new(vec!["id".into()], &[DataType::Int64]).unwrap();
        let keys = |values: Vec<i64>| maker.keys(&[Arc::new(Int64Array::from(values)) as ArrayRef]).unwrap();
        let (entries, _) = last_of_each(&[keys(vec![5, -1, 5]), keys(vec![i64::MIN, -1])], &[], None);
        let found: Vec<_> = entries.iter().map(|e| (e.batch, e.row)).collect();
        assert_eq!(found, [(1, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn strings_that_share_a_prefix_are_told_apart() {
        let maker = KeyMaker::new(vec!["name".into()], &[DataType::Utf8]).unwrap();
        let keys = |values: Vec<&str>| maker.keys(&[Arc::new(StringArray::from(values)) as ArrayRef]).unwrap();
        let (entries, _) =
            last_of_each(&[keys(vec!["long prefix b", "", "long prefix a"]), keys(vec!["long prefix b"])], &[], None);
        let found: Vec<_> = entries.iter().map(|e| (e.batch, e.row)).collect();
        assert_eq!(found, [(0, 1), (0, 2), (1, 0)]);
    }

    #[test]
    fn partitions_come_first() {
        let maker = KeyMaker::new(vec!["id".into()], &[DataType::Int64]).unwrap();
        let keys = maker.keys(&[Arc::new(Int64Array::from(vec![1, 2, 1])) as ArrayRef]).unwrap();
        let (entries, _) = last_of_each(&[keys], &[vec![1, 0, 0]], None);
        assert_eq!(entries.iter().map(|e| e.row).collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn the_newer_one_wins_and_of_equals_the_later() {
        let maker = KeyMaker::new(vec!["id".into()], &[DataType::Int64]).unwrap();
        let keys = |values: Vec<i64>| maker.keys(&[Arc::new(Int64Array::from(values)) as ArrayRef]).unwrap();
        let newness = Newness::new(&DataType::Utf8).unwrap();
        let dates = |values: Vec<Option<&str>>| newness.of(&(Arc::new(StringArray::from(values)) as ArrayRef)).unwrap();
        let all = [keys(vec![1, 2, 3, 4]), keys(vec![1, 2, 3, 4, 1])];
        let of_all =
            [dates(vec![Some("b"), Some("b"), Some("b"), None]), dates(vec![Some("a"), Some("b"), Some("c"), None, Some("")])];
        let (entries, late) = last_of_each(&all, &[], Some(&of_all));
        let found: Vec<_> = entries.iter().map(|e| (e.batch, e.row)).collect();
        assert_eq!((found, late), (vec![(0, 0), (1, 1), (1, 2), (1, 3)], 2));
    }

    #[test]
    fn null_in_a_key_names_the_column() {
        let maker = KeyMaker::new(vec!["id".into()], &[DataType::Int64]).unwrap();
        let error = maker.keys(&[Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef]).unwrap_err();
        assert!(error.to_string().contains("column=id"));
    }
}
