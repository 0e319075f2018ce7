//! Rolling back: the files of an unfinished commit go, then its instant. As Hudi does it, with an action of its own on the timeline.
//!
//! Each step may be repeated: a rollback that a crash interrupted is run again from its start, under its own instant.

use crate::error::{Area, Error, Kind, Result};
use crate::table::avro_file::{self, ROLLBACK_METADATA, ROLLBACK_PLAN};
use crate::table::recovery::delete_files;
use crate::table::timeline::{Action, Instant, State};
use crate::table::view::TableView;
use crate::table::{FileSlice, InstantTime};
use crate::time::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Rolls an unfinished commit back.
pub(in crate::table) async fn undo(view: &mut TableView, target: &InstantTime, action: Action) -> Result<()> {
    let time = InstantTime::after(view.timeline.latest(), Timestamp::now());
    let files = view.groups.written_by(target);
    let plan = plan(view, target, action, &files);
    let requested = Instant::new(time.clone(), Action::Rollback, State::Requested);
    view.store.put(&requested.path(), ROLLBACK_PLAN.encode(&plan, Uuid::new_v4().into_bytes())?).await?;
    view.timeline.insert(requested);
    execute(view, &time, target, action).await
}

/// Runs a rollback that a crash interrupted to its end.
pub(in crate::table) async fn finish(view: &mut TableView, time: &InstantTime) -> Result<()> {
    let path = Instant::new(time.clone(), Action::Rollback, State::Requested).path();
    let plan = avro_file::decode(&view.store.get(&path).await?, &path)?;
    let text = |key: &str| plan.get("instantToRollback").and_then(|target| target.get(key)).and_then(Value::as_str);
    let target = text("commitTime").and_then(InstantTime::parse);
    let action = match text("action") {
        Some("commit") => Action::Commit,
        Some("replacecommit") => Action::ReplaceCommit,
        _ => Action::Other,
    };
    match target {
        Some(target) if action.is_commit() && !view.timeline.is_completed(&target, action) => {
            execute(view, time, &target, action).await
        }
        // Hudi rolls completed commits back too, by the operator's wish: that is for Hudi to finish
        _ => Err(Error::new(Area::Lake, Kind::Refused, "another writer has an unfinished rollback on the table")
            .remedy("finish it with Hudi, then start binlake")),
    }
}

async fn execute(view: &mut TableView, time: &InstantTime, target: &InstantTime, action: Action) -> Result<()> {
    let started = Timestamp::now();
    let inflight = Instant::new(time.clone(), Action::Rollback, State::Inflight);
    view.store.put(&inflight.path(), Vec::new()).await?;
    view.timeline.insert(inflight);
    let files = view.groups.written_by(target);
    delete_files(view, &files).await?;
    for state in [State::Requested, State::Inflight] {
        view.store.delete(&Instant::new(target.clone(), action, state).path()).await?;
    }
    let done = metadata(time, target, action, &files, Timestamp::now().since(started).as_millis());
    let completed = Instant::new(time.clone(), Action::Rollback, State::Completed);
    view.store.put(&completed.path(), ROLLBACK_METADATA.encode(&done, Uuid::new_v4().into_bytes())?).await?;
    view.timeline.remove(target, action);
    view.timeline.insert(completed);
    view.groups.remove(&files);
    tracing::info!(table = view.name(), instant = %target, files = files.len(), "rolled back an unfinished commit");
    Ok(())
}

fn by_partition(files: &[FileSlice]) -> BTreeMap<&str, Vec<&FileSlice>> {
    let mut partitions: BTreeMap<&str, Vec<&FileSlice>> = BTreeMap::new();
    for file in files {
        partitions.entry(&file.partition_path).or_default().push(file);
    }
    partitions
}

fn plan(view: &TableView, target: &InstantTime, action: Action, files: &[FileSlice]) -> Value {
    let requests = by_partition(files).into_iter().map(|(partition, files)| {
        let paths: Vec<String> = files.iter().map(|file| view.store.uri(&file.path())).collect();
        json!({"partitionPath": partition, "fileId": "", "latestBaseInstant": "", "filesToBeDeleted": paths, "logBlocksToBeDeleted": {}})
    });
    json!({
        "instantToRollback": {"commitTime": target, "action": action.as_str()},
        "RollbackRequests": requests.collect::<Vec<Value>>(),
        "version": 1
    })
}

fn metadata(time: &InstantTime, target: &InstantTime, action: Action, files: &[FileSlice], millis: u128) -> Value {
    let partitions: serde_json::Map<String, Value> = by_partition(files)
        .into_iter()
        .map(|(partition, files)| {
            let names: Vec<String> = files.iter().map(|file| file.path()).collect();
            let entry = json!({"partitionPath": partition, "successDeleteFiles": names, "failedDeleteFiles": [],
                "rollbackLogFiles": {}, "logFilesFromFailedCommit": {}});
            (partition.to_owned(), entry)
        })
        .collect();
    json!({
        "startRollbackTime": time,
        "timeTakenInMillis": u64::try_from(millis).unwrap_or(0),
        "totalFilesDeleted": files.len(),
        "commitsRollback": [target],
        "partitionMetadata": partitions,
        "version": 1,
        "instantsRollback": [{"commitTime": target, "action": action.as_str()}]
    })
}
