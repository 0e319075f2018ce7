//! Random changes through the whole of it (lanes, windows, spilled runs, commits on a table and its history, in files) against the fold of each key
//! by itself.

use super::versions::{Late, OPEN_END, Version, Versions};
use super::{BaseRows, HistoryInput, HistoryRule, HistoryShape, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO};
use crate::event::{
    BinlogCoordinates, ChangeBatch, Column, CutNumber, CutPoint, Epoch, Lane, Lineage, Operation, Section, SourcePosition,
    SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::merge::{Fold, SpillFolder, TablePending, Treatment};
use crate::table::{CommitRequest, Table, TableOptions, TableView};
use crate::time::Timestamp;
use arrow::array::{Array, AsArray, Int32Array, RecordBatch, TimestampMicrosecondArray, UInt8Array, UInt32Array};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const LANES: i32 = 3;
const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const LATEST: i64 = 1_000;

/// What a row says besides its key.
type Said = (i32, Option<i64>);

/// key, price, valid from, and the period's ends.
type Found = (i32, Said, i64, i64, i64, i64);

#[derive(Debug, Clone)]
enum Statement {
    Put {
        key: i32,
        said: Said,
    },
    Delete {
        key: i32,
    },
    /// An update that moves the row to another partition comes so.
    Move {
        key: i32,
        said: Said,
    },
}

#[derive(Debug, Clone)]
struct Transaction {
    time: i64,
    statements: Vec<Statement>,
    truncates: bool,
    commits: bool,
    spills: bool,
    /// Another server is read from here on: the places in its binlog are others.
    fails_over: bool,
}

fn schema() -> Arc<TableSchema> {
    let column = |name: &str, source_type, nullable| Column { name: name.into(), source_type, nullable };
    let int = SourceType::Int { unsigned: false };
    let columns = vec![
        column("id", int.clone(), false),
        column("price", int, true),
        column("effective", SourceType::DateTime { fsp: 6 }, true),
    ];
    Arc::new(TableSchema { table: TableId::new("s", "prices"), columns, key: vec![0] })
}

fn stamp(number: u64, offset: u64, time: i64, is_snapshot: bool) -> TransactionStamp {
    TransactionStamp {
        gtid: format!("{SERVER}:{number}").parse().ok(),
        coordinates: BinlogCoordinates { file: "b.000001".into(), offset },
        source_commit_time: Timestamp::from_micros(time),
        is_snapshot,
    }
}

fn rows(schema: &Arc<TableSchema>, stamp: &TransactionStamp, statements: &[(u8, i32, Said)]) -> Section {
    let effective = TimestampMicrosecondArray::from_iter(statements.iter().map(|s| s.2.1)).with_timezone("UTC");
    let rows = RecordBatch::try_new(
        schema.arrow(),
        vec![
            Arc::new(Int32Array::from_iter_values(statements.iter().map(|s| s.1))),
            Arc::new(Int32Array::from_iter_values(statements.iter().map(|s| s.2.0))),
            Arc::new(effective),
        ],
    );
    Section::Rows(ChangeBatch {
        schema: schema.clone(),
        rows: rows.unwrap(),
        operations: UInt8Array::from_iter_values(statements.iter().map(|s| s.0)),
        stamps: UInt32Array::from(vec![0; statements.len()]),
        transactions: Arc::new(vec![stamp.clone()]),
        changed: None,
        before: None,
    })
}

fn options() -> TableOptions {
    TableOptions {
        target_file_bytes: 6 << 10,
        retained_commits: 4,
        rewrite_threads: 2,
        memory_bytes: 16 << 20,
        writer_name: "test".into(),
    }
}

/// A table and its history in a store.
struct Pair {
    store: Arc<dyn ObjectStore>,
    table: Table,
    history: Table,
    rule: HistoryRule,
    memory_bytes: usize,
    system_time: Option<Timestamp>,
}

impl Pair {
    async fn create(fold: &Fold, rule: &HistoryRule, memory_bytes: usize) -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let shape = fold.shape();
        let table = Table::create(store.clone(), Path::from("lake/s/prices"), &shape.spec(), options()).await.unwrap();
        let of_history = HistoryShape::new(&shape.source().table, shape.columns(), &shape.key_names(), None).unwrap().spec();
        let base = Path::from("lake/s/prices_history");
        let history = Table::create(store.clone(), base, &of_history, options()).await.unwrap();
        Self { store, table, history, rule: rule.clone(), memory_bytes, system_time: None }
    }

    async fn commit(&mut self, fold: &Fold, base: Option<BaseRows>) {
        let input = HistoryInput {
            fold,
            rule: &self.rule,
            history: &self.history,
            previous_system_time: self.system_time,
            base,
            spill: SpillFolder::new(std::env::temp_dir()),
            memory_bytes: self.memory_bytes,
        };
        let changes = input.changes().unwrap();
        self.system_time = Some(changes.system_time);
        let request = |columns: &arrow::datatypes::SchemaRef, changes, truncate| CommitRequest {
            columns: columns.clone(),
            record_key: None,
            fill: None,
            truncate,
            changes,
            ordering: None,
            extra_metadata: BTreeMap::new(),
        };
        let of_history = request(changes.shape.columns(), changes.changes, false);
        let of_table = request(fold.shape().columns(), fold.changes(), fold.truncate());
        self.table.commit_with(of_table, &mut self.history, of_history).await.unwrap();
    }

    /// All versions; panics over one that lies in the wrong place.
    async fn versions(&self) -> Vec<Found> {
        let base = Path::from("lake/s/prices_history");
        let view = TableView::open(self.store.clone(), base.clone()).await.unwrap();
        let mut found = Vec::new();
        for slice in view.slices(None).unwrap() {
            let path = Path::parse(format!("{base}/{}", slice.path())).unwrap();
            let bytes = self.store.get(&path).await.unwrap().bytes().await.unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let int = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().clone();
                let time = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
                let (ids, prices, effective) = (int("id"), int("price"), time("effective"));
                let ends = [VALID_FROM, VALID_TO, SYSTEM_FROM, SYSTEM_TO].map(time);
                for row in 0..batch.num_rows() {
                    let said = (prices.value(row), effective.is_valid(row).then(|| effective.value(row)));
                    let [from, to, known, until] = [0, 1, 2, 3].map(|i: usize| ends[i].value(row));
                    let place = match (to, until) {
                        (OPEN_END, OPEN_END) => "_place=_open",
                        (_, OPEN_END) => "_place=bounded",
                        _ => "_place=closed-1970-01",
                    };
                    assert_eq!(slice.partition_path, place);
                    found.push((ids.value(row), said, from, to, known, until));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// The same by the fold of each key alone, statement by statement.
struct Model {
    rule: HistoryRule,
    keys: BTreeMap<i32, Vec<Version<Said>>>,
    closed: Vec<Found>,
    system_time: i64,
}

impl Model {
    fn at(&mut self, key: i32, change: impl Fn(&mut Versions<Said>)) {
        let mut versions = Versions::new(self.rule.late);
        versions.begin(self.keys.remove(&key).unwrap_or_default());
        change(&mut versions);
        let closed = versions.closed.iter().map(|closed| {
            let version = closed.version;
            (key, version.row, version.valid_from, version.valid_to, version.system_from, closed.system_to)
        });
        self.closed.extend(closed);
        self.keys.insert(key, versions.current);
    }

    fn put(&mut self, key: i32, said: Said, at: i64) {
        let from = if self.rule.valid_time.is_some() { said.1.unwrap_or(at) } else { at };
        self.at(key, |versions| versions.put(said, from, OPEN_END, at, |a, b| a == b));
    }

    fn delete_all(&mut self, at: i64) {
        self.keys.clone().into_keys().for_each(|key| self.at(key, |versions| versions.delete(at, at)));
    }

    fn versions(&self) -> Vec<Found> {
        let current = self
            .keys
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(|v| (*key, v.row, v.valid_from, v.valid_to, v.system_from, OPEN_END)));
        let mut found: Vec<Found> = self.closed.iter().copied().chain(current).collect();
        found.sort_unstable();
        found
    }
}

fn transactions(keys: i32) -> impl Strategy<Value = Vec<Transaction>> {
    let said = (0..3, prop::option::weighted(0.9, 0..LATEST));
    let put = (0..keys, said.clone()).prop_map(|(key, said)| Statement::Put { key, said });
    let delete = (0..keys).prop_map(|key| Statement::Delete { key });
    let moved = (0..keys, said).prop_map(|(key, said)| Statement::Move { key, said });
    let statements = prop::collection::vec(prop_oneof![8 => put, 2 => delete, 1 => moved], 1..12);
    let transaction = (1..LATEST, statements, 0..30, 0..4, 0..6, 0..8);
    prop::collection::vec(transaction, 2..40).prop_map(|transactions| {
        let of = |(time, statements, truncates, commits, spills, fails_over)| Transaction {
            time,
            statements,
            truncates: truncates == 0,
            commits: commits == 0,
            spills: spills == 0,
            fails_over: fails_over == 0,
        };
        transactions.into_iter().map(of).collect()
    })
}

async fn run(transactions: Vec<Transaction>, rule: HistoryRule, memory_bytes: usize) {
    let schema = schema();
    let folder = tempfile::tempdir().unwrap();
    let folder = SpillFolder::new(folder.path());
    let mut pending = TablePending::new(schema.table.clone(), Treatment { keeps_all: true, ..Treatment::default() }, None);
    let mut model = Model { rule: rule.clone(), keys: BTreeMap::new(), closed: Vec::new(), system_time: 0 };
    let mut pair: Option<Pair> = None;
    let count = transactions.len();
    let (mut window, mut epoch) = (1, 1);
    for (number, transaction) in transactions.into_iter().enumerate() {
        epoch += u64::from(transaction.fails_over);
        let closing = CutPoint { epoch: Epoch(epoch), number: CutNumber(window) };
        // of two servers, one is behind the other
        let offset = if epoch % 2 == 1 { 1_000 } else { 10 } + number as u64;
        let stamp = stamp(1 + number as u64, offset, transaction.time, false);
        model.system_time = transaction.time.max(model.system_time + 1);
        let at = model.system_time;
        if transaction.truncates {
            for lane in 0..LANES {
                let section = Section::Truncate { table: schema.table.clone(), stamp: stamp.clone() };
                pending.take_section(Lane(lane as u16), closing, &section).unwrap();
            }
            model.delete_all(at);
        } else {
            for lane in 0..LANES {
                let mut sections: Vec<(u8, i32, Said)> = Vec::new();
                for statement in &transaction.statements {
                    let code = |operation: Operation| operation.code();
                    match *statement {
                        Statement::Put { key, said } if key % LANES == lane => sections.push((code(Operation::Create), key, said)),
                        Statement::Delete { key } if key % LANES == lane => {
                            sections.push((code(Operation::Delete), key, (0, None)))
                        }
                        Statement::Move { key, said } if key % LANES == lane => {
                            sections.push((code(Operation::Delete), key, (0, None)));
                            sections.push((code(Operation::Update), key, said));
                        }
                        _ => {}
                    }
                }
                if !sections.is_empty() {
                    pending.take_section(Lane(lane as u16), closing, &rows(&schema, &stamp, &sections)).unwrap();
                }
            }
            for statement in &transaction.statements {
                match *statement {
                    Statement::Put { key, said } | Statement::Move { key, said } => model.put(key, said, at),
                    Statement::Delete { key } => model.at(key, |versions| versions.delete(at, at)),
                }
            }
        }
        if transaction.spills {
            pending.spill(&folder, (number % 2 == 0).then_some(closing)).unwrap();
        }
        if transaction.commits || number + 1 == count {
            let position = SourcePosition {
                lineage: Lineage("a".into()),
                coordinates: BinlogCoordinates { file: "b.000001".into(), offset: offset + 1 },
                gtid_set: format!("{SERVER}:1-{}", number + 1).parse().ok(),
            };
            let Some(fold) = pending.take(closing, &position).unwrap() else { continue };
            let open = match &mut pair {
                Some(open) => open,
                none => none.insert(Pair::create(&fold, &rule, memory_bytes).await),
            };
            open.commit(&fold, None).await;
            pending.done(closing, position, schema.clone());
            assert_eq!(open.versions().await, model.versions(), "after transaction {number}");
            assert_eq!(open.system_time.unwrap().as_micros(), at);
            window += 1;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_history_table_is_the_fold_of_each_key(
        transactions in transactions(40),
        has_valid_time: bool,
        is_until_next: bool,
        // one by which everything waits on disk, and one for some runs in the larger commits
        memory_bytes in prop_oneof![Just(1_usize), Just(64 << 10)],
    ) {
        let late = if is_until_next { Late::UntilNext } else { Late::ToEnd };
        let rule = HistoryRule { valid_time: has_valid_time.then(|| "effective".to_owned()), late, ..HistoryRule::default() };
        runtime().block_on(run(transactions, rule, memory_bytes));
    }
}

/// What ends behind the moment at which all rows go is more than memory holds.
#[test]
fn a_truncation_of_many_versions_that_end() {
    const KEYS: i32 = 4_000;
    let put = |key: i32, price: i32, effective: i64| Statement::Put { key, said: (price, Some(effective)) };
    let transaction =
        |time, statements, truncates| Transaction { time, statements, truncates, commits: true, spills: false, fails_over: false };
    let transactions = vec![
        transaction(10, (0..KEYS).map(|key| put(key, 1, 100)).collect(), false),
        // true until the known future begins: [50, 100)
        transaction(20, (0..KEYS).filter(|key| key % 3 > 0).map(|key| put(key, 2, 50)).collect(), false),
        // nothing but what ends is left of these
        transaction(60, (0..KEYS).filter(|key| key % 5 == 0).map(|key| Statement::Delete { key }).collect(), false),
        transaction(70, Vec::new(), true),
        transaction(80, (0..KEYS).step_by(7).map(|key| put(key, 3, 75)).collect(), false),
    ];
    let rule = HistoryRule { valid_time: Some("effective".to_owned()), ..HistoryRule::default() };
    runtime().block_on(run(transactions, rule, 16 << 10));
}

/// Fenced by GTIDs, a snapshot may have seen transactions that come once more, some of its rows, and others not.
#[test]
fn a_snapshot_that_saw_ahead_makes_no_versions_of_a_moment() {
    let schema = schema();
    let mut pending = TablePending::new(schema.table.clone(), Treatment { keeps_all: true, ..Treatment::default() }, None);
    let closing = CutPoint { epoch: Epoch(1), number: CutNumber(1) };
    let (read, update, delete) = (Operation::Read.code(), Operation::Update.code(), Operation::Delete.code());
    let mut take = |number: u64, time: i64, statements: &[(u8, i32, Said)]| {
        let stamp = stamp(number, 100 + number, time, number == 0);
        pending.take_section(Lane(0), closing, &rows(&schema, &stamp, statements)).unwrap();
    };
    // read at 50: the row of 0 as the second transaction left it, that of 3 as it was before the third
    take(0, 50, &[(read, 0, (2, None)), (read, 3, (7, None))]);
    take(1, 40, &[(update, 0, (1, None))]);
    take(2, 45, &[(update, 0, (2, None))]);
    take(3, 48, &[(delete, 3, (7, None))]);
    take(4, 60, &[(update, 0, (3, None))]);
    pending.sees_before(&BinlogCoordinates { file: "b.000001".into(), offset: 104 });
    let position = SourcePosition {
        lineage: Lineage("a".into()),
        coordinates: BinlogCoordinates { file: "b.000001".into(), offset: 105 },
        gtid_set: format!("{SERVER}:1-4").parse().ok(),
    };
    let fold = pending.take(closing, &position).unwrap().unwrap();
    let found = runtime().block_on(async {
        let mut pair = Pair::create(&fold, &HistoryRule::default(), 1 << 20).await;
        pair.commit(&fold, None).await;
        pair.versions().await
    });
    let second = (0, (2, None));
    let expected: [Found; 3] = [
        (second.0, second.1, 50, 60, 60, OPEN_END),
        (second.0, second.1, 50, OPEN_END, 50, 60),
        (0, (3, None), 60, OPEN_END, 60, OPEN_END),
    ];
    assert_eq!(found, expected);
}
