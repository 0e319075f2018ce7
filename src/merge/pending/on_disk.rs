//! What waits on local disk, and what a history takes of all that waits.

use super::{RUN_BATCH_BYTES, TablePending};
use crate::error::Result;
use crate::event::CutPoint;
use crate::merge::history::{Came, HistoryFold, MOST_ENDS, SourceOrder, Truncated};
use crate::merge::piece::{Piece, SortedPieces};
use crate::merge::rule::Treatment;
use crate::merge::shape::LakeShape;
use crate::merge::spill::{Run, RunLabel, SpillFolder};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

impl TablePending {
    /// Moves rows to local disk: those up to `reached` as one run, those of each window that isn't closed yet as one of its own.
    /// Returns how many bytes of memory that freed.
    pub fn spill(&mut self, folder: &SpillFolder, reached: Option<CutPoint>) -> Result<usize> {
        let before = self.bytes();
        let mut groups: HashMap<(bool, Option<CutPoint>, u64), Vec<Arc<Piece>>> = HashMap::new();
        let (kept, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pieces)
            .into_iter()
            .partition(|piece| self.taken.as_ref().is_some_and(|(taken, _)| piece.place.closing <= *taken));
        self.pieces = kept;
        let generation = reached.and_then(|reached| self.last_truncation(reached)).unwrap_or(0);
        for piece in moved {
            let is_reached = reached.is_some_and(|reached| piece.place.closing <= reached);
            if is_reached && piece.place.generation < generation && !self.treatment.keeps_all {
                // no commit will want it, and it may not fit the shape that came with the truncation
                continue;
            }
            let group = (is_reached, (!is_reached).then_some(piece.place.closing), piece.place.generation);
            groups.entry(group).or_default().push(piece);
        }
        for pieces in groups.into_values() {
            if self.treatment.keeps_all
                && let Some(run) = self.write_run(folder, pieces.clone(), true)?
            {
                self.full_runs.push(Arc::new(run));
            }
            if let Some(run) = self.write_run(folder, pieces, false)? {
                self.runs.push(Arc::new(run));
            }
        }
        Ok(before - self.bytes())
    }

    fn write_run(&mut self, folder: &SpillFolder, pieces: Vec<Arc<Piece>>, is_full: bool) -> Result<Option<Run>> {
        let closings = || pieces.iter().map(|piece| piece.place.closing);
        let (Some(first), Some(last)) = (closings().min(), closings().max()) else { return Ok(None) };
        // rows wait as they came: the table's transform may not be ready yet, but for what says where they lie
        let Some(schema) = self.schema_at(last)? else { return Ok(None) };
        let fields = self.treatment.partition_by.iter().flat_map(|by| &by.fields);
        let names: Vec<&str> = fields.map(|field| field.column.as_str()).collect();
        let transform = self.treatment.transform.as_ref().and_then(|transform| transform.of_partitions(&names));
        let treatment = Treatment { transform, kept: None, ..self.treatment.clone() };
        let shape = Arc::new(LakeShape::treated(schema, &treatment)?);
        let label = RunLabel {
            first_closing: first,
            last_closing: last,
            generation: pieces[0].place.generation,
            first_commit_time: pieces.iter().filter_map(|piece| piece.first_commit_time()).min(),
        };
        let fill = self.fill_at(last, &shape)?;
        if is_full {
            let transactions = pieces.iter().flat_map(|piece| piece.source_transactions().collect::<Vec<_>>()).collect();
            let arrivals = pieces.iter().map(|piece| (piece.place.arrival, piece.place.closing.epoch)).collect();
            let ends: BTreeSet<_> = pieces.iter().flat_map(|piece| piece.ends(false)).take(MOST_ENDS + 1).collect();
            let ends = (ends.len() <= MOST_ENDS).then(|| ends.into_iter().collect());
            let sorted = SortedPieces::all(&shape, pieces, fill.as_ref(), RUN_BATCH_BYTES)?;
            return Run::write(folder, &shape, label, sorted).map(|run| Some(run.with_transactions(transactions, arrivals, ends)));
        }
        let sorted = SortedPieces::new(&shape, pieces, fill.as_ref(), &mut self.names, RUN_BATCH_BYTES)?;
        Run::write(folder, &shape, label, sorted).map(Some)
    }

    /// All changes up to the cut `at`. Of before a snapshot that began anew nothing counts: what it finds is compared with what the history has.
    pub(super) fn history(&self, at: CutPoint) -> HistoryFold {
        let truncations = || self.truncations.iter().filter(|truncation| truncation.closing <= at);
        let snapshot =
            truncations().filter(|truncation| truncation.stamp.is_snapshot).map(|truncation| truncation.generation).max();
        let snapshot = snapshot.unwrap_or(0);
        let is_in = |closing: CutPoint, generation: u64| closing <= at && generation >= snapshot;
        let seen_before = self.seen_before.iter().map(SourceOrder::at);
        let mut seen_before: Vec<SourceOrder> = seen_before.collect();
        seen_before.sort_unstable();
        HistoryFold {
            seen_before,
            pieces: self.pieces.iter().filter(|piece| is_in(piece.place.closing, piece.place.generation)).cloned().collect(),
            runs: self.full_runs.iter().filter(|run| is_in(run.label.last_closing, run.label.generation)).cloned().collect(),
            truncations: truncations()
                .filter(|truncation| truncation.generation >= snapshot)
                .map(|truncation| Truncated {
                    came: Came {
                        epoch: truncation.closing.epoch,
                        order: SourceOrder::of(&truncation.stamp, truncation.arrival, 0),
                        source_commit_time: truncation.stamp.source_commit_time.as_micros(),
                    },
                    position: truncation.stamp.position_text(),
                    is_snapshot: truncation.stamp.is_snapshot,
                })
                .collect(),
        }
    }
}
