//! One stream's client: its calls, and what is asked about the stream itself.

use super::url::{KinesisUrl, Shards};
use crate::cloud::{Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use crate::time::Timestamp;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamMode, StreamModeDetails, StreamStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The limit where the stream doesn't say another.
const MOST_RECORD_BYTES: usize = 1 << 20;
/// How long one attempt of a call may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Credentials that don't work are fetched anew this often, at most.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a stream may take until it can be used.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is asked meanwhile: from this …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The tag that says how many lanes the stream has.
const LANES_TAG: &str = "binlake.lanes";

/// The client of one stream.
#[derive(Debug)]
pub(crate) struct StreamClient {
    url: KinesisUrl,
    client: Mutex<(Client, Instant)>,
}

/// What a stream is.
#[derive(Debug, Clone)]
pub(crate) struct StreamFacts {
    pub(crate) arn: String,
    /// When it was made: with its name, this very stream.
    pub(crate) created: Timestamp,
    /// The most bytes of a record, its partition key among them.
    pub(crate) most_record_bytes: usize,
    /// How long records are kept.
    pub(crate) retention: Duration,
    pub(crate) open_shards: u32,
    pub(crate) status: StreamStatus,
}

impl StreamFacts {
    fn new(summary: &StreamDescriptionSummary) -> Self {
        let created = summary.stream_creation_timestamp;
        let limit = summary.max_record_size_in_kib.and_then(|kib| usize::try_from(kib).ok()).filter(|kib| *kib > 0);
        Self {
            arn: summary.stream_arn.clone(),
            created: nearest_micros(created),
            most_record_bytes: limit.map_or(MOST_RECORD_BYTES, |kib| kib << 10),
            retention: Duration::from_secs(u64::try_from(summary.retention_period_hours).unwrap_or(24) * 3600),
            open_shards: u32::try_from(summary.open_shard_count).unwrap_or(0),
            status: summary.stream_status.clone(),
        }
    }
}

impl StreamClient {
    /// Calls nobody yet.
    pub(crate) async fn new(url: &KinesisUrl) -> Result<Self> {
        let client = make(url).await?;
        Ok(Self { url: url.clone(), client: Mutex::new((client, Instant::now())) })
    }

    /// The SDK's client.
    pub(crate) fn sdk(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The stream's name.
    pub(crate) fn name(&self) -> &str {
        &self.url.aws.name
    }

    /// Reads credentials anew, after some that didn't work.
    pub(crate) async fn renew(&self) {
        let is_due = {
            let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = client.1.elapsed() >= RENEWAL_INTERVAL;
            if is_due {
                client.1 = Instant::now();
            }
            is_due
        };
        if is_due && let Ok(made) = make(&self.url).await {
            self.client.lock().unwrap_or_else(PoisonError::into_inner).0 = made;
        }
    }

    /// Asks about the stream; `None`: there is none.
    pub(crate) async fn describe(&self) -> Result<Option<StreamFacts>> {
        let answer = self.sdk().describe_stream_summary().stream_name(self.name()).send().await;
        match answer {
            Ok(output) => Ok(output.stream_description_summary.as_ref().map(StreamFacts::new)),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(None),
            Err(error) => Err(self.said("the stream can't be described", &error)),
        }
    }

    /// Waits until the stream can be used; makes it first where there is none and the URL says so. `None`: there is none.
    pub(crate) async fn wait_until_usable(&self, may_create: bool) -> Result<Option<StreamFacts>> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let facts = self.patiently(deadline, || self.describe()).await?;
            match (facts, &self.url.create) {
                (Some(facts), _) => match facts.status {
                    StreamStatus::Active | StreamStatus::Updating => return Ok(Some(facts)),
                    StreamStatus::Deleting => tracing::warn!(stream = self.name(), "the stream is being deleted; waiting"),
                    _ => tracing::info!(stream = self.name(), "the stream is being made; waiting"),
                },
                (None, Some(shards)) if may_create => self.create(*shards).await?,
                (None, _) => return Ok(None),
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Area::Stream, Kind::Transient, "the stream doesn't become active").with("stream", &self.url));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tries again what passes, until `deadline`.
    async fn patiently<T, F: Future<Output = Result<T>>>(&self, deadline: Instant, call: impl Fn() -> F) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        loop {
            match call().await {
                Err(error) if error.is_transient() && Instant::now() + pause < deadline.min(Instant::now() + CALL_TIMEOUT) => {
                    tracing::warn!(%error, "the stream is asked again");
                    self.renew().await;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
    }

    async fn create(&self, shards: Shards) -> Result<()> {
        tracing::info!(stream = %self.url, "the stream is made");
        let call = self.sdk().create_stream().stream_name(self.name());
        let call = match shards {
            Shards::Provisioned(count) => call.shard_count(i32::try_from(count).unwrap_or(i32::MAX)),
            Shards::OnDemand => {
                let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build();
                call.stream_mode_details(mode.map_err(|error| Error::bug("a stream's mode can't be said").caused_by(error))?)
            }
        };
        match call.send().await {
            Ok(_) => Ok(()),
            // another process was faster
            Err(error) if Failure::of(&error) == Failure::Busy => Ok(()),
            Err(error) => Err(self.said("the stream can't be made", &error)),
        }
    }

    /// How many lanes the stream has, as its tag says; tags it with `lanes` if it has none.
    pub(crate) async fn lanes(&self, lanes: u16, may_tag: bool) -> Result<u16> {
        let listed = self.sdk().list_tags_for_stream().stream_name(self.name()).send().await;
        let tagged = match &listed {
            Ok(output) => output.tags.iter().find(|tag| tag.key() == LANES_TAG).and_then(|tag| tag.value()),
            Err(error) if Failure::of(error) == Failure::Denied => {
                tracing::warn!(stream = self.name(), "the stream's tags can't be read: `stream.lanes` is believed");
                return Ok(lanes);
            }
            Err(error) => return Err(self.said("the stream's tags can't be read", error)),
        };
        if let Some(tagged) = tagged {
            return tagged.parse().map_err(|_| {
                Error::new(Area::Stream, Kind::Corrupt, "the stream's tag doesn't say how many lanes it has")
                    .with("tag", LANES_TAG)
                    .with("value", tagged)
                    .remedy("correct the tag")
            });
        }
        if may_tag {
            let tagged = self.sdk().add_tags_to_stream().stream_name(self.name()).tags(LANES_TAG, lanes.to_string()).send().await;
            if let Err(error) = tagged {
                let error = self.said("the stream's number of lanes can't be tagged", &error);
                tracing::warn!(%error, "all who use the stream must have the same `stream.lanes`");
            }
        }
        Ok(lanes)
    }

    /// An error of one of the stream's calls.
    pub(crate) fn said<E, R>(&self, what: &'static str, error: &aws_sdk_kinesis::error::SdkError<E, R>) -> Error
    where
        E: aws_sdk_kinesis::error::ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        error_of(Area::Stream, what, error).with("stream", &self.url)
    }

    /// There is no such stream, or no longer.
    pub(crate) fn gone(&self) -> Error {
        Error::new(Area::Stream, Kind::Refused, "there is no such stream, or it is being deleted").with("stream", &self.url).remedy(
            "make it (or add create=4 to the URL for four shards, create=on-demand); on a new stream, the lake's own checkpoints are gone on from",
        )
    }
}

async fn make(url: &KinesisUrl) -> Result<Client> {
    Ok(Client::new(&sdk_config(&url.aws, &Calls::once().within(CALL_TIMEOUT)).await?))
}

/// The answer has seconds as a binary fraction, of which .86 is a little less: cut off, it would be another millisecond than other libraries have, and
/// than a stream's name has for them.
pub(super) fn nearest_micros(time: DateTime) -> Timestamp {
    Timestamp::from_micros(time.secs() * 1_000_000 + i64::from((time.subsec_nanos() + 500) / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_millisecond_that_was_written() {
        for millis in 1_795_336_375_000..1_795_336_376_000_i64 {
            let answered: f64 = format!("{}.{:03}", millis / 1000, millis % 1000).parse().unwrap();
            assert_eq!(nearest_micros(DateTime::from_secs_f64(answered)).as_micros(), millis * 1000);
        }
    }
}
