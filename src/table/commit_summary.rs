//! What an earlier commit did, as its own stats say.

use super::commit_metadata::CommitMetadata;
use super::timeline::Action;
use super::view::{TableView, completed_path};
use super::{CommitSummary, CompletedInstant};
use crate::error::Result;

impl TableView {
    /// What a completed commit did.
    pub async fn commit_summary(&self, instant: &CompletedInstant) -> Result<CommitSummary> {
        let action = if instant.action == Action::ReplaceCommit.as_str() { Action::ReplaceCommit } else { Action::Commit };
        let path = completed_path(&instant.instant, action);
        let commit = CommitMetadata::parse(&self.store.get(&path).await?, &path)?;
        let mut summary = CommitSummary {
            instant: instant.instant.clone(),
            inserted: 0,
            updated: 0,
            deleted: 0,
            files_written: 0,
            bytes_written: 0,
        };
        for (_, stat) in commit.stats() {
            summary.inserted += stat.num_inserts;
            summary.updated += stat.num_update_writes;
            summary.deleted += stat.num_deletes;
            summary.files_written += 1;
            summary.bytes_written += stat.total_write_bytes;
        }
        Ok(summary)
    }
}
