//! The audit: what each run did to each table, and where the tables are.

use super::{StateStore, store_error};
use crate::error::Result;
use crate::event::TableId;
use crate::time::Timestamp;
use rusqlite::{Row, params};

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
    fn text(self) -> &'static str {
        match self {
            RunStatus::Running => "Running",
            RunStatus::Complete => "Complete",
            RunStatus::Failed => "Failed",
        }
    }
}

/// What one run did to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// The run.
    pub run_id: String,
    /// The pipeline: its stream's id.
    pub pipeline: String,
    /// The table.
    pub table: String,
    /// `run`, `merge` or `backfill`.
    pub command: String,
    /// When the run first saw the table.
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

impl StateStore {
    /// Counts a commit of `table` in the run `run_id`; the run's row is made at the table's first commit.
    pub fn count_commit(&self, run_id: &str, pipeline: &str, command: &str, table: &TableId, commit: &CommitCount) -> Result<()> {
        let connection = self.lock();
        let table = table.to_string();
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counted = connection.execute(
            "INSERT INTO runs (run_id, pipeline, table_name, command, started_at, status, rows_inserted, rows_updated, rows_deleted, commits, position)
             VALUES (?1, ?2, ?3, ?4, ?5, 'Running', ?6, ?7, ?8, 1, ?9)
             ON CONFLICT (run_id, table_name) DO UPDATE SET rows_inserted = rows_inserted + ?6, rows_updated = rows_updated + ?7,
                 rows_deleted = rows_deleted + ?8, commits = commits + 1, position = ?9",
            params![
                run_id,
                pipeline,
                table,
                command,
                Timestamp::now().to_string(),
                signed(commit.inserted),
                signed(commit.updated),
                signed(commit.deleted),
                commit.position
            ],
        );
        counted.map_err(|error| store_error(&self.path, error))?;
        let noted = connection.execute(
            "INSERT INTO positions (table_name, position, source_commit_time, instant) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (table_name) DO UPDATE SET position = ?2, source_commit_time = ?3, instant = ?4",
            params![table, commit.position, commit.source_commit_time.to_string(), commit.instant],
        );
        noted.map(|_| ()).map_err(|error| store_error(&self.path, error))
    }

    /// Ends a run: all of its tables that still run get `status`.
    pub fn end_run(&self, run_id: &str, status: RunStatus, error: Option<&str>) -> Result<()> {
        let ended = self.lock().execute(
            "UPDATE runs SET ended_at = ?2, status = ?3, error = ?4 WHERE run_id = ?1 AND status = 'Running'",
            params![run_id, Timestamp::now().to_string(), status.text(), error],
        );
        ended.map(|_| ()).map_err(|error| store_error(&self.path, error))
    }

    /// The newest runs, newest first, at most `most` rows.
    pub fn runs(&self, most: usize) -> Result<Vec<RunRow>> {
        let failed = |error| store_error(&self.path, error);
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT run_id, pipeline, table_name, command, started_at, ended_at, status, rows_inserted, rows_updated, rows_deleted,
                        commits, position, error
                 FROM runs ORDER BY started_at DESC, table_name LIMIT ?1",
            )
            .map_err(failed)?;
        let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], run_row).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let count = |i: usize| row.get::<_, i64>(i).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(RunRow {
        run_id: row.get(0)?,
        pipeline: row.get(1)?,
        table: row.get(2)?,
        command: row.get(3)?,
        started_at: row.get(4)?,
        ended_at: row.get(5)?,
        status: row.get(6)?,
        rows_inserted: count(7)?,
        rows_updated: count(8)?,
        rows_deleted: count(9)?,
        commits: count(10)?,
        position: row.get(11)?,
        error: row.get(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_adds_up_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open_file(&folder.path().join("state.db")).unwrap();
        let table: TableId = "shop.orders".parse().unwrap();
        let commit = CommitCount { inserted: 2, updated: 1, position: "binlog.000001:4".into(), ..CommitCount::default() };
        store.count_commit("r1", "p", "run", &table, &commit).unwrap();
        store.count_commit("r1", "p", "run", &table, &commit).unwrap();
        store.end_run("r1", RunStatus::Complete, None).unwrap();
        let rows = store.runs(10).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].rows_inserted, rows[0].rows_updated, rows[0].commits), (4, 2, 2));
        assert_eq!((rows[0].status.as_str(), rows[0].position.as_deref()), ("Complete", Some("binlog.000001:4")));
        assert!(rows[0].ended_at.is_some());
    }
}
