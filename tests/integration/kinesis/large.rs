//! Streams whose own limit of a record is above 1 MiB.

use super::proxy::{Fate, Proxy};
use super::{OnKinesis, StandIn};
use crate::event_log_suite::LANES;
use binlake::error::Kind;
use binlake::event::Lane;
use binlake::stream::{EventLog, KinesisLog, LaneRecord};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The limit that the stream is given, in MiB: more takes this stand-in long. With `BINLAKE_RECORD_MIB=10` it is Amazon's own.
fn most_mib() -> usize {
    std::env::var("BINLAKE_RECORD_MIB").map_or(3, |mib| mib.parse().unwrap())
}

/// What a call has at most, in base64, and a little for what is around it: a record, or half of what Amazon's servers take.
fn most_body_bytes() -> usize {
    (most_mib().max(5) << 20) / 3 * 4 + 10_000
}

fn record(lane: u16, number: u8, bytes: usize) -> LaneRecord {
    LaneRecord { lane: Lane(lane), bytes: Bytes::from(vec![number; bytes]), partition_key: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_large_records_is_used_to_its_own_limit() {
    // each third call is throttled, as a shard does that must save for such records
    let mut calls = 0;
    let judge = Box::new(move |call: &str| {
        calls += usize::from(call == "PutRecords");
        if call == "PutRecords" && calls % 3 == 1 {
            Fate::SomeRefused("ProvisionedThroughputExceededException", 50)
        } else {
            Fate::Works
        }
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let url = OnKinesis::new(proxy.endpoint(), 2).fresh_url();
    let small = KinesisLog::open(&url, LANES).await.unwrap();
    let before = small.most_record_bytes();
    assert!(before < 1 << 20, "{before}");
    let client = StandIn::shared().client().await;
    let described = client.describe_stream_summary().stream_name(&url.aws.name).send().await.unwrap();
    let arn = described.stream_description_summary.unwrap().stream_arn;
    client
        .update_max_record_size()
        .stream_arn(&arn)
        .max_record_size_in_kib(i32::try_from(most_mib() << 10).unwrap())
        .send()
        .await
        .unwrap();
    let log = KinesisLog::open(&url, LANES).await.unwrap();
    let most = log.most_record_bytes();
    assert!(most + 1000 > most_mib() << 20 && most < most_mib() << 20, "{most}");
    // all of these would be too much for one call
    log.append((0..LANES).map(|lane| record(lane, 0, 3 << 19)).collect()).await.unwrap();
    log.append(vec![record(0, 1, most)]).await.unwrap();
    let error = log.append(vec![record(0, 2, most + 1)]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Bug);
    let mut reader = log.read(None).await.unwrap();
    let mut seen: BTreeMap<u16, Vec<(u8, usize)>> = BTreeMap::new();
    while seen.values().map(Vec::len).sum::<usize>() <= usize::from(LANES) {
        for record in reader.next().await.unwrap() {
            seen.entry(record.lane.0).or_default().push((record.bytes[0], record.bytes.len()));
        }
    }
    for (lane, records) in seen {
        let expected = [(0, 3 << 19), (1, most)];
        assert_eq!(records, expected[..if lane == 0 { 2 } else { 1 }], "lane {lane}");
    }
    assert!(proxy.count("PutRecords bytes") <= most_body_bytes(), "{:?}", proxy.counts());
    assert!(proxy.count("refused records") > 0);
}
