//! Commits that bring nothing new from the stream: rows are joined anew because a lookup's items changed, and dead letters are tried again.
//!
//! They carry the checkpoint of the commit before, counted, so for stream and source they have not happened. What waits meanwhile comes later and wins. A
//! history and children don't have what is done here; by the count the next commit sees it, and brings them along.

use super::commit::{FIRST_PAUSE, Failed, LONGEST_PAUSE, another_service, extra_metadata};
use super::history::OpenTable;
use super::lake::LakeWriter;
use crate::error::{Error, Result};
use crate::event::{CutPoint, Lane, Section, TableId};
use crate::merge::{CHECKPOINT_KEY, Checkpoint, LakeShape, LateRows, ReapplyInput, RowLetter, TablePending, Treatment};
use crate::pipeline::row_letters::{asked_row_retries, changes_of_letters, done_row_retries};
use crate::table::{CommitRequest, CommitSummary};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What may have to be done to a table.
#[derive(Debug)]
pub(super) struct Amend {
    pub(super) table: TableId,
    pub(super) lake: LakeWriter,
    /// The table, if it is open.
    pub(super) writer: Option<OpenTable>,
    /// Whether the table has a history: it is brought along by the next commit.
    pub(super) has_history: bool,
    pub(super) treatment: Treatment,
    pub(super) shape: Arc<LakeShape>,
    /// What the last commit said.
    pub(super) before: Checkpoint,
    /// Whether rows have items that their lookups no longer have.
    pub(super) is_stale: bool,
    /// Whether dead letters are tried again that are asked for.
    pub(super) tries_letters: bool,
    /// Whether the table has dead letters, or may have: also of a time when the rules were others.
    pub(super) has_letters: bool,
    /// What commits of ours say that may have taken effect though they failed.
    pub(super) tried: Vec<Checkpoint>,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Amended {
    pub(super) table: TableId,
    pub(super) took: Duration,
    /// The table, if it is still open.
    pub(super) writer: Option<OpenTable>,
    /// Whether the table has dead letters, or may have.
    pub(super) has_letters: bool,
    /// `None`: nothing had to be done. What the last commit says now, and what was done, where that is known.
    pub(super) done: Result<Option<(Checkpoint, Option<CommitSummary>)>>,
}

impl Amend {
    /// Does it, for as long as failures are transient.
    pub(super) async fn run(mut self) -> Amended {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let done = loop {
            match self.attempt().await {
                Err(Failed::Again(error)) => {
                    tracing::warn!(table = %self.table, %error, "a commit is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(Failed::ForGood(error)) => break Err(error.with("table", &self.table)),
                Ok(done) => break Ok(done),
            }
        };
        // one that was opened without its history is opened again with it
        let writer = self.writer.take().filter(|open| open.history.is_some() || !self.has_history);
        Amended { table: self.table, took: started.elapsed(), writer, has_letters: self.has_letters, done }
    }

    async fn attempt(&mut self) -> Result<Option<(Checkpoint, Option<CommitSummary>)>, Failed> {
        let is_open = self.writer.as_ref().is_some_and(|open| open.letters.is_some());
        let may_have = is_open || self.shape.has_dead_letters();
        if !may_have && self.has_letters {
            self.has_letters = self.lake.has_letters(&self.table).await.map_err(Failed::of)?;
        }
        let has_letters = may_have || self.has_letters;
        let asked = match has_letters && self.tries_letters {
            true => asked_row_retries(self.lake.lake(), &self.table).await.map_err(Failed::of)?,
            false => Vec::new(),
        };
        if asked.is_empty() && !self.is_stale {
            return Ok(None);
        }
        let mut open = match self.writer.take() {
            Some(open) => open,
            None => {
                let table = self.lake.open(&self.table, &self.shape.spec(), false).await.map_err(Failed::of)?;
                let found = table.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose().map_err(Failed::of)?;
                match found.filter(|found| *found == self.before || self.tried.contains(found)) {
                    None => return Err(Failed::ForGood(another_service())),
                    Some(found) => {
                        self.is_stale &= found.lookups == self.before.lookups;
                        self.before = found;
                    }
                }
                let letters = if has_letters {
                    Some(self.lake.open_letters(&self.table, &self.shape).await.map_err(Failed::of)?)
                } else {
                    None
                };
                OpenTable { table, history: None, children: Vec::new(), letters }
            }
        };
        match self.amend(&mut open, &asked).await {
            Ok(done) => {
                done_row_retries(self.lake.lake(), &asked).await;
                self.writer = Some(open);
                Ok(Some(done))
            }
            Err(error) => Err(Failed::on(&mut open.table, &self.lake, error).await),
        }
    }

    async fn amend(
        &mut self,
        open: &mut OpenTable,
        asked: &[(object_store::path::Path, BTreeSet<String>)],
    ) -> Result<(Checkpoint, Option<CommitSummary>)> {
        let (mut now, mut summary) = (self.before.clone(), None);
        let positions: BTreeSet<&String> = asked.iter().flat_map(|(_, positions)| positions).collect();
        if !positions.is_empty() {
            let next = now.amended(now.lookups.clone());
            self.tried.push(next.clone());
            summary = self.retry(open, &positions, &next).await?;
            now = if summary.is_some() { next } else { now };
        }
        if self.is_stale {
            let (next, done) = self.reapply(open, &now).await?;
            (now, summary) = (next, Some(done));
        }
        Ok((now, summary))
    }

    /// Tries the letters at these positions again: those whose rows can be transformed now are rows and no letters any more.
    async fn retry(&self, open: &mut OpenTable, positions: &BTreeSet<&String>, next: &Checkpoint) -> Result<Option<CommitSummary>> {
        let OpenTable { table, letters: Some(letters), .. } = open else { return Ok(None) };
        let wanted: Vec<RowLetter> =
            letters.read().await?.into_iter().filter(|letter| positions.contains(&letter.position)).collect();
        let batch = changes_of_letters(self.shape.source(), &wanted)?;
        if batch.is_empty() {
            return Ok(None);
        }
        // as if they came from a stream of their own
        let treatment = Treatment { keeps_all: false, ..self.treatment.clone() };
        let mut pending = TablePending::new(self.table.clone(), treatment, None);
        let at = CutPoint { epoch: self.before.epoch, number: self.before.cut };
        pending.take_section(Lane(0), at, &Section::Rows(batch))?;
        let taken = pending.take(at, &self.before.position)?;
        let mut fold = taken.ok_or_else(|| Error::bug("dead letters have no shape"))?;
        fold.note_letters(letters.sink());
        fold.judge_late(LateRows::of(&self.shape, table, letters.orderings())?);
        let request = CommitRequest {
            columns: self.shape.columns().clone(),
            record_key: Some(self.shape.key_names()),
            fill: None,
            truncate: false,
            changes: fold.changes(),
            ordering: self.shape.ordering().map(str::to_owned),
            extra_metadata: extra_metadata(next, &self.shape)?,
        };
        let staged = table.stage(request, Vec::new()).await?;
        let (summary, _) = letters.finish(&self.lake, table, staged, false).await?;
        tracing::info!(table = %self.table, letters = wanted.len(), rows = summary.inserted + summary.updated, "dead letters were tried again");
        Ok(Some(summary))
    }

    /// Joins the table's rows anew; those that change are written.
    async fn reapply(&mut self, open: &mut OpenTable, now: &Checkpoint) -> Result<(Checkpoint, CommitSummary)> {
        let transform = self.shape.transform().ok_or_else(|| Error::bug("a table without a transform is joined anew"))?;
        let lookups = transform.freeze()?;
        let after = now.amended(transform.marks(&lookups));
        self.tried.push(after.clone());
        let request = CommitRequest {
            columns: self.shape.columns().clone(),
            record_key: Some(self.shape.key_names()),
            fill: None,
            truncate: false,
            changes: ReapplyInput::new(self.shape.clone(), lookups, &open.table)?.changes(),
            ordering: self.shape.ordering().map(str::to_owned),
            extra_metadata: extra_metadata(&after, &self.shape)?,
        };
        let summary = open.table.commit(request).await?;
        tracing::info!(table = %self.table, rows = summary.updated, "rows were joined anew: a lookup's items changed");
        Ok((after, summary))
    }
}
