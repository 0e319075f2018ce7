//! The whole pipeline, measured from outside: the real binary between a private MySQL and a lake in a folder.
//!
//! `cargo bench --bench pipeline [-- end_to_end freshness idle large_transaction]` prints one Markdown row a measurement. `BENCH_ROWS` (default
//! 1,000,000), `BENCH_SECONDS` (default 30), `BENCH_LARGE_ROWS` (default 5,000,000) make it larger or smaller.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "../tests/integration/lake.rs"]
mod lake;
#[path = "../tests/integration/mysql.rs"]
mod mysql;
#[path = "../tests/integration/service.rs"]
mod service;
#[path = "tickets_source.rs"]
mod tickets_source;

use mysql::within;
use service::{Pipeline, Service};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};
use tickets_source::{Source, insert, setting};

const PATIENCE: Duration = Duration::from_secs(900);

struct Bench {
    source: Source,
}

impl Bench {
    async fn new() -> Self {
        Bench { source: Source::new().await }
    }

    async fn sql(&self, statement: &str) {
        self.source.sql(statement).await;
    }

    fn pipeline(&self, commit_interval: &str) -> Pipeline {
        // As a user would write it: everything else at its default.
        Pipeline::from_text(&format!(
            "[source]\nurl = \"{}\"\n[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"{commit_interval}\"\n[admin]\nlisten = \"off\"\n\
             [[table]]\nsource = \"sports.ticket_activity\"\n",
            self.source.server.repl_url()
        ))
    }

    /// Waits until the lake's newest commit covers all that the source has now, and returns when.
    async fn reached(&self, pipeline: &Pipeline, rows: u64) -> Instant {
        let table = pipeline.table(self.source.database, "ticket_activity");
        let all = within(PATIENCE, async || {
            let files = table.base_files(None).unwrap_or_default();
            files.iter().map(|file| lake::row_count(file).unwrap_or(0)).sum::<u64>() == rows
        });
        assert!(all.await, "the lake didn't reach {rows} rows\n{}", pipeline.log_tail());
        Instant::now()
    }
}

/// CPU seconds, RSS and peak RSS (MiB) of a process.
fn usage(service: &Service) -> (f64, u64, u64) {
    let pid = service.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    (ticks / 100.0, mib("VmRSS:"), mib("VmHWM:"))
}

/// Rows that wait in the binlog, until they are all in the lake: inserts, updates of a fifth, deletes of a fiftieth, 1,000 rows a transaction.
async fn end_to_end() {
    let bench = Bench::new().await;
    let pipeline = bench.pipeline("10s");
    pipeline.ok(&["backfill"]);
    let rows = setting("BENCH_ROWS", 1_000_000);
    for _ in 0..rows / 1000 {
        bench.sql(&insert(1000)).await;
    }
    for i in 0..rows / 5000 {
        let (from, to) = (i * 5000 + 1, i * 5000 + 1000);
        bench.sql(&format!("UPDATE ticket_activity SET ticket_price = ticket_price + 1, updated_at = '2026-11-02 09:00:00' WHERE ticketactivity_id BETWEEN {from} AND {to}")).await;
    }
    for i in 0..rows / 50_000 {
        let (from, to) = (i * 50_000 + 2001, i * 50_000 + 3000);
        bench.sql(&format!("DELETE FROM ticket_activity WHERE ticketactivity_id BETWEEN {from} AND {to}")).await;
    }
    let left: u64 = bench.source.server.client().await.value("SELECT COUNT(*) FROM sports.ticket_activity").await.parse().unwrap();
    let changes = rows + rows / 5 + rows / 50;
    let start = Instant::now();
    let service = pipeline.run();
    let seconds = (bench.reached(&pipeline, left).await - start).as_secs_f64();
    let (cpu, _, peak) = usage(&service);
    println!(
        "| end to end, {changes} row changes | {:.0} rows/s | {seconds:.1} s | {cpu:.1} CPU s | peak {peak} MiB |",
        changes as f64 / seconds
    );
    assert!(service.terminate().success());
}

/// Commits at the source until visible in the lake, for each row, at 5,000 row changes a second.
async fn freshness() {
    let bench = Bench::new().await;
    let pipeline = bench.pipeline("2s");
    let service = pipeline.run();
    let table = pipeline.table(bench.source.database, "ticket_activity");
    let seconds = setting("BENCH_SECONDS", 30);
    let rate = setting("BENCH_RATE", 5_000);
    let mut seen: BTreeMap<String, SystemTime> = BTreeMap::new();
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let load = async {
        bench.source.load(rate, seconds).await;
        done.send(()).ok();
    };
    let watch = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let mut linger = 0;
        while linger < 1000 {
            tick.tick().await;
            for instant in table.instants() {
                seen.entry(instant).or_insert_with(SystemTime::now);
            }
            if is_done.try_recv().is_ok() || linger > 0 {
                linger += 1;
            }
        }
    };
    tokio::join!(load, watch);
    let (cpu, _, peak) = usage(&service);
    let mut ages: Vec<i64> = Vec::new();
    for row in table.values(None, &["_hoodie_commit_time", "_commit_ts"]).unwrap() {
        let (Some(instant), Some(time)) = (&row[0], &row[1]) else { continue };
        let committed = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f").unwrap().and_utc().timestamp_millis();
        let visible = seen[instant].duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        ages.push(visible - committed);
    }
    ages.sort_unstable();
    let at = |share: f64| ages[((ages.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "| freshness at {rate} row changes/s for {seconds} s | p50 {:.2} s | p99 {:.2} s | max {:.2} s | {cpu:.1} CPU s, peak {peak} MiB |",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(service.terminate().success());
}

/// A service with nothing to do.
async fn idle() {
    let bench = Bench::new().await;
    bench.sql(&insert(1000)).await;
    let pipeline = bench.pipeline("10s");
    let service = pipeline.run();
    bench.reached(&pipeline, 1000).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (before, ..) = usage(&service);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (cpu, rss, _) = usage(&service);
    println!("| idle | RSS {rss} MiB | {:.2} % of a core | | |", (cpu - before) / 20.0 * 100.0);
    assert!(service.terminate().success());
}

/// One transaction of millions of rows, with the default memory.
async fn large_transaction() {
    let bench = Bench::new().await;
    let pipeline = bench.pipeline("10s");
    pipeline.ok(&["backfill"]);
    let rows = setting("BENCH_LARGE_ROWS", 5_000_000);
    bench.sql(&insert(rows)).await;
    let start = Instant::now();
    let service = pipeline.run();
    let seconds = (bench.reached(&pipeline, rows).await - start).as_secs_f64();
    let (cpu, _, peak) = usage(&service);
    println!(
        "| a transaction of {rows} rows | {:.0} rows/s | {seconds:.1} s | {cpu:.1} CPU s | peak {peak} MiB |",
        rows as f64 / seconds
    );
    assert!(service.terminate().success());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == name);
    if wanted("end_to_end") {
        end_to_end().await;
    }
    if wanted("freshness") {
        freshness().await;
    }
    if wanted("idle") {
        idle().await;
    }
    if wanted("large_transaction") {
        large_transaction().await;
    }
}
