//! Reading a log through the lane protocol.

use super::{EventLog, LaneEvent, LaneProtocol, LaneRecord, LogPosition, LogReader, StartAt};
use crate::error::Result;
use std::collections::VecDeque;

/// A consumer of a log: its reader and its protocol.
#[derive(Debug)]
pub struct Consumer {
    reader: Box<dyn LogReader>,
    protocol: LaneProtocol,
    /// The reader's position before `records` were read.
    before: LogPosition,
    records: VecDeque<LaneRecord>,
    events: VecDeque<LaneEvent>,
}

impl Consumer {
    /// Reads `log` from `position` on (`None`: from the oldest record).
    ///
    /// # Errors
    /// Those of [`EventLog::read`].
    pub async fn open(log: &dyn EventLog, position: Option<&LogPosition>, protocol: LaneProtocol) -> Result<Self> {
        let reader = log.read(position).await?;
        let before = reader.position();
        Ok(Self { reader, protocol, before, records: VecDeque::new(), events: VecDeque::new() })
    }

    /// Reads on after a table's last commit: from the position of its checkpoint; without one from the stream's beginning.
    ///
    /// # Errors
    /// Those of [`EventLog::read`].
    pub async fn resume(log: &dyn EventLog, checkpoint: Option<(crate::event::CutPoint, &LogPosition)>) -> Result<Self> {
        let start = checkpoint.map_or(StartAt::Beginning, |(cut, _)| StartAt::AfterCut(cut));
        let protocol = LaneProtocol::new(log.identity().lanes, start);
        Self::open(log, checkpoint.map(|(_, position)| position), protocol).await
    }

    /// Reads from the oldest record on what comes behind a cut.
    ///
    /// # Errors
    /// Those of [`EventLog::read`].
    pub async fn behind(log: &dyn EventLog, cut: crate::event::CutPoint) -> Result<Self> {
        Self::open(log, None, LaneProtocol::new(log.identity().lanes, StartAt::AfterCut(cut))).await
    }

    /// The next event; waits until there is one. Cancel safe.
    ///
    /// # Errors
    /// Those of [`LogReader::next`] and [`LaneProtocol::accept`]; the latter leave the consumer unusable.
    pub async fn next(&mut self) -> Result<LaneEvent> {
        loop {
            if let Some(event) = self.next_if_any().await? {
                return Ok(event);
            }
        }
    }

    /// The next event; `None` if the log has nothing new at the moment. Cancel safe.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn next_if_any(&mut self) -> Result<Option<LaneEvent>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(record) = self.records.pop_front() {
                self.events.extend(self.protocol.accept(&self.before, &record)?);
                continue;
            }
            self.before = self.reader.position();
            self.records.extend(self.reader.next().await?);
            if self.records.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The reader's position before the records from which the last event came.
    pub fn position(&self) -> &LogPosition {
        &self.before
    }

    /// The reader's position behind all records that it has given out.
    pub fn reader_position(&self) -> LogPosition {
        self.reader.position()
    }

    /// The protocol's state.
    pub fn protocol(&self) -> &LaneProtocol {
        &self.protocol
    }
}
