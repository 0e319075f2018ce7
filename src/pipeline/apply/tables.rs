//! One table as the apply loop sees it: what waits, where it stands, when it is due.

use super::amend::{Amend, Amended};
use super::cadence::Cadence;
use super::commit::Job;
use super::delivery::WrittenItems;
use super::ended::tell;
use super::history::OpenTable;
use super::lake::LakeWriter;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, Epoch, Lane, Section, SourcePosition, TableId, TableState};
use crate::format::ChildSpecs;
use crate::merge::{Checkpoint, Fold, HistoryRule, Resume, SpillFolder, TablePending, TableRule, TableRules, Treatment};
use crate::metrics as names;
use crate::pipeline::lookups::{joined_tables, ring_lookups};
use crate::pipeline::status::Status;
use crate::stream::CutReached;
use crate::table::CommitSummary;
use crate::time::Timestamp;
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Where a table stands at the last cut.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    /// No cut has named it yet.
    Unknown,
    /// It can be committed.
    Live,
    /// Its snapshot is under way: nothing is committed.
    Snapshot,
    /// Nothing comes any more after this position, and all that waits can be committed.
    Stopped(SourcePosition),
    /// It can't be applied, until a new snapshot replaces all its rows. Of a table that has no commit yet, what came from this window on is
    /// needed when it is tried again after a restart; one that has needn't hold the stream: it is tried again if the stream still has it.
    Failed(Option<CutPoint>),
}

/// The beginning of a new snapshot of a table that failed.
#[derive(Debug)]
struct Revival {
    window: CutPoint,
    /// The lanes that have come to it; what the others still bring is of before.
    lanes: HashSet<Lane>,
}

/// A table in the apply loop.
#[derive(Debug)]
pub(super) struct AppliedTable {
    pub(super) pending: TablePending,
    pub(super) standing: Standing,
    /// Whether a commit is under way.
    pub(super) is_running: bool,
    revival: Option<Revival>,
    /// The furthest position of a cut at which the table was whole: what waits may have all of it.
    furthest: Option<SourcePosition>,
    checkpoint: Option<Checkpoint>,
    writer: Option<OpenTable>,
    history: Option<HistoryRule>,
    children: ChildSpecs,
    /// Lookups of tables that join this one: it begins without them.
    pub(super) ring: BTreeSet<String>,
    /// The table whose history, or child, has this one's name; and which of them.
    owner: Option<(TableId, &'static str)>,
    last_started: Option<Instant>,
    last_cost: Duration,
    /// When the checkpoint was last known to be current; `None`: what the table joins may be another since, and a commit looks.
    last_moved: Option<Instant>,
    /// When dead letters that are to be tried again are looked for next.
    next_look: Instant,
    /// Whether there may be some of a time when the rules were others: until it was looked.
    may_have_letters: bool,
}

/// How often dead letters that are to be tried again are looked for, and whether lookups that are applied anew have other items.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

impl AppliedTable {
    pub(super) fn new(table: &TableId, rules: &TableRules, checkpoint: Option<Checkpoint>, stream_id: &str) -> Self {
        Self::keeping(table, rules, checkpoint, stream_id, None)
    }

    /// The same; `kept` are the lake's columns that stay, whatever the rules give.
    pub(super) fn keeping(
        table: &TableId,
        rules: &TableRules,
        checkpoint: Option<Checkpoint>,
        stream_id: &str,
        kept: Option<SchemaRef>,
    ) -> Self {
        let treatment = rules.rule_for(table).map(TableRule::treatment).unwrap_or_default();
        let treatment = Treatment { kept, ..treatment };
        let history = rules.rule_for(table).and_then(|rule| rule.history.clone());
        let joins_anew = treatment
            .transform
            .as_ref()
            .is_some_and(|transform| transform.reapplies() && joined_tables(transform).next().is_some());
        let committed = checkpoint.as_ref().map(|checkpoint| checkpoint.committed(stream_id));
        Self {
            pending: TablePending::new(table.clone(), treatment, committed),
            standing: Standing::Unknown,
            is_running: false,
            revival: None,
            furthest: checkpoint.as_ref().map(|checkpoint| checkpoint.position.clone()),
            checkpoint,
            writer: None,
            history,
            children: rules.rule_for(table).map(|rule| rule.children.clone()).unwrap_or_default(),
            ring: ring_lookups(rules, table),
            owner: (rules.history_owner(table).map(|owner| (owner, "the table has the name of another table's history")))
                .or_else(|| Some((rules.child_owner(table)?, "the table has the name of another table's child"))),
            last_started: None,
            last_cost: Duration::ZERO,
            last_moved: (!joins_anew).then(Instant::now),
            next_look: Instant::now(),
            may_have_letters: true,
        }
    }

    /// What the last commit says.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Something else writes the table for a while: nothing is committed meanwhile, and it is opened anew then.
    pub(super) fn lend(&mut self) {
        self.is_running = true;
        self.writer = None;
    }

    /// The table is ours again.
    pub(super) fn take_back(&mut self) {
        self.is_running = false;
    }

    /// What the table joins may be another.
    pub(super) fn look_at_joined(&mut self) {
        self.last_moved = None;
    }

    /// A table that was fed by another stream before: positions on that one say nothing on this one.
    pub(super) fn on_another_stream(mut self) -> Self {
        self.furthest = None;
        self.pending.forget_position();
        self
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.standing, Standing::Failed(_))
    }

    /// It can't be applied any more. Says whether it has a commit, and so doesn't hold the stream.
    pub(super) fn fail(&mut self) -> bool {
        let is_committed = self.pending.committed().is_some();
        self.standing = Standing::Failed(if is_committed { None } else { self.first_window() });
        self.is_running = false;
        self.revival = None;
        self.pending.forget_rows();
        is_committed
    }

    /// What waits isn't committed by this loop: the next one reads it again.
    pub(super) fn let_go(&mut self) {
        self.standing = Standing::Failed(self.first_window());
        self.is_running = false;
        self.revival = None;
        self.pending.forget_rows();
    }

    /// A commit at `at` can't be done. Says whether a new snapshot that replaces all rows has begun behind it meanwhile: then that is waited for.
    pub(super) fn outlives(&mut self, at: CutPoint) -> bool {
        let Some((window, lanes)) = self.pending.snapshot_after(at) else { return false };
        self.pending.drop_up_to(at);
        self.standing = Standing::Failed(None);
        self.is_running = false;
        self.revival = Some(Revival { window, lanes });
        true
    }

    /// Whether a section is taken, and whether it is the beginning of a new snapshot of a table that failed.
    pub(super) fn takes(&mut self, lane: Lane, window: CutPoint, section: &Section) -> (bool, bool) {
        if !self.is_failed() {
            return (true, false);
        }
        let begins = matches!(section, Section::Truncate { stamp, .. } if stamp.is_snapshot);
        let is_first = begins && self.revival.is_none();
        if is_first {
            self.pending.begin_anew();
            self.revival = Some(Revival { window, lanes: HashSet::new() });
        }
        let Some(revival) = &mut self.revival else { return (false, false) };
        if begins {
            revival.lanes.insert(lane);
        }
        (revival.lanes.contains(&lane), is_first)
    }

    /// Forgets what is void, a new snapshot's beginning included.
    pub(super) fn void(&mut self, epoch: Epoch, after: Option<CutPoint>) -> Result<()> {
        let is_void = |window: CutPoint| window.epoch < epoch && after.is_none_or(|after| window > after);
        if self.revival.as_ref().is_some_and(|revival| is_void(revival.window)) {
            self.revival = None;
            self.pending.forget_rows();
        }
        if self.is_failed() && self.revival.is_none() { Ok(()) } else { self.pending.void(epoch, after) }
    }

    /// A cut says where the table stands.
    pub(super) fn stand(&mut self, state: &TableState, at: CutPoint, position: &SourcePosition) {
        if self.is_failed() {
            // all lanes have come to the new snapshot's beginning
            if self.revival.take_if(|revival| revival.window <= at).is_none() {
                return;
            }
            self.standing = Standing::Unknown;
        }
        if self.pending.begins_anew(at) {
            self.furthest = None;
        }
        let is_further = self.furthest.as_ref().is_none_or(|furthest| has_reached(position, furthest));
        if matches!(state, TableState::Live) && is_further {
            self.furthest = Some(position.clone());
        }
        self.standing = match state {
            TableState::Live => {
                self.pending.is_whole(at);
                Standing::Live
            }
            TableState::Snapshot(progress) => {
                self.pending.sees_before(&progress.high_watermark.coordinates);
                Standing::Snapshot
            }
            TableState::Stopped { position, .. } => {
                // stopped in the middle of a snapshot: what came of it will never be whole
                if self.standing == Standing::Snapshot || self.pending.is_incomplete() {
                    self.pending.drop_up_to(at);
                }
                Standing::Stopped(position.clone())
            }
        };
    }

    /// From which window on the table needs the stream.
    pub(super) fn first_window(&self) -> Option<CutPoint> {
        match &self.standing {
            Standing::Failed(first_window) if self.revival.is_none() => *first_window,
            _ => self.pending.first_window(),
        }
    }

    /// The position that a commit at `cut` would carry; `None` if there must be no commit.
    fn position_at(&self, cut: &CutReached) -> Option<SourcePosition> {
        if !self.pending.is_ready_but_for(&self.ring) {
            return None;
        }
        let position = match &self.standing {
            Standing::Live => &cut.cut.position,
            Standing::Stopped(position) if self.pending.has_changes(cut.point) => position,
            // nothing more will come: the checkpoint moves along the stream, the position stays
            Standing::Stopped(_) => &self.pending.committed()?.position,
            Standing::Unknown | Standing::Snapshot | Standing::Failed(_) => return None,
        };
        let is_new = self.pending.committed().is_none_or(|committed| committed.at.is_none_or(|at| at < cut.point));
        // an older producer may have completed a cut that went further than this one
        let is_ahead = is_new && self.furthest.as_ref().is_none_or(|furthest| has_reached(position, furthest));
        (is_ahead && !self.is_running).then(|| position.clone())
    }

    /// Whether a commit at `cut` would say anything new: rows, or a position.
    pub(super) fn has_news(&self, cut: &CutReached) -> bool {
        let Some(position) = self.position_at(cut) else { return false };
        let has_moved = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.position != position);
        self.pending.has_changes(cut.point) || has_moved || self.lacks_others()
    }

    /// Whether a table that has a commit could get one at `cut`.
    pub(super) fn can_move(&self, cut: &CutReached) -> bool {
        self.checkpoint.is_some() && self.position_at(cut).is_some()
    }

    /// Whether the last commit was one without the history or the children that the table is to have.
    fn lacks_others(&self) -> bool {
        let Some(checkpoint) = &self.checkpoint else { return false };
        let children = self.children.checksum();
        (self.history.is_some() && checkpoint.system_time.is_none()) || (children.is_some() && checkpoint.children != children)
    }

    /// When a commit at `cut` is due; `None`: not at all.
    pub(super) fn due(&self, cut: &CutReached, cadence: &Cadence) -> Option<Instant> {
        let position = self.position_at(cut)?;
        if self.pending.has_changes(cut.point) {
            let wait = cadence.wait(self.pending.bytes_up_to(cut.point), self.last_cost);
            return Some(self.last_started.map_or_else(Instant::now, |started| started + wait));
        }
        let checkpoint = self.checkpoint.as_ref()?;
        if self.lacks_others() {
            return Some(Instant::now());
        }
        let wait = cadence.checkpoint_wait(checkpoint.position != position);
        Some(self.last_moved.map_or_else(Instant::now, |moved| moved + wait))
    }

    /// When it is to be looked whether rows are to be joined anew or dead letters are to be tried again; `None`: that can't be.
    pub(super) fn amend_due(&self, cadence: &Cadence) -> Option<Instant> {
        let treatment = self.pending.treatment();
        let before = self.checkpoint.as_ref().filter(|_| !self.is_running && !self.is_failed() && self.pending.is_ready())?;
        let interval = |last: Instant| last + cadence.wait(0, self.last_cost);
        let joined = match treatment.transform.as_ref().filter(|transform| transform.reapplies()) {
            Some(transform) if transform.marks() != before.lookups => Some(self.last_started.map_or_else(Instant::now, interval)),
            Some(_) => Some(Instant::now() + LOOK_INTERVAL / 4),
            None => None,
        };
        let has_letters = treatment.has_dead_letters() || self.has_open_letters() || self.may_have_letters;
        let letters = has_letters.then_some(self.next_look);
        [joined, letters].into_iter().flatten().min()
    }

    fn has_open_letters(&self) -> bool {
        self.writer.as_ref().is_some_and(|open| open.letters.is_some())
    }

    /// What may have to be done beside what the stream brings.
    pub(super) fn amend(&mut self, table: &TableId, lake: &LakeWriter, tries_letters: bool) -> Result<Option<Amend>> {
        let treatment = self.pending.treatment().clone();
        let shape = match self.pending.committed_shape() {
            // what the rules say now may need what is still on the stream: a look for letters of before has time
            Err(_) if !treatment.has_dead_letters() && !self.has_open_letters() => None,
            shape => shape?,
        };
        self.next_look = Instant::now() + LOOK_INTERVAL;
        let (Some(before), Some(shape)) = (self.checkpoint.clone(), shape) else { return Ok(None) };
        let is_stale = treatment.transform.as_ref().is_some_and(|sql| sql.reapplies() && sql.marks() != before.lookups);
        // what is delivered elsewhere has none
        self.may_have_letters &= lake.delivery().is_none();
        if !is_stale && !shape.has_dead_letters() && !self.has_open_letters() && !self.may_have_letters {
            return Ok(None);
        }
        self.is_running = true;
        if is_stale {
            self.last_started = Some(Instant::now());
        }
        Ok(Some(Amend {
            table: table.clone(),
            lake: lake.clone(),
            writer: self.writer.take(),
            has_history: self.history.is_some(),
            treatment,
            shape,
            before,
            is_stale,
            tries_letters,
            has_letters: self.may_have_letters,
            tried: Vec::new(),
        }))
    }

    /// It is done; gives what the last commit says, if there was one.
    pub(super) fn amended(&mut self, status: &Status, amended: Amended) -> Result<Option<(Checkpoint, Option<CommitSummary>)>> {
        let Amended { table, took, writer, has_letters, done } = amended;
        self.writer = writer;
        self.is_running = false;
        self.may_have_letters = has_letters;
        let Some((checkpoint, summary)) = done? else { return Ok(None) };
        self.last_cost = took;
        self.checkpoint = Some(checkpoint.clone());
        if let Some(summary) = &summary {
            tell(status, &table, Some(summary), None, &checkpoint, took);
        }
        Ok(Some((checkpoint, summary)))
    }

    /// Takes what waits, for a commit at `cut`.
    pub(super) fn job(
        &mut self,
        table: &TableId,
        lake: &LakeWriter,
        cut: &CutReached,
        resume: Option<Resume>,
        stream_id: &str,
        spill: &SpillFolder,
    ) -> Result<Option<Job>> {
        let Some(position) = self.position_at(cut) else { return Ok(None) };
        if let Some((owner, what)) = &self.owner {
            return Err(Error::new(Area::Lake, Kind::Data, *what)
                .with("other", owner)
                .remedy("rename it at the source, leave it out with `exclude`, or remove `history` or `children` of the other"));
        }
        // an empty commit leaves the table as it was beyond its own cut
        let after = CutPoint { number: cut.point.number.next(), ..cut.point };
        let first_window = self.pending.first_window().filter(|_| self.pending.has_changes(cut.point)).unwrap_or(after);
        let Some(fold) = self.pending.take(cut.point, &position)? else { return Ok(None) };
        let schema = fold.shape().source().as_ref().clone();
        let mut checkpoint = Checkpoint::new(stream_id, cut.point, resume, position, cut.cut.source_commit_time, schema);
        checkpoint.children = self.children.checksum();
        self.is_running = true;
        self.last_started = Some(Instant::now());
        Ok(Some(Job {
            table: table.clone(),
            lake: lake.clone(),
            writer: self.writer.take(),
            history: self.history.clone(),
            children: self.children.clone(),
            fold,
            spill: spill.clone(),
            before: self.checkpoint.clone(),
            checkpoint,
            first_window,
            joined: Vec::new(),
            let_go: None,
        }))
    }

    /// The commit is visible.
    #[expect(clippy::too_many_arguments, reason = "one call; all of it is what the commit says about itself")]
    pub(super) fn committed(
        &mut self,
        status: &Status,
        table: &TableId,
        writer: Option<OpenTable>,
        summary: Option<&CommitSummary>,
        items: Option<WrittenItems>,
        checkpoint: &Checkpoint,
        took: Duration,
        fold: &Fold,
    ) {
        self.writer = writer;
        self.is_running = false;
        self.last_cost = took;
        self.last_moved = Some(Instant::now());
        self.pending.done(checkpoint.at(), checkpoint.position.clone(), fold.shape().source().clone());
        self.checkpoint = Some(checkpoint.clone());
        let visible_at = tell(status, table, summary, items, checkpoint, took);
        for time in fold.source_commit_times() {
            metrics::histogram!(names::FRESHNESS_SECONDS).record(visible_at.since(Timestamp::from_micros(time)));
        }
    }
}

/// Whether `position` has all of `before` behind it.
fn has_reached(position: &SourcePosition, before: &SourcePosition) -> bool {
    match (&position.gtid_set, &before.gtid_set) {
        (Some(now), Some(before)) => before.is_subset(now),
        _ => position.lineage != before.lineage || position.coordinates >= before.coordinates,
    }
}
