//! From a lane's content to its next records: numbering, epochs, parts.

use super::LaneRecord;
use crate::error::{Error, Result};
use crate::event::{ChunkContent, ChunkHeader, ChunkIndex, ChunkPayload, CutNumber, CutPoint, Epoch, Lane};
use bytes::Bytes;

/// One producer's time with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// Its epoch: higher than that of all before.
    pub epoch: Epoch,
    /// A number drawn at random, so that two producers with one epoch are noticed.
    pub producer: u32,
    /// The cut from which it goes on; `None`: a stream without a cut.
    pub resumed_from: Option<CutPoint>,
}

impl Tenure {
    /// Any number will do that another producer hardly draws.
    pub(super) fn random_producer() -> u32 {
        uuid::Uuid::new_v4().as_fields().0
    }

    /// The record that opens the epoch on `lane` and closes it to all earlier producers: the lane's first of this one.
    pub fn opening(&self, lane: Lane) -> LaneRecord {
        LaneRecord { lane, bytes: ChunkHeader::opening(lane, self.epoch, self.producer).record(&[]) }
    }
}

/// One producer's side of one lane. Pure: it numbers and encodes, and leaves appending to the caller, who appends the records of a lane in
/// order, one at a time, each again until the log has taken it.
#[derive(Debug)]
pub struct LaneWriter {
    lane: Lane,
    tenure: Tenure,
    most_record_bytes: usize,
    index: ChunkIndex,
    window: CutNumber,
    starts_window: bool,
}

impl LaneWriter {
    /// The writer of `lane` in the time of one producer.
    pub fn new(lane: Lane, tenure: Tenure, most_record_bytes: usize) -> Self {
        Self {
            lane,
            tenure,
            most_record_bytes,
            index: ChunkIndex(1),
            window: tenure.resumed_from.map_or(CutNumber(1), |cut| cut.number.next()),
            starts_window: true,
        }
    }

    /// The number that the lane's next cut must have.
    pub fn window(&self) -> CutNumber {
        self.window
    }

    /// Encodes a chunk to the lane's next records. They count once the lane has been [opened](Tenure::opening).
    ///
    /// # Errors
    /// `Bug` if the cut isn't the next one, or a batch contradicts its shape.
    pub fn encode(&mut self, content: &ChunkContent) -> Result<ChunkRecords> {
        // the cut itself travels on lane 0; elsewhere the header's flag says the same
        let cut = content.cut.as_deref();
        if let Some(cut) = cut.filter(|cut| cut.number != self.window) {
            return Err(Error::bug("a cut is not the next one")
                .with("cut", cut.number)
                .with("next", self.window)
                .with("lane", self.lane));
        }
        let payload = ChunkPayload::encode(&content.sections, cut.filter(|_| self.lane == Lane(0)))?;
        let header = ChunkHeader {
            lane: self.lane,
            epoch: self.tenure.epoch,
            producer: self.tenure.producer,
            index: self.index,
            window: self.window,
            resumed_from: self.tenure.resumed_from,
            opens_epoch: false,
            starts_window: self.starts_window,
            ends_with_cut: cut.is_some(),
            payload_bytes: payload.bytes.len() as u64,
            part_start: 0,
            control_bytes: payload.control_bytes,
        };
        let part_bytes = self.most_record_bytes.saturating_sub(ChunkHeader::BYTES).max(1);
        let records = ChunkRecords { header, rest: Some(payload.bytes.into()), part_bytes };
        self.index = ChunkIndex(self.index.0 + records.len() as u64);
        self.starts_window = cut.is_some();
        if cut.is_some() {
            self.window = self.window.next();
        }
        Ok(records)
    }
}

/// The records of one chunk, made one by one: a chunk of 1 GiB isn't copied at once.
#[derive(Debug, Clone)]
pub struct ChunkRecords {
    header: ChunkHeader,
    /// What is left of the payload; `None` when all records were given out.
    rest: Option<Bytes>,
    part_bytes: usize,
}

impl ChunkRecords {
    /// Records left.
    pub fn len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.len().div_ceil(self.part_bytes).max(1))
    }

    /// Whether all records were given out.
    pub fn is_empty(&self) -> bool {
        self.rest.is_none()
    }
}

impl Iterator for ChunkRecords {
    type Item = LaneRecord;

    fn next(&mut self) -> Option<LaneRecord> {
        let mut rest = self.rest.take()?;
        let part = rest.split_to(rest.len().min(self.part_bytes));
        let record = LaneRecord { lane: self.header.lane, bytes: self.header.record(&part) };
        self.header.part_start += part.len() as u64;
        self.header.index = self.header.index.next();
        self.rest = (!rest.is_empty()).then_some(rest);
        Some(record)
    }
}
