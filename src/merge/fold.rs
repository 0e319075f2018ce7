//! What one commit brings to a table: sorted, each key once, read from memory and from spilled runs.

use super::history::HistoryFold;
use super::kway::{MergedRuns, Sequence};
use super::late::{LateRows, without};
use super::letters::LetterSink;
use super::partition::PartitionNames;
use super::piece::{Gathered, Piece, SortedPiece, SortedPieces};
use super::shape::LakeShape;
use super::spill::{Run, RunReader};
use super::transformed::TransformedColumns;
use crate::error::{Error, Result};
use crate::lookup::Content;
use crate::table::SortedChanges;
use crate::transform::Frozen;
use arrow::array::RecordBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Bytes of a batch that is given to the table.
const BATCH_BYTES: usize = 8 << 20;
/// The same where runs are merged: a batch of each sequence is in memory.
const MERGED_BATCH_BYTES: usize = 512 << 10;

/// All changes of a table up to a cut. Cloning is cheap; [`Fold::changes`] can be asked for again, for a commit that is tried again.
#[derive(Debug, Clone)]
pub struct Fold {
    pub(super) shape: Arc<LakeShape>,
    pub(super) fill: Option<RecordBatch>,
    pub(super) truncate: bool,
    pub(super) is_changed: bool,
    pub(super) pieces: Vec<Arc<Piece>>,
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) names: PartitionNames,
    /// All changes, where the table has a history.
    pub(super) history: Option<HistoryFold>,
    /// What is put together once for the table and its history.
    pub(super) gathered: Option<Arc<Gathered>>,
    /// The content of the lookups that the table's transform joins, once the commit has begun.
    pub(super) frozen: Arc<OnceLock<Frozen>>,
    /// Items of lookups that are given, whatever these have by now.
    pub(super) given: BTreeMap<String, Arc<Content>>,
    /// Told of rows that can't be transformed, where these become dead letters.
    pub(super) letters: Option<LetterSink>,
    /// Where rows have an order of their own, and not all are written.
    pub(super) late: Option<LateRows>,
}

impl Fold {
    /// The table's shape from this commit on.
    pub fn shape(&self) -> &Arc<LakeShape> {
        &self.shape
    }

    /// One row: what existing rows have in columns of the lake that are new.
    pub fn fill(&self) -> Option<RecordBatch> {
        match (&self.fill, self.shape.transformed()) {
            (Some(fill), Some(transformed)) => transformed.fill(fill),
            (fill, _) => fill.clone(),
        }
    }

    /// Whether all existing rows go first.
    pub fn truncate(&self) -> bool {
        self.truncate
    }

    /// Whether the table changes at all: else only the checkpoint moves.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Changes before they are folded.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum::<usize>() + self.runs.iter().map(|run| run.rows).sum::<usize>()
    }

    /// For each batch as it came, the commit time of its first transaction in microseconds; snapshots aside.
    pub fn source_commit_times(&self) -> impl Iterator<Item = i64> {
        let pieces = self.pieces.iter().filter_map(|piece| piece.first_commit_time());
        pieces.chain(self.runs.iter().filter_map(|run| run.label.first_commit_time))
    }

    /// All changes of each key, where the table has a history.
    pub(super) fn history(&self) -> Option<&HistoryFold> {
        self.history.as_ref()
    }

    /// The changes, sorted by (partition path, key), each key once. All work is done when the iterator is read.
    pub fn changes(&self) -> Box<dyn Iterator<Item = Result<SortedChanges>> + Send> {
        if self.pieces.is_empty() && self.runs.is_empty() {
            return Box::new(std::iter::empty());
        }
        let fold = self.clone();
        let mut opened = None;
        Box::new(std::iter::from_fn(move || {
            let changes = match &mut opened {
                Some(changes) => changes,
                closed => closed.insert(fold.open()),
            };
            match changes {
                Ok(changes) => changes.next(),
                Err(_) => match std::mem::replace(changes, Ok(Box::new(std::iter::empty()))) {
                    Err(error) => Some(Err(error)),
                    Ok(_) => None,
                },
            }
        }))
    }

    fn open(&self) -> Result<Box<dyn Iterator<Item = Result<SortedChanges>> + Send>> {
        let folded = self.folded()?;
        let (shape, truncate, letters) = (self.shape.clone(), self.truncate, self.letters.clone());
        // of what was before nothing stays that could be newer
        let mut late = self.late.clone().filter(|_| !truncate);
        let folded: Box<dyn Iterator<Item = Result<SortedChanges>> + Send> = match late.clone() {
            Some(late) => {
                let shape = shape.clone();
                Box::new(folded.map(move |changes| late.after_letters(&shape, changes?)))
            }
            None => folded,
        };
        if let Some(letters) = &letters {
            letters.clear();
        }
        let transformed = self.shape.transformed().map(|all| Ok::<_, Error>((all.clone(), self.frozen(all)?))).transpose()?;
        if let Some(rule) = self.shape.refuses().cloned() {
            return Ok(Box::new(folded.map(move |changes| {
                let (changes, mut failed) = rule.refuse(changes?)?;
                let unwritten: Vec<usize> = failed.iter().map(|failure| failure.row).collect();
                let too_late = match &mut late {
                    Some(late) => late.before_present(&shape, &changes, &unwritten)?,
                    None => BTreeSet::new(),
                };
                failed.retain(|failure| !too_late.contains(&failure.row));
                letters.as_ref().map_or(Ok(()), |letters| letters.note(&shape, &changes.rows, &failed))?;
                let changes = without(changes, &too_late)?;
                match &transformed {
                    // columns of a transform that is no more: none of its expressions fails or drops a row
                    Some((transformed, lookups)) => transformed.run(&shape, &changes, lookups, truncate, None, None),
                    None => Ok(changes),
                }
            })));
        }
        let Some((transformed, lookups)) = transformed else {
            // letters of a time when rows were transformed go as well
            let Some(letters) = letters.filter(|letters| letters.count() > 0) else { return Ok(folded) };
            return Ok(Box::new(folded.map(move |changes| {
                let changes = changes?;
                letters.note(&shape, &changes.rows, &[])?;
                Ok(changes)
            })));
        };
        Ok(Box::new(
            folded.map(move |changes| transformed.run(&shape, &changes?, &lookups, truncate, letters.as_ref(), late.as_mut())),
        ))
    }

    /// The lookup of this name has these items for this commit.
    pub fn give(&mut self, lookup: &str, content: Arc<Content>) {
        self.given.insert(lookup.to_owned(), content);
    }

    /// The same for who follows the table: nobody is told again of rows that can't be transformed.
    pub fn followed(&self) -> Box<dyn Iterator<Item = Result<SortedChanges>> + Send> {
        let letters = self.letters.as_ref().map(|_| LetterSink::deaf());
        Self { letters, late: self.late.clone().map(LateRows::quiet), ..self.clone() }.changes()
    }

    /// From now on `letters` is told of the rows that can't be transformed.
    pub fn note_letters(&mut self, letters: LetterSink) {
        self.letters = Some(letters);
    }

    /// Changes that aren't written are compared by this with what is newer; `None`: they needn't be.
    pub fn judge_late(&mut self, late: Option<LateRows>) {
        self.late = late;
    }

    /// A commit is tried again: the lookups' content counts as it is by then.
    pub fn look_again(&mut self) {
        self.frozen = Arc::default();
    }

    /// The marks of the lookups' items that this commit sees: see [`Checkpoint::lookups`](super::Checkpoint::lookups).
    ///
    /// # Errors
    /// If a lookup can't be joined now.
    pub fn marks(&self) -> Result<BTreeMap<String, String>> {
        match self.shape.transformed().filter(|transformed| transformed.bound().reapplies()) {
            Some(transformed) => Ok(transformed.bound().marks(&self.frozen(transformed)?)),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The lookups' content, for the table and its history alike.
    pub(super) fn frozen(&self, transformed: &TransformedColumns) -> Result<Frozen> {
        if let Some(frozen) = self.frozen.get() {
            return Ok(frozen.clone());
        }
        let frozen = transformed.bound().freeze_with(&self.given)?;
        // who was first is right
        Ok(self.frozen.get_or_init(|| frozen).clone())
    }

    /// Before the table's transform.
    fn folded(&self) -> Result<Box<dyn Iterator<Item = Result<SortedChanges>> + Send>> {
        let mut names = self.names.clone();
        let batch_bytes = if self.runs.is_empty() { BATCH_BYTES } else { MERGED_BATCH_BYTES };
        let memory = SortedPieces::new(&self.shape, self.pieces.clone(), self.fill.as_ref(), &mut names, batch_bytes)?;
        let memory = memory.sharing(self.gathered.as_ref());
        if self.runs.is_empty() {
            return Ok(Box::new(memory.map(|piece| piece.map(SortedPiece::into_changes))));
        }
        let mut sequences: Vec<Sequence> = Vec::with_capacity(self.runs.len() + 1);
        for run in &self.runs {
            sequences.push(Box::new(RunReader::new(run, &self.shape, self.fill.clone())?));
        }
        if memory.len() > 0 {
            sequences.push(Box::new(memory));
        }
        Ok(Box::new(MergedRuns::new(&self.shape, names.ranks(), sequences)?.map(|piece| piece.map(SortedPiece::into_changes))))
    }
}
