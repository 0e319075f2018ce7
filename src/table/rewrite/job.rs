//! One job: the rows of one old row group (or none) and the changes among them, to new row groups.

use super::super::InstantTime;
use super::super::base_file::{
    BaseFile, ColumnEncoder, EncodedColumn, FileLayout, KeyRanges, MAX_ROW_GROUP_ROWS, MetaColumn, RowGroupBytes, memory_type,
};
use super::super::file_group::{Key, KeyCodec};
use super::super::splice::{CopyMap, PageSplice};
use super::cursor::ChangePiece;
use super::merge::MergePlan;
use super::ordering::RowOrdering;
use super::shared::SharedColumns;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use object_store::path::Path;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// What all jobs of a rewrite share.
#[derive(Debug)]
pub(super) struct JobContext {
    /// The columns of the new files.
    pub(super) layout: Arc<FileLayout>,
    /// Compares keys.
    pub(super) codec: Arc<KeyCodec>,
    /// Encodes columns.
    pub(super) encoder: ColumnEncoder,
    /// The commit's instant.
    pub(super) instant: InstantTime,
    /// One value each, in memory types: what old rows have in columns that their file lacks.
    pub(super) fill: HashMap<String, ArrayRef>,
    /// What of an old and a new row wins; `None`: the new one.
    pub(super) ordering: Option<RowOrdering>,
    /// What is made once for this table and another one of the commit.
    pub(super) shared: Option<Arc<SharedColumns>>,
    /// Where fetches run.
    pub(super) runtime: Handle,
}

/// A row group under way from the store.
pub(super) type Fetch = JoinHandle<Result<RowGroupBytes>>;

/// The rows that a job starts from.
pub(super) enum OldRows {
    /// None.
    None,
    /// A row group of a base file, sorted by key.
    RowGroup {
        /// The file.
        file: Arc<BaseFile>,
        /// Which of its row groups.
        row_group: usize,
        /// Its bytes.
        fetch: Fetch,
        /// What can be copied; `None`: nothing.
        copy: Option<Arc<CopyMap>>,
    },
    /// Rows in memory with the columns of [`memory_schema`], sorted by key.
    Memory(RecordBatch),
}

impl OldRows {
    /// The file that they come from.
    pub(super) fn path(&self) -> Option<Path> {
        match self {
            Self::RowGroup { file, .. } => Some(file.path.clone()),
            _ => None,
        }
    }
}

/// The columns of old rows in memory: what is kept of Hudi's, and the table's, in memory types.
pub(super) fn memory_schema(layout: &FileLayout) -> Arc<Schema> {
    use arrow::datatypes::Field;
    let meta = KEPT.iter().map(|meta| Field::new(meta.name(), DataType::BinaryView, true));
    let own = layout.columns.fields().iter().map(|field| field.as_ref().clone().with_data_type(memory_type(field.data_type())));
    Arc::new(Schema::new(meta.chain(own.map(|field| field.with_nullable(true))).collect::<Vec<_>>()))
}

/// Hudi's columns that unchanged rows keep; the other two follow from the file.
pub(super) const KEPT: [MetaColumn; 3] = [MetaColumn::CommitTime, MetaColumn::CommitSeqno, MetaColumn::RecordKey];

/// One job.
pub(super) struct Job {
    /// Unique in the commit.
    pub(super) number: u32,
    /// The old rows.
    pub(super) old: OldRows,
    /// The changes, all of whose keys lie in or around the old rows'.
    pub(super) changes: Vec<ChangePiece>,
}

/// A row group, ready to be appended; Hudi's partition path and file name are left to the writer.
pub(super) struct EncodedRowGroup {
    /// Hudi's commit time, sequence number, record key, then the table's columns.
    pub(super) columns: Vec<EncodedColumn>,
    /// Rows.
    pub(super) rows: usize,
    /// First and last key: two rows of the key columns.
    pub(super) range: RecordBatch,
    /// The same as bytes.
    pub(super) keys: (Key, Key),
}

/// What a job made.
#[derive(Default)]
pub(super) struct JobOutput {
    /// None if no row is left.
    pub(super) row_groups: Vec<EncodedRowGroup>,
    /// Rows that are new.
    pub(super) inserted: u64,
    /// Rows that were replaced.
    pub(super) updated: u64,
    /// Rows that went.
    pub(super) deleted: u64,
}

/// The old rows of a job, in reach.
pub(super) enum Source<'a> {
    None,
    File { file: &'a BaseFile, row_group: usize, bytes: RowGroupBytes, copy: Option<&'a CopyMap> },
    Memory(&'a RecordBatch),
}

/// Does a job.
pub(super) fn run(context: &JobContext, job: Job) -> Result<JobOutput> {
    let Job { number, old, changes, .. } = job;
    let work = |source| Work { context, number, source, changes: &changes }.run();
    match old {
        OldRows::None => work(Source::None),
        OldRows::Memory(rows) => work(Source::Memory(&rows)),
        OldRows::RowGroup { file, row_group, fetch, copy } => {
            let bytes = context.runtime.block_on(fetch).map_err(|error| Error::bug("a fetch panicked").caused_by(error))??;
            work(Source::File { file: &file, row_group, bytes, copy: copy.as_deref() })
        }
    }
}

pub(super) struct Work<'a> {
    pub(super) context: &'a JobContext,
    pub(super) number: u32,
    pub(super) source: Source<'a>,
    pub(super) changes: &'a [ChangePiece],
}

impl Work<'_> {
    fn run(self) -> Result<JobOutput> {
        let layout = &self.context.layout;
        if let (true, Source::File { file, row_group, bytes, copy: Some(copy) }) = (self.changes.is_empty(), &self.source)
            && let Some(ranges) = &file.ranges
        {
            // the keys at its ends are in the footer: nothing is decoded
            let key = self.ends(ranges, *row_group);
            let row_group = self.copied(file, *row_group, bytes, copy, self.range(&key, 0, 2)?)?;
            return Ok(JobOutput { row_groups: vec![row_group], ..JobOutput::default() });
        }
        let old_key = layout
            .key
            .iter()
            .map(|i| self.old(layout.columns.field(*i).name(), layout.columns.field(*i).data_type()))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let (columns, same) = self.common()?;
        let old_keys = match self.source {
            Source::None => None,
            _ => Some(self.context.codec.encode_rest(columns, &old_key[columns..])?),
        };
        let mut plan = MergePlan::new(old_keys.as_ref(), same, self.changes);
        if let Some(ordering) = self.context.ordering.as_ref().filter(|_| plan.updated > 0) {
            let field = layout.columns.field(ordering.column);
            ordering.drop_late(&mut plan, &self.old(field.name(), field.data_type())?, self.changes)?;
        }
        plan.join_pairs();
        let mut output =
            JobOutput { row_groups: Vec::new(), inserted: plan.inserted, updated: plan.updated, deleted: plan.deleted };
        if plan.rows() == 0 {
            return Ok(output);
        }
        let mut key = Vec::with_capacity(old_key.len());
        for (old, i) in old_key.iter().zip(&layout.key) {
            key.push(self.merged(old, &self.changed(*i)?, &plan)?);
        }
        if plan.ops.is_empty()
            && let Source::File { file, row_group, bytes, copy: Some(copy) } = &self.source
        {
            let range = self.range(&key, 0, plan.rows())?;
            output.row_groups.push(self.copied(file, *row_group, bytes, copy, range)?);
            return Ok(output);
        }
        let page_rows = self.page_rows();
        if let Source::File { file, row_group, bytes, copy: Some(copy) } = &self.source
            && 2 * plan.rows() <= 3 * MAX_ROW_GROUP_ROWS
            && let Some(splice) = PageSplice::new(file, bytes, *row_group, copy, layout, &plan, page_rows)
            && splice.is_sparse()
        {
            output.row_groups.push(self.spliced(file, *row_group, bytes, &splice, &plan, &key)?);
            return Ok(output);
        }
        output.row_groups = self.encoded(&plan, &old_key, &key, page_rows)?;
        Ok(output)
    }

    /// The key columns at the ends of a row group.
    fn ends(&self, ranges: &KeyRanges, row_group: usize) -> Vec<ArrayRef> {
        let ends = ranges.0.slice(2 * row_group, 2);
        self.context.layout.key_names.iter().filter_map(|name| ends.column_by_name(name).cloned()).collect()
    }

    /// How many of the first columns are the same in all keys of the job, and how many bytes of the keys those are.
    fn common(&self) -> Result<(usize, usize)> {
        let (Source::File { file, row_group, .. }, changes) = (&self.source, self.changes) else { return Ok((0, 0)) };
        let (Some(ranges), Some(first), Some(last)) = (&file.ranges, changes.first(), changes.last()) else { return Ok((0, 0)) };
        let ends = self.context.codec.encode(&self.ends(ranges, *row_group))?;
        let (columns, bytes) = self.context.codec.common(ends.row(0).data(), ends.row(1).data());
        let least = first.batch.keys.row(first.range.start);
        let greatest = last.batch.keys.row(last.range.end - 1);
        let is_same = [least, greatest].iter().all(|key| key.data()[..bytes] == ends.row(0).data()[..bytes]);
        Ok(if is_same { (columns, bytes) } else { (0, 0) })
    }
}

pub(super) fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("a row group can't be made").caused_by(error)
}
