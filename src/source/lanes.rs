//! Rows on their way to the stream: for each lane, the builders of the tables that have rows there, until a chunk is full or a cut is due.

use super::builder::BatchBuilder;
use super::value::Value;
use crate::error::{Error, Result};
use crate::event::{ChangeBatch, Lane, Operation, Section, TableSchema, TransactionStamp};
use std::collections::VecDeque;
use std::sync::Arc;

/// The transaction that rows are pushed for.
#[derive(Debug, Clone)]
pub(crate) struct CurrentTransaction {
    /// Counts transactions: tells a lane whether it has the stamp already.
    pub(crate) serial: u64,
    /// What its rows are stamped with.
    pub(crate) stamp: TransactionStamp,
}

/// One lane's rows that are not yet a chunk.
#[derive(Debug, Default)]
struct LaneBuffer {
    /// Finished sections, in the order of the source.
    sections: Vec<Section>,
    /// A builder for each table, by its number.
    builders: Vec<Option<BatchBuilder>>,
    /// The transactions that the builders' rows refer to.
    transactions: Vec<TransactionStamp>,
    last_serial: Option<u64>,
    bytes: usize,
}

impl LaneBuffer {
    /// Makes sections of all builders.
    fn close(&mut self) -> Result<()> {
        if self.builders.iter().flatten().all(BatchBuilder::is_empty) {
            return Ok(());
        }
        let transactions = Arc::new(std::mem::take(&mut self.transactions));
        self.last_serial = None;
        for builder in self.builders.iter_mut().flatten().filter(|builder| !builder.is_empty()) {
            self.sections.push(Section::Rows(builder.finish(Arc::clone(&transactions))?));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<Section>> {
        self.close()?;
        self.bytes = 0;
        Ok(std::mem::take(&mut self.sections))
    }
}

/// All lanes' rows that are not yet on the stream.
#[derive(Debug)]
pub struct LaneBuffers {
    lanes: Vec<LaneBuffer>,
    chunk_bytes: usize,
    keeps_before_images: bool,
    full: VecDeque<(Lane, Vec<Section>)>,
}

impl LaneBuffers {
    /// Buffers for a stream with `lanes` lanes, in chunks of about `chunk_bytes` before compression.
    pub fn new(lanes: u16, chunk_bytes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| LaneBuffer::default()).collect(),
            chunk_bytes,
            keeps_before_images: false,
            full: VecDeque::new(),
        }
    }

    /// The same; with `keep`, updates keep their before images.
    #[must_use]
    pub fn with_before_images(mut self, keep: bool) -> Self {
        self.keeps_before_images = keep;
        self
    }

    /// The number of lanes.
    pub fn lane_count(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Appends a row of the table number `table`.
    #[allow(clippy::too_many_arguments, reason = "a row is all of these")]
    pub(crate) fn push(
        &mut self,
        lane: Lane,
        table: usize,
        schema: &Arc<TableSchema>,
        values: &[Value<'_>],
        operation: Operation,
        changed: Option<&[u8]>,
        before: Option<&[Value<'_>]>,
        transaction: &CurrentTransaction,
    ) -> Result<()> {
        let keeps_before_images = self.keeps_before_images;
        let buffer = self.lanes.get_mut(usize::from(lane.0)).ok_or_else(|| Error::bug("a row on a lane that there isn't"))?;
        if buffer.last_serial != Some(transaction.serial) {
            buffer.transactions.push(transaction.stamp.clone());
            buffer.last_serial = Some(transaction.serial);
        }
        let stamp = u32::try_from(buffer.transactions.len() - 1).map_err(|_| Error::bug("too many transactions in a chunk"))?;
        if buffer.builders.len() <= table {
            buffer.builders.resize_with(table + 1, || None);
        }
        let Some(slot) = buffer.builders.get_mut(table) else { return Err(Error::bug("a table without a builder")) };
        let builder = match slot {
            Some(builder) => builder,
            None => {
                let builder = BatchBuilder::new(Arc::clone(schema))?;
                slot.insert(if keeps_before_images { builder.with_before_images()? } else { builder })
            }
        };
        let bytes_before = builder.bytes();
        builder.push_with_before(values, operation, stamp, changed, before)?;
        buffer.bytes += builder.bytes() - bytes_before;
        if buffer.bytes >= self.chunk_bytes {
            let sections = buffer.take()?;
            self.full.push_back((lane, sections));
        }
        Ok(())
    }

    /// Whether updates keep their before images.
    pub(crate) fn keeps_before_images(&self) -> bool {
        self.keeps_before_images
    }

    /// Appends a finished batch (a snapshot's) to a lane.
    pub fn push_batch(&mut self, lane: Lane, batch: ChangeBatch) -> Result<()> {
        let buffer = self.lanes.get_mut(usize::from(lane.0)).ok_or_else(|| Error::bug("a batch on a lane that there isn't"))?;
        buffer.close()?;
        buffer.bytes += batch.rows.get_array_memory_size();
        buffer.sections.push(Section::Rows(batch));
        if buffer.bytes >= self.chunk_bytes {
            let sections = buffer.take()?;
            self.full.push_back((lane, sections));
        }
        Ok(())
    }

    /// Puts a section behind all rows so far on every lane, and forgets the builders of the table number `table`: its shape may be another one.
    pub(crate) fn push_to_all(&mut self, table: usize, section: &Section) -> Result<()> {
        for buffer in &mut self.lanes {
            buffer.close()?;
            buffer.sections.push(section.clone());
            if let Some(slot) = buffer.builders.get_mut(table) {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Puts a section behind all rows so far on every lane; before any row of its table.
    pub fn push_section(&mut self, section: &Section) -> Result<()> {
        self.push_to_all(usize::MAX, section)
    }

    /// The next full chunk, in the order in which they were filled.
    pub fn take_full(&mut self) -> Option<(Lane, Vec<Section>)> {
        self.full.pop_front()
    }

    /// Whether any lane has something that waits.
    pub fn has_rest(&self) -> bool {
        self.lanes.iter().any(|lane| lane.bytes > 0 || !lane.sections.is_empty())
    }

    /// What a lane has so far; empty: nothing. Full chunks must have been taken before.
    pub fn take_lane(&mut self, lane: Lane) -> Result<Vec<Section>> {
        self.lanes.get_mut(usize::from(lane.0)).map_or_else(|| Ok(Vec::new()), LaneBuffer::take)
    }

    /// Ends the window: what each lane still has. Full chunks must have been taken before.
    pub fn take_rest(&mut self) -> Result<Vec<Vec<Section>>> {
        self.lanes.iter_mut().map(LaneBuffer::take).collect()
    }
}
