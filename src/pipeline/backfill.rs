//! `binlake backfill`: tables are snapshotted into the lake, once; the next run goes on from there.

use super::after_commit::{AuditedRun, follow_commits};
use super::apply::{Ground, apply_ruled};
use super::capture::{self, BackfillRequest};
use super::lookups::read_others;
use super::rules::{Passed, RulesBook};
use super::run::{Halves, Opened, capture_context, ground, watch_over};
use super::status::Status;
use super::supervise::keep_running;
use super::turn::claim_alone;
use crate::config::Config;
use crate::error::Result;
use crate::stream::find_last_cut;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, watch};

/// Snapshots what `request` names, commits it, and returns whether it did: when `shutdown` resolves before, what is left is done by the next backfill or run.
///
/// # Errors
/// What kept a half from running, with the right exit code.
pub async fn backfill(
    config: Config,
    request: BackfillRequest,
    status: Status,
    shutdown: impl Future<Output = ()>,
) -> Result<bool> {
    let config = Arc::new(config);
    let lead = claim_alone(&config).await?;
    let keeping = lead.clone();
    let kept = tokio::spawn(async move { keeping.keep().await });
    let outcome = Box::pin(backfill_alone(config, request, status, shutdown)).await;
    kept.abort();
    lead.give_back().await;
    outcome
}

async fn backfill_alone(
    config: Arc<Config>,
    request: BackfillRequest,
    status: Status,
    shutdown: impl Future<Output = ()>,
) -> Result<bool> {
    let opened = Opened::open(&config, Halves::Both).await?;
    let book = RulesBook::open(&config, &opened, Halves::Both).await?;
    book.begin(&opened.log).await?;
    let in_force = book.config_of(book.newest())?;
    read_others(&in_force, &opened.lake).await?;
    let (stop_capture, capture_stopped) = watch::channel(false);
    let (stop_apply, apply_stopped) = watch::channel(false);
    let (sender, commits) = mpsc::unbounded_channel();
    let audit = AuditedRun::begin(opened.state.clone(), &opened.audited_as(&config), "backfill").await;
    let followed = tokio::spawn(follow_commits(opened.lake.clone(), config.clone(), book.clone(), audit.clone(), commits));
    let is_of_all = request.tables.is_empty();
    let capture = {
        let context = capture_context(&config, &opened, &status, &book);
        async move {
            let start = || capture::backfill(context.clone(), request.clone(), capture_stopped.clone());
            keep_running("capture", capture_stopped.clone(), start).await
        }
    };
    // before the capture begins: all that it copies comes behind
    let last = if is_of_all { find_last_cut(opened.log.as_ref()).await?.cut } else { None };
    let apply = {
        let anew_behind = last.map(|(cut, _)| cut);
        let ground = Ground { anew_behind, is_copy: true, ..ground(&config, &opened, &status, sender) };
        async move {
            let passed = Passed::default();
            keep_running("merge", apply_stopped.clone(), || apply_ruled(&ground, &book, &passed, apply_stopped.clone())).await
        }
    };
    let was_stopped = AtomicBool::new(false);
    let shutdown = async {
        shutdown.await;
        was_stopped.store(true, Ordering::Relaxed);
    };
    // the capture's end is the snapshot's: it stops the apply loop as a signal would
    let outcome = Box::pin(watch_over(capture, apply, Halves::Both, &status, &stop_capture, &stop_apply, shutdown)).await;
    let _ = followed.await;
    audit.end(&outcome).await;
    outcome.map(|()| !was_stopped.load(Ordering::Relaxed))
}
