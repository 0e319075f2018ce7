//! The fence log: who may commit, and what was committed, decided by create-if-absent.
//!
//! `.hoodie/.binlake/` holds numbered entries. A session *claims* the table by creating the next entry when it opens it; each of its commits
//! creates one more, with the commit's JSON in it, just before the completed instant appears on the timeline. So:
//!
//! - of two sessions that both want entry N, one creates it, and the other has lost the table: [`Fence::append`] says to whom;
//! - a commit takes effect when its entry is created. If the process dies before the completed instant is there, the next session finds the
//!   entry at the log's end and completes it: see `recovery`;
//! - a claim is made only after the entry before it was settled, so only the last entry can be unsettled.
//!
//! Old entries are deleted, so a session that slept for long could find its next number free again. Therefore each creation is
//! followed by a listing of what lies behind it: the last entry is never deleted, so a session that was overtaken sees one there.

use super::InstantTime;
use super::store::{Creation, TableStore};
use super::timeline::Action;
use super::writer::WriterIdentity;
use crate::error::{Area, Error, Kind, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The folder of the log, below the table.
pub(super) const FENCE_FOLDER: &str = ".hoodie/.binlake";

/// Entries that are kept at least.
const KEPT_ENTRIES: u64 = 16;

/// The version of the entries' format.
const VERSION: u32 = 1;
/// The version of entries that await another table's.
const AWAITING_VERSION: u32 = 2;

/// The first line of an entry; a commit's JSON follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryHeader {
    version: u32,
    /// Who created it.
    pub(super) writer: WriterIdentity,
    /// The number of the newest entry with a commit, this one included: it is kept, for it may have the only copy of our last checkpoint
    /// once another writer has archived our commits.
    pub(super) last_commit_entry: Option<u64>,
    /// The commit; `None` in a claim.
    pub(super) commit: Option<CommitHeader>,
    /// The commit takes effect only with another table's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) awaits: Option<Awaited>,
}

/// The commit of another table with which one takes effect: the other table's fence log decides for both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Awaited {
    /// The way to the other table's folder from the one that this table's lies in: its name, where it lies beside.
    pub(super) sibling: String,
    /// Its instant.
    pub(super) instant: InstantTime,
    /// The number of its entry in the other table's log.
    pub(super) entry: u64,
}

/// Which instant an entry commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitHeader {
    /// Its time.
    pub(super) instant: InstantTime,
    /// Whether it is a replacecommit.
    pub(super) replaces: bool,
}

impl CommitHeader {
    /// The action on the timeline.
    pub(super) fn action(&self) -> Action {
        if self.replaces { Action::ReplaceCommit } else { Action::Commit }
    }
}

/// An entry as it was read.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) header: EntryHeader,
    /// The commit's JSON; empty in a claim.
    pub(super) body: Bytes,
}

/// A session's hold on the table.
#[derive(Debug)]
pub(super) struct Fence {
    writer: WriterIdentity,
    /// The number of our last entry.
    last: u64,
    last_commit_entry: Option<u64>,
    /// All entries below this were deleted.
    pruned_below: u64,
}

/// What came of a try to claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// The table is ours.
    Ours(Fence),
    /// The log has grown meanwhile: look again.
    Overtaken,
}

impl Fence {
    /// The last entry of the log; `None` in a table that was never opened for writing.
    pub(super) async fn last_entry(store: &TableStore) -> Result<Option<Entry>> {
        let mut numbers = Self::numbers(store).await?;
        let Some(last) = numbers.pop() else { return Ok(None) };
        match Self::read(store, last).await {
            Err(error) if error.kind() == Kind::Corrupt => {}
            read => return read.map(Some),
        }
        // The power failed before the entry was on the disk (no commit goes on before that), or the disk is damaged. Its number is taken, and
        // what it said doesn't count: the entry before it was settled, and what it may have committed comes again from where it came.
        tracing::warn!(path = path_of(last), "the last entry of the fence log is damaged and does not count");
        let before = match numbers.pop() {
            Some(before) => Self::read(store, before).await?.header.last_commit_entry,
            None => None,
        };
        let header = EntryHeader {
            version: VERSION,
            writer: WriterIdentity::unknown(),
            last_commit_entry: before,
            commit: None,
            awaits: None,
        };
        Ok(Some(Entry { number: last, header, body: Bytes::new() }))
    }

    /// The newest entry with a commit, at or before `entry`.
    pub(super) async fn last_commit(store: &TableStore, entry: Entry) -> Result<Option<Entry>> {
        match entry.header.last_commit_entry {
            Some(number) if number == entry.number => Ok(Some(entry)),
            Some(number) => Self::read(store, number).await.map(Some),
            None => Ok(None),
        }
    }

    /// The entry with this number, and the number of the last one.
    pub(super) async fn entry(store: &TableStore, number: u64) -> Result<(Option<Entry>, u64)> {
        let numbers = Self::numbers(store).await?;
        let last = numbers.last().copied().unwrap_or(0);
        match numbers.contains(&number) {
            true => Ok((Some(Self::read(store, number).await?), last)),
            false => Ok((None, last)),
        }
    }

    async fn numbers(store: &TableStore) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = store.list(FENCE_FOLDER).await?.iter().filter_map(|entry| number_of(&entry.path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read(store: &TableStore, number: u64) -> Result<Entry> {
        let path = path_of(number);
        let bytes = store.get(&path).await?;
        let corrupt = |what: &'static str| Error::new(Area::Lake, Kind::Corrupt, what).with("path", &path);
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt("an entry of the fence log is cut off"))?;
        let header: EntryHeader = serde_json::from_slice(&bytes[..end])
            .map_err(|error| corrupt("an entry of the fence log is damaged").caused_by(error))?;
        if header.version != VERSION && header.version != AWAITING_VERSION {
            return Err(Error::new(Area::Lake, Kind::Refused, "a newer binlake has written the table")
                .with("path", &path)
                .with("version", header.version)
                .remedy("update binlake"));
        }
        Ok(Entry { number, header, body: bytes.slice(end + 1..) })
    }

    /// Claims the table as the session after `last`, which must be settled.
    pub(super) async fn claim(store: &TableStore, writer: WriterIdentity, last: Option<&Entry>) -> Result<Claim> {
        let number = last.map_or(0, |entry| entry.number) + 1;
        let last_commit_entry = last.and_then(|entry| entry.header.last_commit_entry);
        let header = EntryHeader { version: VERSION, writer: writer.clone(), last_commit_entry, commit: None, awaits: None };
        let created = store.create(&path_of(number), render(&header, &[])?).await?;
        if created != Creation::Created || !Self::behind(store, number).await?.is_empty() {
            return Ok(Claim::Overtaken);
        }
        Ok(Claim::Ours(Self { writer, last: number, last_commit_entry, pruned_below: 0 }))
    }

    /// Creates the entry that makes a commit take effect. An error of kind `Conflict`: the table was taken by another session.
    pub(super) async fn append(&mut self, store: &TableStore, commit: CommitHeader, json: &[u8]) -> Result<()> {
        self.append_as(store, commit, None, json).await
    }

    /// Creates the entry of a commit that takes effect with another table's.
    pub(super) async fn append_awaiting(
        &mut self,
        store: &TableStore,
        commit: CommitHeader,
        awaited: Awaited,
        json: &[u8],
    ) -> Result<()> {
        self.append_as(store, commit, Some(awaited), json).await
    }

    /// What the last entry awaited was done.
    pub(super) fn took_effect(&mut self) {
        self.last_commit_entry = Some(self.last);
    }

    /// The number of the next entry.
    pub(super) fn next_entry(&self) -> u64 {
        self.last + 1
    }

    async fn append_as(&mut self, store: &TableStore, commit: CommitHeader, awaits: Option<Awaited>, json: &[u8]) -> Result<()> {
        let (number, is_commit) = (self.next_entry(), awaits.is_none());
        let header = EntryHeader {
            version: if is_commit { VERSION } else { AWAITING_VERSION },
            writer: self.writer.clone(),
            last_commit_entry: if is_commit { Some(number) } else { self.last_commit_entry },
            commit: Some(commit),
            awaits,
        };
        match store.create(&path_of(number), render(&header, json)?).await? {
            Creation::Created => {}
            Creation::Taken(_) => return Err(Self::lost_to(store).await),
        }
        if !Self::behind(store, number).await?.is_empty() {
            return Err(Self::lost_to(store).await);
        }
        self.last = number;
        if is_commit {
            self.last_commit_entry = Some(number);
        }
        Ok(())
    }

    /// An error of kind `Conflict` if another session has taken the table.
    pub(super) async fn ensure_ours(&self, store: &TableStore) -> Result<()> {
        if Self::behind(store, self.last).await?.is_empty() { Ok(()) } else { Err(Self::lost_to(store).await) }
    }

    /// Deletes entries that nobody needs, now and then.
    pub(super) async fn prune(&mut self, store: &TableStore) -> Result<()> {
        let kept_from = self.last.saturating_sub(KEPT_ENTRIES).min(self.last_commit_entry.unwrap_or(u64::MAX));
        if kept_from < self.pruned_below + KEPT_ENTRIES {
            return Ok(());
        }
        let numbers = Self::numbers(store).await?;
        let old: Vec<String> = numbers.into_iter().filter(|number| *number < kept_from).map(path_of).collect();
        store.delete_all(&old).await?;
        self.pruned_below = kept_from;
        Ok(())
    }

    /// Numbers of the entries behind `number`.
    async fn behind(store: &TableStore, number: u64) -> Result<Vec<u64>> {
        let entries = store.list_after(FENCE_FOLDER, &path_of(number)).await?;
        Ok(entries.iter().filter_map(|entry| number_of(&entry.path)).filter(|other| *other > number).collect())
    }

    /// The error of a session that lost the table, naming who has it.
    pub(super) async fn lost_to(store: &TableStore) -> Error {
        match Self::last_entry(store).await {
            Ok(Some(entry)) => taken_by(&entry.header.writer),
            Ok(None) => Error::new(Area::Lake, Kind::Conflict, "the table's fence log is gone").with("path", FENCE_FOLDER),
            Err(error) => error,
        }
    }
}

const TAKEN: &str = "another binlake writes this table";

/// Whether the error says that another session of binlake has taken the table.
pub fn is_taken(error: &Error) -> bool {
    error.kind() == Kind::Conflict && error.what() == TAKEN
}

/// The table belongs to `writer`.
pub(super) fn taken_by(writer: &WriterIdentity) -> Error {
    Error::new(Area::Lake, Kind::Conflict, TAKEN)
        .with("writer", &writer.name)
        .with("pid", writer.pid)
        .with("host", &writer.host)
        .with("since", writer.since)
        .remedy("let only one of the two run: stop it, or this one; nothing was lost")
}

fn path_of(number: u64) -> String {
    format!("{FENCE_FOLDER}/{number:020}")
}

fn number_of(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.parse().ok()
}

fn render(header: &EntryHeader, body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(header).map_err(|error| Error::bug("a fence entry can't be written as JSON").caused_by(error))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use std::sync::Arc;

    fn store() -> TableStore {
        TableStore::new(Arc::new(InMemory::new()), Path::from("t"))
    }

    async fn claim(store: &TableStore, name: &str) -> Fence {
        let last = Fence::last_entry(store).await.unwrap();
        match Fence::claim(store, WriterIdentity::new(name), last.as_ref()).await.unwrap() {
            Claim::Ours(fence) => fence,
            Claim::Overtaken => panic!("overtaken"),
        }
    }

    fn commit(day: u8) -> CommitHeader {
        CommitHeader { instant: InstantTime::parse(&format!("202601{day:02}000000000")).unwrap(), replaces: false }
    }

    #[tokio::test]
    async fn a_later_session_fences_the_earlier_and_is_named() {
        let store = store();
        let mut first = claim(&store, "first").await;
        first.append(&store, commit(1), b"{}").await.unwrap();
        let mut second = claim(&store, "second").await;
        let error = first.append(&store, commit(2), b"{}").await.unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Conflict, 5));
        assert!(error.to_string().contains("writer=second pid="), "{error}");
        second.append(&store, commit(2), b"{}").await.unwrap();
        let last = Fence::last_entry(&store).await.unwrap().unwrap();
        assert_eq!((last.number, last.header.commit), (4, Some(commit(2))));
    }

    #[tokio::test]
    async fn a_sleeper_whose_number_was_pruned_is_fenced_too() {
        let store = store();
        let mut sleeper = claim(&store, "sleeper").await;
        let mut other = claim(&store, "other").await;
        for entry in 0..60 {
            other.append(&store, commit(entry % 28 + 1), b"{}").await.unwrap();
            other.prune(&store).await.unwrap();
        }
        assert!(Fence::numbers(&store).await.unwrap().len() < 40);
        assert!(store.get_optional(&path_of(2)).await.unwrap().is_none(), "the sleeper's next number is free");
        let error = sleeper.append(&store, commit(29), b"{}").await.unwrap_err();
        assert!(error.to_string().contains("writer=other"), "{error}");
    }

    #[tokio::test]
    async fn the_last_commit_is_found_behind_many_claims_and_is_kept() {
        let store = store();
        let mut fence = claim(&store, "a").await;
        fence.append(&store, commit(1), b"the commit").await.unwrap();
        for _ in 0..50 {
            fence = claim(&store, "b").await;
            fence.prune(&store).await.unwrap();
        }
        let last = Fence::last_entry(&store).await.unwrap().unwrap();
        assert_eq!(last.number, 52);
        let found = Fence::last_commit(&store, last).await.unwrap().unwrap();
        assert_eq!((found.number, &found.body[..]), (2, &b"the commit"[..]));
    }

    #[tokio::test]
    async fn a_torn_last_entry_does_not_count_but_its_number_does() {
        let store = store();
        let mut fence = claim(&store, "a").await;
        fence.append(&store, commit(1), b"{}").await.unwrap();
        for torn in ["", "{\"version\":1", "{}\n"] {
            store.put(&path_of(3), torn).await.unwrap();
            let last = Fence::last_entry(&store).await.unwrap().unwrap();
            assert_eq!((last.number, &last.header.commit), (3, &None));
            assert_eq!(Fence::last_commit(&store, last).await.unwrap().unwrap().number, 2);
        }
        let next = claim(&store, "b").await;
        assert_eq!(next.last, 4);
        store.put(&path_of(5), "{}").await.unwrap();
        store.put(&path_of(6), "{}").await.unwrap();
        assert_eq!(Fence::last_entry(&store).await.unwrap_err().kind(), Kind::Corrupt, "two in a row are no power failure");
    }
}
