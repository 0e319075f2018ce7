//! Streams that others write, while they are resharded and while several processes merge them.

use super::on_kinesis::credentials;
use crate::kinesis::reshard::reshard;
use crate::kinesis::{OnKinesis, StandIn};
use crate::mysql::{PATIENCE, eventually, within};
use crate::random::Random;
use crate::service::{Pipeline, Service};
use aws_sdk_kinesis::primitives::Blob;
use binlake::stream::kinesis::KinesisUrl;
use std::collections::BTreeMap;

/// A stream to which records are put, key by key in their order, and the table that it feeds.
struct Scene {
    client: aws_sdk_kinesis::Client,
    url: KinesisUrl,
    pipeline: Pipeline,
    random: Random,
    /// The last number that was put of each key.
    last: BTreeMap<u64, u64>,
    number: u64,
    bad: u64,
}

impl Scene {
    async fn new() -> Self {
        let stand_in = StandIn::shared();
        let url = OnKinesis::new(stand_in.endpoint(), 2).fresh_url();
        let client = stand_in.client().await;
        client.create_stream().stream_name(&url.aws.name).shard_count(2).send().await.unwrap();
        let pipeline = credentials(Pipeline::from_text(&format!(
            "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\nlease_duration = \"6s\"\n\
             [admin]\nlisten = \"off\"\n[[table]]\nstream = \"kinesis://{}?endpoint={}&poll=20ms\"\nname = \"mydev.counts\"\n\
             columns = {{ id = \"bigint\", n = \"bigint\" }}\nkey = [\"id\"]\n",
            url.aws.name,
            stand_in.endpoint()
        )));
        let is_active = within(PATIENCE, async || {
            let summary = client.describe_stream_summary().stream_name(&url.aws.name).send().await.unwrap();
            summary.stream_description_summary.unwrap().stream_status.as_str() == "ACTIVE"
        });
        assert!(is_active.await);
        Scene { client, url, pipeline, random: Random::new(21), last: BTreeMap::new(), number: 0, bad: 0 }
    }

    async fn put(&mut self, records: u64) {
        for _ in 0..records {
            let id = self.random.below(20);
            self.number += 1;
            let text = if self.random.below(10) == 0 {
                self.bad += 1;
                format!("bad {}", self.number)
            } else {
                self.last.insert(id, self.number);
                format!("{{\"id\": {id}, \"n\": {}}}", self.number)
            };
            let put = self.client.put_record().stream_name(&self.url.aws.name).partition_key(id.to_string());
            put.data(Blob::new(text)).send().await.unwrap();
        }
    }

    /// Each key's number, in the order of the keys.
    fn rows(&self) -> Vec<(u64, u64)> {
        let rows = self.pipeline.table("mydev", "counts").values(None, &["id", "n"]).unwrap_or_default();
        let numbers = rows.into_iter().map(|row| row.into_iter().flatten().map(|n| n.parse().unwrap()).collect::<Vec<u64>>());
        let mut rows: Vec<(u64, u64)> = numbers.map(|row| (row[0], row[1])).collect();
        rows.sort_unstable();
        rows
    }

    async fn catches_up(&self) {
        // each key once
        let expected: Vec<(u64, u64)> = self.last.iter().map(|(id, number)| (*id, *number)).collect();
        let is_there = within(PATIENCE, async || self.rows() == expected).await;
        assert!(is_there, "expected {expected:?}, found {:?}\n{}", self.rows(), self.pipeline.log_tail());
    }

    /// Each record that can't be read is a dead letter, once.
    async fn has_each_dead_letter_once(&self) {
        let letters = || -> Vec<serde_json::Value> {
            let list = self.pipeline.ok(&["dead-letter", "list", "--format", "json", "--limit", "10000"]);
            serde_json::from_str(&list).unwrap()
        };
        eventually("all dead letters are there", async || letters().len() as u64 >= self.bad).await;
        let letters = letters();
        let mut records: Vec<&str> = letters.iter().map(|letter| letter["record"].as_str().unwrap()).collect();
        records.sort_unstable();
        records.dedup();
        assert_eq!((letters.len() as u64, records.len() as u64), (self.bad, self.bad));
    }

    /// The process that made the table's newest commit.
    fn writer(&self) -> u32 {
        self.pipeline.table("mydev", "counts").writer()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_read_exactly_while_its_stream_is_resharded() {
    let mut scene = Scene::new().await;
    let mut random = Random::new(4);
    let mut service = scene.pipeline.run();
    for round in 0..6 {
        scene.put(60).await;
        reshard(&scene.url, &mut random).await;
        scene.put(40).await;
        if round % 2 == 1 {
            service.kill();
            scene.put(20).await;
            reshard(&scene.url, &mut random).await;
            service = scene.pipeline.run();
        }
    }
    scene.catches_up().await;
    scene.has_each_dead_letter_once().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
    let listed = scene.client.list_shards().stream_name(&scene.url.aws.name).send().await.unwrap();
    assert!(listed.shards().len() > 8, "the stream was resharded while it was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_processes_one_merges_a_feed_and_another_takes_over() {
    let mut scene = Scene::new().await;
    scene.put(50).await;
    let mut services: Vec<Service> = (0..3).map(|_| scene.pipeline.start(&["merge"])).collect();
    scene.catches_up().await;
    let take = |services: &mut Vec<Service>, pid: u32| {
        let at = services.iter().position(|service| service.pid() == pid).expect("a process of ours has written");
        services.remove(at)
    };
    // killed: another goes on
    let first = scene.writer();
    take(&mut services, first).kill();
    scene.put(50).await;
    scene.catches_up().await;
    let second = scene.writer();
    assert_ne!(second, first);
    // paused beyond its lease: another goes on, and when it wakes up it must not write any more
    let paused = take(&mut services, second);
    scene.pipeline.pause(&paused);
    scene.put(50).await;
    scene.catches_up().await;
    let third = scene.writer();
    assert_ne!(third, second);
    paused.signal("CONT");
    for _ in 0..5 {
        scene.put(20).await;
        scene.catches_up().await;
    }
    assert_eq!(scene.writer(), third, "who was paused doesn't take the stream back");
    // stopped: the stream is given back, and who was paused goes on with it
    assert!(take(&mut services, third).terminate().success(), "{}", scene.pipeline.log_tail());
    scene.put(50).await;
    scene.catches_up().await;
    assert_eq!(scene.writer(), second);
    scene.has_each_dead_letter_once().await;
    assert!(paused.terminate().success(), "{}", scene.pipeline.log_tail());
}
