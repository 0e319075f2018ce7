//! A log in memory: for tests, and for whoever wants no durability.

use super::last_cut::LastCutTracker;
use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::{Area, Error, Kind, Result};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Records that one call of `next` gives out at most.
const BATCH: usize = 64;

/// A log in memory. Clones share it, so that "reopening" it is cloning it. A position is a record's number.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    identity: LogIdentity,
    most_record_bytes: usize,
    kept: Arc<Mutex<Kept>>,
    /// How many records were ever appended.
    end: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Kept {
    /// The number of the first record that is kept.
    first: u64,
    records: VecDeque<LaneRecord>,
    last_cut: LastCutTracker<u64>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(lanes: u16) -> Self {
        Self {
            identity: LogIdentity { stream_id: uuid::Uuid::new_v4().to_string(), lanes },
            most_record_bytes: 1 << 20,
            kept: Arc::new(Mutex::new(Kept { first: 0, records: VecDeque::new(), last_cut: LastCutTracker::new(lanes) })),
            end: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same with another limit for records.
    #[must_use]
    pub fn with_most_record_bytes(mut self, bytes: usize) -> Self {
        self.most_record_bytes = bytes;
        self
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a position that `MemoryReader` made.
fn parse(position: &LogPosition) -> Result<u64> {
    position
        .0
        .parse()
        .map_err(|_| Error::new(Area::Stream, Kind::Corrupt, "a position of another kind of log").with("position", &position.0))
}

#[async_trait]
impl EventLog for MemoryLog {
    fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        if let Some(record) = records.iter().find(|record| record.bytes.len() > self.most_record_bytes) {
            return Err(Error::bug("a record is larger than the log takes")
                .with("lane", record.lane)
                .with("bytes", record.bytes.len()));
        }
        let end = {
            let mut kept = self.kept();
            for record in records {
                let number = kept.first + kept.records.len() as u64;
                kept.last_cut.observe(number, record.lane, &record.bytes);
                kept.records.push_back(record);
            }
            kept.first + kept.records.len() as u64
        };
        self.end.send_replace(end);
        Ok(())
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let first = self.kept().first;
        let next = after.map(parse).transpose()?.unwrap_or(first);
        Ok(Box::new(MemoryReader { log: self.clone(), next, end: self.end.subscribe(), gave_records: true }))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        let position = parse(position)?;
        let mut kept = self.kept();
        let needed_from = position.min(kept.last_cut.place().unwrap_or(0));
        let count = needed_from.saturating_sub(kept.first);
        kept.records.drain(..usize::try_from(count).unwrap_or(0));
        kept.first += count;
        Ok(())
    }

    fn records_at_once(&self) -> usize {
        usize::MAX
    }

    fn most_record_bytes(&self) -> usize {
        self.most_record_bytes
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        let place = self.kept().last_cut.place().filter(|_| reach == 0);
        Ok(place.map(|place| LogPosition(place.to_string())))
    }
}

#[derive(Debug)]
struct MemoryReader {
    log: MemoryLog,
    next: u64,
    end: watch::Receiver<u64>,
    /// Whether the last answer had records: then the end of the log is told at once.
    gave_records: bool,
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        let next = self.next;
        if *self.end.borrow() <= next {
            if std::mem::take(&mut self.gave_records) {
                return Ok(Vec::new());
            }
            let waited = tokio::time::timeout(std::time::Duration::from_secs(1), self.end.wait_for(|end| *end > next)).await;
            if waited.is_err() {
                return Ok(Vec::new());
            }
        }
        let kept = self.log.kept();
        let skip = next.checked_sub(kept.first).ok_or_else(|| {
            Error::new(Area::Stream, Kind::Corrupt, "the stream no longer has the records from the position on")
                .with("position", next)
                .with("oldest", kept.first)
        })?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let records: Vec<_> = kept.records.iter().skip(skip).take(BATCH).cloned().collect();
        self.next += records.len() as u64;
        self.gave_records = true;
        Ok(records)
    }

    fn position(&self) -> LogPosition {
        LogPosition(self.next.to_string())
    }
}
