//! Several tables in one commit: all change, or none does.
//!
//! **How.** One decides (the *leader*), the others follow. The files of all are written first. Then each follower's commit goes into its fence log with
//! the word that it awaits the leader's: it doesn't count yet. The leader's entry in its own fence log, an ordinary one, is the decision for all. At last
//! the completed instants appear, the leader's after the followers'.
//!
//! **Why a crash can't part them.** Before the leader's entry is there nothing has taken effect: who opens the leader claims it, with the very number that
//! the followers' entries name, so the decision can't be made any more, and the followers' files are rolled back, those of a follower that had no entry yet
//! as well. Once it is there, everybody who opens one of the tables finds it and puts the completed instant where it is missing. So the leader is opened
//! first, and a follower that awaits a decision which may still be made is not opened at all.
//!
//! **What a reader sees.** For a moment some may be a commit ahead of the others. Each commit names the others' instants ([`COMMITTED_WITH`]): a
//! follower's that of its leader, the leader's those of all its followers.
//!
//! **Pairs.** A table whose columns another one has as well, as a history has those of its table, is written beside it with the same instant, and what both
//! have is encoded once ([`super::rewrite`]).

use super::commit::Prepared;
use super::fence::{Awaited, Entry, Fence};
use super::rewrite::SharedColumns;
use super::store::TableStore;
use super::{CommitRequest, CommitSummary, InstantTime, Table};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use arrow::datatypes::Field;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::{Path, PathPart};
use std::sync::Arc;

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

/// A table that follows another's commit, and what it gets.
#[derive(Debug)]
pub struct Follower<'a> {
    /// The table, open for writing.
    pub table: &'a mut Table,
    /// Its part of the commit.
    pub request: CommitRequest,
}

/// How many tables of a group write their files at once: each may hold the memory that its options give it.
const AT_ONCE: usize = 2;

impl Table {
    /// Commits on this table and on `follower`, which lies beside it: see [`Table::commit_group`].
    pub async fn commit_with(
        &mut self,
        request: CommitRequest,
        follower: &mut Table,
        follower_request: CommitRequest,
    ) -> Result<(CommitSummary, CommitSummary)> {
        let followers = vec![Follower { table: follower, request: follower_request }];
        let (own, mut others) = self.commit_group(request, followers).await?;
        let other = others.pop().ok_or_else(|| Error::bug("a follower's commit says nothing"))?;
        Ok((own, other))
    }

    /// Commits on this table and on all `followers`, which lie beside it: on all or on none; gives what was done to each, in their order. After an error
    /// all are to be opened again, this one first.
    pub async fn commit_group(
        &mut self,
        request: CommitRequest,
        followers: Vec<Follower<'_>>,
    ) -> Result<(CommitSummary, Vec<CommitSummary>)> {
        let staged = self.stage(request, followers).await?;
        self.finish(staged, Vec::new()).await
    }
}

/// A commit whose files are written, on the table that decides and on some that follow it.
#[derive(Debug)]
pub struct Staged<'a> {
    own: Prepared,
    followers: Vec<(&'a mut Table, Prepared)>,
}

impl Table {
    /// Writes the files of a commit on this table and on `followers`. It takes effect with [`Table::finish`]; until then it hasn't.
    pub async fn stage<'a>(&mut self, request: CommitRequest, followers: Vec<Follower<'a>>) -> Result<Staged<'a>> {
        let (mut others, mut requests) = (Vec::with_capacity(followers.len()), vec![request]);
        for Follower { table, request } in followers {
            others.push(table);
            requests.push(request);
        }
        let mut tables: Vec<&mut Table> = std::iter::once(self).chain(others.iter_mut().map(|table| &mut **table)).collect();
        tables.iter_mut().try_for_each(|table| table.begin_use())?;
        let pairs = pairs(&tables, &requests);
        let writing = tables.iter_mut().zip(requests).zip(pairs);
        let writing: Vec<BoxFuture<'_, Result<Prepared>>> =
            writing.map(|((table, request), pair)| prepare(table, request, pair).boxed()).collect();
        // none is left off in the middle of its files
        let prepared: Vec<Result<Prepared>> = futures::stream::iter(writing).buffered(AT_ONCE).collect().await;
        let mut prepared = prepared.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
        let own = prepared.next().ok_or_else(|| Error::bug("a commit on no table"))?;
        Ok(Staged { own, followers: others.into_iter().zip(prepared).collect() })
    }

    /// Makes a staged commit take effect, and with it those on `followers`, as [`Table::commit_group`] does: for what shows only when the others are staged.
    /// Gives what was done to this table, and to those that follow it, in their order.
    pub async fn finish(
        &mut self,
        staged: Staged<'_>,
        followers: Vec<Follower<'_>>,
    ) -> Result<(CommitSummary, Vec<CommitSummary>)> {
        let (mut tables, mut prepared) = (vec![self], vec![staged.own]);
        for (table, files) in staged.followers {
            tables.push(table);
            prepared.push(files);
        }
        for Follower { table, request } in followers {
            table.begin_use()?;
            prepared.push(prepare(table, request, None).await?);
            tables.push(table);
        }
        take_effect(tables, prepared).await
    }
}

/// What two tables of one commit have in common that have the same rows in large part.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// The column chunks that are made once.
    pub(super) shared: Arc<SharedColumns>,
    /// The instant of both, so that Hudi's columns are the same as well.
    pub(super) instant: InstantTime,
}

impl Pair {
    /// Of two tables.
    pub(super) fn new(a: &Table, b: &Table) -> Self {
        let (now, memory) = (Timestamp::now(), a.options.memory_bytes.min(b.options.memory_bytes) / 2);
        let instant = [a, b].map(|table| InstantTime::after(table.view.timeline.latest(), now));
        let [a, b] = instant;
        Self { shared: Arc::new(SharedColumns::new(usize::try_from(memory).unwrap_or(usize::MAX))), instant: a.max(b) }
    }
}

/// Each table's pair with another one, where it has one: a history has all columns of its table, and most of the rows.
fn pairs(tables: &[&mut Table], requests: &[CommitRequest]) -> Vec<Option<Pair>> {
    let mut pairs: Vec<Option<Pair>> = vec![None; requests.len()];
    for (b, request) in requests.iter().enumerate() {
        let has = |field: &Arc<Field>| {
            request.columns.field_with_name(field.name()).is_ok_and(|own| own.data_type() == field.data_type())
        };
        let of = (0..b).find(|a| pairs[*a].is_none() && requests[*a].columns.fields().iter().all(has));
        if let Some(a) = of {
            let pair = Pair::new(tables[a], tables[b]);
            (pairs[a], pairs[b]) = (Some(pair.clone()), Some(pair));
        }
    }
    pairs
}

async fn prepare(table: &mut Table, request: CommitRequest, pair: Option<Pair>) -> Result<Prepared> {
    let prepared = table.prepare(request, pair).await;
    prepared.map_err(|error| table.at(error))
}

/// Makes what was written count, and looks after the tables; gives what was done to the first, and to the others.
pub(super) async fn take_effect(
    mut tables: Vec<&mut Table>,
    prepared: Vec<Prepared>,
) -> Result<(CommitSummary, Vec<CommitSummary>)> {
    let mut done = decide(&mut tables, prepared).await?;
    for table in tables {
        table.after_commit().await;
    }
    let others = done.split_off(1);
    let own = done.pop().ok_or_else(|| Error::bug("a commit says nothing"))?;
    Ok((own, others))
}

/// Makes what was written count; the leader is the first.
async fn decide(tables: &mut [&mut Table], mut prepared: Vec<Prepared>) -> Result<Vec<CommitSummary>> {
    let names: Vec<String> =
        tables.iter().zip(&prepared).map(|(table, prepared)| format!("{}@{}", table.view.folder(), prepared.time)).collect();
    let [leader_name, follower_names @ ..] = &names[..] else { return Err(Error::bug("a commit on no table")) };
    for (number, prepared) in prepared.iter_mut().enumerate().filter(|_| !follower_names.is_empty()) {
        let with = if number == 0 { follower_names.join(",") } else { leader_name.clone() };
        prepared.commit.extra_metadata.insert(COMMITTED_WITH.to_owned(), Some(with));
    }
    let rendered = prepared.iter().map(|prepared| prepared.commit.render()).collect::<Result<Vec<_>>>()?;
    for (table, prepared) in tables.iter().zip(&prepared).rev() {
        table.ensure_alone(&prepared.time, prepared.action).await.map_err(|error| table.at(error))?;
    }
    let ([leader, followers @ ..], [own, others @ ..], [json, other_jsons @ ..]) = (tables, &prepared[..], &rendered[..]) else {
        return Err(Error::bug("a commit on no table"));
    };
    for ((follower, other), json) in followers.iter_mut().zip(others).zip(other_jsons) {
        let sibling = way(follower.view.store.base(), leader.view.store.base());
        let awaited = Awaited { sibling, instant: own.time.clone(), entry: leader.fence.next_entry() };
        let appended = follower.fence.append_awaiting(&follower.view.store, other.header(), awaited, json).await;
        appended.map_err(|error| follower.at(error))?;
    }
    leader.fence.append(&leader.view.store, own.header(), json).await.map_err(|error| leader.at(error))?;
    followers.iter_mut().for_each(|follower| follower.fence.took_effect());
    let mut done = Vec::with_capacity(prepared.len());
    let all = std::iter::once(leader).chain(followers.iter_mut());
    for ((table, prepared), json) in all.zip(prepared).zip(rendered).collect::<Vec<_>>().into_iter().rev() {
        let shown = table.show(prepared, json).await;
        done.push(shown.map_err(|error| table.at(error))?);
    }
    done.reverse();
    Ok(done)
}

/// The way from the folder in which the table at `from` lies to the table at `to`: the name of one that lies beside it, with `..` for each folder up else.
fn way(from: &Path, to: &Path) -> String {
    let (from, to): (Vec<_>, Vec<_>) = (from.parts().collect(), to.parts().collect());
    let parent = from.len().saturating_sub(1);
    let shared = from[..parent].iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = (shared..parent).map(|_| "..");
    up.chain(to[shared..].iter().map(AsRef::as_ref)).collect::<Vec<_>>().join("/")
}

/// Where that leads to.
fn found_by(from: &Path, way: &str) -> Result<Path> {
    let mut parts: Vec<_> = from.parts().collect();
    parts.pop();
    for part in way.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            let part = PathPart::parse(part);
            parts.push(part.map_err(|error| Error::new(Area::Lake, Kind::Corrupt, "a fence log names no table").caused_by(error))?);
        }
    }
    Ok(Path::from_iter(parts))
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
    let leader = TableStore::new(store.object_store().clone(), found_by(store.base(), &awaited.sibling)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_from_another_ones_folder() {
        for (from, to, written) in [
            ("lake/shop/orders_history", "lake/shop/orders", "orders"),
            ("lake/_dead_letter/shop/orders.rows", "lake/shop/orders", "../../shop/orders"),
            ("_dead_letter/a/50%25.rows", "a/50%25", "../../a/50%25"),
            ("a/b", "c", "../c"),
        ] {
            let (from, to) = (Path::parse(from).unwrap(), Path::parse(to).unwrap());
            assert_eq!(way(&from, &to), written);
            assert_eq!(found_by(&from, written).unwrap(), to);
        }
    }
}
