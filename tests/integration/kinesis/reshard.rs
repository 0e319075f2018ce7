//! Splits and merges while records are put and read.

use super::{OnKinesis, StandIn};
use crate::event_log_suite::LANES;
use crate::random::Random;
use binlake::event::Lane;
use binlake::stream::kinesis::KinesisUrl;
use binlake::stream::{EventLog, KinesisLog, LaneRecord};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Splits or merges open shards, at random.
pub(crate) async fn reshard(url: &KinesisUrl, random: &mut Random) {
    let client = StandIn::shared().client().await;
    let name = &url.aws.name;
    // until it is active again
    loop {
        let described = client.describe_stream_summary().stream_name(name).send().await.unwrap();
        if described.stream_description_summary.unwrap().stream_status.as_str() == "ACTIVE" {
            break;
        }
        tokio::task::yield_now().await;
    }
    let listed = client.list_shards().stream_name(name).send().await.unwrap();
    let mut open: Vec<(u128, u128, String)> = (listed.shards().iter())
        .filter(|shard| shard.sequence_number_range.as_ref().unwrap().ending_sequence_number.is_none())
        .map(|shard| {
            let range = shard.hash_key_range.as_ref().unwrap();
            (range.starting_hash_key.parse().unwrap(), range.ending_hash_key.parse().unwrap(), shard.shard_id.clone())
        })
        .collect();
    open.sort();
    if open.len() > 1 && (open.len() > 5 || random.below(2) == 0) {
        let at = random.below(open.len() as u64 - 1) as usize;
        client
            .merge_shards()
            .stream_name(name)
            .shard_to_merge(&open[at].2)
            .adjacent_shard_to_merge(&open[at + 1].2)
            .send()
            .await
            .unwrap();
    } else {
        let (start, end, shard) = &open[random.below(open.len() as u64) as usize];
        let middle = start + (end - start) / 2 + 1;
        client
            .split_shard()
            .stream_name(name)
            .shard_to_split(shard)
            .new_starting_hash_key(middle.to_string())
            .send()
            .await
            .unwrap();
    }
}

/// Each lane's numbers, in the order in which they were read, repeats dropped.
pub(super) fn take(seen: &mut BTreeMap<u16, Vec<u64>>, records: &[LaneRecord]) {
    for record in records {
        let number: u64 = std::str::from_utf8(&record.bytes).unwrap().parse().unwrap();
        let lane = seen.entry(record.lane.0).or_default();
        if !lane.contains(&number) {
            assert_eq!(number, lane.len() as u64, "lane {}", record.lane);
            lane.push(number);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_in_order_while_its_shards_are_split_and_merged() {
    const RECORDS: u64 = 250;
    let url = OnKinesis::new(StandIn::shared().endpoint(), 2).fresh_url();
    let log = Arc::new(KinesisLog::open(&url, LANES).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let log = log.clone();
        tasks.spawn(async move {
            for number in 0..RECORDS {
                log.append(vec![LaneRecord { lane: Lane(lane), bytes: number.to_string().into(), partition_key: None }])
                    .await
                    .unwrap();
            }
        });
    }
    {
        let url = url.clone();
        tasks.spawn(async move {
            let mut random = Random::new(3);
            for _ in 0..8 {
                reshard(&url, &mut random).await;
            }
        });
    }
    // one reader that stays, and one that is made anew from its position again and again
    let total = RECORDS as usize * usize::from(LANES);
    let (mut staying, mut restarted) = (BTreeMap::new(), BTreeMap::new());
    let count = |seen: &BTreeMap<u16, Vec<u64>>| seen.values().map(Vec::len).sum::<usize>();
    let mut reader = log.read(None).await.unwrap();
    let mut position = None;
    while count(&staying) < total || count(&restarted) < total {
        if count(&staying) < total {
            take(&mut staying, &reader.next().await.unwrap());
        }
        if count(&restarted) < total {
            let mut reader = log.read(position.as_ref()).await.unwrap();
            for _ in 0..4 {
                take(&mut restarted, &reader.next().await.unwrap());
            }
            position = Some(reader.position());
        }
    }
    tasks.join_all().await;
    let whole: BTreeMap<u16, Vec<u64>> = (0..LANES).map(|lane| (lane, (0..RECORDS).collect())).collect();
    assert_eq!((&staying, &restarted), (&whole, &whole));
    let listed = StandIn::shared().client().await.list_shards().stream_name(&url.aws.name).send().await.unwrap();
    assert!(listed.shards().len() > 8, "the stream was resharded while it was in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_reader_of_a_resharded_stream_has_all_before_it_says_that_there_is_no_more() {
    let url = OnKinesis::new(StandIn::shared().endpoint(), 2).fresh_url();
    let log = KinesisLog::open(&url, LANES).await.unwrap();
    let mut random = Random::new(6);
    for number in 0..6 {
        let record = |lane| LaneRecord { lane: Lane(lane), bytes: number.to_string().into(), partition_key: None };
        log.append((0..LANES).map(record).collect()).await.unwrap();
        reshard(&url, &mut random).await;
    }
    for _ in 0..5 {
        let (mut reader, mut seen) = (log.read(None).await.unwrap(), BTreeMap::new());
        loop {
            let records = reader.next().await.unwrap();
            if records.is_empty() {
                break;
            }
            take(&mut seen, &records);
        }
        let whole: BTreeMap<u16, Vec<u64>> = (0..LANES).map(|lane| (lane, (0..6).collect())).collect();
        assert_eq!(seen, whole);
    }
}
