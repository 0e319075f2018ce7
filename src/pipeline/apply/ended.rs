//! What begins beside what the stream brings, and what the end of a commit's task means for the loop.

use super::amend::Amended;
use super::commit::Outcome;
use super::delivery::WrittenItems;
use super::ruled::Edge;
use super::tables::AppliedTable;
use super::{Applied, AppliedCommit, Apply, Contents, is_past};
use crate::error::{Kind, Result};
use crate::event::TableId;
use crate::merge::Checkpoint;
use crate::pipeline::status::{CommittedRows, LastCommit, Status};
use crate::table::CommitSummary;
use crate::time::Timestamp;
use std::time::Duration;

/// A task that has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A commit of what the stream brought.
    Commit(Box<Outcome>),
    /// One that brings nothing new of it.
    Amend(Box<Amended>),
}

impl Apply {
    /// Starts what is due beside what the stream brings.
    pub(super) fn start_amends(&mut self, is_last: bool) -> Result<()> {
        if is_last || self.is_unresolved() {
            return Ok(());
        }
        let due = |applied: &AppliedTable| applied.amend_due(&self.config.cadence).is_some_and(is_past);
        let due: Vec<TableId> = self.tables.iter().filter(|(_, applied)| due(applied)).map(|(table, _)| table.clone()).collect();
        // who asks for dead letters to be tried again has corrected the rules
        let tries_letters = self.edge.as_ref().is_none_or(Edge::is_newest);
        for table in due {
            let Some(applied) = self.tables.get_mut(&table) else { continue };
            match applied.amend(&table, &self.lake, tries_letters) {
                Ok(Some(amend)) => {
                    self.running.spawn(async { Ended::Amend(Box::new(Box::pin(amend.run()).await)) });
                }
                Ok(None) => {}
                Err(error) => self.fail(&table, error)?,
            }
        }
        Ok(())
    }

    pub(super) fn finish_amend(&mut self, amended: Amended) -> Result<()> {
        let table = amended.table.clone();
        let Some(applied) = self.tables.get_mut(&table) else { return Ok(()) };
        let contents = amended.writer.as_ref().map(|open| Contents::of(&open.table)).transpose()?;
        match applied.amended(&self.status, amended) {
            Ok(None) => {}
            Ok(Some((checkpoint, summary))) => {
                if contents.is_some() && summary.is_some() {
                    let _ = self.told.send(Applied::Commit(Box::new(AppliedCommit {
                        table,
                        checkpoint,
                        summary,
                        items: None,
                        contents,
                    })));
                }
            }
            Err(error) if self.is_given_way(&table, &error) => {}
            Err(error) => self.fail(&table, error)?,
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Result<()> {
        let Outcome { table, checkpoint, took, done, fold } = outcome;
        // one that was lost meanwhile is another's
        if !self.tables.contains_key(&table) {
            return Ok(());
        }
        let (writer, done) = match done {
            Ok(done) => done,
            Err(error) if self.is_given_way(&table, &error) => return Ok(()),
            Err(error) if error.kind() == Kind::Data && self.outlives(&table, &checkpoint) => return Ok(()),
            // the loop ends, and the rows wait for items
            Err(error) if error.is_transient() => {
                tracing::info!(%table, "what waits for items is read again by the next loop");
                self.tables.get_mut(&table).into_iter().for_each(AppliedTable::let_go);
                return Ok(());
            }
            Err(error) => return self.fail(&table, error),
        };
        let Some(applied) = self.tables.get_mut(&table) else { return Ok(()) };
        let contents = writer.as_ref().map(|writer| Contents::of(&writer.table)).transpose()?;
        let items = done.as_ref().and_then(|done| done.items);
        let (summary, of_followers) = done.map_or((None, Vec::new()), |done| (done.table, done.followers));
        let mut followers = Vec::new();
        for (number, (name, follower)) in writer.iter().flat_map(|writer| writer.followers(&table)).enumerate() {
            let summary = of_followers.get(number).cloned();
            let (contents, checkpoint) = (Some(Contents::of(follower)?), checkpoint.clone());
            followers.push(AppliedCommit { table: name, checkpoint, summary, items: None, contents });
        }
        applied.committed(&self.status, &table, writer, summary.as_ref(), items, &checkpoint, took, &fold);
        let resume = checkpoint.resume.clone();
        let last_cut = self.last_cut.as_ref();
        let is_needed = |table: &TableId| last_cut.is_none_or(|reached| reached.cut.tables.contains_key(table));
        let unneeded = self.progress.committed(&table, resume, is_needed);
        self.note_commit(&table, &checkpoint);
        // with others, what all of them have counts
        if self.shared.is_none() && unneeded.is_some() {
            self.to_release = unneeded;
        }
        // nobody listens where nobody asked
        for follower in followers {
            let _ = self.told.send(Applied::Commit(Box::new(follower)));
        }
        let is_delivered = contents.is_none() && items.is_some();
        let shown = self.lake.delivery().filter(|_| is_delivered).map_or(table, |delivery| delivery.shown().clone());
        if contents.is_some() || is_delivered {
            let _ = self.told.send(Applied::Commit(Box::new(AppliedCommit { table: shown, checkpoint, summary, items, contents })));
        }
        Ok(())
    }

    /// Whether a table whose commit failed is being read anew already.
    fn outlives(&mut self, table: &TableId, failed: &Checkpoint) -> bool {
        let outlives = self.tables.get_mut(table).is_some_and(|applied| applied.outlives(failed.at()));
        if outlives {
            tracing::info!(%table, "what could not be committed is read anew");
        }
        outlives
    }
}

/// A commit is visible, from the moment on that is given.
pub(super) fn tell(
    status: &Status,
    table: &TableId,
    summary: Option<&CommitSummary>,
    items: Option<WrittenItems>,
    checkpoint: &Checkpoint,
    took: Duration,
) -> Timestamp {
    let visible_at = Timestamp::now();
    let rows = summary.map(CommittedRows::from).or(items.map(CommittedRows::from)).unwrap_or_default();
    tracing::info!(
        table = %status.shown(table),
        cut = %checkpoint.at(),
        inserted = rows.inserted,
        updated = rows.updated,
        deleted = rows.deleted,
        millis = took.as_millis() as u64,
        "committed"
    );
    let last = LastCommit {
        instant: summary.map(|summary| summary.instant.to_string()).unwrap_or_default(),
        visible_at,
        source_commit_time: checkpoint.source_commit_time,
        position: checkpoint.position_text(),
        took,
    };
    status.committed(table, rows, last);
    visible_at
}
