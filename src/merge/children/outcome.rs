//! Which of a commit's changes come in: of a table with an ordering, those that lose against the row that is there don't.

use super::explode::{chosen, narrowed};
use super::shape::ChildShape;
use crate::error::{Error, Result};
use crate::table::{RowReader, SortedChanges, Table};
use arrow::array::make_comparator;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::Schema;

/// Tells what becomes of changes of the parent, as the parent's own commit does.
#[derive(Debug)]
pub(super) struct Outcome {
    ordering: String,
    reader: RowReader,
}

impl Outcome {
    /// For changes with `columns` of `parent` as it is; `None`: they all come in.
    pub(super) fn of(shape: &ChildShape, parent: &Table, columns: &Schema) -> Result<Option<Self>> {
        let Some(ordering) = shape.ordering() else { return Ok(None) };
        let names: Vec<&str> = shape.parent_key().iter().map(String::as_str).chain([ordering]).collect();
        Ok(Some(Self { ordering: ordering.to_owned(), reader: parent.row_reader(&narrowed(columns, &names))? }))
    }

    /// The rows of `changes`, sorted changes of one partition, that come in. A delete always does.
    pub(super) fn rows(&mut self, shape: &ChildShape, partition: &str, changes: &SortedChanges) -> Result<Vec<usize>> {
        let SortedChanges { rows: changes, is_delete } = changes;
        let found = self.reader.find(partition, &chosen(changes, shape.parent_key())?)?;
        let old = chosen(&found.rows, std::slice::from_ref(&self.ordering))?.remove(0);
        let new = chosen(changes, std::slice::from_ref(&self.ordering))?.remove(0);
        let unexpected = |error| Error::bug("the ordering can't be compared").caused_by(error);
        let new = cast(&new, old.data_type()).map_err(unexpected)?;
        // as the table does: NULL is older than any value, of equal ones the later wins
        let compare = make_comparator(&old, &new, SortOptions { descending: false, nulls_first: true }).map_err(unexpected)?;
        let mut come = vec![true; changes.num_rows()];
        for (present, change) in found.prefixes.iter().enumerate() {
            let change = *change as usize;
            come[change] &= is_delete.value(change) || !compare(present, change).is_gt();
        }
        Ok(come.iter().enumerate().filter(|(_, comes)| **comes).map(|(row, _)| row).collect())
    }
}
