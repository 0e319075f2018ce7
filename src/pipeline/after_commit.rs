//! What follows a commit: the views that readers use, and the audit. Neither holds up the next commit, and neither can undo one.

use super::apply::{AppliedCommit, Contents};
use super::registrar::{TableShape, follow_shapes};
use super::rules::RulesBook;
use super::run::audited_as;
use crate::config::Config;
use crate::error::Result;
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::publish::Publisher;
use crate::state::{CommitCount, RunLabel, RunRow, RunStatus, StateStore};
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

/// Publishes and counts commits until the apply loop is gone.
pub(super) async fn follow_commits(
    lake: Lake,
    config: Arc<Config>,
    book: RulesBook,
    run: AuditedRun,
    mut commits: mpsc::UnboundedReceiver<AppliedCommit>,
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
        let next = if is_sure { commits.recv().await } else { soon(&mut commits).await };
        let is_over = next.is_none() && commits.is_closed();
        let mut arrived: Vec<AppliedCommit> = next.into_iter().collect();
        while let Ok(more) = commits.try_recv() {
            arrived.push(more);
        }
        for commit in arrived {
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

async fn soon(commits: &mut mpsc::UnboundedReceiver<AppliedCommit>) -> Option<AppliedCommit> {
    tokio::time::timeout(RETRY_PAUSE, commits.recv()).await.unwrap_or_default()
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
