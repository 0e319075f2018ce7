//! A producer that does what the capture loop promises, step by step, from a random history.

use super::history::{self, Change, History, Row, Shape, TABLES, record_batch, table_id, table_schema};
use super::noise::Noise;
use arrow::array::{Int32Array, RecordBatch, UInt8Array, UInt32Array};
use binlake::error::Result;
use binlake::event::{ChangeBatch, Cut, Epoch, KeyRange, Lane, Operation, Section, SnapshotProgress, TableState, TransactionStamp};
use binlake::stream::{EventLog, Producer, TakenOver, take_over};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Into how many chunks a snapshot is split: by the key's remainder.
const CHUNKS: u64 = 3;

#[derive(Debug)]
pub(super) struct FakeCapture {
    history: Arc<History>,
    /// The last transaction that any producer has read.
    clock: Arc<AtomicU64>,
    producer: Producer,
    lanes: Vec<Vec<Item>>,
    /// Transactions up to here were sent.
    sent: u64,
    tables: Vec<Standing>,
    is_cut: bool,
}

#[derive(Debug, Clone)]
enum Standing {
    Live,
    Snapshot { low: u64, high: u64, remaining: Vec<u64> },
    Stopped { after: u64 },
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a section lives in a list of few")]
enum Item {
    Row { table: usize, shape: Shape, operation: Operation, row: Row, stamp: TransactionStamp },
    Whole(Section),
}

impl FakeCapture {
    /// Takes over from whoever produced before; `epoch_after` is the highest epoch known besides the stream's.
    pub(super) async fn start(
        log: Arc<dyn EventLog>,
        history: Arc<History>,
        clock: Arc<AtomicU64>,
        epoch_after: Epoch,
        first: u64,
    ) -> Result<Self> {
        let lanes = usize::from(log.identity().lanes);
        let next = async |seen: Option<Epoch>| Ok(Epoch(seen.unwrap_or_default().max(epoch_after).0 + 1));
        let TakenOver { producer, cut } = take_over(log, next).await?;
        let mut capture = Self {
            history,
            clock,
            producer,
            lanes: (0..lanes).map(|_| Vec::new()).collect(),
            sent: first,
            tables: Vec::new(),
            is_cut: false,
        };
        match cut {
            Some((_, cut)) => {
                capture.sent = history::after(&cut.position);
                for table in 0..TABLES.len() {
                    capture.tables.push(match &cut.tables[&table_id(table)] {
                        TableState::Live => Standing::Live,
                        TableState::Stopped { position, .. } => Standing::Stopped { after: history::after(position) },
                        TableState::Snapshot(progress) => Standing::Snapshot {
                            low: history::after(&progress.low_watermark),
                            high: history::after(&progress.high_watermark),
                            remaining: progress.remaining_chunks.iter().map(chunk_of).collect(),
                        },
                    });
                }
            }
            None => {
                for table in 0..TABLES.len() {
                    let standing = Standing::Snapshot { low: first, high: first, remaining: (0..CHUNKS).collect() };
                    capture.tables.push(standing);
                    capture.announce(table, None, &capture.history.snapshot_stamp(first));
                }
            }
        }
        Ok(capture)
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.producer.epoch()
    }

    /// The transaction after which a table was stopped.
    pub(super) fn stopped_after(&self, table: usize) -> Option<u64> {
        match self.tables[table] {
            Standing::Stopped { after } => Some(after),
            _ => None,
        }
    }

    /// Whether all has been sent, and a cut behind it.
    pub(super) fn is_done(&self) -> bool {
        self.sent == self.history.len()
            && self.is_cut
            && !self.tables.iter().any(|standing| matches!(standing, Standing::Snapshot { .. }))
    }

    /// Does one thing.
    pub(super) async fn step(&mut self, noise: &mut Noise) -> Result<()> {
        let choice = noise.below(12);
        match choice {
            0 => {
                let lane = noise.below(self.lanes.len());
                let sections = self.sections(lane);
                self.producer.send(Lane(lane as u16), sections).await
            }
            1 | 2 => self.cut().await,
            3..=5 => {
                self.read_chunk(noise);
                Ok(())
            }
            6 if noise.chance(15) => {
                self.snapshot_anew(noise);
                Ok(())
            }
            7 if noise.chance(3) => {
                let table = noise.below(TABLES.len());
                if matches!(self.tables[table], Standing::Live) {
                    self.tables[table] = Standing::Stopped { after: self.sent };
                    self.is_cut = false;
                }
                Ok(())
            }
            _ => self.send_transaction(noise).await,
        }
    }

    /// Returns when all that was sent is on the stream.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.producer.flush().await
    }

    async fn send_transaction(&mut self, noise: &mut Noise) -> Result<()> {
        if self.sent == self.history.len() {
            return if self.is_cut { Ok(()) } else { self.cut().await };
        }
        let number = self.sent + 1;
        let stamp = self.history.stamp(number);
        let mut shapes: Vec<Shape> = (0..TABLES.len()).map(|table| self.history.state(self.sent, table).shape).collect();
        let history = self.history.clone();
        for (table, change) in &history.transactions[self.sent as usize] {
            let table = *table;
            if matches!(self.tables[table], Standing::Stopped { .. }) {
                continue;
            }
            match change {
                Change::Insert(row) => self.push(table, shapes[table], Operation::Create, row, &stamp),
                Change::Delete(row) => self.push(table, shapes[table], Operation::Delete, row, &stamp),
                Change::Update { before, after } => {
                    let moves = before.key != after.key
                        || (table == 1 && before.part != after.part)
                        || (table == 2 && before.day != after.day);
                    if moves {
                        self.push(table, shapes[table], Operation::Delete, before, &stamp);
                        self.push(table, shapes[table], Operation::Create, after, &stamp);
                    } else {
                        self.push(table, shapes[table], Operation::Update, after, &stamp);
                    }
                }
                Change::Truncate => self.whole(Section::Truncate { table: table_id(table), stamp: stamp.clone() }),
                Change::AddColumn { default } => {
                    let name = format!("added{}", shapes[table].added);
                    shapes[table].added += 1;
                    let fill = default.map(|value| {
                        let column: arrow::array::ArrayRef = Arc::new(Int32Array::from(vec![value]));
                        RecordBatch::try_from_iter([(name, column)]).unwrap()
                    });
                    self.announce_shape(table, shapes[table], fill, &stamp);
                }
                Change::Widen => {
                    shapes[table].is_wide = true;
                    self.announce_shape(table, shapes[table], None, &stamp);
                }
            }
            // rows leave before their transaction's end
            if noise.chance(15) {
                let lane = noise.below(self.lanes.len());
                let sections = self.sections(lane);
                self.producer.send(Lane(lane as u16), sections).await?;
            }
        }
        self.sent = number;
        self.clock.fetch_max(number, Relaxed);
        self.is_cut = false;
        Ok(())
    }

    /// Reads a chunk of a table's snapshot: at the point where the binlog is, or further on.
    fn read_chunk(&mut self, noise: &mut Noise) {
        let table = noise.below(TABLES.len());
        let Standing::Snapshot { high, remaining, .. } = &mut self.tables[table] else { return };
        let shape = self.history.state(self.sent, table).shape;
        let furthest = (self.sent..=self.history.len()).take_while(|point| self.history.state(*point, table).shape == shape).last();
        let (furthest, now) = (furthest.unwrap_or(self.sent), self.clock.load(Relaxed).max(self.sent));
        if furthest < now {
            return; // the table has another shape by now: the binlog must come to it first
        }
        let Some(chunk) = remaining.pop() else { return };
        let point = now + noise.below((furthest - now) as usize + 1) as u64;
        self.clock.fetch_max(point, Relaxed);
        *high = point.max(*high);
        self.is_cut = false;
        let stamp = self.history.snapshot_stamp(point);
        let history = self.history.clone();
        for row in history.state(point, table).rows.values().filter(|row| row.key as u64 % CHUNKS == chunk) {
            self.push(table, shape, Operation::Read, row, &stamp);
        }
    }

    /// A backfill of a table that is live or stopped.
    fn snapshot_anew(&mut self, noise: &mut Noise) {
        let table = noise.below(TABLES.len());
        if matches!(self.tables[table], Standing::Snapshot { .. }) {
            return;
        }
        let stamp = self.history.snapshot_stamp(self.sent);
        self.whole(Section::Truncate { table: table_id(table), stamp: stamp.clone() });
        self.announce(table, None, &stamp);
        self.tables[table] = Standing::Snapshot { low: self.sent, high: self.sent, remaining: (0..CHUNKS).collect() };
        self.is_cut = false;
    }

    async fn cut(&mut self) -> Result<()> {
        for standing in &mut self.tables {
            if matches!(standing, Standing::Snapshot { high, remaining, .. } if remaining.is_empty() && *high <= self.sent) {
                *standing = Standing::Live;
            }
        }
        let state = |standing: &Standing| match standing {
            Standing::Live => TableState::Live,
            Standing::Stopped { after } => {
                TableState::Stopped { position: self.history.position(*after), reason: "injected".into() }
            }
            Standing::Snapshot { low, high, remaining } => TableState::Snapshot(SnapshotProgress {
                low_watermark: self.history.position(*low),
                high_watermark: self.history.position(*high),
                remaining_chunks: remaining.iter().map(|chunk| range_of(*chunk)).collect(),
                filter: None,
                rows_read: 0,
                estimated_rows: 0,
            }),
        };
        let cut = Cut {
            number: self.producer.next_cut(),
            position: self.history.position(self.sent),
            source_commit_time: self.history.stamp(self.sent).source_commit_time,
            tables: self
                .tables
                .iter()
                .enumerate()
                .map(|(table, standing)| (table_id(table), state(standing)))
                .collect::<BTreeMap<_, _>>(),
            schemas: BTreeMap::new(),
            rules: None,
            complete_until: None,
        };
        let rest = (0..self.lanes.len()).map(|lane| self.sections(lane)).collect();
        self.producer.cut(rest, cut).await?;
        self.is_cut = true;
        Ok(())
    }

    fn announce(&mut self, table: usize, fill: Option<RecordBatch>, stamp: &TransactionStamp) {
        self.announce_shape(table, self.history.state(self.sent, table).shape, fill, stamp);
    }

    fn announce_shape(&mut self, table: usize, shape: Shape, fill: Option<RecordBatch>, stamp: &TransactionStamp) {
        self.whole(Section::NewShape { schema: table_schema(table, shape), fill, stamp: stamp.clone() });
    }

    fn whole(&mut self, section: Section) {
        self.lanes.iter_mut().for_each(|lane| lane.push(Item::Whole(section.clone())));
    }

    fn push(&mut self, table: usize, shape: Shape, operation: Operation, row: &Row, stamp: &TransactionStamp) {
        let lane = Lane::of(Lane::seed(&table_id(table)), &row.key.to_le_bytes(), self.lanes.len() as u16);
        let item = Item::Row { table, shape, operation, row: row.clone(), stamp: stamp.clone() };
        self.lanes[usize::from(lane.0)].push(item);
    }

    /// What a lane's builders hold.
    fn sections(&mut self, lane: usize) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut rows: Vec<(Operation, Row, TransactionStamp)> = Vec::new();
        let mut of: Option<(usize, Shape)> = None;
        for item in std::mem::take(&mut self.lanes[lane]) {
            match item {
                Item::Row { table, shape, operation, row, stamp } => {
                    if of != Some((table, shape)) {
                        sections.extend(of.map(|of| batch(of, std::mem::take(&mut rows))));
                        of = Some((table, shape));
                    }
                    rows.push((operation, row, stamp));
                }
                Item::Whole(section) => {
                    sections.extend(of.take().map(|of| batch(of, std::mem::take(&mut rows))));
                    sections.push(section);
                }
            }
        }
        sections.extend(of.map(|of| batch(of, rows)));
        sections
    }
}

/// A chunk's number, as the cut carries it.
fn range_of(chunk: u64) -> KeyRange {
    KeyRange { through: Some(vec![chunk.to_string()]), ..KeyRange::whole() }
}

fn chunk_of(range: &KeyRange) -> u64 {
    range.through.as_ref().unwrap()[0].parse().unwrap()
}

fn batch((table, shape): (usize, Shape), rows: Vec<(Operation, Row, TransactionStamp)>) -> Section {
    let mut transactions: Vec<TransactionStamp> = Vec::new();
    let mut stamps = Vec::new();
    for (_, _, stamp) in &rows {
        if transactions.last() != Some(stamp) {
            transactions.push(stamp.clone());
        }
        stamps.push(transactions.len() as u32 - 1);
    }
    let images: Vec<Row> = rows.iter().map(|(_, row, _)| row.clone()).collect();
    Section::Rows(ChangeBatch {
        schema: table_schema(table, shape),
        rows: record_batch(table, shape, &images),
        operations: UInt8Array::from_iter_values(rows.iter().map(|(operation, _, _)| operation.code())),
        stamps: UInt32Array::from(stamps),
        transactions: Arc::new(transactions),
        changed: None,
        before: None,
    })
}
