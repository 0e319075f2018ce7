//! Taking over a table: what the last session left is finished or undone before anything else.
//!
//! **Why before anything else.** A base file whose instant is neither completed nor under way is invisible while its instant is newer than the start
//! of the active timeline; once the timeline is archived past it, every reader takes it for committed. So nothing is archived while such a file
//! may be there.
//!
//! The order: (1) the last entry of the fence log is settled: a commit that took effect there but isn't on the timeline yet is put there. (2) The
//! table is claimed, which fails if the log has grown meanwhile; then all begins anew. (3) Under the fence: a metadata table of Spark's is
//! dropped, unfinished commits of ours are rolled back, and base files that belong to nothing are deleted.

use super::TableSpec;
use super::avro_file;
use super::commit_metadata::CommitMetadata;
use super::fence::{Claim, CommitHeader, Entry, Fence, taken_by};
use super::group::{self, Outcome};
use super::properties::PROPERTIES_FILE;
use super::services::rollback;
use super::store::{Creation, TableStore};
use super::timeline::{Action, Instant, State};
use super::view::{TableView, completed_path, timeline_of};
use super::writer::WriterIdentity;
use super::{FileSlice, InstantTime};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::BTreeSet;

/// How often a session that is overtaken while it claims the table looks again.
const CLAIM_TRIES: usize = 5;

/// The folder of Spark's metadata table.
const METADATA_FOLDER: &str = ".hoodie/metadata";

/// The key of a plan's `extraMetadata` that says it is ours.
pub(super) const WRITER_KEY: &str = "binlake.writer";

/// Claims the table and brings it into a clean state.
///
/// With `is_polite`, not from another process of this machine that still runs.
pub(super) async fn take_over(
    store: TableStore,
    spec: &TableSpec,
    writer: WriterIdentity,
    is_polite: bool,
) -> Result<(TableView, Fence)> {
    for _ in 0..CLAIM_TRIES {
        let last = match group::last_entry(&store).await? {
            (_, Outcome::Undecided) => return Err(group::undecided(&store)),
            (last, Outcome::Decided) => last,
        };
        let other = last.as_ref().map(|entry| &entry.header.writer);
        if let Some(other) = other.filter(|other| is_polite && other.is_alive_beside_us()) {
            return Err(taken_by(other));
        }
        if let Some(last) = &last {
            mend(&store, last).await?;
        }
        let mut view = TableView::read(store.clone()).await?;
        if let Some(last) = &last
            && settle(&view, last).await?
        {
            view = TableView::read(store.clone()).await?;
        }
        view.properties.ensure_writable(spec)?;
        // refused before it is claimed: who is turned away must not stop the session that has the table
        if !view.timeline.pending().any(|(_, action, _)| action == Action::Rollback) {
            ensure_no_foreign_work(&view).await?;
        }
        match Fence::claim(&store, writer.clone(), last.as_ref()).await? {
            Claim::Overtaken => continue,
            Claim::Ours(fence) => {
                view.write_key().await?;
                drop_metadata_table(&mut view).await?;
                undo_unfinished(&mut view).await?;
                delete_orphans(&mut view).await?;
                store.delete_staged().await?;
                if let Some(last) = last {
                    remember_checkpoint(&mut view, last).await?;
                }
                return Ok((view, fence));
            }
        }
    }
    Err(Fence::lost_to(&store).await)
}

/// Reads the table once a commit that had taken effect is finished.
pub(super) async fn settled_view(store: TableStore) -> Result<TableView> {
    let (last, _) = group::last_entry(&store).await?;
    if let Some(last) = &last {
        mend(&store, last).await?;
    }
    let view = TableView::read(store.clone()).await?;
    match last {
        Some(last) => {
            let mut view = if settle(&view, &last).await? { TableView::read(store).await? } else { view };
            remember_checkpoint(&mut view, last).await?;
            Ok(view)
        }
        None => Ok(view),
    }
}

/// Writes the completed instant of the last commit once more where the power failed before it was whole on the disk.
async fn mend(store: &TableStore, last: &Entry) -> Result<()> {
    if let Some(header) = &last.header.commit {
        let path = completed_path(&header.instant, header.action());
        let torn = |present: &Bytes| present.len() < last.body.len() && last.body.starts_with(present);
        if store.get_optional(&path).await?.is_some_and(|present| torn(&present)) {
            tracing::warn!(path, "mending a completed instant that is not whole");
            store.put(&path, last.body.clone()).await?;
        }
    }
    Ok(())
}

/// Puts a commit that took effect in the fence log on the timeline, if it isn't there yet. Says whether it did.
async fn settle(view: &TableView, last: &Entry) -> Result<bool> {
    let Some(header) = &last.header.commit else { return Ok(false) };
    let time = &header.instant;
    if view.timeline.counts_as_committed(time) {
        return Ok(false);
    }
    let commit = CommitMetadata::parse(&last.body, &completed_path(time, header.action()))?;
    if was_undone(view, header).await? {
        tracing::warn!(instant = %time, "another writer has rolled back our last commit; its changes come again from the stream");
        return Ok(false);
    }
    let present: BTreeSet<String> = view.groups.written_by(time).iter().map(FileSlice::path).collect();
    if commit.stats().any(|(_, stat)| stat.path.as_ref().is_some_and(|path| !present.contains(path))) {
        tracing::warn!(instant = %time, "files of our last commit are gone, so that it can't be finished; its changes come again from the stream");
        return Ok(false);
    }
    match view.store.create(&completed_path(time, header.action()), last.body.clone()).await? {
        Creation::Created => {
            tracing::info!(instant = %time, "finished a commit that a crash had interrupted");
            Ok(true)
        }
        Creation::Taken(_) => Err(Error::new(Area::Lake, Kind::Corrupt, "another writer has a commit of the same instant")
            .with("instant", time)
            .remedy("see which of the two is wanted; binlake's is the last entry of .hoodie/.binlake")),
    }
}

/// Whether a rollback or a restore on the timeline took the commit back.
async fn was_undone(view: &TableView, commit: &CommitHeader) -> Result<bool> {
    let time = commit.instant.as_str();
    let undoing = view.timeline.completed().filter(|(_, action)| matches!(action, Action::Rollback | Action::Restore));
    let paths: Vec<String> =
        undoing.filter(|(later, _)| **later > commit.instant).map(|(later, action)| completed_path(later, action)).collect();
    for (bytes, path) in view.store.get_all(&paths).await?.iter().zip(&paths) {
        let action = avro_file::decode(bytes, path)?;
        let undone = ["commitsRollback", "instantsToRollback"].iter().filter_map(|list| action.get(list)?.as_array()).flatten();
        if undone.into_iter().any(|undone| undone.as_str() == Some(time)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Drops Spark's metadata table: our commits would leave it stale, and Spark's next upsert would then silently undo them.
/// Spark makes it anew when it writes. The property goes first: without it no one looks into the folder.
pub(super) async fn drop_metadata_table(view: &mut TableView) -> Result<()> {
    if view.properties.has_metadata_table() {
        tracing::info!(table = view.name(), "dropping the metadata table that another writer made: binlake doesn't keep it up");
        view.properties = view.properties.without_metadata_table();
        view.store.overwrite(PROPERTIES_FILE, view.properties.render(Timestamp::now())).await?;
        view.properties_version = (0, None);
    }
    view.store.delete_folder(METADATA_FOLDER).await
}

/// Finishes unfinished rollbacks, and rolls back unfinished commits of binlake. An unfinished clean is finished by the next clean;
/// an unfinished savepoint is none.
pub(super) async fn undo_unfinished(view: &mut TableView) -> Result<()> {
    let pending = |view: &TableView| -> Vec<(InstantTime, Action)> {
        view.timeline.pending().map(|(time, action, _)| (time.clone(), action)).collect()
    };
    for (time, action) in pending(view).iter().filter(|(_, action)| *action == Action::Rollback) {
        rollback::finish(view, time).await.map_err(|error| error.with("instant", format!("{time}.{action}")))?;
    }
    ensure_no_foreign_work(view).await?;
    for (time, action) in pending(view).iter().filter(|(_, action)| action.is_commit()) {
        rollback::undo(view, time, *action).await?;
    }
    Ok(())
}

/// Refuses to go on beside anybody else's unfinished work.
async fn ensure_no_foreign_work(view: &TableView) -> Result<()> {
    for (time, action, states) in view.timeline.pending() {
        let harmless = match action {
            Action::Commit | Action::ReplaceCommit => is_ours(view, time, action, states).await?,
            Action::Restore | Action::Other => false,
            Action::Clean | Action::Savepoint | Action::Rollback => true,
        };
        if !harmless {
            return Err(Error::new(Area::Lake, Kind::Refused, "another writer has unfinished work on the table")
                .with("instant", format!("{time}.{action}"))
                .remedy("wait until it has finished; if it crashed, start it once more or roll it back with Hudi (`call rollback_to_instant`), then start binlake"));
        }
    }
    Ok(())
}

/// Whether an unfinished commit was begun by binlake: each of its files says so. (Of a session that was fenced in the middle,
/// any of the two may have come after its instant was rolled back.)
async fn is_ours(view: &TableView, time: &InstantTime, action: Action, states: &BTreeSet<State>) -> Result<bool> {
    for state in states {
        let path = Instant::new(time.clone(), action, *state).path();
        let plan = view.store.get_optional(&path).await?.unwrap_or_default();
        let ours = match (action, state) {
            (Action::ReplaceCommit, State::Requested) => avro_file::decode(&plan, &path)
                .is_ok_and(|plan| plan.get("extraMetadata").is_some_and(|extra| extra.get(WRITER_KEY).is_some())),
            _ => serde_json::from_slice::<CommitMetadata>(&plan).is_ok_and(|plan| plan.extra(WRITER_KEY).is_some()),
        };
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes base files that belong to no commit.
///
/// They are looked for in the listing that made the view; the timeline is listed once more after it, since a writer puts its instant on
/// the timeline before it writes a file: a file that has no instant then never had one, or lost it to a rollback.
pub(super) async fn delete_orphans(view: &mut TableView) -> Result<()> {
    let mut orphans = strays(view).await?;
    if !view.groups.orphans(&view.timeline).is_empty() {
        let timeline = timeline_of(&view.store.list_folder(".hoodie").await?.entries);
        orphans.extend(view.groups.orphans(&timeline));
    }
    if !orphans.is_empty() {
        tracing::warn!(table = view.name(), files = orphans.len(), "deleting base files that belong to no commit");
        delete_files(view, &orphans).await?;
        view.groups.remove(&orphans);
    }
    Ok(())
}

/// Files beside the one that a commit names for its slice. Two sessions of binlake can meet in one instant, if one of them was fenced within
/// the same millisecond; the other's commit then says which file is its own.
async fn strays(view: &TableView) -> Result<Vec<FileSlice>> {
    let mut strays = Vec::new();
    for file in view.groups.doubled() {
        let action =
            [Action::Commit, Action::ReplaceCommit].into_iter().find(|action| view.timeline.is_completed(&file.instant, *action));
        if let Some(action) = action {
            let path = completed_path(&file.instant, action);
            let commit = CommitMetadata::parse(&view.store.get(&path).await?, &path)?;
            if !commit.stats().any(|(_, stat)| stat.path.as_deref() == Some(file.path().as_str())) {
                strays.push(file);
            }
        }
    }
    Ok(strays)
}

/// Deletes base files, and their checksum side files where there are any.
pub(super) async fn delete_files(view: &TableView, files: &[FileSlice]) -> Result<()> {
    let paths: Vec<String> = files.iter().map(FileSlice::path).collect();
    view.store.delete_all(&paths).await?;
    if view.has_checksum_files {
        let sides: Vec<String> = paths.iter().map(|path| super::store::checksum_file(path)).collect();
        view.store.delete_all(&sides).await?;
    }
    Ok(())
}

/// Where other writers have archived all commits of ours, the fence log still has the last one, with our checkpoint.
/// One that isn't older than the timeline's start and isn't on it was rolled back: it doesn't count.
async fn remember_checkpoint(view: &mut TableView, last: Entry) -> Result<()> {
    if let Some(entry) = Fence::last_commit(&view.store, last).await? {
        let archived = |header: &CommitHeader| view.timeline.start().is_some_and(|start| header.instant < *start);
        if entry.header.commit.as_ref().is_some_and(archived) {
            let commit = CommitMetadata::parse(&entry.body, "an entry of .hoodie/.binlake")?;
            view.remember_archived(&commit);
        }
    }
    Ok(())
}
