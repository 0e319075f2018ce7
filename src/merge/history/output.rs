//! What a fold changes in the history table: rows that go, rows that come, sorted as the table wants them.

use super::keys::unexpected;
use super::shape::{BOUNDED, HistoryShape, OPEN, PLACE, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO, closed_place};
use super::versions::OPEN_END;
use crate::error::Result;
use crate::table::SortedChanges;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::interleave;
use arrow::row::{RowConverter, SortField};
use std::sync::Arc;

/// Rows of a batch of changes.
const BATCH_ROWS: usize = 16 * 1024;

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

/// Puts lines together from the batches that their rows are in: one of each kind may lack columns, which are NULL then.
pub(super) fn gather(shape: &HistoryShape, sources: &[&RecordBatch], lines: &[Line]) -> Result<SortedChanges> {
    let indices: Vec<(usize, usize)> = lines.iter().map(|line| (line.row.source as usize, line.row.row as usize)).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(shape.columns().fields().len());
    for field in shape.row_columns() {
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
    let mut last: Option<(i64, String)> = None;
    let mut places = Vec::with_capacity(lines.len());
    for line in lines {
        if line.system_to != OPEN_END && last.as_ref().is_none_or(|(time, _)| *time != line.system_to) {
            last = Some((line.system_to, closed_place(line.system_to)));
        }
        places.push(match (&last, line.system_to, line.valid_to) {
            (_, OPEN_END, OPEN_END) => OPEN.to_owned(),
            (_, OPEN_END, _) => BOUNDED.to_owned(),
            (Some((_, place)), _, _) => place.clone(),
            (None, _, _) => closed_place(line.system_to),
        });
    }
    columns.push(Arc::new(StringArray::from(places)));
    Ok(SortedChanges {
        rows: RecordBatch::try_new(shape.columns().clone(), columns).map_err(unexpected)?,
        is_delete: BooleanArray::from_iter(lines.iter().map(|line| Some(line.is_delete))),
    })
}

/// Changes that come in any order and are given out sorted by place and key.
#[derive(Debug)]
pub(super) struct Sorter {
    batches: Vec<SortedChanges>,
    converter: RowConverter,
    names: Vec<String>,
}

impl Sorter {
    /// For the history's rows.
    pub(super) fn new(shape: &HistoryShape) -> Result<Self> {
        let names: Vec<String> = [PLACE, SYSTEM_TO, VALID_TO].iter().map(|name| (*name).to_owned()).collect();
        let names = [names, shape.key().to_vec(), vec![VALID_FROM.to_owned(), SYSTEM_FROM.to_owned()]].concat();
        let fields = names.iter().map(|name| Ok(SortField::new(shape.columns().field_with_name(name)?.data_type().clone())));
        let fields = fields.collect::<Result<Vec<_>, arrow::error::ArrowError>>().map_err(unexpected)?;
        Ok(Self { batches: Vec::new(), converter: RowConverter::new(fields).map_err(unexpected)?, names })
    }

    pub(super) fn push(&mut self, changes: SortedChanges) {
        if changes.rows.num_rows() > 0 {
            self.batches.push(changes);
        }
    }

    /// All of it, sorted.
    pub(super) fn sorted(self) -> Result<impl Iterator<Item = Result<SortedChanges>> + Send + use<>> {
        let Self { batches, converter, names } = self;
        let mut keys = Vec::with_capacity(batches.len());
        for batch in &batches {
            let columns: Vec<ArrayRef> = names.iter().filter_map(|name| batch.rows.column_by_name(name).cloned()).collect();
            keys.push(converter.convert_columns(&columns).map_err(unexpected)?);
        }
        let mut order: Vec<(usize, usize)> =
            keys.iter().enumerate().flat_map(|(batch, keys)| (0..keys.num_rows()).map(move |row| (batch, row))).collect();
        order.sort_unstable_by(|a, b| keys[a.0].row(a.1).cmp(&keys[b.0].row(b.1)));
        drop(keys);
        let mut next = 0;
        Ok(std::iter::from_fn(move || {
            let part = &order[next..order.len().min(next + BATCH_ROWS)];
            next += part.len();
            (!part.is_empty()).then(|| chosen(&batches, part))
        }))
    }
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
