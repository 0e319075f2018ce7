//! One commit of one table: opened, tried until it is done, and never done twice.
//!
//! A failed attempt may have taken effect. So each attempt after the first opens the table again and reads the checkpoint of its last
//! commit: our own means that it is done; the one that we started from means that it isn't; any other is another service's, which gave
//! the table a commit since: then this one gives way.

use super::history::{Done, OpenTable};
use super::joined::JoinedTable;
use super::lake::LakeWriter;
use super::prefetch::prefetched;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::format::ChildSpecs;
use crate::merge::{
    CHECKPOINT_KEY, Checkpoint, FIRST_WINDOW_KEY, Fold, HistoryRule, LakeShape, PARTITIONED_KEY, POSITION_KEY, SpillFolder,
    TRANSFORMED_KEY,
};
use crate::table::{CommitRequest, Table, is_taken};
use crate::transform::ROWS_WAIT;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The pauses between attempts grow from this …
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A commit to be done.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) table: TableId,
    pub(super) lake: LakeWriter,
    /// The table, if it is open.
    pub(super) writer: Option<OpenTable>,
    /// How its history is kept; `None`: there is none.
    pub(super) history: Option<HistoryRule>,
    /// Lists in its rows that are tables of their own.
    pub(super) children: ChildSpecs,
    pub(super) fold: Fold,
    /// Where what doesn't fit memory waits.
    pub(super) spill: SpillFolder,
    /// What the last commit said.
    pub(super) before: Option<Checkpoint>,
    pub(super) checkpoint: Checkpoint,
    /// The window of its first change.
    pub(super) first_window: CutPoint,
    /// Tables that it joins, as of the cut.
    pub(super) joined: Vec<JoinedTable>,
    /// Becomes true when the loop ends: what waits for items then needn't be waited for. `None`: it never does.
    pub(super) let_go: Option<watch::Receiver<bool>>,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) table: TableId,
    pub(super) checkpoint: Checkpoint,
    pub(super) took: Duration,
    /// The table, open, unless items are delivered; and what was done: `None` if an earlier attempt whose answer was lost did it.
    pub(super) done: Result<(Option<OpenTable>, Option<Done>)>,
    pub(super) fold: Fold,
}

/// Why an attempt failed.
pub(super) enum Failed {
    Again(Error),
    ForGood(Error),
}

impl Failed {
    pub(super) fn of(error: Error) -> Self {
        if error.is_transient() { Self::Again(error) } else { Self::ForGood(error) }
    }

    /// Why a commit on an open table failed.
    pub(super) async fn on(table: &mut Table, lake: &LakeWriter, error: Error) -> Self {
        if lake.is_shared()
            && let Err(taken) = table.ensure_ours().await
            && is_taken(&taken)
        {
            // it was given to another worker
            return Self::ForGood(taken);
        }
        // who came in between, opening the table again will tell: Spark's commit is built upon, another service's is given way to
        if error.kind() == Kind::Conflict { Self::Again(error) } else { Self::of(error) }
    }
}

impl Job {
    /// Commits, for as long as failures are transient.
    pub(super) async fn run(mut self) -> Outcome {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let done = loop {
            match self.attempt().await {
                Err(Failed::Again(error)) => {
                    tracing::warn!(table = %self.table, %error, "a commit is tried again");
                    if self.is_let_go(&error, pause).await {
                        break Err(error);
                    }
                    // it may have failed for want of an item
                    self.fold.look_again();
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(Failed::ForGood(error)) => break Err(error.with("table", &self.table)),
                Ok(done) => break Ok(done),
            }
        };
        Outcome { table: self.table, checkpoint: self.checkpoint, took: started.elapsed(), done, fold: self.fold }
    }

    /// Waits before the next attempt. Says whether there is none: rows that wait for items may do so for ever, and the loop that is to end waits for them.
    async fn is_let_go(&mut self, error: &Error, pause: Duration) -> bool {
        match self.let_go.as_mut().filter(|_| error.what() == ROWS_WAIT) {
            Some(let_go) => tokio::select! {
                biased;
                ends = let_go.wait_for(|ends| *ends) => ends.is_ok(),
                () = tokio::time::sleep(pause) => false,
            },
            None => {
                tokio::time::sleep(pause).await;
                false
            }
        }
    }

    async fn attempt(&mut self) -> Result<(Option<OpenTable>, Option<Done>), Failed> {
        for joined in &self.joined {
            if let Some(content) = joined.content(self.lake.lake()).await.map_err(Failed::of)? {
                self.fold.give(joined.lookup.name(), content);
            }
        }
        if let Some(delivery) = self.lake.delivery() {
            let written = delivery.write(&self.fold, self.before.as_ref(), &self.checkpoint, &self.spill).await;
            let written = written.map_err(Failed::of)?;
            return Ok((None, Some(Done { table: None, followers: Vec::new(), items: Some(written) })));
        }
        let mut open = match self.writer.take() {
            Some(open) => open,
            None => {
                let table =
                    self.lake.open(&self.table, &self.fold.shape().spec(), self.fold.truncate()).await.map_err(Failed::of)?;
                let found = table.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose().map_err(Failed::of)?;
                if found.as_ref() == Some(&self.checkpoint) {
                    let open = self.opened(table).await.map_err(Failed::of)?;
                    return Ok((Some(open), None));
                }
                if found != self.before {
                    return Err(Failed::ForGood(another_service()));
                }
                self.opened(table).await.map_err(Failed::of)?
            }
        };
        match self.commit_on(&mut open).await {
            Ok(done) => Ok((Some(open), Some(done))),
            Err(error) => Err(Failed::on(&mut open.table, &self.lake, error).await),
        }
    }

    pub(super) fn request(&self) -> Result<CommitRequest> {
        let mut extra_metadata = extra_metadata(&self.checkpoint, self.fold.shape())?;
        extra_metadata.insert(FIRST_WINDOW_KEY.to_owned(), self.first_window.to_string());
        Ok(CommitRequest {
            columns: self.fold.shape().columns().clone(),
            record_key: Some(self.fold.shape().key_names()),
            fill: self.fold.fill(),
            truncate: self.fold.truncate(),
            changes: prefetched(&self.fold),
            ordering: self.fold.shape().ordering().map(str::to_owned),
            extra_metadata,
        })
    }
}

/// What a commit says about stream and source.
pub(super) fn extra_metadata(checkpoint: &Checkpoint, shape: &LakeShape) -> Result<BTreeMap<String, String>> {
    let mut extra_metadata =
        BTreeMap::from([(CHECKPOINT_KEY.to_owned(), checkpoint.to_json()?), (POSITION_KEY.to_owned(), checkpoint.position_text())]);
    if shape.is_transformed() {
        extra_metadata.insert(TRANSFORMED_KEY.to_owned(), "true".to_owned());
    }
    // also that there is none any more
    if let Some(mark) = shape.partition_mark().or_else(|| shape.is_partitioned().then_some("")) {
        extra_metadata.insert(PARTITIONED_KEY.to_owned(), mark.to_owned());
    }
    Ok(extra_metadata)
}

/// Rows lie where the expressions say by which the table is partitioned: with others they would be looked for elsewhere.
pub(super) fn ensure_partitioned(table: &Table, shape: &LakeShape) -> Result<()> {
    if table.instants().is_empty()
        || table.extra_metadata(PARTITIONED_KEY).unwrap_or_default() == shape.partition_mark().unwrap_or_default()
    {
        return Ok(());
    }
    Err(Error::new(Area::Lake, Kind::Data, "the expression by which the table is partitioned has changed")
        .remedy("run `binlake backfill --table` for it: its rows are then written anew; or take the change back"))
}

pub(super) fn another_service() -> Error {
    Error::new(Area::Lake, Kind::Conflict, "another binlake service writes to this lake")
        .remedy("run one service for a lake, or let this one take over after the other has stopped")
}
