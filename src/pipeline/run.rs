//! `binlake run`, `capture` and `merge`: the halves, started, watched over and stopped in their order.
//!
//! Told to stop, the capture makes its last cut first; then the apply loop commits all up to that cut. If one half ends with an error that doesn't
//! pass, the other is told to stop in the same way, and the error decides the exit code.

use super::after_commit::{AuditedRun, follow_commits};
use super::apply::{ApplyConfig, Cadence, Ground, LakeWriter, apply_ruled, apply_shared};
use super::capture;
use super::deliver::{announce, deliver_all};
use super::erase_desk::EraseDesk;
use super::foreign::apply_feeds_ruled;
use super::rules::{Passed, RulesBook};
use super::scale::Scaler;
use super::share::{Keeper, NamedTables, Note, ShareRules, pipeline_name, worker_id};
use super::status::{CaptureState, Status};
use super::supervise::{keep_running, patiently};
use super::table_requests::TableRequests;
use super::turn::{capture_in_turn, merge_with_others, run_alone};
use crate::config::Config;
use crate::error::{Area, Error, Kind, Result};
use crate::merge::SpillFolder;
use crate::state::StateStore;
use crate::stream::{ClaimChecks, EventLog, MemoryLog};
use crate::table::{Lake, TableOptions};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long each half may take to finish when it is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// The same for a capture alone: another stands by, and goes on from the last cut.
const HANDOVER_GRACE: Duration = Duration::from_secs(15);

/// The folder of the lake that holds the stream's large records.
const CLAIM_CHECKS: &str = "_stream";

/// Which halves run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halves {
    /// `binlake run`.
    Both,
    /// `binlake capture`.
    Capture,
    /// `binlake merge`.
    Merge,
}

impl Halves {
    fn command(self) -> &'static str {
        match self {
            Halves::Both => "run",
            Halves::Capture => "capture",
            Halves::Merge => "merge",
        }
    }
}

/// Runs until `shutdown` resolves and all that was captured by then is in the lake, or until an error that doesn't pass.
///
/// # Errors
/// What kept a half from running, with the right exit code.
pub async fn run(config: Config, halves: Halves, status: Status, shutdown: impl Future<Output = ()>) -> Result<()> {
    if halves == Halves::Capture {
        config.ensure_source(
            "there is nothing to capture: all tables are fed by streams that others write",
            "start `binlake merge`, or `binlake run`",
        )?;
    }
    let config = Arc::new(config);
    // large, and few
    match halves {
        Halves::Capture => Box::pin(capture_in_turn(config, status, shutdown)).await,
        Halves::Both if config.has_source() => Box::pin(run_alone(config, status, shutdown)).await,
        Halves::Both => Box::pin(run_halves(config, halves, status, shutdown)).await,
        Halves::Merge => Box::pin(merge_with_others(config, status, shutdown)).await,
    }
}

pub(super) async fn run_halves(
    config: Arc<Config>,
    halves: Halves,
    status: Status,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let mut shutdown = Box::pin(shutdown);
    let opened = tokio::select! {
        () = &mut shutdown => return Ok(()),
        opened = patiently(|| Opened::open(&config, halves)) => opened?,
    };
    let begun = async || {
        let book = RulesBook::open(&config, &opened, halves).await?;
        book.begin(&opened.log).await.map(|()| book)
    };
    let book = tokio::select! {
        () = &mut shutdown => return Ok(()),
        book = patiently(&begun) => book?,
    };
    status.ruled_by(&book);
    let watched = tokio::spawn(book.clone().watch(status.requests().clone()));
    announce(&*book.config_of(book.newest())?, &status);
    let (stop_capture, capture_stopped) = watch::channel(halves == Halves::Merge);
    let (stop_apply, apply_stopped) = watch::channel(halves == Halves::Capture);
    let (sender, commits) = mpsc::unbounded_channel();
    let audit = AuditedRun::begin(opened.state.clone(), &opened.audited_as(&config), halves.command()).await;
    let followed = tokio::spawn(follow_commits(opened.lake.clone(), config.clone(), book.clone(), audit.clone(), commits));
    let capture = {
        let context = capture_context(&config, &opened, &status, &book);
        let stopped = capture_stopped.clone();
        async move {
            if halves == Halves::Merge {
                return Ok(());
            }
            if !context.config.has_source() {
                context.status.capture(CaptureState::NoSource);
                return waited_for(false, stopped).await;
            }
            keep_running("capture", stopped.clone(), || capture::run(context.clone(), stopped.clone())).await
        }
    };
    let schedule = (halves != Halves::Merge && !config.scale.is_empty()).then(|| {
        let scaler = Scaler::over(opened.state.clone(), opened.log.clone(), &opened.lake);
        tokio::spawn(scaler.follow(config.clone()))
    });
    let mut ground = ground(&config, &opened, &status, sender);
    let (requests, looking) = TableRequests::look(&opened.state, opened.lake.url(), &opened.audited_as(&config), &status);
    status.erases_at(EraseDesk::new(&opened.state, &ground.lake, &book));
    ground.lake = ground.lake.asked(requests);
    let named = NamedTables::new(book.source_rules());
    let (keeper, share) = match halves {
        Halves::Merge => {
            status.capture(if config.has_source() { CaptureState::Elsewhere } else { CaptureState::NoSource });
            let (keeper, share) = Keeper::new(opened.state.clone(), worker_id(), share_rules(&config, &opened, &named));
            (Some(tokio::spawn(keeper.run())), Some(share))
        }
        Halves::Both | Halves::Capture => (None, None),
    };
    let apply = {
        let (share, stopped) = (share.clone(), apply_stopped.clone());
        let (config, opened, book) = (config.clone(), opened.clone(), book.clone());
        async move {
            let passed = Passed::default();
            let fed = apply_feeds_ruled(halves, &ground, &book, &opened, &stopped);
            let of_source = async {
                match share {
                    _ if halves == Halves::Capture || !config.has_source() => {
                        waited_for(halves == Halves::Capture, stopped.clone()).await
                    }
                    Some(share) => {
                        let ground = Ground { lake: ground.lake.clone().shared(), ..ground.clone() };
                        let work = || apply_shared(&ground, &book, &passed, &named, share.clone(), stopped.clone());
                        keep_running("merge", stopped.clone(), work).await
                    }
                    None => keep_running("merge", stopped.clone(), || apply_ruled(&ground, &book, &passed, stopped.clone())).await,
                }
            };
            // boxed: each holds a loop's whole state
            let delivered = deliver_all(halves, &ground, &book, &opened, &stopped);
            futures::future::try_join3(Box::pin(of_source), Box::pin(fed), Box::pin(delivered)).await.map(|_| ())
        }
    };
    let outcome = watch_over(capture, apply, halves, &status, &stop_capture, &stop_apply, shutdown).await;
    watched.abort();
    if let Some(schedule) = schedule {
        schedule.abort();
    }
    looking.abort();
    if let (Some(keeper), Some(share)) = (keeper, share) {
        share.note(Note::Close);
        let _ = tokio::time::timeout(STOP_GRACE, keeper).await;
    }
    // the apply loop is gone, and with it the sender: what remains is published
    let _ = tokio::time::timeout(STOP_GRACE, followed).await;
    audit.end(&outcome).await;
    if halves != Halves::Capture
        && let Err(error) = opened.log.leave().await
    {
        tracing::warn!(%error, "a registration with the stream stays behind");
    }
    outcome
}

/// A half that has nothing to do: it ends at once, or when it is told to.
async fn waited_for(at_once: bool, mut stopped: watch::Receiver<bool>) -> Result<()> {
    if !at_once {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
    Ok(())
}

/// What the halves share.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) lake: Lake,
    pub(super) state: StateStore,
}

impl Opened {
    pub(super) async fn open(config: &Config, halves: Halves) -> Result<Self> {
        let lake = Lake::create(&config.lake.url)?;
        let state = StateStore::open(&config.state).await?;
        if !config.has_source() {
            // nothing is captured: what others write is read where it lies
            return Ok(Self { log: Arc::new(MemoryLog::new(1)), lake, state });
        }
        let log = if halves == Halves::Merge {
            open_stream_to_read(config).await?.ok_or_else(|| {
                Error::new(Area::Stream, Kind::Refused, "there is no stream yet")
                    .with("stream", &config.stream.url)
                    .remedy("start `binlake capture` first, or set `stream.url`")
            })?
        } else {
            crate::stream::open(&config.stream, claim_checks(config)?).await?
        };
        if halves != Halves::Capture && !config.tables.rules().is_empty() {
            log.register_reader(lake.url())?;
        }
        Ok(Self { log, lake, state })
    }
}

/// The pipeline's name in the audit: its stream's id; of one that only others' streams feed, its lake.
///
/// # Errors
/// If the stream or the lake can't be opened.
pub async fn audited_as(config: &Config) -> Result<String> {
    match open_stream_to_read(config).await? {
        Some(log) if config.has_source() => Ok(log.identity().stream_id.clone()),
        _ => Ok(Lake::create(&config.lake.url)?.url().to_owned()),
    }
}

impl Opened {
    /// The same.
    pub(super) fn audited_as(&self, config: &Config) -> String {
        if config.has_source() { self.log.identity().stream_id.clone() } else { self.lake.url().to_owned() }
    }
}

/// Opens the pipeline's stream to read it; `None`: there is none yet.
///
/// # Errors
/// If the stream, or the lake that holds its large records, can't be opened.
pub async fn open_stream_to_read(config: &Config) -> Result<Option<Arc<dyn EventLog>>> {
    crate::stream::open_to_read(&config.stream, claim_checks(config)?).await
}

/// Large records lie in the lake's store, where that is configured.
fn claim_checks(config: &Config) -> Result<Option<ClaimChecks>> {
    if !config.stream.claim_check {
        return Ok(None);
    }
    let lake = Lake::create(&config.lake.url)?;
    let root = lake.root().parts().chain([CLAIM_CHECKS.into()]).collect();
    Ok(Some(ClaimChecks { store: lake.store().clone(), root, url: format!("{}/{CLAIM_CHECKS}", lake.url().trim_end_matches('/')) }))
}

pub(super) fn capture_context(config: &Arc<Config>, opened: &Opened, status: &Status, book: &RulesBook) -> capture::Context {
    capture::Context {
        config: config.clone(),
        log: opened.log.clone(),
        lake: opened.lake.clone(),
        state: opened.state.clone(),
        status: status.clone(),
        book: book.clone(),
    }
}

fn share_rules(config: &Config, opened: &Opened, named: &NamedTables) -> ShareRules {
    ShareRules {
        pipeline: pipeline_name(opened.log.as_ref(), &opened.lake),
        tables: named.clone(),
        lease_duration: config.state.lease_duration,
    }
}

/// What the apply loop works with.
pub(super) fn ground(config: &Config, opened: &Opened, status: &Status, told: mpsc::UnboundedSender<super::Applied>) -> Ground {
    // half for what waits, half for the tables' rewrites
    let memory = usize::try_from(config.lake.memory.0).unwrap_or(usize::MAX) / 2;
    let options = TableOptions {
        target_file_bytes: config.lake.target_file_size.0,
        retained_commits: config.lake.retained_commits,
        rewrite_threads: config.lake.rewrite_threads(),
        memory_bytes: memory as u64,
        writer_name: format!("binlake {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id()),
    };
    let config = ApplyConfig {
        rules: Arc::new(config.tables.clone()),
        cadence: Cadence::new(config.lake.commit_interval(), memory),
        memory_bytes: memory,
        spill: SpillFolder::new(&config.lake.spill_dir),
    };
    let lake = LakeWriter::new(opened.lake.clone(), options);
    Ground {
        log: opened.log.clone(),
        lake,
        config,
        status: status.clone(),
        told,
        edge: None,
        turn: None,
        anew_behind: None,
        is_copy: false,
    }
}

/// Waits for the signal or for a half's end, and stops the halves in their order.
pub(super) async fn watch_over(
    capture: impl Future<Output = Result<()>>,
    apply: impl Future<Output = Result<()>>,
    halves: Halves,
    status: &Status,
    stop_capture: &watch::Sender<bool>,
    stop_apply: &watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    // a half that isn't this process's ends at once, and that means nothing
    let (mut capture, mut apply, mut shutdown) = (Box::pin(capture), Box::pin(apply), Box::pin(shutdown));
    let mut captured = None;
    let mut applied = None;
    let mut is_asked = false;
    tokio::select! {
        () = &mut shutdown => {
            is_asked = true;
            tracing::info!("stopping: what was captured is committed");
        }
        outcome = &mut capture, if halves != Halves::Merge => captured = Some(outcome),
        outcome = &mut apply, if halves != Halves::Capture => applied = Some(outcome),
    }
    status.capture(CaptureState::Stopping);
    stop_capture.send_replace(true);
    let captured = match captured {
        Some(outcome) => outcome,
        // the apply loop goes on meanwhile: what the capture waits for may be room in the stream
        None => {
            let grace = if halves == Halves::Capture { HANDOVER_GRACE } else { STOP_GRACE };
            within_grace("capture", grace, async {
                loop {
                    tokio::select! {
                        outcome = &mut capture => return outcome,
                        outcome = &mut apply, if applied.is_none() => applied = Some(outcome),
                    }
                }
            })
            .await
        }
    };
    stop_apply.send_replace(true);
    if applied.is_none() && captured.is_ok() && !is_asked {
        // a copy is done when all of it is in the lake, however long that takes
        tokio::select! {
            outcome = &mut apply => applied = Some(outcome),
            () = &mut shutdown => tracing::info!("stopping: what is not committed yet is committed by the next run"),
        }
    }
    let applied = match applied {
        Some(outcome) => outcome,
        None => within_grace("merge", STOP_GRACE, apply).await,
    };
    // the first that failed is the reason; the other was only told to stop
    captured.and(applied)
}

async fn within_grace(half: &'static str, grace: Duration, end: impl Future<Output = Result<()>>) -> Result<()> {
    match tokio::time::timeout(grace, end).await {
        Ok(outcome) => outcome,
        Err(_) => {
            // nothing is lost by it: the next run goes on from the last commit
            tracing::warn!(half, "it takes too long to finish, and is ended");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    /// How long it took, whether the merge came to its end, and the outcome; the merge takes ten minutes from when it is told to stop.
    async fn ended(capture: impl Future<Output = Result<()>>, shutdown: impl Future<Output = ()>) -> (Duration, bool, Result<()>) {
        let (stop_capture, _kept) = watch::channel(false);
        let (stop_apply, mut stopped) = watch::channel(false);
        let (began, mut is_done) = (Instant::now(), false);
        let apply = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            sleep(STOP_GRACE * 10).await;
            is_done = true;
            Ok(())
        };
        let outcome = watch_over(capture, apply, Halves::Both, &Status::new(), &stop_capture, &stop_apply, shutdown).await;
        (began.elapsed(), is_done, outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_ends_when_all_of_it_is_in_the_lake() {
        let (took, is_done, outcome) = ended(async { Ok(()) }, std::future::pending()).await;
        assert!(outcome.is_ok() && is_done && took >= STOP_GRACE * 10, "{took:?}");
        // who is asked to stop does so soon, also then
        let (took, is_done, outcome) = ended(async { Ok(()) }, sleep(STOP_GRACE)).await;
        assert!(outcome.is_ok() && !is_done && took <= STOP_GRACE * 2, "{took:?}");
        let (took, is_done, outcome) = ended(std::future::pending(), sleep(STOP_GRACE)).await;
        assert!(outcome.is_ok() && !is_done && took <= STOP_GRACE * 3, "{took:?}");
        // and so does what can't go on
        let (took, is_done, outcome) = ended(async { Err(Error::bug("x")) }, std::future::pending()).await;
        assert!(outcome.is_err() && !is_done && took <= STOP_GRACE, "{took:?}");
    }
}
