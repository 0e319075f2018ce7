//! A ready stream into a table: `cargo bench --bench load [-- --quick] [--rows N] [--memory-mib N] [--repeat N]`.
//!
//! Makes a stream of made tickets once (into `target/bench-data`): a snapshot of N rows in chunks, as the capture sends them. Then, in a process of its own for
//! each repeat, an apply loop reads it into a new table on this machine's disk. Prints wall and CPU seconds, rows a second and the process's peak memory.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "tickets.rs"]
#[allow(dead_code)]
mod tickets;

use arrow::array::{UInt8Array, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use binlake::event::{
    BinlogCoordinates, ChangeBatch, Column, Cut, CutNumber, Epoch, KeyRange, Lane, Lineage, Operation, Section, SnapshotProgress,
    SourcePosition, SourceType, TableId, TableSchema, TableState, TransactionStamp,
};
use binlake::merge::{SpillFolder, TableRule, TableRules};
use binlake::pipeline::{Applied, Apply, ApplyConfig, Cadence, LakeWriter, Status};
use binlake::stream::{EmbeddedLog, EmbeddedOptions, take_over};
use binlake::table::{Lake, LakeUrl, TableOptions};
use binlake::time::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const LANES: u16 = 16;
/// Rows of a snapshot chunk.
const CHUNK_ROWS: usize = 100_000;
/// Rows of a lane's batch: about 1 MiB.
const BATCH_ROWS: usize = 6_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse::<usize>().ok());
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rows = value("--rows").unwrap_or(if quick { 100_000 } else { 3_500_000 });
    let memory = value("--memory-mib").unwrap_or(256);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = target_dir().join("bench-data").join(format!("stream-v1-{rows}"));
    if arguments.iter().any(|argument| argument == "--one") {
        return load(&runtime, &folder, rows, memory);
    }
    if !folder.join("complete").exists() {
        let _ = std::fs::remove_dir_all(&folder);
        let started = Instant::now();
        runtime.block_on(prepare(&folder, rows));
        std::fs::write(folder.join("complete"), "").expect("the mark");
        println!("made the stream in {:.1} s", started.elapsed().as_secs_f64());
    }
    println!("| step | rows | wall s | rows/s | CPU s | peak MiB |");
    println!("|---|--:|--:|--:|--:|--:|");
    for _ in 0..value("--repeat").unwrap_or(if quick { 1 } else { 3 }) {
        // a process of its own: its peak memory is the step's
        let program = std::env::current_exe().expect("this program");
        let arguments = ["--one".into(), "--rows".into(), rows.to_string(), "--memory-mib".into(), memory.to_string()];
        assert!(std::process::Command::new(program).args(arguments).status().expect("a child").success());
    }
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

fn schema() -> Arc<TableSchema> {
    let lake = tickets::columns();
    let column = |field: &arrow::datatypes::FieldRef| Column {
        name: field.name().clone(),
        source_type: match field.data_type() {
            DataType::Int32 => SourceType::Int { unsigned: false },
            DataType::Timestamp(..) => SourceType::DateTime { fsp: 0 },
            _ => SourceType::Text { charset: "utf8mb4".into(), max_bytes: 1024 },
        },
        nullable: false,
    };
    let columns = lake.fields().iter().filter(|field| !field.name().starts_with('_')).map(column).collect();
    Arc::new(TableSchema { table: TableId::new("shop", "tickets"), columns, key: vec![0] })
}

fn position() -> SourcePosition {
    SourcePosition {
        lineage: Lineage("3e11fa47-71ca-11e1-9e33-c80aa9429562".into()),
        coordinates: BinlogCoordinates { file: "binlog.000001".into(), offset: 4 },
        gtid_set: None,
    }
}

async fn prepare(folder: &Path, rows: usize) {
    let log = Arc::new(EmbeddedLog::open(folder, LANES, EmbeddedOptions::default()).expect("a log"));
    let mut producer = take_over(log, async |_| Ok(Epoch(1))).await.expect("a producer").producer;
    let schema = schema();
    let seed = Lane::seed(&schema.table);
    let stamp = TransactionStamp {
        gtid: None,
        coordinates: position().coordinates,
        source_commit_time: Timestamp::from_micros(1_795_270_350_000_000),
        is_snapshot: true,
    };
    let announce = || vec![Section::NewShape { schema: schema.clone(), fill: None, stamp: stamp.clone() }];
    let mut rest: Vec<Vec<Section>> = (0..LANES).map(|_| announce()).collect();
    let mut number = 0;
    for first in (0..rows).step_by(CHUNK_ROWS) {
        let ids: Vec<i32> = (first as i32..(first + CHUNK_ROWS).min(rows) as i32).collect();
        let all = tickets::tickets(&ids, 0).project(&(0..schema.columns.len()).collect::<Vec<_>>()).expect("the source's columns");
        let all = arrow::array::RecordBatch::try_new(schema.arrow(), all.columns().to_vec()).expect("the source's types");
        for lane in 0..LANES {
            let of_lane = |id: &&i32| Lane::of(seed, &id.to_le_bytes(), LANES) == Lane(lane);
            let chosen: Vec<u64> = ids.iter().filter(of_lane).map(|id| (*id as usize - first) as u64).collect();
            for part in chosen.chunks(BATCH_ROWS) {
                let batch = take_record_batch(&all, &UInt64Array::from(part.to_vec())).expect("the lane's rows");
                let rows = batch.num_rows();
                let section = Section::Rows(ChangeBatch {
                    schema: schema.clone(),
                    rows: batch,
                    operations: UInt8Array::from(vec![Operation::Read.code(); rows]),
                    stamps: UInt32Array::from(vec![0; rows]),
                    transactions: Arc::new(vec![stamp.clone()]),
                    changed: None,
                    before: None,
                });
                let mut sections = std::mem::take(&mut rest[usize::from(lane)]);
                sections.push(section);
                producer.send(Lane(lane), sections).await.expect("a chunk");
            }
        }
        number += 1;
        let is_last = first + CHUNK_ROWS >= rows;
        let progress = SnapshotProgress {
            low_watermark: position(),
            high_watermark: position(),
            remaining_chunks: vec![KeyRange::whole()],
            filter: None,
            rows_read: first as u64,
            estimated_rows: rows as u64,
        };
        let state = if is_last { TableState::Live } else { TableState::Snapshot(progress) };
        let cut = Cut {
            number: CutNumber(number),
            position: position(),
            source_commit_time: stamp.source_commit_time,
            tables: BTreeMap::from([(schema.table.clone(), state)]),
            schemas: BTreeMap::new(),
            rules: None,
            complete_until: None,
        };
        producer.cut(Vec::new(), cut).await.expect("a cut");
    }
    producer.flush().await.expect("the end");
}

fn load(runtime: &tokio::runtime::Runtime, stream: &Path, rows: usize, memory: usize) {
    let place = tempfile::tempdir_in(target_dir()).expect("a folder");
    let log = EmbeddedLog::open_to_read(stream).expect("a log").expect("the stream that was made");
    let lake = Lake::create(&LakeUrl::File(place.path().join("lake"))).expect("a lake");
    let half = (memory << 20) / 2;
    let options = TableOptions {
        target_file_bytes: 64 << 20,
        retained_commits: 2,
        rewrite_threads: 2,
        memory_bytes: half as u64,
        writer_name: "bench".into(),
    };
    let rule: TableRule = toml::from_str("source = 'shop.tickets'").expect("a rule");
    let config = ApplyConfig {
        rules: Arc::new(TableRules::new(vec![rule])),
        cadence: Cadence::new(Duration::from_secs(1), half),
        memory_bytes: half,
        spill: SpillFolder::new(place.path().join("spill")),
    };
    let started = Instant::now();
    let cpu = cpu_seconds();
    let changed = runtime.block_on(async {
        let (sender, mut commits) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(true);
        let writer = LakeWriter::new(lake, options);
        let apply = Apply::start(Arc::new(log), writer, config, Status::new(), sender).await.expect("a start");
        apply.run(stopped).await.expect("the load");
        let mut changed = 0;
        while let Ok(Applied::Commit(commit)) = commits.try_recv() {
            changed += commit.summary.map_or(0, |summary| summary.inserted);
        }
        changed
    });
    assert_eq!(changed, rows as u64);
    let wall = started.elapsed().as_secs_f64();
    let rate = rows as f64 / wall;
    println!(
        "| load from a ready stream, {memory} MiB | {rows} | {wall:.2} | {rate:.0} | {:.2} | {} |",
        cpu_seconds() - cpu,
        peak_mib()
    );
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
}
