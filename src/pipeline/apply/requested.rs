//! Work on a table that the running service is asked for: see [`TableRequests`].
//!
//! The table's owner does it, between two commits. Before an erasure, what the source had committed when it was asked for is committed, so that nothing of the key which was
//! under way comes after: it waits for a cut that has all of that ([`Cut::complete_until`](crate::event::Cut)), however far behind the capture is. Where others write the
//! stream, what they had put on it by then counts. Behind a table that went back the loop ends, once the others are committed: the next one reads the stream from where
//! that table is.

use super::{Apply, Contents};
use crate::error::{Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::format::DEAD_LETTERS;
use crate::merge::{CHECKPOINT_KEY, Checkpoint, history_of};
use crate::pipeline::erase::note_erased;
use crate::pipeline::maintenance::note_maintained;
use crate::pipeline::share::Need;
use crate::pipeline::table_requests::{Done, OpenRequest, RequestProgress, TableRequests, Work};
use crate::pipeline::{Applied, AppliedCommit, Maintenance, TableServices};
use crate::state::LeaseKey;
use crate::stream::{CutReached, EventLog};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long what somebody else has put on a stream takes at most until a reader sees it.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long a request waits before who asked is told what for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The requests that the loop knows.
#[derive(Debug, Default)]
pub(super) struct Requested {
    requests: Option<TableRequests>,
    known: BTreeMap<LeaseKey, Noticed>,
    running: JoinSet<Ended>,
    /// When the stream last had no more.
    at_end: Option<Instant>,
}

/// A request for one of the loop's tables.
#[derive(Debug)]
struct Noticed {
    since: Instant,
    /// Whether who asked was told what it waits for.
    is_told: bool,
    /// Up to this cut all must be committed first.
    until: Option<CutPoint>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Something must be committed first.
    Waiting,
    Running,
    /// It is answered; the list of requests doesn't know yet.
    Over,
}

/// Work that is over.
#[derive(Debug)]
struct Ended {
    key: LeaseKey,
    tables: Vec<TableId>,
    commits: Vec<AppliedCommit>,
    /// The table that went back.
    went_back: Option<TableId>,
}

impl Requested {
    /// Those of `requests`; `None`: nobody can ask.
    pub(super) fn of(requests: Option<TableRequests>) -> Self {
        Self { requests, ..Self::default() }
    }

    /// The stream has no more at the moment.
    pub(super) fn stream_ended(&mut self) {
        self.at_end = Some(Instant::now());
    }

    /// Whether none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Resolves when there is something to do: others are asked for, or one is over.
    pub(super) async fn changed(&mut self) -> Option<Result<EndedRequest>> {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                Some(ended.map(EndedRequest).map_err(|panic| Error::bug("the task of a request has died").caused_by(panic)))
            }
            () = async { match &mut self.requests {
                Some(requests) => requests.changed().await,
                None => std::future::pending().await,
            } } => None,
        }
    }
}

/// What [`Requested::changed`] brings.
#[derive(Debug)]
pub(super) struct EndedRequest(Ended);

impl Apply {
    /// Takes up what is asked for of this loop's tables, as far as that can be.
    pub(super) fn start_requested(&mut self) -> Result<()> {
        let Some(requests) = self.requested.requests.clone() else { return Ok(()) };
        let open = requests.open();
        self.requested.known.retain(|key, noticed| noticed.stage == Stage::Running || open.iter().any(|one| one.key == *key));
        for one in open.iter() {
            let table = &one.request.table;
            // of one that has no row there may be dead letters
            if !self.tables.keys().any(|other| is_of(other, table)) {
                continue;
            }
            if !self.requested.known.contains_key(&one.key) {
                let noticed = Noticed { since: Instant::now(), is_told: false, until: None, stage: Stage::Waiting };
                self.requested.known.insert(one.key.clone(), noticed);
                match &one.request.work {
                    Work::Erase { key_count, .. } => tracing::info!(%table, keys = key_count, "asked to erase"),
                    Work::Maintain { maintenance } => {
                        tracing::info!(%table, work = maintenance.name(), "asked for work on the table")
                    }
                }
                let (requests, one) = (requests.clone(), one.clone());
                tokio::spawn(async move { requests.taken(&one, 0).await });
            }
            let is_ready = match &one.request.work {
                Work::Erase { .. } => self.is_settled(one)?,
                Work::Maintain { .. } => self.is_free(one),
            };
            if is_ready {
                self.work(&requests, one);
            }
        }
        Ok(())
    }

    /// Whether nothing writes the table.
    fn is_free(&self, one: &OpenRequest) -> bool {
        let is_waiting = self.requested.known.get(&one.key).is_some_and(|noticed| noticed.stage == Stage::Waiting);
        let table = &one.request.table;
        is_waiting && !self.is_seen(table) && !self.tables.iter().any(|(other, applied)| is_of(other, table) && applied.is_running)
    }

    /// Whether all that the source had when it was asked for is in the table, and nothing writes it.
    fn is_settled(&mut self, one: &OpenRequest) -> Result<bool> {
        let at_end = self.requested.at_end;
        let noticed = self.requested.known.get_mut(&one.key).filter(|noticed| noticed.stage == Stage::Waiting);
        let Some(noticed) = noticed else { return Ok(false) };
        let cut = self.last_cut.clone();
        if noticed.until.is_none() {
            match wanting(one, cut.as_ref(), at_end.is_some_and(|at| at >= noticed.since + ARRIVAL)) {
                None => noticed.until = cut.as_ref().map(|cut| cut.point),
                Some(waits) if noticed.since.elapsed() >= PATIENCE && !std::mem::replace(&mut noticed.is_told, true) => {
                    tracing::info!(table = %one.request.table, waits, "what is to be erased isn't yet");
                    if let Some(requests) = self.requested.requests.clone() {
                        let one = one.clone();
                        tokio::spawn(async move { requests.waits(&one, waits).await });
                    }
                }
                Some(_) => {}
            }
        }
        let Some(cut) = cut else { return Ok(false) };
        let Some(until) = noticed.until else { return Ok(false) };
        let table = one.request.table.clone();
        if self.is_seen(&table) || self.tables.iter().any(|(other, applied)| is_of(other, &table) && applied.is_running) {
            return Ok(false);
        }
        let due: Vec<TableId> = self
            .tables
            .iter()
            .filter(|(other, applied)| is_of(other, &table) && !applied.is_failed() && applied.pending.has_changes(until))
            .map(|(other, _)| other.clone())
            .collect();
        due.iter().try_for_each(|table| self.start_commit(table, &cut))?;
        Ok(due.is_empty())
    }

    fn work(&mut self, requests: &TableRequests, one: &OpenRequest) {
        let table = one.request.table.clone();
        let tables: Vec<TableId> = self.tables.keys().filter(|other| is_of(other, &table)).cloned().collect();
        for table in &tables {
            if let Some(applied) = self.tables.get_mut(table) {
                applied.lend();
            }
        }
        if let Some(noticed) = self.requested.known.get_mut(&one.key) {
            noticed.stage = Stage::Running;
        }
        let (requests, one, services) = (requests.clone(), one.clone(), self.lake.services());
        let key = self.config.rules.rule_for(&table).map(|rule| rule.key.clone()).unwrap_or_default();
        let log = self.log.clone();
        self.requested.running.spawn(async move {
            let done = match &one.request.work {
                Work::Erase { keys, .. } => erased(&requests, &one, keys, &key, &services).await,
                Work::Maintain { maintenance } => maintained(&requests, &table, maintenance, &services, log.as_ref()).await,
            };
            let goes_back = matches!(&one.request.work, Work::Maintain { maintenance: Maintenance::GoBack { .. } });
            let went_back = goes_back && may_have_gone_back(&done);
            let commits = commits_of(&services, &table).await;
            let progress = match done {
                Ok(done) => RequestProgress::Done { done },
                Err(error) => {
                    // what can't be meant is whoever asked's own mistake
                    match error.kind() {
                        Kind::Config | Kind::Refused => tracing::warn!(%table, %error, "what was asked for can't be done"),
                        _ => tracing::error!(%table, %error, "what was asked for can't be done"),
                    }
                    RequestProgress::Failed { area: error.area(), reason: error.to_string() }
                }
            };
            requests.answered(&one, progress).await;
            Ended { key: one.key, tables, commits, went_back: went_back.then_some(table) }
        });
    }

    /// The tables are the loop's again; one that went back is the next loop's.
    pub(super) fn end_requested(&mut self, EndedRequest(ended): EndedRequest) {
        if let Some(noticed) = self.requested.known.get_mut(&ended.key) {
            noticed.stage = Stage::Over;
        }
        for table in &ended.tables {
            if let Some(applied) = self.tables.get_mut(table) {
                applied.take_back();
            }
            self.forget_joined(table);
        }
        if let Some(table) = ended.went_back {
            let commit = ended.commits.iter().find(|commit| commit.table == table);
            // the stream is held from there, before the others are committed
            let resume = commit.and_then(|commit| commit.checkpoint.resume.clone());
            self.progress.hold(&table, resume.clone());
            self.note_need(&table, Need::of(resume));
            if let Some(applied) = self.tables.get_mut(&table) {
                applied.let_go();
            }
            self.went_back = true;
        }
        for commit in ended.commits {
            // nobody listens where nobody asked
            let _ = self.told.send(Applied::Commit(Box::new(commit)));
        }
    }
}

/// What is still to come before a request may be carried out behind `cut`, if anything is; `has_arrived`: all that others had put on the stream when it came.
fn wanting(one: &OpenRequest, cut: Option<&CutReached>, has_arrived: bool) -> Option<String> {
    let Some(cut) = cut else {
        return Some(
            "for the stream's first cut: without `binlake capture` nothing says that all changes of the source are there".into(),
        );
    };
    let asked_at = one.request.asked_at;
    match cut.cut.complete_until {
        Some(until) if until >= asked_at => None,
        Some(until) => {
            Some(format!("for what the source had committed by {asked_at}: the capture has read what it had by {until}"))
        }
        None => (!has_arrived).then(|| "for what has been put on the stream".into()),
    }
}

/// Whether `other` holds dead letters of `table`.
fn is_letters_of(other: &TableId, table: &TableId) -> bool {
    other.database().strip_prefix(DEAD_LETTERS) == Some(table.database()) && other.name() == table.name()
}

/// Also where an error came after that.
fn may_have_gone_back(done: &Result<Done>) -> bool {
    match done {
        Ok(Done::Maintained(done)) => done.tables.iter().any(|one| one.instant.is_some()),
        Ok(Done::Erased(_)) => false,
        Err(error) => !matches!(error.kind(), Kind::Config | Kind::Refused),
    }
}

/// Whether `other` is the table, or holds its dead letters.
fn is_of(other: &TableId, table: &TableId) -> bool {
    other == table || is_letters_of(other, table)
}

async fn erased(
    requests: &TableRequests,
    one: &OpenRequest,
    keys: &[String],
    key: &[String],
    services: &TableServices,
) -> Result<Done> {
    let table = &one.request.table;
    let label = requests.run("erase");
    let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let work = async {
        let done = services.erase(table, keys, key, || _ = sender.send(())).await;
        drop(sender);
        done
    };
    let told = async {
        let mut done = 0;
        while steps.recv().await.is_some() {
            done += 1;
            requests.taken(one, done).await;
        }
    };
    let (erased, ()) = tokio::join!(work, told);
    let erased = erased?;
    tracing::info!(%table, rows = erased.rows, versions = erased.versions, letters = erased.letters, "erased");
    let noted = note_erased(requests.state(), &label, table, &erased).await;
    noted.map_err(|error| error.remedy("the rows are erased, but the audit doesn't say so"))?;
    Ok(Done::Erased(erased))
}

async fn maintained(
    requests: &TableRequests,
    table: &TableId,
    maintenance: &Maintenance,
    services: &TableServices,
    log: &dyn EventLog,
) -> Result<Done> {
    let label = requests.run(maintenance.name());
    let maintained = services.maintain(table, maintenance, Some(log)).await?;
    tracing::info!(%table, work = maintenance.name(), "done");
    let noted = note_maintained(requests.state(), &label, &maintained).await;
    noted.map_err(|error| error.remedy("it is done, but the audit doesn't say so"))?;
    Ok(Done::Maintained(maintained))
}

/// What the table and those that go with it are made of now.
async fn commits_of(services: &TableServices, table: &TableId) -> Vec<AppliedCommit> {
    let mut commits = Vec::new();
    let children = services.children_of(table).await.unwrap_or_default();
    for table in [table.clone(), history_of(table)].into_iter().chain(children) {
        match services.commit_of(&table).await {
            Ok(commit) => commits.extend(commit),
            Err(error) => tracing::warn!(%table, %error, "the views are made anew with the next commit"),
        }
    }
    commits
}

impl TableServices {
    /// What a table is made of now, as a commit that did nothing else; `None`: there is none.
    async fn commit_of(&self, table: &TableId) -> Result<Option<AppliedCommit>> {
        let Some(view) = self.view(table).await? else { return Ok(None) };
        let Some(checkpoint) = view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()? else { return Ok(None) };
        let contents = Some(Contents::new(view.latest_columns(), view.record_key(), view.slices(None)?, view.instants()));
        Ok(Some(AppliedCommit { table: table.clone(), checkpoint, summary: None, items: None, contents }))
    }
}
