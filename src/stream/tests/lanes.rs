//! Producer, log and consumer, by example.

use crate::error::{Area, Error, Kind, Result};
use crate::event::sample::{cut, ticket_changes};
use crate::event::{
    ChangeBatch, ChunkContent, Column, CutNumber, CutPoint, Epoch, Lane, Section, SourceType, TableId, TableSchema,
};
use crate::stream::*;
use std::sync::Arc;

async fn events(log: &MemoryLog, checkpoint: Option<(CutPoint, &LogPosition)>) -> Vec<LaneEvent> {
    let mut consumer = Consumer::resume(log, checkpoint).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        events.push(event);
    }
    events
}

fn text(events: &[LaneEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            LaneEvent::Sections { epoch, window, lane, sections, .. } => format!("e{epoch} w{window} l{lane}: {}", sections.len()),
            LaneEvent::CutReached(reached) => format!("cut {}", reached.point),
            LaneEvent::Void { epoch, after_cut } => {
                format!("void by e{epoch} after {}", after_cut.map_or("nothing".into(), |cut| cut.to_string()))
            }
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn rows_arrive_with_their_window_and_idle_lanes_hold_nothing_back() {
    let log = Arc::new(MemoryLog::new(3));
    let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
    producer.send(Lane(1), vec![Section::Rows(ticket_changes(0, 10, 2))]).await.unwrap();
    producer.cut(vec![], cut(1)).await.unwrap();
    producer.cut(vec![vec![Section::Rows(ticket_changes(5, 10, 2))]], cut(2)).await.unwrap();
    producer.flush().await.unwrap();
    let events = events(&log, None).await;
    let mut said = text(&events);
    assert_eq!(said.pop().unwrap(), "cut 1/2");
    said.retain(|line| line != "cut 1/1");
    said.sort();
    assert_eq!(said, ["e1 w1 l1: 1", "e1 w2 l0: 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_producer_makes_void_what_lies_behind_its_cut() {
    let log = Arc::new(MemoryLog::new(2));
    let mut first = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
    first.cut(vec![], cut(1)).await.unwrap();
    first.send(Lane(0), vec![Section::Rows(ticket_changes(0, 10, 2))]).await.unwrap();
    first.flush().await.unwrap();
    let found = find_last_cut(log.as_ref()).await.unwrap();
    let (point, at) = found.cut.unwrap();
    assert_eq!((found.epoch, point.number, at.as_ref()), (Some(Epoch(1)), CutNumber(1), &cut(1)));
    let mut second = take_over(log.clone(), async |_| Ok(Epoch(2))).await.unwrap().producer;
    second.send(Lane(1), vec![Section::Rows(ticket_changes(5, 10, 2))]).await.unwrap();
    second.flush().await.unwrap();
    // the first doesn't know yet
    first.cut(vec![], cut(2)).await.unwrap();
    first.flush().await.unwrap();
    second.cut(vec![], cut(2)).await.unwrap();
    second.flush().await.unwrap();
    let events = events(&log, None).await;
    assert_eq!(text(&events), ["cut 1/1", "e1 w2 l0: 1", "void by e2 after 1/1", "e2 w2 l1: 1", "cut 2/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_gives_back_what_its_cut_does_not_cover() {
    let log = Arc::new(MemoryLog::new(2).with_most_record_bytes(400));
    let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
    for number in 1..=3 {
        producer.send(Lane(0), vec![Section::Rows(ticket_changes(0, 40, 2))]).await.unwrap();
        producer.cut(vec![vec![], vec![Section::Rows(ticket_changes(0, 40, 2))]], cut(number)).await.unwrap();
        producer.flush().await.unwrap();
    }
    for event in events(&log, None).await {
        let LaneEvent::CutReached(reached) = event else { continue };
        let again = text(&events(&log, Some((reached.point, &reached.position))).await);
        let expected: usize = 3 - usize::try_from(reached.point.number.0).unwrap();
        assert_eq!(again.iter().filter(|line| line.starts_with("cut")).count(), expected, "{again:?}");
        assert_eq!(again.len(), expected * 3, "{again:?}");
        log.release(&reached.position).await.unwrap();
    }
}

/// A log that fails three of four appends: refuses, or takes them and loses the answer.
#[derive(Debug)]
struct Flaky {
    log: MemoryLog,
    calls: std::sync::atomic::AtomicU64,
}

#[async_trait::async_trait]
impl EventLog for Flaky {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if call % 4 != 1 {
            self.log.append(records).await?;
        }
        if call % 4 == 3 { Ok(()) } else { Err(Error::new(Area::Stream, Kind::Transient, "the answer is lost")) }
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        self.log.read(after).await
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.log.release(position).await
    }

    fn most_record_bytes(&self) -> usize {
        self.log.most_record_bytes()
    }
}

#[tokio::test(start_paused = true)]
async fn failed_appends_are_tried_again_and_leave_repeats_but_no_disorder() {
    let log = MemoryLog::new(3).with_most_record_bytes(500);
    let flaky = Arc::new(Flaky { log: log.clone(), calls: Default::default() });
    let mut producer = take_over(flaky, async |_| Ok(Epoch(1))).await.unwrap().producer;
    for number in 1..=5 {
        producer.send(Lane(1), vec![Section::Rows(ticket_changes(number, 40, 2))]).await.unwrap();
        producer.cut(vec![], cut(number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    let events = events(&log, None).await;
    let mut rows = Vec::new();
    for event in &events {
        if let LaneEvent::Sections { window, .. } = event {
            rows.push(window.0);
        }
    }
    assert_eq!(rows, [1, 2, 3, 4, 5]);
    assert_eq!(text(&events).last().unwrap(), "cut 1/5");
}

/// A log whose last seconds alone are looked at first.
#[derive(Debug)]
struct ShortSighted {
    log: MemoryLog,
    recent: Vec<LogPosition>,
}

#[async_trait::async_trait]
impl EventLog for ShortSighted {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        self.log.append(records).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        self.log.read(after).await
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.log.release(position).await
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        Ok(self.recent.get(reach as usize).cloned())
    }
}

async fn end(log: &MemoryLog) -> LogPosition {
    let mut reader = log.read(None).await.unwrap();
    while !reader.next().await.unwrap().is_empty() {}
    reader.position()
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_ended_without_a_cut_is_seen_however_long_an_older_one_went_on() {
    let log = MemoryLog::new(2);
    let mut first = take_over(Arc::new(log.clone()), async |_| Ok(Epoch(1))).await.unwrap().producer;
    first.cut(vec![], cut(1)).await.unwrap();
    first.flush().await.unwrap();
    drop(take_over(Arc::new(log.clone()), async |_| Ok(Epoch(2))).await.unwrap());
    // the first doesn't know, and what it sends from here on is void
    let opened = end(&log).await;
    for number in 2..6 {
        first.cut(vec![], cut(number)).await.unwrap();
    }
    first.flush().await.unwrap();
    let late = end(&log).await;
    for number in 6..9 {
        first.cut(vec![], cut(number)).await.unwrap();
    }
    first.flush().await.unwrap();
    let sight = ShortSighted { log: log.clone(), recent: vec![late, opened] };
    let take_epoch = async |seen| {
        assert_eq!(seen, Some(Epoch(1)), "the second one is out of sight");
        Ok(Epoch(3))
    };
    let TakenOver { mut producer, cut: found } = take_over(Arc::new(sight), take_epoch).await.unwrap();
    assert_eq!(found.unwrap().1.as_ref(), &cut(1));
    producer.cut(vec![], cut(2)).await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(text(&events(&log, None).await).last().unwrap(), "cut 3/2");
}

/// A row of `bytes` bytes that zstd can't make smaller, through a log.
async fn large_row(log: &dyn EventLog, bytes: usize) {
    use arrow::array::{Array, BinaryArray, RecordBatch};
    let mut state = 1_u64;
    let mut value = vec![0_u8; bytes];
    for eight in value.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        eight.copy_from_slice(&(state ^ state >> 29).to_le_bytes()[..eight.len()]);
    }
    let checksum = crc32fast::hash(&value);
    let schema = Arc::new(TableSchema {
        table: TableId::new("big", "blobs"),
        columns: vec![Column { name: "b".into(), source_type: SourceType::Binary { fixed_bytes: 0 }, nullable: true }],
        key: vec![],
    });
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([bytes]);
    let array = BinaryArray::new(offsets, value.into(), None);
    let rows = RecordBatch::try_new(schema.arrow(), vec![Arc::new(array)]).unwrap();
    let batch = ChangeBatch { schema, rows, changed: None, ..ticket_changes(0, 1, 1) };
    let tenure = Tenure { epoch: Epoch(1), producer: 1, resumed_from: None };
    log.append(vec![tenure.opening(Lane(0))]).await.unwrap();
    let mut writer = LaneWriter::new(Lane(0), tenure, log.most_record_bytes());
    let content = ChunkContent { sections: vec![Section::Rows(batch)], cut: Some(Arc::new(cut(1))) };
    let records = writer.encode(&content).unwrap();
    drop(content);
    assert!(records.len() > bytes / log.most_record_bytes());
    for record in records {
        log.append(vec![record]).await.unwrap();
    }
    let mut consumer = Consumer::resume(log, None).await.unwrap();
    let LaneEvent::Sections { sections, .. } = consumer.next().await.unwrap() else { panic!("no rows") };
    let Section::Rows(rows) = &sections[0] else { panic!("no rows") };
    let array = rows.rows.column(0).as_any().downcast_ref::<BinaryArray>().unwrap();
    assert_eq!(array.value(0).len(), bytes);
    assert_eq!(crc32fast::hash(array.value(0)), checksum);
    assert!(matches!(consumer.next().await.unwrap(), LaneEvent::CutReached(_)));
}

#[tokio::test]
async fn a_row_larger_than_a_record_travels_in_parts() {
    large_row(&MemoryLog::new(1).with_most_record_bytes(100_000), 7_000_001).await;
}

/// Takes about 6 GiB of memory and 1 GiB of disk: `cargo test --release --lib gibibyte -- --ignored`.
#[tokio::test]
#[ignore = "takes 6 GiB of memory"]
async fn a_row_of_a_gibibyte_travels_through_the_embedded_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), 1, EmbeddedOptions::default()).unwrap();
    large_row(&log, 1 << 30).await;
}
