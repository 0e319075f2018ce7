//! Which changes come too late, where rows have an order of their own and not every key's newest row is in the table.
//!
//! A change that is written is compared with the row that is there when the file is rewritten. Two kinds of changes never meet that row: one whose
//! key's newest row is a dead letter, and one that isn't written because the transform fails on it or drops it. So the first are compared
//! with the letters, the second with the table, before anything becomes of them: the newest row of a key decides, wherever it is.

use super::children::{chosen, narrowed};
use super::letters::key_text;
use super::piece::count_late;
use super::shape::{LakeShape, arrow_error, data};
use crate::error::{Error, Result};
use crate::event::SourceType;
use crate::format::{Cell, CellColumns, PlainType};
use crate::table::{RowReader, SortedChanges, Table, partition_path_at};
use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, cast, filter, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// As where rows meet: NULL is older than any value.
const ORDER: SortOptions = SortOptions { descending: false, nulls_first: true };

/// The order of a table's rows, for changes that don't meet the row of their key.
#[derive(Debug, Clone)]
pub struct LateRows {
    ordering: String,
    /// By the keys of the letters, as text: what they have in the ordering column.
    letters: Arc<HashMap<String, Value>>,
    present: RowReader,
    /// Whether late rows are counted: the table's own commit does.
    counts: bool,
}

fn unexpected(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bug("the ordering can't be compared").caused_by(error)
}

impl LateRows {
    /// For changes of `table` as of its last commit, which has these letters; `None`: its rows have no order of their own, or all are written. To be made within the runtime.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn of(shape: &LakeShape, table: &Table, letters: Arc<HashMap<String, Value>>) -> Result<Option<Self>> {
        let Some(ordering) = shape.ordering() else { return Ok(None) };
        if letters.is_empty() && shape.transformed().is_none() && shape.refuses().is_none() {
            return Ok(None);
        }
        let keys = shape.key_names();
        let names: Vec<&str> = keys.iter().map(String::as_str).chain([ordering]).collect();
        let present = table.row_reader(&narrowed(shape.columns(), &names))?;
        Ok(Some(Self { ordering: ordering.to_owned(), letters, present, counts: true }))
    }

    /// Sorted changes before their transform, without those that are older than their key's letter. Deletes stay.
    pub(super) fn after_letters(&self, shape: &LakeShape, changes: SortedChanges) -> Result<SortedChanges> {
        if self.letters.is_empty() {
            return Ok(changes);
        }
        let (mut candidates, mut of_letters) = (Vec::new(), Vec::new());
        for row in (0..changes.rows.num_rows()).filter(|row| !changes.is_delete.value(*row)) {
            if let Some(value) = self.letters.get(&key_text(shape.source(), &changes.rows, row)) {
                candidates.push(row);
                of_letters.push(value);
            }
        }
        if candidates.is_empty() {
            return Ok(changes);
        }
        let new = self.ordering_of(&changes, &candidates)?;
        let of_source = shape.source().columns.iter().find(|column| column.name == self.ordering);
        let of_source = of_source.ok_or_else(|| Error::bug("the ordering is no column"))?;
        let old = cast(&values(&of_source.source_type, &of_letters)?, new.data_type()).map_err(unexpected)?;
        let compare = make_comparator(&old, &new, ORDER).map_err(unexpected)?;
        let late: BTreeSet<usize> =
            candidates.iter().enumerate().filter(|(i, _)| compare(*i, *i).is_gt()).map(|(_, row)| *row).collect();
        self.count(shape, late.len());
        without(changes, &late)
    }

    /// Of the changes in these rows, which aren't written, those that are older than the row which the table has.
    pub(super) fn before_present(&mut self, shape: &LakeShape, changes: &SortedChanges, rows: &[usize]) -> Result<BTreeSet<usize>> {
        let mut late = BTreeSet::new();
        let names = shape.partition_columns();
        let of_partition = chosen(&changes.rows, names)?;
        let keys = chosen(&changes.rows, &shape.key_names())?;
        let mut rows = rows;
        while let Some(first) = rows.first() {
            let path = partition_path_at(names, &of_partition, *first)?;
            let mut same = 1;
            while same < rows.len() && partition_path_at(names, &of_partition, rows[same])? == path {
                same += 1;
            }
            let (these, rest) = rows.split_at(same);
            rows = rest;
            let at = UInt32Array::from_iter_values(these.iter().filter_map(|row| u32::try_from(*row).ok()));
            let keys = keys.iter().map(|column| take(column, &at, None).map_err(arrow_error)).collect::<Result<Vec<_>>>()?;
            let found = self.present.find(&path, &keys)?;
            let old = chosen(&found.rows, std::slice::from_ref(&self.ordering))?.remove(0);
            let new = cast(&self.ordering_of(changes, these)?, old.data_type()).map_err(unexpected)?;
            let compare = make_comparator(&old, &new, ORDER).map_err(unexpected)?;
            let of_change =
                found.prefixes.iter().enumerate().filter(|(present, change)| compare(*present, **change as usize).is_gt());
            late.extend(of_change.map(|(_, change)| these[*change as usize]));
        }
        self.count(shape, late.len());
        Ok(late)
    }

    /// The same for who follows the table.
    pub(super) fn quiet(self) -> Self {
        Self { counts: false, ..self }
    }

    fn count(&self, shape: &LakeShape, late: usize) {
        count_late(shape, if self.counts { late as u64 } else { 0 });
    }

    fn ordering_of(&self, changes: &SortedChanges, rows: &[usize]) -> Result<ArrayRef> {
        let column = chosen(&changes.rows, std::slice::from_ref(&self.ordering))?.remove(0);
        let at = UInt32Array::from_iter_values(rows.iter().filter_map(|row| u32::try_from(*row).ok()));
        take(&column, &at, None).map_err(arrow_error)
    }
}

/// The changes but for these rows.
pub(super) fn without(changes: SortedChanges, rows: &BTreeSet<usize>) -> Result<SortedChanges> {
    if rows.is_empty() {
        return Ok(changes);
    }
    let kept: BooleanArray = (0..changes.rows.num_rows()).map(|row| Some(!rows.contains(&row))).collect();
    only(&changes, &kept)
}

/// The changes that `kept` says.
pub(super) fn only(changes: &SortedChanges, kept: &BooleanArray) -> Result<SortedChanges> {
    Ok(SortedChanges {
        rows: filter_record_batch(&changes.rows, kept).map_err(arrow_error)?,
        is_delete: BooleanArray::from(filter(&changes.is_delete, kept).map_err(arrow_error)?.to_data()),
    })
}

/// What letters have in the ordering column, by key: of those that come and go.
pub fn follow_orderings(
    orderings: &mut HashMap<String, Value>,
    ordering: &str,
    come: &BTreeMap<String, super::RowLetter>,
    go: &BTreeSet<String>,
) {
    go.iter().for_each(|key| {
        orderings.remove(key);
    });
    let of = |letter: &super::RowLetter| -> Option<Value> {
        let row: serde_json::Map<String, Value> = serde_json::from_str(&letter.raw).ok()?;
        Some(row.get(ordering).cloned().unwrap_or_default())
    };
    orderings.extend(come.iter().filter_map(|(key, letter)| Some((key.clone(), of(letter)?))));
}

/// The type by which a value of a letter is read: that of its column in the lake, as the letter's JSON has it.
fn read_as(data_type: &DataType) -> Option<SourceType> {
    Some(match data_type {
        DataType::Boolean => SourceType::Bool,
        DataType::Int32 => SourceType::Int { unsigned: false },
        DataType::Int64 => SourceType::BigInt { unsigned: false },
        DataType::Decimal128(precision, scale) => {
            SourceType::Decimal { precision: *precision, scale: u8::try_from(*scale).unwrap_or(0) }
        }
        DataType::Float32 => SourceType::Float,
        DataType::Float64 => SourceType::Double,
        DataType::Utf8 => SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 },
        DataType::Binary => SourceType::Binary { fixed_bytes: 0 },
        DataType::Date32 => SourceType::Date,
        DataType::Timestamp(..) => SourceType::Timestamp { fsp: 6 },
        DataType::List(item) => SourceType::List { item: Box::new(read_as(item.data_type())?) },
        _ => return None,
    })
}

/// A value of a letter's row, as its column has it. `Err` says why it can't be read.
///
/// # Errors
/// If it isn't of the column's type.
pub fn letter_cell(source_type: &SourceType, value: Option<&Value>) -> Result<Cell<'static>, &'static str> {
    let read_as = read_as(&source_type.lake_type()).ok_or("no column has this type")?;
    PlainType::of(read_as).cell(value.unwrap_or(&Value::Null))
}

/// Values of letters as a column. What can't be read any more is NULL, older than all.
fn values(source_type: &SourceType, of_letters: &[&Value]) -> Result<ArrayRef> {
    let field = Field::new("ordering", source_type.lake_type(), true);
    let mut column = CellColumns::new(Arc::new(Schema::new(vec![field])));
    for value in of_letters {
        column.push(vec![letter_cell(source_type, Some(value)).unwrap_or(Cell::Null)]);
    }
    let rows = column.finish().map_err(|error| data("the ordering of dead letters can't be read").caused_by(error))?;
    Ok(rows.column(0).clone())
}
