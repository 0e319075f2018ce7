//! The raw stream of a foreign format, as its consumers see it: each key's events are there in their order, whatever happened to the producers.
//!
//! What any consumer of Kinesis must bear with stays: a record may come twice in a row (a lost answer), a producer that takes over sends again what
//! came after the cut from which it goes on, and one that was overtaken while it slept may say something yet. The mark tells each of these.

use super::alter::STEPS;
use crate::mysql::{PATIENCE, Server, within};
use binlake::format::Mark;
use binlake::stream::kinesis::{KinesisStream, KinesisUrl, StreamPosition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a producer said.
#[derive(Debug, Default)]
struct Producer {
    /// The last chunk of each lane, and which of its records came.
    last: BTreeMap<u16, (u64, BTreeSet<u64>)>,
    /// Each key's numbers, repeats left out; the first may be a snapshot's.
    steps: BTreeMap<u64, Vec<u64>>,
    /// Keys whose first number is a snapshot's: the load was there before the capture.
    loaded: BTreeSet<u64>,
}

pub(super) async fn check(url: &str, server: &Server, database: &str) {
    let expected = server.client().await.rows(&format!("SELECT id, n FROM {database}.steps ORDER BY id")).await;
    let expected: BTreeMap<u64, u64> = expected
        .into_iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap()))
        .collect();
    assert_eq!(expected.len() as u64, STEPS);
    let stream = KinesisStream::open(&KinesisUrl::parse(url).unwrap(), false).await.unwrap().unwrap();
    let mut reader = stream.reader(&StreamPosition::Oldest).await.unwrap();
    let mut producers: BTreeMap<u64, Producer> = BTreeMap::new();
    let (mut records, mut repeats) = (0_usize, 0_usize);
    let is_whole = within(PATIENCE, async || {
        for record in reader.next().await.unwrap() {
            let record: Value = serde_json::from_slice(&record.data).unwrap();
            let Some(mark) = record["metadata"]["binlake"].as_str() else { continue };
            records += 1;
            let mark: Mark = mark.parse().unwrap();
            let producer = producers.entry(mark.epoch.0).or_default();
            if !producer.takes(&mark) {
                repeats += 1;
            } else if record["metadata"]["table-name"] == "steps" && record["metadata"]["record-type"] == "data" {
                let (id, n) = (number(&record["data"]["id"]), number(&record["data"]["n"]));
                if record["metadata"]["operation"] == "load" {
                    producer.loaded.insert(id);
                    producer.steps.remove(&id);
                }
                producer.steps.entry(id).or_default().push(n);
            }
        }
        let last = |id: &u64| producers.values().filter_map(|producer| producer.steps.get(id)?.last()).max().copied();
        expected.iter().all(|(id, n)| last(id).unwrap_or(0) == *n)
    });
    assert!(is_whole.await, "the raw stream doesn't come to {expected:?}");
    let mut events = 0;
    for id in expected.keys() {
        let mut so_far = 0;
        for (epoch, producer) in &producers {
            let Some(steps) = producer.steps.get(id) else { continue };
            events += steps.len();
            let gapless = steps.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(gapless, "key {id}, epoch {epoch}: {steps:?}");
            let is_continued = steps[0] <= so_far + 1 || producer.loaded.contains(id);
            assert!(is_continued, "key {id}, epoch {epoch} begins with {} after {so_far}", steps[0]);
            so_far = so_far.max(steps[steps.len() - 1]);
        }
    }
    println!(
        "chaos: {records} records of dms-json by {} producers, {repeats} repeats; {events} events of {STEPS} keys in their exact order",
        producers.len()
    );
}

impl Producer {
    /// Whether the record is new; else it was there before. Chunks of a lane come one after the other, each whole; within one, keys go their own ways.
    fn takes(&mut self, mark: &Mark) -> bool {
        let (chunk, numbers) = self.last.entry(mark.lane.0).or_default();
        if mark.chunk.0 > *chunk {
            let is_whole = numbers.last().is_none_or(|last| *last + 1 == numbers.len() as u64);
            assert!(is_whole, "{mark} comes before chunk {chunk} is whole: {numbers:?}");
            (*chunk, *numbers) = (mark.chunk.0, BTreeSet::new());
        }
        assert_eq!(mark.chunk.0, *chunk, "{mark} comes too late");
        numbers.insert(mark.number)
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
