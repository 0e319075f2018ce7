//! The apply loop as one of several workers: it has the tables whose leases it holds, and passes over the others.
//!
//! What changes for it comes as an [`Assignment`]: a table that is lost goes at once; one that another waits for is committed first; one that is
//! gained needs the stream from further back, so all that waits is committed and the loop starts anew.

use super::gone::{Gone, gone, gone_of_lake, noted};
use super::ruled::{Edge, Turn};
use super::tables::AppliedTable;
use super::{Applied, Apply, ApplyConfig, LakeWriter, LoopEnd};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, Section, TableId};
use crate::merge::{Checkpoint, Resume};
use crate::pipeline::rules::{Generation, Passed, RulesBook};
use crate::pipeline::share::{Assignment, NamedTables, Need, Note, Share};
use crate::pipeline::status::Status;
use crate::stream::{EventLog, LaneEvent, LogPosition, find_last_cut};
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What a worker knows of its share.
#[derive(Debug)]
pub(super) struct Shared {
    share: Share,
    assigned: Assignment,
    /// Tables that went by other rules, and have all up to their cuts: nobody has leases for them any more.
    ended: BTreeSet<TableId>,
    /// Tables that were seen on the stream and have no lease yet, as far as is known: until they have, nothing is read or committed.
    unresolved: BTreeSet<TableId>,
    /// A table was gained: the loop must start anew.
    is_outdated: bool,
    /// When the needs of all our tables were last told.
    told_needs: Instant,
}

/// How often the keeper is told what tables need that get no commit.
const NEEDS_INTERVAL: Duration = Duration::from_secs(1);

/// What the halves hand to each start of the loop.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Ground {
    pub(in crate::pipeline) log: Arc<dyn EventLog>,
    pub(in crate::pipeline) lake: LakeWriter,
    pub(in crate::pipeline) config: ApplyConfig,
    pub(in crate::pipeline) status: Status,
    pub(in crate::pipeline) told: mpsc::UnboundedSender<Applied>,
    /// By which rules the loop goes, where these may change.
    pub(in crate::pipeline) edge: Option<Edge>,
    /// Ends the loop at its last cut.
    pub(in crate::pipeline) turn: Option<Turn>,
    /// Behind this cut all tables are copied anew: nothing before it is needed, should the stream no longer have it.
    pub(in crate::pipeline) anew_behind: Option<CutPoint>,
    /// It ends once all that was copied is in the lake: tables that wait for lookups are waited for.
    pub(in crate::pipeline) is_copy: bool,
}

impl Ground {
    /// The columns of a table's that stay though the rules give them no more: rules that may have changed since its first commit.
    pub(super) async fn kept(&self, table: &TableId) -> Result<Option<SchemaRef>> {
        match &self.edge {
            Some(edge) if edge.revision > 1 => {
                let is_transformed = self.config.rules.rule_for(table).is_some_and(|rule| rule.transform.is_some());
                self.lake.columns_that_stay(table, is_transformed).await
            }
            _ => Ok(None),
        }
    }
}

/// Applies the tables that `share` assigns, until `stop` is true and what the worker has by then is in the lake.
pub(in crate::pipeline) async fn apply_shared(
    ground: &Ground,
    book: &RulesBook,
    passed: &Passed,
    named: &NamedTables,
    mut share: Share,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut is_discovered = false;
    let mut newest = book.newest_changes();
    loop {
        // who has no table follows the rules as well
        named.set(book.source_rules());
        let assigned = share.assignment();
        // no table is open between two runs
        assigned.leave.iter().for_each(|table| share.note(Note::Left(table.clone())));
        if *stop.borrow() {
            return Ok(());
        }
        if assigned.is_read && !is_discovered {
            is_discovered = true;
            let generation = book.generation(book.newest(), &ground.status)?;
            if !discover(&ground.by(&generation, book), book, passed, &share, &assigned).await? {
                continue;
            }
        } else if assigned.is_read && (!assigned.apply.is_empty() || assigned.known.is_empty()) {
            let leased = assigned.apply.iter().map(|(table, need)| (table.clone(), Some(need.clone())));
            let gone = gone(ground, book, passed, leased).await?;
            let (apply, _generation) = begin_shared(ground, book, passed, named, &share, assigned, &gone).await?;
            let Some(apply) = apply else {
                // none of the tables is to be applied by these rules
                tokio::select! {
                    () = share.changed() => {}
                    changed = newest.changed() => changed.map_err(|_| Error::bug("nobody looks at the rules"))?,
                    stopped = stop.changed() => stopped.map_err(|_| Error::bug("nobody is left to stop the apply loop"))?,
                }
                continue;
            };
            match apply.run(stop.clone()).await {
                Ok(LoopEnd::Rules(new)) => {
                    new.pass(book, passed, false).await;
                    new.end_tables(book, passed).await;
                }
                Ok(LoopEnd::WentBack) => passed.forget(),
                Ok(LoopEnd::Done | LoopEnd::Turned(_)) => {}
                Err(error) if gone.can_be_left(&error) => gone.leave(book, passed, &error).await,
                Err(error) => return Err(error),
            }
            continue;
        }
        // nothing is ours, or not yet: others read
        tokio::select! {
            () = share.changed() => {}
            changed = newest.changed() => changed.map_err(|_| Error::bug("nobody looks at the rules"))?,
            stopped = stop.changed() => {
                stopped.map_err(|_| Error::bug("nobody is left to stop the apply loop"))?;
            }
        }
    }
}

/// Begins by the rules that count where the assigned tables that need the stream from furthest back stand.
async fn begin_shared(
    ground: &Ground,
    book: &RulesBook,
    passed: &Passed,
    named: &NamedTables,
    share: &Share,
    mut assigned: Assignment,
    gone: &Gone,
) -> Result<(Option<Apply>, Arc<Generation>)> {
    // a table that goes keeps its lease until somebody has seen that it has all up to its cut
    named.set(book.source_rules());
    let had_tables = !assigned.apply.is_empty();
    for (table, at) in &gone.ended {
        book.note_ended(&noted(table), *at).await;
        assigned.apply.remove(table);
        share.note(Note::Ended(table.clone()));
    }
    for (i, (number, since)) in book.candidates().into_iter().enumerate().skip(gone.least) {
        let generation = book.generation(number, &ground.status)?;
        if i == 0 && (generation.tables.rules().is_empty() || (had_tables && assigned.apply.is_empty())) {
            return Ok((None, generation));
        }
        let ended = gone.ended.iter().map(|(table, _)| table.clone()).collect();
        let apply = Apply::start_shared(&ground.by(&generation, book), share.clone(), assigned.clone(), ended).await?;
        let is_before = |since| apply.progress.needs_before(since, |table| !passed.has(table, since));
        if !since.is_some_and(is_before) {
            return Ok((Some(apply), generation));
        }
    }
    Err(Error::bug("no rules count from the beginning"))
}

/// Tables that the stream's last cut names and that have no lease: a new pipeline's, or all, if the state store was lost; and those that went by other rules
/// and have not come to their cut. Says whether there are any.
async fn discover(ground: &Ground, book: &RulesBook, passed: &Passed, share: &Share, assigned: &Assignment) -> Result<bool> {
    let stream_id = &ground.log.identity().stream_id;
    let last = find_last_cut(ground.log.as_ref()).await?;
    let tables = last.cut.iter().flat_map(|(_, cut)| cut.tables.keys());
    let behind = gone_of_lake(ground, book, passed).await?;
    let tables = tables.filter(|table| ground.config.rules.rule_for(table).is_some());
    let tables: Vec<&TableId> = tables.chain(behind.behind()).collect();
    if tables.iter().all(|table| assigned.known.contains(table)) {
        return Ok(false);
    }
    let mut needs: BTreeMap<&TableId, Option<Need>> = BTreeMap::new();
    for table in tables {
        let checkpoint = ground.lake.checkpoint(table).await?;
        needs.insert(table, checkpoint.map(|checkpoint| need_of(&checkpoint, stream_id)));
    }
    // a commit's place has all that the tables without a commit need as well
    let lowest = needs.values().flatten().min().cloned().unwrap_or(Need::Beginning);
    for (table, need) in needs {
        if !assigned.known.contains(table) {
            let need = need.unwrap_or_else(|| lowest.clone());
            share.note(Note::Seen { table: table.clone(), need, is_ours: false });
        }
    }
    Ok(true)
}

/// What a table needs of the stream `stream_id` behind its last commit.
fn need_of(checkpoint: &Checkpoint, stream_id: &str) -> Need {
    Need::of(checkpoint.resume.clone().filter(|_| checkpoint.stream_id == stream_id))
}

impl Apply {
    /// Reads the checkpoints of the tables that are assigned. What a commit says counts; a lease only says what a table without one needs.
    async fn start_shared(ground: &Ground, share: Share, assigned: Assignment, ended: BTreeSet<TableId>) -> Result<Self> {
        let stream_id = ground.log.identity().stream_id.clone();
        let (mut tables, mut durable) = (BTreeMap::new(), BTreeMap::new());
        for (table, need) in &assigned.apply {
            let checkpoint = ground.lake.checkpoint(table).await?;
            let of_this_stream = checkpoint.as_ref().filter(|checkpoint| checkpoint.stream_id == stream_id);
            let need = of_this_stream.map_or_else(|| need.clone(), |checkpoint| need_of(checkpoint, &stream_id));
            durable.insert(table.clone(), need.resume());
            let kept = ground.kept(table).await?;
            tables.insert(table.clone(), AppliedTable::keeping(table, &ground.config.rules, checkpoint, &stream_id, kept));
        }
        let mut apply = Self::over(ground.clone(), tables, durable);
        apply.shared =
            Some(Shared { share, assigned, ended, unresolved: BTreeSet::new(), is_outdated: false, told_needs: Instant::now() });
        Ok(apply)
    }

    /// Whether the loop must end, to be started anew with other tables.
    pub(super) fn is_outdated(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_outdated)
    }

    /// Whether another worker has a table that has a lease.
    pub(super) fn is_elsewhere(&self, table: &TableId) -> bool {
        let is_known = |shared: &Shared| shared.assigned.known.contains(table);
        self.shared.as_ref().is_some_and(is_known) && self.config.rules.rule_for(table).is_some()
    }

    /// Whether a table's lease is waited for.
    pub(super) fn is_unresolved(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.unresolved.is_empty())
    }

    /// Takes note of tables that nobody has a lease for.
    pub(super) fn notice<'a>(&mut self, event: &'a LaneEvent) {
        let Some(shared) = &mut self.shared else { return };
        let (tables, window): (Vec<&'a TableId>, CutPoint) = match event {
            LaneEvent::Sections { epoch, window, sections, .. } => {
                (sections.iter().map(Section::table).collect(), CutPoint { epoch: *epoch, number: *window })
            }
            LaneEvent::CutReached(reached) => {
                let position = &reached.cut.position;
                self.status.reached(position.position_text(), reached.cut.source_commit_time);
                (reached.cut.tables.keys().collect(), reached.point)
            }
            LaneEvent::Void { .. } => return,
        };
        for table in tables {
            let is_new = ![&shared.assigned.known, &shared.unresolved, &shared.ended].iter().any(|known| known.contains(table));
            if is_new && self.config.rules.rule_for(table).is_some() {
                shared.unresolved.insert(table.clone());
                let need = Need::of(self.progress.resume(Some(window)));
                shared.share.note(Note::Seen { table: table.clone(), need, is_ours: true });
            }
        }
    }

    /// The assignment has changed.
    pub(super) fn reassign(&mut self) {
        let Some(shared) = &mut self.shared else { return };
        let before = std::mem::replace(&mut shared.assigned, shared.share.assignment());
        let assigned = &shared.assigned;
        shared.unresolved.retain(|table| !assigned.known.contains(table) || assigned.apply.get(table) == Some(&Need::Nothing));
        let is_other = |table: &TableId| !self.tables.contains_key(table) && !shared.ended.contains(table);
        shared.is_outdated |= assigned.apply.keys().any(is_other);
        if assigned.releasable != before.releasable {
            self.to_release = assigned.releasable.as_ref().map(|resume| LogPosition(resume.log_position.clone()));
        }
        let gone = |table: &TableId| !assigned.apply.contains_key(table) && !assigned.leave.contains(table);
        // one that this loop never had needn't be waited for
        let absent = assigned.leave.iter().filter(|table| !self.tables.contains_key(*table));
        absent.for_each(|table| shared.share.note(Note::Left(table.clone())));
        let lost: Vec<TableId> = self.tables.keys().filter(|table| gone(table)).cloned().collect();
        for table in lost {
            tracing::warn!(%table, "the table's lease is lost");
            self.drop_table(&table);
        }
    }

    /// Commits the tables that others wait for, and lets go of those that are committed.
    pub(super) fn leave_tables(&mut self) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let leaving: Vec<TableId> = shared.assigned.leave.iter().filter(|table| self.tables.contains_key(table)).cloned().collect();
        for table in leaving {
            let has_news = |apply: &Self| {
                let cut = apply.last_cut.clone()?;
                apply.tables.get(&table)?.has_news(&cut).then_some(cut)
            };
            if let Some(cut) = has_news(self).filter(|_| !self.is_unresolved()) {
                self.start_commit(&table, &cut)?;
            }
            let Some(applied) = self.tables.get(&table) else { continue };
            if !applied.is_running && !self.is_unresolved() {
                self.drop_table(&table);
                self.note(Note::Left(table));
            }
        }
        Ok(())
    }

    fn drop_table(&mut self, table: &TableId) {
        self.tables.remove(table);
        self.progress.forget(table);
        self.status.forget(table);
    }

    fn note(&self, note: Note) {
        if let Some(shared) = &self.shared {
            shared.share.note(note);
        }
    }

    /// A commit's place, with what the other workers' tables need.
    pub(super) fn with_others(&self, resume: Option<Resume>) -> Option<Resume> {
        match self.shared.as_ref().and_then(|shared| shared.assigned.others.clone()) {
            Some(others) => Need::of(resume).min(others).resume(),
            None => resume,
        }
    }

    /// Tells what our tables need now: one to which nothing happens must not hold back the others' commits.
    pub(super) fn tell_needs(&mut self) {
        let Some(shared) = &mut self.shared else { return };
        if shared.told_needs.elapsed() < NEEDS_INTERVAL {
            return;
        }
        shared.told_needs = Instant::now();
        for (table, applied) in &self.tables {
            // one that has no commit needs all that came for it, which its lease says
            let checkpoint = applied.checkpoint().filter(|checkpoint| checkpoint.stream_id == self.log.identity().stream_id);
            if let Some(checkpoint) = checkpoint.filter(|_| !applied.is_failed()) {
                self.note_commit(table, checkpoint);
            }
        }
    }

    /// A commit of one of our tables is durable.
    pub(super) fn note_commit(&self, table: &TableId, checkpoint: &Checkpoint) {
        let Some(applied) = self.tables.get(table) else { return };
        let need = Need::of(self.progress.resume(applied.first_window()));
        self.note(Note::Committed { table: table.clone(), need, committed: Need::of(checkpoint.resume.clone()) });
    }

    /// What a table that failed, or is read anew, needs.
    pub(super) fn note_need(&self, table: &TableId, need: Need) {
        self.note(Note::Committed { table: table.clone(), committed: need.clone(), need });
    }

    /// A table that had failed is read anew from this window on: it holds the stream again, before anything else is committed.
    pub(super) fn revived(&mut self, table: &TableId, window: CutPoint) {
        let resume = self.progress.resume(Some(window));
        self.progress.hold(table, resume.clone());
        self.note_need(table, Need::of(resume));
        if let Some(shared) = self.shared.as_mut().filter(|shared| shared.assigned.apply.get(table) == Some(&Need::Nothing)) {
            shared.unresolved.insert(table.clone());
        }
    }

    /// Whether the error only says that another has the table now; then the table goes, and the loop goes on.
    pub(super) fn is_given_way(&mut self, table: &TableId, error: &Error) -> bool {
        let is_taken = self.shared.is_some() && error.kind() == Kind::Conflict && error.area() == Area::Lake;
        if is_taken {
            tracing::warn!(%table, %error, "another worker has the table");
            self.drop_table(table);
            self.note(Note::Lost(table.clone()));
        }
        is_taken
    }
}

/// Resolves when the assignment has changed; never, if there is none.
pub(super) async fn changed(shared: &mut Option<Shared>) {
    match shared {
        Some(shared) => shared.share.changed().await,
        None => std::future::pending().await,
    }
}
