//! The changes of a commit, handed out piece by piece in their order.

use super::super::SortedChanges;
use super::super::base_file::FileLayout;
use super::super::file_group::KeyCodec;
use super::super::partition_path::partition_runs;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::row::Rows;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// One batch of changes in the table's columns, with its keys.
#[derive(Debug)]
pub(super) struct ChangeBatch {
    /// The rows, in the columns and the order of the layout.
    pub(super) rows: RecordBatch,
    /// Which are deleted.
    pub(super) is_delete: BooleanArray,
    /// Their keys.
    pub(super) keys: Rows,
    /// Bytes in memory of a row, on average. Partition columns and fixed-width columns of the key don't count, so that a history, which has more of them
    /// than its table, is cut at the same rows.
    bytes_a_row: usize,
}

/// A piece of a batch.
#[derive(Debug, Clone)]
pub(in super::super) struct ChangePiece {
    /// The batch.
    pub(super) batch: Arc<ChangeBatch>,
    /// Its rows.
    pub(super) range: Range<usize>,
}

/// How much of the changes to take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Rows at most.
    pub(super) rows: usize,
    /// Bytes in memory at most, about.
    pub(super) bytes: usize,
}

/// Where bytes limit the rows of a job, they are a multiple of so many: averages that differ a little make no difference then.
const EVEN_ROWS: usize = if cfg!(test) { 64 } else { 16 * 1024 };

impl Limit {
    /// Rows at most where a row takes so many bytes.
    fn rows_of(self, bytes_a_row: usize) -> usize {
        let fit = self.bytes / bytes_a_row.max(1) + 1;
        if fit >= self.rows || fit < EVEN_ROWS { self.rows.min(fit) } else { fit - fit % EVEN_ROWS }
    }
}

/// The changes not yet handed out.
pub(super) struct ChangeCursor {
    source: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
    layout: Arc<FileLayout>,
    codec: Arc<KeyCodec>,
    partition_columns: Vec<String>,
    /// Pieces, each of one partition.
    ahead: VecDeque<(Arc<str>, ChangePiece)>,
    /// Partition and key of the last change read, to check the order.
    last: Option<(Arc<str>, Box<[u8]>)>,
}

impl ChangeCursor {
    /// Over `source`.
    pub(super) fn new(
        source: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
        layout: Arc<FileLayout>,
        codec: Arc<KeyCodec>,
        partition_columns: Vec<String>,
    ) -> Self {
        Self { source, layout, codec, partition_columns, ahead: VecDeque::new(), last: None }
    }

    /// The partition of the next change; `None` at the end.
    pub(super) fn partition(&mut self) -> Result<Option<Arc<str>>> {
        self.fill()?;
        Ok(self.ahead.front().map(|(path, _)| Arc::clone(path)))
    }

    /// Whether the next change is in `partition` and its key below `bound` (`None`: any key).
    pub(super) fn has(&mut self, partition: &str, bound: Option<&[u8]>) -> Result<bool> {
        self.fill()?;
        Ok(self.ahead.front().is_some_and(|(path, piece)| {
            **path == *partition && bound.is_none_or(|bound| piece.batch.keys.row(piece.range.start).data() < bound)
        }))
    }

    /// The key of the next change if it is in `partition` and below `bound`.
    pub(super) fn next_key(&mut self, partition: &str, bound: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        Ok(if self.has(partition, bound)? {
            self.ahead.front().map(|(_, piece)| piece.batch.keys.row(piece.range.start).data().to_vec())
        } else {
            None
        })
    }

    /// Takes the changes of `partition` with keys below `bound`, up to `limit`.
    pub(super) fn take(&mut self, partition: &str, bound: Option<&[u8]>, limit: Limit) -> Result<Vec<ChangePiece>> {
        let mut taken = Vec::new();
        let mut left = limit;
        while left.rows > 0 && left.bytes > 0 && self.has(partition, bound)? {
            let Some((path, piece)) = self.ahead.pop_front() else { break };
            let keys = &piece.batch.keys;
            if taken.is_empty() {
                left.rows = limit.rows_of(piece.batch.bytes_a_row);
            }
            let most = left.rows.min(left.bytes / piece.batch.bytes_a_row + 1);
            let mut end = piece.range.end.min(piece.range.start + most);
            if let Some(bound) = bound {
                end = lower_bound(keys, piece.range.start..end, bound);
            }
            left.rows -= end - piece.range.start;
            left.bytes = left.bytes.saturating_sub((end - piece.range.start) * piece.batch.bytes_a_row);
            if end < piece.range.end {
                self.ahead.push_front((path, ChangePiece { batch: Arc::clone(&piece.batch), range: end..piece.range.end }));
            }
            taken.push(ChangePiece { range: piece.range.start..end, ..piece });
        }
        Ok(taken)
    }

    fn fill(&mut self) -> Result<()> {
        while self.ahead.is_empty() {
            let Some(changes) = self.source.next() else { return Ok(()) };
            let changes = changes?;
            if changes.rows.num_rows() > 0 {
                self.read(changes)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, changes: SortedChanges) -> Result<()> {
        let runs = partition_runs(&self.partition_columns, &changes.rows)?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.layout.columns.fields().len());
        let mut bytes = 1;
        for (i, field) in self.layout.columns.fields().iter().enumerate() {
            let column = changes
                .rows
                .column_by_name(field.name())
                .ok_or_else(|| Error::bug("changes lack a column of the table").with("column", field.name()))?;
            let is_even = self.layout.key.contains(&i) && column.data_type().primitive_width().is_some();
            if !is_even && !self.partition_columns.contains(field.name()) {
                bytes += column.to_data().get_slice_memory_size().unwrap_or(0);
            }
            columns.push(if column.data_type() == field.data_type() {
                Arc::clone(column)
            } else {
                cast(column, field.data_type()).map_err(|error| {
                    Error::bug("changes have another type than the table").with("column", field.name()).caused_by(error)
                })?
            });
        }
        let key: Vec<ArrayRef> = self.layout.key.iter().map(|i| Arc::clone(&columns[*i])).collect();
        let keys = self.codec.encode(&key)?;
        let rows = RecordBatch::try_new(Arc::clone(&self.layout.columns), columns)
            .map_err(|error| Error::bug("changes don't fit the table").caused_by(error))?;
        let bytes_a_row = bytes.div_ceil(rows.num_rows());
        let batch = Arc::new(ChangeBatch { rows, is_delete: changes.is_delete, keys, bytes_a_row });
        for (range, path) in runs {
            let path: Arc<str> = path.into();
            self.check_order(&path, &batch.keys, range.clone())?;
            self.ahead.push_back((path, ChangePiece { batch: Arc::clone(&batch), range }));
        }
        Ok(())
    }

    /// The files' order, and so all later reads, rest on the changes' order: not trusted.
    fn check_order(&mut self, path: &Arc<str>, keys: &Rows, range: Range<usize>) -> Result<()> {
        let mut ordered = match &self.last {
            Some((last, key)) => (&**last, &**key) < (&**path, keys.row(range.start).data()),
            None => true,
        };
        for row in range.start + 1..range.end {
            ordered &= keys.row(row - 1).data() < keys.row(row).data();
        }
        if !ordered {
            return Err(Error::bug("changes are not sorted by partition path and key, or have a key twice").with("partition", path));
        }
        self.last = Some((Arc::clone(path), keys.row(range.end - 1).data().into()));
        Ok(())
    }
}

/// The first of `range` whose key is not below `bound`.
pub(super) fn lower_bound(keys: &Rows, range: Range<usize>, bound: &[u8]) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if keys.row(middle).data() < bound {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
