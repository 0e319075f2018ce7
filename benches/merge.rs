//! Changes to a table: `cargo bench --bench merge [-- --quick] [--rows N] [--repeat N]`.
//!
//! Loads made tickets into a new table on this machine's disk, then commits batches of changed tickets, 98 % of them existing ones, spread evenly. The data is
//! made once, into `target/bench-data`. Prints, for each step, the best and the median of the repeats: wall and CPU seconds, rows a second,
//! and the process's peak memory since the step began.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "tickets.rs"]
mod tickets;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use binlake::error::{Error, Result};
use binlake::table::{CommitRequest, CommitSummary, SortedChanges, Table, TableOptions, TableSpec};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tickets::Random;

const BATCH_ROWS: usize = 16_384;

/// What a step changes.
#[derive(Clone, Copy)]
enum Kind {
    /// All columns of tickets all over the table.
    Spread,
    /// New tickets at the end.
    Append,
    /// Price and time of tickets all over the table: the other columns stay.
    TwoColumns,
}

struct Step {
    name: &'static str,
    rows: usize,
    kind: Kind,
}

struct Measured {
    wall: f64,
    cpu: f64,
    peak_mib: u64,
    files: u64,
    bytes: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse::<usize>().ok());
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rows = value("--rows").unwrap_or(if quick { 100_000 } else { 3_500_000 });
    let repeat = value("--repeat").unwrap_or(if quick { 1 } else { 3 });
    let threads = value("--threads").unwrap_or(2);
    let target = value("--target-mib").unwrap_or(32);
    let memory = value("--memory-mib").unwrap_or(512);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let steps = [
        Step { name: "two columns of a tenth", rows: rows / 10, kind: Kind::TwoColumns },
        Step { name: "two columns of a thousandth", rows: rows / 1000, kind: Kind::TwoColumns },
        Step { name: "change a tenth", rows: rows / 10, kind: Kind::Spread },
        Step { name: "change a thousandth", rows: rows / 1000, kind: Kind::Spread },
        Step { name: "change 100", rows: 100, kind: Kind::Spread },
        Step { name: "append a thousandth", rows: rows / 1000, kind: Kind::Append },
    ];
    let data = prepare(rows, repeat, &steps);
    let place = tempfile::tempdir_in(target_dir()).expect("a folder for the table");
    println!("| step | rows | best s | median s | rows/s | CPU s | peak MiB | files | MB written |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut table = None;
    let mut loads = Vec::new();
    for round in 0..repeat {
        let folder = place.path().join(format!("t{round}"));
        fs::create_dir_all(&folder).expect("a folder");
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&folder).expect("a store"));
        let options = TableOptions {
            target_file_bytes: (target as u64) << 20,
            retained_commits: 2,
            rewrite_threads: threads,
            memory_bytes: (memory as u64) << 20,
            writer_name: "bench".to_owned(),
        };
        let base = object_store::path::Path::from("lake/shop/tickets");
        let mut new = runtime.block_on(Table::create(store, base, &spec(), options)).expect("a table");
        loads.push(measure(&runtime, &mut new, &data.join("base.arrow")));
        if let Some(_old) = table.replace(new) {
            fs::remove_dir_all(place.path().join(format!("t{}", round - 1))).expect("the last round's table");
        }
    }
    print("load", rows, loads);
    let mut table = table.expect("a table");
    for (i, step) in steps.iter().enumerate() {
        let measured = (0..repeat).map(|round| measure(&runtime, &mut table, &data.join(format!("{i}-{round}.arrow")))).collect();
        print(step.name, step.rows, measured);
    }
    if arguments.iter().any(|argument| argument == "--keep") {
        println!("kept {}", place.keep().display());
    }
}

fn target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    fs::create_dir_all(&target).expect("a target folder");
    target
}

fn spec() -> TableSpec {
    TableSpec {
        database: "shop".to_owned(),
        name: "tickets".to_owned(),
        columns: tickets::columns(),
        record_key: vec!["ticketactivity_id".to_owned()],
        sort_prefix: Vec::new(),
        ordering_field: "_commit_ts".to_owned(),
        partition_columns: Vec::new(),
    }
}

/// Makes the input files, once.
fn prepare(rows: usize, repeat: usize, steps: &[Step]) -> PathBuf {
    let folder = target_dir().join("bench-data").join(format!("tickets-1-{rows}"));
    fs::create_dir_all(&folder).expect("a folder for the data");
    let count = i32::try_from(rows).expect("ids fit 32 bits");
    let all: Vec<i32> = (1..=count).collect();
    write(&folder.join("base.arrow"), &all, |ids| tickets::tickets(ids, 0));
    let mut next_id = count + 1;
    for (i, step) in steps.iter().enumerate() {
        for round in 0..repeat {
            let mut random = Random((i * 100 + round) as u64);
            let new = match step.kind {
                Kind::Spread => (step.rows / 50).max(1),
                Kind::Append => step.rows,
                Kind::TwoColumns => 0,
            };
            let mut ids = std::collections::BTreeSet::new();
            while ids.len() < step.rows - new {
                ids.insert(1 + random.below(rows as u64) as i32);
            }
            let mut ids: Vec<i32> = ids.into_iter().collect();
            ids.extend((0..new as i32).map(|k| next_id + k));
            next_id += new as i32;
            let revision = (1 + i * 100 + round) as i64;
            write(&folder.join(format!("{i}-{round}.arrow")), &ids, |ids| match step.kind {
                Kind::TwoColumns => two_columns(ids, revision),
                _ => tickets::tickets(ids, revision),
            });
        }
    }
    folder
}

/// The tickets as they were loaded, but for price, `updated_at` and Binlake's own columns.
fn two_columns(ids: &[i32], revision: i64) -> RecordBatch {
    let changed = tickets::tickets(ids, revision);
    let mut columns = tickets::tickets(ids, 0).columns().to_vec();
    for name in ["ticket_price", "updated_at", "_commit_ts", "_position"] {
        let index = changed.schema().index_of(name).expect("a column");
        columns[index] = Arc::clone(changed.column(index));
    }
    RecordBatch::try_new(changed.schema(), columns).expect("columns of one length")
}

fn write(path: &Path, ids: &[i32], mut make: impl FnMut(&[i32]) -> RecordBatch) {
    if path.exists() {
        return;
    }
    let unfinished = path.with_extension("unfinished");
    let mut writer = FileWriter::try_new(File::create(&unfinished).expect("a file"), &tickets::columns()).expect("a writer");
    for ids in ids.chunks(BATCH_ROWS) {
        writer.write(&make(ids)).expect("a batch");
    }
    writer.finish().expect("the end");
    fs::rename(unfinished, path).expect("the file in its place");
}

fn measure(runtime: &tokio::runtime::Runtime, table: &mut Table, input: &Path) -> Measured {
    let reader = FileReader::try_new(BufReader::new(File::open(input).expect("the data")), None).expect("Arrow IPC");
    let changes = reader.map(|batch| -> Result<SortedChanges> {
        let rows = batch.map_err(|error| Error::bug("the data can't be read").caused_by(error))?;
        let is_delete = BooleanArray::from(vec![false; rows.num_rows()]);
        Ok(SortedChanges { rows, is_delete })
    });
    let request = CommitRequest {
        columns: tickets::columns(),
        record_key: None,
        fill: None,
        truncate: false,
        changes: Box::new(changes),
        ordering: None,
        extra_metadata: BTreeMap::new(),
    };
    // the peak counts from here
    _ = fs::write("/proc/self/clear_refs", "5");
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let summary: CommitSummary = runtime.block_on(table.commit(request)).expect("a commit");
    Measured {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
        peak_mib: peak_mib(),
        files: summary.files_written,
        bytes: summary.bytes_written,
    }
}

fn print(name: &str, rows: usize, mut measured: Vec<Measured>) {
    measured.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let (best, median) = (&measured[0], &measured[measured.len() / 2]);
    println!(
        "| {name} | {rows} | {:.2} | {:.2} | {:.0} | {:.2} | {} | {} | {:.1} |",
        best.wall,
        median.wall,
        rows as f64 / best.wall,
        best.cpu,
        measured.iter().map(|one| one.peak_mib).max().unwrap_or(0),
        best.files,
        best.bytes as f64 / 1e6
    );
}

/// User and system time of the process so far; zero where there is no /proc.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
