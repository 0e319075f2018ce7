//! The snapshot alone: a table's rows into batches for the lanes.
//!
//! `cargo bench --bench snapshot` fills a private MySQL with 3,500,000 tickets (`BENCH_SCALE`, default 1.0) and reads them with 1, 2 and 4 connections;
//! `BENCH_MYSQL=mysql://user@host:port` takes a server that has them already. Prints rows/s, CPU seconds of this process (the server's come on top) and its peak RSS.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panic")]

#[path = "../tests/integration/mysql.rs"]
mod mysql;
mod usage;

use binlake::error::Result;
use binlake::event::TableId;
use binlake::source::{
    ServerInfo, Snapshot, SnapshotEvent, SnapshotPlan, TablePlan, Wanted, connect, connection_options, load_table,
};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use usage::{setting, usage};

const ROWS: f64 = 3_500_000.0;

/// Reads all tickets; gives the rows.
async fn read(url: &str, connections: usize) -> Result<u64> {
    let options = connection_options(&url.parse().expect("a URL"))?;
    let timeout = Duration::from_secs(10);
    let mut conn = connect(&options, timeout).await?;
    let info = ServerInfo::read(&mut conn).await?;
    let table = load_table(&mut conn, &TableId::new("sports", "ticket_activity"), &Wanted::default()).await?;
    let plan = SnapshotPlan {
        tables: vec![TablePlan { table, policies: Default::default(), progress: None, filter: None }],
        lanes: 16,
        connections,
        chunk_rows: 100_000,
        batch_bytes: 1 << 20,
        connect_timeout: timeout,
        lock_wait_timeout: timeout,
    };
    let snapshot = Snapshot::open(options, info, plan).await?;
    let (sender, mut receiver) = mpsc::channel(16);
    let running = tokio::spawn(snapshot.run(sender));
    let mut rows = 0;
    while let Some(event) = receiver.recv().await {
        match event {
            SnapshotEvent::Rows { batch, .. } => rows += batch.len() as u64,
            SnapshotEvent::Progress { .. } => {}
            SnapshotEvent::Failed { error, .. } => return Err(error),
        }
    }
    running.await.expect("the snapshot ends")?;
    Ok(rows)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server;
    let url = match std::env::var("BENCH_MYSQL") {
        Ok(url) => url,
        Err(_) => {
            let options = mysql::Options::default().with("--innodb-buffer-pool-size=1G").with("--innodb-redo-log-capacity=1G");
            server = mysql::Server::start(options);
            let rows = (ROWS * setting("BENCH_SCALE", 1.0)).to_string();
            let filled = Command::new(env!("CARGO_BIN_EXE_binlake"))
                .args(["generate", "--workload", "tickets", "--rows", &rows, "--url", &server.root_url()])
                .status();
            assert!(filled.expect("generate runs").success());
            server.root_url()
        }
    };
    println!("| connections | rows | seconds | rows/s | CPU s | peak RSS MiB |\n|---|---|---|---|---|---|");
    // the first reading fills the server's cache
    read(&url, 2).await.expect("the snapshot works");
    for connections in [1, 2, 4] {
        let (before, started) = (usage().0, Instant::now());
        let rows = read(&url, connections).await.expect("the snapshot works");
        let seconds = started.elapsed().as_secs_f64();
        let (cpu, peak) = usage();
        println!("| {connections} | {rows} | {seconds:.2} | {:.0} | {:.2} | {peak} |", rows as f64 / seconds, cpu - before);
    }
}
