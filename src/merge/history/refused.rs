//! Rows whose valid time can't be read, where these become dead letters: in the table and in its history they are deletes of their keys.

use super::rule::{HistoryRule, OnInvalid};
use super::valid_time::ValidTimes;
use crate::error::Result;
use crate::table::SortedChanges;
use crate::transform::Failure;
use arrow::array::BooleanArray;

impl HistoryRule {
    /// The rule, if it makes dead letters.
    pub(in crate::merge) fn refusing(&self) -> Option<&Self> {
        (self.on_invalid_valid_time == OnInvalid::DeadLetter).then_some(self)
    }

    /// The changes without the rows that can't be read, and these.
    pub(in crate::merge) fn refuse(&self, changes: SortedChanges) -> Result<(SortedChanges, Vec<Failure>)> {
        let times = ValidTimes::new(self, &changes.rows)?;
        let mut failed = Vec::new();
        for row in (0..changes.rows.num_rows()).filter(|row| !changes.is_delete.value(*row)) {
            if let Some(column) = times.unreadable(row) {
                let reason = "the valid time is NULL or can't be read, or its end lies before its beginning".to_owned();
                failed.push(Failure { row, column: column.to_owned(), reason });
            }
        }
        if failed.is_empty() {
            return Ok((changes, failed));
        }
        metrics::counter!(crate::metrics::INVALID_VALID_TIMES).increment(failed.len() as u64);
        let mut goes: Vec<bool> = changes.is_delete.values().iter().collect();
        failed.iter().for_each(|failure| goes[failure.row] = true);
        Ok((SortedChanges { rows: changes.rows, is_delete: BooleanArray::from(goes) }, failed))
    }
}
