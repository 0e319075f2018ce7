//! What a table holds, as its files say: properties, timeline, columns and file groups. Reading takes no fence and changes nothing.

use super::avro_file;
use super::avro_schema::{META_COLUMNS, arrow_columns};
use super::commit_metadata::{CommitMetadata, SCHEMA_KEY};
use super::file_groups::FileGroups;
use super::properties::{PROPERTIES_FILE, TableProperties};
use super::regroup::{RESTORED_KEY, undone};
use super::store::{Entry, TableStore};
use super::timeline::{Action, Instant, State, Timeline};
use super::{CompletedInstant, FileSlice, InstantTime};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The marker that makes a folder a partition.
pub(super) const PARTITION_MARKER: &str = ".hoodie_partition_metadata";

/// How often a table is read that changes under the reader's hands.
const READ_TRIES: usize = 4;

/// Keys of `extraMetadata` that are ours start so.
const OUR_KEYS: &str = "binlake.";
/// The one of them that one writer at a time moves.
const MOVED_BY_ONE: &str = "binlake.checkpoint";
/// The key of `extraMetadata` that names the record key's columns, once they have changed: what a commit says counts, and the
/// properties follow it.
pub(super) const RECORD_KEY_KEY: &str = "binlake.record_key";

/// A table as it was when it was read.
#[derive(Debug, Clone)]
pub struct TableView {
    pub(super) store: TableStore,
    pub(super) properties: TableProperties,
    /// The version of the properties' file.
    pub(super) properties_version: (i64, Option<String>),
    /// Whether the properties' file still names the key of before the last commit.
    names_former_key: bool,
    pub(super) timeline: Timeline,
    pub(super) groups: FileGroups,
    /// Partition paths that have their marker.
    pub(super) marked_partitions: BTreeSet<String>,
    /// Whether Spark has left checksum side files: they go with the files that they belong to.
    pub(super) has_checksum_files: bool,
    columns: SchemaRef,
    /// The newest value of each key.
    extra_metadata: BTreeMap<String, String>,
    instants: Vec<CompletedInstant>,
    /// The commits that went back to earlier ones, and to which.
    restores: BTreeMap<InstantTime, String>,
    /// The earliest instant as of which all files are still there; `None`: cleaning has not begun.
    earliest_retained: Option<InstantTime>,
    /// Whether commits have been moved to the archived timeline.
    is_archived: bool,
}

impl TableView {
    /// Whether there is a table at `base`.
    pub async fn exists(store: &Arc<dyn ObjectStore>, base: &Path) -> Result<bool> {
        let store = TableStore::new(store.clone(), base.clone());
        Ok(store.get_optional(PROPERTIES_FILE).await?.is_some())
    }

    /// Reads the table at `base`.
    pub async fn open(store: Arc<dyn ObjectStore>, base: Path) -> Result<Self> {
        Self::read(TableStore::new(store, base)).await
    }

    pub(super) async fn read(store: TableStore) -> Result<Self> {
        // the properties first: where they are missing there is no table, whatever else lies there
        let text = store.get_optional(PROPERTIES_FILE).await?.ok_or_else(|| {
            Error::new(Area::Lake, Kind::Corrupt, "there is no table here")
                .with("path", store.base())
                .remedy("check the lake's URL and the table's name")
        })?;
        let properties = TableProperties::parse(&String::from_utf8_lossy(&text));
        properties.ensure_readable().map_err(|error| error.with("path", store.base()))?;
        let mut tries_left = READ_TRIES;
        loop {
            // the timeline first: a commit that completes meanwhile is then not seen at all, rather than without its files
            let timeline = store.list_folder(".hoodie").await?.entries;
            let entries = store.list("").await?;
            match Self::from_listing(store.clone(), properties.clone(), timeline_of(&timeline), &entries).await {
                // the writer archived a commit after we had listed it
                Err(error) if error.kind() == Kind::Corrupt && tries_left > 1 => tries_left -= 1,
                other => return other,
            }
        }
    }

    /// From a listing of all the table's objects; reads what the commits say.
    async fn from_listing(store: TableStore, properties: TableProperties, timeline: Timeline, entries: &[Entry]) -> Result<Self> {
        let mut view = Self {
            timeline,
            groups: FileGroups::default(),
            marked_partitions: BTreeSet::new(),
            has_checksum_files: false,
            columns: Arc::new(Schema::empty()),
            extra_metadata: BTreeMap::new(),
            instants: Vec::new(),
            restores: BTreeMap::new(),
            earliest_retained: None,
            is_archived: entries.iter().any(|entry| entry.path.starts_with(".hoodie/archived/.commits_.archive.")),
            properties_version: (0, None),
            names_former_key: false,
            store,
            properties,
        };
        let depth = view.properties.partition_columns().len();
        for entry in entries {
            let (partition, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            view.has_checksum_files |= name.starts_with('.') && name.ends_with(".crc");
            if entry.path == PROPERTIES_FILE {
                view.properties_version = entry.version.clone();
            }
            let parts = if partition.is_empty() { 0 } else { partition.split('/').count() };
            if partition.starts_with(".hoodie") || parts != depth {
                continue;
            }
            if name == PARTITION_MARKER {
                view.marked_partitions.insert(partition.to_owned());
            } else if let Some(slice) = FileSlice::parse(partition, name, entry.bytes) {
                view.groups.insert(slice);
            }
        }
        view.read_commits().await?;
        view.read_last_clean().await?;
        view.adopt_key();
        Ok(view)
    }

    /// Brings the properties in memory to what the last commit says of the record key.
    pub(super) fn adopt_key(&mut self) {
        if let Some(key) = self.extra_metadata.get(RECORD_KEY_KEY) {
            self.names_former_key |= self.properties.set_record_key(key);
        }
    }

    /// Brings the properties' file to what the last commit says of the record key.
    pub(super) async fn write_key(&mut self) -> Result<()> {
        self.adopt_key();
        if self.names_former_key {
            self.store.overwrite(PROPERTIES_FILE, self.properties.render(Timestamp::now())).await?;
            self.properties_version = (0, None);
            self.names_former_key = false;
        }
        Ok(())
    }

    /// Reads what the file groups, the columns and our own keys need: each replacecommit, and commits from the newest back to one of ours.
    async fn read_commits(&mut self) -> Result<()> {
        let commits: Vec<(InstantTime, Action)> = self.timeline.commits().map(|(time, action)| (time.clone(), action)).collect();
        let replaces: Vec<&(InstantTime, Action)> = commits.iter().filter(|(_, action)| *action == Action::ReplaceCommit).collect();
        let paths: Vec<String> = replaces.iter().map(|(time, action)| completed_path(time, *action)).collect();
        let mut known = BTreeMap::new();
        for ((time, bytes), path) in replaces.iter().map(|(time, _)| time).zip(self.store.get_all(&paths).await?).zip(&paths) {
            let commit = CommitMetadata::parse(&bytes, path)?;
            self.groups.apply(time, &commit, false);
            self.note_restore(time, &commit);
            known.insert(time.clone(), commit);
        }
        let mut schema = None;
        for (time, action) in commits.iter().rev() {
            let commit = match known.remove(time) {
                Some(commit) => commit,
                None => {
                    let path = completed_path(time, *action);
                    CommitMetadata::parse(&self.store.get(&path).await?, &path)?
                }
            };
            if schema.is_none() {
                schema = commit.extra(SCHEMA_KEY).map(str::to_owned);
            }
            self.remember_extra(&commit, false);
            if schema.is_some() && self.extra_metadata.keys().any(|key| key.starts_with(OUR_KEYS)) {
                break;
            }
        }
        if let Some(schema) = schema {
            self.columns = arrow_columns(&schema).map_err(|error| error.with("path", self.store.base()))?;
        }
        self.list_instants();
        Ok(())
    }

    /// Takes in a commit's keys; those of a newer commit win.
    fn remember_extra(&mut self, commit: &CommitMetadata, is_newest: bool) {
        for (key, value) in &commit.extra_metadata {
            if let Some(value) = value.as_ref().filter(|_| key != SCHEMA_KEY)
                && (is_newest || !self.extra_metadata.contains_key(key))
            {
                self.extra_metadata.insert(key.clone(), value.clone());
            }
        }
    }

    /// Takes in keys of a commit that is older than all on the timeline.
    pub(super) fn remember_archived(&mut self, commit: &CommitMetadata) {
        self.remember_extra(commit, false);
    }

    /// Takes over keys that an earlier view of the table had, where no commit on the timeline has them: their commits were archived.
    pub(super) fn keep_extra_of(&mut self, earlier: &TableView) {
        let newest_known = earlier.timeline.commits().next_back().map(|(time, _)| time);
        if newest_known.is_some_and(|newest| self.timeline.counts_as_committed(newest)) {
            for (key, value) in &earlier.extra_metadata {
                self.extra_metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// Whether the checkpoint is another one than in an earlier view: somebody who knows our keys has committed since, or a commit was undone.
    pub(super) fn has_another_checkpoint_than(&self, earlier: &TableView) -> bool {
        let of = |view: &TableView| view.extra_metadata.get(MOVED_BY_ONE).cloned();
        of(earlier).is_some_and(|before| of(self).is_some_and(|now| now != before))
    }

    async fn read_last_clean(&mut self) -> Result<()> {
        let last = self.timeline.completed().rev().find(|(_, action)| *action == Action::Clean).map(|(time, _)| time.clone());
        if let Some(time) = last {
            let path = completed_path(&time, Action::Clean);
            let clean = avro_file::decode(&self.store.get(&path).await?, &path)?;
            self.earliest_retained =
                clean.get("earliestCommitToRetain").and_then(|text| text.as_str()).and_then(InstantTime::parse);
        }
        Ok(())
    }

    fn list_instants(&mut self) {
        let completed = |(time, action): (&InstantTime, Action)| CompletedInstant {
            instant: time.clone(),
            action: action.as_str(),
            is_undone: false,
        };
        self.instants = self.timeline.commits().map(completed).collect();
        let undone = undone(&self.instants, &self.restores);
        self.instants.iter_mut().for_each(|completed| completed.is_undone = undone.contains(&completed.instant));
    }

    fn note_restore(&mut self, time: &InstantTime, commit: &CommitMetadata) {
        if let Some(to) = commit.extra(RESTORED_KEY) {
            self.restores.insert(time.clone(), to.to_owned());
        }
    }

    /// Takes in our own commit, which is now on the timeline.
    pub(super) fn apply_commit(&mut self, instant: &InstantTime, action: Action, commit: &CommitMetadata, columns: SchemaRef) {
        for state in [State::Requested, State::Inflight, State::Completed] {
            self.timeline.insert(Instant::new(instant.clone(), action, state));
        }
        self.groups.apply(instant, commit, true);
        self.note_restore(instant, commit);
        self.remember_extra(commit, true);
        self.columns = columns;
        self.list_instants();
    }

    /// Takes in a clean that is now on the timeline.
    pub(super) fn apply_clean(&mut self, earliest_retained: &InstantTime, deleted: &[FileSlice]) {
        self.earliest_retained = Some(earliest_retained.clone());
        self.groups.remove(deleted);
    }

    /// Takes in that actions were moved to the archived timeline.
    pub(super) fn apply_archive(&mut self, archived: &[(InstantTime, Action)]) {
        for (time, action) in archived {
            self.timeline.remove(time, *action);
        }
        self.groups.forget_ended();
        self.is_archived |= !archived.is_empty();
        self.list_instants();
    }

    /// The database of the catalog, as the table says.
    pub fn database(&self) -> &str {
        self.properties.get("hoodie.database.name").unwrap_or("")
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        self.properties.name()
    }

    /// The columns without Hudi's own, as of the last commit; empty before the first.
    pub fn latest_columns(&self) -> SchemaRef {
        self.columns.clone()
    }

    /// The columns without Hudi's own, now or as of an instant (inclusive). Files written before may lack some.
    pub async fn columns(&self, as_of: Option<&InstantTime>) -> Result<SchemaRef> {
        let Some(as_of) = as_of else { return Ok(self.latest_columns()) };
        let mut until = self.timeline.commits().rev().filter(|(time, _)| *time <= as_of);
        let path = match until.next() {
            Some((time, action)) => completed_path(time, action),
            None => return Ok(self.latest_columns()),
        };
        let commit = CommitMetadata::parse(&self.store.get(&path).await?, &path)?;
        commit.extra(SCHEMA_KEY).map_or_else(|| Ok(self.latest_columns()), arrow_columns)
    }

    /// Columns with Hudi's own before them, as they are in the files.
    pub fn with_meta_columns(columns: &Schema) -> SchemaRef {
        let meta = META_COLUMNS.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, true)));
        Arc::new(Schema::new(meta.chain(columns.fields().iter().cloned()).collect::<Vec<_>>()))
    }

    /// Names of the record key's columns.
    pub fn record_key(&self) -> Vec<String> {
        self.properties.record_key()
    }

    /// Names of the columns by which rows are sorted before the record key.
    pub fn sort_prefix(&self) -> Vec<String> {
        self.properties.sort_prefix()
    }

    /// Names of the partition columns.
    pub fn partition_columns(&self) -> Vec<String> {
        self.properties.partition_columns()
    }

    /// The newest commit's value of a key of `extraMetadata`, among the commits that have it: other writers' commits don't.
    pub fn extra_metadata(&self, key: &str) -> Option<&str> {
        self.extra_metadata.get(key).map(String::as_str)
    }

    /// The newest value of each key of `extraMetadata` that is ours.
    pub(super) fn all_extra_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.extra_metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        all.filter(|(key, _)| key.starts_with(OUR_KEYS))
    }

    /// Whether savepoints keep files that cleaning would delete.
    pub fn has_savepoints(&self) -> bool {
        self.timeline.savepoints().next().is_some()
    }

    /// The commits whose files savepoints keep, oldest first.
    pub fn savepoints(&self) -> impl Iterator<Item = &InstantTime> {
        self.timeline.savepoints()
    }

    /// The completed commits on the active timeline, oldest first.
    pub fn instants(&self) -> &[CompletedInstant] {
        &self.instants
    }

    /// What the commits up to an instant (inclusive) say in their `extraMetadata`, the newest first; back to one that has keys of ours, which has all of them.
    pub async fn extra_metadata_as_of(&self, instant: &InstantTime) -> Result<BTreeMap<String, String>> {
        let mut extra = BTreeMap::new();
        for completed in self.instants.iter().rev().filter(|completed| completed.instant <= *instant) {
            for (key, value) in self.commit_extra_metadata(completed).await? {
                extra.entry(key).or_insert(value);
            }
            if extra.keys().any(|key| key.starts_with(OUR_KEYS)) {
                break;
            }
        }
        Ok(extra)
    }

    /// What a completed commit says in its `extraMetadata`, without the Avro schema.
    pub async fn commit_extra_metadata(&self, instant: &CompletedInstant) -> Result<BTreeMap<String, String>> {
        let action = if instant.action == Action::ReplaceCommit.as_str() { Action::ReplaceCommit } else { Action::Commit };
        let path = completed_path(&instant.instant, action);
        let commit = CommitMetadata::parse(&self.store.get(&path).await?, &path)?;
        let keys = commit.extra_metadata.into_iter().filter(|(key, _)| key != SCHEMA_KEY);
        Ok(keys.filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// The base files that hold the table's rows, now or as of an instant (inclusive).
    ///
    /// As of an instant whose files are no longer all there, an error of kind `Refused`: readers that don't check get too few rows.
    pub fn slices(&self, as_of: Option<&InstantTime>) -> Result<Vec<FileSlice>> {
        if let Some(as_of) = as_of {
            self.ensure_retained(as_of)?;
        }
        Ok(self.groups.live(&self.timeline, as_of))
    }

    /// The earliest instant as of which `slices` can answer; `None`: as of any.
    pub fn earliest_queryable(&self) -> Option<&InstantTime> {
        let first_active = self.timeline.commits().next().map(|(time, _)| time).filter(|_| self.is_archived);
        self.earliest_retained.as_ref().max(first_active)
    }

    /// What the last clean says about it.
    pub(super) fn earliest_retained(&self) -> Option<&InstantTime> {
        self.earliest_retained.as_ref()
    }

    fn ensure_retained(&self, as_of: &InstantTime) -> Result<()> {
        let state_as_of = self.timeline.commits().rev().find(|(time, _)| *time <= as_of).map(|(time, _)| time);
        let savepointed = state_as_of.is_some_and(|time| self.timeline.savepoints().any(|savepoint| savepoint == time));
        match self.earliest_queryable() {
            Some(earliest) if as_of < earliest && !savepointed => {
                Err(Error::new(Area::Lake, Kind::Refused, "the table's files of that time are cleaned away")
                    .with("table", format!("{}.{}", self.database(), self.name()))
                    .with("as_of", as_of)
                    .with("earliest", earliest)
                    .remedy("ask as of a later time; `retained_commits` says how far back the table can be read"))
            }
            _ => Ok(()),
        }
    }

    /// The name of the table's folder, by which commits on several tables name each other ([`COMMITTED_WITH`](super::COMMITTED_WITH)).
    pub fn folder(&self) -> String {
        self.store.base().parts().next_back().map(|part| part.as_ref().to_owned()).unwrap_or_default()
    }

    /// The store below, and the table's path in it.
    pub fn location(&self) -> (&Arc<dyn ObjectStore>, &Path) {
        (self.store.object_store(), self.store.base())
    }
}

/// The file of a completed action.
pub(super) fn completed_path(time: &InstantTime, action: Action) -> String {
    Instant::new(time.clone(), action, State::Completed).path()
}

/// The timeline in a listing.
pub(super) fn timeline_of(entries: &[Entry]) -> Timeline {
    let names = entries.iter().filter_map(|entry| entry.path.strip_prefix(".hoodie/")).filter(|name| !name.contains('/'));
    Timeline::from_names(names)
}
