//! Putting records: the loop around [`PutQueue`], which does what it says and tells it what became of it.
//!
//! What passes (throttling, a lost answer, a refused record, expired credentials) is tried again here, for ever and byte for byte; a caller
//! waits until its records are on the stream. A lost answer may have been a success: then a record is on the stream twice.

use super::client::{CALL_TIMEOUT, StreamClient};
use super::latency::Latencies;
use super::put_queue::{Entry, Fate, Next, PutQueue, PutRecord};
use crate::cloud::Failure;
use crate::error::{Error, Result};
use crate::metrics::{KINESIS_PUT_BYTES, KINESIS_PUT_RECORDS, KINESIS_PUT_RETRIES, KINESIS_PUT_SECONDS, KINESIS_PUT_THROTTLED};
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Calls under way at once.
const MOST_CALLS: usize = 16;
/// How often troubles are logged, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// How many bytes of data a connection takes in a second, at least: a call of megabytes has more time than others.
const SLOWEST: f64 = 128.0 * 1024.0;

/// Puts records on a stream in the order of their lines. Clones share it; when the last is dropped, what is under way is given up.
#[derive(Debug, Clone)]
pub struct Putter {
    shared: Arc<Shared>,
    _driver: Arc<Driver>,
}

/// What a [`Putter`] has done so far.
#[derive(Debug, Default)]
pub struct PutCounts {
    /// Records that the stream has.
    pub accepted: AtomicU64,
    /// Their bytes.
    pub accepted_bytes: AtomicU64,
    /// Records refused because a shard had enough.
    pub throttled: AtomicU64,
    /// Records that were sent again, for whatever reason.
    pub retried: AtomicU64,
    /// Calls.
    pub calls: AtomicU64,
    /// How long records took, from being handed over to being on the stream.
    pub latencies: Latencies,
}

#[derive(Debug)]
struct Shared {
    client: Arc<StreamClient>,
    waiting: Mutex<Waiting>,
    changed: Notify,
    counts: PutCounts,
}

#[derive(Debug)]
struct Waiting {
    queue: PutQueue,
    replies: HashMap<u64, oneshot::Sender<Result<()>>>,
    last_logged: Option<Instant>,
}

#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Putter {
    /// Starts the loop on this runtime.
    pub(crate) fn new(client: Arc<StreamClient>) -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let waiting = Waiting { queue: PutQueue::new(seed), replies: HashMap::new(), last_logged: None };
        let shared =
            Arc::new(Shared { client, waiting: Mutex::new(waiting), changed: Notify::new(), counts: PutCounts::default() });
        let driver = Driver(tokio::spawn(drive(shared.clone())));
        Self { shared, _driver: Arc::new(driver) }
    }

    /// Puts records and returns when all are on the stream. If it is cancelled, they may or may not be, and what is put on their lines
    /// later still comes behind them.
    ///
    /// # Errors
    /// `Refused` if the stream is gone, or not ours to write to. Then the records behind them on their lines are given up as well.
    pub async fn put(&self, records: Vec<PutRecord>) -> Result<()> {
        let answers: Vec<_> = {
            let mut waiting = self.shared.lock();
            let now = Instant::now();
            let mut push = |record| {
                let (reply, answer) = oneshot::channel();
                let id = waiting.queue.push(record, now);
                waiting.replies.insert(id, reply);
                answer
            };
            records.into_iter().map(&mut push).collect()
        };
        self.shared.changed.notify_one();
        for answer in answers {
            answer.await.map_err(|_| Error::bug("the task that puts records has ended"))??;
        }
        Ok(())
    }

    /// What was done so far.
    pub fn counts(&self) -> &PutCounts {
        &self.shared.counts
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, answers: Vec<(Entry, Fate)>) {
        let (mut accepted, mut bytes, mut throttled, mut retried) = (0, 0, 0, 0);
        for (entry, fate) in &answers {
            match fate {
                Fate::Accepted(_) => {
                    accepted += 1;
                    bytes += entry.record.data.len() as u64;
                }
                Fate::Throttled => throttled += 1,
                Fate::Unknown => {}
            }
            retried += u64::from(entry.attempts > 0);
        }
        let counts = &self.counts;
        for (counter, name, by) in [
            (&counts.accepted, KINESIS_PUT_RECORDS, accepted),
            (&counts.accepted_bytes, KINESIS_PUT_BYTES, bytes),
            (&counts.throttled, KINESIS_PUT_THROTTLED, throttled),
            (&counts.retried, KINESIS_PUT_RETRIES, retried),
        ] {
            counter.fetch_add(by, Ordering::Relaxed);
            metrics::counter!(name).increment(by);
        }
        let mut waiting = self.lock();
        for (id, took) in waiting.queue.answered(answers, Instant::now()) {
            counts.latencies.add(took);
            if let Some(reply) = waiting.replies.remove(&id) {
                // who was cancelled doesn't listen
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Fails a call's records, and those behind them.
    fn give_up(&self, entries: Vec<Entry>, error: impl Fn() -> Error) {
        let mut waiting = self.lock();
        for id in waiting.queue.give_up(entries) {
            if let Some(reply) = waiting.replies.remove(&id) {
                let _ = reply.send(Err(error()));
            }
        }
    }

    /// Whether it is time to say again that something is in the way.
    fn may_log(&self) -> bool {
        let mut waiting = self.lock();
        let may = waiting.last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if may {
            waiting.last_logged = Some(Instant::now());
        }
        may
    }
}

async fn drive(shared: Arc<Shared>) {
    let mut calls = JoinSet::new();
    loop {
        let wait = loop {
            if calls.len() >= MOST_CALLS {
                break None;
            }
            let next = shared.lock().queue.next(Instant::now());
            match next {
                Next::Call(entries) => drop(calls.spawn(call(shared.clone(), entries))),
                Next::Wait(until) => break Some(until),
                Next::Idle => break None,
            }
        };
        tokio::select! {
            Some(_) = calls.join_next() => {}
            () = shared.changed.notified() => {}
            () = async { match wait { Some(until) => tokio::time::sleep_until(until).await, None => std::future::pending().await } } => {}
        }
    }
}

/// One `PutRecords`.
async fn call(shared: Arc<Shared>, entries: Vec<Entry>) {
    let client = &shared.client;
    let records = entries.iter().map(|entry| {
        PutRecordsRequestEntry::builder()
            .data(Blob::new(entry.record.data.to_vec()))
            .partition_key(&*entry.record.partition_key)
            .set_explicit_hash_key(entry.record.explicit_hash_key.map(|key| key.to_string()))
            .build()
    });
    let records = match records.collect::<std::result::Result<Vec<_>, _>>() {
        Ok(records) => records,
        Err(error) => {
            let said = error.to_string();
            shared.give_up(entries, || Error::bug("a record can't be put").caused_by(said.clone()));
            return;
        }
    };
    shared.counts.calls.fetch_add(1, Ordering::Relaxed);
    let started = Instant::now();
    let bytes: usize = entries.iter().map(|entry| entry.record.data.len()).sum();
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(time_for(bytes)).build();
    let put = client.sdk().put_records().stream_name(client.name()).set_records(Some(records)).customize();
    let answer = put.config_override(Builder::new().timeout_config(timeouts)).send().await;
    metrics::histogram!(KINESIS_PUT_SECONDS).record(started.elapsed().as_secs_f64());
    let error = match answer {
        Ok(output) => return shared.answered(judge(&shared, entries, &output.records)),
        Err(error) => error,
    };
    let failure = Failure::of(&error);
    if shared.may_log() {
        tracing::warn!(error = %client.said("records can't be put", &error), "they are sent again");
    }
    let fate = match failure {
        Failure::Throttled => Fate::Throttled,
        Failure::NoAnswer | Failure::Busy => Fate::Unknown,
        Failure::Credentials => {
            client.renew().await;
            Fate::Unknown
        }
        // being made, or gone
        Failure::Missing if matches!(client.describe().await, Ok(None)) => return shared.give_up(entries, || client.gone()),
        Failure::Missing => Fate::Unknown,
        Failure::Denied | Failure::Condition | Failure::Other => {
            return shared.give_up(entries, || client.said("records can't be put on the stream", &error));
        }
    };
    shared.answered(entries.into_iter().map(|entry| (entry, fate.clone())).collect());
}

/// How long a call with so many bytes of data may take.
fn time_for(bytes: usize) -> Duration {
    CALL_TIMEOUT + Duration::from_secs_f64(bytes as f64 / SLOWEST)
}

/// What the answer says about each record.
fn judge(shared: &Shared, entries: Vec<Entry>, answers: &[aws_sdk_kinesis::types::PutRecordsResultEntry]) -> Vec<(Entry, Fate)> {
    let mut answers = answers.iter();
    let fates = entries.into_iter().map(|entry| {
        let Some(answer) = answers.next() else { return (entry, Fate::Unknown) };
        let fate = match (answer.error_code(), answer.shard_id()) {
            (None, Some(shard)) => Fate::Accepted(shard.into()),
            (None, None) => Fate::Unknown,
            (Some(code), _) => {
                if shared.may_log() {
                    tracing::info!(line = entry.record.line, code, "the stream refuses some records; they are sent again");
                }
                if Failure::of_code(code) == Failure::Throttled { Fate::Throttled } else { Fate::Unknown }
            }
        };
        (entry, fate)
    });
    fates.collect()
}
