//! What one table has on the stream and not yet in the lake.
//!
//! Rows arrive lane by lane, and a lane may be windows ahead of another. Three facts make the fold right all the same:
//!
//! - all changes of one key are on one lane, so the order of arrival is the order of the source for each key;
//! - a truncation is on every lane: a lane's rows before it are of an older *generation*, and at a cut all lanes have seen the same
//!   truncations, so rows of older generations than the cut's are gone;
//! - rows keep the shape that they came in until they are sorted, and are then brought to the shape as of the cut, by name.

use super::fold::Fold;
use super::partition::PartitionNames;
use super::piece::{Piece, Place, SortedPieces};
use super::rule::PartitionBy;
use super::shape::{LakeShape, data};
use super::spill::{Run, RunLabel, SpillFolder};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{CutPoint, Epoch, Lane, Section, SourcePosition, TableId, TableSchema, TransactionStamp};
use arrow::array::RecordBatch;
use std::collections::HashMap;
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

/// One table's rows, truncations and shapes that wait for their commit.
#[derive(Debug)]
pub struct TablePending {
    table: TableId,
    partition_by: Option<PartitionBy>,
    committed: Option<Committed>,
    /// Rows of transactions that this covers are dropped.
    covered: Option<SourcePosition>,
    /// A snapshot began in this window: nothing that came after it is covered.
    snapshot_began: Option<CutPoint>,
    /// The last cut at which all of the table was on the stream.
    whole_at: Option<CutPoint>,
    /// Up to here all is in a commit that runs.
    taken: Option<CutPoint>,
    shapes: Vec<NewShape>,
    /// The window of each truncation that any lane has seen, after `base_generation` ones.
    truncations: Vec<CutPoint>,
    base_generation: u64,
    generations: HashMap<Lane, u64>,
    pieces: Vec<Arc<Piece>>,
    runs: Vec<Arc<Run>>,
    names: PartitionNames,
    arrivals: u64,
}

impl TablePending {
    /// Nothing is pending for `table`; the lake has `committed`.
    pub fn new(table: TableId, partition_by: Option<PartitionBy>, committed: Option<Committed>) -> Self {
        Self {
            covered: committed.as_ref().map(|committed| committed.position.clone()),
            table,
            partition_by,
            committed,
            snapshot_began: None,
            whole_at: None,
            taken: None,
            shapes: Vec::new(),
            truncations: Vec::new(),
            base_generation: 0,
            generations: HashMap::new(),
            pieces: Vec::new(),
            runs: Vec::new(),
            names: PartitionNames::default(),
            arrivals: 0,
        }
    }

    /// What the lake has.
    pub fn committed(&self) -> Option<&Committed> {
        self.committed.as_ref()
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
        pieces.chain(runs).chain(shapes).chain(self.truncations.iter().copied())
    }

    /// Whether a commit at `at` would change the table.
    pub fn has_changes(&self, at: CutPoint) -> bool {
        self.shapes.iter().any(|shape| shape.closing <= at)
            || self.truncations.iter().any(|closing| *closing <= at)
            || self.rows_up_to(at) > 0
    }

    /// Takes a section of `lane`, in the window that `closing` ends.
    pub fn take_section(&mut self, lane: Lane, closing: CutPoint, section: &Section) -> Result<()> {
        if self.committed.as_ref().and_then(|committed| committed.at).is_some_and(|at| closing <= at) {
            return Ok(());
        }
        match section {
            Section::Rows(batch) => {
                let place = Place { closing, generation: self.generation(lane), arrival: self.arrivals };
                let piece = Piece::new(place, batch, |i| self.is_covered(&batch.transactions[i]))?;
                if let Some(piece) = piece {
                    self.arrivals += 1;
                    self.pieces.push(Arc::new(piece));
                }
            }
            Section::Truncate { stamp, .. } => {
                if self.is_covered(stamp) {
                    return Ok(());
                }
                if stamp.is_snapshot {
                    self.snapshot_began = Some(self.snapshot_began.map_or(closing, |began| began.min(closing)));
                }
                let generation = self.generation(lane) + 1;
                self.generations.insert(lane, generation);
                if generation > self.last_generation() {
                    self.truncations.push(closing);
                }
            }
            Section::NewShape { schema, fill, stamp } => {
                let is_known = match self.shapes.is_empty() {
                    true => self.committed.as_ref().is_some_and(|committed| committed.schema == *schema),
                    false => self.shapes.iter().any(|shape| shape.schema == *schema),
                };
                if !self.is_covered(stamp) && !is_known {
                    self.shapes.push(NewShape { closing, schema: schema.clone(), fill: fill.clone() });
                }
            }
        }
        Ok(())
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
        self.pieces.retain(|piece| !is_void(piece.place.closing));
        self.shapes.retain(|shape| !is_void(shape.closing));
        self.truncations.retain(|closing| !is_void(*closing));
        let last = self.last_generation();
        self.generations.values_mut().for_each(|generation| *generation = last.min(*generation));
        self.snapshot_began = self.snapshot_began.filter(|began| !is_void(*began));
        self.whole_at = self.whole_at.filter(|whole| !is_void(*whole));
        Ok(())
    }

    /// All that waits for a cut at or before `at`, for a commit that begins now and carries `position`; `None` if the table has no shape yet.
    /// An empty fold moves the checkpoint.
    pub fn take(&mut self, at: CutPoint, position: &SourcePosition) -> Result<Option<Fold>> {
        let Some(shape) = self.shape_at(at)? else { return Ok(None) };
        let generation = self.base_generation + self.truncations.iter().filter(|closing| **closing <= at).count() as u64;
        let is_in = |closing: CutPoint, of: u64| closing <= at && of >= generation;
        let fold = Fold {
            fill: self.fill_at(at, &shape)?,
            is_changed: self.has_changes(at),
            truncate: generation > self.base_generation,
            pieces: self.pieces.iter().filter(|piece| is_in(piece.place.closing, piece.place.generation)).cloned().collect(),
            runs: self.runs.iter().filter(|run| is_in(run.label.last_closing, run.label.generation)).cloned().collect(),
            names: self.names.clone(),
            shape,
        };
        self.taken = Some(at);
        if self.snapshot_began.is_none_or(|began| began <= at) {
            self.covered = Some(position.clone());
            self.snapshot_began = None;
        }
        Ok(Some(fold))
    }

    /// The commit of what was [taken](Self::take) is done.
    pub fn done(&mut self, at: CutPoint, position: SourcePosition, schema: Arc<TableSchema>) {
        self.pieces.retain(|piece| piece.place.closing > at);
        self.runs.retain(|run| run.label.last_closing > at);
        self.shapes.retain(|shape| shape.closing > at);
        self.drop_truncations(at);
        self.committed = Some(Committed { at: Some(at), position, schema });
        self.taken = None;
    }

    /// At this cut all of the table was on the stream.
    pub fn is_whole(&mut self, at: CutPoint) {
        self.whole_at = Some(at);
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
        self.shapes.retain(|shape| shape.closing > at);
        self.drop_truncations(at);
        self.snapshot_began = self.snapshot_began.filter(|began| *began > at);
    }

    fn drop_truncations(&mut self, at: CutPoint) {
        let before = self.truncations.len();
        self.truncations.retain(|closing| *closing > at);
        self.base_generation += (before - self.truncations.len()) as u64;
    }

    /// Drops all rows; of the rest it stays known that it waits.
    pub fn forget_rows(&mut self) {
        self.pieces.clear();
        self.runs.clear();
    }

    /// Moves rows to local disk: those up to `reached` as one run, those of each window that isn't closed yet as one of its own.
    /// Returns how many bytes of memory that freed.
    pub fn spill(&mut self, folder: &SpillFolder, reached: Option<CutPoint>) -> Result<usize> {
        let before = self.bytes();
        let mut groups: HashMap<(bool, Option<CutPoint>, u64), Vec<Arc<Piece>>> = HashMap::new();
        let (kept, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pieces)
            .into_iter()
            .partition(|piece| self.taken.is_some_and(|taken| piece.place.closing <= taken));
        self.pieces = kept;
        for piece in moved {
            let is_reached = reached.is_some_and(|reached| piece.place.closing <= reached);
            let group = (is_reached, (!is_reached).then_some(piece.place.closing), piece.place.generation);
            groups.entry(group).or_default().push(piece);
        }
        for pieces in groups.into_values() {
            if let Some(run) = self.write_run(folder, pieces)? {
                self.runs.push(Arc::new(run));
            }
        }
        Ok(before - self.bytes())
    }

    fn write_run(&mut self, folder: &SpillFolder, pieces: Vec<Arc<Piece>>) -> Result<Option<Run>> {
        let closings = || pieces.iter().map(|piece| piece.place.closing);
        let (Some(first), Some(last)) = (closings().min(), closings().max()) else { return Ok(None) };
        let Some(shape) = self.shape_at(last)? else { return Ok(None) };
        let label = RunLabel {
            first_closing: first,
            last_closing: last,
            generation: pieces[0].place.generation,
            first_commit_time: pieces.iter().filter_map(|piece| piece.first_commit_time()).min(),
        };
        let fill = self.fill_at(last, &shape)?;
        let sorted = SortedPieces::new(&shape, pieces, fill.as_ref(), &mut self.names, RUN_BATCH_BYTES)?;
        Run::write(folder, &shape, label, sorted).map(Some)
    }

    /// The shape as of the cut `at`: the last announced one, else the lake's, else that of the first rows.
    fn shape_at(&self, at: CutPoint) -> Result<Option<Arc<LakeShape>>> {
        let announced = self.shapes.iter().filter(|shape| shape.closing <= at).map(|shape| &shape.schema).next_back();
        let lake = self.committed.as_ref().map(|committed| &committed.schema);
        let first = self.pieces.iter().filter(|piece| piece.place.closing <= at).map(|piece| &piece.schema).next();
        let Some(schema) = announced.or(lake).or(first) else { return Ok(None) };
        if let Some(lake) = lake {
            let names = |schema: &TableSchema| -> Vec<String> {
                schema.key.iter().filter_map(|&i| schema.columns.get(i)).map(|column| column.name.clone()).collect()
            };
            if names(lake) != names(schema) {
                return Err(data("the table's key has changed")
                    .with("table", &self.table)
                    .with("was", names(lake).join(","))
                    .with("is", names(schema).join(","))
                    .remedy("move the lake table away and run `binlake backfill --table` for it"));
            }
        }
        LakeShape::new(schema.clone(), self.partition_by.as_ref()).map(|shape| Some(Arc::new(shape)))
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

    fn last_generation(&self) -> u64 {
        self.base_generation + self.truncations.len() as u64
    }

    fn generation(&self, lane: Lane) -> u64 {
        self.generations.get(&lane).copied().unwrap_or(0).max(self.base_generation)
    }

    fn is_covered(&self, stamp: &TransactionStamp) -> bool {
        !stamp.is_snapshot && self.snapshot_began.is_none() && self.covered.as_ref().is_some_and(|position| covers(position, stamp))
    }
}

/// Whether a reader at `position` has the transaction of `stamp` behind it.
fn covers(position: &SourcePosition, stamp: &TransactionStamp) -> bool {
    match (&position.gtid_set, &stamp.gtid) {
        (Some(set), Some(gtid)) => set.contains(gtid),
        _ => stamp.coordinates < position.coordinates,
    }
}
