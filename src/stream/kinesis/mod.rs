//! Kinesis: the log in production.
//!
//! **Lanes** lie on explicit hash keys, each in the middle of its share of the hash space, with the lane's number as partition key. So a lane is always on
//! one shard, whichever, and resharding changes no lane.
//!
//! **Writing** ([`Putter`], independent of lanes and chunks): of a line at most one record is under way; that alone keeps its order, whatever a call of
//! `PutRecords` refuses. A lost answer may leave a record twice on the stream, which the lane protocol drops.
//!
//! **Reading** ([`StreamReader`], independent of lanes and chunks): all shards at once, children after their parents, by polling or by enhanced fan-out.
//! Its position names the last record read of each shard.
//!
//! **Retention** is the stream's own: releasing does nothing. What was lost by it is noticed as a gap in a lane's indexes.

mod client;
mod fan_out;
mod latency;
mod pace;
mod position;
mod put;
mod put_queue;
mod reader;
mod shard;
mod shard_count;
mod shards;
mod url;

pub use latency::Latencies;
pub use position::{ShardId, ShardPlace, StreamPosition};
pub use put::{PutCounts, Putter};
pub use put_queue::PutRecord;
pub use reader::StreamReader;
pub use shard::StreamRecord;
pub use url::{KinesisUrl, Shards};

use self::client::{StreamClient, StreamFacts};
use self::fan_out::FanOut;
use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::{Error, Result};
use crate::event::Lane;
use crate::metrics::KINESIS_FOREIGN_RECORDS;
use crate::time::Timestamp;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a record needs besides its data.
const PARTITION_KEY_BYTES: usize = 256;
/// How far back the last cut is looked for at first: while a capture runs, there is one each second.
const RECENT: Duration = Duration::from_secs(30);

/// A stream of Kinesis, with its client: from it records are put and read.
#[derive(Debug)]
pub struct KinesisStream {
    url: KinesisUrl,
    client: Arc<StreamClient>,
    facts: StreamFacts,
    fan_out: Option<Arc<FanOut>>,
}

impl KinesisStream {
    /// Waits until the stream is active; makes it first if there is none, `may_create` and the URL has `create=…`. `None`: there is none.
    ///
    /// # Errors
    /// `Config` without region; `Refused` without rights; `Transient` where nobody answers.
    pub async fn open(url: &KinesisUrl, may_create: bool) -> Result<Option<Self>> {
        let client = Arc::new(StreamClient::new(url).await?);
        let Some(facts) = client.wait_until_usable(may_create).await? else { return Ok(None) };
        let fan_out = url.fan_out.as_ref().map(|name| Arc::new(FanOut::new(client.clone(), &facts.arn, name)));
        Ok(Some(Self { url: url.clone(), client, facts, fan_out }))
    }

    /// The stream's name and when it was made: this very stream.
    pub fn id(&self) -> String {
        format!("kinesis:{}@{}", self.client.name(), self.facts.created.as_micros() / 1000)
    }

    /// The most bytes of a record's data.
    pub fn most_record_bytes(&self) -> usize {
        self.facts.most_record_bytes - PARTITION_KEY_BYTES
    }

    /// How long the stream keeps records.
    pub fn retention(&self) -> Duration {
        self.facts.retention
    }

    /// How many shards took records when the stream was opened.
    pub fn open_shards(&self) -> u32 {
        self.facts.open_shards
    }

    /// Puts records, from this runtime on.
    pub fn putter(&self) -> Putter {
        Putter::new(self.client.clone())
    }

    /// Reads records.
    ///
    /// # Errors
    /// Those of [`StreamReader::open`].
    pub async fn reader(&self, position: &StreamPosition) -> Result<StreamReader> {
        StreamReader::open(self.client.clone(), self.fan_out.clone(), &self.url, position).await
    }

    /// Takes the registration of the enhanced fan-out consumer back, if this process has made it.
    ///
    /// # Errors
    /// If that fails; it costs money while it stays.
    pub async fn deregister(&self) -> Result<()> {
        match &self.fan_out {
            Some(fan_out) => fan_out.deregister().await,
            None => Ok(()),
        }
    }
}

/// The explicit hash key of a line (a lane, or whatever keeps its order): the middle of its share of the hash space.
pub fn line_hash_key(line: u32, lines: u32) -> u128 {
    let half = (1_u128 << 127) / u128::from(lines.max(1));
    half * (2 * u128::from(line) + 1)
}

/// A stream whose records are chunks on lanes.
#[derive(Debug)]
pub struct KinesisLog {
    stream: KinesisStream,
    identity: LogIdentity,
    putter: Putter,
    /// Each lane's partition key and hash key.
    keys: Vec<(Arc<str>, u128)>,
    /// Whether records with other partition keys than a lane's number are of this log, too: those of other formats, which say their lane themselves.
    has_any_keys: bool,
}

impl KinesisLog {
    /// Opens the stream for its producer and for readers; makes it if there is none and the URL says how.
    ///
    /// # Errors
    /// Those of [`KinesisStream::open`]; `Refused` if there is no such stream; `Config` if it has another number of lanes.
    pub async fn open(url: &KinesisUrl, lanes: u16) -> Result<Self> {
        match KinesisStream::open(url, true).await? {
            Some(stream) => {
                let tagged = stream.client.lanes(lanes, true).await?;
                if tagged != lanes {
                    return Err(Error::config("the stream has another number of lanes, which is fixed when it is first used")
                        .with("stream", url)
                        .with("lanes", tagged)
                        .with("configured", lanes)
                        .remedy("set `stream.lanes` to what it has, or name a new stream"));
                }
                Ok(Self::new(stream, lanes))
            }
            None => Err(StreamClient::new(url).await?.gone()),
        }
    }

    /// Opens the stream to read it beside its producer; `None` if there is none. `lanes` counts if the stream doesn't say how many it has.
    ///
    /// # Errors
    /// Those of [`KinesisStream::open`].
    pub async fn open_to_read(url: &KinesisUrl, lanes: u16) -> Result<Option<Self>> {
        let Some(stream) = KinesisStream::open(url, false).await? else { return Ok(None) };
        let lanes = stream.client.lanes(lanes, false).await?;
        Ok(Some(Self::new(stream, lanes)))
    }

    fn new(stream: KinesisStream, lanes: u16) -> Self {
        let identity = LogIdentity { stream_id: stream.id(), lanes };
        let putter = stream.putter();
        let key = |lane: u16| (lane.to_string().into(), line_hash_key(lane.into(), lanes.into()));
        Self { stream, identity, putter, keys: (0..lanes).map(key).collect(), has_any_keys: false }
    }

    /// The same; with `any`, the partition keys of its records are not the lanes' numbers: readers then give lane 0 for all of them.
    #[must_use]
    pub fn with_any_keys(self, any: bool) -> Self {
        Self { has_any_keys: any, ..self }
    }

    /// The stream under it.
    pub fn stream(&self) -> &KinesisStream {
        &self.stream
    }
}

#[async_trait]
impl EventLog for KinesisLog {
    fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        let most = self.most_record_bytes();
        let put = |record: LaneRecord| {
            let Some((partition_key, hash_key)) = self.keys.get(usize::from(record.lane.0)) else {
                return Err(Error::bug("a record for a lane that the stream does not have").with("lane", record.lane));
            };
            if record.bytes.len() > most {
                return Err(Error::bug("a record is larger than the stream takes")
                    .with("lane", record.lane)
                    .with("bytes", record.bytes.len()));
            }
            let line = line(record.lane, self.identity.lanes, record.partition_key.as_deref());
            let partition_key = record.partition_key.map_or_else(|| partition_key.clone(), Arc::from);
            Ok(PutRecord { line, partition_key, explicit_hash_key: Some(*hash_key), data: record.bytes })
        };
        self.putter.put(records.into_iter().map(put).collect::<Result<_>>()?).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let position = after.map(StreamPosition::try_from).transpose()?.unwrap_or(StreamPosition::Oldest);
        let reader = self.stream.reader(&position).await?;
        Ok(Box::new(LaneReader { reader, lanes: self.identity.lanes, has_any_keys: self.has_any_keys }))
    }

    async fn release(&self, _position: &LogPosition) -> Result<()> {
        // the stream forgets by itself
        Ok(())
    }

    async fn leave(&self) -> Result<()> {
        self.stream.deregister().await
    }

    fn orders_by_key(&self) -> bool {
        true
    }

    fn most_record_bytes(&self) -> usize {
        self.stream.most_record_bytes()
    }

    fn retention(&self) -> Option<Duration> {
        Some(self.stream.retention())
    }

    async fn shards(&self) -> Result<Option<u32>> {
        self.stream.client.open_shards().await.map(Some)
    }

    async fn set_shards(&self, shards: u32) -> Result<()> {
        self.stream.client.set_open_shards(shards).await
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        let back = RECENT * 4_u32.saturating_pow(reach.min(12));
        let now = Timestamp::now();
        let begins = Timestamp::from_micros(now.as_micros() - i64::try_from(back.as_micros()).unwrap_or(i64::MAX));
        let is_kept = back < self.stream.retention() && begins > self.stream.facts.created;
        Ok(is_kept.then(|| LogPosition::from(&StreamPosition::At(begins))))
    }
}

/// Lines of a lane whose records have partition keys: so many of them may be under way at once.
const LINES_OF_A_LANE: u32 = 64;

/// The line of a record: all that must keep their order have the same.
fn line(lane: Lane, lanes: u16, partition_key: Option<&str>) -> u32 {
    let Some(key) = partition_key else { return lane.0.into() };
    u32::from(lanes) + u32::from(lane.0) * LINES_OF_A_LANE + crc32fast::hash(key.as_bytes()) % LINES_OF_A_LANE
}

/// Records with the lanes that their partition keys name.
#[derive(Debug)]
struct LaneReader {
    reader: StreamReader,
    lanes: u16,
    has_any_keys: bool,
}

#[async_trait]
impl LogReader for LaneReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        loop {
            let read = self.reader.next().await?;
            let was_empty = read.is_empty();
            let records: VecDeque<LaneRecord> = read.into_iter().filter_map(|record| self.lane_record(record)).collect();
            // a batch of strangers' records alone is not the end
            if was_empty || !records.is_empty() {
                return Ok(records.into());
            }
        }
    }

    fn position(&self) -> LogPosition {
        LogPosition::from(&self.reader.position())
    }
}

impl LaneReader {
    fn lane_record(&self, record: StreamRecord) -> Option<LaneRecord> {
        if let Ok(lane) = record.partition_key.parse::<u16>()
            && lane < self.lanes
        {
            return Some(LaneRecord { lane: Lane(lane), bytes: record.data, partition_key: None });
        }
        if self.has_any_keys {
            return Some(LaneRecord { lane: Lane(0), bytes: record.data, partition_key: None });
        }
        tracing::warn!(
            shard = &*record.shard,
            sequence_number = record.sequence_number,
            "a record of somebody else's is passed over"
        );
        metrics::counter!(KINESIS_FOREIGN_RECORDS).increment(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_lies_in_the_middle_of_its_share() {
        assert_eq!(line_hash_key(0, 1), 1 << 127);
        assert_eq!([0, 1].map(|lane| line_hash_key(lane, 2)), [1 << 126, 3 << 126]);
        for lanes in [1, 2, 3, 16, 1024, 100_000] {
            let share = u128::MAX / u128::from(lanes);
            for lane in [0, lanes / 2, lanes - 1] {
                let key = line_hash_key(lane, lanes);
                let at = key / share;
                assert!(at == u128::from(lane), "lane {lane} of {lanes} lies in share {at}");
            }
        }
    }
}
