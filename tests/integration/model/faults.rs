//! A log and a store that refuse, that do it and lose the answer, and that stop the world at any call.

use super::noise::Noise;
use async_trait::async_trait;
use binlake::error::{Area, Error, Kind, Result};
use binlake::stream::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader, MemoryLog};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult,
};
use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

/// Decides about each call of one process.
#[derive(Debug)]
pub(super) struct Faults {
    noise: Mutex<Noise>,
    percent: u64,
    /// Calls until the process stops.
    countdown: Mutex<Option<u64>>,
    /// Told when it does.
    pub(super) stopped: Notify,
    is_dead: watch::Sender<bool>,
}

enum Fate {
    Works,
    Refused,
    AnswerLost,
    StopsBefore,
    StopsAfter,
    Dead,
}

impl Faults {
    /// Of 100 calls, `percent` fail; the call after `calls` others never returns.
    pub(super) fn new(noise: Noise, percent: u64, calls: Option<u64>) -> Arc<Self> {
        let (noise, countdown) = (Mutex::new(noise), Mutex::new(calls));
        Arc::new(Self { noise, percent, countdown, stopped: Notify::new(), is_dead: watch::Sender::new(false) })
    }

    /// The process is gone: whatever threads it has left do nothing more.
    pub(super) fn kill(&self) {
        self.is_dead.send_replace(true);
    }

    fn fate(&self) -> Fate {
        if *self.is_dead.borrow() {
            return Fate::Dead;
        }
        let mut noise = self.noise.lock().unwrap();
        match self.countdown.lock().unwrap().as_mut() {
            Some(0) => return if noise.chance(50) { Fate::StopsBefore } else { Fate::StopsAfter },
            Some(left) => *left -= 1,
            None => {}
        }
        if !noise.chance(self.percent) {
            Fate::Works
        } else if noise.chance(50) {
            Fate::Refused
        } else {
            Fate::AnswerLost
        }
    }

    /// Waits for the process to be gone.
    async fn stop(&self) {
        self.stopped.notify_one();
        let _ = self.is_dead.subscribe().wait_for(|is_dead| *is_dead).await;
    }

    async fn around<T, E>(
        &self,
        call: impl Future<Output = std::result::Result<T, E>>,
        lost: fn(bool) -> E,
    ) -> std::result::Result<T, E> {
        match self.fate() {
            Fate::Dead => Err(lost(true)),
            Fate::Works => call.await,
            Fate::Refused => Err(lost(false)),
            Fate::AnswerLost => {
                call.await?;
                Err(lost(false))
            }
            Fate::StopsBefore => {
                self.stop().await;
                Err(lost(true))
            }
            Fate::StopsAfter => {
                let _ = call.await;
                self.stop().await;
                Err(lost(true))
            }
        }
    }
}

fn lost_record(is_final: bool) -> Error {
    Error::new(Area::Stream, if is_final { Kind::Refused } else { Kind::Transient }, "injected")
}

/// A [`MemoryLog`] with faults.
#[derive(Debug, Clone)]
pub(super) struct FaultyLog {
    pub(super) log: MemoryLog,
    pub(super) faults: Arc<Faults>,
}

#[async_trait]
impl EventLog for FaultyLog {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        self.faults.around(self.log.append(records), lost_record).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let reader = self.faults.around(self.log.read(after), lost_record).await?;
        Ok(Box::new(FaultyReader { reader, faults: self.faults.clone() }))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.faults.around(self.log.release(position), lost_record).await
    }

    fn most_record_bytes(&self) -> usize {
        self.log.most_record_bytes()
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        self.log.recent(reach).await
    }
}

#[derive(Debug)]
struct FaultyReader {
    reader: Box<dyn LogReader>,
    faults: Arc<Faults>,
}

#[async_trait]
impl LogReader for FaultyReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        match self.faults.fate() {
            Fate::Works => self.reader.next().await,
            // a reader whose answer was lost has nothing more to say
            Fate::Refused | Fate::AnswerLost => Err(lost_record(false)),
            Fate::Dead => Err(lost_record(true)),
            Fate::StopsBefore | Fate::StopsAfter => {
                self.faults.stop().await;
                Err(lost_record(true))
            }
        }
    }

    fn position(&self) -> LogPosition {
        self.reader.position()
    }
}

/// An object store with faults.
#[derive(Debug)]
pub(super) struct FaultyStore {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) faults: Arc<Faults>,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.store)
    }
}

fn lost_object(is_final: bool) -> object_store::Error {
    match is_final {
        true => object_store::Error::PermissionDenied { path: String::new(), source: "injected".into() },
        false => object_store::Error::Generic { store: "faulty", source: "injected".into() },
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.faults.around(self.store.put_opts(path, payload, options), lost_object).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.faults.around(self.store.put_multipart_opts(path, options), lost_object).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.faults.around(self.store.get_opts(path, options), lost_object).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.faults.around(self.store.list_with_delimiter(prefix), lost_object).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.faults.around(self.store.copy_opts(from, to, options), lost_object).await
    }
}
