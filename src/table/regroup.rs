//! What gives a table's rows other files beside changes: going back to an earlier commit, and clustering.
//!
//! Both are replacecommits that end file groups and make new ones of rows that are there. Going back deletes nothing: the commits behind which the table went are
//! *undone*, which the commit that went back says ([`RESTORED_KEY`]); they can be read as of their instants, and gone back to, for as long as they are
//! retained, and who reads the table meanwhile isn't disturbed. What comes again keeps Hudi's columns: an incremental reader doesn't see it as new.

use super::commit::{FIELD_IDS_KEY, Files, Prepared};
use super::group::take_effect;
use super::rewrite::Regroup;
use super::view::RECORD_KEY_KEY;
use super::{CommitSummary, CompletedInstant, FileSlice, InstantTime, Table, TableView};
use crate::error::{Area, Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The key of a commit's `extraMetadata` that says that the table went back, and to which instant: to that of a commit, all of whose rows it has again; to
/// none (empty text), where it was emptied. The commits in between are undone. It isn't called as the keys are that a commit hands on to the next.
pub const RESTORED_KEY: &str = "binlake_restored";

/// A table that goes back.
#[derive(Debug)]
pub struct GoingBack<'a> {
    /// The table, open for writing.
    pub table: &'a mut Table,
    /// The commit whose rows it has then; `None`: it has none, as before its first.
    pub to: Option<InstantTime>,
    /// What the commit says besides: what that commit said.
    pub extra_metadata: BTreeMap<String, String>,
}

impl Table {
    /// Tables go back, all or none; the first decides, as in [`Table::commit_group`]. Gives what was done to each.
    pub async fn go_back(tables: Vec<GoingBack<'_>>) -> Result<Vec<CommitSummary>> {
        let (mut going, mut prepared) = (Vec::with_capacity(tables.len()), Vec::with_capacity(tables.len()));
        for GoingBack { table, to, extra_metadata } in tables {
            table.begin_use()?;
            let files = table.prepare_going_back(to, extra_metadata).await;
            prepared.push(files.map_err(|error| table.at(error))?);
            going.push(table);
        }
        let (first, others) = take_effect(going, prepared).await?;
        Ok(std::iter::once(first).chain(others).collect())
    }

    /// Makes large files of small ones that hold neighbouring keys, and sorts what other writers left unsorted; `None`: there is nothing to do.
    pub async fn cluster(&mut self, extra_metadata: BTreeMap<String, String>) -> Result<Option<CommitSummary>> {
        self.begin_use()?;
        let prepared = self.prepare_clustering(extra_metadata).await.map_err(|error| self.at(error))?;
        let summary = match prepared {
            Some(prepared) => Some(take_effect(vec![&mut *self], vec![prepared]).await?.0),
            None => {
                self.after_commit().await;
                None
            }
        };
        Ok(summary)
    }

    async fn prepare_going_back(&mut self, to: Option<InstantTime>, mut extra: BTreeMap<String, String>) -> Result<Prepared> {
        self.refresh().await?;
        if let Some(to) = &to {
            self.view.ensure_same_key(to, &extra)?;
        }
        let columns = self.view.columns(to.as_ref()).await?;
        let (now, then) = (self.view.slices(None)?, to.as_ref().map_or_else(|| Ok(Vec::new()), |to| self.view.slices(Some(to)))?);
        let without = |slices: &[FileSlice], others: &[FileSlice]| -> Vec<FileSlice> {
            let others: BTreeSet<String> = others.iter().map(FileSlice::path).collect();
            slices.iter().filter(|slice| !others.contains(&slice.path())).cloned().collect()
        };
        let regroup = Regroup::Again { files: without(&then, &now), ended: without(&now, &then) };
        extra.insert(RESTORED_KEY.to_owned(), to.as_ref().map_or_else(String::new, InstantTime::to_string));
        let prepared = self.write(self.regrouped(columns, regroup, &extra), "INSERT_OVERWRITE", extra, None).await?;
        prepared.ok_or_else(|| Error::bug("a commit that goes back says nothing"))
    }

    async fn prepare_clustering(&mut self, extra: BTreeMap<String, String>) -> Result<Option<Prepared>> {
        self.refresh().await?;
        if self.view.instants().is_empty() {
            return Ok(None);
        }
        let files = self.regrouped(self.view.latest_columns(), Regroup::SmallFiles, &extra);
        self.write(files, "CLUSTER", extra, None).await
    }

    fn regrouped(&self, columns: arrow::datatypes::SchemaRef, regroup: Regroup, extra: &BTreeMap<String, String>) -> Files {
        let field_ids = extra.get(FIELD_IDS_KEY).map(String::as_str).or_else(|| self.view.extra_metadata(FIELD_IDS_KEY));
        Files {
            field_ids: field_ids.map(str::to_owned),
            previous_columns: Some(columns.clone()),
            columns,
            record_key: self.record_key().to_vec(),
            fill: None,
            truncate: false,
            changes: Box::new(std::iter::empty()),
            ordering: None,
            regroup: Some(regroup),
        }
    }
}

impl TableView {
    /// Refuses to go back to a commit, which said `then`, where the table had another key: its files are sorted otherwise.
    pub fn ensure_same_key(&self, to: &InstantTime, then: &BTreeMap<String, String>) -> Result<()> {
        let now = self.extra_metadata(RECORD_KEY_KEY);
        if now.is_none() || now == then.get(RECORD_KEY_KEY).map(String::as_str) {
            return Ok(());
        }
        Err(Error::new(Area::Lake, Kind::Refused, "the table had another key then")
            .with("instant", to)
            .remedy("go back to a later commit, or have the table copied anew (`binlake backfill --table`)"))
    }
}

/// Of the completed commits `instants` (oldest first) those behind which the table went back; `restores`: which of them did, and to which.
pub(super) fn undone(instants: &[CompletedInstant], restores: &BTreeMap<InstantTime, String>) -> BTreeSet<InstantTime> {
    let mut undone: BTreeSet<InstantTime> = BTreeSet::new();
    for (restore, to) in restores.iter().rev() {
        // one that was undone itself undoes nothing
        if !undone.contains(restore) {
            let between =
                instants.iter().map(|completed| &completed.instant).filter(|time| time.as_str() > to.as_str() && *time < restore);
            undone.extend(between.cloned());
        }
    }
    undone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_undone_unless_that_is_undone() {
        let time = |day: u8| InstantTime::parse(&format!("202601{day:02}000000000")).unwrap();
        let completed: Vec<CompletedInstant> =
            (1..=9).map(|day| CompletedInstant { instant: time(day), action: "commit", is_undone: false }).collect();
        let of = |restores: &[(u8, u8)]| -> Vec<u8> {
            let restores =
                restores.iter().map(|(at, to)| (time(*at), if *to == 0 { String::new() } else { time(*to).to_string() }));
            let undone = undone(&completed, &restores.collect());
            (1..=9).filter(|day| undone.contains(&time(*day))).collect()
        };
        assert_eq!(of(&[(5, 2)]), [3, 4]);
        assert_eq!(of(&[(5, 2), (7, 4)]), [5, 6], "it went back to what was undone");
        assert_eq!(of(&[(5, 3), (8, 1)]), [2, 3, 4, 5, 6, 7]);
        assert_eq!(of(&[(4, 0)]), [1, 2, 3]);
        assert_eq!(of(&[(3, 2)]), Vec::<u8>::new());
    }
}
