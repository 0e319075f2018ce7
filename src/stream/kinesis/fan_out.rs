//! Enhanced fan-out: the stream pushes a shard's records to a registered consumer, which has 2 MB a second of each shard for itself.
//!
//! A subscription lasts five minutes and is then made anew from where it ended; in between, and while there can be none, the shard is polled. The
//! consumer is registered when a reader has settled, so that a short look at the stream takes no subscription from who stays. One that exists
//! already (from before a crash, or made by an administrator) is used, and left when this process ends; its own is deregistered.

use super::client::StreamClient;
use super::position::ShardPlace;
use super::shard::{End, Said, ShardTask, Trouble, datetime};
use crate::cloud::Failure;
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A subscription ends by itself after five minutes: shortly before, the next is made.
const RENEWED_AFTER: Duration = Duration::from_secs(290);
/// After so long without a record the shard is polled once: the connection may have died, or (with kinesis-local, and LocalStack, which is made
/// of it) the shard has ended and nothing says so.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a consumer may take to become active.
const PATIENCE: Duration = Duration::from_secs(120);
const REGISTRATION_INTERVAL: Duration = Duration::from_millis(300);

/// A registered consumer.
#[derive(Debug)]
pub(crate) struct FanOut {
    client: Arc<StreamClient>,
    stream_arn: String,
    name: String,
    consumer: Mutex<Registration>,
}

#[derive(Debug, Default)]
struct Registration {
    /// The consumer's ARN, once it is active.
    arn: Option<String>,
    /// Whether this process has registered it.
    is_ours: bool,
}

impl FanOut {
    pub(super) fn new(client: Arc<StreamClient>, stream_arn: &str, name: &str) -> Self {
        Self { client, stream_arn: stream_arn.to_owned(), name: name.to_owned(), consumer: Mutex::default() }
    }

    /// The consumer's ARN; registers it if there is none.
    async fn arn(&self) -> Result<String> {
        let mut consumer = self.consumer.lock().await;
        if let Some(arn) = &consumer.arn {
            return Ok(arn.clone());
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.described().await? {
                Some((arn, ConsumerStatus::Active)) => {
                    consumer.arn = Some(arn.clone());
                    return Ok(arn);
                }
                // being made, or deleted by another process that has just ended
                Some(_) => tokio::time::sleep(REGISTRATION_INTERVAL).await,
                None => {
                    // before the call: its answer may be lost, or nobody may wait for it any more
                    consumer.is_ours = true;
                    consumer.is_ours = self.register().await?;
                }
            }
        }
        let error = Error::new(Area::Stream, Kind::Transient, "the fan-out consumer doesn't become active");
        Err(error.with("consumer", &self.name))
    }

    async fn described(&self) -> Result<Option<(String, ConsumerStatus)>> {
        let call = self.client.sdk().describe_stream_consumer().stream_arn(&self.stream_arn).consumer_name(&self.name);
        match call.send().await {
            Ok(output) => Ok(output.consumer_description.map(|consumer| (consumer.consumer_arn, consumer.consumer_status))),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(None),
            Err(error) => Err(self.failed("the fan-out consumer can't be described", &error, "kinesis:DescribeStreamConsumer")),
        }
    }

    /// Whether it was registered by this call.
    async fn register(&self) -> Result<bool> {
        let call = self.client.sdk().register_stream_consumer().stream_arn(&self.stream_arn).consumer_name(&self.name);
        match call.send().await {
            Ok(_) => {
                tracing::info!(consumer = self.name, "the fan-out consumer is registered");
                Ok(true)
            }
            // another process was faster
            Err(error) if Failure::of(&error) == Failure::Busy => Ok(false),
            Err(error) => Err(self.failed("the fan-out consumer can't be registered", &error, "kinesis:RegisterStreamConsumer")),
        }
    }

    fn failed<E, R>(&self, what: &'static str, error: &SdkError<E, R>, right: &'static str) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        if Failure::of(error) != Failure::Denied {
            return self.client.said(what, error).with("consumer", &self.name);
        }
        Error::new(Area::Stream, Kind::Refused, what)
            .with("consumer", &self.name)
            .with("right", right)
            .caused_by(std::io::Error::other(error.message().unwrap_or("access denied").to_owned()))
            .remedy("give the role or user that right, or take `consumer=efo` out of the stream's URL: then the stream is polled")
    }

    /// Takes the registration back, if this process has made it.
    pub(crate) async fn deregister(&self) -> Result<()> {
        if !std::mem::take(&mut *self.consumer.lock().await).is_ours {
            return Ok(());
        }
        let call = self.client.sdk().deregister_stream_consumer().stream_arn(&self.stream_arn).consumer_name(&self.name);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(()),
            Err(error) => {
                Err(self.failed("the fan-out consumer can't be deregistered", &error, "kinesis:DeregisterStreamConsumer"))
            }
        }
    }

    /// The consumer was deleted: the next subscription looks for it anew.
    async fn forget(&self, arn: &str) {
        let mut consumer = self.consumer.lock().await;
        if consumer.arn.as_deref() == Some(arn) {
            tracing::warn!(consumer = self.name, "the fan-out consumer was deregistered by somebody else; it is registered again");
            consumer.arn = None;
        }
    }

    /// One subscription; `None`: it has ended, and the shard hasn't. `trouble` ends with its first event.
    ///
    /// # Errors
    /// `Transient`: there can be none now. Any other: there never will be.
    pub(super) async fn subscription(&self, task: &mut ShardTask, trouble: &mut Trouble) -> Result<Option<End>> {
        let arn = self.arn().await?;
        let mut subscription = match self.subscribe(&arn, task).await {
            Ok(Some(subscription)) => subscription,
            Ok(None) => return Ok(Some(End::Shard)),
            Err((failure, error)) => return Err(self.explain(failure, error, &arn, task).await),
        };
        let renewed_at = Instant::now() + RENEWED_AFTER;
        let (mut is_told, mut silent_at) = (false, Instant::now() + SILENCE);
        loop {
            let event = tokio::time::timeout_at(silent_at.min(renewed_at), subscription.event_stream.recv()).await;
            let event = match event {
                Err(_) | Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)))) => event,
                Ok(Ok(Some(_))) => continue,
                Ok(Err(error)) => {
                    let (failure, error) = (Failure::of(&error), self.client.said("a shard's subscription was broken off", &error));
                    return Err(transient(self.explain(failure, error, &arn, task).await));
                }
            };
            *trouble = Trouble::default();
            if !event.records.is_empty() {
                silent_at = Instant::now() + SILENCE;
            }
            if let Some(end) = take(event, task, &mut is_told).await {
                return Ok(Some(end));
            }
        }
    }

    /// Subscribes from the task's place on; `None`: the shard has ended.
    async fn subscribe(
        &self,
        arn: &str,
        task: &ShardTask,
    ) -> std::result::Result<Option<SubscribeToShardOutput>, (Failure, Error)> {
        let place = StartingPosition::builder();
        let place = match (&task.continues_after, &task.place) {
            (_, ShardPlace::Ended) => return Ok(None),
            (Some(number), _) | (None, ShardPlace::After(number)) => {
                place.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number)
            }
            (None, ShardPlace::Oldest) => place.r#type(ShardIteratorType::TrimHorizon),
            (None, ShardPlace::At(time)) => place.r#type(ShardIteratorType::AtTimestamp).timestamp(datetime(*time)),
        };
        let bug = |error| (Failure::Other, Error::bug("a starting position can't be said").caused_by(error));
        let place = place.build().map_err(bug)?;
        let call = self.client.sdk().subscribe_to_shard().consumer_arn(arn).shard_id(&task.shard.0).starting_position(place);
        match call.send().await {
            Ok(subscription) => Ok(Some(subscription)),
            Err(error) => {
                Err((Failure::of(&error), self.failed("a shard can't be subscribed to", &error, "kinesis:SubscribeToShard")))
            }
        }
    }

    /// What a failure means: whatever polling can do without, passes.
    async fn explain(&self, failure: Failure, error: Error, arn: &str, task: &mut ShardTask) -> Error {
        match failure {
            Failure::Denied => return error,
            Failure::Credentials => self.client.renew().await,
            // the consumer, or the shard, or the stream: which, polling tells
            Failure::Missing => self.forget(arn).await,
            Failure::Busy => {
                return transient(error.remedy(
                    "if this lasts, another process reads with the same fan-out consumer: give each its own, as with consumer=efo:${HOSTNAME}",
                ));
            }
            Failure::Throttled | Failure::NoAnswer => {}
            Failure::Condition | Failure::Other => task.continues_after = None,
        }
        transient(error)
    }
}

/// Gives an event's records to the reader; tells when there is no more to come.
async fn take(event: SubscribeToShardEvent, task: &mut ShardTask, is_told: &mut bool) -> Option<End> {
    let is_all = event.millis_behind_latest <= 0;
    let continues = event.continuation_sequence_number;
    let has_ended = continues.is_empty() || event.child_shards.is_some_and(|children| !children.is_empty());
    let is_wanted = if !event.records.is_empty() {
        *is_told = is_all;
        task.give(event.records, is_all).await
    } else if is_all && !*is_told {
        *is_told = true;
        task.say(Said::CaughtUp).await
    } else {
        true
    };
    if !is_wanted {
        return Some(End::Unwanted);
    }
    if has_ended {
        return Some(End::Shard);
    }
    task.continues_after = Some(continues);
    None
}

/// The shard is polled meanwhile.
fn transient(error: Error) -> Error {
    if error.is_transient() {
        return error;
    }
    Error::new(Area::Stream, Kind::Transient, "there is no subscription now").caused_by(std::io::Error::other(error.to_string()))
}
