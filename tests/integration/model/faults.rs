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
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Decides about each call of one process: by what the call is and how often it was made, not by when, so that the threads' order changes nothing.
#[derive(Debug)]
pub(super) struct Faults {
    seed: u64,
    percent: u64,
    /// The kind of call at which the process stops, and the how manieth.
    stops_at: Option<(usize, u64)>,
    calls: Mutex<Calls>,
    is_dead: AtomicBool,
}

#[derive(Debug, Default)]
struct Calls {
    by_name: BTreeMap<String, u64>,
    by_kind: [u64; KINDS.len()],
}

/// Calls at which a process may stop: the beginning of their name, and up to the how manieth.
const KINDS: [(&str, u64); 8] = [
    ("append", 60),
    ("next", 60),
    ("release", 8),
    ("list", 40),
    ("get", 40),
    ("put .hoodie", 20),
    ("put binlake", 12),
    ("put data", 12),
];

enum Fate {
    Works,
    Slow(Duration),
    Refused,
    AnswerLost,
    StopsBefore,
    StopsAfter,
    Dead,
}

impl Faults {
    /// Of 100 calls, `percent` fail; if `stops`, the process doesn't live for ever.
    pub(super) fn new(mut noise: Noise, percent: u64, stops: bool) -> Arc<Self> {
        let kind = noise.below(KINDS.len());
        let stops_at = stops.then(|| (kind, noise.next() % KINDS[kind].1));
        let (seed, calls) = (noise.next(), Mutex::default());
        Arc::new(Self { seed, percent, stops_at, calls, is_dead: AtomicBool::new(false) })
    }

    /// The process is gone: whatever it still does, nobody can see.
    pub(super) fn kill(&self) {
        self.is_dead.store(true, Relaxed);
    }

    fn fate(&self, name: &str) -> Fate {
        if self.is_dead() {
            return Fate::Dead;
        }
        let mut calls = self.calls.lock().unwrap();
        let count = calls.by_name.entry(name.to_owned()).or_default();
        *count += 1;
        let hash = crc32fast::hash(format!("{name} {count}").as_bytes());
        let mut noise = Noise::new(self.seed ^ u64::from(hash));
        if let Some(kind) = KINDS.iter().position(|(kind, _)| name.starts_with(kind)) {
            calls.by_kind[kind] += 1;
            if self.stops_at.is_some_and(|at| at.0 == kind && calls.by_kind[kind] > at.1) {
                return if noise.chance(50) { Fate::StopsBefore } else { Fate::StopsAfter };
            }
        }
        // a rewrite's thread can't wait: paused time stands still while it runs
        let is_on_a_thread = name.contains("data");
        let is_retried_there = name.starts_with("put data .hoodie_partition_metadata") || name.starts_with("get data");
        if noise.chance(self.percent) && !is_retried_there {
            if noise.chance(50) { Fate::Refused } else { Fate::AnswerLost }
        } else if noise.chance(2 * self.percent) && !is_on_a_thread {
            Fate::Slow(Duration::from_millis(noise.next() % 3000))
        } else {
            Fate::Works
        }
    }

    /// Whether the process is gone.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Relaxed)
    }

    async fn around<T, E>(
        &self,
        name: &str,
        call: impl Future<Output = std::result::Result<T, E>>,
        lost: fn(bool) -> E,
    ) -> std::result::Result<T, E> {
        match self.fate(name) {
            Fate::Dead => Err(lost(true)),
            Fate::Works => call.await,
            Fate::Slow(pause) => {
                tokio::time::sleep(pause).await;
                if self.is_dead() { Err(lost(true)) } else { call.await }
            }
            Fate::Refused => Err(lost(false)),
            Fate::AnswerLost => {
                call.await?;
                Err(lost(false))
            }
            Fate::StopsBefore => {
                self.kill();
                Err(lost(true))
            }
            Fate::StopsAfter => {
                let _ = call.await;
                self.kill();
                Err(lost(true))
            }
        }
    }
}

/// A call's name: what it does, and to which kind of file of which table; file names are random.
fn named(call: &str, path: &Path) -> String {
    let text = path.as_ref();
    let kind = match (text.contains("/.hoodie/.binlake"), text.contains("/.hoodie/")) {
        (true, _) => "binlake",
        (_, true) => ".hoodie",
        _ => "data",
    };
    let table = text.split('/').nth(2).unwrap_or_default();
    let file = path.filename().unwrap_or_default();
    let extension =
        if file == ".hoodie_partition_metadata" { file } else { file.split_once('.').map_or("", |(_, extension)| extension) };
    format!("{call} {kind} {extension} {table}")
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
        self.faults.around(&format!("append {}", records[0].lane), self.log.append(records), lost_record).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let reader = self.faults.around("read", self.log.read(after), lost_record).await?;
        Ok(Box::new(FaultyReader { reader, faults: self.faults.clone() }))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.faults.around("release", self.log.release(position), lost_record).await
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
        match self.faults.fate("next") {
            Fate::Works => self.reader.next().await,
            Fate::Slow(pause) => {
                tokio::time::sleep(pause).await;
                self.reader.next().await
            }
            // a reader whose answer was lost has nothing more to say
            Fate::Refused | Fate::AnswerLost => Err(lost_record(false)),
            Fate::Dead => Err(lost_record(true)),
            Fate::StopsBefore | Fate::StopsAfter => {
                self.faults.kill();
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
        self.faults.around(&named("put", path), self.store.put_opts(path, payload, options), lost_object).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.faults.around(&named("put", path), self.store.put_multipart_opts(path, options), lost_object).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.faults.around(&named("get", path), self.store.get_opts(path, options), lost_object).await
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
        let name = prefix.map_or_else(|| "list".into(), |prefix| named("list", prefix));
        self.faults.around(&name, self.store.list_with_delimiter(prefix), lost_object).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.faults.around(&named("copy", to), self.store.copy_opts(from, to, options), lost_object).await
    }
}
