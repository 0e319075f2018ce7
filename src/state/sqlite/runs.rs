//! The audit in SQLite.

use super::SqliteStore;
use crate::error::Result;
use crate::event::TableId;
use crate::state::audit::LOST;
use crate::state::{CommitCount, RunLabel, RunRow, RunStatus};
use crate::time::Timestamp;
use rusqlite::{Row, params};

impl SqliteStore {
    pub(in crate::state) async fn begin_run(&self, run: &RunLabel) -> Result<()> {
        let run = run.clone();
        self.with(move |connection| {
            let begun = connection.execute(
                "INSERT INTO runs (run_id, pipeline, table_name, command, started_at, status) VALUES (?1, ?2, '', ?3, ?4, 'Running')",
                params![run.run_id, run.pipeline, run.command, run.started_at.to_string()],
            );
            begun.map(|_| ())
        })
        .await
    }

    pub(in crate::state) async fn end_lost_runs(&self, pipeline: &str) -> Result<()> {
        let pipeline = pipeline.to_owned();
        self.with(move |connection| {
            let ended = connection.execute(
                "UPDATE runs SET ended_at = ?2, status = 'Failed', error = ?3 WHERE pipeline = ?1 AND status = 'Running'",
                params![pipeline, Timestamp::now().to_string(), LOST],
            );
            ended.map(|_| ())
        })
        .await
    }

    pub(in crate::state) async fn count_commit(&self, run: &RunLabel, table: &TableId, commit: &CommitCount) -> Result<()> {
        let (run, table, commit) = (run.clone(), table.to_string(), commit.clone());
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.with(move |connection| {
            connection.execute(
                "INSERT INTO runs (run_id, pipeline, table_name, command, started_at, status, rows_inserted, rows_updated, rows_deleted, commits, position)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'Running', ?6, ?7, ?8, 1, ?9)
                 ON CONFLICT (run_id, table_name) DO UPDATE SET rows_inserted = rows_inserted + ?6, rows_updated = rows_updated + ?7,
                     rows_deleted = rows_deleted + ?8, commits = commits + 1, position = ?9, status = 'Running', ended_at = NULL, error = NULL",
                params![
                    run.run_id,
                    run.pipeline,
                    table,
                    run.command,
                    run.started_at.to_string(),
                    signed(commit.inserted),
                    signed(commit.updated),
                    signed(commit.deleted),
                    commit.position
                ],
            )?;
            connection.execute(
                "INSERT INTO positions (table_name, position, source_commit_time, instant) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (table_name) DO UPDATE SET position = ?2, source_commit_time = ?3, instant = ?4",
                params![table, commit.position, commit.source_commit_time.to_string(), commit.instant],
            )?;
            Ok(())
        })
        .await
    }

    pub(in crate::state) async fn fail_table(&self, run: &RunLabel, table: &TableId, error: &str) -> Result<()> {
        let (run, table, error) = (run.clone(), table.to_string(), error.to_owned());
        self.with(move |connection| {
            let failed = connection.execute(
                "INSERT INTO runs (run_id, pipeline, table_name, command, started_at, ended_at, status, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'Failed', ?7)
                 ON CONFLICT (run_id, table_name) DO UPDATE SET ended_at = ?6, status = 'Failed', error = ?7",
                params![
                    run.run_id,
                    run.pipeline,
                    table,
                    run.command,
                    run.started_at.to_string(),
                    Timestamp::now().to_string(),
                    error
                ],
            );
            failed.map(|_| ())
        })
        .await
    }

    pub(in crate::state) async fn end_run(&self, run: &RunLabel, status: RunStatus, error: Option<&str>) -> Result<()> {
        let (run_id, error) = (run.run_id.clone(), error.map(str::to_owned));
        self.with(move |connection| {
            let ended = connection.execute(
                "UPDATE runs SET ended_at = ?2, status = ?3, error = ?4 WHERE run_id = ?1 AND status = 'Running'",
                params![run_id, Timestamp::now().to_string(), status.text(), error],
            );
            ended.map(|_| ())
        })
        .await
    }

    pub(in crate::state) async fn runs(&self, pipeline: &str, most: usize) -> Result<Vec<RunRow>> {
        let pipeline = pipeline.to_owned();
        self.with(move |connection| {
            let mut statement = connection.prepare(
                "SELECT run_id, pipeline, table_name, command, started_at, ended_at, status, rows_inserted, rows_updated, rows_deleted,
                        commits, position, error
                 FROM runs WHERE pipeline = ?1 ORDER BY started_at DESC, run_id DESC, table_name DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![pipeline, i64::try_from(most).unwrap_or(i64::MAX)], run_row)?;
            rows.collect()
        })
        .await
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
