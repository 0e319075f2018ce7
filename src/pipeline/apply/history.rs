//! A table's history in its commits: opened with it, folded beside it, committed with it.
//!
//! A history goes on from the commit that it was last made with. Where the table has another one by now (the history is new, or was switched off for a
//! while), it starts from the table's rows as they are: what differs from what it knows became so at that moment, as far as it can tell.

use super::children::Parents;
use super::commit::{Job, ensure_partitioned};
use super::delivery::WrittenItems;
use super::lake::LakeWriter;
use super::letters::OpenLetters;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::merge::{
    BaseRows, CHECKPOINT_KEY, Checkpoint, ENDS_KEY, HISTORY_START_KEY, HistoryChanges, HistoryInput, HistoryRule, HistoryShape,
    LateRows, POSITION_KEY, history_of,
};
use crate::table::{CommitRequest, CommitSummary, Follower, Table};
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// A table open for writing, with its history where it has one.
#[derive(Debug)]
pub(super) struct OpenTable {
    pub(super) table: Table,
    pub(super) history: Option<Table>,
    /// Those of its children that are open.
    pub(super) children: Vec<(TableId, Table)>,
    /// Its dead letters, where rows that can't be transformed become such.
    pub(super) letters: Option<OpenLetters>,
}

impl OpenTable {
    /// The tables that are committed with it: its history, then its children.
    pub(super) fn followers(&self, table: &TableId) -> Vec<(TableId, &Table)> {
        let history = self.history.iter().map(|history| (history_of(table), history));
        history.chain(self.children.iter().map(|(name, child)| (name.clone(), child))).collect()
    }
}

/// What a commit did to a table, and to those that follow it, in the order of [`OpenTable::followers`].
#[derive(Debug)]
pub(super) struct Done {
    /// `None`: items were written elsewhere.
    pub(super) table: Option<CommitSummary>,
    pub(super) followers: Vec<CommitSummary>,
    pub(super) items: Option<WrittenItems>,
}

impl Done {
    fn of(table: CommitSummary, followers: Vec<CommitSummary>) -> Self {
        Self { table: Some(table), followers, items: None }
    }
}

impl LakeWriter {
    /// Opens a table's history, the table itself being open already: it decides whether the history's last commit counts.
    pub(super) async fn open_history(&self, table: &TableId, shape: &HistoryShape) -> Result<Table> {
        let name = history_of(table);
        self.open(&name, &shape.spec(), false).await.map_err(|error| {
            let error = error.with("table", &name);
            if error.kind() != Kind::Refused {
                return error;
            }
            Error::new(Area::Lake, Kind::Data, "the table's history can't be written")
                .caused_by(error)
                .remedy("move the history's folder away (a new one then starts from the table's rows), or set `history = false`")
        })
    }
}

impl Job {
    /// Opens what belongs to the table: the history that the rule wants, the dead letters.
    pub(super) async fn opened(&self, table: Table) -> Result<OpenTable> {
        let history = match &self.history {
            None => None,
            Some(_) => {
                let lake = self.fold.shape();
                let shape = HistoryShape::new(&lake.source().table, lake.columns(), &lake.key_names(), None)?;
                Some(self.lake.open_history(&self.table, &shape).await?)
            }
        };
        let letters = match self.fold.shape().has_dead_letters() || self.lake.has_letters(&self.table).await? {
            true => Some(self.lake.open_letters(&self.table, self.fold.shape()).await?),
            false => None,
        };
        Ok(OpenTable { table, history, children: Vec::new(), letters })
    }

    /// Commits on the table, and with it on its history and its children.
    pub(super) async fn commit_on(&mut self, open: &mut OpenTable) -> Result<Done> {
        if let Some(letters) = &open.letters {
            self.fold.note_letters(letters.sink());
        }
        let orderings = open.letters.as_ref().map(OpenLetters::orderings).unwrap_or_default();
        self.fold.judge_late(LateRows::of(self.fold.shape(), &open.table, orderings)?);
        if !self.fold.truncate() {
            ensure_partitioned(&open.table, self.fold.shape())?;
        }
        self.checkpoint.lookups = match &self.before {
            Some(before) if !self.fold.truncate() => before.lookups.clone(),
            // all rows are of this commit
            _ => self.fold.marks()?,
        };
        let shape = open.history.as_ref().map(|history| self.history_shape(history)).transpose()?;
        let shapes = self.ready_children(open, shape.as_ref()).await?;
        let OpenTable { table, history, children, letters } = open;
        let of_history = match (history.as_ref(), self.history.clone()) {
            (Some(history), Some(rule)) => Some(self.history_request(&rule, table, history)?),
            _ => None,
        };
        let parents = Parents { table, history: history.as_ref().zip(shape.as_ref()) };
        let start = of_history.as_ref().and_then(|request| request.extra_metadata.get(HISTORY_START_KEY));
        let of_children = children.iter().zip(&shapes).map(|((_, child), shape)| self.child_request(shape, &parents, child, start));
        let of_children = of_children.collect::<Result<Vec<_>>>()?;
        let histories = history.iter_mut().zip(of_history);
        let others = children.iter_mut().map(|(_, child)| child).zip(of_children);
        let followers: Vec<Follower<'_>> = histories.chain(others).map(|(table, request)| Follower { table, request }).collect();
        let request = self.request()?;
        let (table, followers) = match letters {
            Some(letters) => {
                let staged = table.stage(request, followers).await?;
                letters.finish(&self.lake, table, staged, self.fold.truncate()).await?
            }
            None if followers.is_empty() => (table.commit(request).await?, Vec::new()),
            None => table.commit_group(request, followers).await?,
        };
        Ok(Done::of(table, followers))
    }

    /// The history's shape from this commit on.
    fn history_shape(&self, history: &Table) -> Result<HistoryShape> {
        let lake = self.fold.shape();
        let previous = (!history.instants().is_empty()).then(|| history.columns());
        HistoryShape::new(&lake.source().table, lake.columns(), &lake.key_names(), previous.as_deref())
    }

    /// What the commit changes in the history.
    pub(super) fn history_changes(&self, rule: &HistoryRule, table: &Table, history: &Table) -> Result<HistoryChanges> {
        let known = history.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
        let before = table.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
        let base = match &before {
            Some(before) if known.as_ref() != Some(before) && !self.fold.truncate() => Some(BaseRows {
                reader: table.row_reader(self.fold.shape().columns())?,
                source_commit_time: before.source_commit_time,
            }),
            _ => None,
        };
        let input = HistoryInput {
            fold: &self.fold,
            rule,
            history,
            previous_system_time: known.as_ref().and_then(|known| known.system_time),
            base,
            spill: self.spill.clone(),
            memory_bytes: self.lake.memory_bytes(),
        };
        input.changes()
    }

    fn history_request(&mut self, rule: &HistoryRule, table: &Table, history: &Table) -> Result<CommitRequest> {
        let known = history.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
        let before = table.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
        let folded = self.history_changes(rule, table, history)?;
        self.checkpoint.system_time = Some(folded.system_time);
        // rows that changed beside the stream are no gap
        let is_amended =
            known.iter().zip(&before).any(|(known, before)| known.at() == before.at() && known.amended < before.amended);
        let start = match (folded.base_time, history.extra_metadata(HISTORY_START_KEY)) {
            (None, Some(start)) => start.to_owned(),
            (Some(_), Some(start)) if is_amended => start.to_owned(),
            (Some(base), _) => base.to_string(),
            // an empty table's first commit: a source whose clock counts seconds says less of the next transaction than of the cut
            (None, None) => folded.first_time.unwrap_or(whole_seconds(self.checkpoint.source_commit_time)).to_string(),
        };
        if let Some(base) = folded.base_time.filter(|_| !is_amended) {
            tracing::info!(table = %self.table, history_start = %base, "the history starts from the table's rows");
        }
        let mut extra_metadata = BTreeMap::from([
            (CHECKPOINT_KEY.to_owned(), self.checkpoint.to_json()?),
            (POSITION_KEY.to_owned(), self.checkpoint.position_text()),
            (HISTORY_START_KEY.to_owned(), start),
        ]);
        if let Some(ends) = &folded.ends {
            extra_metadata.insert(ENDS_KEY.to_owned(), ends.to_json()?);
        }
        Ok(CommitRequest {
            columns: folded.shape.columns().clone(),
            record_key: Some(folded.shape.record_key()),
            fill: None,
            truncate: false,
            changes: folded.changes,
            ordering: None,
            extra_metadata,
        })
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}
