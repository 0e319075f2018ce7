//! From a lane's content to its next records: numbering, epochs, parts.

use super::{EventLog, LaneRecord};
use crate::error::{Error, Result};
use crate::event::{ChunkContent, ChunkHeader, ChunkIndex, ChunkPayload, CutNumber, CutPoint, Epoch, Lane};
use crate::format::{ChunkTranslator, RecordFormat};
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::VecDeque;

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
        let bytes = ChunkHeader::opening(lane, self.epoch, self.producer).record(&[]);
        LaneRecord { lane, bytes, partition_key: None }
    }

    /// The same for a stream in another format; `None`: of Binlake's own chunks.
    ///
    /// # Errors
    /// `Bug` if it can't be written.
    pub fn opening_in(&self, lane: Lane, format: Option<&RecordFormat>) -> Result<LaneRecord> {
        let Some(format) = format else { return Ok(self.opening(lane)) };
        let record = format.opening(&ChunkHeader::opening(lane, self.epoch, self.producer), Timestamp::now())?;
        Ok(LaneRecord { lane, bytes: record.bytes, partition_key: Some(record.partition_key) })
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
    /// For streams in another format than Binlake's chunks.
    translator: Option<ChunkTranslator>,
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
            translator: None,
        }
    }

    /// The same, for a stream of `lanes` lanes in another format.
    #[must_use]
    pub fn in_format(mut self, format: Option<&RecordFormat>, lanes: u16) -> Self {
        self.translator = format.map(|format| ChunkTranslator::new(format.clone(), self.lane, lanes, self.most_record_bytes));
        self
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
        if self.translator.is_some() {
            return self.translate(content);
        }
        let payload = ChunkPayload::encode(&content.sections, cut.filter(|_| self.lane == Lane(0)))?;
        let header = self.header(cut.is_some(), payload.bytes.len() as u64, payload.control_bytes);
        let part_bytes = self.most_record_bytes.saturating_sub(ChunkHeader::BYTES).max(1);
        let records = ChunkRecords::Parts { header, rest: Some(payload.bytes.into()), part_bytes };
        self.advance(records.len() as u64, cut.is_some());
        Ok(records)
    }

    /// The same in the stream's other format.
    fn translate(&mut self, content: &ChunkContent) -> Result<ChunkRecords> {
        let header = self.header(content.cut.is_some(), 0, 0);
        let lane = self.lane;
        let Some(translator) = &mut self.translator else { return Err(Error::bug("there is no other format")) };
        let groups = translator.records(&header, content, lane == Lane(0), Timestamp::now())?;
        let record =
            |record: crate::format::UserRecord| LaneRecord { lane, bytes: record.bytes, partition_key: Some(record.partition_key) };
        self.advance(1, content.cut.is_some());
        Ok(ChunkRecords::Whole(groups.into_iter().map(|group| group.into_iter().map(record).collect()).collect()))
    }

    fn header(&self, ends_with_cut: bool, payload_bytes: u64, control_bytes: u32) -> ChunkHeader {
        ChunkHeader {
            lane: self.lane,
            epoch: self.tenure.epoch,
            producer: self.tenure.producer,
            index: self.index,
            window: self.window,
            resumed_from: self.tenure.resumed_from,
            opens_epoch: false,
            starts_window: self.starts_window,
            ends_with_cut,
            payload_bytes,
            part_start: 0,
            control_bytes,
        }
    }

    fn advance(&mut self, records: u64, has_cut: bool) {
        self.index = ChunkIndex(self.index.0 + records);
        self.starts_window = has_cut;
        if has_cut {
            self.window = self.window.next();
        }
    }
}

/// The records of one chunk, to be appended in their order.
#[derive(Debug, Clone)]
pub enum ChunkRecords {
    /// Parts of a chunk, made one by one: a chunk of 1 GiB isn't copied at once.
    Parts {
        /// The next part's header.
        header: ChunkHeader,
        /// What is left of the payload; `None` when all records were given out.
        rest: Option<Bytes>,
        /// The most bytes of a part.
        part_bytes: usize,
    },
    /// Records of another format, in groups: within one, only records of one partition key need to keep their order.
    Whole(VecDeque<VecDeque<LaneRecord>>),
}

/// Records that are appended at once, at most, where a log keeps the order of each key alone: what a call of Kinesis takes.
const MOST_OF_A_GROUP: usize = 500;
/// Records that are appended at once have no more bytes, unless one alone does.
const MOST_BYTES_AT_ONCE: usize = 512 << 10;

impl ChunkRecords {
    /// Records left.
    pub fn len(&self) -> usize {
        match self {
            Self::Parts { rest, part_bytes, .. } => rest.as_ref().map_or(0, |rest| rest.len().div_ceil(*part_bytes).max(1)),
            Self::Whole(groups) => groups.iter().map(VecDeque::len).sum(),
        }
    }

    /// The next records that go into one call of `log`.
    pub(super) fn next_call(&mut self, log: &dyn EventLog) -> Option<Vec<LaneRecord>> {
        let first = self.next()?;
        let (mut bytes, mut call) = (first.bytes.len(), vec![first]);
        let most = if log.orders_by_key() { MOST_OF_A_GROUP } else { log.records_at_once() };
        // parts of chunks are large, and each is made when it is its turn
        while call.len() < most
            && let Some(next) = self.peek_bytes(log.orders_by_key()).filter(|next| bytes + next <= MOST_BYTES_AT_ONCE)
        {
            bytes += next;
            call.extend(self.next());
        }
        Some(call)
    }

    /// The size of the next record, if it may go with the one that was given out last.
    fn peek_bytes(&self, of_group: bool) -> Option<usize> {
        match self {
            Self::Parts { .. } if of_group => None,
            Self::Parts { rest, part_bytes, .. } => rest.as_ref().map(|rest| rest.len().min(*part_bytes)),
            Self::Whole(groups) if of_group => Some(groups.front()?.front()?.bytes.len()),
            Self::Whole(groups) => Some(groups.iter().find_map(VecDeque::front)?.bytes.len()),
        }
    }

    /// Whether all records were given out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for ChunkRecords {
    type Item = LaneRecord;

    fn next(&mut self) -> Option<LaneRecord> {
        match self {
            Self::Parts { header, rest: left, part_bytes } => {
                let mut rest = left.take()?;
                let part = rest.split_to(rest.len().min(*part_bytes));
                let record = LaneRecord { lane: header.lane, bytes: header.record(&part), partition_key: None };
                header.part_start += part.len() as u64;
                header.index = header.index.next();
                *left = (!rest.is_empty()).then_some(rest);
                Some(record)
            }
            Self::Whole(groups) => {
                // the front one stays when it is empty: so it is seen where a group ends
                while groups.front().is_some_and(VecDeque::is_empty) {
                    groups.pop_front();
                }
                groups.front_mut()?.pop_front()
            }
        }
    }
}
