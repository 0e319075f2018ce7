//! The audit: what each run did to each table.

use crate::time::Timestamp;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// It goes on, or its process was killed.
    Running,
    /// It ended as it should.
    Complete,
    /// It ended with an error, or the table was stopped.
    Failed,
}

impl RunStatus {
    /// As the store has it.
    pub fn text(self) -> &'static str {
        match self {
            RunStatus::Running => "Running",
            RunStatus::Complete => "Complete",
            RunStatus::Failed => "Failed",
        }
    }
}

/// What the audit says of a run that was killed.
pub(super) const LOST: &str = "the process ended without a word";

/// Names a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLabel {
    /// Its id.
    pub run_id: String,
    /// The pipeline: its stream's id.
    pub pipeline: String,
    /// `run`, `capture`, `merge` or `backfill`; `erase`, `restore`, `savepoint` or `cluster`.
    pub command: String,
    /// When it began.
    pub started_at: Timestamp,
}

impl RunLabel {
    /// A run that begins now.
    pub fn begin(pipeline: &str, command: &str) -> Self {
        let run_id = uuid::Uuid::new_v4().to_string();
        Self { run_id, pipeline: pipeline.to_owned(), command: command.to_owned(), started_at: Timestamp::now() }
    }
}

/// What one run did to one table; or, without a table, the run itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// The run.
    pub run_id: String,
    /// The pipeline: its stream's id.
    pub pipeline: String,
    /// The table; empty: the row is the run's own.
    pub table: String,
    /// `run`, `capture`, `merge` or `backfill`; `erase`, `restore`, `savepoint` or `cluster`.
    pub command: String,
    /// When the run began.
    pub started_at: String,
    /// When it ended; `None`: it goes on.
    pub ended_at: Option<String>,
    /// `Running`, `Complete` or `Failed`.
    pub status: String,
    /// Rows inserted.
    pub rows_inserted: u64,
    /// Rows updated.
    pub rows_updated: u64,
    /// Rows deleted.
    pub rows_deleted: u64,
    /// Commits.
    pub commits: u64,
    /// The source's position of the last commit.
    pub position: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// One commit, as the audit counts it.
#[derive(Debug, Clone, Default)]
pub struct CommitCount {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// The source's position.
    pub position: String,
    /// When the source committed the last transaction in it.
    pub source_commit_time: Timestamp,
    /// The lake's instant.
    pub instant: String,
}
