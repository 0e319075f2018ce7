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

use mysql::{Options, Server, within};
use service::{Pipeline, Service};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(900);

const TABLE: &str = "CREATE TABLE ticket_activity (ticketactivity_id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sport_type VARCHAR(256) NOT NULL,
    start_date DATETIME NOT NULL, location VARCHAR(256) NOT NULL, seat_level VARCHAR(256) NOT NULL, seat_location VARCHAR(256) NOT NULL, ticket_price INT NOT NULL,
    customer_name VARCHAR(256) NOT NULL, email_address VARCHAR(256) NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL)";

/// Inserts `count` tickets in one transaction, made by the server itself from a table of 1,000 numbers.
fn insert(count: u64) -> String {
    format!(
        "INSERT INTO ticket_activity (sport_type,start_date,location,seat_level,seat_location,ticket_price,customer_name,email_address,created_at,updated_at)
         SELECT ELT(n % 5 + 1,'baseball','football','basketball','ice hockey','tennis'), '2026-01-01' + INTERVAL n MINUTE,
           ELT(n % 4 + 1,'Seattle, Lumen Field','New York, Madison Square Garden','Boston, Fenway Park','Münster, Preußenstadion'),
           ELT(n % 3 + 1,'Standard','Premium','Luxury'), CONCAT(CHAR(65 + n % 8),'-',n % 59,'-',n % 397), 20 + n % 880, CONCAT('Customer ', n * 7919 % 100003),
           CONCAT('customer.', n * 7919 % 1000003, '@example.com'), UTC_TIMESTAMP(), UTC_TIMESTAMP()
         FROM (SELECT a.n + 1000 * b.n + 1000000 * c.n AS n FROM numbers a, numbers b, numbers c WHERE c.n < 10 LIMIT {count}) AS made"
    )
}

struct Bench {
    server: Server,
    database: &'static str,
}

impl Bench {
    async fn new() -> Self {
        let options = ["--innodb-buffer-pool-size=512M", "--binlog-cache-size=1M", "--innodb-redo-log-capacity=512M"];
        let server = Server::start(options.into_iter().fold(Options::default(), Options::with));
        server.create_repl_user().await;
        let bench = Bench { server, database: "sports" };
        bench.server.client().await.run("CREATE DATABASE sports").await;
        bench.sql("CREATE TABLE numbers (n BIGINT PRIMARY KEY)").await;
        bench
            .sql(&format!("INSERT INTO numbers VALUES {}", (0..1000).map(|n| format!("({n})")).collect::<Vec<_>>().join(",")))
            .await;
        bench.sql(TABLE).await;
        bench
    }

    async fn sql(&self, statement: &str) {
        let mut client = self.server.client().await;
        client.run("USE sports").await;
        client.run(statement).await;
    }

    fn pipeline(&self, commit_interval: &str) -> Pipeline {
        // As a user would write it: everything else at its default.
        Pipeline::from_text(&format!(
            "[source]\nurl = \"{}\"\n[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"{commit_interval}\"\n[admin]\nlisten = \"off\"\n\
             [[table]]\nsource = \"sports.ticket_activity\"\n",
            self.server.repl_url()
        ))
    }

    /// Waits until the lake's newest commit covers all that the source has now, and returns when.
    async fn reached(&self, pipeline: &Pipeline, rows: u64) -> Instant {
        let table = pipeline.table(self.database, "ticket_activity");
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

fn setting(name: &str, unless_told: u64) -> u64 {
    std::env::var(name).map_or(unless_told, |text| text.parse().unwrap())
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
    let left: u64 = bench.server.client().await.value("SELECT COUNT(*) FROM sports.ticket_activity").await.parse().unwrap();
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
    let table = pipeline.table(bench.database, "ticket_activity");
    let seconds = setting("BENCH_SECONDS", 30);
    let rate = setting("BENCH_RATE", 5_000);
    let mut seen: BTreeMap<String, SystemTime> = BTreeMap::new();
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let load = async {
        let mut client = bench.server.client().await;
        client.run("USE sports").await;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for i in 0..seconds * 50 {
            tick.tick().await;
            // Half inserts, half updates of earlier rows, in transactions of a fiftieth second.
            let half = rate / 100;
            client.run("BEGIN").await;
            client.run(&insert(half)).await;
            let from = (i * 7919) % (i * half + 1) + 1;
            client.run(&format!("UPDATE ticket_activity SET ticket_price = {i}, updated_at = UTC_TIMESTAMP() WHERE ticketactivity_id BETWEEN {from} AND {}", from + half - 1)).await;
            client.run("COMMIT").await;
        }
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
