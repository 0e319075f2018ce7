//! ⑤ The Hudi table: copy-on-write, table version 6, key-range file groups.
//!
//! Knows Arrow and object_store; nothing of MySQL, streams or time axes. [`Table::commit`] is the one way in: it takes changes sorted
//! by partition path and key, rewrites the file groups that they touch, and makes data and `extra_metadata` visible by one write.
//! [`TableView`] reads.
//!
//! - the files: `rewrite` (with `base_file`, `splice`, `file_group`, `record_key`, `partition_path`);
//! - the timeline: `properties`, `timeline`, `commit_metadata` (JSON), `avro_schema`, `avro_file` (the other actions), `file_groups` (which files count);
//! - who may write: `writer`, `fence`; several tables at once: `group`; what a crash left: `recovery`; what keeps a table small: `services`;
//!   going back to an earlier commit, and clustering: `regroup`.

mod avro_file;
mod avro_schema;
mod base_file;
mod commit;
mod commit_metadata;
mod commit_summary;
mod config;
mod evolution;
mod fence;
mod file_group;
mod file_groups;
mod file_slice;
mod group;
mod instant;
mod key_text;
mod lake;
mod made_once;
mod partition_path;
mod properties;
mod record_key;
mod recovery;
mod regroup;
mod rewrite;
mod row_reader;
mod s3;
mod s3_credentials;
mod services;
mod splice;
mod store;
mod store_error;
mod timeline;
mod under_way;
mod view;
mod write_stat;
mod writer;

#[cfg(test)]
mod tests;

pub use avro_schema::ensure_column_name;
pub use commit::Table;
pub use config::{LakeConfig, LakeUrl};
pub use evolution::ensure_evolves;
pub use fence::is_taken;
pub use file_slice::{FileId, FileSlice, path_in_table};
pub use group::{COMMITTED_WITH, Follower, Staged};
pub use instant::InstantTime;
pub use key_text::{hex, key_column};
pub use lake::Lake;
pub use made_once::MadeOnce;
pub use partition_path::partition_path_at;
pub use regroup::{GoingBack, RESTORED_KEY};
pub use row_reader::{FoundRows, RowReader};
pub(crate) use store_error::lake_error;
pub use view::TableView;
pub use write_stat::{RuntimeStats, WriteStat};

use crate::error::Result;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::fmt;

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
    /// Names of columns by which the rows of a file group are sorted before the record key: where new rows are greater in them than old ones,
    /// they all go to a partition's end. Each row's values in them must be known with its key; mostly empty.
    pub sort_prefix: Vec<String>,
    /// Name of the column by which Hudi writers order changes of one key (`precombine`).
    pub ordering_field: String,
    /// Names of the partition columns, hive style; empty for an unpartitioned table.
    pub partition_columns: Vec<String>,
}

/// Names of the columns by which rows of a partition are sorted and told apart: those of the sort prefix, then those of the record key that it doesn't have.
pub fn sort_key(sort_prefix: &[String], record_key: &[String]) -> Vec<String> {
    let rest = record_key.iter().filter(|name| !sort_prefix.contains(name));
    sort_prefix.iter().chain(rest).cloned().collect()
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
    /// The table's columns from now on: today's, in any order, and new ones or wider types. With `truncate`, any.
    pub columns: SchemaRef,
    /// Names of the record key's columns from now on; another key than today's takes `truncate`. `None`: as it is.
    pub record_key: Option<Vec<String>>,
    /// One row: what rows written before this commit have in columns that they lack. `None`: NULL.
    pub fill: Option<RecordBatch>,
    /// Whether all present rows go before `changes` apply.
    pub truncate: bool,
    /// The changes, sorted by (partition path as text, key in the order of `arrow::row` over the columns of the sort prefix and the record key).
    pub changes: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
    /// A change loses against a present row whose value in this column is greater; `None`: changes win.
    pub ordering: Option<String>,
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
    /// Whether the table went back behind it since: see [`RESTORED_KEY`].
    pub is_undone: bool,
}
