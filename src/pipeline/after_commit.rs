//! What follows a commit: the views that readers use, and the audit. Neither holds up the next commit, and neither can undo one.

use super::apply::{Applied, AppliedCommit, Contents};
use super::registrar::{TableShape, follow_shapes};
use super::rules::RulesBook;
use super::run::audited_as;
use crate::config::Config;
use crate::error::Result;
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::publish::Publisher;
use crate::state::{CommitCount, RunLabel, RunRow, RunStatus, StateStore, StateUrl};
use crate::table::Lake;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The pause before what failed is tried again; a later commit comes with its own attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// One run of a command, as the audit has it.
#[derive(Debug, Clone)]
pub(super) struct AuditedRun {
    state: StateStore,
    label: RunLabel,
}

impl AuditedRun {
    /// A run that begins now. One that works alone ends those before it that ended without a word.
    pub(super) async fn begin(state: StateStore, pipeline: &str, command: &'static str) -> Self {
        let run = Self { state, label: RunLabel::begin(pipeline, command) };
        let noted = async {
            if matches!(command, "run" | "backfill") {
                run.state.end_lost_runs(pipeline).await?;
            }
            run.state.begin_run(&run.label).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the audit can't be written");
        }
        run
    }

    async fn count(&self, commit: &AppliedCommit) {
        let summary = commit.summary.as_ref();
        let items = commit.items;
        let count = CommitCount {
            inserted: summary.map_or(0, |summary| summary.inserted),
            // of an item nobody asks whether it was there
            updated: summary.map_or_else(|| items.map_or(0, |items| items.put), |summary| summary.updated),
            deleted: summary.map_or_else(|| items.map_or(0, |items| items.deleted), |summary| summary.deleted),
            position: commit.checkpoint.position_text(),
            source_commit_time: commit.checkpoint.source_commit_time,
            instant: summary.map(|summary| summary.instant.to_string()).unwrap_or_default(),
        };
        if let Err(error) = self.state.count_commit(&self.label, &commit.table, &count).await {
            tracing::warn!(%error, "the audit can't be written");
        }
    }

    async fn stopped(&self, table: &TableId, why: &str) {
        if let Err(error) = self.state.fail_table(&self.label, table, why).await {
            tracing::warn!(%error, "the audit can't be written");
        }
    }

    /// The run has ended.
    pub(super) async fn end(&self, outcome: &Result<()>) {
        let (status, text) = match outcome {
            Ok(()) => (RunStatus::Complete, None),
            Err(error) => (RunStatus::Failed, Some(error.to_string())),
        };
        if let Err(error) = self.state.end_run(&self.label, status, text.as_deref()).await {
            tracing::warn!(%error, "the audit can't be written");
        }
    }
}

/// The newest runs of a pipeline.
#[derive(Debug)]
pub struct AuditedRuns {
    /// What the audit calls the pipeline.
    pub pipeline: String,
    /// Newest run first; each run's own row before those of its tables.
    pub rows: Vec<RunRow>,
}

/// Runs in which it is looked for tables that were stopped.
const RUNS_LOOKED_AT: usize = 20;
/// Rows of the audit that are read for one run, on the average.
const ROWS_A_RUN: usize = 1000;

/// What the audit says of the pipeline's newest `last` runs; with a table, of those that committed to it.
///
/// # Errors
/// If the state store can't be read, or there is no stream yet.
pub async fn audited_runs(config: &Config, last: usize, table: Option<&str>) -> Result<AuditedRuns> {
    let pipeline = audited_as(config).await?;
    let state = StateStore::open(&config.state).await?;
    let rows = state.runs(&pipeline, last * ROWS_A_RUN).await?;
    let mut runs: Vec<Vec<RunRow>> = Vec::new();
    for row in rows {
        match runs.last_mut().filter(|run| run[0].run_id == row.run_id) {
            Some(run) => run.push(row),
            None => runs.push(vec![row]),
        }
    }
    if let Some(table) = table {
        runs.iter_mut().for_each(|run| run.retain(|row| row.table.is_empty() || row.table == table));
        runs.retain(|run| run.iter().any(|row| row.table == table));
    }
    runs.truncate(last);
    runs.iter_mut().for_each(|run| run.sort_by(|a, b| a.table.cmp(&b.table)));
    Ok(AuditedRuns { pipeline, rows: runs.into_iter().flatten().collect() })
}

/// The tables that the last process to merge them has stopped, and why; empty where the audit can't be read.
pub async fn stopped_tables(config: &Config) -> BTreeMap<TableId, String> {
    // who only looks makes no store
    if matches!(&config.state.url, StateUrl::Sqlite(path) if !path.exists()) {
        return BTreeMap::new();
    }
    match audited_runs(config, RUNS_LOOKED_AT, None).await {
        Ok(runs) => stopped_in(&runs.rows),
        Err(error) => {
            tracing::debug!(%error, "the audit can't be read");
            BTreeMap::new()
        }
    }
}

fn stopped_in(rows: &[RunRow]) -> BTreeMap<TableId, String> {
    // a run that fails as a whole says the same of itself and all of its tables
    let runs: BTreeMap<&str, &RunRow> =
        rows.iter().filter(|row| row.table.is_empty()).map(|row| (row.run_id.as_str(), row)).collect();
    let mut newest: BTreeMap<&str, &RunRow> = BTreeMap::new();
    // what else is done to a table says nothing of its merge
    let merges = |row: &&RunRow| ["run", "merge", "backfill"].contains(&row.command.as_str());
    for row in rows.iter().filter(|row| !row.table.is_empty()).filter(merges) {
        // what goes on is newer than whatever has ended
        let at = |row: &RunRow| (row.ended_at.is_none(), row.ended_at.clone());
        let known = newest.entry(&row.table).or_insert(row);
        if at(row) > at(known) {
            *known = row;
        }
    }
    let is_stopped = |row: &&RunRow| {
        row.status == RunStatus::Failed.text() && runs.get(row.run_id.as_str()).is_none_or(|run| run.error != row.error)
    };
    let stopped = newest.into_values().filter(is_stopped);
    stopped.filter_map(|row| Some((row.table.parse().ok()?, row.error.clone()?))).collect()
}

/// Publishes and counts commits until the apply loop is gone.
pub(super) async fn follow_commits(
    lake: Lake,
    config: Arc<Config>,
    book: RulesBook,
    run: AuditedRun,
    mut told: mpsc::UnboundedReceiver<Applied>,
) {
    let registered = config.catalog.clone().map(|catalog| {
        let (sender, shapes) = mpsc::unbounded_channel();
        (sender, tokio::spawn(follow_shapes(lake.clone(), book, catalog, shapes)))
    });
    let mut publisher = None;
    let mut waiting: BTreeMap<TableId, Contents> = BTreeMap::new();
    // what a crash kept from being published
    let mut is_sure = publish(&lake, &mut publisher, &mut waiting).await;
    loop {
        // a failed attempt isn't the end, nor one that another worker may undo: the views would stay behind until the next commit
        let next = if is_sure { told.recv().await } else { soon(&mut told).await };
        let is_over = next.is_none() && told.is_closed();
        let mut arrived: Vec<Applied> = next.into_iter().collect();
        while let Ok(more) = told.try_recv() {
            arrived.push(more);
        }
        for applied in arrived {
            let commit = match applied {
                Applied::Commit(commit) => *commit,
                Applied::Stopped(table, why) => {
                    run.stopped(&table, &why).await;
                    continue;
                }
            };
            run.count(&commit).await;
            // nobody queries dead letters or items elsewhere by a view
            let table = commit.table;
            let Some(contents) = commit.contents.filter(|_| !table.database().starts_with(DEAD_LETTERS)) else { continue };
            if let Some((shapes, _)) = &registered {
                let _ = shapes.send(TableShape::new(table.clone(), &contents));
            }
            waiting.insert(table, contents);
        }
        is_sure = publish(&lake, &mut publisher, &mut waiting).await;
        if is_over {
            break;
        }
    }
    if let Some((shapes, following)) = registered {
        drop(shapes);
        let _ = following.await;
    }
}

async fn soon(told: &mut mpsc::UnboundedReceiver<Applied>) -> Option<Applied> {
    tokio::time::timeout(RETRY_PAUSE, told.recv()).await.unwrap_or_default()
}

/// Publishes what these tables are made of. Whether nothing is left to do, or to look after, until the next commit.
async fn publish(lake: &Lake, publisher: &mut Option<Publisher>, tables: &mut BTreeMap<TableId, Contents>) -> bool {
    match try_to_publish(lake, publisher, tables).await {
        Ok(is_sure) => {
            tables.clear();
            is_sure
        }
        Err(error) => {
            tracing::warn!(%error, "the views can't be written");
            false
        }
    }
}

async fn try_to_publish(lake: &Lake, publisher: &mut Option<Publisher>, tables: &BTreeMap<TableId, Contents>) -> Result<bool> {
    let publisher = match publisher {
        Some(publisher) => publisher,
        none => {
            let mut publisher = Publisher::open(lake.clone());
            publisher.refresh().await?;
            none.insert(publisher)
        }
    };
    for (table, contents) in tables {
        publisher.table(table.database(), table.name(), &contents.columns, &contents.record_key, &contents.slices);
    }
    publisher.write().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_stopped_while_no_later_word_says_otherwise() {
        let row = |run: &str, table: &str, status: &str, ended: Option<&str>, error: Option<&str>| RunRow {
            run_id: run.into(),
            pipeline: "p".into(),
            table: table.into(),
            command: "run".into(),
            started_at: "2026".into(),
            ended_at: ended.map(str::to_owned),
            status: status.into(),
            rows_inserted: 0,
            rows_updated: 0,
            rows_deleted: 0,
            commits: 0,
            position: None,
            error: error.map(str::to_owned),
        };
        let rows = [
            row("3", "", "Running", None, None),
            row("3", "s.back", "Running", None, None),
            row("2", "", "Failed", Some("2026-02"), Some("the disk is full")),
            row("2", "s.stopped", "Failed", Some("2026-01"), Some("no time")),
            row("2", "s.back", "Failed", Some("2026-01"), Some("no time")),
            row("2", "s.full", "Failed", Some("2026-02"), Some("the disk is full")),
            row("1", "s.stopped", "Complete", Some("2025-12"), None),
        ];
        assert_eq!(stopped_in(&rows), BTreeMap::from([("s.stopped".parse().unwrap(), "no time".to_owned())]));
    }
}
