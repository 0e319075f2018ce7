//! What one table has on the stream and not yet in the lake.
//!
//! Rows arrive lane by lane, and a lane may be windows ahead of another. Three facts make the fold right all the same:
//!
//! - all changes of one key are on one lane, so the order of arrival is the order of the source for each key;
//! - a truncation is on every lane: rows carry the number of the last one that their lane has seen (their *generation*), and at a cut all
//!   lanes have seen the same truncations, so rows of older generations than the cut's are gone;
//! - a new producer may send again what an older one sent before the last cut that was reached. What the table's last commit covers is
//!   skipped, by the commit that was the last (or under way) when the producer was first seen: the same one on all lanes. What comes twice besides
//!   changes nothing, as the last change of each key is the same, provided that no commit is made at a cut which lies before one that was reached;
//! - rows keep the shape that they came in until they are sorted, and are then brought to the shape as of the cut, by name.

mod on_disk;

use super::fold::Fold;
use super::history::HistoryFold;
use super::partition::PartitionNames;
use super::piece::{Piece, Place, gathered};
use super::rule::Treatment;
use super::shape::{LakeShape, data};
use super::spill::Run;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{
    BinlogCoordinates, CutPoint, Epoch, GtidSet, Lane, Section, SourcePosition, TableId, TableSchema, TransactionStamp,
};
use arrow::array::RecordBatch;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Bytes of a batch in a spilled run: many runs are read at once.
const RUN_BATCH_BYTES: usize = 256 << 10;

/// What the lake has of a table.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The cut of the last commit; `None` if that was on another stream.
    pub at: Option<CutPoint>,
    /// The source's position of the last commit.
    pub position: SourcePosition,
    /// The source's shape as of the last commit.
    pub schema: Arc<TableSchema>,
}

/// A change of shape that waits for its commit.
#[derive(Debug)]
struct NewShape {
    closing: CutPoint,
    schema: Arc<TableSchema>,
    fill: Option<RecordBatch>,
}

/// A truncation that waits for its commit.
#[derive(Debug)]
struct Truncation {
    closing: CutPoint,
    stamp: TransactionStamp,
    /// Numbers rise in the order of the source.
    generation: u64,
    /// How many pieces had come before.
    arrival: u64,
}

/// One table's rows, truncations and shapes that wait for their commit.
#[derive(Debug)]
pub struct TablePending {
    table: TableId,
    treatment: Treatment,
    /// The last shape that was asked for: making one compiles the table's transform.
    shape: Option<Arc<LakeShape>>,
    committed: Option<Committed>,
    /// The latest producer, and the position of the table's commit when it was first seen: it covers what is sent again.
    covered: Option<(Epoch, Option<SourcePosition>)>,
    /// A snapshot began in this window: nothing that came after it is covered.
    snapshot_began: Option<CutPoint>,
    /// The same for each lane, by the producer's epoch: the lanes come to it one after the other.
    snapshot_lanes: HashMap<Lane, Epoch>,
    /// The last cut at which all of the table was on the stream.
    whole_at: Option<CutPoint>,
    /// The high watermarks of snapshots that are under way: what lies behind them is in none of their rows.
    seen_before: BTreeSet<BinlogCoordinates>,
    /// Up to here all is in a commit that runs, which carries the position.
    taken: Option<(CutPoint, SourcePosition)>,
    shapes: Vec<NewShape>,
    /// The shape of the first rows: the table's, where no other was announced.
    first_seen: Option<Arc<TableSchema>>,
    truncations: Vec<Truncation>,
    /// The number of the last truncation that each lane has seen.
    generations: HashMap<Lane, u64>,
    last_generation: u64,
    pieces: Vec<Arc<Piece>>,
    runs: Vec<Arc<Run>>,
    /// What was spilled, with all changes of each key, for a history.
    full_runs: Vec<Arc<Run>>,
    names: PartitionNames,
    arrivals: u64,
}

impl TablePending {
    /// Nothing is pending for `table`; the lake has `committed`.
    pub fn new(table: TableId, treatment: Treatment, committed: Option<Committed>) -> Self {
        Self {
            table,
            treatment,
            shape: None,
            committed,
            covered: None,
            snapshot_began: None,
            snapshot_lanes: HashMap::new(),
            whole_at: None,
            seen_before: BTreeSet::new(),
            taken: None,
            shapes: Vec::new(),
            first_seen: None,
            truncations: Vec::new(),
            generations: HashMap::new(),
            last_generation: 0,
            pieces: Vec::new(),
            runs: Vec::new(),
            full_runs: Vec::new(),
            names: PartitionNames::default(),
            arrivals: 0,
        }
    }

    /// What the lake has.
    pub fn committed(&self) -> Option<&Committed> {
        self.committed.as_ref()
    }

    /// The position of the last commit is one on another stream: it covers nothing of this one.
    pub fn forget_position(&mut self) {
        if let Some(committed) = &mut self.committed {
            committed.position.gtid_set = Some(GtidSet::default());
            committed.position.coordinates.offset = 0;
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// Bytes in memory of what waits for a cut at or before `at`.
    pub fn bytes_up_to(&self, at: CutPoint) -> usize {
        self.pieces.iter().filter(|piece| piece.place.closing <= at).map(|piece| piece.bytes).sum()
    }

    /// Rows that wait, in memory and on disk, for a cut at or before `at`.
    pub fn rows_up_to(&self, at: CutPoint) -> usize {
        let pieces = self.pieces.iter().filter(|piece| piece.place.closing <= at).map(|piece| piece.len());
        let runs = self.runs.iter().filter(|run| run.label.last_closing <= at).map(|run| run.rows);
        pieces.chain(runs).sum()
    }

    /// The window of the first thing that waits.
    pub fn first_window(&self) -> Option<CutPoint> {
        self.windows().min()
    }

    /// The window of the first thing that waits for a cut after `at`.
    pub fn first_window_after(&self, at: CutPoint) -> Option<CutPoint> {
        self.windows().filter(|window| *window > at).min()
    }

    fn windows(&self) -> impl Iterator<Item = CutPoint> {
        let pieces = self.pieces.iter().map(|piece| piece.place.closing);
        let runs = self.runs.iter().map(|run| run.label.first_closing);
        let shapes = self.shapes.iter().map(|shape| shape.closing);
        pieces.chain(runs).chain(shapes).chain(self.truncations.iter().map(|truncation| truncation.closing))
    }

    /// Whether a commit at `at` would change the table.
    pub fn has_changes(&self, at: CutPoint) -> bool {
        self.shapes.iter().any(|shape| shape.closing <= at)
            || self.truncations.iter().any(|truncation| truncation.closing <= at)
            || self.rows_up_to(at) > 0
    }

    /// Takes a section of `lane`, in the window that `closing` ends.
    pub fn take_section(&mut self, lane: Lane, closing: CutPoint, section: &Section) -> Result<()> {
        if self.committed.as_ref().and_then(|committed| committed.at).is_some_and(|at| closing <= at) {
            return Ok(());
        }
        self.meet(closing.epoch);
        let is_covered = |stamp: &TransactionStamp| self.is_covered(lane, closing.epoch, stamp);
        match section {
            Section::Rows(batch) => {
                let place = Place { closing, generation: self.generation(lane), arrival: self.arrivals };
                let piece = Piece::new(place, batch, self.treatment.keeps_all, |i| is_covered(&batch.transactions[i]))?;
                if let Some(piece) = piece {
                    self.first_seen.get_or_insert_with(|| batch.schema.clone());
                    self.arrivals += 1;
                    self.pieces.push(Arc::new(piece));
                }
            }
            Section::Truncate { stamp, .. } if !is_covered(stamp) => self.truncate(lane, closing, stamp),
            Section::NewShape { schema, fill, stamp } if !is_covered(stamp) => {
                let is_known = match self.shapes.is_empty() {
                    // rows in the old shape may come again: they need the fill
                    true => fill.is_none() && self.committed.as_ref().is_some_and(|committed| committed.schema == *schema),
                    false => self.shapes.iter().any(|shape| shape.schema == *schema),
                };
                if !is_known {
                    self.shapes.push(NewShape { closing, schema: schema.clone(), fill: fill.clone() });
                }
            }
            Section::Truncate { .. } | Section::NewShape { .. } => {}
        }
        Ok(())
    }

    /// A new producer's first section: what the table has by now covers what it sends again.
    fn meet(&mut self, epoch: Epoch) {
        if self.covered.as_ref().is_some_and(|(known, _)| *known >= epoch) {
            return;
        }
        let taken = self.taken.as_ref().map(|(_, position)| position);
        let position = taken.or_else(|| self.committed.as_ref().map(|committed| &committed.position));
        // behind the beginning of a snapshot nothing is covered
        let position = position.filter(|_| self.snapshot_began.is_none()).cloned();
        self.covered = Some((epoch, position));
    }

    fn truncate(&mut self, lane: Lane, closing: CutPoint, stamp: &TransactionStamp) {
        if stamp.is_snapshot {
            self.snapshot_began = Some(self.snapshot_began.map_or(closing, |began| began.min(closing)));
            self.snapshot_lanes.insert(lane, closing.epoch);
        }
        let seen = self.generation(lane);
        let mut unseen = self.truncations.iter().filter(|truncation| truncation.generation > seen);
        let generation = match unseen.find(|truncation| truncation.closing == closing && truncation.stamp == *stamp) {
            Some(known) => known.generation,
            None => {
                self.last_generation += 1;
                let (generation, arrival) = (self.last_generation, self.arrivals);
                self.truncations.push(Truncation { closing, stamp: stamp.clone(), generation, arrival });
                self.last_generation
            }
        };
        self.generations.insert(lane, generation);
    }

    /// Forgets what epochs before `epoch` put behind the cut `after`: it is void.
    ///
    /// An error of kind `Conflict` says that it can't be told apart any more: the stream must be read again from the checkpoint.
    pub fn void(&mut self, epoch: Epoch, after: Option<CutPoint>) -> Result<()> {
        let is_void = |closing: CutPoint| closing.epoch < epoch && after.is_none_or(|after| closing > after);
        if self.runs.iter().any(|run| is_void(run.label.last_closing) && !is_void(run.label.first_closing)) {
            return Err(Error::new(
                Area::Stream,
                Kind::Conflict,
                "a producer resumed before rows that are in one run with older ones",
            )
            .with("table", &self.table)
            .remedy("the stream is read again from the last commit"));
        }
        self.runs.retain(|run| !is_void(run.label.last_closing));
        self.full_runs.retain(|run| !is_void(run.label.last_closing));
        self.pieces.retain(|piece| !is_void(piece.place.closing));
        self.shapes.retain(|shape| !is_void(shape.closing));
        self.truncations.retain(|truncation| !is_void(truncation.closing));
        self.snapshot_began = self.snapshot_began.filter(|began| !is_void(*began));
        self.whole_at = self.whole_at.filter(|whole| !is_void(*whole));
        Ok(())
    }

    /// All that waits for a cut at or before `at`, for a commit that begins now and carries `position`; `None` if the table has no shape yet.
    /// An empty fold moves the checkpoint.
    pub fn take(&mut self, at: CutPoint, position: &SourcePosition) -> Result<Option<Fold>> {
        let Some(shape) = self.shape_at(at)? else { return Ok(None) };
        let last_truncation = self.last_truncation(at);
        let generation = last_truncation.unwrap_or(0);
        let is_in = |closing: CutPoint, of: u64| closing <= at && of >= generation;
        let pieces: Vec<Arc<Piece>> =
            self.pieces.iter().filter(|piece| is_in(piece.place.closing, piece.place.generation)).cloned().collect();
        let history = self.treatment.keeps_all.then(|| self.history(at));
        // else a truncation parts them
        let has_same = |history: &HistoryFold| {
            history.pieces.len() == pieces.len() && history.pieces.iter().zip(&pieces).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let fold = Fold {
            gathered: history.as_ref().filter(|history| has_same(history)).map(|_| Arc::new(gathered())),
            fill: self.fill_at(at, &shape)?,
            is_changed: self.has_changes(at),
            truncate: last_truncation.is_some(),
            pieces,
            runs: self.runs.iter().filter(|run| is_in(run.label.last_closing, run.label.generation)).cloned().collect(),
            names: self.names.clone(),
            history,
            frozen: Arc::default(),
            given: BTreeMap::new(),
            letters: None,
            late: None,
            shape,
        };
        self.taken = Some((at, position.clone()));
        self.snapshot_began = self.snapshot_began.filter(|began| *began > at);
        Ok(Some(fold))
    }

    /// The commit of what was [taken](Self::take) is done.
    pub fn done(&mut self, at: CutPoint, position: SourcePosition, schema: Arc<TableSchema>) {
        self.pieces.retain(|piece| piece.place.closing > at);
        self.runs.retain(|run| run.label.last_closing > at);
        self.full_runs.retain(|run| run.label.last_closing > at);
        self.shapes.retain(|shape| shape.closing > at);
        self.truncations.retain(|truncation| truncation.closing > at);
        self.committed = Some(Committed { at: Some(at), position, schema });
        self.taken = None;
        // rows of a snapshot are committed with all that it may have seen
        if self.snapshot_began.is_none() {
            self.seen_before.clear();
        }
    }

    /// A snapshot that is under way may have seen what lies before this.
    pub fn sees_before(&mut self, high_watermark: &BinlogCoordinates) {
        if !self.seen_before.contains(high_watermark) {
            self.seen_before.insert(high_watermark.clone());
        }
    }

    /// At this cut all of the table was on the stream.
    pub fn is_whole(&mut self, at: CutPoint) {
        self.whole_at = Some(at);
    }

    /// Whether a snapshot that began anew is part of what waits for a cut at or before `at`: the position may be any then.
    pub fn begins_anew(&self, at: CutPoint) -> bool {
        self.snapshot_began.is_some_and(|began| began <= at)
    }

    /// The window in which a snapshot that began anew after the cut `at` began, and the lanes that have come to it.
    pub fn snapshot_after(&self, at: CutPoint) -> Option<(CutPoint, HashSet<Lane>)> {
        let began = self.snapshot_began.filter(|began| *began > at)?;
        Some((began, self.snapshot_lanes.keys().copied().collect()))
    }

    /// Whether what waits is but a part of a snapshot, should no more come.
    pub fn is_incomplete(&self) -> bool {
        match (self.snapshot_began, self.whole_at) {
            (Some(began), Some(whole)) => began > whole,
            (Some(_), None) => true,
            (None, whole) => whole.is_none() && self.committed.is_none(),
        }
    }

    /// Drops what waits for a cut at or before `at`: it will never be whole.
    pub fn drop_up_to(&mut self, at: CutPoint) {
        self.pieces.retain(|piece| piece.place.closing > at);
        self.runs.retain(|run| run.label.last_closing > at);
        self.full_runs.retain(|run| run.label.last_closing > at);
        self.shapes.retain(|shape| shape.closing > at);
        self.truncations.retain(|truncation| truncation.closing > at);
        self.snapshot_began = self.snapshot_began.filter(|began| *began > at);
    }

    /// Drops all that waits: a snapshot that replaces everything begins.
    pub fn begin_anew(&mut self) {
        *self = Self::new(self.table.clone(), self.treatment.clone(), self.committed.clone());
    }

    /// Drops all rows; of the rest it stays known that it waits.
    pub fn forget_rows(&mut self) {
        self.pieces.clear();
        self.runs.clear();
        self.full_runs.clear();
    }

    /// The shape as of the cut `at`, with the table's transform.
    fn shape_at(&mut self, at: CutPoint) -> Result<Option<Arc<LakeShape>>> {
        let Some(schema) = self.schema_at(at)? else { return Ok(None) };
        if let Some(shape) = self.shape.as_ref().filter(|shape| *shape.source() == schema) {
            return Ok(Some(shape.clone()));
        }
        let shape = Arc::new(LakeShape::treated(schema, &self.treatment)?);
        self.shape = Some(shape.clone());
        Ok(Some(shape))
    }

    /// The shape as of the last commit, with the table's transform; `None`: there is none yet.
    ///
    /// # Errors
    /// `Data` if the transform doesn't fit it.
    pub fn committed_shape(&mut self) -> Result<Option<Arc<LakeShape>>> {
        let Some(schema) = self.committed.as_ref().map(|committed| committed.schema.clone()) else { return Ok(None) };
        if let Some(shape) = self.shape.as_ref().filter(|shape| *shape.source() == schema) {
            return Ok(Some(shape.clone()));
        }
        Ok(Some(Arc::new(LakeShape::treated(schema, &self.treatment)?)))
    }

    /// How the table's rows are made of the source's.
    pub fn treatment(&self) -> &Treatment {
        &self.treatment
    }

    /// Whether the table's transform has all that it needs: until then nothing is committed.
    pub fn is_ready(&self) -> bool {
        self.is_ready_but_for(&BTreeSet::new())
    }

    /// The same where the items of these lookups are given to each commit.
    pub fn is_ready_but_for(&self, given: &BTreeSet<String>) -> bool {
        self.treatment.transform.as_ref().is_none_or(|transform| transform.is_ready_but_for(given))
    }

    /// The source's shape as of the cut `at`: the last announced one, else the lake's, else that of the first rows.
    fn schema_at(&self, at: CutPoint) -> Result<Option<Arc<TableSchema>>> {
        let announced = self.shapes.iter().filter(|shape| shape.closing <= at).map(|shape| &shape.schema).next_back();
        let lake = self.committed.as_ref().map(|committed| &committed.schema);
        let Some(schema) = announced.or(lake).or(self.first_seen.as_ref()).cloned() else { return Ok(None) };
        // a truncation that comes with it makes way for any key
        if let Some(lake) = lake.filter(|_| self.last_truncation(at).is_none()) {
            let names = |schema: &TableSchema| -> Vec<String> {
                schema.key.iter().filter_map(|&i| schema.columns.get(i)).map(|column| column.name.clone()).collect()
            };
            if names(lake) != names(&schema) {
                return Err(data("the table's key has changed")
                    .with("table", &self.table)
                    .with("was", names(lake).join(","))
                    .with("is", names(&schema).join(","))
                    .remedy("run `binlake backfill --table` for it: its rows are then written anew"));
            }
        }
        Ok(Some(schema))
    }

    /// One row: the values of columns that were added since the last commit, as of the cut `at`.
    fn fill_at(&self, at: CutPoint, shape: &LakeShape) -> Result<Option<RecordBatch>> {
        let mut columns = Vec::new();
        let fills = self.shapes.iter().filter(|new| new.closing <= at).filter_map(|new| new.fill.as_ref());
        for fill in fills {
            for (field, column) in fill.schema().fields().iter().zip(fill.columns()) {
                if shape.source().index_of(field.name()).is_some() && !columns.iter().any(|(name, _)| name == field.name()) {
                    columns.push((field.name().clone(), column.slice(0, 1)));
                }
            }
        }
        if columns.is_empty() {
            return Ok(None);
        }
        RecordBatch::try_from_iter(columns).map(Some).map_err(super::shape::arrow_error)
    }

    /// The generation of the rows that the last truncation up to the cut `at` leaves.
    fn last_truncation(&self, at: CutPoint) -> Option<u64> {
        self.truncations.iter().filter(|truncation| truncation.closing <= at).map(|truncation| truncation.generation).max()
    }

    fn generation(&self, lane: Lane) -> u64 {
        self.generations.get(&lane).copied().unwrap_or(0)
    }

    fn is_covered(&self, lane: Lane, epoch: Epoch, stamp: &TransactionStamp) -> bool {
        let covered = self.covered.as_ref().and_then(|(of, position)| position.as_ref().filter(|_| *of == epoch));
        !stamp.is_snapshot
            && self.snapshot_lanes.get(&lane) != Some(&epoch)
            && covered.is_some_and(|position| covers(position, stamp))
    }
}

/// Whether a reader at `position` has the transaction of `stamp` behind it.
fn covers(position: &SourcePosition, stamp: &TransactionStamp) -> bool {
    match (&position.gtid_set, &stamp.gtid) {
        (Some(set), Some(gtid)) => set.contains(gtid),
        _ => stamp.coordinates < position.coordinates,
    }
}
