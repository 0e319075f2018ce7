//! The binlog followed by the whole program: what happens at the source is in the lake, or its table is stopped with a reason. Named by the fact.

use crate::mysql::{Client, Flavour, Options, Server, eventually};
use crate::service::{Pipeline, Service};
use binlake::event::Section;
use binlake::stream::{Consumer, EmbeddedLog, EventLog, LaneEvent, LaneProtocol, StartAt};

/// A pipeline over all tables of a new database on a shared server.
pub(crate) struct Scene {
    pub(crate) server: &'static Server,
    pub(crate) database: String,
    pub(crate) pipeline: Pipeline,
    pub(crate) client: Client,
}

impl Scene {
    pub(crate) async fn new(topic: &str) -> Self {
        Self::on(Server::shared(Flavour::MySql), topic, "").await
    }

    pub(crate) async fn on(server: &'static Server, topic: &str, rule: &str) -> Self {
        server.create_repl_user().await;
        let database = server.create_database(topic).await;
        let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n{rule}"));
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        Self { server, database, pipeline, client }
    }

    pub(crate) async fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            self.client.run(statement).await;
        }
    }

    pub(crate) async fn catches_up(&self, tables: &[&str]) {
        for table in tables {
            self.pipeline.catches_up(self.server, &self.database, table).await;
        }
    }

    /// Waits for the line that says that a table is stopped, and gives it.
    pub(crate) async fn stops(&self, table: &str) -> String {
        self.line("ERROR", table).await
    }

    /// Waits for a line of the log that has `text` and is about a table, and gives it.
    pub(crate) async fn line(&self, text: &str, table: &str) -> String {
        let name = format!("table={}.{table}", self.database);
        let is_meant = |line: &&str| line.contains(text) && line.split([' ', ',']).any(|word| word == name);
        let line = || self.pipeline.log().lines().find(is_meant).map(str::to_owned);
        eventually("the log says so", async || line().is_some()).await;
        line().unwrap_or_default()
    }

    pub(crate) fn ends_well(&self, service: Service) {
        assert!(service.terminate().success(), "{}", self.pipeline.log_tail());
    }
}

#[tokio::test]
async fn transactions_of_all_kinds() {
    let mut scene = Scene::new("transactions").await;
    scene
        .run(&[
            "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20))",
            "CREATE TABLE b (x INT, y VARCHAR(10) COLLATE utf8mb4_0900_ai_ci, n BIGINT UNSIGNED, PRIMARY KEY (x, y))",
            "INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["a", "b"]).await;
    scene
        .run(&[
            // several tables, a savepoint, a rollback
            "BEGIN",
            "INSERT INTO a VALUES (4, 'four')",
            "INSERT INTO b VALUES (1, 'k', 18446744073709551615)",
            "SAVEPOINT s",
            "INSERT INTO a VALUES (5, 'gone')",
            "ROLLBACK TO SAVEPOINT s",
            "UPDATE a SET v = 'vier' WHERE id = 4",
            "COMMIT",
            "BEGIN",
            "DELETE FROM a",
            "ROLLBACK",
            // the key changes, also in its letters' case alone
            "UPDATE a SET id = 10 WHERE id = 1",
            "UPDATE b SET y = 'K'",
            "REPLACE INTO a VALUES (2, 'zwei')",
            "INSERT INTO a VALUES (3, 'x'), (6, 'six') ON DUPLICATE KEY UPDATE v = 'drei'",
            "INSERT INTO b VALUES (2, 'pad ', 0), (2, 'z', NULL)",
            "DELETE FROM b WHERE y = 'z'",
            "CREATE TABLE made_later (id INT PRIMARY KEY, d DATE) SELECT 7 AS id, '2026-11-21' AS d",
            "INSERT INTO made_later VALUES (8, NULL)",
        ])
        .await;
    scene.catches_up(&["a", "b", "made_later"]).await;
    // XA: rows are logged when the transaction is prepared, and count when it is committed
    scene.run(&["XA START 'x1'", "INSERT INTO a VALUES (20, 'xa')", "XA END 'x1'", "XA PREPARE 'x1'", "XA COMMIT 'x1'"]).await;
    scene.run(&["XA START 'x2'", "INSERT INTO a VALUES (21, 'never')", "XA END 'x2'", "XA PREPARE 'x2'", "XA ROLLBACK 'x2'"]).await;
    scene.run(&["XA START 'x3'", "INSERT INTO a VALUES (22, 'one phase')", "XA END 'x3'", "XA COMMIT 'x3' ONE PHASE"]).await;
    scene.catches_up(&["a"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

/// Whether changes of the binlog are on a pipeline's stream, read from outside.
async fn has_changes(pipeline: &Pipeline) -> bool {
    let Some(log) = EmbeddedLog::open_to_read(&pipeline.path().join("data/stream")).unwrap() else { return false };
    let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Beginning);
    let mut consumer = Consumer::open(&log, None, protocol).await.unwrap();
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        let LaneEvent::Sections { sections, .. } = event else { continue };
        let is_change =
            |section: &Section| matches!(section, Section::Rows(rows) if rows.transactions.iter().any(|stamp| !stamp.is_snapshot));
        if sections.iter().any(is_change) {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn rows_are_on_the_stream_long_before_their_cut() {
    let mut scene = Scene::new("flush").await;
    scene.run(&["CREATE TABLE numbers (id INT AUTO_INCREMENT PRIMARY KEY)"]).await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("cut_interval = \"50ms\"", "cut_interval = \"1h\""));
    let service = scene.pipeline.start(&["capture"]);
    let (pipeline, client) = (&scene.pipeline, &mut scene.client);
    eventually("a change is on the stream", async || {
        client.run("INSERT INTO numbers VALUES ()").await;
        has_changes(pipeline).await
    })
    .await;
    scene.ends_well(service);
}

#[tokio::test]
async fn truncate() {
    let mut scene = Scene::new("truncate").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.run(&["INSERT INTO t VALUES (4)", "TRUNCATE TABLE t", "INSERT INTO t VALUES (5)"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn tagged_gtids_and_compressed_transactions() {
    let mut scene = Scene::new("tagged").await;
    scene
        .run(&[
            "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
            "SET gtid_next = 'AUTOMATIC:before'",
            "INSERT INTO t VALUES (1, 'x')",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.run(&["SET gtid_next = 'AUTOMATIC:tag'", "INSERT INTO t VALUES (2, 'tagged')", "SET gtid_next = 'AUTOMATIC'"]).await;
    scene.run(&["SET binlog_transaction_compression = ON", "INSERT INTO t VALUES (3, REPEAT('long', 10000))"]).await;
    scene.run(&["BEGIN", "UPDATE t SET v = CONCAT(v, '!')", "DELETE FROM t WHERE id = 1", "COMMIT"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    // a new start from a position with tags
    scene.run(&["INSERT INTO t VALUES (4, 'while stopped')"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn schema_changes_live_and_while_stopped() {
    let mut scene = Scene::new("schema").await;
    scene
        .run(&["CREATE TABLE t (id INT PRIMARY KEY, n INT, v VARCHAR(10))", "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')"])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene
        .run(&[
            "INSERT INTO t VALUES (3, 3, 'before')",
            "ALTER TABLE t ADD COLUMN added INT NOT NULL DEFAULT 7 AFTER id, ADD note VARCHAR(20) CHARACTER SET latin1 DEFAULT 'gr\u{fc}n'",
            "INSERT INTO t (id, n, v, note) VALUES (4, 4, 'after', '\u{e9}')",
            "UPDATE t SET v = 'changed' WHERE id = 1",
            "ALTER TABLE t ADD INDEX (n), ADD nothing DATETIME(3)",
        ])
        .await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene
        .run(&[
            "INSERT INTO t (id, n) VALUES (5, 5)",
            "ALTER TABLE t MODIFY n BIGINT, ADD price DECIMAL(10,2) NOT NULL DEFAULT 1.5",
            "INSERT INTO t (id, n, price) VALUES (6, 3000000000, 9.99)",
            "UPDATE t SET n = -3000000000 WHERE id = 2",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn what_cannot_be_followed_stops_its_table_and_a_backfill_brings_it_back() {
    let mut scene = Scene::new("stops").await;
    for table in ["dropped", "narrowed", "swapped", "minimal", "textual", "partial", "other"] {
        scene.run(&[&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v VARCHAR(20), j JSON)")]).await;
        scene.run(&[&format!("INSERT INTO {table} VALUES (1, 'a', '{{\"k\": \"a long text to be kept\", \"n\": 1}}')")]).await;
    }
    let service = scene.pipeline.run();
    scene.catches_up(&["dropped", "narrowed", "swapped", "minimal", "textual", "partial", "other"]).await;
    scene.run(&["DROP TABLE dropped"]).await;
    assert!(scene.stops("dropped").await.contains("dropped"));
    scene.run(&["ALTER TABLE narrowed MODIFY v CHAR(4), DROP PRIMARY KEY, ADD PRIMARY KEY (id)"]).await;
    assert!(scene.stops("narrowed").await.contains("backfill"));
    scene.run(&["CREATE TABLE _swapped_gho LIKE swapped", "RENAME TABLE swapped TO _swapped_del, _swapped_gho TO swapped"]).await;
    assert!(scene.stops("swapped").await.contains("renamed"));
    scene.run(&["SET binlog_row_image = MINIMAL", "UPDATE minimal SET v = 'b'", "SET binlog_row_image = FULL"]).await;
    assert!(scene.stops("minimal").await.contains("binlog_row_image"));
    scene.run(&["SET binlog_format = STATEMENT", "UPDATE textual SET v = 'b'", "SET binlog_format = ROW"]).await;
    assert!(scene.stops("textual").await.contains("binlog_format"));
    scene
        .run(&[
            "SET binlog_row_value_options = PARTIAL_JSON",
            "UPDATE partial SET j = JSON_SET(j, '$.n', 2)",
            "SET binlog_row_value_options = ''",
        ])
        .await;
    assert!(scene.stops("partial").await.contains("binlog_row_value_options"));
    scene.run(&["INSERT INTO other VALUES (2, 'goes on', NULL)"]).await;
    scene.catches_up(&["other"]).await;
    scene.ends_well(service);
    let database = scene.database.clone();
    scene.pipeline.ok(&["backfill", "--table", &format!("{database}.narrowed"), "--table", &format!("{database}.minimal")]);
    scene.run(&["INSERT INTO narrowed VALUES (2, 'more', NULL)", "INSERT INTO other VALUES (3, 'on', NULL)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["narrowed", "minimal", "other"]).await;
    scene.ends_well(service);
}

#[tokio::test]
async fn a_killed_connection_is_made_anew() {
    let mut scene = Scene::new("killed").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    for id in 2..5 {
        let threads = scene.client.rows("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'").await;
        for thread in threads.into_iter().flatten().flatten() {
            // it may have gone by itself
            let _ = scene.client.try_run(&format!("KILL {thread}")).await;
        }
        scene.run(&[&format!("INSERT INTO t VALUES ({id})")]).await;
        scene.catches_up(&["t"]).await;
    }
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn purged_binlog() {
    let server: &'static Server = Box::leak(Box::new(Server::start(Options::default())));
    let mut scene = Scene::on(server, "purged", "").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.run(&["INSERT INTO t VALUES (2)", "FLUSH BINARY LOGS"]).await;
    scene.client.purge_binlogs().await;
    let answer = scene.pipeline.answer(&["run"]);
    assert_eq!(answer.code, 3, "{}", answer.err);
    assert!(answer.err.contains("no longer has the binlog") && answer.err.contains("backfill"), "{}", answer.err);
    scene.pipeline.ok(&["backfill"]);
    scene.run(&["INSERT INTO t VALUES (3)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    // the same without a person
    scene.run(&["DELETE FROM t WHERE id = 1", "FLUSH BINARY LOGS"]).await;
    scene.client.purge_binlogs().await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("[stream]", "on_gap = \"resnapshot\"\n[stream]"));
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
}

/// The connection breaks, and when the service is back the server no longer has what it needs.
async fn a_gap_while_it_runs(options: Options) {
    let server: &'static Server = Box::leak(Box::new(Server::start(options)));
    let mut scene = Scene::on(server, "gap", "").await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("[stream]", "on_gap = \"resnapshot\"\n[stream]"));
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    scene.run(&["INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)", "INSERT INTO u VALUES (1)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t", "u"]).await;
    service.signal("STOP");
    let threads = scene.client.rows("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'").await;
    for thread in threads.into_iter().flatten().flatten() {
        // it may have gone by itself
        let _ = scene.client.try_run(&format!("KILL {thread}")).await;
    }
    scene
        .run(&["DELETE FROM t WHERE id = 1", "INSERT INTO u VALUES (2)", "FLUSH BINARY LOGS", "UPDATE t SET v = 0 WHERE id = 2"])
        .await;
    scene.run(&["FLUSH BINARY LOGS"]).await;
    scene.client.purge_binlogs().await;
    service.signal("CONT");
    scene.catches_up(&["t", "u"]).await;
    assert!(scene.pipeline.log().contains("all tables are read anew"), "{}", scene.pipeline.log_tail());
    scene.run(&["INSERT INTO t VALUES (4, 4)"]).await;
    scene.catches_up(&["t", "u"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
    server.kill();
}

#[tokio::test]
async fn a_gap_while_it_runs_with_gtids() {
    a_gap_while_it_runs(Options::default()).await;
}

#[tokio::test]
async fn a_gap_while_it_runs_without_gtids() {
    a_gap_while_it_runs(Options { gtid: false, ..Options::default() }).await;
}

#[tokio::test]
async fn a_gap_while_it_runs_on_mariadb() {
    a_gap_while_it_runs(Options::mariadb()).await;
}

#[tokio::test]
async fn without_gtids_file_and_offset_lead_on() {
    let server: &'static Server = Box::leak(Box::new(Server::start(Options { gtid: false, ..Options::default() })));
    let mut scene = Scene::on(server, "offsets", "").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))", "INSERT INTO t VALUES (1, 'a')"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.run(&["INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS", "UPDATE t SET v = 'c' WHERE id = 1"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.run(&["DELETE FROM t WHERE id = 2", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'd')"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn mariadb() {
    let mut scene = Scene::on(Server::shared(Flavour::MariaDb), "maria", "").await;
    scene
        .run(&[
            "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(20), y YEAR, j JSON, d DATETIME(3), tm TIME(2), e ENUM('x','y'), m MEDIUMINT, u UUID)"
                .replace(", u UUID", "")
                .as_str(),
            "INSERT INTO t VALUES (1, 'one', 2026, '{\"a\": 1}', '2026-11-21 10:11:12.345', '-01:02:03.45', 'y', -5)",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene
        .run(&[
            "INSERT INTO t VALUES (4294967295, 'größe', 1901, '[1]', NULL, '838:59:59', NULL, -8388608)",
            "BEGIN",
            "UPDATE t SET v = 'eins', id = 7 WHERE id = 1",
            "INSERT INTO t (id) VALUES (8)",
            "COMMIT",
            "ALTER TABLE t ADD COLUMN added VARCHAR(10) DEFAULT 'new'",
            "INSERT INTO t (id, v) VALUES (9, 'with it')",
        ])
        .await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene
        .run(&[
            "DELETE FROM t WHERE id = 8",
            "INSERT INTO t (id) VALUES (10)",
            "FLUSH BINARY LOGS",
            "UPDATE t SET v = 'x' WHERE id = 10",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.run(&["TRUNCATE t", "INSERT INTO t (id) VALUES (11)"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}
