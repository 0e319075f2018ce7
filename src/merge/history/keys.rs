//! The keys of rows as bytes that compare as the keys do, wherever the rows come from.

use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use std::cmp::Ordering;

/// Makes the keys of rows with the lake's columns.
#[derive(Debug)]
pub(super) struct KeyBytes {
    names: Vec<String>,
    types: Vec<DataType>,
    converter: RowConverter,
}

impl KeyBytes {
    /// For a key of the columns `names`, as `columns` has them.
    pub(super) fn new(names: &[String], columns: &arrow::datatypes::Schema) -> Result<Self> {
        let types = names.iter().map(|name| Ok(columns.field_with_name(name)?.data_type().clone()));
        let types = types.collect::<Result<Vec<_>, arrow::error::ArrowError>>().map_err(unexpected)?;
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect()).map_err(unexpected)?;
        Ok(Self { names: names.to_vec(), types, converter })
    }

    /// The key columns of `rows`.
    pub(super) fn columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |name: &String| rows.column_by_name(name).cloned();
        self.names.iter().map(|name| column(name).ok_or_else(|| Error::bug("rows lack a column of their key"))).collect()
    }

    /// No keys.
    pub(super) fn empty(&self) -> Rows {
        self.converter.empty_rows(0, 0)
    }

    /// The keys of `rows`.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<Rows> {
        self.of_columns(&self.columns(rows)?)
    }

    /// The keys whose columns are these.
    pub(super) fn of_columns(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let cast = columns.iter().zip(&self.types).map(|(column, wanted)| arrow::compute::cast(column, wanted));
        let columns = cast.collect::<Result<Vec<_>, _>>().map_err(unexpected)?;
        self.converter.convert_columns(&columns).map_err(unexpected)
    }
}

/// The first row behind those that have the same key as the row at `start`.
pub(super) fn group_end(keys: &Rows, start: usize) -> usize {
    let first = keys.row(start);
    (start + 1..keys.num_rows()).find(|row| keys.row(*row) != first).unwrap_or(keys.num_rows())
}

/// Which of two sorted sequences has the lesser key next: an exhausted one has none.
pub(super) fn next_of(a: &Rows, i: usize, b: &Rows, j: usize) -> Option<Ordering> {
    match (i < a.num_rows(), j < b.num_rows()) {
        (true, true) => Some(a.row(i).cmp(&b.row(j))),
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (false, false) => None,
    }
}

pub(super) fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("a history's rows can't be put together").caused_by(error)
}
