//! The capture loop: from the source to the stream.
//!
//! Each run takes the next epoch and goes on from the last cut that is on all lanes. A cut has all that is needed: the position, where each table stands,
//! and the shapes with which the next events are read. Without a cut (a new stream, a lost one) the tables' checkpoints in the lake say where to go
//! on, and tables that have none are read by a snapshot.

mod follow;
mod horizon;
mod link;
mod overtaken;
mod ruled;
mod snapshots;
mod start;

pub use follow::{Follower, Pace, Until};
pub use link::Link;
pub use snapshots::Snapshots;
pub(super) use start::wanted;

use super::rules::{RulesBook, Target};
use super::status::Status;
use crate::config::Config;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::source::OnGap;
use crate::state::StateStore;
use crate::stream::EventLog;
use crate::table::Lake;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

/// What the capture works with.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The configuration.
    pub(super) config: Arc<Config>,
    /// The stream; opened by the caller, who keeps it over restarts.
    pub(super) log: Arc<dyn EventLog>,
    /// The lake: where the stream is empty, the tables' checkpoints say where to go on.
    pub(super) lake: Lake,
    /// Epochs are taken here.
    pub(super) state: StateStore,
    /// Told of rows, cuts and connections.
    pub(super) status: Status,
    /// Which rules count.
    pub(super) book: RulesBook,
}

impl Context {
    /// The same, by these rules.
    fn ruled(&self, target: &Target) -> Self {
        Self { config: target.config.clone(), ..self.clone() }
    }
}

/// What `binlake backfill` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillRequest {
    /// These tables; empty: all that the rules name.
    pub tables: Vec<TableId>,
    /// Only rows that fulfil this SQL condition.
    pub filter: Option<String>,
}

/// Captures until `stop` is true: then makes a last cut, waits until it is durable, and returns. Called again after an error that passes;
/// each call takes a new epoch and goes on from the last cut on the stream. So does a request for a backfill or for other rules, and a gap in the binlog where
/// the configuration asks for new snapshots then.
pub(super) async fn run(context: Context, stop: watch::Receiver<bool>) -> Result<()> {
    let requests = context.status.requests();
    requests.listen(&context.state, &context.log.identity().stream_id).await?;
    let mut anew = false;
    loop {
        requests.rules_are_read();
        let target = context.book.target(&context.log).await?;
        let ruled = context.ruled(&target);
        // one after the other: what can't be done is told of the right one
        let request = requests.first().filter(|_| target.before.is_none());
        let started = start::start(&ruled, request.as_ref(), anew, &target).await;
        if request.is_some() && !started.as_ref().is_err_and(Error::is_transient) {
            requests.done();
        }
        let started = match started {
            Err(error) if !error.is_transient() && target.before.is_some() && !is_gap(&error) => {
                context.book.refuse(target.revision, &error).await;
                // who edits the file and starts the service wants to hear of it
                if context.book.is_own_proposal(target.revision) {
                    return Err(error);
                }
                continue;
            }
            Err(error) if !error.is_transient() && request.is_some() => {
                tracing::error!(%error, "the backfill that was asked for can't be done; the service goes on without it");
                requests.forget().await;
                continue;
            }
            started => started?,
        };
        let was_anew = std::mem::take(&mut anew) || started.is_anew;
        let outcome = tokio::select! {
            outcome = Box::pin(started.follower.run(started.snapshots, Until::Asked(requests.clone()), stop.clone())) => outcome,
            error = overtaken::overtaken(&context, started.epoch) => Err(error),
        };
        match outcome {
            Ok(()) if *stop.borrow() => return Ok(()),
            Ok(()) => tracing::info!("the capture begins anew, by the rules and with the snapshots that are asked for"),
            Err(error) if is_gap(&error) && !was_anew && context.config.source.on_gap == OnGap::Resnapshot => {
                tracing::warn!(%error, "all tables are read anew, as `on_gap` asks");
                anew = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the server no longer has what is needed to go on: its history and ours have parted.
fn is_gap(error: &Error) -> bool {
    error.kind() == Kind::Conflict && error.area() == Area::Source
}

/// Snapshots the requested tables, catches up with the binlog to where all of them are live at a durable cut, and returns. Called again
/// after an error that passes, then it goes on where the cuts on the stream say; `stop` ends it early.
pub(super) async fn backfill(context: Context, request: BackfillRequest, stop: watch::Receiver<bool>) -> Result<()> {
    let target = context.book.target(&context.log).await?;
    let started = start::start(&context.ruled(&target), Some(&request), false, &target).await?;
    tokio::select! {
        outcome = Box::pin(started.follower.run(started.snapshots, Until::Live(started.requested), stop)) => outcome,
        error = overtaken::overtaken(&context, started.epoch) => Err(error),
    }
}
