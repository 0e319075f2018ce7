//! Enhanced fan-out: the stream pushes a shard's records to a registered consumer, which has 2 MB a second of each shard for itself.
//!
//! A subscription lasts five minutes and is then made anew from where it ended; in between, and while there can be none, the shard is polled. The consumer is registered when a reader has settled, so that a
//! short look at the stream takes no subscription from who stays.

use super::client::StreamClient;
use super::position::ShardPlace;
use super::shard::{End, Said, ShardTask, Trouble, datetime};
use crate::cloud::Failure;
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_kinesis::types::{ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A subscription ends by itself after five minutes: shortly before, the next is made.
const RENEWED_AFTER: Duration = Duration::from_secs(290);
/// A subscription that says nothing for so long has died: the stream says each few seconds how far it is.
const SILENCE: Duration = Duration::from_secs(40);
/// How long a consumer may take to become active.
const PATIENCE: Duration = Duration::from_secs(120);
const REGISTRATION_INTERVAL: Duration = Duration::from_millis(300);

/// A registered consumer.
#[derive(Debug)]
pub(crate) struct FanOut {
    client: Arc<StreamClient>,
    stream_arn: String,
    name: String,
    arn: OnceCell<String>,
}

impl FanOut {
    pub(super) fn new(client: Arc<StreamClient>, stream_arn: &str, name: &str) -> Self {
        Self { client, stream_arn: stream_arn.to_owned(), name: name.to_owned(), arn: OnceCell::new() }
    }

    /// The consumer's ARN; registers it if need be.
    async fn arn(&self) -> Result<&str> {
        self.arn.get_or_try_init(|| self.register()).await.map(String::as_str)
    }

    async fn register(&self) -> Result<String> {
        let registered =
            self.client.sdk().register_stream_consumer().stream_arn(&self.stream_arn).consumer_name(&self.name).send().await;
        match registered {
            Ok(_) => tracing::info!(consumer = self.name, "the fan-out consumer is registered"),
            Err(error) if Failure::of(&error) == Failure::Busy => {}
            Err(error) => return Err(self.client.said("the fan-out consumer can't be registered", &error)),
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let described =
                self.client.sdk().describe_stream_consumer().stream_arn(&self.stream_arn).consumer_name(&self.name).send().await;
            let described = described.map_err(|error| self.client.said("the fan-out consumer can't be described", &error))?;
            if let Some(consumer) = described.consumer_description
                && consumer.consumer_status == ConsumerStatus::Active
            {
                return Ok(consumer.consumer_arn);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Area::Stream, Kind::Transient, "the fan-out consumer doesn't become active")
                    .with("consumer", &self.name));
            }
            tokio::time::sleep(REGISTRATION_INTERVAL).await;
        }
    }

    /// Takes the registration back, if this process has made or used it.
    pub(crate) async fn deregister(&self) -> Result<()> {
        let Some(arn) = self.arn.get() else { return Ok(()) };
        match self.client.sdk().deregister_stream_consumer().consumer_arn(arn).send().await {
            Ok(_) => Ok(()),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(()),
            Err(error) => Err(self.client.said("the fan-out consumer can't be deregistered", &error)),
        }
    }

    /// One subscription; `None`: it has ended, and the shard hasn't.
    pub(super) async fn subscription(&self, task: &mut ShardTask, trouble: &mut Trouble) -> Result<Option<End>> {
        let place = StartingPosition::builder();
        let place = match &task.place {
            ShardPlace::Oldest => place.r#type(ShardIteratorType::TrimHorizon),
            ShardPlace::At(time) => place.r#type(ShardIteratorType::AtTimestamp).timestamp(datetime(*time)),
            ShardPlace::After(number) => place.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number),
            ShardPlace::Ended => return Ok(Some(End::Shard)),
        };
        let place = place.build().map_err(|error| Error::bug("a starting position can't be said").caused_by(error))?;
        let call =
            self.client.sdk().subscribe_to_shard().consumer_arn(self.arn().await?).shard_id(&task.shard.0).starting_position(place);
        let mut subscription = match call.send().await {
            Ok(subscription) => subscription,
            Err(error) => {
                let failure = Failure::of(&error);
                let error = self.client.said("a shard can't be subscribed to", &error);
                // another subscription of the consumer was made less than five seconds ago
                let is_taken = failure == Failure::Busy;
                let error = if is_taken { transient(error) } else { task.explain(failure, error).await? };
                return Err(error);
            }
        };
        let renewed_at = Instant::now() + RENEWED_AFTER;
        let mut was_told = false;
        loop {
            let event = tokio::time::timeout_at((Instant::now() + SILENCE).min(renewed_at), subscription.event_stream.recv()).await;
            let event = match event {
                Err(_) | Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)))) => event,
                Ok(Ok(Some(_))) => continue,
                Ok(Err(error)) => {
                    return Err(transient(self.client.said("a shard's subscription has ended", &error)));
                }
            };
            *trouble = Trouble::default();
            let is_all = event.millis_behind_latest <= 0;
            let continues = event.continuation_sequence_number;
            let has_ended = continues.is_empty() || event.child_shards.is_some_and(|children| !children.is_empty());
            let goes_on = match (event.records.is_empty(), is_all && !was_told) {
                (false, _) => {
                    was_told = is_all;
                    task.give(event.records, is_all).await
                }
                (true, true) => {
                    was_told = true;
                    task.say(Said::CaughtUp).await
                }
                (true, false) => true,
            };
            if !goes_on {
                return Ok(Some(End::Unwanted));
            }
            if has_ended {
                return Ok(Some(End::Shard));
            }
            task.place = ShardPlace::After(continues);
        }
    }
}

fn transient(error: Error) -> Error {
    Error::new(Area::Stream, Kind::Transient, "a subscription is made anew").caused_by(std::io::Error::other(error.to_string()))
}
