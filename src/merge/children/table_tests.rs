//! Random changes through the whole of it (lanes, windows, spilled runs, restarts, commits on a table and its children, in files) against a model that
//! keeps the parents and takes their lists apart at the end.

use super::{ChildInput, ChildShape};
use crate::event::{
    BinlogCoordinates, ChangeBatch, Column, CutNumber, CutPoint, Epoch, Lane, Lineage, Operation, Section, SourcePosition,
    SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::format::ChildSpecs;
use crate::merge::{
    Fold, HistoryInput, HistoryRule, HistoryShape, PLACE, SYSTEM_FROM, SYSTEM_TO, SpillFolder, TablePending, Treatment, VALID_FROM,
    VALID_TO,
};
use crate::table::{CommitRequest, Follower, Table, TableOptions, TableView};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const LANES: i32 = 3;

/// One child by the elements' numbers, which has a child by a key of its own; one by a key alone.
const CHILDREN: &str = "\
    [items]\nhistory = true\ncolumns = { sku = 'string', 'price.amount' = 'decimal(10,2)' }\n\
    [items.children.parts]\nhistory = true\ncolumns = { code = 'int', n = 'int' }\nkey = ['code']\n\
    [tags]\nname = 's.order_tags'\ncolumns = { tag = 'string', n = 'int' }\nkey = ['tag']\n";

pub(super) fn specs() -> ChildSpecs {
    toml::from_str(CHILDREN).unwrap()
}

pub(super) fn schema() -> Arc<TableSchema> {
    let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
    let int = SourceType::Int { unsigned: false };
    let columns = vec![
        column("id", int.clone()),
        column("part", int.clone()),
        column("newness", int),
        column("items", SourceType::Json),
        column("tags", SourceType::Json),
    ];
    Arc::new(TableSchema { table: TableId::new("s", "orders"), columns, key: vec![0] })
}

/// An element of `items`: its sku, and its parts' codes.
type Item = (u8, Vec<u8>);

#[derive(Debug, Clone)]
struct Order {
    id: i32,
    newness: Option<i32>,
    /// `None`: NULL.
    items: Option<Vec<Item>>,
    tags: Vec<u8>,
}

impl Order {
    fn part(&self) -> i32 {
        self.id % 2
    }

    fn items_text(&self) -> Option<String> {
        let item = |(sku, parts): &Item| {
            let parts: Vec<String> = parts.iter().map(|code| format!(r#"{{"n": 1, "code": "{code}"}}"#)).collect();
            format!(r#"{{"sku": "s{sku}", "price": {{"amount": {sku}.5}}, "parts": [{}]}}"#, parts.join(", "))
        };
        self.items.as_ref().map(|items| format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", ")))
    }

    fn tags_text(&self) -> String {
        let tags: Vec<String> = self.tags.iter().map(|tag| format!(r#"{{"tag": "t{tag}"}}"#)).collect();
        format!("[{}]", tags.join(", "))
    }

    /// The rows of the three children, as text.
    fn elements(&self) -> [Vec<String>; 3] {
        let (id, items) = (self.id, self.items.clone().unwrap_or_default());
        let item = |(index, (sku, _)): (usize, &Item)| format!("{id} {index} s{sku} {sku}.50");
        let parts =
            items.iter().enumerate().flat_map(|(index, (_, parts))| parts.iter().map(move |code| format!("{id} {index} {code} 1")));
        let tags = self.tags.iter().map(|tag| format!("{id} t{tag} NULL"));
        [items.iter().enumerate().map(item).collect(), parts.collect(), tags.collect()]
    }
}

#[derive(Debug, Clone)]
enum Statement {
    Put(Order),
    Delete(i32),
}

#[derive(Debug, Clone)]
struct Window {
    statements: Vec<Statement>,
    truncates: bool,
    commits: bool,
    spills: bool,
    /// The children are taken away and made anew.
    forgets: bool,
}

fn stamp(number: u64) -> TransactionStamp {
    TransactionStamp {
        gtid: None,
        coordinates: BinlogCoordinates { file: "b.000001".into(), offset: number },
        source_commit_time: Timestamp::from_micros(7),
        is_snapshot: false,
    }
}

fn section(schema: &Arc<TableSchema>, number: u64, statements: &[&Statement]) -> Section {
    let none = |id: i32| Order { id, newness: None, items: None, tags: Vec::new() };
    let orders: Vec<Order> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Put(order) => order.clone(),
            Statement::Delete(id) => none(*id),
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(orders.iter().map(|order| order.id))),
        Arc::new(Int32Array::from_iter_values(orders.iter().map(Order::part))),
        Arc::new(orders.iter().map(|order| order.newness).collect::<Int32Array>()),
        Arc::new(orders.iter().map(Order::items_text).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(orders.iter().map(Order::tags_text))),
    ];
    let code = |statement: &&Statement| match statement {
        Statement::Put(_) => Operation::Create.code(),
        Statement::Delete(_) => Operation::Delete.code(),
    };
    Section::Rows(ChangeBatch {
        schema: schema.clone(),
        rows: RecordBatch::try_new(schema.arrow(), columns).unwrap(),
        operations: UInt8Array::from_iter_values(statements.iter().map(code)),
        stamps: UInt32Array::from(vec![0; statements.len()]),
        transactions: Arc::new(vec![stamp(number)]),
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

/// A table, its history and its children in a store.
struct Family {
    store: Arc<dyn ObjectStore>,
    parent: Table,
    history: Option<(Table, HistoryShape)>,
    children: Vec<Table>,
    shapes: Vec<ChildShape>,
}

fn base(table: &TableId) -> Path {
    Path::from(format!("lake/{}/{}", table.database(), table.name()))
}

async fn open(store: &Arc<dyn ObjectStore>, spec: &crate::table::TableSpec) -> Table {
    let base = base(&TableId::new(&spec.database, &spec.name));
    match Table::exists(store, &base).await.unwrap() {
        true => Table::open(store.clone(), base, spec, options()).await.unwrap(),
        false => Table::create(store.clone(), base, spec, options()).await.unwrap(),
    }
}

impl Family {
    async fn open(store: &Arc<dyn ObjectStore>, fold: &Fold, has_history: bool) -> Self {
        let (lake, mut history) = (fold.shape(), None);
        let parent = open(store, &lake.spec()).await;
        if has_history {
            let shape = HistoryShape::new(&lake.source().table, lake.columns(), &lake.key_names(), None).unwrap();
            history = Some((open(store, &shape.spec()).await, shape));
        }
        let shapes = ChildShape::all(&specs().0, lake, history.as_ref().map(|(_, shape)| shape)).unwrap();
        let mut children = Vec::new();
        for shape in &shapes {
            children.push(open(store, &shape.spec()).await);
        }
        Self { store: store.clone(), parent, history, children, shapes }
    }

    async fn commit(&mut self, fold: &Fold, writes_anew: bool, system_time: &mut Option<Timestamp>) {
        let request = |columns: &arrow::datatypes::SchemaRef, changes, truncate, ordering| CommitRequest {
            columns: columns.clone(),
            record_key: None,
            fill: None,
            truncate,
            changes,
            ordering,
            extra_metadata: BTreeMap::new(),
        };
        let Self { parent, history, children, shapes, .. } = self;
        let rule = HistoryRule::default();
        let previous_system_time = *system_time;
        let of_history = |history: &Table| {
            let (spill, memory_bytes) = (SpillFolder::new(std::env::temp_dir()), 1 << 20);
            HistoryInput { fold, rule: &rule, history, previous_system_time, base: None, spill, memory_bytes }.changes().unwrap()
        };
        let parent_of = |shape: &ChildShape| match &*history {
            Some((history, columns)) if shape.is_history() => (history, columns.columns()),
            _ => (&*parent, fold.shape().columns()),
        };
        for (child, shape) in children.iter_mut().zip(shapes.iter()).filter(|_| writes_anew) {
            let (parent, columns) = parent_of(shape);
            if shape.is_history() || !fold.truncate() {
                let changes = ChildInput { shape, columns, parent, child: None }.anew().unwrap();
                child.commit(request(shape.columns(), changes, true, None)).await.unwrap();
            }
        }
        let mut requests = Vec::new();
        for (child, shape) in children.iter().zip(shapes.iter()) {
            let (parent, columns) = parent_of(shape);
            let truncate = fold.truncate() && !shape.is_history();
            let changes = if shape.is_history() { of_history(parent).changes } else { fold.changes() };
            let input = ChildInput { shape, columns, parent, child: (!truncate).then_some(child) };
            requests.push(request(shape.columns(), input.changes(changes).unwrap(), truncate, None));
        }
        let history_request = history.as_ref().map(|(history, _)| {
            let folded = of_history(history);
            *system_time = Some(folded.system_time);
            request(folded.shape.columns(), folded.changes, false, None)
        });
        let histories = history.iter_mut().map(|(history, _)| history).zip(history_request);
        let all = histories.chain(children.iter_mut().zip(requests));
        let followers = all.map(|(table, request)| Follower { table, request }).collect();
        let ordering = fold.shape().ordering().map(str::to_owned);
        let own = request(fold.shape().columns(), fold.changes(), fold.truncate(), ordering);
        parent.commit_group(own, followers).await.unwrap();
    }

    /// Rows of a table's files.
    async fn batches(&self, table: &TableId) -> Vec<RecordBatch> {
        let view = TableView::open(self.store.clone(), base(table)).await.unwrap();
        let mut found = Vec::new();
        for slice in view.slices(None).unwrap() {
            let path = Path::parse(format!("{}/{}", base(table), slice.path())).unwrap();
            let bytes = self.store.get(&path).await.unwrap().bytes().await.unwrap();
            found.extend(ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap().map(Result::unwrap));
        }
        found
    }

    /// What the history of the items must have: the elements of each version's list, with the version's periods.
    async fn items_of_versions(&self) -> Vec<String> {
        let mut expected = Vec::new();
        for batch in self.batches(&"s.orders_history".parse().unwrap()).await {
            let column = |name: &str| ArrayFormatter::try_new(batch.column_by_name(name).unwrap(), &FormatOptions::new()).unwrap();
            let (id, items) = (column("id"), column("items"));
            let periods = [VALID_FROM, VALID_TO, SYSTEM_FROM, SYSTEM_TO, PLACE].map(column);
            for row in 0..batch.num_rows() {
                let list: Vec<serde_json::Value> = serde_json::from_str(&items.value(row).to_string()).unwrap_or_default();
                let periods = periods.iter().map(|period| period.value(row).to_string()).collect::<Vec<_>>().join(" ");
                let item = |(index, item): (usize, &serde_json::Value)| {
                    format!("{} {index} {} {}0 {periods}", id.value(row), item["sku"].as_str().unwrap(), item["price"]["amount"])
                };
                expected.extend(list.iter().enumerate().map(item));
            }
        }
        expected.sort();
        expected
    }

    /// A table's rows as text, without Binlake's columns and the partition's.
    async fn rows(&self, table: &TableId) -> Vec<String> {
        let mut found = Vec::new();
        for batch in self.batches(table).await {
            if let (Some(part), false) = (batch.column_by_name("part"), table.name().ends_with("_history")) {
                let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int32Type>();
                let parts = part.as_primitive::<arrow::datatypes::Int32Type>();
                assert!(ids.values().iter().zip(parts.values()).all(|(id, part)| id % 2 == *part), "a row in another partition");
            }
            let schema = batch.schema();
            let own = |name: &str| !name.starts_with("_hoodie") && !["_commit_ts", "_position", "part", "parts"].contains(&name);
            let options = FormatOptions::new().with_null("NULL");
            let columns = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| own(field.name()));
            let columns: Vec<ArrayFormatter<'_>> =
                columns.map(|(_, column)| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                found.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" "));
            }
        }
        found.sort();
        found
    }
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let codes = || prop::collection::btree_set(0..5_u8, 0..4).prop_map(|codes| codes.into_iter().collect::<Vec<_>>());
    let items = prop::option::weighted(0.9, prop::collection::vec((0..9_u8, codes()), 0..4));
    let order = (0..30, prop::option::weighted(0.8, 0..6), items, codes());
    let put = order.prop_map(|(id, newness, items, tags)| Statement::Put(Order { id, newness, items, tags }));
    let delete = (0..30).prop_map(Statement::Delete);
    let statements = prop::collection::vec(prop_oneof![8 => put, 2 => delete], 0..12);
    let window = (statements, 0..30, 0..3, 0..6, 0..8);
    let window = window.prop_map(|(statements, truncates, commits, spills, forgets)| Window {
        statements,
        truncates: truncates == 0,
        commits: commits == 0,
        spills: spills == 0,
        forgets: forgets == 0,
    });
    prop::collection::vec(window, 2..25)
}

async fn run(windows: Vec<Window>, has_ordering: bool, is_partitioned: bool, has_history: bool) {
    let schema = schema();
    let folder = tempfile::tempdir().unwrap();
    let folder = SpillFolder::new(folder.path());
    let treatment = Treatment {
        partition_by: is_partitioned.then(|| "part".parse().unwrap()),
        ordering: has_ordering.then(|| "newness".to_owned()),
        keeps_all: has_history,
        ..Treatment::default()
    };
    let mut pending = TablePending::new(schema.table.clone(), treatment, None);
    let mut model: BTreeMap<i32, Order> = BTreeMap::new();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // a commit's changes are folded first: of what a commit brings, the newest of a key meets what is there
    let mut folded: BTreeMap<i32, Statement> = BTreeMap::new();
    let count = windows.len();
    let newness = |statement: &Statement| match statement {
        Statement::Put(order) => order.newness,
        Statement::Delete(_) => None,
    };
    let (mut has_committed, mut system_time) = (false, None);
    for (number, window) in windows.into_iter().enumerate() {
        let closing = CutPoint { epoch: Epoch(1), number: CutNumber(number as u64 + 1) };
        let offset = 1_000 + number as u64;
        if window.truncates {
            for lane in 0..LANES {
                let section = Section::Truncate { table: schema.table.clone(), stamp: stamp(offset) };
                pending.take_section(Lane(lane as u16), closing, &section).unwrap();
            }
            model.clear();
            folded.clear();
        }
        for lane in 0..LANES {
            let id = |statement: &Statement| match statement {
                Statement::Put(order) => order.id,
                Statement::Delete(id) => *id,
            };
            let of_lane: Vec<&Statement> = window.statements.iter().filter(|statement| id(statement) % LANES == lane).collect();
            if !of_lane.is_empty() {
                pending.take_section(Lane(lane as u16), closing, &section(&schema, offset, &of_lane)).unwrap();
            }
            for statement in of_lane {
                let before = folded.get(&id(statement)).filter(|_| has_ordering);
                if before.is_none_or(|before| newness(before) <= newness(statement)) {
                    folded.insert(id(statement), statement.clone());
                }
            }
        }
        if window.spills {
            pending.spill(&folder, (number % 2 == 0).then_some(closing)).unwrap();
        }
        if !window.commits && number + 1 < count {
            continue;
        }
        let position = SourcePosition {
            lineage: Lineage("a".into()),
            coordinates: BinlogCoordinates { file: "b.000001".into(), offset: offset + 1 },
            gtid_set: None,
        };
        let Some(fold) = pending.take(closing, &position).unwrap() else { continue };
        for (id, statement) in std::mem::take(&mut folded) {
            let is_late = has_ordering && model.get(&id).is_some_and(|present| present.newness > newness(&statement));
            match statement {
                Statement::Put(_) if is_late => {}
                Statement::Put(order) => _ = model.insert(id, order),
                Statement::Delete(_) => _ = model.remove(&id),
            }
        }
        // each commit by another process
        let mut family = Family::open(&store, &fold, has_history).await;
        family.commit(&fold, window.forgets && has_committed, &mut system_time).await;
        has_committed = true;
        pending.done(closing, position, schema.clone());
        let mut expected: [Vec<String>; 3] = Default::default();
        for order in model.values() {
            for (all, own) in expected.iter_mut().zip(order.elements()) {
                all.extend(own);
            }
        }
        let parents = family.rows(&schema.table).await;
        assert_eq!(parents.len(), model.len(), "parents after window {number}: {parents:?}");
        for (shape, mut expected) in family.shapes.iter().zip(expected) {
            expected.sort();
            assert_eq!(family.rows(shape.table()).await, expected, "{} after window {number}", shape.table());
        }
        if has_history {
            let found = family.rows(&"s.orders_items_history".parse().unwrap()).await;
            assert_eq!(found, family.items_of_versions().await, "items of versions after window {number}");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn children_are_what_their_parents_rows_say(
        windows in windows(),
        has_ordering: bool,
        is_partitioned: bool,
        has_history: bool,
    ) {
        runtime().block_on(run(windows, has_ordering, is_partitioned, has_history));
    }
}
