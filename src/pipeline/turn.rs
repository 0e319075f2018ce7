//! Who may work beside whom: one capture leads and others stand by; mergers share; a `run` is alone.
//!
//! `binlake run` and `backfill` do all of a pipeline and know nothing of leases for tables. Beside workers that share the tables they would take them
//! from each other, again and again. So they begin only where nobody works, and hold the capture's lead meanwhile, marked as theirs: a `merge` that meets it
//! is turned away, a `capture` stands by. It keeps operators from mistakes; what keeps the data right are epochs and fences.

use super::run::{Halves, open_stream_to_read, run_halves};
use super::share::{Lead, at_work, pipeline_name};
use super::status::{CaptureState, Status};
use super::supervise::patiently;
use crate::config::Config;
use crate::error::{Area, Error, Kind, Result};
use crate::state::{StateStore, WorkerId};
use crate::stream::EventLog;
use crate::table::Lake;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The pause before a stream's folder that another process has is tried again.
const FOLDER_PAUSE: Duration = Duration::from_millis(250);

/// Captures while the lead is ours; stands by while another has it.
pub(super) async fn capture_in_turn(config: Arc<Config>, status: Status, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut shutdown = Box::pin(shutdown);
    let state = tokio::select! {
        () = &mut shutdown => return Ok(()),
        opened = patiently(|| StateStore::open(&config.state)) => opened?,
    };
    let lead = lead(&config, state);
    let mut is_stopped = false;
    let mut refused_since = None;
    loop {
        status.capture(CaptureState::Connecting { reason: Some("standing by: another captures".into()) });
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            taken = lead.take() => taken?,
        }
        let keeping = lead.clone();
        let mut kept = tokio::spawn(async move { keeping.keep().await });
        let ended = async {
            tokio::select! {
                () = &mut shutdown => is_stopped = true,
                // a keeper that panicked has lost the lead as well
                _ = &mut kept => {}
            }
        };
        let outcome = Box::pin(run_halves(config.clone(), Halves::Capture, status.clone(), ended)).await;
        kept.abort();
        status.requests().close();
        lead.give_back().await;
        match &outcome {
            // who had the lead may still be closing the stream's folder
            Err(error) if !is_stopped && is_conflict(error) => {
                let since = *refused_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() >= config.state.lease_duration {
                    return outcome;
                }
                tokio::time::sleep(FOLDER_PAUSE).await;
            }
            Ok(()) if !is_stopped => refused_since = None,
            // told to stop, and another goes on already: there is nothing left to finish
            Err(error) if is_stopped && is_conflict(error) => {
                tracing::info!(%error, "stopped");
                return Ok(());
            }
            _ => return outcome,
        }
    }
}

/// Both halves, where nobody else works on the pipeline; until another takes the lead.
pub(super) async fn run_alone(config: Arc<Config>, status: Status, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut shutdown = Box::pin(shutdown);
    let claimed = tokio::select! {
        () = &mut shutdown => return Ok(()),
        claimed = patiently(|| claim_alone(&config)) => claimed?,
    };
    let keeping = claimed.clone();
    let mut kept = tokio::spawn(async move { keeping.keep().await });
    let mut is_lost = false;
    let ended = async {
        tokio::select! {
            () = &mut shutdown => {}
            _ = &mut kept => is_lost = true,
        }
    };
    let outcome = Box::pin(run_halves(config, Halves::Both, status, ended)).await;
    kept.abort();
    claimed.give_back().await;
    match outcome {
        Ok(()) if is_lost => Err(Error::new(Area::Stream, Kind::Conflict, "another capture has taken the stream over")
            .remedy("run one `binlake run` for a pipeline, or `binlake capture` and `binlake merge` everywhere")),
        outcome => outcome,
    }
}

/// The lead, for a process that does all. Gives way to others that live: one line says who they are.
pub(super) async fn claim_alone(config: &Config) -> Result<Lead> {
    let state = StateStore::open(&config.state).await?;
    let lead = lead(config, state.clone());
    ensure_nobody_works(config, &state, &lead).await?;
    match lead.seize().await? {
        None => Ok(lead),
        Some(other) => Err(beside(config, &other, "stop one of the two")),
    }
}

async fn ensure_nobody_works(config: &Config, state: &StateStore, lead: &Lead) -> Result<()> {
    let mut prefixes = vec![lead.key().0.clone()];
    // a stream that isn't there yet has no workers
    if let Some(log) = open_stream_to_read(config).await? {
        prefixes.push(format!("{}/table/", pipeline(log.as_ref(), config)?));
    }
    match at_work(state, &prefixes, config.state.lease_duration, |_| true).await? {
        None => Ok(()),
        Some(other) => Err(beside(
            config,
            &other,
            "stop it first, or start `binlake capture` and `binlake merge` here, too, to share the work",
        )),
    }
}

/// Who works on the pipeline where these halves would be in the way, if that can be told: for one that can't start for another reason, which may be this one.
pub async fn others_at_work(config: &Config, halves: Halves) -> Option<Error> {
    if halves == Halves::Capture || !config.has_source() {
        return None;
    }
    let looked = async {
        let state = StateStore::open(&config.state).await?;
        let lead = lead(config, state.clone());
        match halves {
            Halves::Merge => ensure_no_run(config, &state, &lead).await,
            Halves::Both | Halves::Capture => ensure_nobody_works(config, &state, &lead).await,
        }
    };
    looked.await.err().filter(is_conflict)
}

async fn ensure_no_run(config: &Config, state: &StateStore, lead: &Lead) -> Result<()> {
    match at_work(state, &[lead.key().0.clone()], config.state.lease_duration, Lead::is_of_a_run).await? {
        None => Ok(()),
        Some(other) => {
            Err(beside(config, &other, "it merges all tables by itself: stop it and start `binlake capture` in its place"))
        }
    }
}

/// A worker among others, but not beside a `binlake run`.
pub(super) async fn merge_with_others(config: Arc<Config>, status: Status, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut shutdown = Box::pin(shutdown);
    let looked = async || {
        let state = StateStore::open(&config.state).await?;
        let lead = lead(&config, state.clone());
        ensure_no_run(&config, &state, &lead).await
    };
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        looked = patiently(looked) => looked?,
    }
    Box::pin(run_halves(config, Halves::Merge, status, shutdown)).await
}

fn lead(config: &Config, state: StateStore) -> Lead {
    Lead::new(state, &config.stream.url.to_string(), config.state.lease_duration)
}

fn pipeline(log: &dyn EventLog, config: &Config) -> Result<String> {
    Ok(pipeline_name(log, &Lake::create(&config.lake.url)?))
}

fn beside(config: &Config, other: &WorkerId, remedy: &str) -> Error {
    Error::new(Area::Stream, Kind::Conflict, "another process works on this pipeline")
        .with("stream", &config.stream.url)
        .with("who", other)
        .remedy(remedy.to_owned())
}

fn is_conflict(error: &Error) -> bool {
    (error.kind(), error.area()) == (Kind::Conflict, Area::Stream)
}
