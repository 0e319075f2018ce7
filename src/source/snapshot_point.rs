//! One consistent point for several connections: every reader sees the selected tables as they were at one place of the binlog.
//!
//! Why it is right, way by way. In each, `low_watermark` is a position of which all is visible to every reader, and `high_watermark` one at which
//! nothing is visible that lies behind it. The capture reads the table's binlog events from the low one, on top of the rows; each event has the whole
//! row, so those that a reader had already seen are repeated without harm, and once the high one is passed the table is exact.
//!
//! 1. **MariaDB**: `START TRANSACTION WITH CONSISTENT SNAPSHOT` opens the engines' snapshot and reads the binlog's coordinates as one step, without a lock;
//!    the session's `binlog_snapshot_file/position` say them. Mostly all readers meet at one place; on a busy server the global lock helps, and without
//!    the right to it low and high are the lowest and highest among the readers.
//! 2. **Global lock** (`FLUSH TABLES WITH READ LOCK`, needs RELOAD): nothing commits while position and snapshots are taken: low = high.
//! 3. **Table locks** (`LOCK TABLES … READ`, needs LOCK TABLES; RDS and Aurora refuse the global lock): the selected tables can't change: low = high.
//! 4. **GTID fence** (nothing but SELECT): a transaction joins `gtid_executed` after it is visible in the engine. So what is in the set *before* the snapshots
//!    open is visible: low. What is visible was in the binlog *before* it was visible in the engine, so the binlog's end *after* they opened is past all
//!    of it: high, by its coordinates. If nothing was committed between, both are equal; on a busy server the table is exact a moment later.
//!
//! A lock is waited for no longer than `lock_wait_timeout` at a time, since writers queue behind a waiting lock; after a few times the next way is taken,
//! or the error names who blocks.

use super::connect::{connect, server_code, source_error};
use super::server::{Flavor, ServerInfo};
use super::snapshot_session::Session;
use super::sql::quote_table;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{BinlogCoordinates, SourcePosition, TableId};
use crate::time::Timestamp;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::time::Duration;
use tracing::{info, warn};

/// How often the GTID fence is tried for one point at which all readers stand.
const FENCE_ATTEMPTS: usize = 5;
/// How often a lock is asked for.
const LOCK_ATTEMPTS: usize = 3;
const GLOBAL_LOCK: &str = "FLUSH TABLES WITH READ LOCK";
/// ER_LOCK_WAIT_TIMEOUT.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// How to get there.
#[derive(Debug, Clone)]
pub(super) struct PointRequest<'a> {
    pub(super) options: &'a Opts,
    pub(super) info: &'a ServerInfo,
    pub(super) tables: Vec<TableId>,
    pub(super) readers: usize,
    pub(super) connect_timeout: Duration,
    pub(super) lock_wait_timeout: Duration,
}

/// Connections whose open transactions see the source between two positions (mostly one and the same).
#[derive(Debug)]
pub(super) struct Point {
    pub(super) low_watermark: SourcePosition,
    pub(super) high_watermark: SourcePosition,
    pub(super) taken_at: Timestamp,
    pub(super) readers: Vec<Session>,
}

impl PointRequest<'_> {
    /// Opens the readers at one point.
    pub(super) async fn open(&self) -> Result<Point> {
        let mut control = connect(self.options, self.connect_timeout).await?;
        let mut readers = Vec::with_capacity(self.readers);
        for _ in 0..self.readers.max(1) {
            readers.push(self.reader().await?);
        }
        let (point, way) = match self.info.flavor {
            Flavor::MariaDb => self.open_on_mariadb(&mut control, readers).await?,
            Flavor::MySql => self.open_on_mysql(&mut control, readers).await?,
        };
        info!(way, low = %describe(&point.low_watermark), high = %describe(&point.high_watermark), readers = point.readers.len(), "snapshot point taken");
        // the point stands; how the control connection ends doesn't matter
        let _ = control.disconnect().await;
        Ok(point)
    }

    /// One more reader at a point of its own, after another was lost: all that it sees lies before the position that comes with it. `None`: another server
    /// answers now, whose positions say nothing of the former one's.
    pub(super) async fn reopen(&self) -> Result<Option<(Session, SourcePosition)>> {
        let mut control = connect(self.options, self.connect_timeout).await?;
        let mut reader = self.reader().await?;
        begin(&mut reader).await?;
        let high_watermark = self.info.read_position(&mut control).await?;
        let is_same = ServerInfo::read(&mut control).await?.lineage == self.info.lineage;
        let _ = control.disconnect().await;
        Ok(is_same.then_some((reader, high_watermark)))
    }

    async fn reader(&self) -> Result<Session> {
        Session::open(self.options, self.info.flavor, self.connect_timeout).await
    }

    async fn open_on_mysql(&self, control: &mut Conn, mut readers: Vec<Session>) -> Result<(Point, &'static str)> {
        self.bound_lock_waits(control).await?;
        let mut blocked: Option<Error> = None;
        for (lock, way) in [(GLOBAL_LOCK.to_owned(), "global lock"), (self.lock_tables(), "table locks")] {
            match self.lock(control, &mut readers, &lock, way).await? {
                Locked::Yes => return Ok((self.open_locked(control, readers).await?, way)),
                Locked::Denied => {}
                Locked::Blocked(error) if self.info.has_gtids() => {
                    warn!(%error, "no lock for the snapshot: its point is fenced by GTIDs instead");
                    blocked = Some(error);
                    break;
                }
                Locked::Blocked(error) => return Err(error),
            }
        }
        if !self.info.has_gtids() {
            return Err(blocked.unwrap_or_else(no_way));
        }
        Ok((self.open_fenced(control, &mut readers).await?.with(readers), "gtid fence"))
    }

    /// Takes a lock. A writer that waits for another's row may keep the lock from us, and us waiting keeps that other from going on: so each wait is
    /// short, and writers get some room before the next.
    async fn lock(&self, control: &mut Conn, readers: &mut [Session], sql: &str, way: &'static str) -> Result<Locked> {
        for attempt in 1.. {
            match control.query_drop(sql).await {
                Ok(()) => return Ok(Locked::Yes),
                Err(error) if is_denied(&error) => return Ok(Locked::Denied),
                Err(error) if server_code(&error) != Some(LOCK_WAIT_TIMEOUT) => {
                    return Err(source_error(error, "the tables can't be locked for a snapshot"));
                }
                Err(error) if attempt >= LOCK_ATTEMPTS => {
                    return Ok(Locked::Blocked(self.lock_timeout(control, readers, error, way).await));
                }
                Err(_) => tokio::time::sleep(self.lock_wait_timeout / 2).await,
            }
        }
        Err(Error::bug("the attempts to lock never end"))
    }

    async fn bound_lock_waits(&self, control: &mut Conn) -> Result<()> {
        let seconds = self.lock_wait_timeout.as_secs().max(1);
        control
            .query_drop(format!("SET SESSION lock_wait_timeout = {seconds}"))
            .await
            .map_err(|error| source_error(error, "a snapshot's session can't be set up"))
    }

    fn lock_tables(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(|table| format!("{} READ", quote_table(table))).collect();
        format!("LOCK TABLES {}", tables.join(", "))
    }

    async fn open_locked(&self, control: &mut Conn, mut readers: Vec<Session>) -> Result<Point> {
        let opened = async {
            let position = self.info.read_position(control).await?;
            for reader in &mut readers {
                begin(reader).await?;
            }
            Ok(position)
        };
        let opened = opened.await;
        // whatever came of it, writers must go on
        let unlocked = control.query_drop("UNLOCK TABLES").await;
        let position = opened?;
        unlocked.map_err(|error| source_error(error, "the tables can't be unlocked after a snapshot's start"))?;
        Ok(Fenced { low: position.clone(), high: position }.with(readers))
    }

    async fn open_fenced(&self, control: &mut Conn, readers: &mut [Session]) -> Result<Fenced> {
        for attempt in 1.. {
            let low = self.info.read_position(control).await?;
            for reader in readers.iter_mut() {
                begin(reader).await?;
            }
            let high = self.info.read_position(control).await?;
            if low == high || attempt >= FENCE_ATTEMPTS {
                return Ok(Fenced { low, high });
            }
        }
        Err(Error::bug("the attempts of a GTID fence never end"))
    }

    async fn open_on_mariadb(&self, control: &mut Conn, mut readers: Vec<Session>) -> Result<(Point, &'static str)> {
        for _ in 0..FENCE_ATTEMPTS {
            let (low, high) = begin_on_mariadb(&mut readers).await?;
            if low == high {
                let position = self.mariadb_position(control, &low).await?;
                return Ok((Fenced { low: position.clone(), high: position }.with(readers), "engine"));
            }
        }
        // too busy for the readers to meet by chance
        self.bound_lock_waits(control).await?;
        match self.lock(control, &mut readers, GLOBAL_LOCK, "global lock").await? {
            Locked::Yes => return Ok((self.open_locked(control, readers).await?, "global lock")),
            Locked::Denied => {}
            Locked::Blocked(error) => warn!(%error, "no lock for the snapshot: its readers stand at points of their own"),
        }
        let (low, high) = begin_on_mariadb(&mut readers).await?;
        let fenced =
            Fenced { low: self.mariadb_position(control, &low).await?, high: self.mariadb_position(control, &high).await? };
        Ok((fenced.with(readers), "engine, several points"))
    }

    async fn mariadb_position(&self, control: &mut Conn, coordinates: &BinlogCoordinates) -> Result<SourcePosition> {
        let gtid_set = Some(self.info.mariadb_gtid_set(control, coordinates).await?);
        Ok(SourcePosition { lineage: self.info.lineage.clone(), coordinates: coordinates.clone(), gtid_set })
    }

    /// The error of a lock that wasn't given in time: names who holds it, as far as the user may see that.
    async fn lock_timeout(
        &self,
        control: &mut Conn,
        readers: &mut [Session],
        error: mysql_async::Error,
        way: &'static str,
    ) -> Error {
        let ours = source_error(error, "the lock for a snapshot's start was not given in time")
            .with("lock", way)
            .with("waited", format!("{}s", self.lock_wait_timeout.as_secs()));
        match find_blocker(control, readers).await {
            Some((id, user, host, seconds)) => ours
                .with("blocked_by", format!("connection {id} of {user}@{host}, in this state for {seconds}s"))
                .remedy(format!("end that connection's work (`KILL {id}`), or start the snapshot at a quieter time")),
            None => ours.remedy(
                "find the blocking session with SHOW PROCESSLIST (grant PROCESS and it is named here), or try at a quieter time",
            ),
        }
    }
}

type Blocker = (u64, String, String, i64);

/// Who most likely holds the lock; `None`: the user may not see it.
async fn find_blocker(control: &mut Conn, readers: &mut [Session]) -> Option<Blocker> {
    let mut own = vec!["CONNECTION_ID()".to_owned()];
    for reader in readers {
        let row = reader.first_row("SELECT CONNECTION_ID()").await.ok()??;
        own.push(String::from_utf8_lossy(row.first()?.as_ref()?).into_owned());
    }
    let own = own.join(", ");
    // first the holders of locks, if the server keeps account of them; else who has been busy, or idle, for the longest.
    // Statements aren't read: they may hold values.
    let holders = format!(
        "SELECT t.processlist_id, t.processlist_user, t.processlist_host, CAST(t.processlist_time AS SIGNED) \
         FROM performance_schema.metadata_locks l JOIN performance_schema.threads t ON t.thread_id = l.owner_thread_id \
         WHERE l.lock_status = 'GRANTED' AND l.object_type IN ('GLOBAL', 'TABLE') AND t.processlist_user IS NOT NULL \
         AND t.processlist_id NOT IN ({own}) ORDER BY l.object_type, t.processlist_time DESC LIMIT 1"
    );
    let busy = format!(
        "SELECT id, COALESCE(user, ''), COALESCE(host, ''), CAST(time AS SIGNED) FROM information_schema.processlist \
         WHERE id NOT IN ({own}) AND user NOT IN ('system user', 'event_scheduler') AND command NOT LIKE 'Binlog Dump%' \
         AND COALESCE(state, '') NOT LIKE 'Waiting for %lock%' ORDER BY command = 'Sleep', time DESC LIMIT 1"
    );
    for sql in [holders, busy] {
        // what the user may not ask, or the server doesn't have, isn't an error here
        if let Ok(Some(blocker)) = control.query_first::<Blocker, _>(sql).await {
            return Some(blocker);
        }
    }
    None
}

/// What came of asking for a lock.
#[derive(Debug)]
enum Locked {
    Yes,
    /// The user may not.
    Denied,
    /// Somebody holds another lock for too long.
    Blocked(Error),
}

/// The two watermarks before the readers are put to them.
#[derive(Debug)]
struct Fenced {
    low: SourcePosition,
    high: SourcePosition,
}

impl Fenced {
    fn with(self, readers: Vec<Session>) -> Point {
        Point { low_watermark: self.low, high_watermark: self.high, taken_at: Timestamp::now(), readers }
    }
}

async fn begin(reader: &mut Session) -> Result<()> {
    // a transaction that is still open ends here
    reader.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
}

/// Opens the readers, and says the lowest and the highest coordinates among them.
async fn begin_on_mariadb(readers: &mut [Session]) -> Result<(BinlogCoordinates, BinlogCoordinates)> {
    let mut seen = Vec::with_capacity(readers.len());
    for reader in readers {
        begin(reader).await?;
        seen.push(mariadb_coordinates(reader).await?);
    }
    seen.iter().min().cloned().zip(seen.into_iter().max()).ok_or_else(|| Error::bug("a snapshot has no reader"))
}

/// The coordinates that MariaDB took together with the session's snapshot.
async fn mariadb_coordinates(reader: &mut Session) -> Result<BinlogCoordinates> {
    let sql = "SELECT MAX(IF(variable_name LIKE '%file', variable_value, NULL)), MAX(IF(variable_name LIKE '%position', variable_value, NULL)) \
               FROM information_schema.session_status WHERE variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')";
    let row = reader.first_row(sql).await?.unwrap_or_default();
    let value = |index: usize| std::str::from_utf8(row.get(index)?.as_ref()?).ok();
    let file = value(0).filter(|file| !file.is_empty());
    match (file, value(1).and_then(|offset| offset.parse().ok())) {
        (Some(file), Some(offset)) => Ok(BinlogCoordinates { file: file.into(), offset }),
        _ => Err(Error::new(Area::Source, Kind::Refused, "the server writes no binlog")
            .remedy("set `log_bin` in the server's configuration and restart it")),
    }
}

/// Access denied, in the ways in which servers (RDS and Aurora among them) say it.
fn is_denied(error: &mysql_async::Error) -> bool {
    matches!(server_code(error), Some(1044 | 1045 | 1142 | 1227 | 1290 | 1370))
}

fn no_way() -> Error {
    Error::new(
        Area::Source,
        Kind::Refused,
        "the user may lock neither the server nor the tables, and the server has no GTIDs: no consistent point",
    )
    .remedy("grant RELOAD (or LOCK TABLES on the tables), or set gtid_mode = ON")
}

fn describe(position: &SourcePosition) -> String {
    match &position.gtid_set {
        Some(set) if !set.is_empty() => set.to_string(),
        _ => position.coordinates.to_string(),
    }
}
