//! The snapshot: all rows of tables as they are at one point, read by several connections, in chunks that a restart needn't read again.
//!
//! [`Snapshot::open`] takes the point ([`super::snapshot_point`]'s module says why each way of taking it is right), [`Snapshot::run`] reads and sends
//! [`SnapshotEvent`]s. Rows go out as operation `r`, stamped with the point; after all rows of a chunk comes the table's new [`SnapshotProgress`], which the
//! capture puts into its next cut. What a crash leaves half sent is read again, at a later point: the rows that come twice are upserts, and rows deleted
//! between the two points are deleted by the binlog, which is read from the first point's low watermark. When nothing remains, the table is exact as soon as
//! the binlog has passed the high watermark. All of that is said in one server's positions: on another one the snapshot begins anew.

use super::catalog::{CatalogTable, find_changed};
use super::connect::{connect, is_redefined};
use super::server::ServerInfo;
use super::snapshot_point::{Point, PointRequest};
use super::snapshot_read::read_chunk;
use super::snapshot_session::Session;
use super::snapshot_work::{Job, Work};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{ChangeBatch, KeyRange, Lane, SnapshotProgress, SourcePosition, TableId, TransactionStamp, ValuePolicies};
use backon::{BackoffBuilder, ExponentialBuilder};
use mysql_async::Opts;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tracing::warn;

/// What to read, and how.
#[derive(Debug)]
pub struct SnapshotPlan {
    /// The tables, in the order in which they are read.
    pub tables: Vec<TablePlan>,
    /// The stream's lanes.
    pub lanes: u16,
    /// Connections that read at once.
    pub connections: usize,
    /// Rows of a chunk, about.
    pub chunk_rows: u64,
    /// Bytes of a lane's rows after which they are sent; each connection holds at most this much a lane.
    pub batch_bytes: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the lock at the start is waited for, while writers queue behind it.
    pub lock_wait_timeout: Duration,
}

/// One table of a plan.
#[derive(Debug, Clone)]
pub struct TablePlan {
    /// The table.
    pub table: CatalogTable,
    /// What becomes of values that the lake can't hold.
    pub policies: ValuePolicies,
    /// Where a snapshot that was interrupted goes on; `None`: a new one.
    pub progress: Option<SnapshotProgress>,
    /// The rows that are wanted, as an SQL condition; `None`: all. A progress's own filter comes first.
    pub filter: Option<String>,
}

/// What a snapshot sends.
#[derive(Debug)]
pub enum SnapshotEvent {
    /// Rows of one lane: operation `r`, one stamp.
    Rows {
        /// The lane.
        lane: Lane,
        /// The rows.
        batch: ChangeBatch,
    },
    /// A table got further: all rows of what `progress` no longer lists were sent before. With nothing remaining, the table is read.
    Progress {
        /// The table.
        table: TableId,
        /// How far it is.
        progress: SnapshotProgress,
    },
    /// A table can't be read: the others go on. An error that passes means that the table was altered, emptied or dropped meanwhile, and is to be
    /// read anew, as it is then; else a value is one that the table's policies refuse.
    Failed {
        /// The table.
        table: TableId,
        /// Why.
        error: Error,
    },
}

/// A snapshot whose point is taken.
#[derive(Debug)]
pub struct Snapshot {
    options: Opts,
    info: ServerInfo,
    plan: SnapshotPlan,
    point: Point,
    progress: Vec<SnapshotProgress>,
}

impl Snapshot {
    /// Takes the point for the plan's tables.
    ///
    /// # Errors
    /// One that passes also where a table is no longer what the plan says: rows of the point would have another shape than the binlog's after it.
    pub async fn open(options: Opts, info: ServerInfo, plan: SnapshotPlan) -> Result<Self> {
        if plan.tables.is_empty() {
            return Err(Error::bug("a snapshot of no table"));
        }
        let point = request(&options, &info, &plan).open().await?;
        // the plan was made before the point, and what changed a table between the two isn't read from the binlog
        let mut control = connect(&options, plan.connect_timeout).await?;
        let planned: Vec<&CatalogTable> = plan.tables.iter().map(|table| &table.table).collect();
        if let Some(changed) = find_changed(&mut control, &planned).await? {
            return Err(changed_meanwhile(&changed));
        }
        // the connection is not used again: a failed good-bye means nothing
        let _ = control.disconnect().await;
        let progress = plan.tables.iter().map(|table| begin(table, &point)).collect();
        Ok(Self { options, info, plan, point, progress })
    }

    /// The position of which all is visible to the snapshot: a new table's binlog events are needed from here.
    pub fn low_watermark(&self) -> &SourcePosition {
        &self.point.low_watermark
    }

    /// Where each table stands before the first row is read: what the capture's first cut says.
    pub fn progress(&self) -> impl Iterator<Item = (&TableId, &SnapshotProgress)> {
        self.plan.tables.iter().map(|table| &table.table.schema.table).zip(&self.progress)
    }

    /// Reads all and sends it into `sink`, whose capacity bounds what waits; returns when all was sent, or the receiver has gone.
    ///
    /// Dropping the future stops the readers.
    pub async fn run(self, sink: mpsc::Sender<SnapshotEvent>) -> Result<()> {
        let Self { options, info, plan, point, progress } = self;
        let stamp = TransactionStamp {
            gtid: None,
            coordinates: point.low_watermark.coordinates.clone(),
            source_commit_time: point.taken_at,
            is_snapshot: true,
        };
        let shared = Arc::new(Shared {
            work: Mutex::new(Work::new(&plan, progress)),
            stamps: Arc::new(vec![stamp]),
            options,
            info,
            plan,
            sink,
        });
        let mut readers = JoinSet::new();
        for session in point.readers {
            readers.spawn(read_all(Arc::clone(&shared), session));
        }
        while let Some(ended) = readers.join_next().await {
            ended.map_err(|error| Error::bug("a snapshot's reader ended unexpectedly").caused_by(error))??;
        }
        Ok(())
    }
}

fn request<'a>(options: &'a Opts, info: &'a ServerInfo, plan: &SnapshotPlan) -> PointRequest<'a> {
    PointRequest {
        options,
        info,
        tables: plan.tables.iter().map(|table| table.table.schema.table.clone()).collect(),
        readers: plan.connections,
        connect_timeout: plan.connect_timeout,
        lock_wait_timeout: plan.lock_wait_timeout,
    }
}

fn begin(plan: &TablePlan, point: &Point) -> SnapshotProgress {
    match &plan.progress {
        Some(before) => SnapshotProgress { high_watermark: point.high_watermark.clone(), ..before.clone() },
        None => SnapshotProgress {
            low_watermark: point.low_watermark.clone(),
            high_watermark: point.high_watermark.clone(),
            remaining_chunks: vec![KeyRange::whole()],
            filter: plan.filter.clone(),
            rows_read: 0,
            estimated_rows: plan.table.estimated_rows,
        },
    }
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Shared {
    work: Mutex<Work>,
    /// The one stamp of all rows.
    pub(super) stamps: Arc<Vec<TransactionStamp>>,
    options: Opts,
    info: ServerInfo,
    pub(super) plan: SnapshotPlan,
    pub(super) sink: mpsc::Sender<SnapshotEvent>,
}

/// The receiver has gone: nobody wants the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiverGone;

impl Shared {
    /// Sends one event, waiting while the receiver is behind.
    pub(super) async fn send(&self, event: SnapshotEvent) -> Result<(), ReceiverGone> {
        self.sink.send(event).await.map_err(|_| ReceiverGone)
    }
}

/// One reader's loop: a chunk after the other until none is left.
async fn read_all(shared: Arc<Shared>, mut session: Session) -> Result<()> {
    let mut backoff = new_backoff();
    loop {
        let outcome = read_next(&shared, &mut session).await;
        match outcome {
            Ok(Step::Read) => backoff = new_backoff(),
            Ok(Step::Done) => break,
            Err(error) if error.is_transient() => {
                let Some(pause) = backoff.next() else { return Err(error) };
                warn!(%error, "a snapshot's connection was lost: its chunk is read again at a new point");
                tokio::time::sleep(pause).await;
                match request(&shared.options, &shared.info, &shared.plan).reopen().await {
                    Ok(Some((new, high_watermark))) => {
                        session = new;
                        shared.work.lock().await.raise_high_watermark(&high_watermark);
                    }
                    Ok(None) => return Err(another_server()),
                    Err(error) if error.is_transient() => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn another_server() -> Error {
    Error::new(Area::Source, Kind::Transient, "another server answers than before, in the middle of a snapshot")
        .remedy("the snapshot begins anew there")
}

fn new_backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(8).with_jitter().build()
}

enum Step {
    Read,
    Done,
}

async fn read_next(shared: &Shared, session: &mut Session) -> Result<Step> {
    let mut work = shared.work.lock().await;
    let next = work.next(&shared.plan, session).await;
    drop(work);
    let job = match next {
        Ok(Some(job)) => job,
        Ok(None) => return Ok(Step::Done),
        Err((table, error)) => return give_up_or_retry(shared, table, error).await,
    };
    match read_chunk(shared, session, &job).await {
        Ok(Ok(rows)) => finish(shared, &job, rows).await,
        Ok(Err(ReceiverGone)) => Ok(Step::Done),
        Err(error) => {
            shared.work.lock().await.give_back(&job);
            give_up_or_retry(shared, job.table, error).await
        }
    }
}

/// A chunk was read: takes it off what remains, and says so. The lock is held until it is said, so that progress never goes back.
async fn finish(shared: &Shared, job: &Job, rows: u64) -> Result<Step> {
    let mut work = shared.work.lock().await;
    let plan = &shared.plan.tables[job.table];
    if !plan.table.is_transactional() {
        // such tables don't keep a point: what was read is no older than now
        let mut control = connect(&shared.options, shared.plan.connect_timeout).await?;
        work.raise_high_watermark_of(job.table, &shared.info.read_position(&mut control).await?);
    }
    let Some(progress) = work.finish(job, rows) else { return Ok(Step::Read) };
    let table = plan.table.schema.table.clone();
    match shared.send(SnapshotEvent::Progress { table, progress }).await {
        Ok(()) => Ok(Step::Read),
        Err(ReceiverGone) => Ok(Step::Done),
    }
}

/// A table's own fault ends the table; a lost connection goes up to be opened again; anything else ends the snapshot.
async fn give_up_or_retry(shared: &Shared, table: usize, error: Error) -> Result<Step> {
    let id = shared.plan.tables[table].table.schema.table.clone();
    let mut error = error.with("table", &id);
    if error.kind() != Kind::Data {
        return Err(error);
    }
    let mut control = connect(&shared.options, shared.plan.connect_timeout).await?;
    if is_redefined(&error) || find_changed(&mut control, &[&shared.plan.tables[table].table]).await?.is_some() {
        error = changed_meanwhile(&id);
    }
    if !shared.work.lock().await.abandon(table) {
        return Ok(Step::Read);
    }
    match shared.send(SnapshotEvent::Failed { table: id, error }).await {
        Ok(()) => Ok(Step::Read),
        Err(ReceiverGone) => Ok(Step::Done),
    }
}

/// The error of a table whose columns aren't what the plan says.
pub(super) fn changed_shape(table: &TableId) -> Error {
    Error::new(Area::Source, Kind::Data, "the table's columns aren't those of the server's catalog").with("table", table)
}

/// The error of a table that was altered, emptied or dropped under its snapshot.
fn changed_meanwhile(table: &TableId) -> Error {
    Error::new(Area::Source, Kind::Transient, "the table was changed while its snapshot was read").with("table", table)
}
