//! Load on a stream: as many records a second as asked for, or as many as it takes.

use super::events::{impression, ticket};
use super::{LINE_INTERVAL, Workload};
use crate::error::{Area, Error, Kind, Result};
use crate::stream::kinesis::{KinesisStream, KinesisUrl, PutCounts, PutRecord, Putter, line_hash_key};
use crate::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// How often records are handed over.
const TICK: Duration = Duration::from_millis(20);
/// Keys share this many lines, each with a record under way: what fills a call, for each of some calls at once.
const LINES: u32 = 4096;
/// Records that wait or are under way, at most.
const MOST_WAITING: usize = 16_384;
/// Records of one tick, at most.
const MOST_AT_ONCE: u64 = 4_096;

/// What is put on which stream.
#[derive(Debug)]
pub(super) struct StreamLoad {
    pub(super) url: KinesisUrl,
    pub(super) workload: Workload,
    /// Records a second; 0: as many as the stream takes.
    pub(super) rate: u64,
    /// Records in all; 0: no end.
    pub(super) records: u64,
    pub(super) duration: Option<Duration>,
}

impl StreamLoad {
    /// Puts records until `stopped`, or until the end that was asked for; then prints what came of it.
    pub(super) async fn run(self, stopped: impl Future<Output = ()>) -> Result<()> {
        let stream = KinesisStream::open(&self.url, true).await?.ok_or_else(|| {
            Error::new(Area::Stream, Kind::Refused, "there is no stream yet")
                .with("stream", &self.url)
                .remedy("make it, or add create=4 to the URL for four shards")
        })?;
        let putter = stream.putter();
        let started = Instant::now();
        let made = AtomicU64::new(0);
        let outcome = {
            let work = Box::pin(self.put(&putter, &made));
            let shown = show(&putter);
            tokio::select! {
                outcome = work => outcome,
                () = shown => Ok(()),
                () = stopped => Ok(()),
            }
        };
        println!("{}", summary(putter.counts(), made.load(Ordering::Relaxed), started.elapsed(), stream.open_shards()));
        outcome
    }

    async fn put(&self, putter: &Putter, made: &AtomicU64) -> Result<()> {
        // another run doesn't begin with the same keys
        let first = u64::try_from(Timestamp::now().as_micros() / 1_000_000).unwrap_or(0) << 24;
        let end = self.duration.map(|duration| Instant::now() + duration);
        let room = Arc::new(Semaphore::new(MOST_WAITING));
        let mut batches: JoinSet<Result<()>> = JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut owed, mut last) = (0.0, Instant::now());
        while end.is_none_or(|end| Instant::now() < end) {
            if self.rate > 0 {
                ticks.tick().await;
            }
            let now = Instant::now();
            // what the stream couldn't take isn't made up for in one go
            owed = f64::min(owed + self.rate as f64 * (now - last).as_secs_f64(), self.rate as f64);
            last = now;
            let so_far = made.load(Ordering::Relaxed);
            let left = if self.records > 0 { self.records - so_far } else { u64::MAX };
            let due = if self.rate > 0 { owed as u64 } else { MOST_AT_ONCE / 8 };
            let count = due.min(MOST_AT_ONCE).min(left);
            if left == 0 {
                break;
            }
            if count == 0 {
                continue;
            }
            owed -= count as f64;
            let permit = acquire(&room, count, end).await;
            let Some(permit) = permit else { break };
            let records: Vec<PutRecord> = (so_far..so_far + count).map(|number| self.record(first + number)).collect();
            made.fetch_add(count, Ordering::Relaxed);
            let putter = putter.clone();
            batches.spawn(async move {
                let outcome = putter.put(records).await;
                drop(permit);
                outcome
            });
            while let Some(done) = batches.try_join_next() {
                joined(done)?;
            }
        }
        while let Some(done) = batches.join_next().await {
            joined(done)?;
        }
        Ok(())
    }

    fn record(&self, number: u64) -> PutRecord {
        let (key, event) = match self.workload {
            Workload::Tickets => ticket(number, Timestamp::now()),
            Workload::Impressions | Workload::Orders => impression(number, Timestamp::now()),
        };
        let line = u32::try_from(xxh3_64(key.as_bytes()) % u64::from(LINES)).unwrap_or(0);
        PutRecord {
            line,
            partition_key: key.into(),
            explicit_hash_key: Some(line_hash_key(line, LINES)),
            data: event.to_string().into(),
        }
    }
}

/// Room for so many records; `None`: the end came first.
async fn acquire(room: &Arc<Semaphore>, count: u64, end: Option<Instant>) -> Option<OwnedSemaphorePermit> {
    let permits = room.clone().acquire_many_owned(u32::try_from(count).unwrap_or(1));
    match end {
        Some(end) => tokio::time::timeout_at(end, permits).await.ok()?.ok(),
        None => permits.await.ok(),
    }
}

fn joined(done: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    done.map_err(|panic| Error::bug("a task that puts records has died").caused_by(panic))?
}

/// Logs how it goes, for ever.
async fn show(putter: &Putter) {
    let mut timer = tokio::time::interval(LINE_INTERVAL);
    timer.tick().await;
    let mut before = 0;
    loop {
        timer.tick().await;
        let counts = putter.counts();
        let accepted = counts.accepted.load(Ordering::Relaxed);
        let per_second = (accepted - before) as f64 / LINE_INTERVAL.as_secs_f64();
        before = accepted;
        let (throttled, again) = (counts.throttled.load(Ordering::Relaxed), counts.retried.load(Ordering::Relaxed));
        tracing::info!(accepted, throttled, sent_again = again, per_second = per_second.round(), "generating");
    }
}

/// What came of it, in lines of a terminal's width.
fn summary(counts: &PutCounts, made: u64, took: Duration, shards: u32) -> String {
    let [accepted, bytes, throttled, again, calls] =
        [&counts.accepted, &counts.accepted_bytes, &counts.throttled, &counts.retried, &counts.calls]
            .map(|count| count.load(Ordering::Relaxed));
    let (seconds, megabytes) = (took.as_secs_f64(), bytes as f64 / 1e6);
    let rate = accepted as f64 / seconds;
    let each = accepted as f64 / calls.max(1) as f64;
    let millis =
        |share| counts.latencies.within(share).map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3));
    let [p50, p90, p99, p999, most] = [0.5, 0.9, 0.99, 0.999, 1.0].map(millis);
    format!(
        "accepted    {accepted} of {made} records in {seconds:.1} s\n\
         rate        {rate:.0} records/s, {:.2} MB/s, on {shards} shards\n\
         throttled   {throttled} records; {again} sent again, for whatever reason\n\
         latency ms  p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, most {most}\n\
         calls       {calls} of {each:.0} records",
        megabytes / seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_fits_a_terminal() {
        let counts = PutCounts::default();
        for counter in [&counts.accepted, &counts.accepted_bytes, &counts.throttled, &counts.retried, &counts.calls] {
            counter.store(10_u64.pow(12), Ordering::Relaxed);
        }
        let text = summary(&counts, 10_u64.pow(12), Duration::from_secs(86_400), 10_000);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("11574074 records/s") && text.contains("p50 -"), "{text}");
    }
}
