//! Cleaning: base files that no retained instant needs are deleted, as Hudi's policy `KEEP_LATEST_COMMITS` says.

use crate::error::Result;
use crate::table::avro_file::{self, CLEAN_METADATA, CLEANER_PLAN};
use crate::table::recovery::delete_files;
use crate::table::timeline::{Action, Instant, State};
use crate::table::view::{TableView, completed_path};
use crate::table::{FileSlice, InstantTime, path_in_table};
use crate::time::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Commits from one clean to the next.
const COMMITS_BETWEEN: usize = 4;

/// Files that one clean deletes at most; the rest waits for the next.
const MOST_FILES: usize = 2_000;

const POLICY: &str = "KEEP_LATEST_COMMITS";

/// What a clean will do.
#[derive(Debug)]
struct Plan {
    /// Queries as of this commit and later stay possible.
    earliest_retained: InstantTime,
    earliest_action: Action,
    last_commit: InstantTime,
    files: Vec<FileSlice>,
}

/// Finishes a clean that was interrupted, and cleans if enough commits have come since the last.
pub(super) async fn run_if_due(view: &mut TableView, retained_commits: usize) -> Result<()> {
    finish_pending(view).await?;
    let last = view.timeline.completed().rev().find(|(_, action)| *action == Action::Clean).map(|(time, _)| time);
    let since = view.timeline.commits().rev().take_while(|(time, _)| last.is_none_or(|last| *time > last)).count();
    if since < COMMITS_BETWEEN {
        return Ok(());
    }
    let kept_files = savepointed_files(view).await?;
    if let Some(plan) = plan(view, retained_commits, &kept_files) {
        run(view, plan).await?;
    }
    Ok(())
}

/// Finishes a clean that was interrupted, and deletes all that is not retained; returns the number of files.
pub(in crate::table) async fn run_now(view: &mut TableView, retained_commits: usize) -> Result<usize> {
    finish_pending(view).await?;
    let kept_files = savepointed_files(view).await?;
    let mut deleted = 0;
    while let Some(plan) = plan(view, retained_commits, &kept_files) {
        deleted += plan.files.len();
        run(view, plan).await?;
    }
    Ok(deleted)
}

async fn finish_pending(view: &mut TableView) -> Result<()> {
    let pending: Vec<InstantTime> =
        view.timeline.pending().filter(|(_, action, _)| *action == Action::Clean).map(|(time, _, _)| time.clone()).collect();
    for time in pending {
        finish(view, &time).await?;
    }
    Ok(())
}

fn plan(view: &TableView, retained_commits: usize, kept_files: &BTreeSet<String>) -> Option<Plan> {
    let (earliest, earliest_action) = view.timeline.commits().rev().nth(retained_commits.max(1) - 1)?;
    let (last, _) = view.timeline.commits().next_back()?;
    let mut files = view.groups.to_clean(&view.timeline, earliest, kept_files);
    files.truncate(MOST_FILES);
    let plan = Plan { earliest_retained: earliest.clone(), earliest_action, last_commit: last.clone(), files };
    (!plan.files.is_empty()).then_some(plan)
}

async fn run(view: &mut TableView, plan: Plan) -> Result<()> {
    let time = InstantTime::after(view.timeline.latest(), Timestamp::now());
    let started = Timestamp::now();
    let bytes = CLEANER_PLAN.encode(&plan_record(view, &plan), Uuid::new_v4().into_bytes())?;
    for state in [State::Requested, State::Inflight] {
        let instant = Instant::new(time.clone(), Action::Clean, state);
        view.store.put(&instant.path(), bytes.clone()).await?;
        view.timeline.insert(instant);
    }
    complete(view, &time, &plan, started).await
}

async fn complete(view: &mut TableView, time: &InstantTime, plan: &Plan, started: Timestamp) -> Result<()> {
    delete_files(view, &plan.files).await?;
    let record = metadata_record(time, plan, Timestamp::now().since(started).as_millis());
    let completed = Instant::new(time.clone(), Action::Clean, State::Completed);
    view.store.put(&completed.path(), CLEAN_METADATA.encode(&record, Uuid::new_v4().into_bytes())?).await?;
    view.timeline.insert(completed);
    view.apply_clean(&plan.earliest_retained, &plan.files);
    tracing::debug!(table = view.name(), files = plan.files.len(), earliest_retained = %plan.earliest_retained, "cleaned");
    Ok(())
}

/// Runs an interrupted clean to its end, ours or another writer's; files that rows are read from now, or that a savepoint keeps, stay.
async fn finish(view: &mut TableView, time: &InstantTime) -> Result<()> {
    let path = Instant::new(time.clone(), Action::Clean, State::Requested).path();
    let Some(bytes) = view.store.get_optional(&path).await?.filter(|bytes| !bytes.is_empty()) else {
        // nothing was planned, so nothing was done
        for state in [State::Requested, State::Inflight] {
            view.store.delete(&Instant::new(time.clone(), Action::Clean, state).path()).await?;
        }
        view.timeline.remove(time, Action::Clean);
        return Ok(());
    };
    let record = avro_file::decode(&bytes, &path)?;
    let mut kept_files = savepointed_files(view).await?;
    kept_files.extend(view.groups.live(&view.timeline, None).iter().map(FileSlice::path));
    let partitions = record.get("filePathsToBeDeletedPerPartition").and_then(Value::as_object);
    let files = partitions.into_iter().flatten().flat_map(|(partition, files)| {
        let names = files.as_array().into_iter().flatten().filter_map(|file| file.get("filePath")?.as_str()?.rsplit('/').next());
        names.filter_map(|name| FileSlice::parse(partition, name, 0))
    });
    let files = files.filter(|file| !kept_files.contains(&file.path())).collect();
    let last_commit = view.timeline.commits().next_back().map_or_else(|| time.clone(), |(last, _)| last.clone());
    let earliest = record.get("earliestInstantToRetain").and_then(|instant| instant.get("timestamp")).and_then(Value::as_str);
    let earliest_retained = earliest.and_then(InstantTime::parse).unwrap_or_else(|| last_commit.clone());
    let plan = Plan { earliest_retained, earliest_action: Action::Commit, last_commit, files };
    complete(view, time, &plan, Timestamp::now()).await
}

/// The files that savepoints keep.
pub(in crate::table) async fn savepointed_files(view: &TableView) -> Result<BTreeSet<String>> {
    let paths: Vec<String> = view.timeline.savepoints().map(|time| completed_path(time, Action::Savepoint)).collect();
    let mut files = BTreeSet::new();
    for (bytes, path) in view.store.get_all(&paths).await?.iter().zip(&paths) {
        let savepoint = avro_file::decode(bytes, path)?;
        for (partition, kept) in savepoint.get("partitionMetadata").and_then(Value::as_object).into_iter().flatten() {
            let names = kept.get("savepointDataFile").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            files.extend(names.map(|name| path_in_table(partition, name)));
        }
    }
    Ok(files)
}

fn by_partition(files: &[FileSlice]) -> BTreeMap<&str, Vec<&FileSlice>> {
    let mut partitions: BTreeMap<&str, Vec<&FileSlice>> = BTreeMap::new();
    for file in files {
        partitions.entry(&file.partition_path).or_default().push(file);
    }
    partitions
}

fn plan_record(view: &TableView, plan: &Plan) -> Value {
    let partitions: serde_json::Map<String, Value> = by_partition(&plan.files)
        .into_iter()
        .map(|(partition, files)| {
            let files = files.iter().map(|file| json!({"filePath": view.store.uri(&file.path()), "isBootstrapBaseFile": false}));
            (partition.to_owned(), files.collect())
        })
        .collect();
    json!({
        "earliestInstantToRetain": {"timestamp": plan.earliest_retained, "action": plan.earliest_action.as_str(), "state": "COMPLETED"},
        "lastCompletedCommitTimestamp": plan.last_commit,
        "policy": POLICY,
        "filesToBeDeletedPerPartition": {},
        "version": 2,
        "filePathsToBeDeletedPerPartition": partitions,
        "partitionsToBeDeleted": [],
        "extraMetadata": {}
    })
}

fn metadata_record(time: &InstantTime, plan: &Plan, millis: u128) -> Value {
    let partitions: serde_json::Map<String, Value> = by_partition(&plan.files)
        .into_iter()
        .map(|(partition, files)| {
            let names: Vec<&str> = files.iter().map(|file| file.file_name.as_str()).collect();
            let entry = json!({"partitionPath": partition, "policy": POLICY, "deletePathPatterns": names, "successDeleteFiles": names,
                "failedDeleteFiles": [], "isPartitionDeleted": false});
            (partition.to_owned(), entry)
        })
        .collect();
    json!({
        "startCleanTime": time,
        "timeTakenInMillis": u64::try_from(millis).unwrap_or(0),
        "totalFilesDeleted": plan.files.len(),
        "earliestCommitToRetain": plan.earliest_retained,
        "lastCompletedCommitTimestamp": plan.last_commit,
        "partitionMetadata": partitions,
        "version": 2,
        "bootstrapPartitionMetadata": {},
        "extraMetadata": {}
    })
}
