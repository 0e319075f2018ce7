//! Streams that other systems write: their URLs, and Kinesis as one of them.

use super::LogPosition;
use super::foreign::{RecordReader, RecordSource};
use super::jsonl::JsonLinesFolder;
use super::kinesis::{KinesisStream, KinesisUrl, StreamPosition, StreamReader};
use crate::error::{Area, Error, Kind, Result};
use crate::format::ForeignRecord;
use crate::setting::local_path;
use crate::time::Timestamp;
use async_trait::async_trait;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where such a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RecordStreamUrl {
    /// A folder to which JSON lines are added.
    JsonLines(PathBuf),
    /// A Kinesis stream.
    Kinesis(Box<KinesisUrl>),
}

impl fmt::Display for RecordStreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JsonLines(folder) => write!(f, "jsonl:{}", folder.display()),
            Self::Kinesis(url) => write!(f, "{url}"),
        }
    }
}

impl TryFrom<String> for RecordStreamUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("kinesis:") {
            return KinesisUrl::parse(&text).map(|url| Self::Kinesis(Box::new(url)));
        }
        let folder = local_path(&text, "jsonl")
            .ok_or_else(|| format!("`{text}` is not a stream of records; write kinesis://name?region=… or jsonl:./folder/"))?;
        Ok(Self::JsonLines(folder))
    }
}

impl RecordStreamUrl {
    /// Opens the stream to read it.
    ///
    /// # Errors
    /// `Refused` if there is no such stream; those of [`KinesisStream::open`].
    pub async fn open(&self) -> Result<Arc<dyn RecordSource>> {
        match self {
            Self::JsonLines(folder) => Ok(Arc::new(JsonLinesFolder::new(folder))),
            Self::Kinesis(url) => match KinesisStream::open(url, false).await? {
                Some(stream) => Ok(Arc::new(KinesisRecords { stream })),
                None => Err(Error::new(Area::Stream, Kind::Refused, "there is no such stream")
                    .with("stream", self)
                    .remedy("create it, or correct `stream` in the [[table]]")),
            },
        }
    }
}

/// A Kinesis stream that others write.
#[derive(Debug)]
struct KinesisRecords {
    stream: KinesisStream,
}

#[async_trait]
impl RecordSource for KinesisRecords {
    fn stream_id(&self) -> String {
        self.stream.id()
    }

    async fn read(&self, after: Option<&str>) -> Result<Box<dyn RecordReader>> {
        let position = match after {
            None => StreamPosition::Oldest,
            Some(text) => StreamPosition::try_from(&LogPosition(text.to_owned()))?,
        };
        let reader = self.stream.reader(&position).await?;
        Ok(Box::new(KinesisReader { reader }))
    }
}

#[derive(Debug)]
struct KinesisReader {
    reader: StreamReader,
}

#[async_trait]
impl RecordReader for KinesisReader {
    async fn next(&mut self) -> Result<Vec<ForeignRecord>> {
        let records = self.reader.next().await?;
        Ok(records
            .into_iter()
            .map(|record| ForeignRecord {
                shard: record.shard,
                offset: 0,
                arrived_at: record.arrived.unwrap_or_else(Timestamp::now),
                key: Some(record.partition_key.into()),
                bytes: record.data,
            })
            .collect())
    }

    fn position(&self) -> String {
        LogPosition::from(&self.reader.position()).0
    }
}
