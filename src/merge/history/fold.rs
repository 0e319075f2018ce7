//! All changes of a commit for a table's history, and what they make of it.

use super::changes::{ChangeSequence, base_piece};
use super::ends::Ends;
use super::join::{Join, Reset};
use super::keys::{KeyBytes, unexpected};
use super::known::{KnownRows, known_rows};
use super::rule::HistoryRule;
use super::servers::Servers;
use super::shape::{HistoryShape, time_type};
use super::sorter::{Sorted, Sorter};
use super::source_order::{Came, SourceOrder, SystemTimes};
use super::versions::{FIRST_TIME, OPEN_END};
use crate::error::{Error, Result};
use crate::event::Operation;
use crate::merge::Fold;
use crate::merge::kway::{MergedRuns, Sequence};
use crate::merge::letters::LetterSink;
use crate::merge::piece::{Piece, SortedPiece, SortedPieces};
use crate::merge::spill::{Run, RunReader, SpillFolder};
use crate::table::{RowReader, SortedChanges, Table};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Schema;
use std::sync::Arc;

/// Bytes of a batch of changes.
const BATCH_BYTES: usize = 8 << 20;

/// All changes of a table up to a cut.
#[derive(Debug, Clone)]
pub(in crate::merge) struct HistoryFold {
    pub(in crate::merge) pieces: Vec<Arc<Piece>>,
    pub(in crate::merge) runs: Vec<Arc<Run>>,
    pub(in crate::merge) truncations: Vec<Truncated>,
    /// Places from which on snapshots have seen nothing: their high watermarks, sorted.
    pub(in crate::merge) seen_before: Vec<SourceOrder>,
}

/// All rows of the table went.
#[derive(Debug, Clone)]
pub(in crate::merge) struct Truncated {
    pub(in crate::merge) came: Came,
    /// Its transaction's position.
    pub(in crate::merge) position: String,
    /// Whether a snapshot's rows come in their place.
    pub(in crate::merge) is_snapshot: bool,
}

/// Rows that a table had before its history began, or went on.
#[derive(Debug)]
pub struct BaseRows {
    /// Reads the table, as of the commit that the fold builds upon, in its columns from now on.
    pub reader: RowReader,
    /// When the source had committed what the table has.
    pub source_commit_time: Timestamp,
}

/// A history that a commit's changes are folded into.
#[derive(Debug)]
pub struct HistoryInput<'a> {
    /// The commit's changes.
    pub fold: &'a Fold,
    /// How the history is kept.
    pub rule: &'a HistoryRule,
    /// The history, open for writing.
    pub history: &'a Table,
    /// The system time of the last transaction that it has; `None`: it has none.
    pub previous_system_time: Option<Timestamp>,
    /// What the table has, where the history doesn't go on from the table's last commit.
    pub base: Option<BaseRows>,
    /// Where what doesn't fit memory waits.
    pub spill: SpillFolder,
    /// Bytes of versions that wait in memory until they are sorted.
    pub memory_bytes: usize,
}

/// What a commit changes in the history table.
pub struct HistoryChanges {
    /// The history's shape from now on.
    pub shape: HistoryShape,
    /// The system time of the last transaction.
    pub system_time: Timestamp,
    /// The system time of the first transaction; `None`: there is none.
    pub first_time: Option<Timestamp>,
    /// The system time of the rows that the table had before its history began, or went on.
    pub base_time: Option<Timestamp>,
    /// Which transactions may have left nothing but ends, where they are few.
    pub ends: Option<Ends>,
    /// Sorted as the history table wants them. To be read outside of the runtime's own threads.
    pub changes: Box<dyn Iterator<Item = Result<SortedChanges>> + Send>,
}

impl std::fmt::Debug for HistoryChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryChanges").field("shape", &self.shape).field("system_time", &self.system_time).finish_non_exhaustive()
    }
}

impl HistoryInput<'_> {
    /// Folds; the work is done when the changes are read.
    pub fn changes(self) -> Result<HistoryChanges> {
        let Self { fold, rule, history, previous_system_time, base, spill, memory_bytes } = self;
        let all = fold.history().ok_or_else(|| Error::bug("a table's history lacks its changes"))?;
        let lake = fold.shape();
        let has_rows = !history.instants().is_empty();
        let previous_columns = has_rows.then(|| history.columns());
        let shape = HistoryShape::new(&lake.source().table, lake.columns(), &lake.key_names(), previous_columns.as_deref())?;
        let of_pieces = all.pieces.iter().flat_map(|piece| piece.source_transactions());
        let of_runs = all.runs.iter().flat_map(|run| run.transactions.iter().copied());
        let came: Vec<Came> = of_pieces.chain(of_runs).chain(all.truncations.iter().map(|truncated| truncated.came)).collect();
        let servers = Servers::of(&came);
        let of_base = base.iter().map(|base| (SourceOrder::FIRST, base.source_commit_time.as_micros()));
        let of_all = came.iter().map(|came| (servers.order(came.epoch, came.order), came.source_commit_time));
        let previous = previous_system_time.map_or(FIRST_TIME, Timestamp::as_micros);
        // where places of several servers are put in order, those of the snapshots are no more than that
        let seen_before = if servers.is_one() { &all.seen_before[..] } else { &[] };
        let times = SystemTimes::new(of_base.chain(of_all), previous, seen_before);
        let reset = |truncated: &Truncated| {
            let at = times.of(servers.order(truncated.came.epoch, truncated.came.order));
            Reset { at, is_snapshot: truncated.is_snapshot }
        };
        let mut resets: Vec<Reset> = all.truncations.iter().map(reset).collect();
        let base_time = base.as_ref().map(|_| times.of(SourceOrder::FIRST));
        if let Some(at) = base_time.filter(|_| has_rows) {
            resets.push(Reset { at, is_snapshot: true });
        }
        resets.sort_unstable_by_key(|reset| reset.at);
        // rows that a transform drops, that are refused or say themselves that they are deleted
        let any = lake.is_transformed() || lake.refuses().is_some() || rule.soft_delete.is_some();
        let ends = Ends::of(all, any, &servers, &times);
        let system_time = Timestamp::from_micros(times.last());
        let first_time = times.first().map(Timestamp::from_micros);
        let reader = history.row_reader(shape.columns())?;
        let maker = KeyBytes::new(&lake.key_names(), lake.columns())?;
        let others = Sorter::new(&shape, spill.clone(), memory_bytes)?;
        let fill = fold.fill().map(|fill| new_columns(&fill, previous_columns.as_deref())).transpose()?.flatten();
        let join = Join { shape: shape.clone(), rule: rule.clone(), maker, times, resets, reader, others, fill, come_late: false };
        let mut state = State::Begin(Box::new(Begin { join, fold: fold.clone(), base, servers, spill, memory_bytes }));
        let changes = std::iter::from_fn(move || state.step().transpose());
        let base_time = base_time.map(Timestamp::from_micros);
        Ok(HistoryChanges { shape, system_time, first_time, base_time, ends, changes: Box::new(changes.fuse()) })
    }
}

/// What is to be folded.
struct Begin {
    join: Join,
    fold: Fold,
    base: Option<BaseRows>,
    servers: Servers,
    spill: SpillFolder,
    memory_bytes: usize,
}

/// How far the fold is.
enum State {
    Begin(Box<Begin>),
    /// Changed keys.
    Changed(Box<(Join, ChangeSequence)>),
    /// All keys, because rows were reset, or have new columns.
    All(Box<(Join, ChangeSequence)>, Option<RecordBatch>, KnownRows),
    /// What lies elsewhere than in `_open`.
    Others(Sorted),
    Over,
}

impl State {
    fn step(&mut self) -> Result<Option<SortedChanges>> {
        loop {
            // what fails is over
            match std::mem::replace(self, State::Over) {
                State::Begin(begun) => {
                    let Begin { join, fold, base, servers, spill, memory_bytes } = *begun;
                    let (all, columns) = (sequence(&fold, base, servers)?, fold.shape().columns().clone());
                    let sequence = ChangeSequence::new(all, columns);
                    *self = match (join.resets.first(), &join.fill) {
                        (None, None) => State::Changed(Box::new((join, sequence))),
                        (reset, fill) => {
                            let bound = reset.filter(|_| fill.is_none()).map(|reset| [time(OPEN_END), time(reset.at)]);
                            let bound = bound.as_ref().map(|bound| &bound[..]);
                            let known = known_rows(&join.reader, &join.shape, bound, spill, memory_bytes)?;
                            State::All(Box::new((join, sequence)), None, known)
                        }
                    };
                }
                State::All(mut parts, rest, mut open) => match rest.map(Ok).or_else(|| open.next()).transpose()? {
                    Some(rows) if rows.num_rows() == 0 => *self = State::All(parts, None, open),
                    Some(rows) => {
                        let (join, sequence) = &mut *parts;
                        let (changes, rest) = join.next_of_all(sequence, &rows)?;
                        *self = State::All(parts, rest, open);
                        return Ok(Some(changes));
                    }
                    None => *self = State::Changed(parts),
                },
                State::Changed(mut parts) => {
                    let (join, sequence) = &mut *parts;
                    match join.next(sequence)? {
                        Some(changes) => {
                            *self = State::Changed(parts);
                            return Ok(Some(changes));
                        }
                        None => {
                            let (join, _) = *parts;
                            *self = State::Others(join.others.sorted()?);
                        }
                    }
                }
                State::Others(mut others) => {
                    let next = others.next().transpose()?;
                    if next.is_some() {
                        *self = State::Others(others);
                    }
                    return Ok(next);
                }
                State::Over => return Ok(None),
            }
        }
    }
}

/// The columns of `fill` that the history lacks, where there are any.
fn new_columns(fill: &RecordBatch, previous: Option<&Schema>) -> Result<Option<RecordBatch>> {
    let schema = fill.schema();
    let is_new = |i: &usize| previous.is_some_and(|previous| previous.index_of(schema.field(*i).name()).is_err());
    let columns: Vec<usize> = (0..fill.num_columns()).filter(is_new).collect();
    let columns = fill.project(&columns).map_err(unexpected)?;
    Ok((columns.num_columns() > 0).then_some(columns))
}

fn time(time: i64) -> ArrayRef {
    let array = TimestampMicrosecondArray::from(vec![time]).with_data_type(time_type());
    Arc::new(array)
}

/// All changes as the table's transform makes them: a row that it drops is a delete, and so is one that becomes a dead letter.
fn transformed(fold: &Fold, rows: Sequence) -> Result<Sequence> {
    let shape = fold.shape().clone();
    let transform = match shape.transformed().cloned() {
        Some(transformed) => Some((fold.frozen(&transformed)?, transformed)),
        None if shape.refuses().is_none() => return Ok(rows),
        None => None,
    };
    // while a row is a dead letter, its key is deleted in the history as well
    let letters = fold.letters.as_ref().map(|_| LetterSink::deaf());
    Ok(Box::new(rows.map(move |piece| {
        let piece = piece?;
        let mut made = SortedChanges { rows: piece.rows, is_delete: piece.is_delete };
        if let Some((lookups, transformed)) = &transform {
            made = transformed.run(&shape, &made, lookups, false, letters.as_ref(), None)?;
        }
        if let Some(rule) = shape.refuses() {
            made = rule.refuse(made)?.0;
        }
        let mut trace = piece.trace;
        for (row, operation) in trace.iter_mut().flat_map(|trace| trace.operations.iter_mut().enumerate()) {
            if made.is_delete.value(row) {
                *operation = Operation::Delete.code();
            }
        }
        let (partitions, arrivals) = (piece.partitions, piece.arrivals);
        Ok(SortedPiece { rows: made.rows, is_delete: made.is_delete, partitions, arrivals, trace })
    })))
}

/// All changes by key, each key's in the order of arrival, behind what the table had.
fn sequence(fold: &Fold, base: Option<BaseRows>, servers: Servers) -> Result<Sequence> {
    let shape = fold.shape();
    let all = fold.history().ok_or_else(|| Error::bug("a table's history lacks its changes"))?;
    let memory = SortedPieces::all(shape, all.pieces.clone(), fold.fill.as_ref(), BATCH_BYTES)?;
    let memory: Sequence = Box::new(memory.sharing(fold.gathered.as_ref()));
    let servers = servers.with_arrivals(all);
    let memory = transformed(fold, servers.placed(memory))?;
    let mut sequences = Vec::new();
    for partition in base.iter().flat_map(|base| base.reader.partitions().into_iter().map(move |path| (path, &base.reader))) {
        let (path, reader) = partition;
        let rows = reader.clone().stream(&path)?;
        sequences.push(Box::new(rows.map(|rows| rows.map(base_piece))) as Sequence);
    }
    for run in &all.runs {
        let rows = Box::new(RunReader::new(run, shape, fold.fill.clone())?);
        sequences.push(transformed(fold, servers.placed(rows))?);
    }
    if sequences.is_empty() {
        return Ok(memory);
    }
    sequences.push(memory);
    Ok(Box::new(MergedRuns::all(shape, sequences)?))
}
