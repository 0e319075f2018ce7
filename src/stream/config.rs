//! `[stream]`: the log between the halves.

use super::kinesis::KinesisUrl;
use crate::format::{DebeziumOptions, Dialect, RecordFormat};
use crate::setting::{ByteSize, duration, local_path};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[stream]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Where it is: `file:./data/stream`, `kinesis://name?region=…`.
    pub url: StreamUrl,
    /// What a record is.
    pub format: StreamFormat,
    /// `kpl`: the records of other formats are packed into the Kinesis producer library's aggregated ones.
    pub aggregate: Option<Aggregate>,
    /// What Debezium's options of these names do, for `format = "debezium-json"`.
    pub debezium: DebeziumOptions,
    /// The number of lanes; fixed when the stream is first used.
    pub lanes: u16,
    /// The most bytes of one chunk, before compression. A larger row is split over parts.
    pub chunk_size: ByteSize,
    /// Whether chunks larger than a record go by the lake's object store, below `_stream/`, and not over several records.
    pub claim_check: bool,
    /// How long a row waits for others at most before its chunk goes to the stream; the chunk may still wait for the one before it on its lane.
    #[serde(deserialize_with = "duration")]
    pub flush_interval: Duration,
    /// How often a cut is put on all lanes: a merger can commit no more often.
    #[serde(deserialize_with = "duration")]
    pub cut_interval: Duration,
    /// The size at which the embedded log begins a new segment file.
    pub segment_size: ByteSize,
    /// How long the embedded log keeps segments that no merger needs any more.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// The most bytes of such segments.
    pub retention_size: ByteSize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            url: StreamUrl::File("./data/stream".into()),
            format: StreamFormat::Binlake,
            aggregate: None,
            debezium: DebeziumOptions::default(),
            lanes: 16,
            chunk_size: ByteSize(1 << 20),
            claim_check: false,
            flush_interval: Duration::from_millis(150),
            cut_interval: Duration::from_secs(1),
            segment_size: ByteSize(64 << 20),
            retention: Duration::from_secs(3600),
            retention_size: ByteSize(1 << 30),
        }
    }
}

impl StreamConfig {
    /// What the records are; `None`: Binlake's own chunks.
    pub fn record_format(&self) -> Option<RecordFormat> {
        let dialect = match self.format {
            StreamFormat::Binlake => return None,
            StreamFormat::DmsJson => Dialect::Dms,
            StreamFormat::DebeziumJson => Dialect::Debezium(Arc::new(self.debezium.clone())),
        };
        Some(RecordFormat { dialect, is_aggregated: self.aggregate.is_some() })
    }
}

/// How records are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// As the Kinesis producer library does.
    Kpl,
}

/// Where a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StreamUrl {
    /// The embedded log in a folder.
    File(PathBuf),
    /// A Kinesis stream.
    Kinesis(Box<KinesisUrl>),
}

impl std::fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StreamUrl::File(folder) => write!(f, "file:{}", folder.display()),
            StreamUrl::Kinesis(url) => url.fmt(f),
        }
    }
}

impl TryFrom<String> for StreamUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("kinesis:") {
            return KinesisUrl::parse(&text).map(|url| StreamUrl::Kinesis(Box::new(url)));
        }
        local_path(&text, "file")
            .map(StreamUrl::File)
            .ok_or_else(|| format!("`{text}` is not a stream's URL; write file:./data/stream or kinesis://name?region=…"))
    }
}

/// What a record on the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StreamFormat {
    /// Chunks of Arrow IPC.
    Binlake,
    /// AWS DMS's JSON.
    DmsJson,
    /// Debezium's JSON.
    DebeziumJson,
}

impl TryFrom<String> for StreamFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "binlake" => Ok(StreamFormat::Binlake),
            "dms-json" => Ok(StreamFormat::DmsJson),
            "debezium-json" => Ok(StreamFormat::DebeziumJson),
            "json" => Err("plain JSON is read, not written; name it in a [[table]] with `stream`".into()),
            _ => Err(format!("there is no format `{text}`; write binlake, dms-json or debezium-json")),
        }
    }
}
