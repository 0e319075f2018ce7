//! ⑤ The Hudi table: copy-on-write, table version 6, key-range file groups.
//!
//! Knows Arrow and object_store; nothing of MySQL, streams or time axes. [`Table::commit`] is the one way in: it takes changes sorted
//! by partition path and key, rewrites the file groups that they touch, and makes data and `extra_metadata` visible by one write.

mod base_file;
mod config;
mod file_group;
mod file_slice;
mod instant;
mod lake;
mod partition_path;
mod record_key;
mod rewrite;
mod splice;
mod write_stat;

pub use config::{LakeConfig, LakeUrl};
pub use file_slice::{FileId, FileSlice, path_in_table};
pub use instant::InstantTime;
pub use lake::Lake;
pub use write_stat::{RuntimeStats, WriteStat};

use crate::error::{Error, Result};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a table is when it is made.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// The catalog's database.
    pub database: String,
    /// The table's name.
    pub name: String,
    /// The columns without Hudi's own `_hoodie_…`: in the order of the files, partition columns last.
    pub columns: SchemaRef,
    /// Names of the record key's columns.
    pub record_key: Vec<String>,
    /// Name of the column by which Hudi writers order changes of one key (`precombine`).
    pub ordering_field: String,
    /// Names of the partition columns, hive style; empty for an unpartitioned table.
    pub partition_columns: Vec<String>,
}

/// How a table is written.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The size at which a base file is split, in bytes.
    pub target_file_bytes: u64,
    /// How many completed commits a reader can travel back, at least.
    pub retained_commits: usize,
    /// Threads that rewrite file groups at once.
    pub rewrite_threads: usize,
    /// Bytes that all rewrites of one commit may hold at once.
    pub memory_bytes: u64,
    /// Who writes: shown to the operator when two writers meet.
    pub writer_name: String,
}

/// Changes for one commit: a piece of the sequence that is sorted by (partition path, key) with at most one row for each.
#[derive(Debug, Clone)]
pub struct SortedChanges {
    /// Rows with the commit's columns; of a deleted row only key and partition columns count.
    pub rows: RecordBatch,
    /// Whether the row is deleted (else it is upserted).
    pub is_delete: BooleanArray,
}

/// One commit.
pub struct CommitRequest {
    /// The table's columns from now on: today's, in any order, and new ones or wider types.
    pub columns: SchemaRef,
    /// One row: what rows written before this commit have in columns that they lack. `None`: NULL.
    pub fill: Option<RecordBatch>,
    /// Whether all present rows go before `changes` apply.
    pub truncate: bool,
    /// The changes, sorted by (partition path as text, key in the order of `arrow::row` over the record key's columns).
    pub changes: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
    /// Written into the commit's `extraMetadata`, beside the Avro schema.
    pub extra_metadata: BTreeMap<String, String>,
}

impl fmt::Debug for CommitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitRequest").field("columns", &self.columns).field("truncate", &self.truncate).finish_non_exhaustive()
    }
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// The instant.
    pub instant: InstantTime,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that were replaced.
    pub updated: u64,
    /// Rows that went.
    pub deleted: u64,
    /// Base files written.
    pub files_written: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// A completed action that changed the table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedInstant {
    /// Its time.
    pub instant: InstantTime,
    /// `commit` or `replacecommit`.
    pub action: &'static str,
}

/// A table, opened for writing: this session holds its fence until another session opens it.
///
/// After `commit` returned an error the table is not to be used any more: what the failed commit left is settled
/// when the table is opened again, and [`Table::extra_metadata`] then tells whether it took effect.
#[derive(Debug)]
pub struct Table {
    store: Arc<dyn ObjectStore>,
    base: Path,
    options: TableOptions,
}

impl Table {
    /// Whether there is a table at `base`.
    pub async fn exists(store: &Arc<dyn ObjectStore>, base: &Path) -> Result<bool> {
        let _ = (store, base);
        Err(Error::bug("Table::exists is not there yet"))
    }

    /// Makes an empty table at `base` and opens it. There must be none.
    pub async fn create(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        let _ = spec;
        let _table = Self { store, base, options };
        Err(Error::bug("Table::create is not there yet"))
    }

    /// Opens the table at `base` for writing: takes the fence from whoever had it, finishes or rolls back what a crash left,
    /// and refuses a table whose key or partitioning is not `spec`'s. Its columns are those of the last commit, whatever `spec` says.
    pub async fn open(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        let _ = spec;
        let _table = Self { store, base, options };
        Err(Error::bug("Table::open is not there yet"))
    }

    /// Opens the table at `base` to look at it: takes no fence, finishes and rolls back nothing. A commit on it is refused.
    pub async fn view(store: Arc<dyn ObjectStore>, base: Path) -> Result<Self> {
        let _ = (store, base);
        Err(Error::bug("Table::view is not there yet"))
    }

    /// Commits once: see [`CommitRequest`].
    pub async fn commit(&mut self, request: CommitRequest) -> Result<CommitSummary> {
        let _ = (request, &self.store, &self.base, &self.options);
        Err(Error::bug("Table::commit is not there yet"))
    }

    /// The columns without Hudi's own, as of the last commit.
    pub fn columns(&self) -> SchemaRef {
        Arc::new(arrow::datatypes::Schema::empty())
    }

    /// Names of the record key's columns.
    pub fn record_key(&self) -> &[String] {
        &[]
    }

    /// The newest commit's value of a key of `extraMetadata`, among the commits that have it: other writers' commits don't.
    pub fn extra_metadata(&self, key: &str) -> Option<&str> {
        let _ = key;
        None
    }

    /// The completed commits on the active timeline, oldest first.
    pub fn instants(&self) -> &[CompletedInstant] {
        &[]
    }

    /// The base files that hold the table's rows, now or as of an instant (inclusive).
    pub fn slices(&self, as_of: Option<&InstantTime>) -> Result<Vec<FileSlice>> {
        let _ = as_of;
        Ok(Vec::new())
    }
}
