//! What follows a commit: the views that readers use, and the audit. Neither holds up the next commit, and neither can undo one.

use super::apply::AppliedCommit;
use super::registrar::{TableShape, follow_shapes};
use crate::config::Config;
use crate::error::Result;
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::publish::Publisher;
use crate::state::{CommitCount, RunLabel, RunStatus, StateStore};
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
    pub(super) fn new(state: StateStore, pipeline: &str, command: &'static str) -> Self {
        Self { state, label: RunLabel::begin(pipeline, command) }
    }

    async fn count(&self, commit: &AppliedCommit) {
        let summary = commit.summary.as_ref();
        let count = CommitCount {
            inserted: summary.map_or(0, |summary| summary.inserted),
            updated: summary.map_or(0, |summary| summary.updated),
            deleted: summary.map_or(0, |summary| summary.deleted),
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

/// Publishes and counts commits until the apply loop is gone.
pub(super) async fn follow_commits(
    lake: Lake,
    config: Arc<Config>,
    run: AuditedRun,
    mut commits: mpsc::UnboundedReceiver<AppliedCommit>,
) {
    let registered = config.catalog.clone().map(|catalog| {
        let (sender, shapes) = mpsc::unbounded_channel();
        (sender, tokio::spawn(follow_shapes(lake.clone(), config.clone(), catalog, shapes)))
    });
    let mut publisher = None;
    let mut waiting: BTreeMap<TableId, AppliedCommit> = BTreeMap::new();
    // what a crash kept from being published
    if let Err(error) = publish(&lake, &mut publisher, &waiting).await {
        tracing::warn!(%error, "the views can't be written");
    }
    loop {
        // a failed attempt isn't the end: the views would stay behind until the next commit
        let next = if waiting.is_empty() { commits.recv().await } else { soon(&mut commits).await };
        let is_over = next.is_none() && commits.is_closed();
        let mut arrived: Vec<AppliedCommit> = next.into_iter().collect();
        while let Ok(more) = commits.try_recv() {
            arrived.push(more);
        }
        for commit in arrived {
            run.count(&commit).await;
            // nobody queries dead letters by a view
            if !commit.table.database().starts_with(DEAD_LETTERS) {
                if let Some((shapes, _)) = &registered {
                    let _ = shapes.send(shape(&commit));
                }
                waiting.insert(commit.table.clone(), commit);
            }
        }
        match publish(&lake, &mut publisher, &waiting).await {
            Ok(()) => waiting.clear(),
            Err(error) => tracing::warn!(%error, "the views can't be written"),
        }
        if is_over {
            break;
        }
    }
    if let Some((shapes, following)) = registered {
        drop(shapes);
        let _ = following.await;
    }
}

fn shape(commit: &AppliedCommit) -> TableShape {
    let partitions = commit.slices.iter().map(|slice| slice.partition_path.clone()).collect();
    TableShape { table: commit.table.clone(), columns: commit.columns.clone(), partitions }
}

async fn soon(commits: &mut mpsc::UnboundedReceiver<AppliedCommit>) -> Option<AppliedCommit> {
    tokio::time::timeout(RETRY_PAUSE, commits.recv()).await.unwrap_or_default()
}

async fn publish(lake: &Lake, publisher: &mut Option<Publisher>, commits: &BTreeMap<TableId, AppliedCommit>) -> Result<()> {
    let publisher = match publisher {
        Some(publisher) => publisher,
        none => {
            let mut publisher = Publisher::open(lake.clone()).await?;
            publisher.refresh().await?;
            none.insert(publisher)
        }
    };
    for (table, commit) in commits {
        publisher.table(table.database(), table.name(), &commit.columns, &commit.slices);
    }
    publisher.write().await
}
