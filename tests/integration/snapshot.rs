//! The snapshot against real servers: one point, all rows once, resumable, each refusal said.

use crate::mysql::{Flavour, Options, Server};
use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use binlake::error::Result;
use binlake::event::{ChangeBatch, Operation, SnapshotProgress, TableId};
use binlake::source::{
    ServerInfo, Snapshot, SnapshotEvent, SnapshotPlan, TablePlan, Wanted, connect, connection_options, load_table,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// A snapshot's tables and settings, with small chunks.
pub(crate) struct Request {
    pub(crate) url: String,
    pub(crate) tables: Vec<(TableId, Wanted)>,
    pub(crate) progress: BTreeMap<TableId, SnapshotProgress>,
    pub(crate) filter: Option<String>,
    pub(crate) chunk_rows: u64,
    pub(crate) lock_wait_timeout: Duration,
}

impl Request {
    pub(crate) fn new(url: String, database: &str, tables: &[&str]) -> Self {
        let tables = tables.iter().map(|name| (TableId::new(database, *name), Wanted::default())).collect();
        Self { url, tables, progress: BTreeMap::new(), filter: None, chunk_rows: 100, lock_wait_timeout: Duration::from_secs(120) }
    }

    pub(crate) async fn open(&self) -> Result<Snapshot> {
        let options = connection_options(&Url::parse(&self.url).unwrap())?;
        let timeout = Duration::from_secs(60);
        let mut conn = connect(&options, timeout).await?;
        let info = ServerInfo::read(&mut conn).await?;
        let mut tables = Vec::new();
        for (table, wanted) in &self.tables {
            tables.push(TablePlan {
                table: load_table(&mut conn, table, wanted).await?,
                policies: Default::default(),
                progress: self.progress.get(table).cloned(),
                filter: self.filter.clone(),
            });
        }
        let plan = SnapshotPlan {
            tables,
            lanes: 4,
            connections: 3,
            chunk_rows: self.chunk_rows,
            batch_bytes: 64 * 1024,
            connect_timeout: timeout,
            lock_wait_timeout: self.lock_wait_timeout,
        };
        Snapshot::open(options, info, plan).await
    }

    pub(crate) async fn read(&self) -> Result<Outcome> {
        collect(self.open().await?, usize::MAX).await
    }
}

/// All that a snapshot sent.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) batches: BTreeMap<TableId, Vec<ChangeBatch>>,
    pub(crate) progress: BTreeMap<TableId, SnapshotProgress>,
    pub(crate) failed: BTreeMap<TableId, String>,
    /// Rows that were sent before the chunk they belong to was whole aren't in here after an interruption.
    pub(crate) chunks: usize,
}

/// Runs `snapshot` until its end, or until `chunks` chunks were read.
pub(crate) async fn collect(snapshot: Snapshot, chunks: usize) -> Result<Outcome> {
    let progress = snapshot.progress().map(|(table, progress)| (table.clone(), progress.clone())).collect();
    let mut outcome = Outcome { progress, ..Outcome::default() };
    let (sender, mut receiver) = mpsc::channel(4);
    let running = tokio::spawn(snapshot.run(sender));
    while outcome.chunks < chunks {
        match receiver.recv().await {
            Some(SnapshotEvent::Rows { batch, .. }) => outcome.batches.entry(batch.schema.table.clone()).or_default().push(batch),
            Some(SnapshotEvent::Progress { table, progress }) => {
                outcome.chunks += 1;
                outcome.progress.insert(table, progress);
            }
            Some(SnapshotEvent::Failed { table, error }) => drop(outcome.failed.insert(table, error.to_string())),
            None => break,
        }
    }
    drop(receiver);
    running.await.unwrap()?;
    Ok(outcome)
}

impl Outcome {
    /// A column's values in a table, as text.
    pub(crate) fn texts(&self, table: &TableId, column: usize) -> Vec<String> {
        let batches = self.batches.get(table).into_iter().flatten();
        let column =
            |batch: &ChangeBatch| arrow::compute::cast(batch.rows.column(column), &arrow::datatypes::DataType::Utf8).unwrap();
        batches
            .flat_map(|batch| {
                column(batch).as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_owned()).collect::<Vec<_>>()
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_point_for_all_connections_under_concurrent_writes() {
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let server = Server::shared(flavour);
        server.create_repl_user().await;
        let database = server.create_database("one_point").await;
        let mut root = server.client().await;
        root.run_all(&format!(
            "USE {database};\nCREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL);\n\
             CREATE TABLE transfers (n BIGINT PRIMARY KEY);\n\
             INSERT INTO accounts WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, 1000 FROM n;"
        ))
        .await;
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Vec::new();
        for writer in 0..2_u64 {
            let (stop, made, database) = (Arc::clone(&stop), Arc::clone(&made), database.clone());
            let mut client = server.client().await;
            writers.push(tokio::spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // each transfer takes from the writer's own account and gives to another; the table of transfers counts them.
                    // No writer waits for another's row: a global lock would wait for both
                    let (n, from, to) = (round * 2 + writer, writer + 1, 3 + 2 * (round * 7 % 448) + writer);
                    client
                        .run_all(&format!(
                            "BEGIN;\nUPDATE {database}.accounts SET balance = balance - 1 WHERE id = {from};\n\
                             UPDATE {database}.accounts SET balance = balance + 1 WHERE id = {to};\n\
                             INSERT INTO {database}.transfers VALUES ({n});\nCOMMIT;"
                        ))
                        .await;
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let progressing = Arc::clone(&made);
        crate::mysql::eventually("transfers are made", async || progressing.load(Ordering::Relaxed) > 20).await;
        for _ in 0..5 {
            let outcome = Request::new(server.repl_url(), &database, &["accounts", "transfers"]).read().await.unwrap();
            let (accounts, transfers) = (TableId::new(&database, "accounts"), TableId::new(&database, "transfers"));
            let balances: Vec<i64> = outcome.batches[&accounts]
                .iter()
                .flat_map(|batch| batch.rows.column(1).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert_eq!(balances.len(), 900);
            assert_eq!(balances.iter().sum::<i64>(), 900_000, "{flavour:?} {:?}", outcome.progress);
            let ids = outcome.texts(&accounts, 0);
            let payers = ids.iter().zip(&balances).filter(|(id, _)| ["1", "2"].contains(&id.as_str()));
            let paid: i64 = payers.map(|(_, balance)| 1000 - balance).sum();
            assert_eq!(paid, i64::try_from(outcome.texts(&transfers, 0).len()).unwrap(), "both tables are at one point");
            let progress = &outcome.progress[&accounts];
            assert_eq!(progress.low_watermark, progress.high_watermark);
            assert_eq!((progress.rows_read, progress.remaining_chunks.len()), (900, 0));
            assert!(
                outcome.batches[&accounts].iter().all(|batch| batch
                    .operations
                    .iter()
                    .flatten()
                    .all(|code| code == Operation::Read.code()))
            );
            assert!(
                outcome.batches[&accounts].iter().all(|batch| batch.transactions.len() == 1 && batch.transactions[0].is_snapshot)
            );
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_resumed_it_reads_only_what_remains() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("resumed").await;
    let mut root = server.client().await;
    root.run_all(&format!(
        "USE {database};\nCREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL);\n\
         INSERT INTO t WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i, i FROM n;\n\
         ANALYZE TABLE t;"
    ))
    .await;
    let table = TableId::new(&database, "t");
    let mut request = Request::new(server.repl_url(), &database, &["t"]);
    let first = collect(request.open().await.unwrap(), 4).await.unwrap();
    let progress = first.progress[&table].clone();
    assert_eq!(progress.rows_read, 400);
    assert!(!progress.remaining_chunks.is_empty());
    // stored and read again, as a cut does it
    let progress: SnapshotProgress = serde_json::from_str(&serde_json::to_string(&progress).unwrap()).unwrap();
    root.run(&format!("INSERT INTO {database}.t VALUES (2000, 1)")).await;
    request.progress.insert(table.clone(), progress.clone());
    let second = request.read().await.unwrap();
    let rows: usize = second.batches[&table].iter().map(ChangeBatch::len).sum();
    assert_eq!(rows, 601, "what remained, and the row that came between");
    let done = &second.progress[&table];
    assert_eq!((done.rows_read, done.remaining_chunks.len()), (1001, 0));
    assert_eq!(done.low_watermark, progress.low_watermark, "the binlog is read from the first point on");
    assert_ne!(done.high_watermark, progress.high_watermark);
    let ids = |outcome: &Outcome| -> BTreeSet<i32> {
        outcome.batches[&table]
            .iter()
            .flat_map(|batch| batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec())
            .collect()
    };
    let all: BTreeSet<i32> = ids(&first).union(&ids(&second)).copied().collect();
    assert_eq!(all, (1..=1000).chain([2000]).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_type_and_collation_are_split_without_loss() {
    let keys = [
        "INT",
        "INT UNSIGNED",
        "BIGINT",
        "DECIMAL(30,10)",
        "DATETIME(6)",
        "DATE",
        "VARBINARY(40)",
        "BINARY(8)",
        "BIT(40)",
        "VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci",
        "VARCHAR(40) CHARACTER SET gbk",
        "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
        "CHAR(40) CHARACTER SET utf16",
        "TIMESTAMP(3)",
    ];
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let server = Server::shared(flavour);
        server.create_repl_user().await;
        let database = server.create_database("keys").await;
        let mut root = server.client().await;
        let mut names = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            // numbers far apart; texts with capitals, spaces and umlauts, unique by any collation
            let value = match key.split(['(', ' ']).next().unwrap() {
                "INT" | "BIGINT" => "i * i * i * 7 % 2000003 - IF('UNSIGNED' = '', 1, 0)".to_owned(),
                "DECIMAL" => "(i - 100) / 7".to_owned(),
                "DATETIME" | "TIMESTAMP" => "'2001-01-01' + INTERVAL i * 12345 SECOND".to_owned(),
                "DATE" => "'1970-01-01' + INTERVAL i * 17 DAY".to_owned(),
                "VARBINARY" | "BINARY" => "UNHEX(SUBSTR(SHA2(i, 256), 1, 16))".to_owned(),
                "BIT" => "i * 1234567".to_owned(),
                _ if key.contains("latin1") => {
                    "CONCAT(ELT(1 + i % 5, 'ä', 'Z ', 'o', 'ß', '_%'), LPAD(i * 7919 % 1009, 5, 'x'))".to_owned()
                }
                _ => "CONCAT(ELT(1 + i % 5, 'é', 'Z ', 'o', '中', '_%'), LPAD(i * 7919 % 1009, 5, 'x'))".to_owned(),
            };
            root.run_all(&format!(
                "USE {database};\nCREATE TABLE t{i} (k {key} NOT NULL, v INT NOT NULL, PRIMARY KEY (k));\n\
                 INSERT INTO t{i} WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 257) SELECT {value}, i FROM n;\n\
                 ANALYZE TABLE t{i};"
            ))
            .await;
            names.push(format!("t{i}"));
        }
        root.run_all(&format!(
            "USE {database};\nCREATE TABLE composite (a VARCHAR(10) CHARACTER SET latin1, b INT, v INT NOT NULL, PRIMARY KEY (a, b));\n\
             INSERT INTO composite WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 257) \
             SELECT ELT(1 + i % 3, 'a', '\u{e9}', ''), i DIV 3, i FROM n;\n\
             CREATE TABLE empty_table (a VARCHAR(10) PRIMARY KEY, v INT);"
        ))
        .await;
        names.push("composite".into());
        names.push("empty_table".into());
        let mut request = Request::new(server.repl_url(), &database, &names.iter().map(String::as_str).collect::<Vec<_>>());
        request.chunk_rows = 10;
        let outcome = request.read().await.unwrap();
        assert_eq!(outcome.failed, BTreeMap::new());
        for name in &names {
            let table = TableId::new(&database, name);
            let column = if name == "composite" { 2 } else { 1 };
            let mut values: Vec<i32> = outcome.texts(&table, column).iter().map(|text| text.parse().unwrap()).collect();
            values.sort_unstable();
            let expected: Vec<i32> = if name == "empty_table" { vec![] } else { (1..=257).collect() };
            assert_eq!(values, expected, "{flavour:?} {name}");
            assert_eq!(outcome.progress[&table].remaining_chunks, []);
        }
        assert!(outcome.chunks > 26 * (names.len() - 2), "{} chunks", outcome.chunks);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_and_a_table_without_a_primary_key() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("filter").await;
    server
        .client()
        .await
        .run_all(&format!(
            "USE {database};\nCREATE TABLE c (code VARCHAR(5), countryname VARCHAR(40) NOT NULL);\n\
             INSERT INTO c VALUES ('IN', 'India'), ('US', 'USA'), ('CA', 'Canada'), ('CN', 'China');"
        ))
        .await;
    let table = TableId::new(&database, "c");
    let mut request = Request::new(server.repl_url(), &database, &["c"]);
    let error = request.read().await.unwrap_err();
    assert!(error.to_string().contains("no primary key") && error.exit_code() == 3, "{error}");
    request.tables[0].1.key = vec!["code".into()];
    request.filter = Some("code LIKE 'C%' OR code = 'US'".into());
    let outcome = request.read().await.unwrap();
    let mut codes = outcome.texts(&table, 0);
    codes.sort();
    assert_eq!(codes, ["CA", "CN", "US"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_lock_privileges_the_point_is_fenced_by_gtids_or_refused() {
    let server = Server::start(Options::default());
    let mut root = server.client().await;
    root.run_all(
        "CREATE DATABASE d;\nCREATE TABLE d.t (id INT PRIMARY KEY);\nINSERT INTO d.t VALUES (1), (2);\n\
         CREATE USER fenced@'%' IDENTIFIED BY 'x';\nGRANT SELECT, REPLICATION CLIENT ON *.* TO fenced@'%';\n\
         CREATE USER tables@'%' IDENTIFIED BY 'x';\nGRANT SELECT, LOCK TABLES, REPLICATION CLIENT ON *.* TO tables@'%';",
    )
    .await;
    let url = |user: &str| format!("mysql://{user}:x@127.0.0.1:{}", server.port());
    for user in ["fenced", "tables"] {
        let outcome = Request::new(url(user), "d", &["t"]).read().await.unwrap();
        let table = TableId::new("d", "t");
        assert_eq!(outcome.texts(&table, 0).len(), 2);
        let progress = &outcome.progress[&table];
        assert_eq!(progress.low_watermark, progress.high_watermark, "nothing was committed meanwhile");
        assert!(progress.low_watermark.gtid_set.is_some());
    }
    drop(root);
    let server = Server::start(Options { gtid: false, ..Options::default() });
    let mut root = server.client().await;
    root.run_all(
        "CREATE DATABASE d;\nCREATE TABLE d.t (id INT PRIMARY KEY);\n\
         CREATE USER fenced@'%' IDENTIFIED BY 'x';\nGRANT SELECT, REPLICATION CLIENT ON *.* TO fenced@'%';",
    )
    .await;
    let error = Request::new(format!("mysql://fenced:x@127.0.0.1:{}", server.port()), "d", &["t"]).read().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the user may lock neither the server nor the tables, and the server has no GTIDs: no consistent point; \
         grant RELOAD (or LOCK TABLES on the tables), or set gtid_mode = ON"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_given_names_who_blocks() {
    let server = Server::start(Options { gtid: false, ..Options::default() });
    server.create_repl_user().await;
    let mut root = server.client().await;
    root.run("GRANT PROCESS ON *.* TO repl@'%'").await;
    root.run_all("CREATE DATABASE d;\nCREATE TABLE d.t (id INT PRIMARY KEY);\nUSE d;\nLOCK TABLES t WRITE;").await;
    let mut request = Request::new(server.repl_url(), "d", &["t"]);
    request.lock_wait_timeout = Duration::from_secs(1);
    let error = request.read().await.unwrap_err().to_string();
    assert!(error.contains("the lock for a snapshot's start was not given in time"), "{error}");
    assert!(error.contains("blocked_by=connection") && error.contains("of root@"), "{error}");
    root.run("UNLOCK TABLES").await;
    assert!(Request::new(server.repl_url(), "d", &["t"]).read().await.is_ok());
}
