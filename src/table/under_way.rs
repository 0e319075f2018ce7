//! A commit under way: its instant on the timeline, the marks of its files, the partitions that it makes.

use super::avro_file::REQUESTED_REPLACE;
use super::commit_metadata::CommitMetadata;
use super::properties::java_date;
use super::recovery::WRITER_KEY;
use super::store::Creation;
use super::timeline::{Action, Instant, State};
use super::view::PARTITION_MARKER;
use super::{InstantTime, Table, WriteStat, path_in_table};
use crate::error::Result;
use crate::time::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use uuid::Uuid;

impl Table {
    /// Puts a new commit under way on the timeline, and says when it is.
    /// The instant is `wanted` if that comes after all others of the table.
    pub(super) async fn begin_next(&mut self, wanted: Option<&InstantTime>) -> Result<InstantTime> {
        let mut time = match (wanted, self.view.timeline.latest()) {
            (Some(wanted), latest) if latest.is_none_or(|latest| latest < wanted) => wanted.clone(),
            (_, latest) => InstantTime::after(latest, Timestamp::now()),
        };
        while !self.begin(&time, Action::Commit).await? {
            time = InstantTime::after(Some(&time), Timestamp::now());
        }
        Ok(time)
    }

    /// Puts an instant under way on the timeline; false if another session has one of that time, whose files ours must not meet.
    /// Both files say that the instant is ours. (Hudi leaves a commit's requested empty; no one looks into it.)
    pub(super) async fn begin(&mut self, time: &InstantTime, action: Action) -> Result<bool> {
        let writer = self.writer.id.to_string();
        let mut plan = CommitMetadata { operation_type: Some("UPSERT".to_owned()), ..CommitMetadata::default() };
        plan.extra_metadata.insert(WRITER_KEY.to_owned(), Some(writer.clone()));
        let plan = plan.render()?;
        let requested = match action {
            Action::ReplaceCommit => {
                REQUESTED_REPLACE.encode(&json!({"extraMetadata": {WRITER_KEY: writer}}), Uuid::new_v4().into_bytes())?
            }
            _ => plan.clone(),
        };
        let instant = |state| Instant::new(time.clone(), action, state);
        if self.view.store.create(&instant(State::Inflight).path(), plan).await? != Creation::Created {
            return Ok(false);
        }
        self.view.store.put(&instant(State::Requested).path(), requested).await?;
        self.view.timeline.insert(instant(State::Inflight));
        self.view.timeline.insert(instant(State::Requested));
        Ok(true)
    }

    /// The end of the write tokens of this session's files: two numbers, as in Hudi's, that no other session has.
    pub(super) fn write_token(&self) -> String {
        let (high, low) = self.writer.id.as_u64_pair();
        format!("{}-{}", high >> 40, low & 0xff_ffff)
    }

    /// Takes an instant under way off the timeline.
    pub(super) async fn cancel(&mut self, time: &InstantTime, action: Action) -> Result<()> {
        for state in [State::Requested, State::Inflight] {
            self.view.store.delete(&Instant::new(time.clone(), action, state).path()).await?;
        }
        self.view.timeline.remove(time, action);
        Ok(())
    }

    /// Readers find a partition by its marker: without it, no rows and no error.
    pub(super) async fn mark_partitions(&mut self, time: &InstantTime, stats: &[WriteStat]) -> Result<()> {
        let partitions: BTreeSet<&String> = stats.iter().map(|stat| &stat.partition_path).collect();
        for partition in partitions {
            if self.view.marked_partitions.contains(partition) {
                continue;
            }
            let depth = if partition.is_empty() { 0 } else { partition.split('/').count() };
            let date = java_date(Timestamp::now()).unwrap_or_default();
            let marker = format!("#partition metadata\n#{date}\ncommitTime={time}\npartitionDepth={depth}\n");
            self.view.store.put(&path_in_table(partition, PARTITION_MARKER), marker).await?;
            self.view.marked_partitions.insert(partition.clone());
        }
        Ok(())
    }
}
