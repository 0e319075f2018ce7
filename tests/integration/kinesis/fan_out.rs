//! Enhanced fan-out: the conformance suite by subscriptions, resharding, faults, and the consumer's registration.

use super::proxy::{Fate, Proxy};
use super::push::PushRules;
use super::reshard::{reshard, take};
use super::{OnKinesis, StandIn};
use crate::event_log_suite::{LANES, all};
use crate::mysql::eventually;
use crate::random::Random;
use binlake::error::Kind;
use binlake::event::Lane;
use binlake::stream::kinesis::KinesisUrl;
use binlake::stream::{EventLog, KinesisLog, LaneRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const OPTIONS: &str = "&consumer=efo:lake&settle=0s";

fn subject(proxy: &Proxy, shards: u32) -> OnKinesis {
    OnKinesis { options: OPTIONS, ..OnKinesis::new(proxy.endpoint(), shards) }
}

async fn append(log: &KinesisLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let record = |lane| LaneRecord { lane: Lane(lane), bytes: number.to_string().into(), partition_key: None };
        log.append((0..LANES).map(record).collect()).await.unwrap();
    }
}

type Seen = BTreeMap<u16, Vec<u64>>;

fn count(seen: &Seen) -> usize {
    seen.values().map(Vec::len).sum()
}

fn whole(records: u64) -> Seen {
    (0..LANES).map(|lane| (lane, (0..records).collect())).collect()
}

/// The names of a stream's (kinesis-local takes names for unique over all streams when it deletes one, so a test that looks has its own)
/// registered consumers.
async fn consumers(url: &KinesisUrl) -> Vec<String> {
    let client = StandIn::shared().client().await;
    let described = client.describe_stream_summary().stream_name(&url.aws.name).send().await.unwrap();
    let arn = described.stream_description_summary.unwrap().stream_arn;
    let listed = client.list_stream_consumers().stream_arn(&arn).send().await.unwrap();
    listed.consumers().iter().map(|consumer| consumer.consumer_name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_kinesis_by_fan_out() {
    let proxy = Proxy::pushing(Box::new(|_| Fate::Works), PushRules::default()).await;
    all(&mut subject(&proxy, 2)).await;
    // what is read before a subscription has begun is polled
    for _ in 0..20 {
        if proxy.count("pushed records") <= 100 {
            reads_back(&subject(&proxy, 2)).await;
        }
    }
    assert!(proxy.count("pushed records") > 100, "{:?}", proxy.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_a_fan_out_that_fails() {
    let mut random = Random::new(12);
    let judge = Box::new(move |call: &str| match (call, random.below(100)) {
        ("SubscribeToShard", 0..10) => Fate::Fails("LimitExceededException"),
        ("SubscribeToShard", 10..15) => Fate::Fails("InternalFailureException"),
        ("SubscribeToShard", 15..20) => Fate::Fails("InvalidArgumentException"),
        ("SubscribeToShard", 20..25) => Fate::Fails("ExpiredTokenException"),
        ("GetRecords", 0..10) => Fate::Fails("ExpiredIteratorException"),
        _ => Fate::Works,
    });
    // so long that on a slow machine, too, the next one is asked for within it
    let rules = PushRules { most_events: 3, held_for: Duration::from_secs(2) };
    let proxy = Proxy::pushing(judge, rules).await;
    all(&mut subject(&proxy, 1)).await;
    // as long as a slow machine needs until each has happened
    for what in
        ["pushed records", "subscriptions at their end", "subscriptions too soon", "SubscribeToShard InvalidArgumentException"]
    {
        for _ in 0..20 {
            if proxy.count(what) == 0 {
                reads_back(&subject(&proxy, 1)).await;
            }
        }
        assert!(proxy.count(what) > 0, "no {what}: {:?}", proxy.counts());
    }
}

/// A new log, appended to and read by subscription until all is there.
pub(super) async fn reads_back(subject: &OnKinesis) {
    let log = KinesisLog::open(&subject.fresh_url(), LANES).await.unwrap();
    let mut reader = log.read(None).await.unwrap();
    let mut seen = Seen::new();
    for round in 0..4 {
        append(&log, round * 10..(round + 1) * 10).await;
        while count(&seen) < (round as usize + 1) * 10 * usize::from(LANES) {
            take(&mut seen, &reader.next().await.unwrap());
        }
    }
    assert_eq!(seen, whole(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_follow_splits_and_merges_in_order() {
    const RECORDS: u64 = 200;
    let rules = PushRules { most_events: 20, ..PushRules::default() };
    let proxy = Proxy::pushing(Box::new(|_| Fate::Works), rules).await;
    let url = subject(&proxy, 2).fresh_url();
    let log = Arc::new(KinesisLog::open(&url, LANES).await.unwrap());
    let mut reader = log.read(None).await.unwrap();
    let writing = {
        let (log, url) = (log.clone(), url.clone());
        tokio::spawn(async move {
            let mut random = Random::new(3);
            for round in 0..8 {
                append(&log, round * RECORDS / 8..(round + 1) * RECORDS / 8).await;
                reshard(&url, &mut random).await;
            }
        })
    };
    let mut seen = Seen::new();
    while count(&seen) < RECORDS as usize * usize::from(LANES) {
        take(&mut seen, &reader.next().await.unwrap());
    }
    writing.await.unwrap();
    // a reader that came late has polled what was there
    let (mut random, mut records) = (Random::new(4), RECORDS);
    for _ in 0..20 {
        if proxy.count("shards that ended") > 0 && proxy.count("pushed records") > 100 {
            break;
        }
        append(&log, records..records + 20).await;
        reshard(&url, &mut random).await;
        append(&log, records + 20..records + 40).await;
        records += 40;
        while count(&seen) < records as usize * usize::from(LANES) {
            take(&mut seen, &reader.next().await.unwrap());
        }
    }
    assert_eq!(seen, whole(records));
    assert!(proxy.count("shards that ended") > 0, "an end came by a subscription: {:?}", proxy.counts());
    assert!(proxy.count("pushed records") > 100, "{:?}", proxy.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_made_when_a_reader_stays_and_removed_by_who_made_it() {
    let proxy = Proxy::pushing(Box::new(|_| Fate::Works), PushRules::default()).await;
    let patient = OnKinesis { options: "&consumer=efo:removed&settle=1h", ..OnKinesis::new(proxy.endpoint(), 1) };
    let url = patient.fresh_url();
    let log = KinesisLog::open(&url, LANES).await.unwrap();
    append(&log, 0..5).await;
    let mut seen = Seen::new();
    let mut reader = log.read(None).await.unwrap();
    while count(&seen) < 5 * usize::from(LANES) {
        take(&mut seen, &reader.next().await.unwrap());
    }
    assert!(consumers(&url).await.is_empty(), "a short look takes no subscription");
    let url = KinesisUrl { settles_after: Duration::ZERO, ..url };
    let open = async || KinesisLog::open(&url, LANES).await.unwrap();
    let (first, second) = (open().await, open().await);
    let mut reader = first.read(None).await.unwrap();
    eventually("the consumer is registered", async || {
        reader.next().await.unwrap();
        consumers(&url).await == ["removed"]
    })
    .await;
    let mut other = second.read(None).await.unwrap();
    let before = proxy.count("subscriptions");
    while proxy.count("subscriptions") == before {
        other.next().await.unwrap();
    }
    drop(other);
    second.leave().await.unwrap();
    assert_eq!(consumers(&url).await, ["removed"], "it isn't the second one's");
    drop(reader);
    first.leave().await.unwrap();
    eventually("the consumer is gone", async || consumers(&url).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_somebody_deletes_is_made_again() {
    let proxy = Proxy::pushing(Box::new(|_| Fate::Works), PushRules::default()).await;
    let url = KinesisUrl { fan_out: Some("deleted".into()), ..subject(&proxy, 1).fresh_url() };
    let log = KinesisLog::open(&url, LANES).await.unwrap();
    let mut reader = log.read(None).await.unwrap();
    let mut seen = Seen::new();
    append(&log, 0..5).await;
    while count(&seen) < 5 * usize::from(LANES) || proxy.count("subscriptions") == 0 {
        take(&mut seen, &reader.next().await.unwrap());
    }
    let client = StandIn::shared().client().await;
    let described = client.describe_stream_summary().stream_name(&url.aws.name).send().await.unwrap();
    let arn = described.stream_description_summary.unwrap().stream_arn;
    client.deregister_stream_consumer().stream_arn(&arn).consumer_name("deleted").send().await.unwrap();
    while proxy.count("subscriptions without consumer") == 0 {
        take(&mut seen, &reader.next().await.unwrap());
    }
    let (before, pushed) = (proxy.count("subscriptions"), proxy.count("pushed records"));
    append(&log, 5..10).await;
    while count(&seen) < 10 * usize::from(LANES) || proxy.count("subscriptions") == before {
        take(&mut seen, &reader.next().await.unwrap());
    }
    let mut records = 10;
    for _ in 0..20 {
        append(&log, records..records + 5).await;
        records += 5;
        while count(&seen) < records as usize * usize::from(LANES) {
            take(&mut seen, &reader.next().await.unwrap());
        }
        if proxy.count("pushed records") > pushed {
            break;
        }
    }
    assert_eq!(seen, whole(records));
    assert!(proxy.count("pushed records") > pushed, "{:?}", proxy.counts());
    assert_eq!(consumers(&url).await, ["deleted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_fan_out_it_is_said_what_is_missing() {
    for right in ["RegisterStreamConsumer", "SubscribeToShard", "DescribeStreamConsumer"] {
        let judge = Box::new(move |call: &str| if call == right { Fate::Fails("AccessDeniedException") } else { Fate::Works });
        let proxy = Proxy::pushing(judge, PushRules::default()).await;
        let log = KinesisLog::open(&subject(&proxy, 1).fresh_url(), LANES).await.unwrap();
        let mut reader = log.read(None).await.unwrap();
        let error = loop {
            match reader.next().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let said = error.to_string();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 4), "{said}");
        assert!(said.contains(&format!("kinesis:{right}")) && said.contains("take `consumer=efo` out"), "{said}");
    }
}

/// Another implementation of the protocol than the tests' own; of a shard's end it says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn kinesis_locals_own_subscriptions_push_records() {
    let may_poll = Arc::new(AtomicBool::new(true));
    let polls = may_poll.clone();
    let judge = Box::new(move |call: &str| match call {
        "SubscribeToShard" => Fate::Piped,
        "GetRecords" if !polls.load(Ordering::Relaxed) => Fate::Fails("ProvisionedThroughputExceededException"),
        _ => Fate::Works,
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let log = KinesisLog::open(&subject(&proxy, 2).fresh_url(), LANES).await.unwrap();
    let mut reader = log.read(None).await.unwrap();
    let mut seen = Seen::new();
    while proxy.count("SubscribeToShard") < 2 {
        take(&mut seen, &reader.next().await.unwrap());
    }
    may_poll.store(false, Ordering::Relaxed);
    for round in 0..2 {
        append(&log, round * 10..round * 10 + 10).await;
        while count(&seen) < (round as usize + 1) * 10 * usize::from(LANES) {
            take(&mut seen, &reader.next().await.unwrap());
        }
    }
    assert_eq!(seen, whole(20));
}
