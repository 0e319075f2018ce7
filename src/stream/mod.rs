//! ③ The ordered log between the halves.
//!
//! [`EventLog`] is the seam: the embedded log (segment files in a folder) and Kinesis both implement it. It moves opaque records
//! on lanes; what they say is [`crate::event::ChunkContent`]'s business. `LaneProtocol` (epochs, gapless indexes, cuts)
//! is a pure state machine over the records that any log gives back.

mod config;

pub use config::{StreamConfig, StreamFormat, StreamUrl};

use crate::error::Result;
use crate::event::Lane;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// A place in a log from which reading can start: opaque, made by the log that reads it, kept in the merger's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPosition(pub String);

/// One record as it was read.
#[derive(Debug, Clone)]
pub struct LaneRecord {
    /// Its lane.
    pub lane: Lane,
    /// What the producer appended, byte for byte.
    pub bytes: Bytes,
}

/// An ordered log of records on a fixed number of lanes, shared by one producer and any number of readers.
///
/// - *Order*: the records of one lane are read in the order in which their appends returned. Between lanes there is none.
/// - *Durability*: when `append` has returned `Ok`, its records outlive a crash of every process and of the machine.
/// - *Errors*: after an `Err` (or when the call was cancelled) any of its records may or may not be in the log. The caller sends the
///   same records again, byte for byte, before any later one of their lanes; readers see repeats and drop them by their index.
/// - *Repeats*: a reader may get any record more than once, but never a later one of a lane before the first sight of an earlier one.
#[async_trait]
pub trait EventLog: Send + Sync + Debug {
    /// Appends records, at most one a lane, and returns when all are durable.
    async fn append(&self, records: Vec<LaneRecord>) -> Result<()>;

    /// Reads all lanes from `after` on (`None`: from the oldest record that is kept). Retention lost is an error of kind `Corrupt`.
    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>>;

    /// Says that no reader needs what lies before `position`: the log may drop it, as its retention allows.
    async fn release(&self, position: &LogPosition) -> Result<()>;
}

/// A reader over all lanes of a log.
#[async_trait]
pub trait LogReader: Send + Debug {
    /// The next records; waits until there are some. Cancel safe. An empty answer means: nothing new at the moment (at most after a second).
    async fn next(&mut self) -> Result<Vec<LaneRecord>>;

    /// A position such that reading from it gives all records that `next` has not yet given out.
    fn position(&self) -> LogPosition;
}
