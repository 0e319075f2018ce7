//! `binlake erase`: what a table has of some keys goes, from every file that anybody could still read.
//!
//! The rows are deleted from the table and from its history, in one commit on both. The files that held them are written anew as a whole: no page, dictionary
//! or statistic of theirs is copied. Two empty commits later everything of before is no longer retained, and is deleted at once. Dead letters go in which a
//! key's text occurs.

use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::merge::{CHECKPOINT_KEY, Checkpoint, HISTORY_START_KEY, POSITION_KEY, erasable, history_of};
use crate::table::{CommitRequest, Lake, RowReader, SortedChanges, Table, TableOptions, TableSpec, TableView};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, take};
use arrow::row::{RowConverter, SortField};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key of a commit's `extraMetadata` that says what was erased: how many keys and rows, never which.
pub const ERASED_KEY: &str = "binlake.erased";

/// Steps that `on_step` is told of.
pub const STEPS: u64 = 6;

/// What was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows of the table.
    pub rows: u64,
    /// Versions of its history.
    pub versions: u64,
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

/// Erases `keys` (each as text, its columns' values joined by commas) from `table`. No service may write the table.
///
/// # Errors
/// `Config` for a key that can't be one of the table's, `Conflict` if a service has the table.
pub async fn erase(lake: &Lake, options: &TableOptions, table: &TableId, keys: &[String], on_step: impl Fn()) -> Result<Erased> {
    let mut erased = Erased::default();
    let mut open = open(lake, options, table).await?;
    let history = history_of(table);
    let has_history = Table::exists(lake.store(), &lake.table_path(history.database(), history.name())).await?;
    let mut of_history = if has_history { Some(self::open(lake, options, &history).await?) } else { None };
    on_step();
    let columns = key_columns(&open, keys)?;
    let reader = open.row_reader(&open.columns())?;
    let wanted = columns.clone();
    let found = blocking(move || rows_of(reader, &wanted)).await?;
    erased.rows = count(&found);
    let mut versions = Vec::new();
    if let Some(history) = &of_history {
        let reader = history.row_reader(&history.columns())?;
        versions = blocking(move || erasable(reader, &columns)).await?;
        erased.versions = count(&versions);
    }
    on_step();
    let note = format!("{} keys, {} rows, {} versions", keys.len(), erased.rows, erased.versions);
    commit(&mut open, of_history.as_mut(), found, versions, &note).await?;
    on_step();
    // what was before the last but one is no longer retained
    for _ in 0..2 {
        commit(&mut open, of_history.as_mut(), Vec::new(), Vec::new(), &note).await?;
    }
    on_step();
    if let Some(checkpoint) = open.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()? {
        (erased.position, erased.source_commit_time) = (checkpoint.position_text(), checkpoint.source_commit_time);
    }
    erased.instant = open.instants().last().map(|last| last.instant.to_string()).unwrap_or_default();
    erased.files += open.clean(1).await? as u64;
    if let Some(history) = &mut of_history {
        erased.files += history.clean(1).await? as u64;
    }
    on_step();
    let letters = TableId::new(format!("{DEAD_LETTERS}{}", table.database()), table.name());
    if Table::exists(lake.store(), &lake.table_path(letters.database(), letters.name())).await? {
        erased.letters = erase_letters(lake, options, &letters, keys).await?;
    }
    on_step();
    Ok(erased)
}

fn count(found: &[RecordBatch]) -> u64 {
    found.iter().map(|rows| rows.num_rows() as u64).sum()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::bug("reading a table has died").caused_by(error))?
}

async fn open(lake: &Lake, options: &TableOptions, table: &TableId) -> Result<Table> {
    let base = lake.table_path(table.database(), table.name());
    let view = TableView::open(lake.store().clone(), base.clone()).await.map_err(|error| error.with("table", table))?;
    let spec = TableSpec {
        database: table.database().to_owned(),
        name: table.name().to_owned(),
        columns: view.latest_columns(),
        record_key: view.record_key(),
        sort_prefix: view.sort_prefix(),
        ordering_field: crate::merge::COMMIT_TS.to_owned(),
        partition_columns: view.partition_columns(),
    };
    let opened = Table::open(lake.store().clone(), base, &spec, options.clone()).await;
    let mut opened = opened?;
    if opened.has_savepoints() {
        return Err(Error::new(Area::Lake, Kind::Refused, "a savepoint keeps files of before")
            .with("table", table)
            .remedy("delete the table's savepoints first (`call delete_savepoint` in Spark)"));
    }
    opened.writes_whole_files();
    Ok(opened)
}

/// The keys as columns of the table's types, sorted, each once.
fn key_columns(table: &Table, keys: &[String]) -> Result<Vec<ArrayRef>> {
    let (names, columns) = (table.record_key(), table.columns());
    let wrong = |key: &str| {
        Error::config(format!("`{key}` is no key of the table"))
            .with("key", names.join(","))
            .remedy("write a value for each column of the key, joined by commas")
    };
    let mut texts: Vec<Vec<&str>> = vec![Vec::new(); names.len()];
    for key in keys {
        // the only column of a key may have commas in its values
        let values: Vec<&str> = if names.len() == 1 { vec![key] } else { key.split(',').map(str::trim).collect() };
        if values.len() != names.len() {
            return Err(wrong(key));
        }
        texts.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut typed: Vec<ArrayRef> = Vec::new();
    for (name, texts) in names.iter().zip(texts) {
        let field = columns.field_with_name(name).map_err(|error| Error::bug("a table lacks its key").caused_by(error))?;
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        typed.push(cast_with_options(&texts, field.data_type(), &strict).map_err(|error| wrong(&keys.join(" ")).caused_by(error))?);
    }
    let unexpected = |error| Error::bug("keys can't be sorted").caused_by(error);
    let fields = typed.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&typed)).map_err(unexpected)?;
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by(|a, b| rows.row(*a).cmp(&rows.row(*b)));
    order.dedup_by(|a, b| rows.row(*a) == rows.row(*b));
    let order = UInt64Array::from_iter_values(order.into_iter().map(|row| row as u64));
    typed.iter().map(|column| take(column, &order, None).map_err(unexpected)).collect()
}

/// The table's rows of these keys, by partition.
fn rows_of(mut reader: RowReader, keys: &[ArrayRef]) -> Result<Vec<RecordBatch>> {
    reader.partitions().iter().map(|partition| Ok(reader.find(partition, keys)?.rows)).collect()
}

async fn commit(
    table: &mut Table,
    history: Option<&mut Table>,
    rows: Vec<RecordBatch>,
    versions: Vec<RecordBatch>,
    note: &str,
) -> Result<()> {
    let of_table = request(table, rows, note);
    match history {
        Some(history) => {
            let of_history = request(history, versions, note);
            table.commit_with(of_table, history, of_history).await.map(|_| ())
        }
        None => table.commit(of_table).await.map(|_| ()),
    }
}

/// Deletes `rows`; all that the table's last commit says about stream and source stays.
fn request(table: &Table, rows: Vec<RecordBatch>, note: &str) -> CommitRequest {
    let kept = [CHECKPOINT_KEY, POSITION_KEY, HISTORY_START_KEY];
    let kept = kept.iter().filter_map(|key| Some(((*key).to_owned(), table.extra_metadata(key)?.to_owned())));
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

/// Deletes the dead letters in whose bytes a key's text occurs.
async fn erase_letters(lake: &Lake, options: &TableOptions, letters: &TableId, keys: &[String]) -> Result<u64> {
    let mut table = open(lake, options, letters).await?;
    let reader = table.row_reader(&table.columns())?;
    let texts: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
    let found = blocking(move || {
        let mut found = Vec::new();
        for partition in reader.partitions() {
            for rows in reader.clone().stream(&partition)? {
                let rows = rows?;
                let Some(raw) = rows.column_by_name("raw").and_then(|raw| raw.as_binary_opt::<i32>()) else { continue };
                let is_meant =
                    |bytes: Option<&[u8]>| {
                        Some(bytes.is_some_and(|bytes| {
                            texts.iter().any(|text| bytes.windows(text.len().max(1)).any(|part| part == text))
                        }))
                    };
                let meant: BooleanArray = raw.iter().map(is_meant).collect();
                found
                    .push(filter_record_batch(&rows, &meant).map_err(|error| Error::bug("rows can't be chosen").caused_by(error))?);
            }
        }
        Ok(found)
    })
    .await?;
    let letters = count(&found);
    if letters > 0 {
        let note = format!("{letters} dead letters");
        commit(&mut table, None, found, Vec::new(), &note).await?;
        for _ in 0..2 {
            commit(&mut table, None, Vec::new(), Vec::new(), &note).await?;
        }
        table.clean(1).await?;
    }
    Ok(letters)
}
