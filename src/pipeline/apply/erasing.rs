//! Erasing, asked of the running service: see [`Erasures`].
//!
//! The table's owner does it, between two commits. What the source had committed when it was asked for is committed first, so that nothing of the key which was under way
//! comes after: it waits for a cut that has all of that ([`Cut::complete_until`](crate::event::Cut)), however far behind the capture is. Where others write the stream, what
//! they had put on it by then counts.

use super::{Apply, Contents};
use crate::error::{Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::format::DEAD_LETTERS;
use crate::merge::{CHECKPOINT_KEY, Checkpoint, history_of};
use crate::pipeline::erase::{Eraser, note_erased};
use crate::pipeline::erasures::{EraseProgress, Erasures, OpenRequest};
use crate::pipeline::{Applied, AppliedCommit};
use crate::state::{LeaseKey, RunLabel};
use crate::stream::CutReached;
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
pub(super) struct Erasing {
    erasures: Option<Erasures>,
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

/// An erasure that is over.
#[derive(Debug)]
struct Ended {
    key: LeaseKey,
    tables: Vec<TableId>,
    commits: Vec<AppliedCommit>,
}

impl Erasing {
    /// Requests of `erasures`; `None`: nobody can ask.
    pub(super) fn of(erasures: Option<Erasures>) -> Self {
        Self { erasures, ..Self::default() }
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
    pub(super) async fn changed(&mut self) -> Option<Result<EndedErasure>> {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                Some(ended.map(EndedErasure).map_err(|panic| Error::bug("an erasure's task has died").caused_by(panic)))
            }
            () = async { match &mut self.erasures {
                Some(erasures) => erasures.changed().await,
                None => std::future::pending().await,
            } } => None,
        }
    }
}

/// What [`Erasing::changed`] brings.
#[derive(Debug)]
pub(super) struct EndedErasure(Ended);

impl Apply {
    /// Takes up what is asked for of this loop's tables, as far as that can be.
    pub(super) fn start_erasures(&mut self) -> Result<()> {
        let Some(erasures) = self.erasing.erasures.clone() else { return Ok(()) };
        let open = erasures.open();
        self.erasing.known.retain(|key, noticed| noticed.stage == Stage::Running || open.iter().any(|one| one.key == *key));
        for one in open.iter() {
            let table = &one.request.table;
            // of one that has no row there may be dead letters
            if !self.tables.keys().any(|other| other == table || is_letters_of(other, table)) {
                continue;
            }
            if !self.erasing.known.contains_key(&one.key) {
                let noticed = Noticed { since: Instant::now(), is_told: false, until: None, stage: Stage::Waiting };
                self.erasing.known.insert(one.key.clone(), noticed);
                tracing::info!(%table, keys = one.request.keys.len(), "asked to erase");
                let (erasures, one) = (erasures.clone(), one.clone());
                tokio::spawn(async move { erasures.taken(&one, 0).await });
            }
            if self.is_settled(one)? {
                self.erase(&erasures, one);
            }
        }
        Ok(())
    }

    /// Whether all that the source had when it was asked for is in the table, and nothing writes it.
    fn is_settled(&mut self, one: &OpenRequest) -> Result<bool> {
        let at_end = self.erasing.at_end;
        let noticed = self.erasing.known.get_mut(&one.key).filter(|noticed| noticed.stage == Stage::Waiting);
        let Some(noticed) = noticed else { return Ok(false) };
        let cut = self.last_cut.clone();
        if noticed.until.is_none() {
            match wanting(one, cut.as_ref(), at_end.is_some_and(|at| at >= noticed.since + ARRIVAL)) {
                None => noticed.until = cut.as_ref().map(|cut| cut.point),
                Some(waits) if noticed.since.elapsed() >= PATIENCE && !std::mem::replace(&mut noticed.is_told, true) => {
                    tracing::info!(table = %one.request.table, waits, "what is to be erased isn't yet");
                    if let Some(erasures) = self.erasing.erasures.clone() {
                        let one = one.clone();
                        tokio::spawn(async move { erasures.waits(&one, waits).await });
                    }
                }
                Some(_) => {}
            }
        }
        let Some(cut) = cut else { return Ok(false) };
        let Some(until) = noticed.until else { return Ok(false) };
        let table = one.request.table.clone();
        let of_letters = |other: &TableId| is_letters_of(other, &table);
        if self.tables.iter().any(|(other, applied)| (*other == table || of_letters(other)) && applied.is_running) {
            return Ok(false);
        }
        let due: Vec<TableId> = self
            .tables
            .iter()
            .filter(|(other, applied)| {
                (**other == table || of_letters(other)) && !applied.is_failed() && applied.pending.has_changes(until)
            })
            .map(|(other, _)| other.clone())
            .collect();
        due.iter().try_for_each(|table| self.start_commit(table, &cut))?;
        Ok(due.is_empty())
    }

    fn erase(&mut self, erasures: &Erasures, one: &OpenRequest) {
        let table = one.request.table.clone();
        let tables: Vec<TableId> =
            self.tables.keys().filter(|other| **other == table || is_letters_of(other, &table)).cloned().collect();
        for table in &tables {
            if let Some(applied) = self.tables.get_mut(table) {
                applied.lend();
            }
        }
        if let Some(noticed) = self.erasing.known.get_mut(&one.key) {
            noticed.stage = Stage::Running;
        }
        let (erasures, one, eraser) = (erasures.clone(), one.clone(), self.lake.eraser());
        let key = self.config.rules.rule_for(&table).map(|rule| rule.key.clone()).unwrap_or_default();
        self.erasing.running.spawn(async move {
            let commits = erased(&erasures, &one, &key, eraser).await;
            Ended { key: one.key, tables, commits }
        });
    }

    /// The tables are the loop's again.
    pub(super) fn end_erasure(&mut self, EndedErasure(ended): EndedErasure) {
        if let Some(noticed) = self.erasing.known.get_mut(&ended.key) {
            noticed.stage = Stage::Over;
        }
        for table in &ended.tables {
            if let Some(applied) = self.tables.get_mut(table) {
                applied.take_back();
            }
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

/// Does it, and writes down what became of it. Gives what the tables are made of now.
async fn erased(erasures: &Erasures, one: &OpenRequest, key: &[String], eraser: Eraser) -> Vec<AppliedCommit> {
    let table = &one.request.table;
    let label = RunLabel::begin(&table.to_string(), "erase");
    let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let work = async {
        let done = eraser.erase(table, &one.request.keys, key, || _ = sender.send(())).await;
        drop(sender);
        done
    };
    let told = async {
        let mut done = 0;
        while steps.recv().await.is_some() {
            done += 1;
            erasures.taken(one, done).await;
        }
    };
    let (outcome, ()) = tokio::join!(work, told);
    let progress = match outcome {
        Ok(erased) => {
            tracing::info!(%table, rows = erased.rows, versions = erased.versions, letters = erased.letters, "erased");
            match note_erased(erasures.state(), &label, table, &erased).await {
                Ok(()) => EraseProgress::Done { erased },
                Err(error) => {
                    EraseProgress::Failed { reason: format!("the rows are erased, but the audit doesn't say so: {error}") }
                }
            }
        }
        Err(error) => {
            // a key that is none is whoever asked's own mistake
            match error.kind() {
                Kind::Config => tracing::warn!(%table, %error, "what was asked for can't be erased"),
                _ => tracing::error!(%table, %error, "what was asked for can't be erased"),
            }
            EraseProgress::Failed { reason: error.to_string() }
        }
    };
    let mut commits = Vec::new();
    let children = eraser.children_of(table).await.unwrap_or_default();
    for table in [table.clone(), history_of(table)].into_iter().chain(children) {
        match eraser.commit_of(&table).await {
            Ok(commit) => commits.extend(commit),
            Err(error) => tracing::warn!(%table, %error, "the views are made anew with the next commit"),
        }
    }
    erasures.answered(one, progress).await;
    commits
}

impl Eraser {
    /// What a table is made of now, as a commit that did nothing else; `None`: there is none.
    async fn commit_of(&self, table: &TableId) -> Result<Option<AppliedCommit>> {
        let Some(view) = self.view(table).await? else { return Ok(None) };
        let Some(checkpoint) = view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()? else { return Ok(None) };
        let contents = Some(Contents::new(view.latest_columns(), view.record_key(), view.slices(None)?, view.instants()));
        Ok(Some(AppliedCommit { table: table.clone(), checkpoint, summary: None, items: None, contents }))
    }
}
