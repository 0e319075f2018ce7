//! The capture loop: from the source to the stream.
//!
//! Each run takes the next epoch and goes on from the last cut that is on all lanes. A cut has all that is needed: the position, where each table stands,
//! and the shapes with which the next events are read. Without a cut (a new stream, a lost one) the tables' checkpoints in the lake say where to go
//! on, and tables that have none are read by a snapshot.

mod follow;
mod link;
mod overtaken;
mod snapshots;
mod start;

pub use follow::{Follower, Pace, Until};
pub use link::Link;
pub use snapshots::Snapshots;

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
/// each call takes a new epoch and goes on from the last cut on the stream. So does a request for a backfill, and a gap in the binlog where
/// the configuration asks for new snapshots then.
pub(super) async fn run(context: Context, stop: watch::Receiver<bool>) -> Result<()> {
    let requests = context.status.requests();
    requests.listen(&context.state, &context.log.identity().stream_id).await?;
    let mut anew = false;
    loop {
        let started = match requests.first() {
            None => start::start(&context, None, anew).await?,
            Some(request) => {
                let started = start::start(&context, Some(&request), anew).await;
                if !started.as_ref().is_err_and(Error::is_transient) {
                    requests.done();
                }
                match started {
                    Err(error) if !error.is_transient() => {
                        tracing::error!(%error, "the backfill that was asked for can't be done; the service goes on without it");
                        requests.forget().await;
                        continue;
                    }
                    started => started?,
                }
            }
        };
        let was_anew = std::mem::take(&mut anew) || started.is_anew;
        let outcome = tokio::select! {
            outcome = Box::pin(started.follower.run(started.snapshots, Until::Asked(requests.clone()), stop.clone())) => outcome,
            error = overtaken::overtaken(&context, started.epoch) => Err(error),
        };
        match outcome {
            Ok(()) if *stop.borrow() => return Ok(()),
            Ok(()) => tracing::info!("the capture begins anew, with the snapshots that are to be taken"),
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
    let started = start::start(&context, Some(&request), false).await?;
    tokio::select! {
        outcome = Box::pin(started.follower.run(started.snapshots, Until::Live(started.requested), stop)) => outcome,
        error = overtaken::overtaken(&context, started.epoch) => Err(error),
    }
}
