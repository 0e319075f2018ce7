//! Archiving: the oldest actions leave the active timeline, so that `.hoodie/` holds a bounded number of files however many commits there were.
//!
//! **What makes it safe.** Base files older than the first active commit count as committed. So (a) what a crash or a fenced session left must be gone
//! before the start moves past it: where the timeline has a rollback, the table is listed and orphans are deleted first; (b) the files of
//! replaced groups are gone before the replacecommit that hides them is; (c) completed instants are deleted strictly from the oldest on, so that at
//! every moment the active timeline is what a later start leaves of it.
//!
//! Archived actions go to `.hoodie/archived/` as Hudi's own log files. No reader needs them; the newest [`KEPT_LOGS`] are kept.

use super::archive_log;
use crate::error::Result;
use crate::table::avro_file;
use crate::table::commit_metadata::{CommitMetadata, SCHEMA_KEY};
use crate::table::recovery::{delete_files, delete_orphans};
use crate::table::store::{Entry, checksum_file};
use crate::table::timeline::{Action, Instant, State};
use crate::table::view::{TableView, completed_path};
use crate::table::{FileSlice, InstantTime};
use serde_json::{Value, json};

/// Commits that stay on the active timeline beyond the retained ones.
const KEPT_BEYOND_RETAINED: usize = 10;

/// Commits that may come on top before the next archiving.
const COMMITS_BETWEEN: usize = 20;

/// The size in bytes from which on a new log file is begun.
const LOG_BYTES: u64 = 4 << 20;

/// Log files that are kept: with those of 4 MiB, about the last 100,000 commits of a table with few files a commit.
const KEPT_LOGS: usize = 64;

/// Values of `extraMetadata` that are longer are not archived.
const LONGEST_EXTRA_VALUE: usize = 1024;

const ARCHIVE_FOLDER: &str = ".hoodie/archived";

/// Archives if the active timeline has grown long.
pub(super) async fn run_if_due(view: &mut TableView, retained_commits: usize) -> Result<()> {
    let kept = retained_commits.max(1) + KEPT_BEYOND_RETAINED;
    if view.timeline.commits().count() < kept + COMMITS_BETWEEN {
        return Ok(());
    }
    if view.timeline.completed().any(|(_, action)| action == Action::Rollback) {
        // a session that was fenced may have written files after it was rolled back
        let fresh = TableView::read(view.store.clone()).await?;
        view.groups = fresh.groups;
        delete_orphans(view).await?;
    }
    let instants = plan(view, kept);
    if instants.is_empty() {
        return Ok(());
    }
    if let Some((last, _)) = instants.iter().rev().find(|(_, action)| *action == Action::ReplaceCommit) {
        let ended: Vec<FileSlice> = view.groups.ended_by(last);
        delete_files(view, &ended).await?;
        view.groups.remove(&ended);
    }
    append(view, &instants).await?;
    delete_instants(view, &instants).await?;
    view.apply_archive(&instants);
    tracing::debug!(table = view.name(), actions = instants.len(), "archived the oldest actions of the timeline");
    Ok(())
}

/// The actions to archive, oldest first: all before the newest `kept` commits, but nothing from the first savepoint or unfinished action on,
/// no commit as of which the table can still be queried, and not the last clean, which says what can.
fn plan(view: &TableView, kept: usize) -> Vec<(InstantTime, Action)> {
    let timeline = &view.timeline;
    let oldest_kept = timeline.commits().rev().nth(kept - 1).map(|(time, _)| time);
    let first_savepoint = timeline.savepoints().next();
    let first_pending = timeline.pending().map(|(time, _, _)| time).next();
    let earliest_retained = view.earliest_retained();
    let Some(until) = [oldest_kept, first_savepoint, first_pending, earliest_retained].into_iter().flatten().min() else {
        return Vec::new();
    };
    let last_clean = timeline.completed().rev().find(|(_, action)| *action == Action::Clean).map(|(time, _)| time);
    let archivable = |time: &InstantTime, action: Action| match action {
        Action::Commit | Action::ReplaceCommit | Action::Rollback => true,
        Action::Clean => Some(time) != last_clean,
        Action::Savepoint | Action::Restore | Action::Other => false,
    };
    let old = timeline.completed().take_while(|(time, _)| *time < until);
    old.filter(|(time, action)| archivable(time, *action)).map(|(time, action)| (time.clone(), action)).collect()
}

/// Writes the actions to the archived timeline.
async fn append(view: &TableView, instants: &[(InstantTime, Action)]) -> Result<()> {
    let paths: Vec<String> = instants.iter().map(|(time, action)| completed_path(time, *action)).collect();
    let mut records = Vec::with_capacity(instants.len());
    for ((time, action), (bytes, path)) in instants.iter().zip(view.store.get_all(&paths).await?.iter().zip(&paths)) {
        records.push(record(time, *action, bytes, path)?);
    }
    let block = archive_log::block(&records)?;

    let mut logs: Vec<(u64, Entry)> = view
        .store
        .list_folder(ARCHIVE_FOLDER)
        .await?
        .entries
        .into_iter()
        .filter_map(|entry| Some((log_number(&entry.path)?, entry)))
        .collect();
    logs.sort_by_key(|(number, _)| *number);
    let path = match logs.last() {
        Some((_, log)) if log.bytes < LOG_BYTES => {
            let mut whole = view.store.get(&log.path).await?.to_vec();
            whole.extend_from_slice(&block);
            view.store.overwrite(&log.path, whole).await?;
            log.path.clone()
        }
        last => {
            let path = format!("{ARCHIVE_FOLDER}/.commits_.archive.{}_1-0-1", last.map_or(0, |(number, _)| *number) + 1);
            view.store.put(&path, block).await?;
            path
        }
    };
    let old = logs.len().saturating_sub(KEPT_LOGS);
    let old: Vec<String> = logs.into_iter().take(old).map(|(_, log)| log.path).filter(|old| *old != path).collect();
    view.store.delete_all(&old).await
}

fn log_number(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_prefix(".commits_.archive.")?.split('_').next()?.parse().ok()
}

/// Deletes the actions' files: first those of the earlier states, then the completed ones from the oldest on.
/// The other way round, an action that lost its completed file first would look unfinished.
async fn delete_instants(view: &TableView, instants: &[(InstantTime, Action)]) -> Result<()> {
    let file = |(time, action): &(InstantTime, Action), state| Instant::new(time.clone(), *action, state).path();
    let earlier: Vec<String> =
        [State::Requested, State::Inflight].iter().flat_map(|state| instants.iter().map(|instant| file(instant, *state))).collect();
    view.store.delete_all(&earlier).await?;
    if view.has_checksum_files {
        let completed = instants.iter().map(|instant| file(instant, State::Completed));
        let sides: Vec<String> = earlier.into_iter().chain(completed).map(|path| checksum_file(&path)).collect();
        view.store.delete_all(&sides).await?;
    }
    for instant in instants {
        view.store.delete(&file(instant, State::Completed)).await?;
    }
    Ok(())
}

/// What is archived of one action: `HoodieArchivedMetaEntry`.
fn record(time: &InstantTime, action: Action, bytes: &[u8], path: &str) -> Result<Value> {
    let mut entry =
        json!({"commitTime": time, "actionType": action.as_str(), "actionState": "COMPLETED", "stateTransitionTime": time});
    let (key, metadata) = match action {
        Action::Clean => ("hoodieCleanMetadata", avro_file::decode(bytes, path)?),
        Action::Rollback => ("hoodieRollbackMetadata", avro_file::decode(bytes, path)?),
        Action::ReplaceCommit => ("hoodieReplaceCommitMetadata", commit_record(&CommitMetadata::parse(bytes, path)?)),
        _ => ("hoodieCommitMetadata", commit_record(&CommitMetadata::parse(bytes, path)?)),
    };
    entry[key] = metadata;
    Ok(entry)
}

fn commit_record(commit: &CommitMetadata) -> Value {
    let partitions: serde_json::Map<String, Value> = commit
        .partition_to_write_stats
        .iter()
        .map(|(partition, stats)| {
            let stats = stats.iter().map(|stat| {
                json!({
                    "fileId": stat.file_id, "path": stat.path,
                    "prevCommit": stat.prev_commit.as_ref().map_or("null", InstantTime::as_str),
                    "numWrites": stat.num_writes, "numDeletes": stat.num_deletes, "numUpdateWrites": stat.num_update_writes,
                    "numInserts": stat.num_inserts, "totalWriteBytes": stat.total_write_bytes, "totalWriteErrors": 0,
                    "partitionPath": partition, "totalLogRecords": 0, "totalUpdatedRecordsCompacted": 0, "totalLogBlocks": 0,
                    "totalCorruptLogBlock": 0, "totalRollbackBlocks": 0, "fileSizeInBytes": stat.file_size_in_bytes
                })
            });
            (partition.clone(), stats.collect())
        })
        .collect();
    // Hudi archives neither the schema nor its rolling statistics, but wants the latter's key
    let mut extra = serde_json::Map::from_iter([("ROLLING_STAT".to_owned(), json!(""))]);
    for (key, value) in &commit.extra_metadata {
        if let Some(value) = value.as_ref().filter(|value| key != SCHEMA_KEY && value.len() <= LONGEST_EXTRA_VALUE) {
            extra.insert(key.clone(), json!(value));
        }
    }
    let replaced = commit.partition_to_replace_file_ids.as_ref();
    json!({
        "partitionToWriteStats": partitions,
        "extraMetadata": extra,
        "operationType": commit.operation_type,
        "partitionToReplaceFileIds": replaced.map_or(Value::Null, |replaced| json!(replaced))
    })
}
