//! What a history costs: `cargo bench --bench history [-- --quick] [--only CASE] [--rows N] [--changes N] [--files N]`.
//!
//! Folds changes of made tickets and commits them, with and without a history, on this machine's disk. `--only` takes a part of a case's name:
//!
//! - `commit time`, `valid time`: a load, then batches of updates spread evenly, with `history = true`, and with a valid time that is the time of the change;
//! - `60/30/10`: the same with inserts, updates and deletes as `binlake generate` makes them;
//! - `tenth late`, `ordering`: the same with a valid time of which a tenth comes late, where the table takes each change as it comes, and where its `ordering` is
//!   that time, as it is for records;
//! - `partitions`: the same by commit time where the table has a partition for each of 30 days;
//! - `many files`: updates upon a history of many files more, whose closed partitions are filled with copies (100 million versions are some 1,600 files);
//! - `one run`: many records, 10 % of them corrections of earlier ones, in commits as the service makes them.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "tickets.rs"]
mod tickets;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt8Array, UInt32Array};
use binlake::event::{
    BinlogCoordinates, ChangeBatch, Column, CutNumber, CutPoint, Epoch, Lane, Lineage, Operation, Section, SourcePosition,
    SourceType, TableId, TableSchema, TransactionStamp,
};
use binlake::merge::{
    Fold, HistoryInput, HistoryRule, HistoryShape, PartitionBy, PartitionField, PartitionFunction, SpillFolder, TablePending,
    Treatment,
};
use binlake::table::{CommitRequest, SortedChanges, Table, TableOptions, TableSpec};
use binlake::time::Timestamp;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tickets::Random;

/// Rows of a batch, which is a transaction.
const BATCH_ROWS: usize = 4_096;
/// Rows of a commit in one run: what the service holds in memory.
const COMMIT_ROWS: usize = 700_000;
/// Of so many records of the run, one corrects an earlier one.
const CORRECTION: usize = 10;
/// Days on which tickets were made.
const DAYS: i64 = 30;
const DAY_MICROS: i64 = 86_400_000_000;

/// A history that is compared with its table alone.
struct Case {
    name: &'static str,
    rule: HistoryRule,
    /// Of a hundred updates, so many have a valid time of an hour before.
    late: u64,
    /// The table's.
    ordering: Option<String>,
    partition_by: Option<PartitionBy>,
    /// Whether it changes as `binlake generate` does: 60 % inserts, 30 % updates, 10 % deletes; else all are updates.
    is_mixed: bool,
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    schema: Arc<TableSchema>,
    /// Tickets in all.
    rows: usize,
    /// Updates in a commit.
    changes: usize,
    /// How the present case's changes are taken.
    treatment: Treatment,
    /// The next transaction.
    transaction: u64,
}

/// A table, and its history where it has one.
struct Tables {
    folder: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
    table: Table,
    history: Option<(Table, HistoryRule, Option<Timestamp>)>,
    of_history: TableSpec,
}

fn options() -> TableOptions {
    TableOptions {
        target_file_bytes: 64 << 20,
        retained_commits: 5,
        rewrite_threads: 2,
        memory_bytes: 128 << 20,
        writer_name: "bench".into(),
    }
}

fn schema() -> Arc<TableSchema> {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 256 };
    let columns = tickets::columns();
    let columns = columns.fields().iter().filter(|field| !field.name().starts_with('_')).map(|field| Column {
        name: field.name().clone(),
        source_type: match field.data_type() {
            arrow::datatypes::DataType::Int32 => SourceType::Int { unsigned: false },
            arrow::datatypes::DataType::Timestamp(..) => SourceType::DateTime { fsp: 6 },
            _ => text(),
        },
        nullable: true,
    });
    Arc::new(TableSchema { table: TableId::new("sports", "tickets"), columns: columns.collect(), key: vec![0] })
}

impl Bench {
    /// The changes as the merge takes them: `late` of a hundred have a valid time of before.
    fn fold(&mut self, keeps_all: bool, ids: &[i32], operation: impl Fn(i32) -> Operation, late: u64) -> Fold {
        let treatment = Treatment { keeps_all, ..self.treatment.clone() };
        let mut pending = TablePending::new(self.schema.table.clone(), treatment, None);
        let closing = CutPoint { epoch: Epoch(1), number: CutNumber(1) };
        let mut random = Random(self.transaction);
        for ids in ids.chunks(BATCH_ROWS) {
            self.transaction += 1;
            let time = 1_800_000_000_000_000 + self.transaction as i64 * 1_000_000;
            let made = tickets::tickets(ids, self.transaction as i64);
            let names: Vec<&str> = self.schema.columns.iter().map(|column| column.name.as_str()).collect();
            let columns = names.iter().map(|name| match *name {
                // a ticket is made once: ids rise with the days
                "created_at" => {
                    times(ids, |id| 1_780_000_000_000_000 + i64::from(*id) * DAYS * DAY_MICROS / (self.rows as i64 + 1))
                }
                "updated_at" => times(ids, |_| if random.below(100) < late { time - 3_600_000_000 } else { time }),
                name => made.column_by_name(name).expect("a column").clone(),
            });
            let batch = ChangeBatch {
                rows: RecordBatch::try_new(self.schema.arrow(), columns.collect()).expect("rows"),
                schema: self.schema.clone(),
                operations: UInt8Array::from_iter_values(ids.iter().map(|id| operation(*id).code())),
                stamps: UInt32Array::from(vec![0; ids.len()]),
                transactions: Arc::new(vec![TransactionStamp {
                    gtid: None,
                    coordinates: BinlogCoordinates { file: "b.000001".into(), offset: self.transaction * 1_000 },
                    source_commit_time: Timestamp::from_micros(time),
                    is_snapshot: false,
                }]),
                changed: None,
                before: None,
            };
            pending.take_section(Lane(0), closing, &Section::Rows(batch)).expect("a batch");
        }
        let coordinates = BinlogCoordinates { file: "b.000001".into(), offset: (self.transaction + 1) * 1_000 };
        let position = SourcePosition { lineage: Lineage("a".into()), coordinates, gtid_set: None };
        pending.take(closing, &position).expect("a fold").expect("a shape")
    }

    fn tables(&mut self, rule: Option<&HistoryRule>) -> Tables {
        let fold = self.fold(false, &[1], |_| Operation::Create, 0);
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a store"));
        let shape = fold.shape();
        let of_history =
            HistoryShape::new(&shape.source().table, shape.columns(), &shape.key_names(), None).expect("a shape").spec();
        let of_table = shape.spec();
        let made = Table::create(store.clone(), "sports/tickets".into(), &of_table, options());
        let table = self.runtime.block_on(made).expect("a table");
        let history = rule.map(|rule| {
            let made = Table::create(store.clone(), "sports/tickets_history".into(), &of_history, options());
            (self.runtime.block_on(made).expect("a history"), rule.clone(), None)
        });
        Tables { folder, store, table, history, of_history }
    }

    /// Opens a history anew: who opens a table reads its listing.
    fn reopen(&self, tables: &mut Tables) {
        let opened = Table::open(tables.store.clone(), "sports/tickets_history".into(), &tables.of_history, options());
        let opened = self.runtime.block_on(opened).expect("the history");
        if let Some((history, _, _)) = &mut tables.history {
            *history = opened;
        }
    }

    /// Commits, and says how many seconds that took.
    fn commit(&self, tables: &mut Tables, fold: &Fold) -> f64 {
        let start = Instant::now();
        let of_table = CommitRequest {
            ordering: self.treatment.ordering.clone(),
            ..request(fold.shape().columns(), Some(fold.shape().key_names()), fold.changes())
        };
        self.runtime.block_on(async {
            match &mut tables.history {
                None => _ = tables.table.commit(of_table).await.expect("a commit"),
                Some((history, rule, time)) => {
                    let spill = SpillFolder::new(tables.folder.path().join("spill"));
                    let input = HistoryInput {
                        fold,
                        rule,
                        history,
                        previous_system_time: *time,
                        base: None,
                        spill,
                        memory_bytes: 64 << 20,
                    };
                    let changes = input.changes().expect("the history's changes");
                    *time = Some(changes.system_time);
                    let of_history = request(changes.shape.columns(), None, changes.changes);
                    tables.table.commit_with(of_table, history, of_history).await.expect("a commit");
                }
            }
        });
        start.elapsed().as_secs_f64()
    }

    /// Changes the table alone and with its history, three times each, in turns; gives the medians.
    fn compare(&mut self, plain: &mut Tables, with: &mut Tables, late: u64, is_mixed: bool) -> (f64, f64) {
        let rows = self.rows as i32;
        let operation = move |id: i32| match (is_mixed, id > rows) {
            (true, true) => Operation::Create,
            (true, false) if id % 4 == 0 => Operation::Delete,
            _ => Operation::Update,
        };
        let (mut alone, mut both) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let mut random = Random(round);
            let new = if is_mixed { self.changes * 6 / 10 } else { 0 };
            let mut ids: Vec<i32> = (new..self.changes).map(|_| 1 + random.below(self.rows as u64) as i32).collect();
            let first = rows + 1 + round as i32 * new as i32;
            ids.extend(first..first + new as i32);
            ids.sort_unstable();
            ids.dedup();
            let fold = self.fold(false, &ids, operation, late);
            alone.push(self.commit(plain, &fold));
            self.transaction += 1;
            let fold = self.fold(true, &ids, operation, late);
            both.push(self.commit(with, &fold));
        }
        (median(alone), median(both))
    }

    /// A load and updates; gives the tables as they are then.
    fn case(&mut self, case: &Case) -> [Tables; 2] {
        self.treatment =
            Treatment { partition_by: case.partition_by.clone(), ordering: case.ordering.clone(), ..Treatment::default() };
        let all: Vec<i32> = (1..=self.rows as i32).collect();
        let (mut plain, mut with) = (self.tables(None), self.tables(Some(&case.rule)));
        let fold = self.fold(false, &all, |_| Operation::Create, 0);
        let alone = self.commit(&mut plain, &fold);
        let fold = self.fold(true, &all, |_| Operation::Create, 0);
        print(&format!("load, {}", case.name), self.rows, (alone, self.commit(&mut with, &fold)));
        let pair = self.compare(&mut plain, &mut with, case.late, case.is_mixed);
        let changes = if case.is_mixed { "changes" } else { "updates" };
        print(&format!("{changes}, {}", case.name), self.changes, pair);
        [plain, with]
    }

    /// Updates upon `files` more.
    fn many_files(&mut self, [mut plain, mut with]: [Tables; 2], files: usize) {
        // a history's last files grow for a while: what more files cost is told from commits right before
        self.reopen(&mut with);
        let (_, before) = self.compare(&mut plain, &mut with, 0, false);
        pad(with.folder.path(), files);
        self.reopen(&mut with);
        let (_, more) = self.compare(&mut plain, &mut with, 0, false);
        println!("| three more | {} | | {before:.2} | |", self.changes);
        println!("| the same upon {files} files more | {} | | {more:.2} | {:.2} of before |", self.changes, more / before);
    }

    /// All records at once, some of which correct others.
    fn one_run(&mut self, rule: &HistoryRule) {
        self.treatment = Treatment::default();
        let mut with = self.tables(Some(rule));
        let (start, mut seconds, mut sent) = (Instant::now(), 0.0, 0);
        let all: Vec<i32> = (1..=self.rows as i32).collect();
        for part in all.chunks(COMMIT_ROWS) {
            let mut random = Random(part[0] as u64);
            let mut ids = part[..part.len() - part.len() / CORRECTION].to_vec();
            let new = ids.len();
            for _ in 0..part.len() / CORRECTION {
                ids.push(ids[random.below(new as u64) as usize]);
            }
            sent += ids.len();
            let fold = self.fold(true, &ids, |_| Operation::Update, 10);
            seconds += self.commit(&mut with, &fold);
        }
        let all = start.elapsed().as_secs_f64();
        println!("| one run, a tenth corrections | {sent} | | {seconds:.2} ({all:.2} with making the rows) | |");
    }
}

/// A column of times.
fn times(ids: &[i32], of: impl FnMut(&i32) -> i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(of)).with_timezone("UTC"))
}

fn print(step: &str, rows: usize, (alone, with): (f64, f64)) {
    println!("| {step} | {rows} | {alone:.2} | {with:.2} | {:.2} |", with / alone);
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn request(
    columns: &arrow::datatypes::SchemaRef,
    record_key: Option<Vec<String>>,
    changes: Box<dyn Iterator<Item = binlake::error::Result<SortedChanges>> + Send>,
) -> CommitRequest {
    CommitRequest {
        columns: columns.clone(),
        record_key,
        fill: None,
        truncate: false,
        changes,
        ordering: None,
        extra_metadata: BTreeMap::new(),
    }
}

/// Fills closed partitions with `count` copies of one of the history's files: what a reader lists grows, what it reads doesn't.
fn pad(folder: &Path, count: usize) {
    let history = folder.join("sports/tickets_history");
    let open = history.join("_place=closed-2027-01");
    let file = std::fs::read_dir(&open).expect("closed versions").map(|entry| entry.expect("an entry").path());
    let file = file.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).min().expect("a file");
    let marker = std::fs::read(open.join(".hoodie_partition_metadata")).expect("a marker");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let (_, rest) = name.split_once('_').expect("a file id");
    for number in 0..count {
        let partition = history.join(format!("_place=closed-{}-{:02}", 2000 + number / 12 % 20, 1 + number % 12));
        std::fs::create_dir_all(&partition).expect("a partition");
        std::fs::write(partition.join(".hoodie_partition_metadata"), &marker).expect("a marker");
        std::fs::hard_link(&file, partition.join(format!("{:08x}-0000-4000-8000-000000000000-0_{rest}", number))).expect("a copy");
    }
}

fn cases() -> [Case; 6] {
    let case = |name, late| Case { name, rule: HistoryRule::default(), late, ordering: None, partition_by: None, is_mixed: false };
    let time = || "updated_at".to_owned();
    let by_column = HistoryRule { valid_time: Some(time()), ..HistoryRule::default() };
    let day = PartitionField { column: "created_at".into(), function: Some(PartitionFunction::Day) };
    [
        case("commit time", 0),
        Case { rule: by_column.clone(), is_mixed: true, ..case("valid time, 60/30/10", 0) },
        Case { rule: by_column.clone(), ..case("valid time", 0) },
        Case { rule: by_column.clone(), ..case("valid time, a tenth late", 10) },
        Case { rule: by_column, ordering: Some(time()), ..case("valid time and ordering, a tenth late", 10) },
        Case { partition_by: Some(PartitionBy { fields: vec![day] }), ..case("commit time, 30 partitions", 0) },
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let text = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let value = |name: &str| text(name)?.parse::<usize>().ok();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rows = value("--rows").unwrap_or(if quick { 20_000 } else { 3_500_000 });
    let changes = value("--changes").unwrap_or(rows / 35);
    let files = value("--files").unwrap_or(if quick { 50 } else { 1_600 });
    let is_wanted = |name: &str| text("--only").is_none_or(|only| name.contains(only.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut bench = Bench { runtime, schema: schema(), rows, changes, treatment: Treatment::default(), transaction: 1 };
    let [first, others @ ..] = cases();
    println!("| step | rows | table alone, s | with history, s | times |\n|---|---|---|---|---|");
    if is_wanted(first.name) || is_wanted("many files") {
        let tables = bench.case(&first);
        if is_wanted("many files") {
            bench.many_files(tables, files);
        }
    }
    for case in others.iter().filter(|case| is_wanted(case.name)) {
        bench.case(case);
    }
    if is_wanted("one run") {
        bench.one_run(&others[2].rule);
    }
}
