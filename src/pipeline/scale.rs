//! Capacity: how many shards carry the stream, and how many workers share the tables. Asked for by `binlake scale`, or by the clock (`[[scale]]`).
//!
//! Nothing is lost either way: lanes don't know of shards, and readers take parents before children; a worker that loses its seat commits what
//! waits and hands its tables over.
//!
//! Seats are leases: `<pipeline>/seat/0001`, … As many workers as there are seats take tables; without any, all do.

use super::share::{is_seat, seat_key};
use crate::config::Config;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::state::{Lease, LeaseKey, StateStore, in_force, next_change};
use crate::stream::EventLog;
use crate::table::Lake;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a lease that others write is tried for.
const TRIES: usize = 20;
/// The pause after a schedule's change that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// What is asked for; `None`: as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScaleRequest {
    /// The stream's shards.
    pub shards: Option<u32>,
    /// How many workers take tables.
    pub workers: Option<Workers>,
}

/// How many workers take tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// All that run.
    All,
    /// So many; others stand by.
    Most(u32),
}

impl std::fmt::Display for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Workers::All => f.write_str("all"),
            Workers::Most(count) => count.fmt(f),
        }
    }
}

/// How a pipeline's work is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Open shards; `None`: the stream has none.
    pub shards: Option<u32>,
    /// How many workers take tables.
    pub workers: Workers,
    /// The tables of each worker, as the leases say.
    pub tables: BTreeMap<String, Vec<TableId>>,
}

/// A pipeline from outside.
#[derive(Debug, Clone)]
pub(super) struct Scaler {
    state: StateStore,
    log: Arc<dyn EventLog>,
    pipeline: String,
}

/// How the pipeline's work is divided now.
///
/// # Errors
/// If state store or stream can't be read.
pub async fn capacity(config: &Config) -> Result<Capacity> {
    Scaler::open(config).await?.capacity().await
}

/// Changes the capacity, and says how it is then. Shards take minutes; this returns when the stream is active again.
///
/// # Errors
/// If the stream can't have so many shards, or the service refuses.
pub async fn scale(config: &Config, request: ScaleRequest) -> Result<Capacity> {
    let scaler = Scaler::open(config).await?;
    scaler.scale(request).await?;
    // what was asked for by hand stays until the schedule's next time
    scaler.note_done(Timestamp::now()).await?;
    scaler.capacity().await
}

impl Scaler {
    async fn open(config: &Config) -> Result<Self> {
        let log = super::open_stream_to_read(config).await?.ok_or_else(|| {
            Error::new(Area::Stream, Kind::Refused, "there is no stream yet")
                .with("stream", &config.stream.url)
                .remedy("start `binlake capture` first, or set `stream.url`")
        })?;
        let state = StateStore::open(&config.state).await?;
        Ok(Self::over(state, log, &Lake::create(&config.lake.url)?))
    }

    pub(super) fn over(state: StateStore, log: Arc<dyn EventLog>, lake: &Lake) -> Self {
        let pipeline = super::share::pipeline_name(log.as_ref(), lake);
        Self { state, log, pipeline }
    }

    async fn leases(&self) -> Result<Vec<Lease>> {
        self.state.leases(&format!("{}/", self.pipeline)).await
    }

    async fn capacity(&self) -> Result<Capacity> {
        let (mut seats, mut tables) = (0, BTreeMap::new());
        let prefix = format!("{}/table/", self.pipeline);
        for lease in self.leases().await? {
            if is_seat(&lease.key) {
                seats += 1;
            } else if let Some(table) = lease.key.0.strip_prefix(&prefix).and_then(|table| table.parse::<TableId>().ok()) {
                let owner = lease.owner.map_or_else(|| "nobody".to_owned(), |owner| owner.0);
                tables.entry(owner).or_insert_with(Vec::new).push(table);
            }
        }
        let workers = if seats == 0 { Workers::All } else { Workers::Most(seats) };
        Ok(Capacity { shards: self.log.shards().await?, workers, tables })
    }

    async fn scale(&self, request: ScaleRequest) -> Result<()> {
        if let Some(workers) = request.workers {
            self.set_seats(workers).await?;
        }
        if let Some(shards) = request.shards {
            self.log.set_shards(shards).await?;
        }
        Ok(())
    }

    async fn set_seats(&self, workers: Workers) -> Result<()> {
        let wanted: Vec<LeaseKey> = match workers {
            Workers::All => Vec::new(),
            Workers::Most(count) => (1..=count).map(|number| seat_key(&self.pipeline, number)).collect(),
        };
        for key in &wanted {
            self.state.create_lease(&Lease::new(key.clone())).await?;
        }
        for _ in 0..TRIES {
            let leases = self.leases().await?;
            let surplus: Vec<&Lease> = leases.iter().filter(|lease| is_seat(&lease.key) && !wanted.contains(&lease.key)).collect();
            if surplus.is_empty() {
                return Ok(());
            }
            for seat in surplus {
                // one that is renewed at this moment is removed at the next try
                self.state.delete_lease(&seat.key, seat.counter).await?;
            }
        }
        Err(Error::new(Area::Config, Kind::Transient, "a seat can't be removed: it is renewed too often"))
    }

    fn record_key(&self) -> LeaseKey {
        LeaseKey(format!("{}/scaled", self.pipeline))
    }

    async fn record(&self) -> Result<Option<Lease>> {
        let key = self.record_key();
        Ok(self.state.leases(&key.0).await?.into_iter().find(|lease| lease.key == key))
    }

    /// Up to when the schedule has been followed.
    async fn done_until(&self) -> Result<Option<Timestamp>> {
        Ok(self.record().await?.and_then(|record| record.checkpoint.parse().ok()).map(Timestamp::from_micros))
    }

    async fn note_done(&self, until: Timestamp) -> Result<()> {
        for _ in 0..TRIES {
            let noted = match self.record().await? {
                None => {
                    let mut record = Lease::new(self.record_key());
                    record.checkpoint = until.as_micros().to_string();
                    self.state.create_lease(&record).await?
                }
                Some(record) => {
                    let mut next = record.clone().renewed();
                    next.checkpoint = until.as_micros().to_string();
                    self.state.update_lease(&next, record.counter).await?
                }
            };
            if noted {
                return Ok(());
            }
        }
        Err(Error::new(Area::Config, Kind::Transient, "too many others change the capacity"))
    }

    /// Follows the schedule for ever: what should be in force now is brought about, also if nobody ran when its time came.
    pub(super) async fn follow(self, config: Arc<Config>) {
        loop {
            let pause = match self.catch_up(&config).await {
                Ok(()) => {
                    let now = Timestamp::now();
                    let Some(next) = next_change(&config.scale, now) else { return };
                    // never asleep for longer than a clock may be set
                    next.since(now).min(RETRY_PAUSE).max(Duration::from_millis(200))
                }
                Err(error) => {
                    tracing::warn!(%error, "the schedule's capacity can't be had; it is tried again");
                    RETRY_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn catch_up(&self, config: &Config) -> Result<()> {
        let Some((since, rule)) = in_force(&config.scale, Timestamp::now()) else { return Ok(()) };
        if self.done_until().await? >= Some(since) {
            return Ok(());
        }
        tracing::info!(since = %since, shards = rule.shards, workers = rule.workers, "the schedule asks for another capacity");
        self.scale(ScaleRequest { shards: rule.shards, workers: rule.workers.map(Workers::Most) }).await?;
        self.note_done(since).await
    }
}
