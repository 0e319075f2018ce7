//! Rows that came one by one become sections of batches.

use super::cell::{Cell, CellColumns};
use super::damaged;
use crate::error::Result;
use crate::event::{ChangeBatch, Operation, Section, TableSchema, TransactionStamp};
use arrow::array::FixedSizeBinaryBuilder;
use std::sync::Arc;

/// Rows become sections: one for each run of rows of one shape.
#[derive(Debug, Default)]
pub(super) struct Sections {
    done: Vec<Section>,
    open: Option<OpenBatch>,
}

#[derive(Debug)]
struct OpenBatch {
    schema: Arc<TableSchema>,
    rows: CellColumns,
    operations: Vec<u8>,
    stamps: Vec<u32>,
    transactions: Vec<TransactionStamp>,
    changed: Vec<Option<Vec<u8>>>,
}

impl Sections {
    pub(super) fn push(&mut self, section: Section) -> Result<()> {
        self.close()?;
        self.done.push(section);
        Ok(())
    }

    pub(super) fn row(
        &mut self,
        schema: &Arc<TableSchema>,
        operation: Operation,
        stamp: TransactionStamp,
        row: Vec<Cell<'static>>,
        changed: Option<Vec<u8>>,
    ) -> Result<()> {
        if !self.open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.schema, schema) || open.schema == *schema) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| OpenBatch {
            schema: Arc::clone(schema),
            rows: CellColumns::new(schema.arrow()),
            operations: Vec::new(),
            stamps: Vec::new(),
            transactions: Vec::new(),
            changed: Vec::new(),
        });
        if open.transactions.last() != Some(&stamp) {
            open.transactions.push(stamp);
        }
        open.stamps.push(u32::try_from(open.transactions.len() - 1).unwrap_or(u32::MAX));
        open.operations.push(operation.code());
        open.rows.push(row);
        open.changed.push(changed);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let changed = if open.changed.iter().any(Option::is_some) {
            let width = i32::try_from(open.schema.columns.len().div_ceil(8)).unwrap_or(0);
            let mut bits = FixedSizeBinaryBuilder::new(width);
            for changed in open.changed {
                match changed {
                    Some(changed) => bits.append_value(changed).map_err(|_| damaged("a bit set has a wrong size"))?,
                    None => bits.append_null(),
                }
            }
            Some(bits.finish())
        } else {
            None
        };
        self.done.push(Section::Rows(ChangeBatch {
            schema: open.schema,
            rows: open.rows.finish()?,
            operations: open.operations.into(),
            stamps: open.stamps.into(),
            transactions: Arc::new(open.transactions),
            changed,
            before: None,
        }));
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<Section>> {
        self.close()?;
        Ok(self.done)
    }
}

/// Which columns differ: a bit each, the lowest first.
pub(super) fn changed_bits(before: &[Cell<'_>], after: &[Cell<'_>]) -> Vec<u8> {
    let mut bits = vec![0; after.len().div_ceil(8)];
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        if !is_same(before, after) {
            bits[i / 8] |= 1 << (i % 8);
        }
    }
    bits
}

/// Bit for bit: a zero may have a sign.
fn is_same(a: &Cell<'_>, b: &Cell<'_>) -> bool {
    match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => a.to_bits() == b.to_bits(),
        (Cell::Double(a), Cell::Double(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
