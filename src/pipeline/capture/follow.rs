//! Following the binlog: events to rows, rows to chunks, a cut about every second.
//!
//! Decoding runs here; encoding and appending run on the producer's tasks, one chunk a lane, so that both use a core of their own. What waits is bounded:
//! each lane has the chunk that is being filled and the one under way, and nothing is read while a lane's next chunk can't be sent.
//!
//! Rows don't wait for the cut: whatever a lane has goes to the stream each `flush_interval`, if the lane's chunk before is durable. A stream that is slow so gets fewer and
//! larger chunks.
//!
//! A connection that breaks between transactions is made anew and reading goes on. One that breaks inside of a transaction ends this run: the next
//! takes a new epoch, and what was sent of the transaction is void, whether the server sends it again or not. So does one after which another server answers:
//! an epoch is of one server, whose coordinates compare.

use super::horizon::Horizon;
use super::link::Link;
use super::snapshots::Snapshots;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Cut, CutRules, SourcePosition, TableId, TableState};
use crate::pipeline::requests::Requests;
use crate::pipeline::status::{CaptureState, Status, TableStage};
use crate::source::{BinlogConnection, BinlogReader, LaneBuffers, Progress, SnapshotEvent};
use crate::stream::{Producer, StreamConfig};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a transaction that is under way may still take when we are told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Events between two looks at the clock and at the wish to stop.
const EVENTS_AT_ONCE: usize = 256;
/// The pauses between attempts to connect grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What ends a run of [`Follower`].
#[derive(Debug, Clone)]
pub enum Until {
    /// The wish to stop alone.
    Stopped,
    /// Something else is asked for, or a table that appeared is to be read by a snapshot: at the next cut.
    Asked(Requests),
    /// These tables are live at a durable cut.
    Live(Vec<TableId>),
}

/// How often something goes to the stream.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Rows, though their chunk isn't full.
    pub flush_interval: Duration,
    /// Cuts.
    pub cut_interval: Duration,
}

impl Pace {
    /// As it is configured.
    pub fn of(config: &StreamConfig) -> Self {
        Self { flush_interval: config.flush_interval, cut_interval: config.cut_interval }
    }
}

/// The capture at work.
#[derive(Debug)]
pub struct Follower {
    reader: BinlogReader,
    lanes: LaneBuffers,
    producer: Producer,
    link: Link,
    horizon: Horizon,
    status: Status,
    pace: Pace,
    next_cut: Instant,
    next_flush: Instant,
    known_stages: BTreeMap<TableId, TableStage>,
    /// What the cuts say of the rules.
    rules: Option<CutRules>,
    /// Bytes of events since the last report.
    bytes_read: u64,
}

impl Follower {
    /// A capture that goes on from the reader's position.
    pub fn new(reader: BinlogReader, lanes: LaneBuffers, producer: Producer, link: Link, status: Status, pace: Pace) -> Self {
        let now = Instant::now();
        let (next_cut, next_flush) = (now + pace.cut_interval, now + pace.flush_interval);
        let horizon = Horizon::begin(link.options.clone(), link.settings.clone());
        Self {
            reader,
            lanes,
            producer,
            link,
            horizon,
            status,
            pace,
            next_cut,
            next_flush,
            known_stages: BTreeMap::new(),
            rules: None,
            bytes_read: 0,
        }
    }

    /// The same; its cuts say that these rules are in force.
    #[must_use]
    pub(super) fn ruled_by(self, rules: Option<CutRules>) -> Self {
        Self { rules, ..self }
    }

    /// Reads the snapshots, then follows the binlog until told to stop or until `until` is reached: then makes a last cut, and waits until it is durable.
    pub async fn run(mut self, snapshots: Option<Snapshots>, until: Until, mut stop: watch::Receiver<bool>) -> Result<()> {
        let outcome = self.run_phases(snapshots, &until, &mut stop).await;
        self.report_rows();
        outcome
    }

    async fn run_phases(&mut self, snapshots: Option<Snapshots>, until: &Until, stop: &mut watch::Receiver<bool>) -> Result<()> {
        if let Some(snapshots) = snapshots {
            self.take_snapshots(snapshots, stop).await?;
        }
        // the first cut of this epoch: who reads the stream learns at once what became void
        self.cut().await?;
        while !*stop.borrow() && !self.is_reached(until) {
            let Some(connection) = self.connect(stop).await? else { break };
            match self.follow(connection, until, stop).await {
                Err(error) if error.is_transient() && self.reader.is_at_boundary() => {
                    tracing::warn!(%error, "the connection to the source is made anew");
                    metrics::counter!(crate::metrics::RECONNECTS).increment(1);
                    self.status.capture(CaptureState::Connecting { reason: Some(error.to_string()) });
                    self.reader.reconnected();
                }
                other => other?,
            }
        }
        if self.reader.is_at_boundary() {
            self.cut().await?;
        }
        self.producer.flush().await?;
        self.ended_well(until)
    }

    /// Rows of snapshots, with cuts between them that say how far they are. The binlog waits meanwhile: its events come on top of the rows.
    async fn take_snapshots(&mut self, mut snapshots: Snapshots, stop: &mut watch::Receiver<bool>) -> Result<()> {
        loop {
            self.send_full().await?;
            tokio::select! {
                event = snapshots.next() => match event? {
                    Some(event) => self.snapshot_event(event)?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(self.next_cut) => self.cut().await?,
                () = stopped(stop) => return Ok(()),
            }
        }
    }

    fn snapshot_event(&mut self, event: SnapshotEvent) -> Result<()> {
        match event {
            SnapshotEvent::Rows { lane, batch } => {
                let rows = batch.len() as u64;
                self.status.captured(&batch.schema.table, 'r', rows);
                self.lanes.push_batch(lane, batch)
            }
            SnapshotEvent::Progress { table, progress } => {
                self.reader.tables_mut().set_state(&table, TableState::Snapshot(progress))
            }
            // the next run plans it anew, and goes on with the others
            SnapshotEvent::Failed { error, .. } if error.is_transient() => Err(error),
            SnapshotEvent::Failed { table, error } => {
                tracing::error!(%table, %error, "the table is stopped: it can't be read");
                let position = self.reader.position().clone();
                self.reader.tables_mut().set_state(&table, TableState::Stopped { position, reason: error.to_string() })
            }
        }
    }

    async fn connect(&self, stop: &mut watch::Receiver<bool>) -> Result<Option<BinlogConnection>> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.link.open(self.reader.position()).await {
                Ok(Some(connection)) => {
                    self.status.capture(CaptureState::Streaming);
                    return Ok(Some(connection));
                }
                Ok(None) => {
                    return Err(Error::new(Area::Source, Kind::Transient, "another server answers than before")
                        .remedy("the capture goes on there, as a new producer"));
                }
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "the source can't be reached; it is tried again");
            self.status.capture(CaptureState::Connecting { reason: Some(error.to_string()) });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(stop) => return Ok(None),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow(&mut self, mut connection: BinlogConnection, until: &Until, stop: &mut watch::Receiver<bool>) -> Result<()> {
        let mut stop_at: Option<Instant> = None;
        loop {
            for _ in 0..EVENTS_AT_ONCE {
                let Some(event) = connection.buffered_event()? else { break };
                self.bytes_read += event.len() as u64;
                self.event(&event).await?;
            }
            let now = Instant::now();
            if *stop.borrow() {
                let at = *stop_at.get_or_insert(now + STOP_GRACE);
                if self.reader.is_at_boundary() || now >= at {
                    return Ok(());
                }
            }
            if now >= self.next_cut && self.reader.is_at_boundary() {
                self.cut().await?;
                if self.is_reached(until) {
                    return Ok(());
                }
            }
            if now >= self.next_flush {
                self.flush().await?;
            }
            if connection.has_buffered_event() {
                tokio::task::yield_now().await;
                continue;
            }
            let cut_or_stop = if self.reader.is_at_boundary() { self.next_cut } else { stop_at.unwrap_or(now + STOP_GRACE) };
            let flush = if self.lanes.has_rest() { self.next_flush } else { cut_or_stop };
            tokio::select! {
                filled = connection.fill() => filled?,
                () = tokio::time::sleep_until(cut_or_stop.min(flush)) => {}
                () = stopped(stop), if stop_at.is_none() => {}
            }
        }
    }

    async fn event(&mut self, event: &bytes::Bytes) -> Result<()> {
        let mut progress = self.reader.feed(event, &mut self.lanes)?;
        loop {
            self.send_full().await?;
            match progress {
                Progress::More => progress = self.reader.resume(&mut self.lanes)?,
                Progress::Heartbeat => {
                    self.reader.idle_at(Timestamp::now());
                    return Ok(());
                }
                Progress::Boundary if Instant::now() >= self.next_cut => return self.cut().await,
                Progress::Boundary | Progress::Onward => return Ok(()),
            }
        }
    }

    async fn send_full(&mut self) -> Result<()> {
        while let Some((lane, sections)) = self.lanes.take_full() {
            self.producer.send(lane, sections).await?;
        }
        Ok(())
    }

    /// Sends what idle lanes have so far. What the others have waits, and grows.
    async fn flush(&mut self) -> Result<()> {
        self.send_full().await?;
        for lane in self.producer.idle_lanes() {
            let sections = self.lanes.take_lane(lane)?;
            if !sections.is_empty() {
                self.producer.send(lane, sections).await?;
            }
        }
        self.next_flush = Instant::now() + self.pace.flush_interval;
        Ok(())
    }

    /// Puts a cut on all lanes, behind all that was read. Only at a boundary.
    async fn cut(&mut self) -> Result<()> {
        self.send_full().await?;
        let position = self.reader.position().clone();
        self.go_live(&position)?;
        let cut = Cut {
            number: self.producer.next_cut(),
            source_commit_time: self.reader.source_commit_time(),
            complete_until: Some(self.horizon.complete_until(&position)),
            tables: self.reader.tables().states(),
            schemas: self.reader.tables().schemas(),
            rules: self.rules.clone(),
            position,
        };
        self.status.cut(cut.position.position_text(), cut.source_commit_time);
        self.report_stages(&cut.tables);
        self.report_rows();
        let rest = self.lanes.take_rest()?;
        self.producer.cut(rest, cut).await?;
        if self.status.requests().has_begun() {
            // the cut says that the snapshots go on; when it is durable, who asked for them has been heard
            self.producer.flush().await?;
            self.status.requests().forget().await;
        }
        let now = Instant::now();
        (self.next_cut, self.next_flush) = (now + self.pace.cut_interval, now + self.pace.flush_interval);
        Ok(())
    }

    /// Tables whose snapshot was read become live when the binlog has passed its last point.
    fn go_live(&mut self, position: &SourcePosition) -> Result<()> {
        let passed: Vec<TableId> = (self.reader.tables().states().into_iter())
            .filter_map(|(table, state)| match state {
                TableState::Snapshot(progress) if progress.remaining_chunks.is_empty() => {
                    position.has_passed(&progress.high_watermark).then_some(table)
                }
                _ => None,
            })
            .collect();
        for table in passed {
            tracing::info!(%table, "the snapshot is complete: the table follows the source");
            self.reader.tables_mut().set_state(&table, TableState::Live)?;
        }
        Ok(())
    }

    fn is_reached(&self, until: &Until) -> bool {
        match until {
            Until::Stopped => false,
            Until::Asked(requests) => requests.is_waiting() || self.reader.tables().has_unread(),
            Until::Live(tables) => {
                let states = self.reader.tables().states();
                tables.iter().all(|table| !matches!(states.get(table), Some(TableState::Snapshot(_))))
            }
        }
    }

    /// A backfill whose table was stopped has failed.
    fn ended_well(&self, until: &Until) -> Result<()> {
        let Until::Live(tables) = until else { return Ok(()) };
        let states = self.reader.tables().states();
        for table in tables {
            if let Some(TableState::Stopped { reason, .. }) = states.get(table) {
                return Err(Error::new(Area::Source, Kind::Refused, "a table couldn't be read")
                    .with("table", table)
                    .caused_by(std::io::Error::other(reason.clone()))
                    .remedy("correct what it says, then run the backfill again"));
            }
        }
        Ok(())
    }

    fn report_rows(&mut self) {
        metrics::counter!(crate::metrics::BINLOG_BYTES).increment(std::mem::take(&mut self.bytes_read));
        for (table, counts) in self.reader.take_counts() {
            for (operation, rows) in [('c', counts.created), ('u', counts.updated), ('d', counts.deleted)] {
                if rows > 0 {
                    self.status.captured(&table, operation, rows);
                }
            }
        }
    }

    fn report_stages(&mut self, states: &BTreeMap<TableId, TableState>) {
        for (table, state) in states {
            let stage = TableStage::from(state);
            if self.known_stages.get(table) != Some(&stage) {
                self.status.table(table, stage.clone());
                self.known_stages.insert(table.clone(), stage);
            }
        }
    }
}

/// Returns when we are told to stop (or nobody is left to tell).
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
