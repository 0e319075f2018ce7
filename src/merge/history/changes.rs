//! All changes of a table, in pieces that hold every change of their keys.

use super::keys::{KeyBytes, group_end, unexpected};
use super::source_order::{SourceOrder, Trace};
use crate::error::{Error, Result};
use crate::merge::piece::SortedPiece;
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Changes from which a piece is folded: few, so that the history's files are under way soon, and the table's columns are at hand.
const WORTH_FOLDING: usize = if cfg!(test) { 64 } else { 16 * 1024 };
/// The same once changes came late, which look for more than the present version: each piece reads `bounded`.
const WORTH_LOOKING: usize = if cfg!(test) { 96 } else { 64 * 1024 };

/// Some changes, sorted by key, those of a key in the order of arrival.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) rows: RecordBatch,
    pub(super) keys: Rows,
    pub(super) trace: Trace,
}

impl Changes {
    fn slice(&self, from: usize, to: usize, maker: &KeyBytes) -> Result<Self> {
        let rows = self.rows.slice(from, to - from);
        let trace = Trace { operations: self.trace.operations[from..to].to_vec(), orders: self.trace.orders[from..to].to_vec() };
        Ok(Self { keys: maker.of(&rows)?, rows, trace })
    }
}

/// A sorted sequence of all changes.
pub(super) type Sequence = Box<dyn Iterator<Item = Result<SortedPiece>> + Send>;

/// Gives changes out in pieces that end between two keys.
pub(super) struct ChangeSequence {
    sequence: Sequence,
    columns: SchemaRef,
    /// What was read and not given out.
    ahead: VecDeque<Changes>,
}

impl ChangeSequence {
    /// Over `sequence`, whose rows have `columns`.
    pub(super) fn new(sequence: Sequence, columns: SchemaRef) -> Self {
        Self { sequence, columns, ahead: VecDeque::new() }
    }

    /// The next changes; `None` at the end. `come_late`: some of before did.
    pub(super) fn next(&mut self, maker: &KeyBytes, come_late: bool) -> Result<Option<Changes>> {
        let worth = if come_late { WORTH_LOOKING } else { WORTH_FOLDING };
        let mut parts: Vec<Changes> = Vec::new();
        let mut count = 0;
        while let Some(next) = self.pull(maker)? {
            // one key's changes stay together, however many they are
            let ends = |last: &Changes| last.keys.row(last.keys.num_rows() - 1) != next.keys.row(0);
            if count >= worth && parts.last().is_some_and(ends) {
                self.ahead.push_front(next);
                break;
            }
            count += next.keys.num_rows();
            parts.push(next);
        }
        if parts.len() < 2 {
            return Ok(parts.pop());
        }
        self.joined(parts, maker).map(Some)
    }

    fn joined(&self, parts: Vec<Changes>, maker: &KeyBytes) -> Result<Changes> {
        let rows = concat_batches(&self.columns, parts.iter().map(|part| &part.rows)).map_err(unexpected)?;
        let mut trace = Trace::default();
        for part in parts {
            trace.operations.extend(part.trace.operations);
            trace.orders.extend(part.trace.orders);
        }
        Ok(Changes { keys: maker.of(&rows)?, rows, trace })
    }

    /// The sequence's next piece that has rows.
    fn pull(&mut self, maker: &KeyBytes) -> Result<Option<Changes>> {
        if let Some(next) = self.ahead.pop_front() {
            return Ok(Some(next));
        }
        loop {
            let Some(piece) = self.sequence.next().transpose()? else { return Ok(None) };
            let trace = piece.trace.ok_or_else(|| Error::bug("a change came without what its history needs"))?;
            if piece.rows.num_rows() > 0 {
                return Ok(Some(Changes { keys: maker.of(&piece.rows)?, rows: piece.rows, trace }));
            }
        }
    }

    /// The changes of `found` up to the key `last`, the others remain for later.
    pub(super) fn split(&mut self, found: Changes, last: &[u8], maker: &KeyBytes) -> Result<Changes> {
        let count = found.keys.num_rows();
        let end = (0..count).position(|row| found.keys.row(row).data().cmp(last) == Ordering::Greater).unwrap_or(count);
        if end == count {
            return Ok(found);
        }
        self.ahead.push_front(found.slice(end, count, maker)?);
        found.slice(0, end, maker)
    }
}

/// The columns of the key, with each key once.
pub(super) fn distinct(changes: &Changes, maker: &KeyBytes) -> Result<Vec<ArrayRef>> {
    let mut firsts = Vec::new();
    let mut at = 0;
    while at < changes.keys.num_rows() {
        firsts.push(at as u64);
        at = group_end(&changes.keys, at);
    }
    let columns = maker.columns(&changes.rows)?;
    if firsts.len() == changes.keys.num_rows() {
        return Ok(columns);
    }
    let firsts = UInt64Array::from(firsts);
    columns.iter().map(|column| take(column, &firsts, None).map_err(unexpected)).collect()
}

/// Rows that a table has already, as changes that come before all others.
pub(in crate::merge) fn base_piece(rows: RecordBatch) -> SortedPiece {
    let count = rows.num_rows();
    SortedPiece {
        is_delete: arrow::array::BooleanArray::from(vec![false; count]),
        rows,
        partitions: Vec::new(),
        arrivals: vec![0; count],
        trace: Some(Trace {
            operations: vec![crate::event::Operation::Read.code(); count],
            orders: vec![SourceOrder::FIRST; count],
        }),
    }
}
