//! Savepoints: the files of a commit are kept, whatever is cleaned, until the savepoint is deleted.
//!
//! A savepoint has the instant of the commit that it keeps, and names that commit's files. Deleted, its completed file goes first: what is left is an unfinished one,
//! which keeps nothing.

use crate::error::{Area, Error, Kind, Result};
use crate::table::avro_file::SAVEPOINT_METADATA;
use crate::table::store::checksum_file;
use crate::table::timeline::{Action, Instant, State};
use crate::table::{FileSlice, InstantTime, Table};
use crate::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

impl Table {
    /// Keeps the files of a completed commit; says whether it did, or they were kept already.
    pub async fn keep(&mut self, instant: &InstantTime) -> Result<bool> {
        let view = &mut self.view;
        if view.timeline.savepoints().any(|kept| kept == instant) {
            return Ok(false);
        }
        if !view.timeline.has_commit(instant) {
            return Err(Error::new(Area::Lake, Kind::Refused, "the table has no commit of that instant").with("instant", instant));
        }
        let files = view.slices(Some(instant))?;
        let inflight = Instant::new(instant.clone(), Action::Savepoint, State::Inflight);
        view.store.put(&inflight.path(), Vec::new()).await?;
        let completed = Instant::new(instant.clone(), Action::Savepoint, State::Completed);
        let record = SAVEPOINT_METADATA.encode(&record(&files), Uuid::new_v4().into_bytes())?;
        view.store.put(&completed.path(), record).await?;
        view.timeline.insert(inflight);
        view.timeline.insert(completed);
        Ok(true)
    }

    /// Deletes the savepoint of a commit; says whether there was one.
    pub async fn keep_no_longer(&mut self, instant: &InstantTime) -> Result<bool> {
        let view = &mut self.view;
        let was_kept = view.timeline.savepoints().any(|kept| kept == instant);
        for state in [State::Completed, State::Inflight] {
            let path = Instant::new(instant.clone(), Action::Savepoint, state).path();
            view.store.delete(&path).await?;
            if view.has_checksum_files {
                view.store.delete(&checksum_file(&path)).await?;
            }
        }
        view.timeline.remove(instant, Action::Savepoint);
        Ok(was_kept)
    }
}

fn record(files: &[FileSlice]) -> Value {
    let mut partitions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        partitions.entry(&file.partition_path).or_default().push(&file.file_name);
    }
    let partitions: Map<String, Value> = partitions
        .into_iter()
        .map(|(path, names)| (path.to_owned(), json!({"partitionPath": path, "savepointDataFile": names})))
        .collect();
    json!({
        "savepointedBy": "binlake",
        "savepointedAt": Timestamp::now().as_micros() / 1000,
        "comments": "",
        "partitionMetadata": partitions,
        "version": 1
    })
}
