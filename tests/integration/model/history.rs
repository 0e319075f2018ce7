//! Random histories of a source, and the naive model: what the tables hold after each transaction.

use super::noise::Noise;
use arrow::array::{ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use binlake::event::{
    BinlogCoordinates, Column, Gtid, GtidSet, Lineage, SourcePosition, SourceType, TableId, TableSchema, TransactionStamp,
};
use binlake::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables: a number as key; partitioned by a column, with text as key; partitioned by a function.
pub(super) const TABLES: [(&str, Option<&str>); 3] = [("plain", None), ("parted", Some("part")), ("yearly", Some("year(day)"))];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) key: i32,
    pub(super) part: Option<i32>,
    pub(super) day: i32,
    pub(super) amount: i64,
    pub(super) note: Option<String>,
    /// Values of the columns that were added.
    pub(super) added: Vec<Option<i32>>,
}

/// How often a table's shape has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    pub(super) added: usize,
    pub(super) is_wide: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Insert(Row),
    Update { before: Row, after: Row },
    Delete(Row),
    Truncate,
    AddColumn { default: Option<i32> },
    Widen,
}

/// What a table holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) rows: BTreeMap<i32, Row>,
    pub(super) shape: Shape,
}

impl State {
    /// The naive model.
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Insert(row) => drop(self.rows.insert(row.key, row.clone())),
            Change::Update { before, after } => {
                self.rows.remove(&before.key);
                self.rows.insert(after.key, after.clone());
            }
            Change::Delete(row) => drop(self.rows.remove(&row.key)),
            Change::Truncate => self.rows.clear(),
            Change::AddColumn { default } => {
                self.shape.added += 1;
                self.rows.values_mut().for_each(|row| row.added.push(*default));
            }
            Change::Widen => self.shape.is_wide = true,
        }
    }
}

/// A source: its transactions, and its tables after each. Transaction k has number k, from 1.
#[derive(Debug)]
pub(super) struct History {
    pub(super) transactions: Vec<Vec<(usize, Change)>>,
    /// `states[k][table]`: after transaction k.
    states: Vec<Vec<State>>,
    pub(super) has_gtids: bool,
}

impl History {
    pub(super) fn random(noise: &mut Noise) -> Self {
        let mut tables = vec![State::default(); TABLES.len()];
        let mut history = Self { transactions: Vec::new(), states: vec![tables.clone()], has_gtids: noise.chance(70) };
        for _ in 0..8 + noise.below(25) {
            let mut transaction = Vec::new();
            if noise.chance(8) {
                let table = noise.below(TABLES.len());
                let change = match noise.below(3) {
                    0 => Change::Truncate,
                    1 => Change::AddColumn { default: noise.chance(50).then(|| noise.below(100) as i32) },
                    _ => Change::Widen,
                };
                tables[table].apply(&change);
                transaction.push((table, change));
            } else {
                for _ in 0..1 + noise.below(5) {
                    let table = noise.below(TABLES.len());
                    let change = random_change(noise, &tables[table]);
                    tables[table].apply(&change);
                    transaction.push((table, change));
                }
            }
            history.transactions.push(transaction);
            history.states.push(tables.clone());
        }
        history
    }

    pub(super) fn len(&self) -> u64 {
        self.transactions.len() as u64
    }

    pub(super) fn state(&self, after: u64, table: usize) -> &State {
        &self.states[after as usize][table]
    }

    /// The position behind transaction `after`.
    pub(super) fn position(&self, after: u64) -> SourcePosition {
        SourcePosition {
            lineage: Lineage(UUID.into()),
            coordinates: coordinates(after + 1),
            gtid_set: self.has_gtids.then(|| {
                let text = if after == 0 { String::new() } else { format!("{UUID}:1-{after}") };
                text.parse::<GtidSet>().unwrap()
            }),
        }
    }

    pub(super) fn stamp(&self, transaction: u64) -> TransactionStamp {
        let gtid = Gtid::MySql { uuid: UUID.parse().unwrap(), tag: String::new(), number: transaction };
        TransactionStamp {
            gtid: self.has_gtids.then_some(gtid),
            coordinates: coordinates(transaction),
            source_commit_time: Timestamp::from_micros(transaction as i64 * 1000),
            is_snapshot: false,
        }
    }

    /// The stamp of snapshot rows read behind transaction `after`.
    pub(super) fn snapshot_stamp(&self, after: u64) -> TransactionStamp {
        TransactionStamp { gtid: None, coordinates: coordinates(after + 1), is_snapshot: true, ..self.stamp(after) }
    }
}

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn coordinates(transaction: u64) -> BinlogCoordinates {
    BinlogCoordinates { file: "binlog.000001".into(), offset: transaction * 100 }
}

/// The transaction behind which a position is.
pub(super) fn after(position: &SourcePosition) -> u64 {
    position.coordinates.offset / 100 - 1
}

fn random_change(noise: &mut Noise, state: &State) -> Change {
    let existing = |noise: &mut Noise| state.rows.values().nth(noise.below(state.rows.len().max(1))).cloned();
    let free = |noise: &mut Noise| (0..).map(|_| noise.below(40) as i32).find(|key| !state.rows.contains_key(key)).unwrap();
    let row = |noise: &mut Noise, key: i32| Row {
        key,
        part: noise.chance(80).then(|| noise.below(3) as i32),
        day: 19_000 + 365 * noise.below(3) as i32,
        amount: noise.below(1000) as i64,
        note: noise.chance(70).then(|| "x".repeat(noise.below(20))),
        added: (0..state.shape.added).map(|_| noise.chance(60).then(|| noise.below(9) as i32)).collect(),
    };
    let is_full = state.rows.len() > 30;
    match (existing(noise), noise.below(10)) {
        (Some(row), 0 | 1) => Change::Delete(row),
        (Some(before), choice @ (2..=6)) => {
            let mut after = Row { amount: before.amount + 1, ..before.clone() };
            match choice {
                2 if !is_full => after.key = free(noise),
                3 => after.part = noise.chance(80).then(|| noise.below(3) as i32),
                4 => after.day = 19_000 + noise.below(1000) as i32,
                _ => after.note = None,
            }
            Change::Update { before, after }
        }
        (Some(row), _) if is_full => Change::Delete(row),
        _ => {
            let key = free(noise);
            Change::Insert(row(noise, key))
        }
    }
}

pub(super) fn table_id(table: usize) -> TableId {
    TableId::new("s", TABLES[table].0)
}

pub(super) fn table_schema(table: usize, shape: Shape) -> Arc<TableSchema> {
    let int = SourceType::Int { unsigned: false };
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 100 };
    let mut columns = vec![
        ("id".to_owned(), if table == 1 { text() } else { int.clone() }),
        ("part".to_owned(), int.clone()),
        ("day".to_owned(), SourceType::Date),
        ("amount".to_owned(), if shape.is_wide { SourceType::BigInt { unsigned: false } } else { int.clone() }),
        ("note".to_owned(), text()),
    ];
    columns.extend((0..shape.added).map(|i| (format!("added{i}"), int.clone())));
    let column = |(name, source_type): (String, SourceType)| Column { nullable: name != "id", name, source_type };
    Arc::new(TableSchema { table: table_id(table), columns: columns.into_iter().map(column).collect(), key: vec![0] })
}

pub(super) fn key_text(key: i32) -> String {
    format!("a key that is long {key:03}")
}

/// Rows in the source's columns.
pub(super) fn record_batch(table: usize, shape: Shape, rows: &[Row]) -> RecordBatch {
    let schema = table_schema(table, shape);
    let key: ArrayRef = match table {
        1 => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| key_text(row.key)))),
        _ => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.key))),
    };
    let amount: ArrayRef = match shape.is_wide {
        true => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.amount))),
        false => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.amount as i32))),
    };
    let mut columns: Vec<ArrayRef> = vec![
        key,
        Arc::new(rows.iter().map(|row| row.part).collect::<Int32Array>()),
        Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.day))),
        amount,
        Arc::new(rows.iter().map(|row| row.note.clone()).collect::<StringArray>()),
    ];
    for i in 0..shape.added {
        columns.push(Arc::new(rows.iter().map(|row| row.added.get(i).copied().flatten()).collect::<Int32Array>()));
    }
    RecordBatch::try_new(schema.arrow(), columns).unwrap()
}
