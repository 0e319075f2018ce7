//! ③ The ordered log between the halves.
//!
//! [`EventLog`] is the seam: the embedded log (segment files in a folder), the memory log and Kinesis implement it. It moves opaque records
//! on lanes; what they say is [`crate::event::ChunkContent`]'s business.
//!
//! - [`LaneWriter`] and [`Producer`]: chunks to records, numbered, one in flight a lane.
//! - [`LaneProtocol`] and [`Consumer`]: the pure state machine over the records that any log gives back (epochs, gapless indexes, cuts), and the
//!   loop that feeds it from a log.
//! - [`take_over`]: how a new producer closes the stream to those before it, and finds where it resumes.
//! - [`FormattedLog`]: a log whose records are in another system's format; [`ForeignLog`]: a stream that another system writes.

mod claim_check;
mod config;
mod consumer;
mod embedded;
mod foreign;
mod formatted;
mod jsonl;
pub mod kinesis;
mod last_cut;
mod memory;
mod producer;
mod protocol;
mod record_stream;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use claim_check::{ClaimCheckLog, ClaimChecks};
pub use config::{Aggregate, StreamConfig, StreamFormat, StreamUrl};
pub use consumer::Consumer;
pub use embedded::{EmbeddedLog, EmbeddedOptions};
pub use foreign::{ForeignLog, RecordReader, RecordSource, RetryLot, RetryQueue};
pub use formatted::FormattedLog;
pub use jsonl::JsonLinesFolder;
pub use kinesis::KinesisLog;
pub use memory::MemoryLog;
pub use producer::Producer;
pub use protocol::{CutReached, LaneEvent, LaneProtocol, StartAt};
pub use record_stream::RecordStreamUrl;
pub use tail::{LastCut, TakenOver, find_last_cut, take_over};
pub use writer::{ChunkRecords, LaneWriter, Tenure};

use crate::error::Result;
use crate::event::Lane;
use crate::format::RecordFormat;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;

/// Opens the stream that the configuration names, for its one producer and any number of readers; makes it if there is none. Large records go to
/// `claim_checks`, where there are such.
///
/// # Errors
/// Those of [`EmbeddedLog::open`] and [`KinesisLog::open`].
pub async fn open(config: &StreamConfig, claim_checks: Option<ClaimChecks>) -> Result<Arc<dyn EventLog>> {
    let format = config.record_format();
    match &config.url {
        StreamUrl::File(folder) => {
            let options = EmbeddedOptions {
                segment_bytes: config.segment_size.0,
                retention: config.retention,
                retention_bytes: config.retention_size.0,
                ..EmbeddedOptions::default()
            };
            Ok(dressed(EmbeddedLog::open(folder, config.lanes, options)?, format, claim_checks))
        }
        StreamUrl::Kinesis(url) => {
            let log = KinesisLog::open(url, config.lanes).await?.with_any_keys(format.is_some());
            Ok(dressed(log, format, claim_checks))
        }
    }
}

/// A log with what the configuration puts over it: claim checks below, since they take records of any format.
fn dressed(log: impl EventLog + 'static, format: Option<RecordFormat>, claim_checks: Option<ClaimChecks>) -> Arc<dyn EventLog> {
    let log: Arc<dyn EventLog> = match claim_checks {
        Some(objects) => Arc::new(ClaimCheckLog::new(Arc::new(log), objects, format.clone())),
        None => Arc::new(log),
    };
    FormattedLog::over(log, format)
}

/// Opens the stream that the configuration names to read it beside its producer; `None` if there is none yet.
///
/// # Errors
/// Those of [`EmbeddedLog::open_to_read`] and [`KinesisLog::open_to_read`].
pub async fn open_to_read(config: &StreamConfig, claim_checks: Option<ClaimChecks>) -> Result<Option<Arc<dyn EventLog>>> {
    let format = config.record_format();
    match &config.url {
        StreamUrl::File(folder) => Ok(EmbeddedLog::open_to_read(folder)?.map(|log| dressed(log, format, claim_checks))),
        StreamUrl::Kinesis(url) => {
            let log = KinesisLog::open_to_read(url, config.lanes).await?.map(|log| log.with_any_keys(format.is_some()));
            Ok(log.map(|log| dressed(log, format, claim_checks)))
        }
    }
}

/// A place in a log from which reading can start: opaque, made by the log that reads it, kept in the merger's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPosition(pub String);

/// One record: as it is to be appended, or as it was read.
#[derive(Debug, Clone)]
pub struct LaneRecord {
    /// Its lane.
    pub lane: Lane,
    /// What the producer appended, byte for byte.
    pub bytes: Bytes,
    /// The key that other consumers of the stream see, where the log has such; `None`: the log's own choice. Readers don't get it back.
    pub partition_key: Option<String>,
}

/// What a log is, from the day when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdentity {
    /// Names this very log: positions and cuts of another one mean nothing here.
    pub stream_id: String,
    /// How many lanes it has.
    pub lanes: u16,
}

/// An ordered log of records on a fixed number of lanes, shared by one producer and any number of readers.
///
/// - *Order*: the records of one lane are read in the order in which their appends returned. Between lanes there is none, nor, in a log that
///   [orders by key](EventLog::orders_by_key), between those of several keys in one call.
/// - *Durability*: when `append` has returned `Ok`, its records outlive a crash of every process and of the machine.
/// - *Errors*: after an `Err` (or when the call was cancelled) any of its records may or may not be in the log. The caller sends the
///   same records again, byte for byte, before any later one of their lanes; readers see repeats and drop them by their index.
/// - *Repeats*: a reader may get any record more than once, but never a later one of a lane before the first sight of an earlier one.
#[async_trait]
pub trait EventLog: Send + Sync + Debug {
    /// Which log this is.
    fn identity(&self) -> &LogIdentity;

    /// Appends records, at most [`Self::records_at_once`] a lane, and returns when all are durable.
    async fn append(&self, records: Vec<LaneRecord>) -> Result<()>;

    /// Reads all lanes from `after` on (`None`: from the oldest record that is kept). Retention lost is an error of kind `Corrupt`.
    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>>;

    /// Says that no reader needs what lies before `position`: the log may drop it, as its retention allows. It keeps the last cut
    /// that is on all lanes, whatever was released.
    async fn release(&self, position: &LogPosition) -> Result<()>;

    /// Says for whom this process reads: a lake's name. What it hasn't released stays, also while it doesn't run. All processes that read for
    /// one lake have one name.
    fn register_reader(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// Says that nobody reads under this name any more: what that reader hasn't released needn't stay.
    fn forget_reader(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// Says that this process reads no more: what its readers have registered with the log, beyond names, is taken back.
    async fn leave(&self) -> Result<()> {
        Ok(())
    }

    /// What the producer's records are; `None`: Binlake's own chunks. Readers get chunks in either case.
    fn format(&self) -> Option<&RecordFormat> {
        None
    }

    /// How many records of one lane `append` takes at once. More than one: they become durable in their order, a beginning of them after an `Err`.
    fn records_at_once(&self) -> usize {
        1
    }

    /// Whether records of one call keep their order only where they have one partition key, or none. Then any number of them may go at once: they are durable when
    /// the call returns, so what comes with the next one is behind all of them.
    fn orders_by_key(&self) -> bool {
        false
    }

    /// The most bytes that a record may have.
    fn most_record_bytes(&self) -> usize {
        1 << 20
    }

    /// How long records are kept that nobody has released; `None`: for ever.
    fn retention(&self) -> Option<std::time::Duration> {
        None
    }

    /// How many shards take records; `None`: it has none.
    async fn shards(&self) -> Result<Option<u32>> {
        Ok(None)
    }

    /// Splits or merges shards until there are so many, while records come and go; returns when the log is active again.
    async fn set_shards(&self, shards: u32) -> Result<()> {
        Err(crate::error::Error::config("the stream has no shards")
            .with("shards", shards)
            .remedy("shards are Kinesis's: leave them out"))
    }

    /// A place not long ago at which to look for the last cut; each higher `reach` lies about four times as far back. `None`: the oldest.
    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        let _ = reach;
        Ok(None)
    }
}

/// A reader over all lanes of a log.
#[async_trait]
pub trait LogReader: Send + Debug {
    /// The next records; waits until there are some. Cancel safe. An empty answer means: nothing new at the moment. The first one after records (and
    /// the first of all) comes at once, so that who wants only what is there needn't wait; later ones at most after a second.
    async fn next(&mut self) -> Result<Vec<LaneRecord>>;

    /// A position such that reading from it gives all records that `next` has not yet given out.
    fn position(&self) -> LogPosition;
}
