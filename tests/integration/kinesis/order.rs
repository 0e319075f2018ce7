//! The order of a key in the raw stream, under throttling and partial failures: for those who read it without our lane protocol.

use super::proxy::{Fate, Proxy};
use super::{OnKinesis, StandIn};
use binlake::stream::kinesis::{KinesisStream, PutRecord, StreamPosition, line_hash_key};
use std::collections::BTreeMap;
use std::sync::Arc;

const LINES: u32 = 40;
const RECORDS: u64 = 60;

fn record(line: u32, number: u64) -> PutRecord {
    PutRecord {
        line,
        partition_key: format!("key {line}").into(),
        explicit_hash_key: Some(line_hash_key(line, LINES)),
        data: format!("{line} {number}").into(),
    }
}

/// The numbers on each line, in the order of the stream.
async fn read(stream: &KinesisStream, position: &StreamPosition) -> BTreeMap<String, Vec<u64>> {
    let mut reader = stream.reader(position).await.unwrap();
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    loop {
        let records = reader.next().await.unwrap();
        if records.is_empty() {
            return numbers;
        }
        for record in records {
            let text = String::from_utf8(record.data.to_vec()).unwrap();
            let (line, number) = text.split_once(' ').unwrap();
            assert_eq!(record.partition_key, format!("key {line}"));
            numbers.entry(line.to_owned()).or_default().push(number.parse().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_partial_failures_change_no_order_and_repeat_nothing() {
    let mut call = 0_u64;
    let judge = Box::new(move |name: &str| {
        call += u64::from(name == "PutRecords");
        match (name, call % 5) {
            ("PutRecords", 0) => Fate::Fails("ProvisionedThroughputExceededException"),
            ("PutRecords", 1 | 2) => Fate::SomeRefused("ProvisionedThroughputExceededException", 50),
            ("PutRecords", 3) => Fate::SomeRefused("InternalFailure", 20),
            _ => Fate::Works,
        }
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let url = OnKinesis::new(proxy.endpoint(), 4).fresh_url();
    let stream = KinesisStream::open(&url, true).await.unwrap().unwrap();
    let putter = stream.putter();
    let all = (0..RECORDS).flat_map(|number| (0..LINES).map(move |line| record(line, number))).collect();
    putter.put(all).await.unwrap();
    let read = read(&stream, &StreamPosition::Oldest).await;
    assert_eq!(read.len(), LINES as usize);
    for (line, numbers) in read {
        // no answer was lost, so nothing may be there twice
        assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>(), "line {line}");
    }
    let counts = putter.counts();
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(&counts.accepted), RECORDS * u64::from(LINES));
    assert!(counted(&counts.throttled) > 0 && counted(&counts.retried) >= counted(&counts.throttled) / 2, "{counts:?}");
    assert!(proxy.count("refused records") > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_may_repeat_a_record_but_never_behind_a_later_one() {
    let mut call = 0_u64;
    let judge = Box::new(move |name: &str| {
        call += u64::from(name == "PutRecords");
        if name == "PutRecords" && call.is_multiple_of(3) { Fate::AnswerLost } else { Fate::Works }
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let url = OnKinesis::new(proxy.endpoint(), 2).fresh_url();
    let stream = KinesisStream::open(&url, true).await.unwrap().unwrap();
    let putter = stream.putter();
    let mut tasks = tokio::task::JoinSet::new();
    let putter = Arc::new(putter);
    for line in 0..4 {
        let putter = putter.clone();
        tasks.spawn(async move {
            for number in 0..20 {
                putter.put(vec![record(line, number)]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let mut repeats = 0;
    for (line, mut numbers) in read(&stream, &StreamPosition::Oldest).await {
        assert!(numbers.is_sorted(), "line {line}: {numbers:?}");
        repeats += numbers.len();
        numbers.dedup();
        repeats -= numbers.len();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "line {line}");
    }
    assert!(repeats > 0 && proxy.count("PutRecords lost") > 0);
}
