//! Keeps a worker's leases: renews them, takes and hands over, and tells the apply loop what it is to do.

use super::together::heads;
use super::{Assignment, Need, Note, Share};
use crate::error::Result;
use crate::event::TableId;
use crate::merge::TableRules;
use crate::state::{Lease, LeaseKey, Observer, StateStore, Take, WorkerId, plan_together};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The longest time between two looks at the leases.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// The shortest.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
/// So many lease durations a worker that is asked for a table may take to commit it.
const HANDOVER_PATIENCE: u32 = 3;

/// Leases that are written at once.
const WRITES_AT_ONCE: usize = 16;

/// Which leases, and whose.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct ShareRules {
    /// What the keys begin with: the stream and the lake.
    pub(in crate::pipeline) pipeline: String,
    /// Tables that no rule names have no lease.
    pub(in crate::pipeline) tables: NamedTables,
    /// How long a worker may be silent.
    pub(in crate::pipeline) lease_duration: Duration,
}

/// The tables that rules name which are at work in this process: those by which it goes, and those that follow. Clones share it.
///
/// They must be known, and be the same for all workers, before one takes a table: they say which tables go together. Who didn't know would ask for one of
/// them, whoever has the others would ask for it back, and so on.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct NamedTables(Arc<Mutex<Vec<Arc<TableRules>>>>);

impl NamedTables {
    /// These rules are at work.
    pub(in crate::pipeline) fn new(rules: Vec<Arc<TableRules>>) -> Self {
        Self(Arc::new(Mutex::new(rules)))
    }

    /// These rules are at work from now on.
    pub(in crate::pipeline) fn set(&self, rules: Vec<Arc<TableRules>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The rules at work.
    pub(super) fn rules(&self) -> Vec<Arc<TableRules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, table: &TableId) -> bool {
        self.rules().iter().any(|rules| rules.rule_for(table).is_some())
    }
}

/// What this worker knows of a table better than the lease.
#[derive(Debug, Clone)]
struct Progress {
    need: Need,
    committed: Need,
}

/// A lease to be written.
#[derive(Debug)]
struct Write {
    /// Its place among those that were read.
    number: usize,
    /// The counter that was read.
    expected: u64,
    to: Lease,
    /// What is said when it is written; `None`: nothing, it was renewed.
    end: Option<&'static str>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::pipeline) struct Keeper {
    state: StateStore,
    me: WorkerId,
    rules: ShareRules,
    observer: Observer,
    progress: BTreeMap<TableId, Progress>,
    /// Tables that were to be left and are committed.
    left: BTreeSet<TableId>,
    /// Since when the one before is waited for.
    waiting: BTreeMap<TableId, Instant>,
    /// Whether this worker may have tables: it has a seat, or seats aren't counted.
    is_seated: bool,
    assignment: watch::Sender<Assignment>,
    notes: mpsc::UnboundedReceiver<Note>,
}

impl Keeper {
    /// A keeper and the apply loop's hold on it.
    pub(in crate::pipeline) fn new(state: StateStore, me: WorkerId, rules: ShareRules) -> (Self, Share) {
        let (assignment, assigned) = watch::channel(Assignment::default());
        let (sender, notes) = mpsc::unbounded_channel();
        let keeper = Self {
            state,
            me,
            rules,
            observer: Observer::default(),
            progress: BTreeMap::new(),
            left: BTreeSet::new(),
            waiting: BTreeMap::new(),
            is_seated: false,
            assignment,
            notes,
        };
        (keeper, Share { assignment: assigned, notes: sender })
    }

    /// Works until it is told to close, or the apply loop is gone; then gives all leases back.
    pub(in crate::pipeline) async fn run(mut self) {
        let look = (self.rules.lease_duration / 4).clamp(SHORTEST_LOOK, LONGEST_LOOK);
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the leases can't be kept; what is held is worked on, and the tables' fences decide");
            }
            let next = Instant::now() + look;
            loop {
                let note = tokio::select! {
                    note = self.notes.recv() => note,
                    () = tokio::time::sleep_until(next) => break,
                };
                match note {
                    Some(Note::Close) | None => {
                        self.give_back().await;
                        return;
                    }
                    // others wait for these
                    Some(note @ (Note::Seen { .. } | Note::Left(_) | Note::Lost(_) | Note::Ended(_))) => {
                        self.take_note(note).await;
                        if self.notes.is_empty() {
                            break;
                        }
                    }
                    Some(note) => self.take_note(note).await,
                }
            }
        }
    }

    async fn take_note(&mut self, note: Note) {
        let noted = match note {
            Note::Seen { table, need, is_ours } => {
                let mut lease = Lease::new(self.key(&table));
                lease.checkpoint = need.text();
                if is_ours {
                    lease = lease.taken_by(&self.me);
                    lease.owner_switches = 0;
                }
                self.state.create_lease(&lease).await.map(|_| ())
            }
            Note::Committed { table, need, committed } => {
                self.progress.insert(table, Progress { need, committed });
                Ok(())
            }
            Note::Left(table) => {
                self.left.insert(table);
                Ok(())
            }
            Note::Lost(table) => {
                self.progress.remove(&table);
                self.let_go(&table).await
            }
            Note::Ended(table) => {
                self.progress.remove(&table);
                self.delete(&table).await
            }
            Note::Close => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "a lease can't be written");
        }
    }

    fn prefix(&self) -> String {
        format!("{}/table/", self.rules.pipeline)
    }

    fn key(&self, table: &TableId) -> LeaseKey {
        LeaseKey(format!("{}{table}", self.prefix()))
    }

    fn table(&self, lease: &Lease) -> Option<TableId> {
        lease.key.0.strip_prefix(&self.prefix())?.parse().ok()
    }

    /// One look: renew, hand over, take, tell.
    async fn look(&mut self) -> Result<()> {
        let mut leases: Vec<(TableId, Lease)> = Vec::new();
        let now = Instant::now();
        let found = self.state.leases(&format!("{}/", self.rules.pipeline)).await?;
        self.observer.observe(&found, now);
        let (seats, found): (Vec<Lease>, Vec<Lease>) = found.into_iter().partition(|lease| is_seat(&lease.key));
        self.take_seat(seats, now).await?;
        for lease in found {
            match self.table(&lease) {
                Some(table) if self.rules.tables.has(&table) => leases.push((table, lease)),
                // no rule names it any more
                _ if self.observer.is_free(&lease, now, self.rules.lease_duration) => {
                    self.state.delete_lease(&lease.key, lease.counter).await?;
                }
                _ => {}
            }
        }
        let mut writes = Vec::new();
        for (number, (table, lease)) in leases.iter().enumerate() {
            let is_ours = lease.owner.as_ref() == Some(&self.me);
            let (to, end) = if is_ours && !self.is_seated && self.may_leave(table) {
                (self.with_progress(table, lease.clone()).given_back(), Some("given back: this worker stands by"))
            } else if is_ours {
                (self.renew(table, lease.clone(), now), None)
            } else if lease.checkpoint_owner.as_ref() == Some(&self.me) && self.may_leave(table) {
                (self.with_progress(table, lease.clone()).finished(), Some("handed over"))
            } else {
                continue;
            };
            writes.push(Write { number, expected: lease.counter, to, end });
        }
        let mut failed = None;
        for (Write { number, to, end, .. }, written) in self.write_all(writes).await {
            match written {
                Ok(true) => {
                    let (table, lease) = &mut leases[number];
                    if let Some(end) = end {
                        tracing::info!(%table, to = to.owner.as_ref().map_or("nobody", |owner| &owner.0), "{end}");
                        self.left.remove(table);
                        self.progress.remove(table);
                    }
                    *lease = to;
                }
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if self.is_seated {
            self.take(&mut leases, now).await?;
        }
        self.tell(&leases);
        Ok(())
    }

    /// Where seats are counted, only who has one takes tables.
    async fn take_seat(&mut self, seats: Vec<Lease>, now: Instant) -> Result<()> {
        let had_one = self.is_seated;
        self.is_seated = seats.is_empty();
        let (ours, others): (Vec<Lease>, Vec<Lease>) = seats.into_iter().partition(|seat| seat.owner.as_ref() == Some(&self.me));
        for seat in ours {
            self.is_seated |= self.state.update_lease(&seat.clone().renewed(), seat.counter).await?;
        }
        for seat in others {
            if !self.is_seated && self.observer.is_free(&seat, now, self.rules.lease_duration) {
                self.is_seated = self.state.update_lease(&seat.clone().taken_by(&self.me), seat.counter).await?;
            }
        }
        if had_one != self.is_seated {
            tracing::info!(takes_tables = self.is_seated, "this worker's seat has changed");
        }
        Ok(())
    }

    fn renew(&mut self, table: &TableId, lease: Lease, now: Instant) -> Lease {
        let mut lease = self.with_progress(table, lease).renewed();
        match &lease.checkpoint_owner {
            None => {
                self.waiting.remove(table);
            }
            Some(before) => {
                let since = *self.waiting.entry(table.clone()).or_insert(now);
                if now.duration_since(since) >= self.rules.lease_duration * HANDOVER_PATIENCE {
                    tracing::warn!(%table, from = %before, "the worker before doesn't finish the table; it is begun all the same");
                    lease.checkpoint_owner = None;
                    self.waiting.remove(table);
                }
            }
        }
        lease
    }

    /// A table that the apply loop doesn't have, or has committed, can be let go of.
    fn may_leave(&self, table: &TableId) -> bool {
        let assigned = self.assignment.borrow();
        self.left.contains(table) || !(assigned.apply.contains_key(table) || assigned.leave.contains(table))
    }

    fn with_progress(&self, table: &TableId, mut lease: Lease) -> Lease {
        if let Some(progress) = self.progress.get(table) {
            lease.checkpoint = progress.need.text();
            lease.committed_checkpoint = Some(progress.committed.text());
            lease.owner_switches = 0;
        }
        lease
    }

    /// Writes leases that are still as they were read, several at a time: who has many tables must renew them all while the first is still good.
    async fn write_all(&self, writes: Vec<Write>) -> Vec<(Write, Result<bool>)> {
        let write = |write: Write| async move {
            let written = self.state.update_lease(&write.to, write.expected).await;
            (write, written)
        };
        futures::stream::iter(writes).map(write).buffer_unordered(WRITES_AT_ONCE).collect().await
    }

    async fn take(&mut self, leases: &mut [(TableId, Lease)], now: Instant) -> Result<()> {
        let all: Vec<Lease> = leases.iter().map(|(_, lease)| lease.clone()).collect();
        // what was just renewed is no one else's to take
        let mut writes = Vec::new();
        let heads = heads(&self.rules.tables, &leases.iter().map(|(table, _)| table).collect::<Vec<_>>());
        for take in plan_together(&all, &heads, &self.me, &self.observer, now, self.rules.lease_duration) {
            let (Take::Free(key) | Take::Ask(key)) = &take;
            let Some(number) = all.iter().position(|lease| lease.key == *key) else { continue };
            let (to, how) = match take {
                Take::Free(_) => (all[number].clone().taken_by(&self.me), "taken"),
                Take::Ask(_) => (all[number].clone().asked_by(&self.me), "asked for"),
            };
            writes.push(Write { number, expected: all[number].counter, to, end: Some(how) });
        }
        for (Write { number, to, end, .. }, written) in self.write_all(writes).await {
            if written? {
                let (table, lease) = &mut leases[number];
                let from = lease.owner.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
                *lease = to;
                self.progress.remove(table);
                tracing::info!(%table, from, "a table is {}", end.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn tell(&mut self, leases: &[(TableId, Lease)]) {
        let mut told = Assignment { is_read: true, ..Assignment::default() };
        let mut lowest: Option<Need> = None;
        for (table, lease) in leases {
            told.known.insert(table.clone());
            let need = Need::parse(&lease.checkpoint);
            let committed = lease.committed_checkpoint.as_deref().map_or_else(|| need.clone(), Need::parse);
            lowest = lowest.into_iter().chain([committed]).min();
            if lease.is_worked_by(&self.me) && self.is_seated {
                self.left.remove(table);
                told.apply.insert(table.clone(), need);
                continue;
            }
            let is_to_leave = lease.is_worked_by(&self.me) || lease.checkpoint_owner.as_ref() == Some(&self.me);
            if is_to_leave && !self.may_leave(table) {
                told.leave.insert(table.clone());
            }
            told.others = told.others.take().into_iter().chain([need]).min();
        }
        told.releasable = lowest.and_then(|lowest| lowest.resume());
        self.assignment.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }

    /// Gives a table back to whoever wants it.
    async fn let_go(&mut self, table: &TableId) -> Result<()> {
        for lease in self.state.leases(&self.key(table).0).await? {
            let is_ours = lease.key == self.key(table) && lease.owner.as_ref() == Some(&self.me);
            if is_ours && self.state.update_lease(&lease.clone().given_back(), lease.counter).await? {
                tracing::info!(%table, "given back");
            }
        }
        Ok(())
    }

    /// A table that is no more.
    async fn delete(&mut self, table: &TableId) -> Result<()> {
        for lease in self.state.leases(&self.key(table).0).await? {
            let is_ours = lease.key == self.key(table) && lease.owner.as_ref() == Some(&self.me);
            if is_ours && self.state.delete_lease(&lease.key, lease.counter).await? {
                tracing::info!(%table, "the table has ended, and its lease with it");
            }
        }
        Ok(())
    }

    /// Gives back all: the others needn't wait until the leases run out.
    async fn give_back(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.take_note(note).await;
        }
        let given = async {
            for lease in self.state.leases(&format!("{}/", self.rules.pipeline)).await? {
                let is_ours = lease.owner.as_ref() == Some(&self.me);
                let Some(table) = self.table(&lease) else {
                    if is_ours {
                        self.state.update_lease(&lease.clone().given_back(), lease.counter).await?;
                    }
                    continue;
                };
                let to = if is_ours {
                    self.with_progress(&table, lease.clone()).given_back()
                } else if lease.checkpoint_owner.as_ref() == Some(&self.me) {
                    self.with_progress(&table, lease.clone()).finished()
                } else {
                    continue;
                };
                self.state.update_lease(&to, lease.counter).await?;
            }
            Result::<()>::Ok(())
        };
        if let Err(error) = given.await {
            tracing::warn!(%error, "the leases can't be given back; others take over when they run out");
        }
    }
}

/// Seats: as many workers take tables as there are.
pub(in crate::pipeline) fn seat_key(pipeline: &str, number: u32) -> LeaseKey {
    LeaseKey(format!("{pipeline}/seat/{number:04}"))
}

/// Whether the lease is a seat.
pub(in crate::pipeline) fn is_seat(key: &LeaseKey) -> bool {
    key.0.contains("/seat/")
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
