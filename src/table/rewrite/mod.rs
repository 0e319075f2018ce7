//! From sorted changes and the live file slices to new base files.
//!
//! **Why this is right.** Within a partition, file groups hold disjoint ranges of the key, and a file's rows are sorted by key. So one pass over the
//! changes, which come sorted too, meets each file group once, and in a file each row group once: the row group is the unit of work. A row group
//! that no change touches is copied as raw bytes; in one that a few changes touch, only the pages around them are made anew ([`super::splice`]);
//! one that many changes touch is merged column by column. Groups of other writers that overlap or aren't sorted are merged into sorted,
//! disjoint ones as soon as a change touches them (`restore`), so that a key is always looked up in every file that could hold it.
//!
//! **How it runs.** A planner walks changes and files in order and makes jobs, one a row group; `rewrite_threads` workers fetch, decode, merge and
//! encode; one writer appends what they made, in order, to one file after the other and uploads it in parts. The changes are made a batch ahead (`ahead`).
//! At most a few jobs are in flight, so memory is bounded by row groups, not by files or commits. Nothing that is written is visible before the commit.
//!
//! **What two tables share.** A history's open versions are its table's rows: chunks that come out the same are made once for both (`shared`).

mod ahead;
mod cursor;
mod job;
mod job_chunks;
mod job_columns;
mod merge;
mod ordering;
mod output;
mod plan;
mod pool;
mod regroup;
mod restore;
mod shared;

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod shared_tests;

pub(super) use merge::{MergePlan, Op, merge_column};
pub(super) use shared::SharedColumns;

use super::base_file::{FileLayout, assign_field_ids};
use super::file_group::KeyIndex;
use super::{FileId, FileSlice, InstantTime, SortedChanges, TableOptions, WriteStat};
use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a rewrite has to know.
pub(super) struct RewriteInput {
    /// Where the files are.
    pub store: Arc<dyn ObjectStore>,
    /// The table's path in `store`.
    pub base: Path,
    /// `database.table`: file ids are derived from it.
    pub table: String,
    /// See [`super::TableSpec::sort_prefix`].
    pub sort_prefix: Vec<String>,
    /// Whether nothing is copied from files that are rewritten.
    pub copies_nothing: bool,
    /// Names of the record key's columns.
    pub record_key: Vec<String>,
    /// Names of the partition columns.
    pub partition_columns: Vec<String>,
    /// How files are cut, and what a rewrite may use.
    pub options: TableOptions,
    /// The instant of the commit.
    pub instant: InstantTime,
    /// The last completed instant before it: see [`FileId::derive`].
    pub previous_instant: Option<InstantTime>,
    /// Says a try of this commit from an earlier one that failed: two numbers joined by `-`, the end of the write token.
    pub attempt: String,
    /// The columns from now on.
    pub columns: SchemaRef,
    /// The columns as of the last commit; `None` where there is no commit yet.
    pub previous_columns: Option<SchemaRef>,
    /// Those of them that end, and those that are others of the same name from now on.
    pub replaced_columns: Vec<String>,
    /// See [`super::CommitRequest::fill`].
    pub fill: Option<RecordBatch>,
    /// See [`super::CommitRequest::truncate`].
    pub truncate: bool,
    /// See [`super::CommitRequest::changes`].
    pub changes: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
    /// See [`super::CommitRequest::ordering`].
    pub ordering: Option<String>,
    /// What is made once for this table and another one of the commit.
    pub shared: Option<Arc<SharedColumns>>,
    /// The base files that hold the table's rows now.
    pub live: Vec<FileSlice>,
    /// The Avro schema of the files, with Hudi's own columns: goes into their footers.
    pub avro_schema: String,
    /// What `field_ids` of the last rewrite's output was; the commit's `extraMetadata` keeps it.
    pub field_ids: Option<String>,
    /// The key ranges of files seen before: kept by the table from commit to commit.
    pub index: KeyIndex,
    /// Rows that go to other files, in the place of changes.
    pub regroup: Option<Regroup>,
}

/// Rows that go, as they are, to new file groups.
#[derive(Debug, Clone)]
pub(super) enum Regroup {
    /// Those of some files: of an earlier commit's, which come again.
    Again {
        /// The files.
        files: Vec<FileSlice>,
        /// Slices of file groups that end.
        ended: Vec<FileSlice>,
    },
    /// Those of small files, with their neighbours'.
    SmallFiles,
}

impl fmt::Debug for RewriteInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewriteInput").field("table", &self.table).field("instant", &self.instant).finish_non_exhaustive()
    }
}

/// What a rewrite made.
#[derive(Debug, Clone, Default)]
pub(super) struct RewriteOutput {
    /// One a new file.
    pub stats: Vec<WriteStat>,
    /// By partition path, the file groups that ended: all their rows went, or went to other groups. A commit with any is a `replacecommit`.
    pub replaced: BTreeMap<String, Vec<FileId>>,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that were replaced.
    pub updated: u64,
    /// Rows that went; those that `truncate` removed are not counted.
    pub deleted: u64,
    /// Parquet field ids by column as JSON: stable for a column's life, to be given to the next rewrite.
    pub field_ids: String,
}

/// Writes the base files of one commit. On an error, files may have been written: none is visible, and the caller deletes them.
pub(super) async fn rewrite(input: RewriteInput) -> Result<RewriteOutput> {
    let runtime = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || rewrite_blocking(input, runtime));
    task.await.map_err(|error| Error::bug("a rewrite panicked").caused_by(error))?
}

fn rewrite_blocking(input: RewriteInput, runtime: tokio::runtime::Handle) -> Result<RewriteOutput> {
    let field_ids = assign_field_ids(input.field_ids.as_deref(), &input.columns, &input.replaced_columns)?;
    let layout = FileLayout::new(&input.columns, &input.sort_prefix, &input.record_key, input.partition_columns.len(), &field_ids)?;
    let table = input.table.clone();
    let output = plan::run(input, layout, runtime).map_err(|error| error.with("table", table))?;
    Ok(RewriteOutput { field_ids: field_ids.to_json(), ..output })
}
