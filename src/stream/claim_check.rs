//! Claim checks: a record larger than the log takes lies in an object store, and on the log lies a reference to it.
//!
//! | offset | bytes | what (integers are little-endian) |
//! |---|---|---|
//! | 0 | 4 | `BLCC` |
//! | 4 | 1 | format version: 1 |
//! | 5 | 3 | zero |
//! | 8 | 8 | bytes of the record |
//! | 16 | 4 | CRC-32 (IEEE) of the record |
//! | 20 | … | the object's path below the folder of claim checks, UTF-8 |
//!
//! On a log in another system's format the reference is a record of that format, a [`ClaimCheck`], which names the object's URL for others.
//!
//! The object is there before its reference. It is named by its content, so a repeated append makes no second one. Objects lie in a folder for each
//! day, and are deleted when no reference can be on the log any more.

use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::{Area, Error, Kind, Result};
use crate::event::Lane;
use crate::format::{ClaimCheck, RecordFormat};
use crate::time::Timestamp;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const MAGIC: [u8; 4] = *b"BLCC";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 20;
/// The most bytes of a record that goes this way; a larger chunk is cut into parts of this size.
const MOST_RECORD_BYTES: usize = 64 << 20;
/// How much longer than its reference an object is kept.
const MARGIN: Duration = Duration::from_secs(2 * 86_400);
/// How often old objects are looked for, at most.
const CLEANING_INTERVAL: Duration = Duration::from_secs(3600);

/// Where the large records lie.
#[derive(Debug, Clone)]
pub struct ClaimChecks {
    /// The object store.
    pub store: Arc<dyn ObjectStore>,
    /// The folder.
    pub root: Path,
    /// Its URL, for others.
    pub url: String,
}

/// A log whose large records lie in an object store.
#[derive(Debug)]
pub struct ClaimCheckLog {
    log: Arc<dyn EventLog>,
    objects: ClaimChecks,
    /// What the log's records are; `None`: Binlake's own chunks.
    format: Option<RecordFormat>,
    /// How long an object is kept: longer than the log keeps its reference.
    kept_for: Duration,
    /// When old objects were last looked for, in microseconds since the epoch.
    last_cleaned: AtomicI64,
}

/// What stands on the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    bytes: u64,
    crc: u32,
    path: String,
}

impl Reference {
    fn write(&self) -> Bytes {
        let mut record = BytesMut::with_capacity(HEADER_BYTES + self.path.len());
        record.put_slice(&MAGIC);
        record.put_u8(VERSION);
        record.put_bytes(0, 3);
        record.put_u64_le(self.bytes);
        record.put_u32_le(self.crc);
        record.put_slice(self.path.as_bytes());
        record.freeze()
    }

    /// Reads a reference; `None`: the record is something else.
    fn read(record: &[u8]) -> Result<Option<Self>> {
        if !record.starts_with(&MAGIC) {
            let found = ClaimCheck::read(record)?;
            return Ok(found.map(|found| Self { bytes: found.bytes, crc: found.crc32, path: found.path }));
        }
        let damaged = || Error::new(Area::Stream, Kind::Corrupt, "a claim check on the stream is damaged");
        let (header, path) = record.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        if header[4] != VERSION {
            return Err(Error::new(
                Area::Stream,
                Kind::Refused,
                "a claim check on the stream has a format that this version does not know",
            )
            .with("format_version", header[4])
            .remedy("run the version of binlake that wrote it, or a newer one"));
        }
        let bytes = header[8..16].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let crc = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
        let path = std::str::from_utf8(path).map_err(|_| damaged())?.to_owned();
        Ok(Some(Self { bytes, crc, path }))
    }
}

impl ClaimChecks {
    async fn put(&self, lane: Lane, record: &Bytes) -> Result<Reference> {
        let day = Timestamp::now().to_datetime().map(|time| time.format("%Y-%m-%d").to_string()).unwrap_or_default();
        let path = format!("{day}/{lane}-{:032x}", xxhash_rust::xxh3::xxh3_128(record));
        let refused = |error| store_error(error, "a large record can't be put into the object store", &path);
        self.store.put(&self.full(&path), record.clone().into()).await.map_err(refused)?;
        Ok(Reference { bytes: record.len() as u64, crc: crc32fast::hash(record), path })
    }

    async fn get(&self, reference: &Reference) -> Result<Bytes> {
        let path = self.full(&reference.path);
        let read = async { self.store.get(&path).await?.bytes().await };
        let record = match read.await {
            Ok(record) => record,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::new(Area::Stream, Kind::Corrupt, "a large record is no longer in the object store")
                    .with("path", &path)
                    .remedy(
                        "take the tables anew with `binlake backfill`; keep claim checks longer than the stream keeps records",
                    ));
            }
            Err(error) => return Err(store_error(error, "a large record can't be read from the object store", &reference.path)),
        };
        if record.len() as u64 != reference.bytes || crc32fast::hash(&record) != reference.crc {
            return Err(
                Error::new(Area::Stream, Kind::Corrupt, "a large record in the object store is damaged").with("path", &path)
            );
        }
        Ok(record)
    }

    fn full(&self, path: &str) -> Path {
        Path::from_iter(self.root.parts().chain(Path::from(path).parts()))
    }

    /// Deletes what was put before `day` (as `2026-11-21`); tells how many objects.
    async fn clean(&self, day: &str) -> Result<usize> {
        let failed = |error| store_error(error, "old claim checks can't be deleted", day);
        let days = self.store.list_with_delimiter(Some(&self.root)).await.map_err(failed)?.common_prefixes;
        let mut deleted = 0;
        for old in days.into_iter().filter(|folder| folder.filename().is_some_and(|name| name < day)) {
            let objects: Vec<_> = self.store.list(Some(&old)).try_collect().await.map_err(failed)?;
            for object in objects {
                self.store.delete(&object.location).await.map_err(failed)?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

fn store_error(error: object_store::Error, what: &'static str, path: &str) -> Error {
    let kind = match &error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => Kind::Refused,
        _ => Kind::Transient,
    };
    Error::new(Area::Stream, kind, what).caused_by(error).with("path", path)
}

impl ClaimCheckLog {
    /// Over `log` with records of `format`: what is larger than it takes goes to `objects`, and is kept there for two days longer than the log keeps its
    /// records.
    pub fn new(log: Arc<dyn EventLog>, objects: ClaimChecks, format: Option<RecordFormat>) -> Self {
        let kept_for = log.retention().map_or(Duration::MAX, |retention| retention + MARGIN);
        Self { log, objects, format, kept_for, last_cleaned: AtomicI64::new(0) }
    }

    /// Puts a record into the store; gives what stands for it on the log.
    async fn left_there(&self, record: &LaneRecord) -> Result<Bytes> {
        let reference = self.objects.put(record.lane, &record.bytes).await?;
        let Some(format) = &self.format else { return Ok(reference.write()) };
        let claim_check = ClaimCheck {
            url: format!("{}/{}", self.objects.url.trim_end_matches('/'), reference.path),
            path: reference.path,
            bytes: reference.bytes,
            crc32: reference.crc,
            key: record.partition_key.clone().unwrap_or_default(),
        };
        Ok(format.claim_check(&claim_check, Timestamp::now())?.into())
    }

    /// Deletes objects that nothing on the log refers to any more; tells how many.
    ///
    /// # Errors
    /// If the object store refuses.
    pub async fn clean(&self, now: Timestamp) -> Result<usize> {
        let kept_for = i64::try_from(self.kept_for.as_micros()).unwrap_or(i64::MAX);
        let oldest = Timestamp::from_micros(now.as_micros().saturating_sub(kept_for));
        match oldest.to_datetime() {
            Some(time) => self.objects.clean(&time.format("%Y-%m-%d").to_string()).await,
            None => Ok(0),
        }
    }

    /// Whether it is time to look for old objects; then it is noted that this is done.
    fn is_cleaning_due(&self, now: Timestamp) -> bool {
        let last = self.last_cleaned.load(Ordering::Relaxed);
        let is_due = now.since(Timestamp::from_micros(last)) >= CLEANING_INTERVAL;
        is_due && self.last_cleaned.compare_exchange(last, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[async_trait]
impl EventLog for ClaimCheckLog {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, mut records: Vec<LaneRecord>) -> Result<()> {
        let most = self.log.most_record_bytes();
        for record in &mut records {
            if record.bytes.len() > MOST_RECORD_BYTES {
                return Err(Error::bug("a record is larger than the log takes")
                    .with("lane", record.lane)
                    .with("bytes", record.bytes.len()));
            }
            if record.bytes.len() > most {
                record.bytes = self.left_there(record).await?;
            }
        }
        self.log.append(records).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let reader = self.log.read(after).await?;
        let before = reader.position();
        Ok(Box::new(ResolvingReader { reader, objects: self.objects.clone(), before, unresolved: Vec::new() }))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        let now = Timestamp::now();
        if self.is_cleaning_due(now) {
            match self.clean(now).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "old claim checks are deleted"),
                Err(error) => tracing::warn!(%error, "old claim checks stay; they are looked for again in an hour"),
            }
        }
        self.log.release(position).await
    }

    fn orders_by_key(&self) -> bool {
        self.log.orders_by_key()
    }

    fn most_record_bytes(&self) -> usize {
        MOST_RECORD_BYTES
    }

    fn records_at_once(&self) -> usize {
        self.log.records_at_once()
    }

    fn register_reader(&self, name: &str) -> Result<()> {
        self.log.register_reader(name)
    }

    fn forget_reader(&self, name: &str) -> Result<()> {
        self.log.forget_reader(name)
    }

    async fn leave(&self) -> Result<()> {
        self.log.leave().await
    }

    fn retention(&self) -> Option<Duration> {
        self.log.retention()
    }

    async fn shards(&self) -> Result<Option<u32>> {
        self.log.shards().await
    }

    async fn set_shards(&self, shards: u32) -> Result<()> {
        self.log.set_shards(shards).await
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        self.log.recent(reach).await
    }
}

/// A reader that fetches what references mean.
#[derive(Debug)]
struct ResolvingReader {
    reader: Box<dyn LogReader>,
    objects: ClaimChecks,
    /// The reader's position before `unresolved`.
    before: LogPosition,
    /// Read, and not given out yet: a call that is cancelled loses nothing.
    unresolved: Vec<LaneRecord>,
}

#[async_trait]
impl LogReader for ResolvingReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        if self.unresolved.is_empty() {
            self.before = self.reader.position();
            self.unresolved = self.reader.next().await?;
        }
        for record in &mut self.unresolved {
            let Some(reference) = Reference::read(&record.bytes).map_err(|error| error.with("lane", record.lane))? else {
                continue;
            };
            record.bytes = self.objects.get(&reference).await?;
        }
        Ok(std::mem::take(&mut self.unresolved))
    }

    fn position(&self) -> LogPosition {
        if self.unresolved.is_empty() { self.reader.position() } else { self.before.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::MemoryLog;
    use object_store::memory::InMemory;

    fn log(inner: &MemoryLog, store: &Arc<InMemory>) -> ClaimCheckLog {
        let objects = ClaimChecks { store: store.clone(), root: Path::from("lake/_stream"), url: "s3://b/lake/_stream".into() };
        let log = ClaimCheckLog::new(Arc::new(inner.clone()), objects, None);
        // the log in memory keeps all for ever
        ClaimCheckLog { kept_for: MARGIN, ..log }
    }

    fn record(lane: u16, bytes: usize) -> LaneRecord {
        LaneRecord { lane: Lane(lane), bytes: vec![7; bytes].into(), partition_key: None }
    }

    async fn objects(store: &InMemory) -> usize {
        store.list(None).try_collect::<Vec<_>>().await.unwrap().len()
    }

    #[tokio::test]
    async fn large_records_go_by_the_store_and_come_back() {
        let (inner, store) = (MemoryLog::new(2).with_most_record_bytes(200), Arc::new(InMemory::new()));
        let log = log(&inner, &store);
        let records = vec![record(0, 200), record(1, 5000)];
        log.append(records.clone()).await.unwrap();
        // again, as after a lost answer: no second object
        log.append(records).await.unwrap();
        assert_eq!(objects(&store).await, 1);
        let mut reader = log.read(None).await.unwrap();
        let before = reader.position();
        let sizes: Vec<usize> = reader.next().await.unwrap().iter().map(|record| record.bytes.len()).collect();
        assert_eq!(sizes, [200, 5000, 200, 5000]);
        assert_ne!(reader.position(), before);
        let raw = inner.read(None).await.unwrap().next().await.unwrap();
        assert!(raw[1].bytes.len() < 200 && raw[1].bytes.starts_with(b"BLCC"));
        let reference = Reference::read(&raw[1].bytes).unwrap().unwrap();
        assert_eq!((reference.bytes, reference.write()), (5000, raw[1].bytes.clone()));
    }

    #[tokio::test]
    async fn in_another_format_the_reference_is_a_record_of_it() {
        let (inner, store) = (MemoryLog::new(1).with_most_record_bytes(400), Arc::new(InMemory::new()));
        let format = RecordFormat { dialect: crate::format::Dialect::Dms, is_aggregated: false };
        let log = ClaimCheckLog { format: Some(format), ..log(&inner, &store) };
        let sent = LaneRecord { partition_key: Some("shop.orders.7".into()), ..record(0, 5000) };
        log.append(vec![sent.clone()]).await.unwrap();
        let raw = inner.read(None).await.unwrap().next().await.unwrap();
        let found = ClaimCheck::read(&raw[0].bytes).unwrap().unwrap();
        assert_eq!((found.url, found.key), (format!("s3://b/lake/_stream/{}", found.path), "shop.orders.7".into()));
        let record: serde_json::Value = serde_json::from_slice(&raw[0].bytes).unwrap();
        assert_eq!(record["metadata"]["record-type"], "control");
        assert_eq!(log.read(None).await.unwrap().next().await.unwrap()[0].bytes, sent.bytes);
    }

    #[tokio::test]
    async fn what_is_gone_or_damaged_is_said() {
        let (inner, store) = (MemoryLog::new(1).with_most_record_bytes(100), Arc::new(InMemory::new()));
        let log = log(&inner, &store);
        log.append(vec![record(0, 5000)]).await.unwrap();
        let object = store.list(None).try_collect::<Vec<_>>().await.unwrap().remove(0).location;
        store.put(&object, Bytes::from_static(b"other").into()).await.unwrap();
        let mut reader = log.read(None).await.unwrap();
        assert_eq!(reader.next().await.unwrap_err().kind(), Kind::Corrupt);
        store.delete(&object).await.unwrap();
        let error = reader.next().await.unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("binlake backfill"), "{error}");
        assert!(Reference::read(b"BLCC").is_err());
        assert_eq!(Reference::read(b"BLCK").unwrap(), None);
        assert_eq!(Reference::read(b"BLCC\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap_err().kind(), Kind::Refused);
    }

    #[tokio::test]
    async fn old_objects_are_deleted_and_younger_ones_stay() {
        let (inner, store) = (MemoryLog::new(1).with_most_record_bytes(100), Arc::new(InMemory::new()));
        let log = log(&inner, &store);
        log.append(vec![record(0, 5000)]).await.unwrap();
        store.put(&Path::from("lake/_stream/2001-01-01/0-1"), Bytes::from_static(b"old").into()).await.unwrap();
        store.put(&Path::from("lake/db/t/file"), Bytes::from_static(b"not ours").into()).await.unwrap();
        let position = log.read(None).await.unwrap().position();
        log.release(&position).await.unwrap();
        assert_eq!(objects(&store).await, 2);
        let now = Timestamp::now().as_micros();
        assert_eq!(log.clean(Timestamp::from_micros(now + 86_400_000_000)).await.unwrap(), 0);
        assert_eq!(log.clean(Timestamp::from_micros(now + 4 * 86_400_000_000)).await.unwrap(), 1);
    }
}
