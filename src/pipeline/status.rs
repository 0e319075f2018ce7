//! What the running pipeline says about itself: written by the loops, read by the admin interface and the demo.
//!
//! Each method that takes note of something also moves its metrics, so that both always tell the same story.

use super::erase_desk::EraseDesk;
use super::requests::Requests;
use super::rules::RulesBook;
use super::table_requests::SeenRequest;
use crate::event::{Epoch, TableId, TableState};
use crate::lookup::{Lookup, LookupHealth};
use crate::metrics as names;
use crate::table::CommitSummary;
use crate::time::Timestamp;
use metrics::{counter, gauge, histogram};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A handle on the pipeline's status; clones share it.
#[derive(Debug, Clone)]
pub struct Status {
    inner: Arc<Mutex<StatusView>>,
    /// The lookups that transforms join: they know themselves how they do.
    lookups: Arc<Mutex<Vec<Arc<Lookup>>>>,
    requests: Requests,
    /// The pipeline's rules, once its stores are open.
    rules: Arc<Mutex<Option<RulesBook>>>,
    /// Where it is asked that keys are erased, once its stores are open.
    erases: Arc<Mutex<Option<EraseDesk>>>,
    /// A table that is called otherwise here: the source's name, and the one that is shown.
    shown_as: Option<(TableId, TableId)>,
    /// What is delivered: what it is shown as, and the source's table.
    delivered: Arc<Mutex<BTreeMap<TableId, TableId>>>,
}

/// The status at one moment.
#[derive(Debug, Clone)]
pub struct StatusView {
    /// When the pipeline was started.
    pub started: Timestamp,
    /// What the capture does.
    pub capture: CaptureState,
    /// How far the source was read, as text.
    pub position: Option<String>,
    /// When the source committed what was last read (or sent its last heartbeat).
    pub source_commit_time: Option<Timestamp>,
    /// Rows captured since the start.
    pub captured_rows: u64,
    /// The newest producer that the merge has met on the stream.
    pub newest_epoch: Option<Epoch>,
    /// The tables that are replicated.
    pub tables: BTreeMap<TableId, TableStatus>,
    /// The lookups that their transforms join.
    pub lookups: Vec<LookupHealth>,
    /// What the lake's services are asked to do to tables.
    pub asked: Vec<SeenRequest>,
}

/// What the capture does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureState {
    /// Not yet, or no longer, connected. `reason`: what went wrong last.
    Connecting {
        /// Why the last connection ended or couldn't be made.
        reason: Option<String>,
    },
    /// It reads the binlog.
    Streaming,
    /// It was told to stop, and finishes.
    Stopping,
    /// Another process captures; this one merges.
    Elsewhere,
    /// There is nothing to capture: streams of others feed all tables.
    NoSource,
}

/// One table's status.
#[derive(Debug, Clone, Default)]
pub struct TableStatus {
    /// Where it stands.
    pub stage: TableStage,
    /// Rows that commits of this process inserted.
    pub inserted: u64,
    /// Rows that they updated.
    pub updated: u64,
    /// Rows that they deleted.
    pub deleted: u64,
    /// The commits of this process.
    pub commits: u64,
    /// The last commit.
    pub last_commit: Option<LastCommit>,
}

/// Where a table stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TableStage {
    /// Its snapshot is under way.
    Snapshot {
        /// Rows read so far.
        rows_read: u64,
    },
    /// It follows the source.
    #[default]
    Live,
    /// It is stopped until a person does something.
    Stopped {
        /// Why, with the remedy.
        reason: String,
    },
}

impl From<&TableState> for TableStage {
    fn from(state: &TableState) -> Self {
        match state {
            TableState::Live => Self::Live,
            TableState::Snapshot(progress) => Self::Snapshot { rows_read: progress.rows_read },
            TableState::Stopped { reason, .. } => Self::Stopped { reason: reason.clone() },
        }
    }
}

/// A commit to the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCommit {
    /// The instant, 17 digits.
    pub instant: String,
    /// When it became visible.
    pub visible_at: Timestamp,
    /// When the source committed the last transaction that it has.
    pub source_commit_time: Timestamp,
    /// The source's position that it carries, as text.
    pub position: String,
    /// How long it took.
    pub took: Duration,
}

/// What a commit changed, for [`Status::committed`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CommittedRows {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

impl From<&CommitSummary> for CommittedRows {
    fn from(summary: &CommitSummary) -> Self {
        let CommitSummary { inserted, updated, deleted, bytes_written, .. } = *summary;
        Self { inserted, updated, deleted, bytes_written }
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

impl Status {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let view = StatusView {
            started: Timestamp::now(),
            capture: CaptureState::Connecting { reason: None },
            position: None,
            source_commit_time: None,
            captured_rows: 0,
            newest_epoch: None,
            tables: BTreeMap::new(),
            lookups: Vec::new(),
            asked: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(view)),
            lookups: Arc::default(),
            requests: Requests::default(),
            rules: Arc::default(),
            erases: Arc::default(),
            shown_as: None,
            delivered: Arc::default(),
        }
    }

    /// The same status, in which `table` is shown as `shown`: what is delivered elsewhere is told apart from the lake's table.
    #[must_use]
    pub fn shown_as(&self, table: TableId, shown: TableId) -> Self {
        Self { shown_as: Some((table, shown)), ..self.clone() }
    }

    /// What `table` is shown as.
    pub fn shown<'a>(&'a self, table: &'a TableId) -> &'a TableId {
        self.shown_as.as_ref().filter(|(known, _)| known == table).map_or(table, |(_, shown)| shown)
    }

    /// The source's table `table` is delivered, and shown as `shown`.
    pub fn delivers(&self, table: TableId, shown: TableId) {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).insert(shown, table);
    }

    /// The source's table that somebody means who has read the status; `None`: there is none of this name.
    pub fn source_table(&self, named: &TableId) -> Option<TableId> {
        let delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        let is_source = delivered.values().any(|table| table == named) || self.lock().tables.contains_key(named);
        delivered.get(named).cloned().or_else(|| is_source.then(|| named.clone()))
    }

    /// What the pipeline is asked for.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The pipeline's rules; `None`: they aren't known yet.
    pub fn rules(&self) -> Option<RulesBook> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are the pipeline's rules.
    pub(super) fn ruled_by(&self, book: &RulesBook) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(book.clone());
    }

    /// Where it is asked that keys are erased; `None`: the stores aren't open yet.
    pub fn erases(&self) -> Option<EraseDesk> {
        self.erases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// That is asked for here.
    pub(super) fn erases_at(&self, desk: EraseDesk) {
        *self.erases.lock().unwrap_or_else(PoisonError::into_inner) = Some(desk);
    }

    /// This is asked for.
    pub(super) fn asked(&self, seen: Vec<SeenRequest>) {
        self.lock().asked = seen;
    }

    /// A copy of all that is known.
    pub fn view(&self) -> StatusView {
        let mut view = self.lock().clone();
        let lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        view.lookups = lookups.iter().map(|lookup| lookup.health()).collect();
        view
    }

    /// These lookups are joined.
    pub fn lookups(&self, joined: Vec<Arc<Lookup>>) {
        *self.lookups.lock().unwrap_or_else(PoisonError::into_inner) = joined;
    }

    /// The capture does something else now.
    pub fn capture(&self, state: CaptureState) {
        self.lock().capture = state;
    }

    /// Rows were captured. `operation` is c, u, d or r.
    pub fn captured(&self, table: &TableId, operation: char, rows: u64) {
        self.lock().captured_rows += rows;
        counter!(names::CAPTURED_ROWS, "table" => table.to_string(), "operation" => operation.to_string()).increment(rows);
    }

    /// A cut was put on the stream.
    pub fn cut(&self, position: String, source_commit_time: Timestamp) {
        let mut view = self.lock();
        view.position = Some(position);
        view.source_commit_time = Some(source_commit_time);
        drop(view);
        counter!(names::CUTS).increment(1);
        gauge!(names::CAPTURE_LAG_SECONDS).set(Timestamp::now().since(source_commit_time).as_secs_f64());
    }

    /// A cut that another process put on the stream was reached.
    pub fn reached(&self, position: String, source_commit_time: Timestamp) {
        let mut view = self.lock();
        view.position = Some(position);
        view.source_commit_time = Some(source_commit_time);
    }

    /// The merge has met a producer.
    pub fn met(&self, epoch: Epoch) {
        let mut view = self.lock();
        view.newest_epoch = view.newest_epoch.max(Some(epoch));
    }

    /// The newest producer that the merge has met.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.lock().newest_epoch
    }

    /// A table stands elsewhere now.
    pub fn table(&self, table: &TableId, stage: TableStage) {
        let mut view = self.lock();
        view.tables.entry(self.shown(table).clone()).or_default().stage = stage;
        let stopped = view.tables.values().filter(|table| matches!(table.stage, TableStage::Stopped { .. })).count();
        drop(view);
        gauge!(names::STOPPED_TABLES).set(u32::try_from(stopped).unwrap_or(u32::MAX));
    }

    /// A table is another process's now.
    pub fn forget(&self, table: &TableId) {
        self.lock().tables.remove(self.shown(table));
    }

    /// A table got a commit.
    pub fn committed(&self, table: &TableId, rows: CommittedRows, commit: LastCommit) {
        let table = self.shown(table);
        let label = table.to_string();
        counter!(names::COMMITS, "table" => label.clone()).increment(1);
        histogram!(names::COMMIT_SECONDS, "table" => label.clone()).record(commit.took);
        for (operation, count) in [("c", rows.inserted), ("u", rows.updated), ("d", rows.deleted)] {
            counter!(names::COMMITTED_ROWS, "table" => label.clone(), "operation" => operation).increment(count);
        }
        counter!(names::WRITTEN_BYTES, "table" => label.clone()).increment(rows.bytes_written);
        gauge!(names::LAST_COMMIT_TIME, "table" => label.clone()).set(commit.visible_at.as_micros() as f64 / 1e6);
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|lookup| lookup.table_changed(table));
        let freshness = commit.visible_at.since(commit.source_commit_time);
        if rows.inserted + rows.updated + rows.deleted > 0 {
            histogram!(names::FRESHNESS_SECONDS).record(freshness);
        }
        gauge!(names::TABLE_LAG_SECONDS, "table" => label).set(freshness.as_secs_f64());
        let mut view = self.lock();
        let status = view.tables.entry(table.clone()).or_default();
        status.inserted += rows.inserted;
        status.updated += rows.updated;
        status.deleted += rows.deleted;
        status.commits += 1;
        status.last_commit = Some(commit);
    }

    fn lock(&self) -> MutexGuard<'_, StatusView> {
        // a panic elsewhere leaves the view readable: it is written field by field
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_adds_up_and_clones_share() {
        let status = Status::new();
        let table: TableId = "shop.orders".parse().unwrap();
        let commit = LastCommit {
            instant: "20261121141230755".into(),
            visible_at: Timestamp::from_micros(3_000_000),
            source_commit_time: Timestamp::from_micros(1_000_000),
            position: "binlog.000001:4".into(),
            took: Duration::from_millis(20),
        };
        for _ in 0..2 {
            status.clone().committed(&table, CommittedRows { inserted: 3, ..Default::default() }, commit.clone());
        }
        let view = status.view();
        assert_eq!((view.tables[&table].inserted, view.tables[&table].commits), (6, 2));
        assert_eq!(view.tables[&table].last_commit, Some(commit));
    }
}
