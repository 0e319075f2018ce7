//! One job: the rows of one old row group (or none) and the changes among them, to new row groups.

use super::super::InstantTime;
use super::super::base_file::{
    BaseFile, ColumnEncoder, EncodedColumn, FileLayout, MAX_ROW_GROUP_ROWS, MetaColumn, RowGroupBytes, memory_type,
};
use super::super::file_group::{Key, KeyCodec};
use super::super::splice::{CopyMap, PageSplice, copy_chunk};
use super::cursor::ChangePiece;
use super::merge::{MergePlan, changed_column, merge_column};
use super::ordering::RowOrdering;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
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
const KEPT: [MetaColumn; 3] = [MetaColumn::CommitTime, MetaColumn::CommitSeqno, MetaColumn::RecordKey];

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
            let ends = ranges.0.slice(2 * row_group, 2);
            let key: Vec<ArrayRef> = layout.key_names.iter().filter_map(|name| ends.column_by_name(name).cloned()).collect();
            let row_group = self.copied(file, *row_group, bytes, copy, self.range(&key, 0, 2)?)?;
            return Ok(JobOutput { row_groups: vec![row_group], ..JobOutput::default() });
        }
        let old_key = layout
            .key
            .iter()
            .map(|i| self.old(layout.columns.field(*i).name(), layout.columns.field(*i).data_type()))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let old_keys = match self.source {
            Source::None => None,
            _ => Some(self.context.codec.encode(&old_key)?),
        };
        let mut plan = MergePlan::new(old_keys.as_ref(), self.changes);
        if let Some(ordering) = self.context.ordering.as_ref().filter(|_| plan.updated > 0) {
            let field = layout.columns.field(ordering.column);
            ordering.drop_late(&mut plan, &self.old(field.name(), field.data_type())?, self.changes)?;
        }
        let mut output =
            JobOutput { row_groups: Vec::new(), inserted: plan.inserted, updated: plan.updated, deleted: plan.deleted };
        if plan.rows() == 0 {
            return Ok(output);
        }
        let mut key = Vec::with_capacity(old_key.len());
        for (old, i) in old_key.iter().zip(&layout.key) {
            key.push(self.merged(Some(old), *i, &plan)?);
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
        output.row_groups = self.encoded(&plan, &key, page_rows)?;
        Ok(output)
    }

    /// The row group with only the pages made anew that the changes touch.
    fn spliced(
        &self,
        file: &BaseFile,
        row_group: usize,
        bytes: &RowGroupBytes,
        splice: &PageSplice<'_>,
        plan: &MergePlan,
        key: &[ArrayRef],
    ) -> Result<EncodedRowGroup> {
        let layout = &self.context.layout;
        let ranges = splice.old_ranges();
        let mut columns = Vec::with_capacity(KEPT.len() + layout.columns.fields().len());
        for meta in KEPT {
            let old = || file.read_rows(bytes, row_group, meta.name(), &DataType::Utf8, &ranges);
            let new = cast(&self.new_meta(meta)?, &DataType::BinaryView).map_err(unexpected)?;
            columns.push(splice.column(meta as usize, old, &new, &self.context.encoder)?);
        }
        for (i, field) in layout.columns.fields().iter().enumerate() {
            let old = || file.read_rows(bytes, row_group, field.name(), field.data_type(), &ranges);
            let new = changed_column(self.changes, i, &memory_type(field.data_type()))?;
            columns.push(splice.column(i + MetaColumn::ALL.len(), old, &new, &self.context.encoder)?);
        }
        let (range, keys) = self.range(key, 0, plan.rows())?;
        Ok(EncodedRowGroup { columns, rows: plan.rows(), range, keys })
    }

    /// The row group as it is.
    fn copied(
        &self,
        file: &BaseFile,
        row_group: usize,
        bytes: &RowGroupBytes,
        copy: &CopyMap,
        (range, keys): (RecordBatch, (Key, Key)),
    ) -> Result<EncodedRowGroup> {
        let layout = &self.context.layout;
        let rows = file.row_group_rows(row_group);
        let mut columns = Vec::with_capacity(KEPT.len() + layout.columns.fields().len());
        let own = (0..layout.columns.fields().len()).map(|i| i + MetaColumn::ALL.len());
        for leaf in KEPT.iter().map(|meta| *meta as usize).chain(own) {
            columns.push(match copy.source(leaf) {
                Some(source) => copy_chunk(file, bytes, row_group, source, &layout.parquet.column(leaf))?,
                None => {
                    let field = layout.columns.field(leaf - MetaColumn::ALL.len());
                    let missing = self.old(field.name(), field.data_type())?;
                    self.context.encoder.encode(leaf - MetaColumn::ALL.len(), &missing, self.page_rows())?
                }
            });
        }
        Ok(EncodedRowGroup { columns, rows, range, keys })
    }

    /// All columns decoded, merged and encoded, in as many row groups as it takes.
    fn encoded(&self, plan: &MergePlan, key: &[ArrayRef], page_rows: usize) -> Result<Vec<EncodedRowGroup>> {
        let layout = &self.context.layout;
        let rows = plan.rows();
        let cuts = if 2 * rows > 3 * MAX_ROW_GROUP_ROWS { rows.div_ceil(MAX_ROW_GROUP_ROWS) } else { 1 };
        let bounds: Vec<usize> = (0..=cuts).map(|cut| cut * rows / cuts).collect();
        let mut row_groups = Vec::with_capacity(cuts);
        for bounds in bounds.windows(2) {
            let (range, keys) = self.range(key, bounds[0], bounds[1])?;
            row_groups.push(EncodedRowGroup { columns: Vec::new(), rows: bounds[1] - bounds[0], range, keys });
        }
        // where all rows keep their places and pages are regular, a column may keep its pages, or have them made from indices, beside new ones
        let in_place = match &self.source {
            Source::File { file, row_group, bytes, copy: Some(copy) }
                if plan.inserted + plan.deleted == 0 && PageSplice::is_regular(file, *row_group, copy, layout, page_rows) =>
            {
                PageSplice::new(file, bytes, *row_group, copy, layout, plan, page_rows).map(|splice| (*copy, splice))
            }
            _ => None,
        };
        for meta in KEPT {
            let new = self.new_meta(meta)?;
            if let (Some((_, splice)), MetaColumn::CommitTime, [target]) = (&in_place, meta, &mut row_groups[..])
                && let Some(chunk) = splice.by_indices(meta as usize, &new, &self.context.encoder)?
            {
                target.columns.push(chunk);
                continue;
            }
            let merged = match self.source {
                Source::None => self.only_upserts(&new, plan)?,
                _ => merge_column(
                    &self.old(meta.name(), &DataType::Utf8)?,
                    &cast(&new, &DataType::BinaryView).map_err(unexpected)?,
                    plan,
                )?,
            };
            for (cut, row_group) in row_groups.iter_mut().enumerate() {
                let part = merged.slice(bounds[cut], row_group.rows);
                row_group.columns.push(self.context.encoder.encode_meta(meta, &part, page_rows)?);
            }
        }
        for (i, field) in layout.columns.fields().iter().enumerate() {
            let merged = match (layout.key.iter().position(|k| *k == i), &self.source) {
                (Some(position), _) => Arc::clone(&key[position]),
                (None, Source::None) => self.merged(None, i, plan)?,
                (None, source) => {
                    let leaf = i + MetaColumn::ALL.len();
                    if let (Some((_, splice)), [target]) = (&in_place, &mut row_groups[..]) {
                        let new = changed_column(self.changes, i, &memory_type(field.data_type()))?;
                        if let Some(chunk) = splice.by_indices(leaf, &new, &self.context.encoder)? {
                            target.columns.push(chunk);
                            continue;
                        }
                    }
                    let old = self.old(field.name(), field.data_type())?;
                    if let (Some((copy, _)), Source::File { file, row_group, bytes, .. }, [target]) =
                        (&in_place, source, &mut row_groups[..])
                        && let Some(source) = copy.source(leaf)
                        && self.unchanged(&old, i, plan)?
                    {
                        target.columns.push(copy_chunk(file, bytes, *row_group, source, &layout.parquet.column(leaf))?);
                        continue;
                    }
                    self.merged(Some(&old), i, plan)?
                }
            };
            for (cut, row_group) in row_groups.iter_mut().enumerate() {
                let part = merged.slice(bounds[cut], row_group.rows);
                row_group.columns.push(self.context.encoder.encode(i, &part, page_rows)?);
            }
        }
        Ok(row_groups)
    }
}

pub(super) fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("a row group can't be made").caused_by(error)
}
