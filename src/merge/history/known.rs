//! All versions of all keys that a history knows, key by key: where rows were reset, or have new columns.
//!
//! `_open` lies in the order of keys, `bounded` in the order of ends; what is wanted of it is sorted by key first, on disk where it exceeds memory.

use super::keys::{KeyBytes, unexpected};
use super::shape::{BOUNDED, HistoryShape, OPEN, partition_of};
use super::sorter::Sorter;
use crate::error::Result;
use crate::merge::spill::SpillFolder;
use crate::table::{RowReader, SortedChanges};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::concat_batches;

/// Rows in the order of keys, in batches that end between two keys.
pub(super) type KnownRows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// The rows of `_open`, and those of `bounded` behind `bound` (its first columns' values; `None`: all).
pub(super) fn known_rows(
    reader: &RowReader,
    shape: &HistoryShape,
    bound: Option<&[ArrayRef]>,
    spill: SpillFolder,
    memory_bytes: usize,
) -> Result<KnownRows> {
    let mut sorter = Sorter::by_key(shape, spill, memory_bytes)?;
    for rows in reader.clone().stream_behind(&partition_of(BOUNDED), bound)? {
        sorter.push(as_changes(rows?))?;
    }
    let open = reader.clone().stream(&partition_of(OPEN))?;
    if sorter.is_empty() {
        // each key once
        return Ok(Box::new(open));
    }
    let merged = sorter.sorted_with(Box::new(open.map(|rows| rows.map(as_changes))))?;
    let maker = KeyBytes::new(shape.key(), shape.columns())?;
    let mut whole = WholeKeys { rows: Box::new(merged.map(|changes| changes.map(|changes| changes.rows))), maker, rest: None };
    Ok(Box::new(std::iter::from_fn(move || whole.next().transpose())))
}

fn as_changes(rows: RecordBatch) -> SortedChanges {
    let is_delete = BooleanArray::from(vec![false; rows.num_rows()]);
    SortedChanges { rows, is_delete }
}

/// Has batches end between two keys.
struct WholeKeys {
    rows: KnownRows,
    maker: KeyBytes,
    /// The last key's rows: there may be more of them.
    rest: Option<RecordBatch>,
}

impl WholeKeys {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(next) = self.rows.next().transpose()? else { return Ok(self.rest.take()) };
            let rows = match self.rest.take() {
                Some(rest) => concat_batches(&next.schema(), [&rest, &next]).map_err(unexpected)?,
                None => next,
            };
            let keys = self.maker.of(&rows)?;
            let count = keys.num_rows();
            let Some(last) = count.checked_sub(1).map(|last| keys.row(last)) else { continue };
            let start = (0..count).rev().find(|row| keys.row(*row) != last).map_or(0, |row| row + 1);
            self.rest = Some(rows.slice(start, count - start));
            if start > 0 {
                return Ok(Some(rows.slice(0, start)));
            }
        }
    }
}
