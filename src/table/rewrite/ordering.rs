//! Tables whose rows have an order of their own: a change loses against a present row that is newer, whichever came later.

use super::cursor::ChangePiece;
use super::merge::{MergePlan, changed_column};
use crate::error::{Error, Result};
use crate::metrics::LATE_ROWS;
use arrow::array::{ArrayRef, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;

/// The column that says which of two rows is newer.
#[derive(Debug)]
pub(super) struct RowOrdering {
    /// Its index among the table's columns.
    pub(super) column: usize,
    table: String,
}

impl RowOrdering {
    /// By the column `name` of `table`.
    pub(super) fn new(name: &str, columns: &SchemaRef, table: &str) -> Result<Self> {
        let column = columns.index_of(name).map_err(|error| Error::bug("the ordering is no column").caused_by(error))?;
        Ok(Self { column, table: table.to_owned() })
    }

    /// Takes the updates out of the plan that lose; `old` has the old rows' values of the column. NULL is older than any value, and of equal ones
    /// the later wins.
    pub(super) fn drop_late(&self, plan: &mut MergePlan, old: &ArrayRef, changes: &[ChangePiece]) -> Result<()> {
        let new = changed_column(changes, self.column, old.data_type())?;
        let options = SortOptions { descending: false, nulls_first: true };
        let compare =
            make_comparator(old, &new, options).map_err(|error| Error::bug("the ordering can't be compared").caused_by(error))?;
        let late = plan.drop_updates(|old, new| compare(old, new).is_gt());
        if late > 0 {
            metrics::counter!(LATE_ROWS, "table" => self.table.clone()).increment(late);
        }
        Ok(())
    }
}
