//! `binlake erase`: what a table has of some keys goes, from every file that anybody could still read.
//!
//! The rows are deleted from the table and from its history, in one commit on both. The files that held them are written anew as a whole: no page, dictionary
//! or statistic of theirs is copied. Two empty commits later everything of before is no longer retained, and is deleted at once. Dead letters that are about the
//! keys go with them, also where there is nothing else: see `erase_letters`.

use super::erase_keys::{key_columns, split_keys};
use super::erase_letters::WantedLetters;
use super::table_services::TableServices;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::format::dead_letter_table;
use crate::merge::{
    CHECKPOINT_KEY, Checkpoint, ENDS_KEY, FIRST_WINDOW_KEY, HISTORY_SUFFIX, ROW_LETTERS_SUFFIX, erasable, history_of, is_history,
};
use crate::state::{CommitCount, RunLabel, RunStatus, StateStore};
use crate::table::{COMMITTED_WITH, CommitRequest, Follower, RowReader, SortedChanges, Table};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key of a commit's `extraMetadata` that says what was erased: how many keys and rows, never which.
pub const ERASED_KEY: &str = "binlake.erased";

/// Steps that `on_step` is told of.
pub const STEPS: u64 = 6;

/// What was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Rows of the table.
    pub rows: u64,
    /// Versions of its history.
    pub versions: u64,
    /// Rows of its children: elements of lists.
    #[serde(default)]
    pub elements: u64,
    /// Dead letters.
    pub letters: u64,
    /// Files of before that were deleted.
    pub files: u64,
    /// What the table's last commit, the same as before, says of the source: its position, and when it had committed that.
    pub position: String,
    /// See `position`.
    pub source_commit_time: Timestamp,
    /// The table's last instant.
    pub instant: String,
}

impl Erased {
    /// Notes what the last commit of `table` says, and gives it.
    pub(super) fn note_place(&mut self, table: &Table) -> Result<Option<Checkpoint>> {
        let checkpoint = table.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
        if let Some(checkpoint) = &checkpoint {
            (self.position, self.source_commit_time) = (checkpoint.position_text(), checkpoint.source_commit_time);
        }
        self.instant = table.instants().last().map(|last| last.instant.to_string()).unwrap_or_default();
        Ok(checkpoint)
    }
}

impl TableServices {
    /// Erases `keys` (each as text, its columns' values joined by commas) from `table`. Nothing else may write the table. Of one that was never committed
    /// there may be dead letters; `declared` is its key by the rules, as far as they say.
    ///
    /// # Errors
    /// `Config` for a key that can't be one of the table's, `Conflict` if a service has the table.
    pub async fn erase(&self, table: &TableId, keys: &[String], declared: &[String], on_step: impl Fn()) -> Result<Erased> {
        if self.view(table).await?.is_none() {
            return self.erase_letters_alone(table, &split_keys(declared, keys)?, declared, on_step).await;
        }
        let mut erased = Erased::default();
        let mut open = self.open_to_erase(table).await?;
        let history = history_of(table);
        let mut followers = Vec::new();
        let has_history = self.view(&history).await?.is_some();
        if has_history {
            followers.push(self.open_to_erase(&history).await?);
        }
        for child in self.children_of(table).await? {
            followers.push(self.open_to_erase(&child).await?);
        }
        on_step();
        let names = open.record_key().to_vec();
        let (asked, columns) = key_columns(&names, &open.columns(), keys)?;
        let found = rows_in(&open, &names, columns.clone()).await?;
        erased.rows = count(&found);
        let mut of_followers = Vec::new();
        for (number, follower) in followers.iter().enumerate() {
            let is_history = has_history && number == 0;
            let found = rows_in(follower, &names, columns.clone()).await?;
            *if is_history { &mut erased.versions } else { &mut erased.elements } += count(&found);
            of_followers.push(found);
        }
        on_step();
        let note = format!("{} keys, {} rows, {} versions, {} elements", keys.len(), erased.rows, erased.versions, erased.elements);
        commit(&mut open, &mut followers, found, of_followers, &note).await?;
        on_step();
        // what was before the last but one is no longer retained
        for _ in 0..2 {
            commit(&mut open, &mut followers, Vec::new(), Vec::new(), &note).await?;
        }
        on_step();
        let checkpoint = erased.note_place(&open)?;
        erased.files += open.clean(1).await? as u64;
        for follower in &mut followers {
            erased.files += follower.clean(1).await? as u64;
        }
        on_step();
        let schema = checkpoint.as_ref().map(|checkpoint| &checkpoint.source_schema);
        let wanted = Arc::new(WantedLetters::new(schema, &names, asked, &columns)?);
        for letters in self.letters_of(table).await? {
            self.erase_letters(&letters, &wanted, &mut erased).await?;
        }
        on_step();
        Ok(erased)
    }

    /// Whether `keys` could be erased from `table`: what is seen before anything is done.
    ///
    /// # Errors
    /// `Config` for a table that isn't there, or a key that can't be one of its, `Refused` for a savepoint in the way, or a first commit that is under way.
    pub async fn ensure_erasable(&self, table: &TableId, keys: &[String], declared: &[String]) -> Result<()> {
        let mut others = self.letters_of(table).await?;
        match self.view(table).await? {
            None if others.is_empty() => {
                return Err(Error::config("the lake has no such table, and no dead letters of one")
                    .with("table", table)
                    .remedy("`binlake tables` lists those that there are"));
            }
            None => _ = split_keys(declared, keys)?,
            Some(view) if view.instants().is_empty() => {
                return Err(Error::new(Area::Lake, Kind::Refused, "the table's first commit is not whole yet")
                    .with("table", table)
                    .remedy("ask again when the service has made it; one that was killed meanwhile makes it when it is started"));
            }
            Some(view) if is_history(&view.latest_columns()) => {
                let of = table.name().strip_suffix(HISTORY_SUFFIX).unwrap_or(table.name());
                return Err(Error::config("a history's versions are erased with its table's rows")
                    .with("table", table)
                    .remedy(format!("name the table: {}", TableId::new(table.database(), of))));
            }
            Some(view) => {
                key_columns(&view.record_key(), &view.latest_columns(), keys)?;
                others.extend([table.clone(), history_of(table)]);
                others.extend(self.children_of(table).await?);
            }
        }
        for other in others {
            if self.view(&other).await?.is_some_and(|view| view.has_savepoints()) {
                return Err(savepoint(&other));
            }
        }
        Ok(())
    }

    /// All tables that something could be erased from: those that there are, and those of which there are dead letters alone.
    ///
    /// # Errors
    /// If the lake can't be read.
    pub async fn tables(&self) -> Result<Vec<(String, String)>> {
        let of_letters = |(database, name): (String, String)| {
            let of = name.strip_suffix(ROW_LETTERS_SUFFIX).unwrap_or(&name).to_owned();
            (database, of)
        };
        let mut tables = self.lake().tables().await?;
        tables.extend(self.lake().dead_letter_tables().await?.into_iter().map(of_letters));
        tables.sort();
        tables.dedup();
        Ok(tables)
    }

    /// A table, of whose former rows nothing is copied from now on.
    pub(super) async fn open_to_erase(&self, table: &TableId) -> Result<Table> {
        let mut opened = self.open(table).await?;
        if opened.has_savepoints() {
            return Err(savepoint(table));
        }
        opened.writes_whole_files();
        Ok(opened)
    }
}

fn count(found: &[RecordBatch]) -> u64 {
    found.iter().map(|rows| rows.num_rows() as u64).sum()
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::bug("reading a table has died").caused_by(error))?
}

fn savepoint(table: &TableId) -> Error {
    Error::new(Area::Lake, Kind::Refused, "a savepoint keeps files of before")
        .with("table", table)
        .remedy("delete the table's savepoints first (`binlake savepoint TABLE INSTANT --delete`; `binlake timeline` lists them)")
}

/// The table's rows whose keys begin with these, by partition.
fn rows_of(mut reader: RowReader, keys: &[ArrayRef]) -> Result<Vec<RecordBatch>> {
    reader.partitions().iter().map(|partition| Ok(reader.find(partition, keys)?.rows)).collect()
}

async fn rows_in(table: &Table, names: &[String], keys: Vec<ArrayRef>) -> Result<Vec<RecordBatch>> {
    let (reader, names) = (table.row_reader(&table.columns())?, names.to_vec());
    blocking(move || if is_history(reader.columns()) { erasable(reader, &names, &keys) } else { rows_of(reader, &keys) }).await
}

pub(super) async fn commit(
    table: &mut Table,
    followers: &mut [Table],
    rows: Vec<RecordBatch>,
    of_followers: Vec<Vec<RecordBatch>>,
    note: &str,
) -> Result<()> {
    let request_of = request(table, rows, note);
    if followers.is_empty() {
        return table.commit(request_of).await.map(|_| ());
    }
    let rows = of_followers.into_iter().chain(std::iter::repeat_with(Vec::new));
    let followers = followers.iter_mut().zip(rows).map(|(table, rows)| {
        let request = request(table, rows, note);
        Follower { table, request }
    });
    table.commit_group(request_of, followers.collect()).await.map(|_| ())
}

/// Whether a key of `extraMetadata` is about the one commit that has it, and not about the table.
pub(super) fn only_of_one_commit(key: &str) -> bool {
    [COMMITTED_WITH, FIRST_WINDOW_KEY, ENDS_KEY, ERASED_KEY].contains(&key)
}

/// Deletes `rows`; all that the table's last commit says about stream and source stays.
fn request(table: &Table, rows: Vec<RecordBatch>, note: &str) -> CommitRequest {
    let kept = table.all_extra_metadata().filter(|(key, _)| !only_of_one_commit(key));
    let kept = kept.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let changes = rows.into_iter().filter(|rows| rows.num_rows() > 0).map(|rows| {
        let is_delete = BooleanArray::from(vec![true; rows.num_rows()]);
        Ok(SortedChanges { rows, is_delete })
    });
    CommitRequest {
        columns: table.columns(),
        record_key: None,
        fill: None,
        truncate: false,
        changes: Box::new(changes.collect::<Vec<_>>().into_iter()),
        ordering: None,
        extra_metadata: kept.chain([(ERASED_KEY.to_owned(), note.to_owned())]).collect::<BTreeMap<_, _>>(),
    }
}

/// Writes down how much was erased, never which rows.
///
/// # Errors
/// If the state store can't be written.
pub async fn note_erased(state: &StateStore, label: &RunLabel, table: &TableId, erased: &Erased) -> Result<()> {
    let count = |deleted| CommitCount {
        inserted: 0,
        updated: 0,
        deleted,
        position: erased.position.clone(),
        source_commit_time: erased.source_commit_time,
        instant: erased.instant.clone(),
    };
    if erased.rows > 0 || erased.letters == 0 {
        state.count_commit(label, table, &count(erased.rows)).await?;
    }
    if erased.letters > 0 {
        state.count_commit(label, &dead_letter_table(table), &count(erased.letters)).await?;
    }
    if erased.versions > 0 {
        state.count_commit(label, &history_of(table), &count(erased.versions)).await?;
    }
    state.end_run(label, RunStatus::Complete, None).await
}
