//! The lane protocol against a model: random producers that crash, repeat, overlap and go on after they were replaced; a random interleaving of
//! lanes; a consumer that crashes. Whatever happens, what is committed at a cut is each transaction up to the cut's position, once and in order.
//!
//! `BINLAKE_CASES` says how many histories are tried, from the seed `BINLAKE_SEED` on; a failure names its seed.

use crate::error::Kind;
use crate::event::sample::{noise, stamps};
use crate::event::{BinlogCoordinates, Cut, CutPoint, Epoch, Lane, Lineage, Section, SourcePosition, TableId, TransactionStamp};
use crate::stream::*;
use crate::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

type Noise = Box<dyn FnMut(u64) -> u64>;

/// A row: its transaction, and its number of all.
type Row = (u64, u64);

/// The rows of all transactions, with their lanes; transaction i is number i + 1.
struct History(Vec<Vec<(usize, Row)>>);

impl History {
    fn new(lanes: usize, noise: &mut Noise) -> Self {
        let mut row = 0;
        let mut transaction = |number| {
            (0..noise(5))
                .map(|_| {
                    row += 1;
                    (noise(lanes as u64) as usize, (number, row))
                })
                .collect()
        };
        Self((1..=30).map(&mut transaction).collect())
    }

    /// What lane `lane` has of the transactions up to `last`.
    fn rows(&self, lane: usize, last: u64) -> Vec<Row> {
        self.0[..last as usize].iter().flatten().filter(|(its, _)| *its == lane).map(|(_, row)| *row).collect()
    }
}

fn section(row: Row) -> Section {
    let stamp =
        TransactionStamp { coordinates: BinlogCoordinates { file: "b.1".into(), offset: row.0 }, ..stamps(1, 0)[0].clone() };
    Section::Truncate { table: TableId::new("t", row.1.to_string()), stamp }
}

fn row(section: &Section) -> Row {
    let Section::Truncate { table, stamp } = section else { panic!("not a model's section: {section:?}") };
    (stamp.coordinates.offset, table.name().parse().unwrap())
}

struct FakeProducer {
    writers: Vec<LaneWriter>,
    waiting: Vec<VecDeque<LaneRecord>>,
    built: Vec<Vec<Section>>,
    /// The transactions that it has read.
    read: u64,
}

impl FakeProducer {
    fn new(lanes: usize, tenure: Tenure, read: u64, most_record_bytes: usize) -> Self {
        Self {
            writers: (0..lanes).map(|lane| LaneWriter::new(Lane(lane as u16), tenure, most_record_bytes)).collect(),
            waiting: vec![VecDeque::new(); lanes],
            built: vec![Vec::new(); lanes],
            read,
        }
    }

    fn flush(&mut self, lane: usize, cut: Option<&Arc<Cut>>) {
        let content = crate::event::ChunkContent { sections: std::mem::take(&mut self.built[lane]), cut: cut.cloned() };
        if content.cut.is_some() || !content.sections.is_empty() {
            self.waiting[lane].extend(self.writers[lane].encode(&content).unwrap());
        }
    }

    fn read(&mut self, history: &History, noise: &mut Noise) {
        let Some(transaction) = history.0.get(self.read as usize) else { return };
        for (lane, row) in transaction {
            self.built[*lane].push(section(*row));
            if noise(4) == 0 {
                self.flush(*lane, None);
            }
        }
        self.read += 1;
    }

    fn cut(&mut self) {
        let cut = Arc::new(Cut {
            number: self.writers[0].window(),
            position: SourcePosition {
                lineage: Lineage("m".into()),
                coordinates: BinlogCoordinates { file: "b.1".into(), offset: self.read },
                gtid_set: None,
            },
            source_commit_time: Timestamp::default(),
            tables: BTreeMap::new(),
            schemas: BTreeMap::new(),
            rules: None,
            complete_until: None,
        });
        (0..self.writers.len()).for_each(|lane| self.flush(lane, Some(&cut)));
    }

    /// Appends a lane's next record: works, is refused, or works and the answer is lost.
    fn append(&mut self, log: &mut [Vec<LaneRecord>], lane: usize, fate: u64) {
        let Some(record) = self.waiting[lane].front() else { return };
        if fate != 1 {
            log[lane].push(record.clone());
        }
        if fate > 1 {
            self.waiting[lane].pop_front();
        }
    }

    fn finish(&mut self, history: &History, log: &mut [Vec<LaneRecord>], noise: &mut Noise) {
        while self.read < history.0.len() as u64 {
            self.read(history, noise);
        }
        self.cut();
        for lane in 0..log.len() {
            while !self.waiting[lane].is_empty() {
                self.append(log, lane, noise(8));
            }
        }
    }
}

/// Reads the lanes in any order, repeats, and sometimes starts again at its checkpoint.
struct FakeConsumer {
    protocol: LaneProtocol,
    read: Vec<usize>,
    collected: BTreeMap<CutPoint, Vec<(usize, Row)>>,
    state: Committed,
    saved: Option<(CutPoint, LogPosition, Committed)>,
}

#[derive(Clone)]
struct Committed {
    rows: Vec<Vec<Row>>,
    transactions: u64,
}

impl FakeConsumer {
    fn new(lanes: usize) -> Self {
        Self {
            protocol: LaneProtocol::new(lanes as u16, StartAt::Beginning),
            read: vec![0; lanes],
            collected: BTreeMap::new(),
            state: Committed { rows: vec![Vec::new(); lanes], transactions: 0 },
            saved: None,
        }
    }

    fn restart(&mut self) {
        let lanes = self.read.len();
        let Some((point, position, state)) = self.saved.clone() else {
            *self = Self::new(lanes);
            return;
        };
        self.protocol = LaneProtocol::new(lanes as u16, StartAt::AfterCut(point));
        self.read = position.0.split(' ').map(|at| at.parse().unwrap()).collect();
        self.collected.clear();
        self.state = state;
    }

    fn position(&self) -> LogPosition {
        LogPosition(self.read.iter().map(usize::to_string).collect::<Vec<_>>().join(" "))
    }

    /// Reads up to three records; tells whether there was one.
    fn step(&mut self, history: &History, log: &[Vec<LaneRecord>], noise: &mut Noise) -> Result<bool> {
        let before = self.position();
        let mut any = false;
        for _ in 0..=noise(3) {
            let unread: Vec<usize> = (0..log.len()).filter(|lane| self.read[*lane] < log[*lane].len()).collect();
            let Some(lane) = unread.get(noise(unread.len().max(1) as u64) as usize).copied() else { break };
            any = true;
            let repeats = if noise(4) == 0 { noise(1 + self.read[lane].min(3) as u64) as usize } else { 0 };
            let first_known = self
                .saved
                .as_ref()
                .map_or(0, |(_, position, _)| position.0.split(' ').nth(lane).unwrap().parse::<usize>().unwrap());
            let first = (self.read[lane] - repeats).max(first_known);
            for record in log[lane].iter().take(self.read[lane] + 1).skip(first) {
                for event in self.protocol.accept(&before, record)? {
                    self.take(event, history, noise);
                }
            }
            self.read[lane] += 1;
        }
        Ok(any)
    }

    fn take(&mut self, event: LaneEvent, history: &History, noise: &mut Noise) {
        match event {
            LaneEvent::Sections { epoch, window, lane, sections, .. } => {
                let rows = self.collected.entry(CutPoint { epoch, number: window }).or_default();
                rows.extend(sections.iter().map(|section| (usize::from(lane.0), row(section))));
            }
            LaneEvent::Void { epoch, after_cut } => {
                self.collected.retain(|point, _| point.epoch >= epoch || after_cut.is_some_and(|cut| *point <= cut));
            }
            LaneEvent::CutReached(reached) => {
                let known = self.state.transactions;
                for (lane, row) in self.collected.remove(&reached.point).unwrap_or_default() {
                    assert!(row.0 > known, "transaction {} comes twice", row.0);
                    self.state.rows[lane].push(row);
                }
                self.state.transactions = reached.cut.position.coordinates.offset;
                assert!(self.state.transactions >= known);
                for (lane, rows) in self.state.rows.iter().enumerate() {
                    assert_eq!(*rows, history.rows(lane, self.state.transactions), "lane {lane} at {}", reached.point);
                }
                if noise(2) == 0 {
                    self.saved = Some((reached.point, reached.position, self.state.clone()));
                }
            }
        }
    }
}

/// What a new producer finds.
fn last_cut(log: &[Vec<LaneRecord>], noise: &mut Noise) -> Option<(CutPoint, u64)> {
    let mut protocol = LaneProtocol::new(log.len() as u16, StartAt::Anywhere).without_rows();
    let mut read = vec![0; log.len()];
    let mut found = None;
    while let Some(lane) = {
        let unread: Vec<usize> = (0..log.len()).filter(|lane| read[*lane] < log[*lane].len()).collect();
        unread.get(noise(unread.len().max(1) as u64) as usize).copied()
    } {
        for event in protocol.accept(&LogPosition(String::new()), &log[lane][read[lane]]).unwrap() {
            if let LaneEvent::CutReached(reached) = event {
                assert!(found.is_none_or(|(point, _)| point < reached.point));
                found = Some((reached.point, reached.cut.position.coordinates.offset));
            }
        }
        read[lane] += 1;
    }
    found
}

fn run(seed: u64) {
    let mut noise: Noise = Box::new(noise(seed));
    let lanes = 1 + noise(4) as usize;
    let history = History::new(lanes, &mut noise);
    let most_record_bytes = if noise(2) == 0 { 120 } else { 1 << 20 };
    let mut log: Vec<Vec<LaneRecord>> = vec![Vec::new(); lanes];
    let mut epoch = 0;
    // the epoch is opened on one lane after the other while the others go on, and only then comes a look at the tail
    let mut start = |log: &mut [Vec<LaneRecord>], others: &mut [FakeProducer], noise: &mut Noise| {
        epoch += 1;
        let mut tenure = Tenure { epoch: Epoch(epoch), producer: epoch as u32 * 7, resumed_from: None };
        for lane in 0..lanes {
            for other in others.iter_mut() {
                (0..lanes).for_each(|lane| other.append(log, lane, noise(8)));
            }
            (0..=noise(2)).for_each(|_| log[lane].push(tenure.opening(Lane(lane as u16))));
        }
        let found = last_cut(log, noise);
        for other in others.iter_mut() {
            other.cut();
            (0..lanes).for_each(|lane| (0..3).for_each(|_| other.append(log, lane, 7)));
        }
        assert_eq!(last_cut(log, noise), found, "what comes after the openings counts");
        tenure.resumed_from = found.map(|(point, _)| point);
        FakeProducer::new(lanes, tenure, found.map_or(0, |(_, read)| read), most_record_bytes)
    };
    let mut producers = vec![start(&mut log, &mut [], &mut noise)];
    let mut consumer = FakeConsumer::new(lanes);
    for _ in 0..noise(400) {
        match noise(40) {
            0 => {
                let new = start(&mut log, &mut producers, &mut noise);
                producers.push(new);
            }
            1 if producers.len() > 1 => drop(producers.remove(noise(producers.len() as u64) as usize)),
            2 => consumer.restart(),
            3..=12 => drop(consumer.step(&history, &log, &mut noise).unwrap()),
            action => {
                let which = if noise(3) > 0 { producers.len() - 1 } else { noise(producers.len() as u64) as usize };
                let producer = &mut producers[which];
                match action {
                    13..=18 => producer.read(&history, &mut noise),
                    19..=20 => producer.cut(),
                    _ => producer.append(&mut log, noise(lanes as u64) as usize, noise(8)),
                }
            }
        }
    }
    start(&mut log, &mut producers, &mut noise).finish(&history, &mut log, &mut noise);
    while consumer.step(&history, &log, &mut noise).unwrap() {}
    assert_eq!(consumer.state.transactions, history.0.len() as u64, "not all is committed");
    assert!(consumer.collected.is_empty(), "void windows are still waiting: {:?}", consumer.collected.keys());

    // and with a record lost, nothing is lost silently
    let lane = noise(lanes as u64) as usize;
    let at = noise(log[lane].len() as u64) as usize;
    log[lane].remove(at);
    let mut consumer = FakeConsumer::new(lanes);
    loop {
        match consumer.step(&history, &log, &mut noise) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                break;
            }
        }
    }
}

#[test]
fn each_transaction_is_committed_once_and_in_order_whatever_happens() {
    let cases = std::env::var("BINLAKE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    let first = std::env::var("BINLAKE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + cases {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the seed was {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
