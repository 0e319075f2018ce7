//! One job: the rows of one old row group (or none) and the changes among them, to new row groups.

use super::super::InstantTime;
use super::super::base_file::{
    BaseFile, ColumnEncoder, EncodedColumn, FileLayout, MAX_ROW_GROUP_ROWS, MetaColumn, RowGroupBytes, memory_type, page_rows_for,
};
use super::super::file_group::{Key, KeyCodec};
use super::super::record_key::{append_integer, record_keys};
use super::super::splice::{CopyMap, PageSplice, copy_chunk, equal_values};
use super::cursor::ChangePiece;
use super::merge::{MergePlan, changed_column, merge_column};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BinaryViewArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
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
enum Source<'a> {
    None,
    File { file: &'a BaseFile, row_group: usize, bytes: RowGroupBytes, copy: Option<&'a CopyMap> },
    Memory(&'a RecordBatch),
}

/// Does a job.
pub(super) fn run(context: &JobContext, job: Job) -> Result<JobOutput> {
    let source = match &job.old {
        OldRows::None => Source::None,
        OldRows::Memory(rows) => Source::Memory(rows),
        OldRows::RowGroup { .. } => Source::None,
    };
    match job.old {
        OldRows::RowGroup { file, row_group, fetch, copy } => {
            let bytes = context.runtime.block_on(fetch).map_err(|error| Error::bug("a fetch panicked").caused_by(error))??;
            let source = Source::File { file: &file, row_group, bytes, copy: copy.as_deref() };
            Work { context, number: job.number, source, changes: &job.changes }.run()
        }
        _ => Work { context, number: job.number, source, changes: &job.changes }.run(),
    }
}

struct Work<'a> {
    context: &'a JobContext,
    number: u32,
    source: Source<'a>,
    changes: &'a [ChangePiece],
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
        let plan = MergePlan::new(old_keys.as_ref(), self.changes);
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

    /// A column of the old rows in its memory type.
    fn old(&self, name: &str, stored: &DataType) -> Result<ArrayRef> {
        let (found, rows) = match &self.source {
            Source::None => (None, 0),
            Source::Memory(rows) => (rows.column_by_name(name).cloned(), rows.num_rows()),
            Source::File { file, row_group, bytes, .. } => {
                (file.read_column(bytes, *row_group, name, stored)?, file.row_group_rows(*row_group))
            }
        };
        Ok(match (found, self.context.fill.get(name)) {
            (Some(column), _) => column,
            (None, Some(value)) => take(value, &UInt32Array::from(vec![0; rows]), None).map_err(unexpected)?,
            (None, None) => new_null_array(&memory_type(stored), rows),
        })
    }

    /// The table's column `i` after the merge.
    fn merged(&self, old: Option<&ArrayRef>, i: usize, plan: &MergePlan) -> Result<ArrayRef> {
        let stored = self.context.layout.columns.field(i).data_type();
        match (&self.source, old) {
            (Source::None, _) | (_, None) => self.only_upserts(&changed_column(self.changes, i, stored)?, plan),
            (_, Some(old)) if self.changes.is_empty() => Ok(Arc::clone(old)),
            (_, Some(old)) => merge_column(old, &changed_column(self.changes, i, &memory_type(stored))?, plan),
        }
    }

    /// Whether all updates leave the table's column `i` as it was.
    fn unchanged(&self, old: &ArrayRef, i: usize, plan: &MergePlan) -> Result<bool> {
        let new = changed_column(self.changes, i, old.data_type())?;
        let equal = equal_values(old, &new);
        Ok(plan.ops.iter().all(|op| op.new.is_some_and(|row| equal(op.at as usize, row as usize))))
    }

    /// The rows of `new` that the plan takes, where there are no old ones.
    fn only_upserts(&self, new: &ArrayRef, plan: &MergePlan) -> Result<ArrayRef> {
        if plan.ops.len() == new.len() {
            return Ok(Arc::clone(new));
        }
        let rows = UInt32Array::from_iter_values(plan.ops.iter().filter_map(|op| op.new));
        take(new, &rows, None).map_err(unexpected)
    }

    /// One of Hudi's columns for all changes of the job.
    fn new_meta(&self, meta: MetaColumn) -> Result<ArrayRef> {
        let rows: usize = self.changes.iter().map(|piece| piece.range.len()).sum();
        let instant = self.context.instant.as_str();
        Ok(match meta {
            MetaColumn::CommitTime => {
                let one = BinaryViewArray::from_iter_values([instant.as_bytes()]);
                take(&one, &UInt32Array::from(vec![0; rows]), None).map_err(unexpected)?
            }
            MetaColumn::CommitSeqno => {
                let mut values = Vec::with_capacity(rows * (instant.len() + 12));
                let mut ends: Vec<i32> = Vec::with_capacity(rows + 1);
                ends.push(0);
                let mut prefix = instant.as_bytes().to_vec();
                prefix.push(b'_');
                append_integer(i64::from(self.number), &mut prefix);
                prefix.push(b'_');
                for row in 0..rows {
                    values.extend_from_slice(&prefix);
                    append_integer(i64::try_from(row).unwrap_or(0), &mut values);
                    ends.push(i32::try_from(values.len()).map_err(|_| Error::bug("too many changes in one job"))?);
                }
                Arc::new(
                    StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), values.into(), None).map_err(unexpected)?,
                )
            }
            _ => {
                let layout = &self.context.layout;
                let key = layout
                    .key
                    .iter()
                    .map(|i| changed_column(self.changes, *i, layout.columns.field(*i).data_type()))
                    .collect::<Result<Vec<_>>>()?;
                Arc::new(record_keys(layout.key_form, &layout.key_names, &key)?)
            }
        })
    }

    /// First and last key of the rows from `from` to `to`.
    fn range(&self, key: &[ArrayRef], from: usize, to: usize) -> Result<(RecordBatch, (Key, Key))> {
        let layout = &self.context.layout;
        let ends = UInt32Array::from(vec![u32::try_from(from).unwrap_or(0), u32::try_from(to.max(1) - 1).unwrap_or(0)]);
        let mut columns = Vec::with_capacity(key.len());
        let mut fields = Vec::with_capacity(key.len());
        for (column, i) in key.iter().zip(&layout.key) {
            let field = layout.columns.field(*i);
            let two = take(column, &ends, None).map_err(unexpected)?;
            columns.push(cast(&two, field.data_type()).map_err(unexpected)?);
            fields.push(field.clone());
        }
        let rows = self.context.codec.encode(&columns)?;
        let keys = (Key::from(rows.row(0).data()), Key::from(rows.row(1).data()));
        Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unexpected)?, keys))
    }

    /// Rows of a new page: as the old pages have, so that columns can be copied beside new ones, unless they are far from right.
    fn page_rows(&self) -> usize {
        let right = page_rows_for(self.widest());
        match &self.source {
            Source::File { file, row_group, copy: Some(copy), .. } => {
                let old = PageSplice::first_page_rows(file, *row_group, copy, &self.context.layout);
                old.filter(|old| *old <= 2 * right && right <= 2 * old).unwrap_or(right)
            }
            _ => right,
        }
    }

    /// Bytes a row of the widest column.
    fn widest(&self) -> usize {
        let old = match &self.source {
            Source::File { file, row_group, .. } => {
                let rows = file.row_group_rows(*row_group).max(1);
                let columns = file.metadata.row_group(*row_group).columns().iter();
                columns.map(|column| usize::try_from(column.uncompressed_size()).unwrap_or(0) / rows).max().unwrap_or(0)
            }
            Source::Memory(batch) => {
                let rows = batch.num_rows().max(1);
                batch.columns().iter().map(|column| column.get_array_memory_size() / rows).max().unwrap_or(0)
            }
            Source::None => 0,
        };
        let mut new = 0;
        for piece in self.changes {
            let rows = piece.batch.rows.num_rows().max(1);
            let columns = piece.batch.rows.columns().iter();
            let widest = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) / rows).max().unwrap_or(0);
            new = new.max(widest);
        }
        old.max(new)
    }
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("a row group can't be made").caused_by(error)
}
