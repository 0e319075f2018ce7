//! Tables that join other tables (`url = "table:…"`): what a commit sees of these. And fed tables, whose dead letters are committed first.
//!
//! **Tables of one stream**: a commit at a cut sees the other table as of this very cut. The joined table is committed first, at the same cut; meanwhile nothing is
//! read, so no later cut comes in between. While a table is committed that joins it, it isn't committed again. So what its last commit has is its
//! content at the cut. After a restart one that has less than the other catches up first. Of several workers one has all tables that join each other (`share::together`); while one of them is still on its way, those that join it
//! wait. Of tables that join each other in a ring one comes first, and sees what the others had before.
//!
//! **A ring begins** in the order of the tables' names: those without a commit get their first one at one cut, one after the other, before any of the ring gets
//! another; each sees those that have none yet as empty tables. Which cut that is the stream says, so a restart and another worker come to the same.
//!
//! **Tables of other streams**, whose cuts say nothing here: the other table's last commit counts as it is when this one begins. So it does where rows are held
//! back until their item is there: that would wait for ever for the cut at which it comes.

use super::Apply;
use super::tables::{AppliedTable, Standing};
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::format::dead_letter_table;
use crate::lookup::{Content, Lookup, leads_to};
use crate::pipeline::lookups::{joined_tables, latest_rows, table_rows, waiting_tables};
use crate::stream::CutReached;
use crate::table::Lake;
use crate::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a table waits for the one that it joins before the log says so.
const JOINED_PATIENCE: Duration = Duration::from_secs(30);

/// How long, at the end of a copy, a table waits for a lookup that isn't read yet.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
pub(super) const LOOKUP_LOOK: Duration = Duration::from_millis(100);

/// A lookup whose items are to be those of a table's commit.
#[derive(Debug, Clone)]
pub(super) struct JoinedTable {
    pub(super) lookup: Arc<Lookup>,
    table: TableId,
    at: Version,
}

/// What of a joined table is seen.
#[derive(Debug, Clone)]
enum Version {
    /// This commit, which is its last one.
    Of(String),
    /// The last one by then.
    Latest,
    /// It has no commit yet, and is not waited for.
    Empty,
}

impl JoinedTable {
    /// The items; read once a commit of that table. `None`: it has none yet.
    pub(super) async fn content(&self, lake: &Lake) -> Result<Option<Arc<Content>>> {
        let rows = match &self.at {
            Version::Empty => return self.lookup.without_items().map(|content| Some(Arc::new(content))),
            Version::Of(version) => match self.lookup.content_at(version) {
                Some(content) => return Ok(Some(content)),
                None => table_rows(&self.table, lake).await.map(|rows| Some((version.clone(), rows))),
            },
            Version::Latest => latest_rows(&self.table, lake, |version| self.lookup.content_at(version).is_some()).await,
        };
        // as of every lookup: what can't be read now is waited for
        let rows = rows.map_err(|error| {
            let error = Error::new(Area::Lake, Kind::Transient, "a table that is joined can't be read").caused_by(error);
            error.with("lookup", self.lookup.name()).with("joined", &self.table)
        })?;
        match rows {
            None => Ok(None),
            Some((version, rows)) if rows.num_columns() == 0 => Ok(self.lookup.content_at(&version)),
            Some((version, rows)) => {
                let content =
                    self.lookup.content_of_rows(&rows).map_err(|error: Error| error.with("lookup", self.lookup.name()))?;
                Ok(Some(self.lookup.keep_at(&version, content, Timestamp::now())))
            }
        }
    }
}

/// Why a table isn't committed at a cut.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// A commit of the table that it joins is under way: no later cut may come.
    Commit,
    /// Another worker still has the table that it joins.
    Worker,
}

impl Apply {
    /// The tables of this loop that `table` joins, as of each cut.
    fn joins(&self, table: &TableId) -> Vec<(Arc<Lookup>, TableId)> {
        let mut joins = self.all_joins(table);
        joins.retain(|(_, other)| self.tables.contains_key(other));
        joins
    }

    /// The same, wherever they are.
    fn all_joins(&self, table: &TableId) -> Vec<(Arc<Lookup>, TableId)> {
        let transform = self.tables.get(table).and_then(|applied| applied.pending.treatment().transform.as_ref());
        transform.map_or_else(Vec::new, |transform| joined_tables(transform).filter(|(_, other)| other != table).collect())
    }

    /// Something else than its changes was done to a table: what those that join it know of its last commit is void, and they are joined anew.
    pub(super) fn forget_joined(&mut self, table: &TableId) {
        let joins = |other: &TableId| self.all_joins(other).into_iter().filter(|(_, joined)| joined == table).collect::<Vec<_>>();
        let joining: Vec<_> = self.tables.keys().map(|other| (other.clone(), joins(other))).collect();
        for (other, lookups) in joining.into_iter().filter(|(_, lookups)| !lookups.is_empty()) {
            lookups.iter().for_each(|(lookup, _)| lookup.forget_commit());
            if let Some(applied) = self.tables.get_mut(&other) {
                applied.look_at_joined();
            }
        }
    }

    /// Whether tables of a copy, at its end, wait for what its other tables fill. Those that have waited too long are stopped.
    pub(super) fn waits_for_lookups(&mut self) -> Result<bool> {
        let Some(cut) = self.last_cut.as_ref().filter(|_| self.is_copy) else { return Ok(false) };
        let waits = |applied: &AppliedTable| {
            let is_whole = matches!(applied.standing, Standing::Live | Standing::Stopped(_));
            is_whole && applied.pending.has_changes(cut.point) && !applied.pending.is_ready_but_for(&applied.ring)
        };
        let waiting: Vec<TableId> =
            self.tables.iter().filter(|(_, applied)| waits(applied)).map(|(table, _)| table.clone()).collect();
        if waiting.is_empty() || self.unread_since.get_or_insert_with(Instant::now).elapsed() < LOOKUP_PATIENCE {
            return Ok(!waiting.is_empty());
        }
        for table in waiting {
            let unread = Error::new(Area::Lake, Kind::Data, "a lookup that the table joins can't be read");
            self.fail(&table, unread.remedy("the log says why: correct it; then `binlake run`, or the copy once more, goes on"))?;
        }
        Ok(false)
    }

    /// Whether a commit is under way that sees `table` as it is.
    pub(super) fn is_seen(&self, table: &TableId) -> bool {
        if self.is_without_commit(table) {
            // nobody sees what it has
            return false;
        }
        let mut running = self.tables.iter().filter(|(_, applied)| applied.is_running);
        running.any(|(other, _)| self.joins(other).iter().any(|(_, joined)| joined == table))
    }

    /// Whether `from` joins `to`, or joins a table that does, and so on.
    fn leads_to(&self, from: &TableId, to: &TableId) -> bool {
        leads_to(from, to, |table| self.joins(table).into_iter().map(|(_, other)| other).collect())
    }

    /// Whether it is a table of this loop that has no commit yet.
    fn is_without_commit(&self, table: &TableId) -> bool {
        self.tables.get(table).is_some_and(|applied| applied.checkpoint().is_none())
    }

    /// The table of `table`'s ring that gets its first commit before it gets one, at the cut; one that is not committed yet is begun.
    fn first_of_ring(&mut self, table: &TableId, cut: &CutReached) -> Result<Option<TableId>> {
        let has_begun = !self.is_without_commit(table);
        let is_earlier = |other: &TableId| *other != *table && self.is_without_commit(other) && (has_begun || other < table);
        let earlier: Vec<TableId> = self.tables.keys().filter(|other| is_earlier(other)).cloned().collect();
        for other in earlier {
            if self.leads_to(&other, table) && self.leads_to(table, &other) && self.comes_first(&other, cut)? {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// The tables that `table` joins, once they are committed at `cut`; `None`: they are not yet, but will be.
    pub(super) fn joined_at(&mut self, table: &TableId, cut: &CutReached) -> Result<Option<Vec<JoinedTable>>> {
        if let Some(other) = self.first_of_ring(table, cut)? {
            let wait = self.wait_for(&other);
            self.wait(table, &other, wait);
            return Ok(None);
        }
        let mut latest = Vec::new();
        for (lookup, other) in self.all_joins(table) {
            if !self.tables.contains_key(&other) {
                if self.is_elsewhere(&other) {
                    self.wait(table, &other, Wait::Worker);
                    return Ok(None);
                }
                latest.push(JoinedTable { lookup, table: other, at: Version::Latest });
                continue;
            }
            // read again after a restart, or taken over: until the cut of the other's commit it is further than this table may see
            let stream_id = &self.log.identity().stream_id;
            let of_other = self.tables.get(&other).and_then(|other| other.checkpoint());
            if of_other.is_some_and(|of_other| of_other.stream_id == *stream_id && of_other.at() > cut.point) {
                self.held.insert(table.clone());
                return Ok(None);
            }
            // of tables that join each other, one comes first
            if !self.leads_to(&other, table) && self.comes_first(&other, cut)? {
                let wait = self.wait_for(&other);
                self.wait(table, &other, wait);
                return Ok(None);
            }
        }
        self.apart.remove(table);
        let of_waiting = self.tables.get(table).and_then(|applied| applied.pending.treatment().transform.as_ref());
        let of_waiting = of_waiting.into_iter().flat_map(waiting_tables).filter(|(_, other)| other != table);
        latest.extend(of_waiting.map(|(lookup, other)| JoinedTable { lookup, table: other, at: Version::Latest }));
        let at = |(lookup, other): (Arc<Lookup>, TableId)| {
            let at = match self.tables.get(&other)?.checkpoint() {
                Some(checkpoint) => Version::Of(checkpoint.to_json().ok()?),
                None if self.leads_to(&other, table) => Version::Empty,
                // it is waited for
                None => return None,
            };
            Some(JoinedTable { lookup, table: other, at })
        };
        latest.extend(self.joins(table).into_iter().filter_map(at));
        Ok(Some(latest))
    }

    /// Whether dead letters of a fed table are to be committed first: a table says that it has read a record when it is a row, or a dead letter.
    pub(super) fn waits_for_letters(&mut self, table: &TableId, cut: &CutReached) -> Result<bool> {
        let letters = dead_letter_table(table);
        let comes_first = self.comes_first(&letters, cut)?;
        if comes_first {
            self.wait(table, &letters, Wait::Commit);
        }
        Ok(comes_first)
    }

    /// Commits what `other` has up to the cut, if it has something. Gives whether that is to be waited for.
    fn comes_first(&mut self, other: &TableId, cut: &CutReached) -> Result<bool> {
        let Some(applied) = self.tables.get(other) else { return Ok(false) };
        if !applied.is_running {
            if !applied.has_news(cut) || !applied.pending.has_changes(cut.point) {
                return Ok(false);
            }
            self.start_commit(other, cut)?;
        }
        let is_running = self.tables.get(other).is_some_and(|applied| applied.is_running);
        Ok(is_running || self.held.contains(other) || self.is_seen(other))
    }

    fn wait_for(&self, other: &TableId) -> Wait {
        if self.apart.contains_key(other) { Wait::Worker } else { Wait::Commit }
    }

    fn wait(&mut self, table: &TableId, other: &TableId, wait: Wait) {
        self.held.insert(table.clone());
        match wait {
            Wait::Commit => self.awaits = true,
            Wait::Worker => {
                let (since, is_said) = self.apart.entry(table.clone()).or_insert((Instant::now(), false));
                if since.elapsed() >= JOINED_PATIENCE && !*is_said {
                    *is_said = true;
                    let error = Error::new(
                        Area::Lake,
                        Kind::Transient,
                        "the table waits for the one that it joins, which another worker has",
                    )
                    .remedy("it goes on when that worker hands it over or ends; see `binlake tables` and that worker's log");
                    tracing::warn!(%table, joined = %other, %error, "a table is not committed");
                }
            }
        }
    }
}
