//! What every [`EventLog`] does: plain functions over any implementation, and their runs over the log in memory and the one in a folder.
//!
//! A new implementation writes a [`Subject`] and calls [`all`].

use async_trait::async_trait;
use binlake::error::Kind;
use binlake::event::{BinlogCoordinates, Cut, CutNumber, Epoch, Lane, Lineage, Section, SourcePosition, TableId, TransactionStamp};
use binlake::stream::{
    Consumer, EmbeddedLog, EmbeddedOptions, EventLog, LaneEvent, LaneRecord, LogPosition, LogReader, MemoryLog, TakenOver,
    find_last_cut, take_over,
};
use binlake::time::Timestamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The lanes that a subject's logs have.
pub(crate) const LANES: u16 = 4;

/// An implementation under test.
#[async_trait]
pub(crate) trait Subject: Send {
    /// A new, empty log with [`LANES`] lanes.
    async fn fresh(&mut self) -> Arc<dyn EventLog>;
    /// The same log after its process has ended.
    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog>;
}

/// All that a log must do.
pub(crate) async fn all(subject: &mut dyn Subject) {
    records_come_back_in_the_order_of_their_lane(subject).await;
    an_append_that_returned_outlives_the_process(subject).await;
    a_position_gives_all_that_was_not_read(subject).await;
    a_reader_gets_what_comes_later(subject).await;
    a_repeated_append_is_read_in_order(subject).await;
    a_cancelled_wait_loses_nothing(subject).await;
    a_cancelled_append_can_be_repeated(subject).await;
    a_released_position_can_still_be_read_from(subject).await;
    a_record_that_is_too_large_does_no_harm(subject).await;
    a_foreign_position_is_refused(subject).await;
    the_last_cut_is_found_by_a_new_process(subject).await;
    a_producer_and_a_consumer_agree(subject).await;
}

fn record(lane: u16, number: usize, bytes: usize) -> LaneRecord {
    let mut text = format!("{number:08}").into_bytes();
    text.resize(bytes.max(8), b'.');
    LaneRecord { lane: Lane(lane), bytes: Bytes::from(text), partition_key: None }
}

fn number(record: &LaneRecord) -> usize {
    std::str::from_utf8(&record.bytes[..8]).unwrap().parse().unwrap()
}

/// What was seen on each lane, repeats dropped; no later record may come before an earlier one was seen.
#[derive(Default)]
struct Seen(BTreeMap<u16, Vec<usize>>);

impl Seen {
    fn take(&mut self, records: &[LaneRecord]) {
        for record in records {
            let lane = self.0.entry(record.lane.0).or_default();
            let number = number(record);
            if !lane.contains(&number) {
                assert!(lane.last().is_none_or(|last| *last < number), "lane {}: {number} after {lane:?}", record.lane);
                lane.push(number);
            }
        }
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

async fn read_all(reader: &mut dyn LogReader, seen: &mut Seen, count: usize) {
    while seen.count() < count {
        seen.take(&reader.next().await.unwrap());
    }
}

async fn append(log: &dyn EventLog, numbers: std::ops::Range<usize>) {
    for number in numbers {
        log.append((0..LANES).map(|lane| record(lane, number, 20)).collect()).await.unwrap();
    }
}

fn whole(last: usize) -> BTreeMap<u16, Vec<usize>> {
    (0..LANES).map(|lane| (lane, (0..last).collect())).collect()
}

async fn records_come_back_in_the_order_of_their_lane(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let log = log.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                log.append(vec![record(lane, number, 10 + number * 700)]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let mut seen = Seen::default();
    read_all(log.read(None).await.unwrap().as_mut(), &mut seen, 50 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(50));
}

async fn an_append_that_returned_outlives_the_process(subject: &mut dyn Subject) {
    let mut log = subject.fresh().await;
    for round in 0..3 {
        append(log.as_ref(), round * 5..round * 5 + 5).await;
        let identity = log.identity().clone();
        log = subject.reopen(log).await;
        assert_eq!(*log.identity(), identity);
    }
    let mut seen = Seen::default();
    read_all(log.read(None).await.unwrap().as_mut(), &mut seen, 15 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(15));
}

async fn a_position_gives_all_that_was_not_read(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    append(log.as_ref(), 0..40).await;
    let total = 40 * usize::from(LANES);
    let (mut reader, mut seen) = (log.read(None).await.unwrap(), Seen::default());
    let mut positions: Vec<(LogPosition, Vec<LaneRecord>)> = vec![(reader.position(), Vec::new())];
    let mut read = Vec::new();
    while seen.count() < total {
        let records = reader.next().await.unwrap();
        seen.take(&records);
        read.extend(records);
        positions.push((reader.position(), read.clone()));
    }
    for (position, before) in positions {
        let (mut reader, mut seen) = (log.read(Some(&position)).await.unwrap(), Seen::default());
        seen.take(&before);
        read_all(reader.as_mut(), &mut seen, total).await;
        assert_eq!(seen.0, whole(40));
    }
}

async fn a_reader_gets_what_comes_later(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    let mut reader = log.read(None).await.unwrap();
    assert!(reader.next().await.unwrap().is_empty());
    let writing = {
        let log = log.clone();
        tokio::spawn(async move { append(log.as_ref(), 0..20).await })
    };
    let mut seen = Seen::default();
    read_all(reader.as_mut(), &mut seen, 20 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(20));
    writing.await.unwrap();
}

async fn a_repeated_append_is_read_in_order(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    for number in 0..5 {
        for _ in 0..3 {
            append(log.as_ref(), number..number + 1).await;
        }
    }
    let mut seen = Seen::default();
    read_all(log.read(None).await.unwrap().as_mut(), &mut seen, 5 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(5));
}

async fn a_cancelled_wait_loses_nothing(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    let writing = {
        let log = log.clone();
        tokio::spawn(async move { append(log.as_ref(), 0..60).await })
    };
    let (mut reader, mut seen) = (log.read(None).await.unwrap(), Seen::default());
    while seen.count() < 60 * usize::from(LANES) {
        // given up nearly at once, at whatever point it is
        if let Ok(records) = tokio::time::timeout(Duration::from_micros(50), reader.next()).await {
            seen.take(&records.unwrap());
        }
    }
    assert_eq!(seen.0, whole(60));
    writing.await.unwrap();
}

async fn a_cancelled_append_can_be_repeated(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    for number in 0..20 {
        let records: Vec<_> = (0..LANES).map(|lane| record(lane, number, 2000)).collect();
        _ = tokio::time::timeout(Duration::from_micros(number as u64), log.append(records.clone())).await;
        log.append(records).await.unwrap();
    }
    let mut seen = Seen::default();
    read_all(log.read(None).await.unwrap().as_mut(), &mut seen, 20 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(20));
}

async fn a_released_position_can_still_be_read_from(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    append(log.as_ref(), 0..30).await;
    let (mut reader, mut seen) = (log.read(None).await.unwrap(), Seen::default());
    read_all(reader.as_mut(), &mut seen, 30 * usize::from(LANES)).await;
    let position = reader.position();
    log.release(&position).await.unwrap();
    append(log.as_ref(), 30..40).await;
    let log = subject.reopen(log).await;
    read_all(log.read(Some(&position)).await.unwrap().as_mut(), &mut seen, 40 * usize::from(LANES)).await;
    assert_eq!(seen.0, whole(40));
}

async fn a_record_that_is_too_large_does_no_harm(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    append(log.as_ref(), 0..1).await;
    let too_large = record(0, 1, log.most_record_bytes() + 1);
    assert_eq!(log.append(vec![too_large]).await.unwrap_err().kind(), Kind::Bug);
    log.append(vec![record(0, 1, log.most_record_bytes())]).await.unwrap();
    let mut seen = Seen::default();
    read_all(log.read(None).await.unwrap().as_mut(), &mut seen, usize::from(LANES) + 1).await;
}

async fn a_foreign_position_is_refused(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    let error = log.read(Some(&LogPosition("there".into()))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.exit_code(), 4);
}

fn cut(number: u64) -> Cut {
    Cut {
        number: CutNumber(number),
        position: SourcePosition {
            lineage: Lineage("suite".into()),
            coordinates: BinlogCoordinates { file: "binlog.000001".into(), offset: number },
            gtid_set: None,
        },
        source_commit_time: Timestamp::from_micros(0),
        tables: BTreeMap::new(),
        schemas: BTreeMap::new(),
        rules: None,
        complete_until: None,
    }
}

fn section(number: u64) -> Section {
    let coordinates = BinlogCoordinates { file: "binlog.000001".into(), offset: number };
    let stamp = TransactionStamp { gtid: None, coordinates, source_commit_time: Timestamp::from_micros(0), is_snapshot: false };
    Section::Truncate { table: TableId::new("suite", number.to_string()), stamp }
}

async fn the_last_cut_is_found_by_a_new_process(subject: &mut dyn Subject) {
    let mut log = subject.fresh().await;
    let found = find_last_cut(log.as_ref()).await.unwrap();
    assert!(found.cut.is_none() && found.epoch.is_none());
    let mut last = 0;
    for epoch in 1..=4 {
        let before = async |seen: Option<Epoch>| {
            assert_eq!(seen, Some(Epoch(epoch - 1)).filter(|epoch| epoch.0 > 0));
            Ok(Epoch(epoch))
        };
        let TakenOver { mut producer, cut: found } = take_over(log.clone(), before).await.unwrap();
        assert_eq!(found.map_or(0, |(_, cut)| cut.number.0), last);
        for _ in 0..20 {
            last += 1;
            producer.cut(vec![vec![section(last)]], cut(last)).await.unwrap();
        }
        // not covered by a cut: no new producer resumes behind it
        producer.send(Lane(1), vec![section(last + 1)]).await.unwrap();
        producer.flush().await.unwrap();
        drop(producer);
        log = subject.reopen(log).await;
    }
    let found = find_last_cut(log.as_ref()).await.unwrap();
    assert_eq!(found.cut.unwrap().1.number.0, 80);
    assert_eq!(found.epoch, Some(Epoch(4)));
}

async fn a_producer_and_a_consumer_agree(subject: &mut dyn Subject) {
    let log = subject.fresh().await;
    let producing = {
        let log = log.clone();
        tokio::spawn(async move {
            let mut producer = take_over(log, async |_| Ok(Epoch(1))).await.unwrap().producer;
            for number in 1..=100 {
                producer.send(Lane((number % u64::from(LANES)) as u16), vec![section(number)]).await.unwrap();
                producer.cut(vec![], cut(number)).await.unwrap();
            }
            producer.flush().await.unwrap();
        })
    };
    let mut consumer = Consumer::resume(log.as_ref(), None).await.unwrap();
    let (mut rows, mut cuts, mut checkpoint) = (Vec::new(), Vec::new(), None);
    while cuts.len() < 100 {
        match consumer.next().await.unwrap() {
            LaneEvent::Sections { window, sections, .. } => rows.extend(sections.iter().map(|_| window.0)),
            LaneEvent::CutReached(reached) => {
                cuts.push(reached.point.number.0);
                assert!(rows.contains(&reached.point.number.0), "a cut came before its rows");
                if reached.point.number.0 == 50 {
                    checkpoint = Some((reached.point, reached.position));
                }
            }
            LaneEvent::Void { .. } => panic!("nothing is void"),
        }
    }
    producing.await.unwrap();
    rows.sort_unstable();
    assert_eq!((rows, cuts), ((1..=100).collect(), (1..=100).collect()));
    let (point, position) = checkpoint.unwrap();
    let log = subject.reopen(log).await;
    let mut consumer = Consumer::resume(log.as_ref(), Some((point, &position))).await.unwrap();
    let mut cuts = Vec::new();
    while cuts.len() < 50 {
        if let LaneEvent::CutReached(reached) = consumer.next().await.unwrap() {
            cuts.push(reached.point.number.0);
        }
    }
    assert_eq!(cuts, (51..=100).collect::<Vec<_>>());
}

struct Memory;

#[async_trait]
impl Subject for Memory {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        Arc::new(MemoryLog::new(LANES))
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        log
    }
}

struct Embedded {
    options: EmbeddedOptions,
    folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Subject for Embedded {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        let folder = self.folder.insert(tempfile::tempdir().unwrap());
        Arc::new(EmbeddedLog::open(folder.path(), LANES, self.options.clone()).unwrap())
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        drop(log);
        let folder = self.folder.as_ref().unwrap();
        // a task that still holds the log drops it soon
        loop {
            match EmbeddedLog::open(folder.path(), LANES, self.options.clone()) {
                Ok(log) => return Arc::new(log),
                Err(error) if error.kind() == Kind::Conflict => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn the_log_in_memory() {
    all(&mut Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_a_folder() {
    all(&mut Embedded { options: EmbeddedOptions::default(), folder: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_a_folder_with_tiny_segments() {
    let options = EmbeddedOptions { segment_bytes: 1000, retention: Duration::ZERO, ..EmbeddedOptions::default() };
    all(&mut Embedded { options, folder: None }).await;
}
