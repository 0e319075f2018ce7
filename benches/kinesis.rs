//! The way over Kinesis, on stand-ins: `cargo bench --bench kinesis [-- chunks bytes latency end_to_end]` prints Markdown tables.
//!
//! `BENCH_RATE` (default 5,000 row changes a second), `BENCH_SECONDS` (default 20), `BENCH_CHUNKS` (default 4,000) and `BENCH_ROWS` (default 500,000) make it
//! larger or smaller. kinesis-local is faithful and slow, ministack is faster: what they take says little about Amazon's servers, so each line names
//! who used the processors. Bytes don't depend on the machine.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "../tests/integration/lake.rs"]
mod lake;
#[path = "../tests/integration/mysql.rs"]
mod mysql;
#[path = "../tests/integration/service.rs"]
mod service;
#[path = "kinesis/stand_ins.rs"]
mod stand_ins;
#[path = "tickets_source.rs"]
mod tickets_source;

use binlake::event::{Lane, Section};
use binlake::stream::kinesis::{KinesisStream, KinesisUrl, StreamPosition};
use binlake::stream::{Consumer, EmbeddedLog, EventLog, KinesisLog, LaneEvent, LaneProtocol, LaneRecord, LogPosition, StartAt};
use mysql::within;
use service::{Pipeline, Service};
use stand_ins::{StandIn, cpu_seconds};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tickets_source::{Source, insert, setting};

const LANES: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(900);

fn kinesis_url(stand_in: &StandIn) -> String {
    format!("kinesis://bench-{}?endpoint={}&region=us-east-1&create=4&poll=20ms", uuid::Uuid::new_v4(), stand_in.endpoint())
}

fn pipeline(source: &Source, stream: &str) -> Pipeline {
    Pipeline::from_text(&format!(
        "[source]\nurl = \"{}\"\n[stream]\n{stream}\n[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"2s\"\n[admin]\nlisten = \"off\"\n\
         [[table]]\nsource = \"sports.ticket_activity\"\n",
        source.server.repl_url()
    ))
    .environment("AWS_ACCESS_KEY_ID", "bench")
    .environment("AWS_SECRET_ACCESS_KEY", "bench")
}

/// What a stand-in takes: chunks of made bytes on all lanes, one under way on each.
async fn chunks() {
    println!("\n| stand-in | bytes a chunk | chunks/s | MB/s | CPU s of it |\n|---|--:|--:|--:|--:|");
    for stand_in in StandIn::all() {
        for bytes in [3_000, 50_000] {
            let log = Arc::new(KinesisLog::open(&KinesisUrl::parse(&kinesis_url(stand_in)).unwrap(), LANES).await.unwrap());
            let each = (setting("BENCH_CHUNKS", 4_000) / u64::from(LANES)).clamp(1, 100_000_000 / bytes / u64::from(LANES));
            let (start, cpu) = (Instant::now(), stand_in.cpu());
            let mut tasks = tokio::task::JoinSet::new();
            for lane in (0..LANES).map(Lane) {
                let log = log.clone();
                tasks.spawn(async move {
                    let bytes = bytes::Bytes::from(vec![b'x'; bytes as usize]);
                    for _ in 0..each {
                        log.append(vec![LaneRecord { lane, bytes: bytes.clone(), partition_key: None }]).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
            let (seconds, chunks) = (start.elapsed().as_secs_f64(), (each * u64::from(LANES)) as f64);
            let (rate, megabytes) = (chunks / seconds, chunks * bytes as f64 / seconds / 1e6);
            println!("| {} | {bytes} | {rate:.0} | {megabytes:.1} | {:.1} |", stand_in.name, stand_in.cpu() - cpu);
        }
    }
}

/// The same changes on streams of all formats: what each takes there.
async fn bytes() {
    let formats = ["binlake", "dms-json", "debezium-json"];
    let source = Source::new().await;
    let pipelines = formats.map(|format| pipeline(&source, &format!("url = \"file:./data/stream\"\nformat = \"{format}\"")));
    let services: Vec<Service> = pipelines.iter().map(|pipeline| pipeline.start(&["capture"])).collect();
    for pipeline in &pipelines {
        assert!(within(PATIENCE, async || pipeline.log().contains("the snapshot is complete")).await, "{}", pipeline.log_tail());
    }
    let (rate, seconds) = (setting("BENCH_RATE", 5_000), setting("BENCH_SECONDS", 20));
    source.load(rate, seconds).await;
    for service in services {
        assert!(service.terminate().success());
    }
    let chunks = EmbeddedLog::open_to_read(&pipelines[0].path().join("data/stream")).unwrap().unwrap();
    let rows = row_changes(&chunks).await as f64;
    println!("\n{rows:.0} row changes, half inserts and half updates, at {rate} a second\n");
    println!("| format | records | bytes | bytes a row change | of DMS's JSON |\n|---|--:|--:|--:|--:|");
    let mut read = Vec::new();
    for pipeline in &pipelines {
        let log = EmbeddedLog::open_to_read(&pipeline.path().join("data/stream")).unwrap().unwrap();
        let (mut reader, mut records, mut bytes) = (log.read(None).await.unwrap(), 0, 0);
        loop {
            let batch = reader.next().await.unwrap();
            if batch.is_empty() {
                break;
            }
            records += batch.len();
            bytes += batch.iter().map(|record| record.bytes.len()).sum::<usize>();
        }
        read.push((records, bytes as f64));
    }
    for (format, (records, bytes)) in formats.iter().zip(&read) {
        println!("| {format} | {records} | {bytes:.0} | {:.1} | {:.1} % |", bytes / rows, bytes / read[1].1 * 100.0);
    }
}

/// How many row changes are on a stream of chunks.
async fn row_changes(log: &dyn EventLog) -> usize {
    let mut consumer = Consumer::open(log, None, LaneProtocol::new(LANES, StartAt::Beginning)).await.unwrap();
    let mut rows = 0;
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        let LaneEvent::Sections { sections, .. } = event else { continue };
        rows += sections.iter().map(|section| if let Section::Rows(batch) = section { batch.len() } else { 0 }).sum::<usize>();
    }
    rows
}

/// From a row's commit at the source until the stream has it, by the arrival time that the stream gives to records.
async fn latency() {
    let (rate, seconds) = (setting("BENCH_RATE", 5_000), setting("BENCH_SECONDS", 20));
    println!("\nSource commit until the stream has the row, at {rate} row changes a second for {seconds} s\n");
    println!("| stand-in | rows | p50 ms | p99 ms | worst ms | CPU s of ours | of it |\n|---|--:|--:|--:|--:|--:|--:|");
    for stand_in in StandIn::all() {
        let source = Source::new().await;
        let url = kinesis_url(stand_in);
        let pipeline = pipeline(&source, &format!("url = \"{url}\""));
        let service = pipeline.start(&["capture"]);
        assert!(within(PATIENCE, async || pipeline.log().contains("the snapshot is complete")).await, "{}", pipeline.log_tail());
        let of_it = stand_in.cpu();
        source.load(rate, seconds).await;
        let (of_ours, of_it) = (cpu_seconds(service.pid()), stand_in.cpu() - of_it);
        assert!(service.terminate().success());
        let mut ages = ages(&url).await;
        ages.sort_unstable();
        let at = |share: f64| ages[((ages.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {of_ours:.1} | {of_it:.1} |",
            stand_in.name,
            ages.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// Each row's age in microseconds when its record arrived.
async fn ages(url: &str) -> Vec<i64> {
    let stream = KinesisStream::open(&KinesisUrl::parse(url).unwrap(), false).await.unwrap().unwrap();
    let mut reader = stream.reader(&StreamPosition::Oldest).await.unwrap();
    let mut protocol = LaneProtocol::new(LANES, StartAt::Beginning);
    let mut ages = Vec::new();
    loop {
        let records = reader.next().await.unwrap();
        if records.is_empty() {
            return ages;
        }
        for record in records {
            let arrived = record.arrived.unwrap().as_micros();
            let lane = Lane(record.partition_key.parse().unwrap());
            let read = LaneRecord { lane, bytes: record.data, partition_key: None };
            for event in protocol.accept(&LogPosition(String::new()), &read).unwrap() {
                let LaneEvent::Sections { sections, .. } = event else { continue };
                for section in sections {
                    let Section::Rows(batch) = section else { continue };
                    let stamps = batch.stamps.iter().map(|stamp| &batch.transactions[stamp.unwrap() as usize]);
                    ages.extend(
                        stamps.filter(|stamp| !stamp.is_snapshot).map(|stamp| arrived - stamp.source_commit_time.as_micros()),
                    );
                }
            }
        }
    }
}

/// Rows that wait in the binlog, until the lake has them all.
async fn end_to_end() {
    let rows = setting("BENCH_ROWS", 500_000);
    println!("\n{rows} rows from the binlog over the stream into the lake, 1,000 a transaction\n");
    println!("| stand-in | rows/s | s | CPU s of ours | of it |\n|---|--:|--:|--:|--:|");
    for stand_in in StandIn::all() {
        let source = Source::new().await;
        let pipeline = pipeline(&source, &format!("url = \"{}\"", kinesis_url(stand_in)));
        pipeline.ok(&["backfill"]);
        for _ in 0..rows / 1000 {
            source.sql(&insert(1000)).await;
        }
        let (start, of_it) = (Instant::now(), stand_in.cpu());
        let service = pipeline.run();
        let table = pipeline.table(source.database, "ticket_activity");
        let all = within(PATIENCE, async || {
            let files = table.base_files(None).unwrap_or_default();
            files.iter().map(|file| lake::row_count(file).unwrap_or(0)).sum::<u64>() == rows
        });
        assert!(all.await, "the lake didn't reach {rows} rows\n{}", pipeline.log_tail());
        let seconds = start.elapsed().as_secs_f64();
        let (of_ours, of_it) = (cpu_seconds(service.pid()), stand_in.cpu() - of_it);
        println!("| {} | {:.0} | {seconds:.1} | {of_ours:.1} | {of_it:.1} |", stand_in.name, rows as f64 / seconds);
        assert!(service.terminate().success());
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == name);
    if wanted("chunks") {
        chunks().await;
    }
    if wanted("bytes") {
        bytes().await;
    }
    if wanted("latency") {
        latency().await;
    }
    if wanted("end_to_end") {
        end_to_end().await;
    }
}
