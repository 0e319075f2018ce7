//! A table opened for writing, and its commits.
//!
//! **The steps of a commit**, each durable before the next: the instant's inflight and requested files; the base files; the markers of new partitions;
//! the entry in the fence log, *with which the commit takes effect*; the completed instant, with which readers see it.
//!
//! **Other writers.** Binlake's own are kept out by the fence. Spark's are not (they know Hudi's lock providers only), so the timeline is listed twice:
//! before the base files are rewritten, to build upon what others committed, and after, to notice who came in between. That leaves
//! the moment between the second listing and the completed instant; who writes with both at once stops binlake for that time.

use super::avro_schema::{avro_file_schema, avro_schema};
use super::commit_metadata::{CommitMetadata, SCHEMA_KEY};
use super::evolution::{WRITE_ANEW, ensure_columns, ensure_evolves, ensure_key, replaced_columns};
use super::fence::{CommitHeader, Fence};
use super::file_group::KeyIndex;
use super::group::Pair;
use super::properties::{PROPERTIES_FILE, TableProperties};
use super::recovery;
use super::rewrite::{Regroup, RewriteInput, RewriteOutput, rewrite};
use super::services;
use super::store::{Creation, TableStore};
use super::timeline::{Action, Timeline};
use super::view::{RECORD_KEY_KEY, TableView, completed_path, timeline_of};
use super::writer::WriterIdentity;
use super::{CommitRequest, CommitSummary, CompletedInstant, FileSlice, InstantTime, SortedChanges, TableOptions, TableSpec};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The key of `extraMetadata` that keeps the Parquet field ids of the columns.
pub(super) const FIELD_IDS_KEY: &str = "binlake.field_ids";

/// A table, opened for writing: this session holds its fence until another session opens it.
///
/// After `commit` returned an error the table is not to be used any more: what the failed commit left is settled
/// when the table is opened again, and [`Table::extra_metadata`] then tells whether it took effect.
#[derive(Debug)]
pub struct Table {
    pub(super) view: TableView,
    pub(super) spec: TableSpec,
    record_key: Vec<String>,
    pub(super) options: TableOptions,
    pub(super) fence: Fence,
    pub(super) writer: WriterIdentity,
    pub(super) index: KeyIndex,
    /// Whether nothing of a file that is rewritten is copied.
    writes_whole_files: bool,
    /// Whether no commit has failed, or is under way.
    usable: bool,
}

/// From what the files of a commit are made.
pub(super) struct Files {
    pub(super) columns: SchemaRef,
    pub(super) record_key: Vec<String>,
    /// Those that the files of before have; `None`: there are none.
    pub(super) previous_columns: Option<SchemaRef>,
    /// What the commit before said of the columns' ids.
    pub(super) field_ids: Option<String>,
    pub(super) fill: Option<RecordBatch>,
    pub(super) truncate: bool,
    pub(super) changes: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
    pub(super) ordering: Option<String>,
    /// In the place of changes.
    pub(super) regroup: Option<Regroup>,
}

/// A commit whose files are written.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) time: InstantTime,
    pub(super) action: Action,
    pub(super) commit: CommitMetadata,
    columns: SchemaRef,
    record_key: Vec<String>,
    rows: RewriteOutput,
}

impl Prepared {
    /// What the fence log says of it.
    pub(super) fn header(&self) -> CommitHeader {
        CommitHeader { instant: self.time.clone(), replaces: self.action == Action::ReplaceCommit }
    }
}

impl Table {
    /// Whether there is a table at `base`.
    pub async fn exists(store: &Arc<dyn ObjectStore>, base: &Path) -> Result<bool> {
        TableView::exists(store, base).await
    }

    /// Makes an empty table at `base` and opens it. There must be none.
    pub async fn create(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        ensure_columns(&spec.columns, &spec.record_key, &spec.partition_columns)?;
        avro_schema(&spec.name, &spec.columns)?;
        let place = TableStore::new(store.clone(), base.clone());
        let properties = TableProperties::of(spec).render(Timestamp::now());
        match place.create(PROPERTIES_FILE, properties).await? {
            Creation::Created => Self::open(store, base, spec, options).await,
            Creation::Taken(_) => Err(Error::new(Area::Lake, Kind::Conflict, "there is a table already").with("path", base)),
        }
    }

    /// Opens the table at `base` for writing: takes the fence from whoever had it, finishes or rolls back what a crash left,
    /// and refuses a table whose key or partitioning is not `spec`'s. Its columns are those of the last commit, whatever `spec` says.
    ///
    /// Where another process of this machine has the table open and still runs, an error of kind `Conflict`.
    pub async fn open(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        Self::open_as(store, base, spec, options, true).await
    }

    /// As [`Table::open`], but takes the table also from a process of this machine that still runs: for who was given the table, by a lease.
    pub async fn take(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        Self::open_as(store, base, spec, options, false).await
    }

    async fn open_as(
        store: Arc<dyn ObjectStore>,
        base: Path,
        spec: &TableSpec,
        options: TableOptions,
        is_polite: bool,
    ) -> Result<Self> {
        let table = format!("{}.{}", spec.database, spec.name);
        let writer = WriterIdentity::new(&options.writer_name);
        let (view, fence) = recovery::take_over(TableStore::new(store, base), spec, writer.clone(), is_polite)
            .await
            .map_err(|error| error.with("table", &table))?;
        let record_key = view.record_key();
        Ok(Self {
            view,
            spec: spec.clone(),
            record_key,
            options,
            fence,
            writer,
            index: KeyIndex::default(),
            writes_whole_files: false,
            usable: true,
        })
    }

    /// As [`Table::open`], for a commit that replaces all rows (`truncate`): the table's key may be another one than `spec`'s until then.
    pub async fn open_to_replace(store: Arc<dyn ObjectStore>, base: Path, spec: &TableSpec, options: TableOptions) -> Result<Self> {
        let record_key = Self::settled_view(store.clone(), base.clone()).await?.record_key();
        Self::open(store, base, &TableSpec { record_key, ..spec.clone() }, options).await
    }

    /// Reads the table at `base`, after it has finished a commit that had taken effect when a crash interrupted it. Takes no fence.
    pub async fn settled_view(store: Arc<dyn ObjectStore>, base: Path) -> Result<TableView> {
        recovery::settled_view(TableStore::new(store, base)).await
    }

    /// Commits once: see [`CommitRequest`].
    pub async fn commit(&mut self, request: CommitRequest) -> Result<CommitSummary> {
        self.begin_use()?;
        let summary = self.commit_once(request).await.map_err(|error| self.at(error))?;
        self.after_commit().await;
        Ok(summary)
    }

    async fn commit_once(&mut self, request: CommitRequest) -> Result<CommitSummary> {
        let prepared = self.prepare(request, None).await?;
        let json = prepared.commit.render()?;
        self.ensure_alone(&prepared.time, prepared.action).await?;
        self.fence.append(&self.view.store, prepared.header(), &json).await?;
        self.show(prepared, json).await
    }

    /// Takes the table out of use, until [`Self::after_commit`] says that all went well.
    pub(super) fn begin_use(&mut self) -> Result<()> {
        if std::mem::take(&mut self.usable) { Ok(()) } else { Err(Error::bug("a table was used after its commit had failed")) }
    }

    /// Looks after the table when a commit is done.
    pub(super) async fn after_commit(&mut self) {
        services::after_commit(&mut self.view, &mut self.fence, &self.options).await;
        self.usable = true;
    }

    /// From now on every file that a change touches is made anew as a whole: nothing of its former rows stays in pages, dictionaries or statistics.
    pub fn writes_whole_files(&mut self) {
        self.writes_whole_files = true;
    }

    /// Whether savepoints keep files that cleaning would delete.
    pub fn has_savepoints(&self) -> bool {
        self.view.has_savepoints()
    }

    /// Says in an error which table it is about.
    pub(super) fn at(&self, error: Error) -> Error {
        error.with("table", format!("{}.{}", self.spec.database, self.spec.name))
    }

    /// An error that [`is_taken`](super::is_taken) knows if another session has the table. Also after a commit has failed: who takes the table
    /// deletes the files of a commit that was under way, and that commit then fails for the strangest reasons.
    pub async fn ensure_ours(&self) -> Result<()> {
        self.fence.ensure_ours(&self.view.store).await
    }

    /// Deletes the base files that only commits beyond the newest `retained_commits` need, at once; returns their number.
    pub async fn clean(&mut self, retained_commits: usize) -> Result<usize> {
        services::clean::run_now(&mut self.view, retained_commits).await
    }

    /// Writes a commit's files. It has not taken effect then.
    pub(super) async fn prepare(&mut self, request: CommitRequest, pair: Option<Pair>) -> Result<Prepared> {
        self.refresh().await?;
        let previous_columns = self.view.instants().last().map(|_| self.view.latest_columns());
        let record_key = request.record_key.unwrap_or_else(|| self.record_key.clone());
        ensure_columns(&request.columns, &record_key, &self.spec.partition_columns)?;
        // where no row of before stays, nothing of before binds
        if !request.truncate {
            ensure_key(&self.record_key, &record_key)?;
            ensure_evolves(previous_columns.as_deref(), &request.columns).map_err(|error| error.remedy(WRITE_ANEW))?;
        }
        let files = Files {
            columns: request.columns,
            record_key,
            previous_columns,
            field_ids: self.view.extra_metadata(FIELD_IDS_KEY).map(str::to_owned),
            fill: request.fill,
            truncate: request.truncate,
            changes: request.changes,
            ordering: request.ordering,
            regroup: None,
        };
        let operation = if request.truncate { "INSERT_OVERWRITE_TABLE" } else { "UPSERT" };
        let prepared = self.write(files, operation, request.extra_metadata, pair).await?;
        prepared.ok_or_else(|| Error::bug("a commit of changes says nothing"))
    }

    /// Writes the files of a commit; `None`: of a regrouping there is nothing to do.
    pub(super) async fn write(
        &mut self,
        files: Files,
        operation: &str,
        extra_metadata: BTreeMap<String, String>,
        pair: Option<Pair>,
    ) -> Result<Option<Prepared>> {
        let Files { columns, record_key, previous_columns, field_ids, fill, truncate, changes, ordering, regroup } = files;
        let schema = avro_schema(&self.spec.name, &columns)?;
        let is_clustering = matches!(regroup, Some(Regroup::SmallFiles));
        let ends_groups = truncate || regroup.is_some();
        let time = self.begin_next(pair.as_ref().map(|pair| &pair.instant)).await?;
        let rows = rewrite(RewriteInput {
            store: self.view.store.object_store().clone(),
            base: self.view.store.base().clone(),
            table: format!("{}.{}", self.spec.database, self.spec.name),
            sort_prefix: self.spec.sort_prefix.clone(),
            copies_nothing: self.writes_whole_files,
            record_key: record_key.clone(),
            partition_columns: self.spec.partition_columns.clone(),
            options: self.options.clone(),
            instant: time.clone(),
            previous_instant: self.view.instants().last().map(|last| last.instant.clone()),
            attempt: self.write_token(),
            replaced_columns: replaced_columns(previous_columns.as_deref(), &columns),
            columns: columns.clone(),
            previous_columns,
            fill,
            truncate,
            changes,
            ordering,
            shared: pair.map(|pair| pair.shared),
            live: self.view.slices(None)?,
            avro_schema: avro_file_schema(&self.spec.name, &columns)?,
            field_ids,
            index: self.index.clone(),
            regroup,
        })
        .await?;
        if is_clustering && rows.stats.is_empty() && rows.replaced.is_empty() {
            self.cancel(&time, Action::Commit).await?;
            return Ok(None);
        }

        self.mark_partitions(&time, &rows.stats).await?;
        self.view.store.sync(rows.stats.iter().filter_map(|stat| stat.path.clone()).collect()).await?;
        let action = if rows.replaced.is_empty() && !ends_groups { Action::Commit } else { Action::ReplaceCommit };
        if action == Action::ReplaceCommit {
            // file groups ended, which only a replacecommit can say
            if !self.begin(&time, action).await? {
                return Err(Fence::lost_to(&self.view.store).await);
            }
            self.cancel(&time, Action::Commit).await?;
        }
        let mut extra = extra_metadata;
        extra.extend([(SCHEMA_KEY.to_owned(), schema), (FIELD_IDS_KEY.to_owned(), rows.field_ids.clone())]);
        if record_key != self.record_key || self.view.extra_metadata(RECORD_KEY_KEY).is_some() {
            extra.insert(RECORD_KEY_KEY.to_owned(), record_key.join(","));
        }
        let replaced = (action == Action::ReplaceCommit).then(|| rows.replaced.clone());
        let commit = CommitMetadata::of(&rows.stats, replaced, operation, extra);
        Ok(Some(Prepared { time, action, commit, columns, record_key, rows }))
    }

    /// Puts a commit that took effect on the timeline.
    pub(super) async fn show(&mut self, prepared: Prepared, json: Vec<u8>) -> Result<CommitSummary> {
        let Prepared { time, action, commit, columns, record_key, rows } = prepared;
        if let Creation::Taken(_) = self.view.store.create(&completed_path(&time, action), json).await? {
            return Err(
                Error::new(Area::Lake, Kind::Corrupt, "another writer has a commit of the same instant").with("instant", time)
            );
        }
        self.view.apply_commit(&time, action, &commit, columns);
        self.index.retain(&self.view.slices(None)?);
        self.view.write_key().await?;
        self.spec.record_key.clone_from(&record_key);
        self.record_key = record_key;
        Ok(CommitSummary {
            instant: time,
            inserted: rows.inserted,
            updated: rows.updated,
            deleted: rows.deleted,
            files_written: rows.stats.len() as u64,
            bytes_written: rows.stats.iter().map(|stat| stat.file_size_in_bytes).sum(),
        })
    }

    /// Builds upon what other writers did since the last commit, and undoes what a fenced session of ours left.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        let folder = self.view.store.list_folder(".hoodie").await?;
        let properties = folder.entries.iter().find(|entry| entry.path == PROPERTIES_FILE);
        let properties_changed = properties.is_none_or(|entry| entry.version != self.view.properties_version);
        let timeline_changed = timeline_of(&folder.entries) != self.view.timeline;
        if timeline_changed {
            // a session that was fenced must not take the other's work for left-overs
            self.fence.ensure_ours(&self.view.store).await?;
            tracing::debug!(table = self.spec.name, "another writer changed the table: reading it anew");
            let mut fresh = TableView::read(self.view.store.clone()).await?;
            fresh.keep_extra_of(&self.view);
            if fresh.has_another_checkpoint_than(&self.view) {
                let moved = Error::new(Area::Lake, Kind::Conflict, "another has moved the table's checkpoint");
                return Err(moved.remedy("one writer at a time goes on from a table's checkpoint: stop the other, or this one"));
            }
            self.view = fresh;
            self.view.properties.ensure_writable(&self.spec)?;
        } else if properties_changed {
            let text = self.view.store.get(PROPERTIES_FILE).await?;
            self.view.properties = TableProperties::parse(&String::from_utf8_lossy(&text));
            self.view.properties_version = properties.map(|entry| entry.version.clone()).unwrap_or_default();
            self.view.adopt_key();
            self.view.properties.ensure_writable(&self.spec)?;
        }
        if self.view.properties.has_metadata_table() || folder.folders.iter().any(|name| name == "metadata") {
            recovery::drop_metadata_table(&mut self.view).await?;
        }
        if timeline_changed {
            recovery::undo_unfinished(&mut self.view).await?;
        }
        Ok(())
    }

    /// Makes sure that no one else changed the table since `refresh`.
    pub(super) async fn ensure_alone(&self, time: &InstantTime, action: Action) -> Result<()> {
        let folder = self.view.store.list_folder(".hoodie").await?;
        let now = timeline_of(&folder.entries);
        let ours_is_gone = now.states(time, action).is_none();
        let commits = |timeline: &Timeline| timeline.commits().map(|(time, _)| time.clone()).collect::<BTreeSet<InstantTime>>();
        let (known, present) = (commits(&self.view.timeline), commits(&now));
        let newest_is_gone = known.last().is_some_and(|newest| !present.contains(newest));
        let others = !present.is_subset(&known) || now.pending().any(|(other, pending, _)| pending.is_commit() && other != time);
        let metadata_table = folder.folders.iter().any(|name| name == "metadata");
        if !(ours_is_gone || newest_is_gone || others || metadata_table) {
            return Ok(());
        }
        // a session of binlake that took over is better named
        if let Some(entry) = Fence::last_entry(&self.view.store).await?.filter(|entry| entry.header.writer.id != self.writer.id) {
            return Err(super::fence::taken_by(&entry.header.writer));
        }
        let what = match ours_is_gone {
            true => "another Hudi writer rolled our unfinished commit back",
            false => "another Hudi writer changed the table while a commit was under way",
        };
        Err(Error::new(Area::Lake, Kind::Conflict, what).with("instant", time).remedy(
            "stop binlake while Spark writes to the table; start it again, and it goes on from the table's last checkpoint",
        ))
    }

    /// The columns without Hudi's own, as of the last commit; before the first, those that the table was opened with.
    pub fn columns(&self) -> SchemaRef {
        match self.view.instants() {
            [] => self.spec.columns.clone(),
            _ => self.view.latest_columns(),
        }
    }

    /// Names of the record key's columns.
    pub fn record_key(&self) -> &[String] {
        &self.record_key
    }

    /// The newest commit's value of a key of `extraMetadata`, among the commits that have it: other writers' commits don't.
    pub fn extra_metadata(&self, key: &str) -> Option<&str> {
        self.view.extra_metadata(key)
    }

    /// The newest value of each key of `extraMetadata` that is ours.
    pub fn all_extra_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.view.all_extra_metadata()
    }

    /// The completed commits on the active timeline, oldest first.
    pub fn instants(&self) -> &[CompletedInstant] {
        self.view.instants()
    }

    /// The base files that hold the table's rows, now or as of an instant (inclusive).
    pub fn slices(&self, as_of: Option<&InstantTime>) -> Result<Vec<FileSlice>> {
        self.view.slices(as_of)
    }
}
