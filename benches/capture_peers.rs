//! Capture, ours beside Debezium's embedded engine, over one server's binlog: `cargo bench --bench capture_peers`.
//!
//! Ours goes from the binlog to durable chunks on the embedded log; Debezium's makes JSON and drops it. Ours is timed from
//! its start, Debezium from its first row, so without the start of its JVM; twice, in turns. `bulk`: a million inserts, 200,000 updates, 20,000 deletes, 1,000 rows a transaction. `small`: 200,000 inserts, each its own
//! transaction. `BENCH_SCALE` (default 1) scales both; without Debezium's jars (`scripts/bench_peers.sh` gets them) only ours runs.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "../tests/integration/mysql.rs"]
mod mysql;

use binlake::config::{Config, Needs};
use binlake::pipeline::{Halves, Status};
use mysql::{Client, Options, Server, within};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const COLUMNS: &str =
    "(sport_type,start_date,location,seat_level,seat_location,ticket_price,customer_name,email_address,created_at,updated_at)";
const VALUES: &str = "ELT(n % 5 + 1,'baseball','football','basketball','ice hockey','tennis'), '2026-01-01' + INTERVAL n MINUTE,
    ELT(n % 4 + 1,'Seattle, Lumen Field','New York, Madison Square Garden','Boston, Fenway Park','Münster, Preußenstadion'), ELT(n % 3 + 1,'Standard','Premium','Luxury'),
    CONCAT(CHAR(65 + n % 8),'-',n % 59,'-',n % 397), 20 + n % 880, CONCAT('Customer ', n * 7919 % 100003), CONCAT('customer.', n * 7919 % 1000003, '@example.com'),
    '2026-11-01 08:00:00', '2026-11-01 08:00:00'";

async fn prepare(client: &mut Client) {
    client.run("CREATE DATABASE shop").await;
    client.run("USE shop").await;
    client
        .run(
            "CREATE TABLE ticket_activity (ticketactivity_id INT AUTO_INCREMENT PRIMARY KEY, sport_type VARCHAR(256), start_date DATETIME, location VARCHAR(256),
             seat_level VARCHAR(256), seat_location VARCHAR(256), ticket_price INT, customer_name VARCHAR(256), email_address VARCHAR(256),
             created_at DATETIME, updated_at DATETIME)",
        )
        .await;
    client.run("CREATE TABLE numbers (n INT PRIMARY KEY)").await;
    client.run(&format!("INSERT INTO numbers VALUES {}", (0..1000).map(|n| format!("({n})")).collect::<Vec<_>>().join(","))).await;
}

/// Writes the workload, by procedures in the server; returns its row changes.
async fn load(client: &mut Client, workload: &str, scale: f64) -> u64 {
    let scaled = |count: u64| (count as f64 * scale) as u64;
    let transactions = if workload == "bulk" { scaled(1000) } else { scaled(200_000) };
    let insert = match workload {
        "bulk" => format!("INSERT INTO ticket_activity {COLUMNS} SELECT {VALUES} FROM numbers"),
        _ => format!("INSERT INTO ticket_activity {COLUMNS} SELECT {VALUES} FROM (SELECT i AS n) AS one"),
    };
    let run = format!(
        "CREATE PROCEDURE load_inserts() BEGIN DECLARE i INT DEFAULT 0; WHILE i < {transactions} DO {insert}; SET i = i + 1; END WHILE; END"
    );
    client.run(&run).await;
    client.run("CALL load_inserts()").await;
    if workload != "bulk" {
        return transactions;
    }
    let between = "WHERE ticketactivity_id BETWEEN i * 5000 + 1 AND i * 5000 + 1000";
    let updates =
        format!("UPDATE ticket_activity SET ticket_price = ticket_price + 1, updated_at = '2026-11-02 09:00:00' {between}");
    let deletes = "DELETE FROM ticket_activity WHERE ticketactivity_id BETWEEN i * 50000 + 2001 AND i * 50000 + 3000";
    for (name, statement, count) in
        [("load_updates", updates.as_str(), transactions / 5), ("load_deletes", deletes, transactions / 50)]
    {
        client
            .run(&format!("CREATE PROCEDURE {name}() BEGIN DECLARE i INT DEFAULT 0; WHILE i < {count} DO {statement}; SET i = i + 1; END WHILE; END"))
            .await;
        client.run(&format!("CALL {name}()")).await;
    }
    transactions * 1000 + transactions / 5 * 1000 + transactions / 50 * 1000
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat.rsplit_once(')').unwrap().1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields[11] + fields[12]) / 100.0
}

fn config(folder: &Path, server: &Server) -> Config {
    let file = folder.join("binlake.toml");
    let text = format!(
        "[source]\nurl = \"{}\"\n[admin]\nlisten = \"off\"\n[stream]\ncut_interval = \"100ms\"\n[[table]]\nsource = \"shop.ticket_activity\"\n",
        server.repl_url()
    );
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), Needs::All).unwrap()
}

/// Captures `rows` row changes into a copy of the stream as it was before the load.
async fn ours(prepared: &Path, server: &Server, rows: u64) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(prepared.join("data")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let status = Status::new();
    let (cpu, view) = (cpu_seconds(), status.clone());
    let mut last = None;
    let shutdown = async {
        within(Duration::from_secs(600), async || view.view().captured_rows >= rows).await;
        last = Some(Instant::now());
    };
    let begun = Instant::now();
    binlake::pipeline::run(config(folder.path(), server), Halves::Capture, status.clone(), shutdown).await.unwrap();
    assert_eq!(status.view().captured_rows, rows);
    ((last.unwrap() - begun).as_secs_f64(), cpu_seconds() - cpu)
}

/// Seconds from the first to the last row of Debezium's embedded engine; `None` without its jars.
fn debezium(server: &Server, rows: u64) -> Option<f64> {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/binlake");
    let jars = std::env::var_os("BINLAKE_CACHE").map_or_else(home, PathBuf::from).join("debezium");
    if !jars.exists() {
        return None;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/debezium/Capture.java");
    let output = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(program)
        .args([&server.port().to_string(), "repl", "secret", "shop.ticket_activity", &rows.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "Debezium read {text}");
    text.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let scale = std::env::var("BENCH_SCALE").map_or(1.0, |text| text.parse().unwrap());
    println!("| workload | reader | rows/s | seconds | CPU s |\n|---|---|--:|--:|--:|");
    for workload in ["bulk", "small"] {
        // keys without gaps: the updates and deletes count on them; without GTIDs: Debezium's client fails at the binlog's start with them
        let options = ["--innodb-buffer-pool-size=512M", "--innodb-autoinc-lock-mode=0", "--gtid-mode=OFF"];
        let server = Server::start(options.into_iter().fold(Options::default(), Options::with));
        server.create_repl_user().await;
        let mut client = server.client().await;
        prepare(&mut client).await;
        // The empty table's snapshot comes first: what is measured is the binlog.
        let prepared = tempfile::tempdir().unwrap();
        binlake::pipeline::backfill(config(prepared.path(), &server), Default::default(), Status::new(), std::future::pending())
            .await
            .unwrap();
        let rows = load(&mut client, workload, scale).await;
        for _ in 0..2 {
            let (seconds, cpu) = ours(prepared.path(), &server, rows).await;
            println!(
                "| {workload}, {rows} row changes | binlake, to durable chunks | {:.0} | {seconds:.2} | {cpu:.2} |",
                rows as f64 / seconds
            );
            if let Some(seconds) = debezium(&server, rows) {
                println!(
                    "| {workload}, {rows} row changes | Debezium 3.6.1, to JSON, dropped | {:.0} | {seconds:.2} | |",
                    rows as f64 / seconds
                );
            }
        }
    }
}
