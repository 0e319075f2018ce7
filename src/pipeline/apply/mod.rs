//! The apply loop: from the stream into the tables.
//!
//! One task reads the stream and collects; each commit is a task of its own, at most one a table, so reading goes on meanwhile. All
//! decisions are taken here, between two events: what a cut allows, which table is due, what is spilled, when reading pauses. A restart is
//! always right: reading begins at the lowest checkpoint, and each table skips what it has.

mod amend;
mod cadence;
mod children;
mod commit;
mod delivery;
mod ended;
mod gone;
mod history;
mod joined;
mod lake;
mod letters;
mod prefetch;
mod progress;
mod reading;
mod requested;
mod room;
mod ruled;
mod shared;
mod start;
mod tables;

pub use cadence::Cadence;
pub(super) use delivery::Delivery;
pub use delivery::WrittenItems;
pub(super) use gone::Gone;
pub use lake::LakeWriter;
pub use ruled::LoopEnd;
pub(super) use ruled::{Edge, NewRules, Turn, apply_ruled};
pub(super) use shared::{Ground, apply_shared};

use crate::error::{Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::merge::{Checkpoint, SpillFolder, TableRules};
use crate::pipeline::share::Need;
use crate::pipeline::status::{Status, TableStage};
use crate::stream::{CutReached, EventLog, LogPosition};
use crate::table::{CommitSummary, CompletedInstant, FileSlice, InstantTime, Table};
use arrow::datatypes::SchemaRef;
use commit::Job;
use ended::Ended;
use joined::LOOKUP_LOOK;
use progress::Progress;
use requested::Requested;
use shared::{Shared, changed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tables::AppliedTable;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What the apply loop works with.
#[derive(Debug, Clone)]
pub struct ApplyConfig {
    /// Which tables, and how they are partitioned.
    pub rules: Arc<TableRules>,
    /// How often tables are committed.
    pub cadence: Cadence,
    /// Bytes of rows that wait in memory, over all tables.
    pub memory_bytes: usize,
    /// Where the rest waits.
    pub spill: SpillFolder,
}

/// A commit that is visible.
#[derive(Debug, Clone)]
pub struct AppliedCommit {
    /// The table.
    pub table: TableId,
    /// What the commit says about stream and source.
    pub checkpoint: Checkpoint,
    /// What it did; `None` if that isn't known, because the answer was lost, or if items were written.
    pub summary: Option<CommitSummary>,
    /// Of a delivery: the items that were written.
    pub items: Option<WrittenItems>,
    /// What the table is made of now; a delivery has nothing to publish.
    pub contents: Option<Contents>,
}

/// What a table is made of, as its readers must know it.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Its columns.
    pub columns: SchemaRef,
    /// Names of its record key's columns.
    pub record_key: Vec<String>,
    /// The files that hold its rows.
    pub slices: Vec<FileSlice>,
    /// Its last instants, at most two, the newest last: who has seen the other one knows that nobody else has written in between.
    pub instants: Vec<InstantTime>,
}

impl Contents {
    fn new(columns: SchemaRef, record_key: Vec<String>, slices: Vec<FileSlice>, timeline: &[CompletedInstant]) -> Self {
        let newest = &timeline[timeline.len().saturating_sub(2)..];
        Self { columns, record_key, slices, instants: newest.iter().map(|completed| completed.instant.clone()).collect() }
    }

    fn of(table: &Table) -> Result<Self> {
        Ok(Self::new(table.columns(), table.record_key().to_vec(), table.slices(None)?, table.instants()))
    }
}

/// What the loop tells.
#[derive(Debug, Clone)]
pub enum Applied {
    /// A commit is visible.
    Commit(Box<AppliedCommit>),
    /// A table is stopped, and why.
    Stopped(TableId, String),
}

/// The loop's state: see the module's documentation.
#[derive(Debug)]
pub struct Apply {
    log: Arc<dyn EventLog>,
    lake: LakeWriter,
    config: ApplyConfig,
    status: Status,
    told: mpsc::UnboundedSender<Applied>,
    tables: BTreeMap<TableId, AppliedTable>,
    progress: Progress,
    last_cut: Option<CutReached>,
    running: JoinSet<Ended>,
    to_release: Option<LogPosition>,
    requested: Requested,
    /// Whether a table went back: the loop ends, and the next one reads from there.
    went_back: bool,
    /// Where several workers share the tables; `None`: all are this loop's.
    shared: Option<Shared>,
    /// Whether a table waits for another one's commit at the last cut, which it joins: no later cut may come.
    awaits: bool,
    /// Tables that are due, and wait for others.
    held: BTreeSet<TableId>,
    /// Tables that wait for one that another worker still has: since when, and whether that was said.
    apart: BTreeMap<TableId, (Instant, bool)>,
    /// By which rules it goes; `None`: by those, whatever the cuts say.
    edge: Option<Edge>,
    /// The rules that count behind the last cut, if they are others.
    new_rules: Option<NewRules>,
    /// Ends the loop at its last cut.
    turn: Option<Turn>,
    /// Behind this cut all tables are copied anew.
    anew_behind: Option<CutPoint>,
    /// See [`Ground::is_copy`].
    is_copy: bool,
    /// Since when, at a copy's end, tables wait for lookups that aren't read yet.
    unread_since: Option<Instant>,
    /// Told when the loop ends.
    let_go: watch::Sender<bool>,
}

/// How long a worker that is told to stop may go on reading: others go on where it stops.
const LAST_READING: Duration = Duration::from_secs(5);

impl Apply {
    /// Applies until `stop` is true and all that the stream has by then is in the lake, or until other rules count.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<LoopEnd> {
        let mut consumer = self.consumer().await?;
        let mut is_at_end = false;
        let mut last_reading = None;
        loop {
            let stopping = *stop.borrow_and_update();
            if stopping && self.shared.is_some() {
                let until = *last_reading.get_or_insert_with(|| Instant::now() + LAST_READING);
                is_at_end |= is_past(until);
            }
            let is_last = (stopping && is_at_end) || self.is_outdated() || self.must_turn() || self.went_back;
            self.leave_tables()?;
            self.make_room(is_last)?;
            if is_last {
                self.let_go.send_replace(true);
            } else {
                self.start_requested()?;
            }
            self.start_commits(is_last)?;
            self.start_amends(is_last)?;
            if let Some(position) = self.to_release.take() {
                self.release(&position).await;
            }
            let waits_for_lookups = is_last && self.running.is_empty() && self.waits_for_lookups()?;
            if is_last && self.running.is_empty() && self.requested.is_idle() && !self.is_unresolved() && !waits_for_lookups {
                return Ok(self.ended());
            }
            let has_room = self.running.is_empty() || self.waiting_bytes() <= self.config.memory_bytes;
            let may_read = has_room && !is_last && !self.awaits && !self.is_unresolved();
            let next_due = self.next_due(is_last);
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => {
                    match ended.map_err(|panic| Error::bug("a commit's task has died").caused_by(panic))? {
                        Ended::Commit(outcome) => self.finish(*outcome)?,
                        Ended::Amend(amended) => self.finish_amend(*amended)?,
                    }
                }
                asked = self.requested.changed() => {
                    if let Some(ended) = asked {
                        self.end_requested(ended?);
                    }
                }
                changed = stop.changed(), if !stopping => {
                    if changed.is_err() {
                        return Err(Error::bug("nobody is left to stop the apply loop"));
                    }
                    // what came before the signal may not have been read yet
                    is_at_end = false;
                }
                () = changed(&mut self.shared) => self.reassign(),
                () = ruled::turned(&mut self.turn) => {}
                // who stops commits all at the end; a look that is always due again would never let the stream say that it has no more
                () = sleep_until(next_due), if !stopping && !self.is_unresolved() => {}
                () = tokio::time::sleep(LOOKUP_LOOK), if waits_for_lookups => {}
                event = consumer.next_if_any(), if may_read => {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            self.strand(error)?;
                            consumer = self.consumer().await?;
                            continue;
                        }
                    };
                    is_at_end = event.is_none();
                    let Some(event) = event else {
                        self.requested.stream_ended();
                        continue;
                    };
                    self.take(event)?;
                    if self.is_misled() {
                        return Ok(self.ended());
                    }
                }
            }
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.tables.values().map(|table| table.pending.bytes()).sum()
    }

    /// Starts the commits that are due; with `all`, of all tables that have something to say.
    fn start_commits(&mut self, all: bool) -> Result<()> {
        self.awaits = false;
        self.held.clear();
        let Some(cut) = self.last_cut.clone().filter(|_| !self.is_unresolved()) else { return Ok(()) };
        // all tables stand behind the named cut, so that the rules before it are never needed again
        let has_new_rules = self.new_rules.is_some();
        let due: Vec<TableId> = self
            .tables
            .iter()
            .filter(|(_, table)| {
                if all {
                    table.has_news(&cut) || (has_new_rules && table.can_move(&cut))
                } else {
                    table.due(&cut, &self.config.cadence).is_some_and(is_past)
                }
            })
            .map(|(table, _)| table.clone())
            .collect();
        due.iter().try_for_each(|table| self.start_commit(table, &cut))
    }

    fn start_commit(&mut self, table: &TableId, cut: &CutReached) -> Result<()> {
        if self.is_seen(table) {
            self.held.insert(table.clone());
            return Ok(());
        }
        if self.waits_for_letters(table, cut)? {
            return Ok(());
        }
        let Some(joined) = self.joined_at(table, cut)? else { return Ok(()) };
        let others = self.tables.iter().filter(|(other, _)| *other != table);
        let first_window = others.filter_map(|(_, applied)| applied.first_window()).min();
        let Some(applied) = self.tables.get(table) else { return Ok(()) };
        let own = applied.pending.first_window_after(cut.point);
        let resume = self.progress.resume([first_window, own].into_iter().flatten().min());
        let resume = self.with_others(resume);
        let Some(applied) = self.tables.get_mut(table) else { return Ok(()) };
        let stream_id = &self.log.identity().stream_id;
        match applied.job(table, &self.lake, cut, resume, stream_id, &self.config.spill) {
            Ok(Some(job)) => {
                let job = Job { joined, let_go: Some(self.let_go.subscribe()), ..job };
                self.running.spawn(async { Ended::Commit(Box::new(Box::pin(job.run()).await)) });
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => self.fail(table, error),
        }
    }

    /// An error of kind `Data` stops the one table; any other is the loop's own.
    fn fail(&mut self, table: &TableId, error: Error) -> Result<()> {
        let error = error.with("table", table);
        if error.kind() != Kind::Data {
            return Err(error);
        }
        tracing::error!(table = %table, %error, "the table is stopped; the others go on");
        self.status.table(table, TableStage::Stopped { reason: error.to_string() });
        let shown = self.lake.delivery().map_or(table, |delivery| delivery.shown());
        let _ = self.told.send(Applied::Stopped(shown.clone(), error.to_string()));
        if self.tables.get_mut(table).is_some_and(AppliedTable::fail) {
            // it holds the stream no longer
            self.progress.forget(table);
            self.note_need(table, Need::Nothing);
        }
        Ok(())
    }

    async fn release(&self, position: &LogPosition) {
        if let Err(error) = self.log.release(position).await {
            tracing::warn!(%error, "the stream can't be released; it is tried again after a later commit");
        }
    }

    /// When the next table is due. At the end nothing begins any more beside what the stream brought.
    fn next_due(&self, is_last: bool) -> Option<Instant> {
        let cadence = &self.config.cadence;
        // those that are held are looked at when what they wait for has happened
        let free = || self.tables.iter().filter(|(table, _)| !self.held.contains(*table));
        let commits = self.last_cut.iter().flat_map(|cut| free().filter_map(|(_, table)| table.due(cut, cadence)));
        let amends = self.tables.values().filter(|_| !is_last).filter_map(|table| table.amend_due(cadence));
        commits.chain(amends).min()
    }
}

fn is_past(time: Instant) -> bool {
    time <= Instant::now()
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
