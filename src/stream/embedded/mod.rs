//! The embedded log: segment files in a folder, shared by all lanes.
//!
//! **One producer**, held by a lock on the folder. A thread of its own takes all appends that wait, writes them with one call, and makes them durable
//! with one `fdatasync`; then it moves the *end*, which readers never pass. So what a reader has seen outlives a crash.
//!
//! **After a crash** what lies behind the noted end may be torn: there the producer that opens the log cuts it at the first record that isn't whole.
//! What lies before it was durable: if that isn't whole, the file is damaged, and the log is not opened.
//!
//! **Retention.** Segments that no reader needs any more (see [`EventLog::release`]) are kept for a while and up to a size; what is needed to find the last
//! cut is kept always. What a reader still needs is never dropped.

mod appender;
mod folder;
mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use self::appender::{Appender, Request};
use self::folder::Folder;
use self::reader::SegmentReader;
use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::{Area, Error, Kind, Result};
use async_trait::async_trait;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A place in the log: a segment's number and the offset in bytes in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place {
    segment: u64,
    offset: u64,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (segment, offset) = text.split_once(':')?;
        Some(Self { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// How an embedded log is kept.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The size at which a new segment is begun, in bytes.
    pub segment_bytes: u64,
    /// The age at which a new segment is begun.
    pub segment_age: Duration,
    /// How long segments are kept that no reader needs.
    pub retention: Duration,
    /// The most bytes of segments that no reader needs.
    pub retention_bytes: u64,
    /// The most bytes of a record.
    pub most_record_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(600),
            retention: Duration::from_secs(3600),
            retention_bytes: 1 << 30,
            most_record_bytes: 1 << 20,
        }
    }
}

/// Records of a lane that are appended by one call: they are written in their order.
const RECORDS_AT_ONCE: usize = 1024;

/// A log in a folder.
#[derive(Debug)]
pub struct EmbeddedLog {
    folder: Arc<Folder>,
    most_record_bytes: usize,
    /// Where the durable records end; in another process than the producer's it is the reader who looks.
    end: Option<watch::Receiver<Place>>,
    producer: Option<ProducerSide>,
    /// For whom this process reads.
    reader: OnceLock<String>,
}

#[derive(Debug)]
struct ProducerSide {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    last_cut: watch::Receiver<Option<Place>>,
    /// Released when the log is dropped, after the thread has ended.
    _lock: File,
}

impl EmbeddedLog {
    /// Opens the log in `folder` for appending and reading; makes it, with `lanes` lanes, if there is none. Blocks while it reads the end of the log.
    ///
    /// # Errors
    /// `Conflict` if another producer has it; `Config` if it has another number of lanes; `Corrupt` if it is damaged; `Refused` by the file system.
    pub fn open(folder: &Path, lanes: u16, options: EmbeddedOptions) -> Result<Self> {
        let lock = Folder::lock(folder)?;
        let folder = Arc::new(Folder::open_or_create(folder, lanes)?);
        let most_record_bytes = options.most_record_bytes;
        let appender = Appender::open(folder.clone(), options)?;
        let (end, last_cut) = (appender.end(), appender.last_cut());
        let (requests, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("binlake-log".into())
            .spawn(move || appender.run(&queue))
            .map_err(|error| Error::new(Area::Stream, Kind::Refused, "the stream's thread can't be started").caused_by(error))?;
        let producer = ProducerSide { requests: Some(requests), thread: Some(thread), last_cut, _lock: lock };
        Ok(Self { folder, most_record_bytes, end: Some(end), producer: Some(producer), reader: OnceLock::new() })
    }

    /// Opens the log in `folder` for reading, beside a producer in another process; `None` if there is no log.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged; `Refused` by the file system.
    pub fn open_to_read(folder: &Path) -> Result<Option<Self>> {
        let folder = Folder::open(folder)?;
        Ok(folder.map(|folder| Self {
            folder: Arc::new(folder),
            most_record_bytes: 0,
            end: None,
            producer: None,
            reader: OnceLock::new(),
        }))
    }

    fn request(&self, request: Request) -> Result<()> {
        let requests = self.producer.as_ref().and_then(|producer| producer.requests.as_ref());
        requests.ok_or_else(|| Error::bug("a log that was opened to read was to be written"))?.send(request).map_err(|_| stopped())
    }
}

/// The thread has ended: it only does so when the log is dropped, or by a fault of ours.
fn stopped() -> Error {
    Error::bug("the stream's thread has ended")
}

/// Reads a position that a reader of an embedded log made.
fn parse(position: &LogPosition) -> Result<Place> {
    Place::parse(&position.0).ok_or_else(|| {
        Error::new(Area::Stream, Kind::Corrupt, "a position on the stream is not one of a log in a folder")
            .with("position", &position.0)
    })
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn identity(&self) -> &LogIdentity {
        &self.folder.identity
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        if let Some(record) = records.iter().find(|record| record.bytes.len() > self.most_record_bytes) {
            return Err(Error::bug("a record is larger than the log takes")
                .with("lane", record.lane)
                .with("bytes", record.bytes.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.request(Request::Append { records, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let place = after.map(parse).transpose()?;
        let (folder, end) = (self.folder.clone(), self.end.clone());
        let open = move || SegmentReader::open(folder, end, place);
        let reader =
            tokio::task::spawn_blocking(open).await.map_err(|panic| Error::bug("opening a reader died").caused_by(panic))??;
        Ok(Box::new(reader))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        let place = parse(position)?;
        let reader = self.reader.get();
        match &self.producer {
            Some(_) => self.request(Request::Release(reader.cloned(), place)),
            None => self.folder.note_released(reader.map(String::as_str), place),
        }
    }

    fn register_reader(&self, name: &str) -> Result<()> {
        self.folder.register(self.reader.get_or_init(|| name.to_owned()))
    }

    fn forget_reader(&self, name: &str) -> Result<()> {
        self.folder.forget(name)
    }

    fn records_at_once(&self) -> usize {
        RECORDS_AT_ONCE
    }

    fn most_record_bytes(&self) -> usize {
        self.most_record_bytes
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        if reach > 0 {
            return Ok(None);
        }
        let place = match &self.producer {
            Some(producer) => *producer.last_cut.borrow(),
            None => recovery::noted_last_cut(&self.folder)?,
        };
        Ok(place.map(|place| LogPosition(place.to_string())))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Some(producer) = &mut self.producer {
            producer.requests = None;
            if let Some(thread) = producer.thread.take() {
                // it finishes the append under way; then the lock goes
                let _ = thread.join();
            }
        }
    }
}
