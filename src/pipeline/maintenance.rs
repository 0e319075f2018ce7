//! What is done to a table beside its changes and erasures: going back to an earlier commit, savepoints, clustering. A table, its history, its children and its dead
//! letters go together.
//!
//! **Going back.** The table gets the rows of a commit again, and with them what that commit says of stream and source: what the stream brought since comes again,
//! so that the table ends equal to the source, and what was wrong with it is made anew. Or it is left out: then the table goes on behind the last commit,
//! and differs from the source until it is copied anew.

use super::erase::{ERASED_KEY, only_of_one_commit};
use super::row_letters::row_letters_of;
use super::table_services::TableServices;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::merge::{
    CHECKPOINT_KEY, CHILD_KEY, Checkpoint, HISTORY_SUFFIX, PARTITIONED_KEY, POSITION_KEY, TRANSFORMED_KEY, history_of, is_history,
};
use crate::state::{CommitCount, RunLabel, RunStatus, StateStore};
use crate::stream::{Consumer, EventLog, LogPosition};
use crate::table::{COMMITTED_WITH, CompletedInstant, GoingBack, InstantTime, RESTORED_KEY, Table, TableView};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The key of a commit's `extraMetadata` that says for which request the table went back.
const REQUEST_KEY: &str = "binlake_restored_for";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Maintenance {
    /// The table goes back to a commit, all of whose rows it has again.
    GoBack {
        /// The commit.
        to: InstantTime,
        /// Whether what the stream brought since is left out.
        skips_changes: bool,
        /// A name of this request: done twice, it would leave out what came in between.
        request: String,
    },
    /// Small files become large ones.
    Cluster,
    /// The files of a commit are kept from cleaning.
    Keep {
        /// The commit.
        instant: InstantTime,
    },
    /// They are no longer.
    KeepNoLonger {
        /// The commit.
        instant: InstantTime,
    },
}

impl Maintenance {
    /// What it is called, in the audit too.
    pub fn name(&self) -> &'static str {
        match self {
            Self::GoBack { .. } => "restore",
            Self::Cluster => "cluster",
            Self::Keep { .. } | Self::KeepNoLonger { .. } => "savepoint",
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintained {
    /// To the table, then to those that go with it.
    pub tables: Vec<MaintainedTable>,
    /// What the table's last commit says of the source: its position, and when it had committed that.
    pub position: String,
    /// See `position`.
    pub source_commit_time: Timestamp,
}

/// What was done to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainedTable {
    /// The table.
    pub table: TableId,
    /// The commit that was made, or whose files are kept; `None`: there was nothing to do.
    pub instant: Option<InstantTime>,
    /// Commits that are undone.
    pub undone: usize,
    /// Files that held its rows before.
    pub files_before: usize,
    /// Files that hold them now.
    pub files: usize,
}

/// Why what came since wouldn't come again.
fn does_not_come_again(table: &TableId, to: &InstantTime, what: &'static str) -> Error {
    Error::new(Area::Stream, Kind::Refused, what).with("table", table).with("instant", to).remedy(
        "`--skip-changes` goes back without what came since; `binlake backfill --table` then copies the table as the source has it",
    )
}

/// A commit that isn't there.
pub fn no_such_commit(table: &TableId, instant: &InstantTime) -> Error {
    Error::config("the table has no commit of that instant")
        .with("table", table)
        .with("instant", instant)
        .remedy("`binlake timeline` lists those that there are")
}

impl TableServices {
    /// Whether it could be done: what is seen before anything is done.
    ///
    /// # Errors
    /// `Config` for a table or a commit that isn't there.
    pub async fn ensure_maintainable(&self, table: &TableId, maintenance: &Maintenance) -> Result<()> {
        let view = self.known(table).await?;
        let (instant, is_read) = match maintenance {
            Maintenance::Cluster => return Ok(()),
            Maintenance::GoBack { to, .. } => (to, true),
            Maintenance::Keep { instant } => (instant, true),
            Maintenance::KeepNoLonger { instant } => (instant, false),
        };
        if !view.instants().iter().any(|completed| completed.instant == *instant) {
            return Err(no_such_commit(table, instant));
        }
        match view.slices(Some(instant)) {
            Err(_) if is_read => Err(Error::new(Area::Lake, Kind::Refused, "the commit's files are cleaned away")
                .with("table", table)
                .with("instant", instant)
                .remedy("name a later commit; a savepoint, or a larger lake.retained_commits, keeps more of them")),
            _ => Ok(()),
        }
    }

    /// A table that can be named here.
    ///
    /// # Errors
    /// `Config` if there is none, or if it goes with another.
    pub async fn known(&self, table: &TableId) -> Result<TableView> {
        let Some(view) = self.view(table).await? else {
            return Err(Error::config("the lake has no such table")
                .with("table", table)
                .remedy("`binlake tables` lists those that there are"));
        };
        let goes_with = match (is_history(&view.latest_columns()), view.extra_metadata(CHILD_KEY)) {
            (true, _) => table.name().strip_suffix(HISTORY_SUFFIX).unwrap_or(table.name()).to_owned(),
            (false, Some(_)) => "the table in whose rows its lists are".to_owned(),
            (false, None) => return Ok(view),
        };
        Err(Error::config("this table goes with another one").with("table", table).remedy(format!("name that one: {goes_with}")))
    }

    /// Does it; `log`: from where the table's changes come, where that is known. Nothing else may write the table.
    ///
    /// # Errors
    /// `Config` for what isn't there, `Refused` for what can't be done, `Conflict` if a service has the table.
    pub async fn maintain(&self, table: &TableId, maintenance: &Maintenance, log: Option<&dyn EventLog>) -> Result<Maintained> {
        self.ensure_maintainable(table, maintenance).await?;
        let tables = match maintenance {
            Maintenance::GoBack { to, skips_changes, request } => self.go_back(table, (to, request), *skips_changes, log).await?,
            Maintenance::Cluster => self.cluster(table).await?,
            Maintenance::Keep { instant } => self.keep(table, instant, true).await?,
            Maintenance::KeepNoLonger { instant } => self.keep(table, instant, false).await?,
        };
        let checkpoint = checkpoint_of(&self.known(table).await?)?;
        let (position, source_commit_time) = match checkpoint {
            Some(checkpoint) => (checkpoint.position_text(), checkpoint.source_commit_time),
            None => Default::default(),
        };
        Ok(Maintained { tables, position, source_commit_time })
    }

    /// The tables that are committed with `table`: its history, its children, its dead letters. They are opened behind it, which settles what a crash left of their
    /// last commits: only then their timelines say all.
    async fn followers_of(&self, table: &TableId) -> Result<Vec<OpenFollower>> {
        let mut names = vec![history_of(table)];
        names.extend(self.children_of(table).await?);
        names.push(row_letters_of(table));
        let mut followers = Vec::new();
        for name in names {
            if self.view(&name).await?.is_some() {
                let open = self.open(&name).await?;
                followers.extend(self.view(&name).await?.map(|view| OpenFollower { name, open, view }));
            }
        }
        Ok(followers)
    }

    /// What was done for a request already, by a process that is gone.
    async fn gone_back(
        &self,
        table: &TableId,
        view: &TableView,
        (to, request): (&InstantTime, &str),
    ) -> Result<Option<Vec<MaintainedTable>>> {
        for completed in view.instants().iter().rev().filter(|completed| completed.instant > *to) {
            if view.commit_extra_metadata(completed).await?.get(REQUEST_KEY).is_some_and(|known| known == request) {
                let mut done = vec![gone_back_to(table, view, to.as_str(), &completed.instant)?];
                let own = format!("{}@{}", view.folder(), completed.instant);
                for OpenFollower { name, view, .. } in self.followers_of(table).await? {
                    for instant in view.instants().iter().rev() {
                        let extra = view.commit_extra_metadata(instant).await?;
                        if let (Some(with), Some(to)) = (extra.get(COMMITTED_WITH), extra.get(RESTORED_KEY))
                            && *with == own
                        {
                            done.push(gone_back_to(&name, &view, to, &instant.instant)?);
                            break;
                        }
                    }
                }
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    async fn go_back(
        &self,
        table: &TableId,
        (to, request): (&InstantTime, &str),
        skips_changes: bool,
        log: Option<&dyn EventLog>,
    ) -> Result<Vec<MaintainedTable>> {
        // who decides is opened first: that settles what a crash left of its last commit
        let mut open = vec![(table.clone(), self.open(table).await?)];
        let view = self.known(table).await?;
        if let Some(done) = self.gone_back(table, &view, (to, request)).await? {
            return Ok(done);
        }
        if view.instants().last().is_some_and(|last| last.instant == *to) {
            let files = view.slices(None)?.len();
            let nothing = MaintainedTable { table: table.clone(), instant: None, undone: 0, files_before: files, files };
            return Ok(vec![nothing]);
        }
        let then = view.extra_metadata_as_of(to).await?;
        view.ensure_same_key(to, &then).map_err(|error| error.with("table", table))?;
        let goes_on = match skips_changes {
            true => Some(goes_on(table, &view, to, &then).await?),
            false => {
                ensure_comes_again(table, to, &then, log).await?;
                None
            }
        };
        let mut places = vec![Some(to.clone())];
        let mut own = said_again(then, goes_on.as_ref());
        own.insert(REQUEST_KEY.to_owned(), request.to_owned());
        let mut said = vec![own];
        let newest = view.extra_metadata(CHECKPOINT_KEY);
        for OpenFollower { name, open: opened, view: of } in self.followers_of(table).await? {
            let Some(place) = place_of(&name, &of, &view.folder(), to).await? else { continue };
            let goes_on = goes_on.as_ref().filter(|_| of.extra_metadata(CHECKPOINT_KEY) == newest);
            said.push(match &place {
                Some(place) => said_again(of.extra_metadata_as_of(place).await?, goes_on),
                None => BTreeMap::new(),
            });
            places.push(place);
            open.push((name, opened));
        }
        let before: Vec<(usize, BTreeSet<InstantTime>)> =
            open.iter().map(|(_, table)| Ok((table.slices(None)?.len(), standing(table)))).collect::<Result<_>>()?;
        let going = open.iter_mut().zip(places.into_iter().zip(said));
        let going = going.map(|((_, table), (to, extra_metadata))| GoingBack { table, to, extra_metadata }).collect();
        let done = Table::go_back(going).await?;
        let each = open.iter().zip(before).zip(done);
        each.map(|(((name, table), (files_before, stood)), done)| {
            Ok(MaintainedTable {
                table: name.clone(),
                instant: Some(done.instant),
                undone: stood.difference(&standing(table)).count(),
                files_before,
                files: table.slices(None)?.len(),
            })
        })
        .collect()
    }

    async fn cluster(&self, table: &TableId) -> Result<Vec<MaintainedTable>> {
        let own = (table.clone(), self.open(table).await?);
        let followers = self.followers_of(table).await?.into_iter().map(|follower| (follower.name, follower.open));
        let mut done = Vec::new();
        for (name, mut open) in std::iter::once(own).chain(followers) {
            let files_before = open.slices(None)?.len();
            let said = open.all_extra_metadata().filter(|(key, _)| !only_of_one_commit(key));
            let said = said.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let instant = open.cluster(said).await?.map(|summary| summary.instant);
            let files = open.slices(None)?.len();
            done.push(MaintainedTable { table: name, instant, undone: 0, files_before, files });
        }
        Ok(done)
    }

    /// Keeps the files of a commit, and those of the others that they go with; or no longer. The table itself is the last: what a crash leaves undone shows there.
    async fn keep(&self, table: &TableId, instant: &InstantTime, is_kept: bool) -> Result<Vec<MaintainedTable>> {
        let mut open = self.open(table).await?;
        let view = self.known(table).await?;
        let mut places = Vec::new();
        for OpenFollower { name, open, view: of } in self.followers_of(table).await? {
            let place = match place_of(&name, &of, &view.folder(), instant).await? {
                Some(place) => place,
                None => of.instants().last().map(|last| last.instant.clone()),
            };
            if let Some(place) = place {
                if is_kept {
                    of.slices(Some(&place))?;
                }
                places.push((name, open, place));
            }
        }
        let mut done = Vec::new();
        for (name, mut open, place) in places {
            done.push(kept(name, &mut open, place, is_kept).await?);
        }
        done.insert(0, kept(table.clone(), &mut open, instant.clone(), is_kept).await?);
        Ok(done)
    }
}

/// A table that follows another one.
struct OpenFollower {
    name: TableId,
    open: Table,
    view: TableView,
}

/// What was done to a table that went back with the commit `instant`.
fn gone_back_to(table: &TableId, view: &TableView, to: &str, instant: &InstantTime) -> Result<MaintainedTable> {
    let between = |other: &&CompletedInstant| other.instant.as_str() > to && other.instant < *instant;
    let (undone, files) = (view.instants().iter().filter(between).count(), view.slices(None)?.len());
    Ok(MaintainedTable { table: table.clone(), instant: Some(instant.clone()), undone, files_before: files, files })
}

async fn kept(name: TableId, table: &mut Table, instant: InstantTime, is_kept: bool) -> Result<MaintainedTable> {
    let has_changed = if is_kept { table.keep(&instant).await? } else { table.keep_no_longer(&instant).await? };
    let files = if is_kept { table.slices(Some(&instant))?.len() } else { 0 };
    Ok(MaintainedTable { table: name, instant: has_changed.then_some(instant), undone: 0, files_before: files, files })
}

/// Its commits that aren't undone.
fn standing(table: &Table) -> BTreeSet<InstantTime> {
    table.instants().iter().filter(|completed| !completed.is_undone).map(|completed| completed.instant.clone()).collect()
}

fn checkpoint_of(view: &TableView) -> Result<Option<Checkpoint>> {
    view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()
}

/// What a commit said, in one that has its rows again.
fn said_again(mut then: BTreeMap<String, String>, goes_on: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    then.retain(|key, _| ![COMMITTED_WITH, ERASED_KEY, RESTORED_KEY, REQUEST_KEY].contains(&key.as_str()));
    if let Some(goes_on) = goes_on.filter(|_| then.contains_key(CHECKPOINT_KEY)) {
        then.retain(|key, _| !only_of_one_commit(key));
        then.extend(goes_on.clone());
    }
    then
}

/// What a table says that goes back and leaves out what came since: that it has it.
async fn goes_on(
    table: &TableId,
    view: &TableView,
    to: &InstantTime,
    then: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let is_other = |key: &str| view.extra_metadata(key).unwrap_or_default() != then.get(key).map_or("", String::as_str);
    if view.columns(Some(to)).await? != view.latest_columns() || is_other(PARTITIONED_KEY) || is_other(TRANSFORMED_KEY) {
        return Err(Error::new(Area::Lake, Kind::Refused, "the table had other columns then: what came since can't be left out")
            .with("table", table)
            .with("instant", to)
            .remedy("go back without `--skip-changes`, or to a later commit"));
    }
    let Some(mut now) = checkpoint_of(view)? else { return Ok(BTreeMap::new()) };
    // which items the rows were joined with
    let then = then.get(CHECKPOINT_KEY).map(|json| Checkpoint::from_json(json)).transpose()?;
    now.lookups = then.map(|then| then.lookups).unwrap_or_default();
    Ok(BTreeMap::from([(CHECKPOINT_KEY.to_owned(), now.to_json()?), (POSITION_KEY.to_owned(), now.position_text())]))
}

/// What came since is to come again: it must still be there.
async fn ensure_comes_again(
    table: &TableId,
    to: &InstantTime,
    then: &BTreeMap<String, String>,
    log: Option<&dyn EventLog>,
) -> Result<()> {
    let checkpoint = then.get(CHECKPOINT_KEY).map(|json| Checkpoint::from_json(json)).transpose()?;
    let (Some(checkpoint), Some(log)) = (checkpoint, log) else { return Ok(()) };
    if checkpoint.stream_id != log.identity().stream_id {
        return Err(does_not_come_again(table, to, "the commit was made from another stream: what came since wouldn't come again"));
    }
    let start = checkpoint.resume.as_ref().map(|resume| (resume.point(), LogPosition(resume.log_position.clone())));
    match Consumer::resume(log, start.as_ref().map(|(cut, position)| (*cut, position))).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Kind::Corrupt => {
            Err(does_not_come_again(table, to, "the stream no longer has what came since that commit").caused_by(error))
        }
        Err(error) => Err(error),
    }
}

/// To which commit a follower of the table in `leader` goes when that goes back to `to`: to the one before the first that was made with a later one of the
/// table's; `Some(None)`: there is none before it. `None`: none was, so that it stays.
async fn place_of(name: &TableId, view: &TableView, leader: &str, to: &InstantTime) -> Result<Option<Option<InstantTime>>> {
    let instants = view.instants();
    let mut first_later = None;
    for (at, completed) in instants.iter().enumerate().rev() {
        let extra = view.commit_extra_metadata(completed).await?;
        let with = extra.get(COMMITTED_WITH).and_then(|with| with.rsplit_once('@')).filter(|(table, _)| *table == leader);
        match with {
            Some((_, with)) if with > to.as_str() => first_later = Some(at),
            Some(_) => break,
            None => {}
        }
    }
    match first_later {
        None => Ok(None),
        Some(0) if view.earliest_queryable().is_some() => {
            Err(Error::new(Area::Lake, Kind::Refused, "the files of that time are cleaned away of a table that goes with it")
                .with("table", name)
                .with("instant", to)
                .remedy("go back to a later commit"))
        }
        Some(at) => Ok(Some(at.checked_sub(1).map(|before| instants[before].instant.clone()))),
    }
}

/// Writes down what was done.
///
/// # Errors
/// If the state store can't be written.
pub async fn note_maintained(state: &StateStore, label: &RunLabel, maintained: &Maintained) -> Result<()> {
    for one in &maintained.tables {
        let Some(instant) = &one.instant else { continue };
        let count = CommitCount {
            inserted: 0,
            updated: 0,
            deleted: 0,
            position: maintained.position.clone(),
            source_commit_time: maintained.source_commit_time,
            instant: instant.to_string(),
        };
        state.count_commit(label, &one.table, &count).await?;
    }
    state.end_run(label, RunStatus::Complete, None).await
}
