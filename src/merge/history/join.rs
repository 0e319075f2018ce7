//! The changes of a commit against the versions that the history has: what that changes in the history table.
//!
//! A key's present version lies in `_open`, where it is found as in the table itself. What lies in `bounded` matters to a change only if its period
//! reaches behind the present version's beginning, or if there is no present version: versions of a key are disjoint, and the present one has all from
//! its beginning on. So only late changes look there, and only at what ends behind them.

use super::changes::{ChangeSequence, Changes, distinct};
use super::keys::{KeyBytes, group_end, next_of, unexpected};
use super::output::{Line, RowRef, gather};
use super::rule::HistoryRule;
use super::same::SameRows;
use super::shape::{BOUNDED, HistoryShape, OPEN, SYSTEM_FROM, VALID_FROM, VALID_TO, impossible, partition_of, time_type};
use super::sorter::Sorter;
use super::source_order::{SystemTimes, Trace};
use super::valid_time::ValidTimes;
use super::versions::{Closed, OPEN_END, Version, Versions};
use crate::error::Result;
use crate::event::Operation;
use crate::table::{RowReader, SortedChanges};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::row::Rows;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// The batches that rows of a fold are in.
const CHANGED: u8 = 0;
const OPEN_ROWS: u8 = 1;
const BOUNDED_ROWS: u8 = 2;

/// All rows of the table went at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) at: i64,
    /// Whether the rows of a snapshot come in their place.
    pub(super) is_snapshot: bool,
}

/// Folds chunk by chunk; gives out the changes of `_open` as they come, the others at the end.
pub(super) struct Join {
    pub(super) shape: HistoryShape,
    pub(super) rule: HistoryRule,
    pub(super) maker: KeyBytes,
    pub(super) times: SystemTimes,
    pub(super) resets: Vec<Reset>,
    pub(super) reader: RowReader,
    pub(super) others: Sorter,
    /// One row: the values that what is known has in columns that are new.
    pub(super) fill: Option<RecordBatch>,
    /// Whether changes came late so far.
    pub(super) come_late: bool,
}

/// Rows of `bounded` by key.
#[derive(Debug)]
struct Bounded {
    rows: RecordBatch,
    of: HashMap<Box<[u8]>, Vec<u32>>,
}

impl Bounded {
    /// By the keys of `rows`.
    fn new(rows: RecordBatch, maker: &KeyBytes) -> Result<Self> {
        let keys = maker.of(&rows)?;
        let mut of: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        for row in 0..keys.num_rows() {
            of.entry(Box::from(keys.row(row).data())).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        Ok(Self { rows, of })
    }
}

/// What one fold works on.
struct Chunk<'a> {
    changes: &'a Changes,
    /// Each change's system time, and the period that it is about.
    facts: Vec<Fact>,
    /// Rows of `_open`; where all that is known is at hand, those of `bounded` among them.
    open: &'a RecordBatch,
    open_keys: Rows,
    bounded: &'a Bounded,
}

/// What a change says, apart from its row.
#[derive(Debug, Clone, Copy)]
struct Fact {
    at: i64,
    from: i64,
    to: i64,
    operation: Operation,
    is_snapshot: bool,
    /// Since when the row is deleted by its own word.
    deleted: Option<i64>,
}

impl Fact {
    /// The earliest moment of valid time that it touches.
    fn first(&self) -> i64 {
        self.deleted.map_or(self.from, |deleted| deleted.min(self.from))
    }

    /// Since when the row is gone, if it is an update of one that says so of itself. One that goes later is there until then, and says what it is.
    fn gone(&self) -> Option<i64> {
        self.deleted.filter(|deleted| self.operation == Operation::Update && has_come(*deleted, self.at))
    }
}

/// Whether a time has come at another, or comes within its second: some servers tell the time of a commit in seconds.
fn has_come(time: i64, at: i64) -> bool {
    time.div_euclid(1_000_000) <= at.div_euclid(1_000_000)
}

impl Join {
    /// The next changes of `_open` of those keys that are changed; `None` at the end.
    pub(super) fn next(&mut self, sequence: &mut ChangeSequence) -> Result<Option<SortedChanges>> {
        let Some(changes) = sequence.next(&self.maker, self.come_late)? else { return Ok(None) };
        let keys = distinct(&changes, &self.maker)?;
        let count = keys.first().map_or(0, |key| key.len());
        let ends: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![OPEN_END; count]).with_timezone("UTC"));
        let prefix = [vec![ends.clone(), ends], keys].concat();
        let open = self.reader.find(&partition_of(OPEN), &prefix)?.rows;
        self.fold(&changes, &open).map(Some)
    }

    /// The same where rows were reset: for all keys that `open` (rows that are [known](super::known)) has and all that are changed, as far as both are known. Gives back
    /// the rows for which more changes may come.
    pub(super) fn next_of_all(
        &mut self,
        sequence: &mut ChangeSequence,
        open: &RecordBatch,
    ) -> Result<(SortedChanges, Option<RecordBatch>)> {
        let Some(found) = sequence.next(&self.maker, self.come_late)? else {
            let none = RecordBatch::new_empty(open.schema());
            let none = Changes { rows: none, keys: self.maker.empty(), trace: Trace::default() };
            return Ok((self.fold(&none, open)?, None));
        };
        let (keys, count) = (self.maker.of(open)?, open.num_rows());
        let last = found.keys.row(found.keys.num_rows().saturating_sub(1));
        let known = (0..count).position(|row| keys.row(row) > last).unwrap_or(count);
        if known < count {
            return Ok((self.fold(&found, &open.slice(0, known))?, Some(open.slice(known, count - known))));
        }
        let changes = sequence.split(found, keys.row(count - 1).data(), &self.maker)?;
        Ok((self.fold(&changes, open)?, None))
    }

    fn fold(&mut self, changes: &Changes, open: &RecordBatch) -> Result<SortedChanges> {
        let open = &self.filled(open.clone())?;
        let facts = self.facts(changes)?;
        let open_keys = self.maker.of(open)?;
        let bounded = self.bounded(changes, &facts, open, &open_keys)?;
        let chunk = Chunk { changes, facts, open, open_keys, bounded: &bounded };
        let lines = self.lines(&chunk)?;
        let sources = [&changes.rows, open, &bounded.rows];
        let others = gather(&self.shape, &sources, &lines.others)?;
        let opened = gather(&self.shape, &sources, &lines.open)?;
        self.others.push(others)?;
        Ok(opened)
    }

    /// What the changes say.
    fn facts(&self, changes: &Changes) -> Result<Vec<Fact>> {
        if changes.rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let periods = ValidTimes::new(&self.rule, &changes.rows)?;
        let traced = changes.trace.operations.iter().zip(&changes.trace.orders).enumerate();
        traced
            .map(|(row, (operation, order))| {
                let at = self.times.of(*order);
                let operation = Operation::from_code(*operation).ok_or_else(|| impossible("a change's operation is not known"))?;
                let deleted = if operation == Operation::Delete { None } else { periods.deleted_at(row, at) };
                let (from, to) = match (operation, deleted) {
                    (Operation::Delete, _) => (at, OPEN_END),
                    // what it was before the flag is known already
                    (Operation::Update, Some(deleted)) if has_come(deleted, at) => (deleted, OPEN_END),
                    _ => periods.of(row, at)?,
                };
                Ok(Fact { at, from, to, operation, is_snapshot: order.is_snapshot(), deleted })
            })
            .collect()
    }

    /// Whether changes may meet versions in `bounded`: system time has all periods begin in their order, and so nothing is late.
    fn looks_back(&self) -> bool {
        !self.rule.follows_system_time() && self.reader.has_rows(&partition_of(BOUNDED))
    }

    /// The versions in `bounded` that the changes may meet.
    fn bounded(&mut self, changes: &Changes, facts: &[Fact], open: &RecordBatch, open_keys: &Rows) -> Result<Bounded> {
        let none = |join: &Self| Bounded::new(RecordBatch::new_empty(join.shape.columns().clone()), &join.maker);
        // where all is written anew, all is at hand
        if !self.looks_back() || self.fill.is_some() {
            return none(self);
        }
        let (begins, ends) = (times_of(open, VALID_FROM)?, times_of(open, VALID_TO)?);
        // the first change of each late key
        let (mut late, mut bound) = (Vec::new(), OPEN_END);
        let (mut i, mut j) = (0, 0);
        while i < changes.keys.num_rows() {
            let end = group_end(&changes.keys, i);
            let key = changes.keys.row(i);
            let mut present = None;
            while j < open_keys.num_rows() && open_keys.row(j) <= key {
                if open_keys.row(j) == key && ends.value(j) == OPEN_END {
                    present = Some(begins.value(j));
                }
                j += 1;
            }
            let first = facts[i..end].iter().map(Fact::first).min().unwrap_or(OPEN_END);
            if present.is_none_or(|present| first < present) {
                late.push(i);
                bound = bound.min(first);
            }
            i = end;
        }
        if late.is_empty() {
            return none(self);
        }
        self.come_late = true;
        let bound = self.resets.first().map_or(bound, |reset| bound.min(reset.at));
        let time = |time| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC")) };
        let maker = &self.maker;
        let mut keep = |columns: &RecordBatch| -> Result<BooleanArray> {
            let keys = maker.of(columns)?;
            let is_late = |row: usize| late.binary_search_by(|i| changes.keys.row(*i).cmp(&keys.row(row))).is_ok();
            Ok((0..keys.num_rows()).map(|row| Some(is_late(row))).collect())
        };
        let rows = self.reader.scan(&partition_of(BOUNDED), Some(&[time(OPEN_END), time(bound)]), &mut keep)?;
        Bounded::new(self.filled(rows)?, &self.maker)
    }

    /// Rows of the history with the values that they have in new columns.
    pub(super) fn filled(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(fill) = &self.fill else { return Ok(rows) };
        let mut columns = rows.columns().to_vec();
        for (field, value) in fill.schema().fields().iter().zip(fill.columns()) {
            let Ok(column) = rows.schema().index_of(field.name()) else { continue };
            let value = cast(value, rows.column(column).data_type()).map_err(unexpected)?;
            columns[column] = take(&value, &UInt32Array::from(vec![0; rows.num_rows()]), None).map_err(unexpected)?;
        }
        RecordBatch::try_new(rows.schema(), columns).map_err(unexpected)
    }

    /// Folds key by key.
    fn lines(&self, chunk: &Chunk<'_>) -> Result<Lines> {
        let mut lines = Lines::default();
        let sources = [&chunk.changes.rows, chunk.open, &chunk.bounded.rows];
        let mut fold = KeyFold::new(&self.rule, &self.resets, SameRows::new(&self.shape, sources), self.fill.is_some());
        let (open, bounded) = (Periods::of(chunk.open)?, Periods::of(&chunk.bounded.rows)?);
        let keys = &chunk.changes.keys;
        let (mut i, mut j) = (0, 0);
        while let Some(order) = next_of(keys, i, &chunk.open_keys, j) {
            let (first, present) = (i, j);
            let key = if order == Ordering::Greater { chunk.open_keys.row(j) } else { keys.row(i) };
            if order != Ordering::Greater {
                i = group_end(keys, i);
            }
            if order != Ordering::Less {
                j = group_end(&chunk.open_keys, j);
            }
            fold.clear();
            let late = chunk.bounded.of.get(key.data());
            // of what ends, all that matters was looked for
            let is_wanted = |row: &usize| late.is_none() || open.to.value(*row) == OPEN_END;
            for row in (present..j).filter(is_wanted) {
                fold.add(&open, OPEN_ROWS, u32::try_from(row).unwrap_or(u32::MAX));
            }
            late.into_iter().flatten().for_each(|row| fold.add(&bounded, BOUNDED_ROWS, *row));
            fold.run(&chunk.facts[first..i], first, &mut lines);
        }
        Ok(lines)
    }
}

/// The lines of some keys: those of `_open` are in the order of the table, the others are not.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<Line>,
    others: Vec<Line>,
}

/// Folds one key after the other.
struct KeyFold<'a> {
    versions: Versions<RowRef>,
    before: Vec<Version<RowRef>>,
    resets: &'a [Reset],
    same: SameRows<'a>,
    order: Vec<usize>,
    /// Whether versions that stay are written anew.
    rewrites: bool,
}

impl<'a> KeyFold<'a> {
    fn new(rule: &HistoryRule, resets: &'a [Reset], same: SameRows<'a>, rewrites: bool) -> Self {
        Self { versions: Versions::new(rule.late), before: Vec::new(), resets, same, order: Vec::new(), rewrites }
    }

    /// Begins with the next key.
    fn clear(&mut self) {
        self.before.clear();
    }

    /// The key has this version.
    fn add(&mut self, periods: &Periods<'_>, source: u8, row: u32) {
        let at = row as usize;
        self.before.push(Version {
            row: RowRef { source, row },
            valid_from: periods.from.value(at),
            valid_to: periods.to.value(at),
            system_from: periods.system.value(at),
            stored: u32::try_from(self.before.len()).ok(),
        });
    }

    /// Folds a key's changes, the first of which is the change `first` of its batch.
    fn run(&mut self, facts: &[Fact], first: usize, lines: &mut Lines) {
        self.before.sort_unstable_by_key(|version| version.valid_from);
        self.versions.begin(self.before.iter().copied());
        self.order.clear();
        self.order.extend(0..facts.len());
        // rows of a snapshot that was resumed come before changes that they have already
        if facts.iter().any(|fact| fact.is_snapshot) {
            self.order.sort_by_key(|i| facts[*i].at);
        }
        let mut resets = self.resets.iter();
        let mut next_reset = resets.next();
        let mut last = i64::MIN;
        let last_read = self.order.iter().rposition(|i| facts[*i].is_snapshot);
        for place in 0..self.order.len() {
            let fact = facts[self.order[place]];
            while let Some(reset) = next_reset.filter(|reset| reset.at <= fact.at) {
                // the snapshot has the key: what has changed will be seen
                if !(reset.is_snapshot && last_read.is_some_and(|read| read >= place)) {
                    self.versions.delete(reset.at, reset.at);
                }
                next_reset = resets.next();
            }
            // another server's places in its binlog may say less than the order of arrival
            let at = fact.at.max(last);
            last = at;
            let following = self.order.get(place + 1).map(|i| facts[*i]);
            match fact.operation {
                // the row has moved to another partition of the table: one update
                Operation::Delete if following.is_some_and(|next| next.operation == Operation::Update && next.at == fact.at) => {}
                Operation::Delete => self.versions.delete(at, at),
                Operation::Update if fact.gone().is_some() => self.versions.delete(fact.gone().unwrap_or(at), at),
                _ => {
                    // a row that comes with the flag was true until then, or will be
                    let fact = Fact { to: fact.deleted.map_or(fact.to, |deleted| deleted.min(fact.to)), ..fact };
                    let row = RowRef { source: CHANGED, row: u32::try_from(first + self.order[place]).unwrap_or(u32::MAX) };
                    let same = &mut self.same;
                    self.versions.put(row, fact.from, fact.to, at, |a, b| same.are(*a, *b));
                    if let Some(deleted) = fact.deleted {
                        self.versions.delete(deleted, at);
                    }
                }
            }
        }
        for reset in next_reset.into_iter().chain(resets) {
            self.versions.delete(reset.at, reset.at);
        }
        self.tell(lines);
    }

    /// What has changed.
    fn tell(&self, lines: &mut Lines) {
        let start = lines.open.len();
        for Closed { version, system_to } in &self.versions.closed {
            let closed = line(version, *system_to, false);
            if version.stored.is_some() {
                let gone = line(version, OPEN_END, true);
                if version.valid_to == OPEN_END { lines.open.push(gone) } else { lines.others.push(gone) }
            }
            lines.others.push(closed);
        }
        for version in self.versions.current.iter().filter(|version| version.stored.is_none() || self.rewrites) {
            let new = line(version, OPEN_END, false);
            if version.valid_to == OPEN_END { lines.open.push(new) } else { lines.others.push(new) }
        }
        // as the table is sorted
        lines.open[start..].sort_unstable_by_key(|line| (line.valid_from, line.system_from));
    }
}

fn line(version: &Version<RowRef>, system_to: i64, is_delete: bool) -> Line {
    Line {
        row: version.row,
        valid_from: version.valid_from,
        valid_to: version.valid_to,
        system_from: version.system_from,
        system_to,
        is_delete,
    }
}

fn times_of<'a>(rows: &'a RecordBatch, name: &'static str) -> Result<&'a TimestampMicrosecondArray> {
    let column = rows.column_by_name(name).filter(|column| *column.data_type() == time_type());
    column
        .map(|column| column.as_primitive::<TimestampMicrosecondType>())
        .ok_or_else(|| impossible("a history lacks its own columns"))
}

/// The periods of rows of the history.
struct Periods<'a> {
    from: &'a TimestampMicrosecondArray,
    to: &'a TimestampMicrosecondArray,
    system: &'a TimestampMicrosecondArray,
}

impl<'a> Periods<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self { from: times_of(rows, VALID_FROM)?, to: times_of(rows, VALID_TO)?, system: times_of(rows, SYSTEM_FROM)? })
    }
}
