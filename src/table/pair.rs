//! Two tables in one commit: both change, or none does.
//!
//! **How.** The one decides (the *leader*), the other follows. The files of both are written first. Then the follower's commit goes into its fence log with
//! the word that it awaits the leader's: it doesn't count yet. The leader's entry in its own fence log, an ordinary one, is the decision for both. At last
//! the two completed instants appear, the follower's first.
//!
//! **Why a crash can't part them.** Before the leader's entry is there nothing has taken effect: who opens the leader claims it, with the very number that
//! the follower's entry names, so the decision can't be made any more, and the follower's files are rolled back. Once it is there, everybody who opens one
//! of the two finds it and puts the completed instant where it is missing. So the leader is opened first, and a follower that awaits a decision which may
//! still be made is not opened at all.
//!
//! **What a reader sees.** For a moment one of the two may be a commit ahead. Each commit of the two names the other's instant ([`COMMITTED_WITH`]).

use super::commit::Prepared;
use super::fence::{Awaited, Entry, Fence};
use super::store::TableStore;
use super::view::TableView;
use super::{CommitRequest, CommitSummary, Table};
use crate::error::{Area, Error, Kind, Result};
use object_store::path::Path;

/// The key of `extraMetadata` that says with which commit of another table a commit took effect: `<table>@<instant>`.
pub const COMMITTED_WITH: &str = "binlake.committed_with";

/// What is known of a fence log's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whether it took effect is settled.
    Decided,
    /// Another table's writer may still decide.
    Undecided,
}

impl Table {
    /// Commits on this table and on `follower`, which lies beside it: on both or on none. After an error both are to be opened again, this one first.
    pub async fn commit_with(
        &mut self,
        request: CommitRequest,
        follower: &mut Table,
        follower_request: CommitRequest,
    ) -> Result<(CommitSummary, CommitSummary)> {
        self.begin_use()?;
        follower.begin_use()?;
        let (own, other) = futures::join!(self.prepare(request), follower.prepare(follower_request));
        let (own, other) = (own.map_err(|error| self.at(error))?, other.map_err(|error| follower.at(error))?);
        let done = self.decide(own, follower, other).await?;
        self.after_commit().await;
        follower.after_commit().await;
        Ok(done)
    }

    async fn decide(
        &mut self,
        mut own: Prepared,
        follower: &mut Table,
        mut other: Prepared,
    ) -> Result<(CommitSummary, CommitSummary)> {
        let named = |table: &Table, prepared: &Prepared| Some(format!("{}@{}", folder(&table.view), prepared.time));
        own.commit.extra_metadata.insert(COMMITTED_WITH.to_owned(), named(follower, &other));
        other.commit.extra_metadata.insert(COMMITTED_WITH.to_owned(), named(self, &own));
        let (json, other_json) = (own.commit.render()?, other.commit.render()?);
        follower.ensure_alone(&other.time, other.action).await.map_err(|error| follower.at(error))?;
        self.ensure_alone(&own.time, own.action).await.map_err(|error| self.at(error))?;
        let awaited = Awaited { sibling: folder(&self.view), instant: own.time.clone(), entry: self.fence.next_entry() };
        let appended = follower.fence.append_awaiting(&follower.view.store, other.header(), awaited, &other_json).await;
        appended.map_err(|error| follower.at(error))?;
        self.fence.append(&self.view.store, own.header(), &json).await.map_err(|error| self.at(error))?;
        follower.fence.took_effect();
        let other = follower.show(other, other_json).await.map_err(|error| follower.at(error))?;
        let own = self.show(own, json).await.map_err(|error| self.at(error))?;
        Ok((own, other))
    }
}

/// The name of a table's folder.
fn folder(view: &TableView) -> String {
    view.store.base().parts().next_back().map(|part| part.as_ref().to_owned()).unwrap_or_default()
}

/// The last entry of a fence log as it counts: one that awaited another table's is a commit if that was made, else none.
pub(super) async fn last_entry(store: &TableStore) -> Result<(Option<Entry>, Outcome)> {
    let Some(mut last) = Fence::last_entry(store).await? else { return Ok((None, Outcome::Decided)) };
    let Some(awaited) = last.header.awaits.take() else { return Ok((Some(last), Outcome::Decided)) };
    let outcome = match made(store, &awaited).await? {
        Some(true) => {
            last.header.last_commit_entry = Some(last.number);
            return Ok((Some(last), Outcome::Decided));
        }
        Some(false) => Outcome::Decided,
        None => Outcome::Undecided,
    };
    last.header.commit = None;
    last.body = bytes::Bytes::new();
    Ok((Some(last), outcome))
}

/// Whether the commit that is awaited was made; `None`: it may still be.
async fn made(store: &TableStore, awaited: &Awaited) -> Result<Option<bool>> {
    let parts: Vec<_> = store.base().parts().collect();
    let parent = parts.iter().take(parts.len().saturating_sub(1)).cloned();
    let leader = TableStore::new(store.object_store().clone(), Path::from_iter(parent.chain([awaited.sibling.as_str().into()])));
    let found = match Fence::entry(&leader, awaited.entry).await {
        // a power failure left it in pieces: it doesn't count
        Err(error) if error.kind() == Kind::Corrupt => return Ok(Some(false)),
        found => found?,
    };
    Ok(match found {
        (Some(entry), _) => Some(entry.header.commit.is_some_and(|commit| commit.instant == awaited.instant)),
        (None, last) if last < awaited.entry => None,
        // the leader went on without its follower for long; what the follower lacks, its next writer finds
        (None, _) => Some(false),
    })
}

/// The error of who opens a follower before its leader.
pub(super) fn undecided(store: &TableStore) -> Error {
    Error::new(Area::Lake, Kind::Refused, "the table's last commit awaits another table's")
        .with("path", store.base())
        .remedy("start the service: it finishes or undoes the commit on both")
}
