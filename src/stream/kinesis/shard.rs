//! Reading one shard: a task that polls it, or takes what a subscription gives, and tells a [`super::StreamReader`] what it found.

use super::client::{StreamClient, nearest_micros};
use super::fan_out::FanOut;
use super::position::{ShardId, ShardPlace};
use super::shards::lost;
use crate::cloud::Failure;
use crate::error::{Error, Result};
use crate::metrics::{KINESIS_BEHIND_SECONDS, KINESIS_READ_BYTES, KINESIS_READ_RECORDS, KINESIS_READ_THROTTLED};
use crate::time::Timestamp;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// A shard without news is read this often, at least: cuts come about every second.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// The pauses after a failure grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A shard that couldn't be read for so long is an error of the reader.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record as a stream gives it back.
#[derive(Debug, Clone)]
pub struct StreamRecord {
    /// Its shard.
    pub shard: Arc<str>,
    /// Its place in the shard.
    pub sequence_number: String,
    /// As it was put.
    pub partition_key: String,
    /// When the stream got it, about.
    pub arrived: Option<Timestamp>,
    /// As it was put.
    pub data: Bytes,
}

/// What a shard's task says.
#[derive(Debug)]
pub(super) enum Said {
    /// The next records, and whether these are all at the moment.
    Records { records: Vec<StreamRecord>, is_all: bool },
    /// There are none at the moment.
    CaughtUp,
    /// The shard has ended: its children go on.
    Ended,
    /// It can't be read.
    Failed(Error),
}

/// Reads one shard.
#[derive(Debug)]
pub(super) struct ShardTask {
    pub(super) client: Arc<StreamClient>,
    pub(super) shard: ShardId,
    pub(super) place: ShardPlace,
    /// Where a subscription goes on, if it has come further than to a record: nobody but subscriptions must know this number.
    pub(super) continues_after: Option<String>,
    pub(super) poll_interval: Duration,
    /// Who holds one may have a batch that the reader hasn't taken yet.
    pub(super) batches: Arc<Semaphore>,
    pub(super) said: mpsc::Sender<(ShardId, Said)>,
    pub(super) fan_out: Option<Arc<FanOut>>,
    /// From then on by a subscription, where there is a fan-out.
    pub(super) settles_at: Instant,
}

/// Why a task ends.
pub(super) enum End {
    /// The shard has ended.
    Shard,
    /// Nobody listens any more.
    Unwanted,
}

impl ShardTask {
    pub(super) async fn run(mut self) {
        let said = match self.read().await {
            Ok(End::Shard) => Said::Ended,
            Ok(End::Unwanted) => return,
            Err(error) => Said::Failed(error.with("shard", &self.shard)),
        };
        self.say(said).await;
    }

    /// Polls; with a fan-out, from one subscription to the next, and while there can be none.
    async fn read(&mut self) -> Result<End> {
        let fan_out = self.fan_out.clone();
        let mut subscribes_at = fan_out.is_some().then_some(self.settles_at);
        let mut trouble = Trouble::default();
        loop {
            if let Some(end) = self.poll(subscribes_at).await? {
                return Ok(end);
            }
            let Some(fan_out) = &fan_out else { return Ok(End::Unwanted) };
            subscribes_at = match fan_out.subscription(self, &mut trouble).await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => Some(Instant::now()),
                Err(error) if error.is_transient() => Some(Instant::now() + trouble.pause_after(&error)),
                Err(error) => return Err(error),
            };
        }
    }

    /// Tells the reader; `false`: it has gone.
    pub(super) async fn say(&self, said: Said) -> bool {
        self.said.send((self.shard.clone(), said)).await.is_ok()
    }

    /// Reads until the shard ends or, at `until`, when there is nothing new (`None`).
    async fn poll(&mut self, until: Option<Instant>) -> Result<Option<End>> {
        let mut iterator: Option<String> = None;
        let mut interval = self.poll_interval;
        let mut trouble = Trouble::default();
        let batches = self.batches.clone();
        let (mut was_told, mut calls) = (false, 0_u32);
        loop {
            let Ok(permit) = batches.acquire().await else { return Ok(Some(End::Unwanted)) };
            let current = match iterator.take() {
                Some(iterator) => iterator,
                None => match self.iterator().await {
                    Ok(Some(iterator)) => iterator,
                    Ok(None) => return Ok(Some(End::Shard)),
                    Err(error) => {
                        drop(permit);
                        trouble.wait_after(error).await?;
                        continue;
                    }
                },
            };
            let started = Instant::now();
            calls += 1;
            match self.client.sdk().get_records().shard_iterator(&current).send().await {
                Ok(mut output) => {
                    trouble = Trouble::default();
                    let is_all = output.millis_behind_latest.is_none_or(|millis| millis <= 0);
                    let found = !output.records.is_empty();
                    if !self.hand_over(&mut output, is_all, &mut was_told).await {
                        return Ok(Some(End::Unwanted));
                    }
                    iterator = output.next_shard_iterator;
                    if iterator.is_none() {
                        return Ok(Some(End::Shard));
                    }
                    // that a shard has ended is said by a second answer
                    if is_all && calls > 1 && until.is_some_and(|until| Instant::now() >= until) {
                        return Ok(None);
                    }
                    interval = if found || !is_all { self.poll_interval } else { (interval * 3 / 2).min(LONGEST_INTERVAL) };
                }
                Err(error) => {
                    let failure = Failure::of(&error);
                    if is_expired(&error) {
                        // a new one is made from the last record
                        continue;
                    }
                    if failure == Failure::Throttled {
                        metrics::counter!(KINESIS_READ_THROTTLED).increment(1);
                        iterator = Some(current);
                    }
                    let error = self.client.said("a shard can't be read", &error);
                    drop(permit);
                    let error = self.explain(failure, error).await?;
                    trouble.wait_after(error).await?;
                    continue;
                }
            }
            drop(permit);
            tokio::time::sleep_until(started + interval.max(self.poll_interval)).await;
        }
    }

    /// Gives an answer's records to the reader, and says once when there are no more; `false`: it has gone.
    async fn hand_over(&mut self, output: &mut GetRecordsOutput, is_all: bool, was_told: &mut bool) -> bool {
        let records = std::mem::take(&mut output.records);
        metrics::gauge!(KINESIS_BEHIND_SECONDS, "shard" => self.shard.0.clone())
            .set(output.millis_behind_latest.unwrap_or(0).max(0) as f64 / 1000.0);
        if !records.is_empty() {
            *was_told = is_all;
            return self.give(records, is_all).await;
        }
        if is_all && !*was_told {
            *was_told = true;
            return self.say(Said::CaughtUp).await;
        }
        true
    }

    /// Gives records to the reader; `false`: it has gone.
    pub(super) async fn give(&mut self, records: Vec<Record>, is_all: bool) -> bool {
        let shard: Arc<str> = self.shard.0.as_str().into();
        let records: Vec<StreamRecord> = records.into_iter().map(|record| taken(&shard, record)).collect();
        metrics::counter!(KINESIS_READ_RECORDS).increment(records.len() as u64);
        metrics::counter!(KINESIS_READ_BYTES).increment(records.iter().map(|record| record.data.len() as u64).sum());
        if let Some(last) = records.last() {
            self.place = ShardPlace::After(last.sequence_number.clone());
            self.continues_after = None;
        }
        self.say(Said::Records { records, is_all }).await
    }

    /// An iterator from the place on; `None`: the shard has ended.
    async fn iterator(&self) -> Result<Option<String>> {
        let call = self.client.sdk().get_shard_iterator().stream_name(self.client.name()).shard_id(&self.shard.0);
        let call = match &self.place {
            ShardPlace::Oldest => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ShardPlace::At(time) => call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(datetime(*time)),
            ShardPlace::After(number) => {
                call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number)
            }
            ShardPlace::Ended => return Ok(None),
        };
        match call.send().await {
            Ok(output) => Ok(output.shard_iterator),
            Err(error) => {
                let failure = Failure::of(&error);
                Err(self.explain(failure, self.client.said("a shard can't be read", &error)).await?)
            }
        }
    }

    /// What a failure means: an error to be waited after, or (`Err`) one that doesn't pass.
    async fn explain(&self, failure: Failure, error: Error) -> Result<Error> {
        match failure {
            Failure::Credentials => self.client.renew().await,
            Failure::Missing | Failure::Other => {
                if self.client.describe().await?.is_none() {
                    return Err(self.client.gone());
                }
                if matches!(self.place, ShardPlace::After(_)) {
                    return Err(lost().caused_by(std::io::Error::other(error.to_string())));
                }
            }
            _ => {}
        }
        if failure.passes() { Ok(error) } else { Err(error) }
    }
}

fn is_expired<R>(error: &aws_sdk_kinesis::error::SdkError<aws_sdk_kinesis::operation::get_records::GetRecordsError, R>) -> bool {
    error.as_service_error().is_some_and(|error| error.is_expired_iterator_exception())
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    attempts: u32,
}

impl Trouble {
    /// Waits a while; gives the error back when it lasted too long.
    pub(super) async fn wait_after(&mut self, error: Error) -> Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !error.is_transient() || since.elapsed() >= PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(self.pause_after(&error)).await;
        Ok(())
    }

    /// How long to wait after one more.
    pub(super) fn pause_after(&mut self, error: &Error) -> Duration {
        if self.attempts == 3 {
            tracing::warn!(%error, "a shard is read again");
        }
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.attempts.min(10))).min(LONGEST_PAUSE);
        self.attempts += 1;
        pause
    }
}

fn taken(shard: &Arc<str>, record: Record) -> StreamRecord {
    let arrived = record.approximate_arrival_timestamp;
    StreamRecord {
        shard: shard.clone(),
        sequence_number: record.sequence_number,
        partition_key: record.partition_key,
        arrived: arrived.map(nearest_micros),
        data: record.data.into_inner().into(),
    }
}

pub(super) fn datetime(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_micros().div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kinesis::primitives::Blob;

    #[test]
    fn a_record_arrived_at_the_millisecond_that_was_written() {
        let record = Record::builder().sequence_number("1").partition_key("k").data(Blob::new(""));
        let record = record.approximate_arrival_timestamp(DateTime::from_secs_f64(1_795_336_375.218)).build().unwrap();
        assert_eq!(taken(&"shard".into(), record).arrived.unwrap().as_micros(), 1_795_336_375_218_000);
    }
}
