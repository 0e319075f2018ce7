//! All changes of a table, in pieces that hold every change of their keys.

use super::keys::{KeyBytes, group_end, unexpected};
use super::source_order::{SourceOrder, Trace};
use crate::error::{Error, Result};
use crate::merge::piece::SortedPiece;
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use std::cmp::Ordering;

/// Changes from which a piece is folded.
const WORTH_FOLDING: usize = if cfg!(test) { 64 } else { 64 * 1024 };

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
    /// The last key's changes: there may be more of them.
    rest: Option<Changes>,
    is_over: bool,
}

impl ChangeSequence {
    /// Over `sequence`, whose rows have `columns`.
    pub(super) fn new(sequence: Sequence, columns: SchemaRef) -> Self {
        Self { sequence, columns, rest: None, is_over: false }
    }

    /// The next changes; `None` at the end.
    pub(super) fn next(&mut self, maker: &KeyBytes) -> Result<Option<Changes>> {
        let mut batches = Vec::new();
        let mut trace = Trace::default();
        if let Some(rest) = self.rest.take() {
            batches.push(rest.rows);
            trace = rest.trace;
        }
        loop {
            while !self.is_over && trace.operations.len() < WORTH_FOLDING {
                self.pull(&mut batches, &mut trace)?;
            }
            if trace.operations.is_empty() {
                return Ok(None);
            }
            let rows = concat_batches(&self.columns, &batches).map_err(unexpected)?;
            let whole = Changes { keys: maker.of(&rows)?, rows, trace };
            if self.is_over {
                return Ok(Some(whole));
            }
            let count = whole.keys.num_rows();
            let last = whole.keys.row(count - 1);
            let start = (0..count).rev().find(|row| whole.keys.row(*row) != last).map_or(0, |row| row + 1);
            if start > 0 {
                self.rest = Some(whole.slice(start, count, maker)?);
                return whole.slice(0, start, maker).map(Some);
            }
            // one key with more changes than a piece has
            batches = vec![whole.rows];
            trace = whole.trace;
            self.pull(&mut batches, &mut trace)?;
        }
    }

    /// Adds the sequence's next piece, if there is one.
    fn pull(&mut self, batches: &mut Vec<RecordBatch>, trace: &mut Trace) -> Result<()> {
        let Some(piece) = self.sequence.next().transpose()? else {
            self.is_over = true;
            return Ok(());
        };
        let of = piece.trace.ok_or_else(|| Error::bug("a change came without what its history needs"))?;
        batches.push(piece.rows);
        trace.operations.extend(of.operations);
        trace.orders.extend(of.orders);
        Ok(())
    }

    /// The changes of `found` up to the key `last`, the others remain for later.
    pub(super) fn split(&mut self, found: Changes, last: &[u8], maker: &KeyBytes) -> Result<Changes> {
        let count = found.keys.num_rows();
        let end = (0..count).position(|row| found.keys.row(row).data().cmp(last) == Ordering::Greater).unwrap_or(count);
        if end == count {
            return Ok(found);
        }
        let mut rest = found.slice(end, count, maker)?;
        if let Some(behind) = self.rest.take() {
            let rows = concat_batches(&self.columns, [&rest.rows, &behind.rows]).map_err(unexpected)?;
            rest.trace.operations.extend(behind.trace.operations);
            rest.trace.orders.extend(behind.trace.orders);
            rest = Changes { keys: maker.of(&rows)?, rows, trace: rest.trace };
        }
        self.rest = Some(rest);
        found.slice(0, end, maker)
    }
}

/// One row of each key.
pub(super) fn distinct(changes: &Changes) -> Result<RecordBatch> {
    let mut firsts = Vec::new();
    let mut at = 0;
    while at < changes.keys.num_rows() {
        firsts.push(at as u64);
        at = group_end(&changes.keys, at);
    }
    take_record_batch(&changes.rows, &UInt64Array::from(firsts)).map_err(unexpected)
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
