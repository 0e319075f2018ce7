//! What a fold changes in the history table: rows that go, rows that come.

use super::keys::unexpected;
use super::shape::{BOUNDED, HistoryShape, OPEN, closed_place};
use super::versions::OPEN_END;
use crate::error::Result;
use crate::table::SortedChanges;
use arrow::array::builder::StringBuilder;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::interleave;
use std::sync::Arc;

/// Which row of which batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowRef {
    pub(super) source: u8,
    pub(super) row: u32,
}

/// One row of the history table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) row: RowRef,
    pub(super) valid_from: i64,
    pub(super) valid_to: i64,
    pub(super) system_from: i64,
    pub(super) system_to: i64,
    /// Whether it goes (else it comes).
    pub(super) is_delete: bool,
}

/// The first row, if all are rows of one batch that follow each other.
fn consecutive(lines: &[Line]) -> Option<RowRef> {
    let first = lines.first()?.row;
    let follows = |(line, i): (&Line, u32)| line.row.source == first.source && line.row.row == first.row + i;
    lines.iter().zip(0..).all(follows).then_some(first)
}

/// Puts lines together from the batches that their rows are in: one of each kind may lack columns, which are NULL then.
pub(super) fn gather(shape: &HistoryShape, sources: &[&RecordBatch], lines: &[Line]) -> Result<SortedChanges> {
    let indices: Vec<(usize, usize)> = lines.iter().map(|line| (line.row.source as usize, line.row.row as usize)).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(shape.columns().fields().len());
    let as_they_are = consecutive(lines);
    for field in shape.row_columns() {
        if let Some(first) = as_they_are {
            columns.push(match sources[first.source as usize].column_by_name(field.name()) {
                Some(column) => column.slice(first.row as usize, lines.len()),
                None => new_null_array(field.data_type(), lines.len()),
            });
            continue;
        }
        let of: Vec<ArrayRef> = sources
            .iter()
            .map(|source| match source.column_by_name(field.name()) {
                Some(column) => column.clone(),
                None => new_null_array(field.data_type(), source.num_rows()),
            })
            .collect();
        let values: Vec<&dyn Array> = of.iter().map(AsRef::as_ref).collect();
        columns.push(interleave(&values, &indices).map_err(unexpected)?);
    }
    let times = |of: fn(&Line) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(lines.iter().map(of)).with_timezone("UTC"))
    };
    columns.push(times(|line| line.valid_from));
    columns.push(times(|line| line.valid_to));
    columns.push(times(|line| line.system_from));
    columns.push(times(|line| line.system_to));
    // most lines of a batch lie in one place
    let mut last: (i64, String) = (OPEN_END, String::new());
    let mut places = StringBuilder::with_capacity(lines.len(), lines.len() * OPEN.len());
    for line in lines {
        if line.system_to == OPEN_END {
            places.append_value(if line.valid_to == OPEN_END { OPEN } else { BOUNDED });
            continue;
        }
        if last.0 != line.system_to {
            last = (line.system_to, closed_place(line.system_to));
        }
        places.append_value(&last.1);
    }
    columns.push(Arc::new(places.finish()));
    Ok(SortedChanges {
        rows: RecordBatch::try_new(shape.columns().clone(), columns).map_err(unexpected)?,
        is_delete: BooleanArray::from_iter(lines.iter().map(|line| Some(line.is_delete))),
    })
}
