//! Whether two rows say the same.

use super::output::RowRef;
use super::shape::HistoryShape;
use crate::merge::shape::{COMMIT_TS, POSITION};
use arrow::array::{ArrayRef, DynComparator, RecordBatch, make_comparator};
use arrow::compute::SortOptions;
use std::collections::HashMap;

/// Compares rows of some batches, column by column, but for the transaction that wrote them. What compares a column of two batches is made when it is first
/// needed.
pub(super) struct SameRows<'a> {
    sources: [&'a RecordBatch; 3],
    names: Vec<String>,
    pairs: HashMap<(u8, u8), Option<Vec<DynComparator>>>,
}

impl<'a> SameRows<'a> {
    /// Of rows of `sources`.
    pub(super) fn new(shape: &HistoryShape, sources: [&'a RecordBatch; 3]) -> Self {
        let names = shape.row_columns().take(shape.present()).map(|field| field.name().clone());
        let names = names.filter(|name| name != COMMIT_TS && name != POSITION).collect();
        Self { sources, names, pairs: HashMap::new() }
    }

    /// Whether they have the same values; of columns that can't be compared: no.
    pub(super) fn are(&mut self, a: RowRef, b: RowRef) -> bool {
        let (sources, names) = (&self.sources, &self.names);
        let made = self.pairs.entry((a.source, b.source)).or_insert_with(|| {
            let (left, right) = (sources[a.source as usize], sources[b.source as usize]);
            let compare = |name: &String| {
                let (x, y): (Option<&ArrayRef>, Option<&ArrayRef>) = (left.column_by_name(name), right.column_by_name(name));
                make_comparator(x?.as_ref(), y?.as_ref(), SortOptions::default()).ok()
            };
            names.iter().map(compare).collect()
        });
        made.as_ref().is_some_and(|columns| columns.iter().all(|column| column(a.row as usize, b.row as usize).is_eq()))
    }
}
