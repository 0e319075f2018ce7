//! Old rows that have to pass through memory in batches: file groups that overlap or aren't sorted, and row groups among which more changes come than
//! one job may hold.

use super::super::base_file::{BaseFile, MAX_ROW_GROUP_ROWS, MetaColumn, RowGroupBytes, parquet_error};
use super::cursor::{ChangeCursor, ChangePiece, lower_bound};
use super::job::{OldRows, memory_schema};
use super::plan::Planner;
use super::pool::Dispatcher;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::row::Rows;
use std::sync::Arc;

/// What comes after is not known in bytes.
const UNKNOWN: u64 = u64::MAX;

/// Rows that are read of a file at once.
const BATCH_ROWS: usize = 8192;

/// Merges `files`, whose rows overlap or aren't sorted, and the changes up to `bound`, into sorted jobs.
pub(super) fn restore(
    planner: &mut Planner<'_>,
    dispatcher: &Dispatcher,
    path: &Arc<str>,
    files: &[Arc<BaseFile>],
    bound: Option<&[u8]>,
    changes: &mut ChangeCursor,
) -> Result<()> {
    let mut streams = Vec::with_capacity(files.len());
    for file in files {
        let mut stream = FileStream::of(file);
        if let Some(head) = stream.advance(planner)? {
            streams.push((stream, head));
        }
    }
    while !streams.is_empty() {
        let (batch, keys) = next_batch(planner, &mut streams)?;
        // all changes up to the batch's last key belong to it; those behind the last batch are the caller's
        let last = keys.row(batch.num_rows() - 1).data().to_vec();
        let mut after_last = last;
        after_last.push(0);
        let end = if streams.is_empty() { bound } else { Some(after_last.as_slice()) };
        slice_by_slice(planner, dispatcher, path, &batch, &keys, Vec::new(), end, changes)?;
    }
    Ok(())
}

/// The rows of sorted files whose keys follow one another, in row groups as large as they may be. What waits for the next one is all that is in memory.
pub(super) fn in_turn(planner: &mut Planner<'_>, dispatcher: &Dispatcher, files: &[Arc<BaseFile>]) -> Result<()> {
    let mut waiting: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    for file in files {
        let stream = FileStream::of(file);
        for (row_group, said) in file.metadata.row_groups().iter().enumerate() {
            let whole = usize::try_from(said.total_byte_size()).unwrap_or(0);
            let row_bytes = whole / file.row_group_rows(row_group).max(1) + 1;
            for batch in stream.read(planner, row_group)? {
                let (more_rows, more_bytes) = (batch.num_rows(), batch.num_rows() * row_bytes);
                if rows + more_rows > MAX_ROW_GROUP_ROWS || bytes + more_bytes > planner.limit.bytes {
                    hand_on(planner, dispatcher, &mut waiting)?;
                    (rows, bytes) = (0, 0);
                }
                (rows, bytes) = (rows + more_rows, bytes + more_bytes);
                waiting.push(batch);
            }
        }
    }
    hand_on(planner, dispatcher, &mut waiting)
}

fn hand_on(planner: &mut Planner<'_>, dispatcher: &Dispatcher, waiting: &mut Vec<RecordBatch>) -> Result<()> {
    let Some(first) = waiting.first() else { return Ok(()) };
    let rows = concat_batches(&first.schema(), waiting.iter()).map_err(unexpected)?;
    waiting.clear();
    planner.dispatch(dispatcher, OldRows::Memory(rows), Vec::new(), UNKNOWN)
}

/// Merges a row group with more changes than one job may hold; `first` are the first of them.
#[allow(clippy::too_many_arguments)]
pub(super) fn piecewise(
    planner: &mut Planner<'_>,
    dispatcher: &Dispatcher,
    path: &Arc<str>,
    file: &Arc<BaseFile>,
    row_group: usize,
    bytes: &RowGroupBytes,
    first: Vec<ChangePiece>,
    end: Option<&[u8]>,
    changes: &mut ChangeCursor,
) -> Result<()> {
    let batch = read_row_group(planner, file, row_group, bytes)?;
    let keys = keys_of(planner, &batch)?;
    slice_by_slice(planner, dispatcher, path, &batch, &keys, first, end, changes)
}

/// Jobs over sorted rows in memory: each takes as many changes as it may, and the old rows up to the next change.
#[allow(clippy::too_many_arguments)]
fn slice_by_slice(
    planner: &mut Planner<'_>,
    dispatcher: &Dispatcher,
    path: &Arc<str>,
    batch: &RecordBatch,
    keys: &Rows,
    first: Vec<ChangePiece>,
    end: Option<&[u8]>,
    changes: &mut ChangeCursor,
) -> Result<()> {
    let mut done = 0;
    let mut pieces = first;
    while done < batch.num_rows() {
        if pieces.is_empty() {
            pieces = changes.take(path, end, planner.limit)?;
        }
        let upto = match changes.next_key(path, end)? {
            Some(key) => lower_bound(keys, done..batch.num_rows(), &key),
            None => batch.num_rows(),
        };
        let old = OldRows::Memory(batch.slice(done, upto - done));
        planner.dispatch(dispatcher, old, std::mem::take(&mut pieces), UNKNOWN)?;
        done = upto;
    }
    planner.fresh(dispatcher, path, end, changes)
}

/// A file's rows in the order of keys.
struct FileStream {
    file: Arc<BaseFile>,
    next: usize,
    /// Batches to come, the last first.
    batches: Vec<RecordBatch>,
    sorted_all: bool,
}

/// The rows of a stream that are next, from `at` on.
struct Head {
    batch: RecordBatch,
    keys: Rows,
    at: usize,
}

impl FileStream {
    fn of(file: &Arc<BaseFile>) -> Self {
        Self { file: Arc::clone(file), next: 0, batches: Vec::new(), sorted_all: false }
    }

    fn advance(&mut self, planner: &Planner<'_>) -> Result<Option<Head>> {
        loop {
            if let Some(batch) = self.batches.pop() {
                if batch.num_rows() > 0 {
                    let keys = keys_of(planner, &batch)?;
                    return Ok(Some(Head { batch, keys, at: 0 }));
                }
            } else if self.sorted_all || self.next == self.file.metadata.num_row_groups() {
                return Ok(None);
            } else if self.file.ranges.is_some() {
                // ours: sorted
                self.batches = self.read(planner, self.next)?;
                self.batches.reverse();
                self.next += 1;
            } else {
                self.batches = self.sort(planner)?;
                self.sorted_all = true;
            }
        }
    }

    fn read(&self, planner: &Planner<'_>, row_group: usize) -> Result<Vec<RecordBatch>> {
        let bytes = planner.context.runtime.block_on(self.file.fetch(&planner.store, row_group))?;
        let schema = memory_schema(&planner.context.layout);
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let batches = self.file.batches(&bytes, row_group, &names, BATCH_ROWS)?;
        batches
            .map(|batch| {
                let batch = batch.map_err(|error| parquet_error(error, &self.file.path))?;
                self.file.conform(&batch, &schema, &planner.context.fill)
            })
            .collect()
    }

    /// Another writer's file, in the order in which it wrote it: sorted here, whole.
    fn sort(&self, planner: &Planner<'_>) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for row_group in 0..self.file.metadata.num_row_groups() {
            batches.extend(self.read(planner, row_group)?);
        }
        let Some(first) = batches.first() else { return Ok(batches) };
        let whole = concat_batches(&first.schema(), &batches).map_err(unexpected)?;
        drop(batches);
        let keys = keys_of(planner, &whole)?;
        let mut order: Vec<u32> = (0..u32::try_from(whole.num_rows()).unwrap_or(u32::MAX)).collect();
        let times = whole.column_by_name(MetaColumn::CommitTime.name()).map(|times| times.as_binary_view());
        let key = |row: &u32| keys.row(*row as usize);
        let time = |row: &u32| times.map(|times| times.value(*row as usize));
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then_with(|| time(b).cmp(&time(a))));
        // a key twice: the row of the later commit counts
        order.dedup_by(|later, first| key(later) == key(first));
        let sorted = take_record_batch(&whole, &UInt32Array::from(order)).map_err(unexpected)?;
        let starts = (0..sorted.num_rows()).step_by(BATCH_ROWS);
        let mut slices: Vec<RecordBatch> = starts.map(|at| sorted.slice(at, BATCH_ROWS.min(sorted.num_rows() - at))).collect();
        slices.reverse();
        Ok(slices)
    }
}

/// The next rows of all streams in the order of keys, each key once: of a key that lies in several, the row of the latest commit.
fn next_batch(planner: &Planner<'_>, streams: &mut Vec<(FileStream, Head)>) -> Result<(RecordBatch, Rows)> {
    let mut parts: Vec<RecordBatch> = Vec::new();
    let mut part_of: Vec<Option<usize>> = vec![None; streams.len()];
    let mut rows: Vec<(usize, usize)> = Vec::new();
    let mut last: Option<Box<[u8]>> = None;
    while !streams.is_empty() && rows.len() < MAX_ROW_GROUP_ROWS {
        let least = streams.iter().enumerate().min_by(|(_, (_, a)), (_, (_, b))| a.keys.row(a.at).cmp(&b.keys.row(b.at)));
        let Some((stream, _)) = least else { break };
        let head = &mut streams[stream].1;
        let part = *part_of[stream].get_or_insert_with(|| {
            parts.push(head.batch.clone());
            parts.len() - 1
        });
        let key = head.keys.row(head.at);
        if last.as_deref() == Some(key.data()) {
            if let Some(kept) = rows.last_mut()
                && commit_time(&parts[part], head.at) > commit_time(&parts[kept.0], kept.1)
            {
                *kept = (part, head.at);
            }
        } else {
            last = Some(key.data().into());
            rows.push((part, head.at));
        }
        head.at += 1;
        if head.at == head.batch.num_rows() {
            part_of[stream] = None;
            match streams[stream].0.advance(planner)? {
                Some(next) => streams[stream].1 = next,
                None => {
                    streams.remove(stream);
                    part_of.remove(stream);
                }
            }
        }
    }
    // rows of the last key that are still to come must not start the next batch
    while let Some(last) = &last {
        let Some(stream) = streams.iter().position(|(_, head)| head.keys.row(head.at).data() == &**last) else { break };
        let head = &mut streams[stream].1;
        if let Some(kept) = rows.last_mut()
            && commit_time(&head.batch, head.at) > commit_time(&parts[kept.0], kept.1)
        {
            parts.push(head.batch.clone());
            *kept = (parts.len() - 1, head.at);
        }
        head.at += 1;
        if head.at == head.batch.num_rows() {
            match streams[stream].0.advance(planner)? {
                Some(next) => streams[stream].1 = next,
                None => drop(streams.remove(stream)),
            }
        }
    }
    let batch = interleave_record_batch(&parts.iter().collect::<Vec<_>>(), &rows).map_err(unexpected)?;
    let keys = keys_of(planner, &batch)?;
    Ok((batch, keys))
}

fn commit_time(batch: &RecordBatch, row: usize) -> Option<&[u8]> {
    batch.column_by_name(MetaColumn::CommitTime.name()).map(|times| times.as_binary_view().value(row))
}

fn read_row_group(planner: &Planner<'_>, file: &Arc<BaseFile>, row_group: usize, bytes: &RowGroupBytes) -> Result<RecordBatch> {
    let schema = memory_schema(&planner.context.layout);
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut batches = Vec::new();
    for batch in file.batches(bytes, row_group, &names, BATCH_ROWS)? {
        let batch = batch.map_err(|error| parquet_error(error, &file.path))?;
        batches.push(file.conform(&batch, &schema, &planner.context.fill)?);
    }
    concat_batches(&schema, &batches).map_err(unexpected)
}

fn keys_of(planner: &Planner<'_>, batch: &RecordBatch) -> Result<Rows> {
    let layout = &planner.context.layout;
    let columns: Vec<ArrayRef> = layout.key_names.iter().filter_map(|name| batch.column_by_name(name).cloned()).collect();
    planner.context.codec.encode(&columns)
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("old rows can't be sorted").caused_by(error)
}
