//! `SubscribeToShard` as Amazon's documents describe it, before a stand-in that has all but this right (kinesis-local never says that a shard has ended): what the
//! stand-in gives to `GetRecords` is pushed as an event stream over chunked HTTP.
//!
//! Of the protocol it has: the initial response, events with a number to continue after that is no record's, empty events, the end after some
//! events (five minutes, there), the children of a closed shard in its last event, one subscription a consumer and shard that a later one takes over, the
//! refusal of one that comes too soon, and consumers that don't exist.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Result;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The pause between two looks at a shard without news.
const LOOK: Duration = Duration::from_millis(20);
/// After so long without news there is an empty event.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// What differs from Amazon's servers, so that tests are fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushRules {
    /// A subscription ends after so many events (there, after five minutes).
    pub(crate) most_events: usize,
    /// So soon after a subscription another one of the same consumer and shard is refused (there, five seconds).
    pub(crate) held_for: Duration,
}

impl Default for PushRules {
    fn default() -> Self {
        Self { most_events: usize::MAX, held_for: Duration::ZERO }
    }
}

#[derive(Debug, Clone)]
enum Place {
    Oldest,
    Latest,
    At(DateTime),
    From(String),
    After(String),
}

/// Serves subscriptions.
#[derive(Debug)]
pub(crate) struct Pusher {
    upstream: Client,
    rules: PushRules,
    counts: super::proxy::Counts,
    /// The newest subscription of each consumer and shard.
    newest: Mutex<HashMap<(String, String), (u64, Instant)>>,
    /// What the numbers mean that are no record's.
    continuations: Mutex<HashMap<String, Place>>,
}

impl Pusher {
    pub(crate) fn new(upstream: Client, rules: PushRules, counts: super::proxy::Counts) -> Self {
        Self { upstream, rules, counts, newest: Mutex::default(), continuations: Mutex::default() }
    }

    /// Answers one `SubscribeToShard`; the connection ends with it.
    pub(crate) async fn serve(&self, request: &[u8], to: &mut TcpStream) -> Result<()> {
        let request: Value = serde_json::from_slice(request)?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (consumer, shard) = (text(&request["ConsumerARN"]), text(&request["ShardId"]));
        if !self.is_active(&consumer).await {
            return refuse(to, "ResourceNotFoundException").await;
        }
        let subscription = {
            let mut newest = self.newest.lock().unwrap();
            let held = newest.entry((consumer.clone(), shard.clone())).or_insert((0, Instant::now() - self.rules.held_for));
            (held.1.elapsed() >= self.rules.held_for).then(|| {
                *held = (held.0 + 1, Instant::now());
                held.0
            })
        };
        let Some(subscription) = subscription else {
            self.counts.note("subscriptions too soon");
            return refuse(to, "ResourceInUseException").await;
        };
        self.counts.note("subscriptions");
        let position = &request["StartingPosition"];
        let number = || text(&position["SequenceNumber"]);
        let place = match text(&position["Type"]).as_str() {
            "TRIM_HORIZON" => Place::Oldest,
            "LATEST" => Place::Latest,
            "AT_TIMESTAMP" => Place::At(DateTime::from_secs_f64(position["Timestamp"].as_f64().unwrap())),
            "AT_SEQUENCE_NUMBER" => Place::From(number()),
            "AFTER_SEQUENCE_NUMBER" => {
                self.continuations.lock().unwrap().get(&number()).cloned().unwrap_or_else(|| Place::After(number()))
            }
            other => panic!("no starting position is called {other}"),
        };
        self.push(&consumer, &shard, subscription, place, to).await?;
        to.write_all(b"0\r\n\r\n").await
    }

    async fn is_active(&self, consumer: &str) -> bool {
        let described = self.upstream.describe_stream_consumer().consumer_arn(consumer).send().await;
        match described {
            Ok(output) => output.consumer_description.is_some_and(|found| found.consumer_status.as_str() == "ACTIVE"),
            Err(error) => !error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()),
        }
    }

    async fn push(&self, consumer: &str, shard: &str, subscription: u64, mut place: Place, to: &mut TcpStream) -> Result<()> {
        to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        send(to, &[(":message-type", "event"), (":event-type", "initial-response")], &json!({})).await?;
        // "arn:…:stream/NAME/consumer/…"
        let stream = consumer.split(['/']).nth(1).unwrap();
        let mut iterator = self.iterator(stream, shard, &place).await;
        let (mut events, mut told_at) = (0, None::<Instant>);
        while events < self.rules.most_events {
            let is_newest = self.newest.lock().unwrap()[&(consumer.to_owned(), shard.to_owned())].0 == subscription;
            let is_time = told_at.is_none_or(|told| told.elapsed() >= HEARTBEAT);
            if !is_newest {
                self.counts.note("subscriptions taken over");
                return fail(to, "ResourceInUseException").await;
            }
            if is_time && !self.is_active(consumer).await {
                self.counts.note("subscriptions without consumer");
                return fail(to, "ResourceNotFoundException").await;
            }
            let read = self.upstream.get_records().shard_iterator(&iterator).send().await.map_err(std::io::Error::other)?;
            if let Some(last) = read.records.last() {
                place = Place::After(last.sequence_number.clone());
            }
            let has_ended = read.next_shard_iterator.is_none();
            if !read.records.is_empty() || has_ended || is_time {
                self.counts.add("pushed records", read.records.len());
                let number = if has_ended { Value::Null } else { self.continuation(shard, &place).into() };
                send(to, &[(":message-type", "event"), (":event-type", "SubscribeToShardEvent")], &event(&read, number)).await?;
                (events, told_at) = (events + 1, Some(Instant::now()));
            } else {
                tokio::time::sleep(LOOK).await;
            }
            match read.next_shard_iterator {
                Some(next) => iterator = next,
                None => {
                    self.counts.note("shards that ended");
                    return Ok(());
                }
            }
        }
        self.counts.note("subscriptions at their end");
        Ok(())
    }

    async fn iterator(&self, stream: &str, shard: &str, place: &Place) -> String {
        let call = self.upstream.get_shard_iterator().stream_name(stream).shard_id(shard);
        let call = match place {
            Place::Oldest => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Place::Latest => call.shard_iterator_type(ShardIteratorType::Latest),
            Place::At(time) => call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(*time),
            Place::From(number) => call.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number),
            Place::After(number) => {
                call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number)
            }
        };
        call.send().await.unwrap().shard_iterator.unwrap()
    }

    /// A number after which a later subscription goes on: above the last record's, and no record's itself.
    fn continuation(&self, shard: &str, place: &Place) -> String {
        let mut continuations = self.continuations.lock().unwrap();
        let digits = shard.trim_start_matches(|c: char| !c.is_ascii_digit());
        let number = format!("4999{digits}{:040}", continuations.len());
        continuations.insert(number.clone(), place.clone());
        number
    }
}

fn event(read: &GetRecordsOutput, continues: Value) -> Value {
    let records = read.records().iter().map(|record| {
        json!({
            "Data": STANDARD.encode(record.data.as_ref()),
            "PartitionKey": record.partition_key,
            "SequenceNumber": record.sequence_number,
            "ApproximateArrivalTimestamp": record.approximate_arrival_timestamp.map(|time| time.as_secs_f64()),
        })
    });
    let children = read.child_shards().iter().map(|child| {
        let range = child.hash_key_range.as_ref().unwrap();
        json!({
            "ShardId": child.shard_id,
            "ParentShards": child.parent_shards,
            "HashKeyRange": {"StartingHashKey": range.starting_hash_key, "EndingHashKey": range.ending_hash_key},
        })
    });
    let children: Vec<Value> = children.collect();
    let mut event = json!({
        "Records": records.collect::<Vec<_>>(),
        "ContinuationSequenceNumber": continues,
        "MillisBehindLatest": read.millis_behind_latest.unwrap_or(0),
    });
    if event["ContinuationSequenceNumber"].is_null() {
        event["ChildShards"] = children.into();
    }
    event
}

async fn refuse(to: &mut TcpStream, code: &str) -> Result<()> {
    to.write_all(&super::proxy::answer("400 Bad Request", &json!({"__type": code, "message": "by the pusher"}))).await
}

/// An error within an event stream that has begun.
async fn fail(to: &mut TcpStream, code: &str) -> Result<()> {
    send(to, &[(":message-type", "exception"), (":exception-type", code)], &json!({"message": "by the pusher"})).await
}

/// One message of an event stream, as one chunk.
async fn send(to: &mut TcpStream, headers: &[(&str, &str)], payload: &Value) -> Result<()> {
    let message = message(headers, payload.to_string().as_bytes());
    to.write_all(format!("{:x}\r\n", message.len()).as_bytes()).await?;
    to.write_all(&message).await?;
    to.write_all(b"\r\n").await
}

/// `application/vnd.amazon.eventstream`: lengths, their checksum, headers, payload, the checksum of all.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers.iter().chain(&[(":content-type", "application/json")]) {
        encoded.push(name.len() as u8);
        encoded.extend(name.as_bytes());
        encoded.push(7);
        encoded.extend((value.len() as u16).to_be_bytes());
        encoded.extend(value.as_bytes());
    }
    let total = 12 + encoded.len() + payload.len() + 4;
    let mut message = [(total as u32).to_be_bytes(), (encoded.len() as u32).to_be_bytes()].concat();
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend(encoded);
    message.extend(payload);
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}
