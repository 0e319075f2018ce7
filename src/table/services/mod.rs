//! What keeps a table small and fast: cleaning, archiving, rolling back; and savepoints, which keep some of it from that. Each runs under the fence, inline after a commit, and bounded.
//!
//! A failed service never fails the commit before it: it is said in the log and done by a later run.

pub(super) mod archive;
pub(super) mod archive_log;
pub(super) mod clean;
pub(super) mod rollback;
mod savepoint;

use super::TableOptions;
use super::fence::Fence;
use super::view::TableView;

/// Does what has become due.
pub(super) async fn after_commit(view: &mut TableView, fence: &mut Fence, options: &TableOptions) {
    let table = view.name().to_owned();
    if let Err(error) = clean::run_if_due(view, options.retained_commits).await {
        tracing::warn!(table, %error, "cleaning the table failed; it is tried again after a later commit");
    }
    if let Err(error) = archive::run_if_due(view, options.retained_commits).await {
        tracing::warn!(table, %error, "archiving the table's timeline failed; it is tried again after a later commit");
    }
    if let Err(error) = fence.prune(&view.store).await {
        tracing::warn!(table, %error, "pruning the table's fence log failed; it is tried again after a later commit");
    }
}
