//! What clients do to tables, in one place: keys of every kind, statements of every kind, columns that come and widen. All of it is in the lake.

use crate::capture::Scene;
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::{compare, duckdb, hudi_rs};
use crate::service::source_rows;

const FLAVOURS: [Flavour; 2] = [Flavour::MySql, Flavour::MariaDb];

impl Scene {
    async fn of(flavour: Flavour, topic: &str, rule: &str) -> Self {
        Self::on(Server::shared(flavour), topic, rule).await
    }

    /// The readers that no one here wrote see what the source's SELECT gives.
    async fn is_read_by_others(&self, tables: &[&str]) {
        let views = self.pipeline.lake().join("views.sql");
        for table in tables {
            let (columns, rows) = source_rows(self.server, &self.database, table).await;
            let folder = self.pipeline.table(&self.database, table).folder().display().to_string();
            compare("hudi-rs", table, &rows, hudi_rs(&folder, &columns, &[]));
            compare("DuckDB", table, &rows, duckdb(&views, &format!("{}.{table}", self.database), &columns));
        }
    }
}

/// A table by its key: name, columns, the key's values for five rows.
type Keyed = (&'static str, &'static str, [&'static str; 5]);

/// Each has columns of its key and `v`.
const KEYED: [Keyed; 9] = [
    ("by_int", "k INT PRIMARY KEY", ["-2147483648", "-1", "0", "7", "2147483647"]),
    ("by_unsigned", "k BIGINT UNSIGNED PRIMARY KEY", ["0", "9", "10", "9223372036854775808", "18446744073709551615"]),
    ("by_text", "k VARCHAR(20) CHARACTER SET utf8mb4 PRIMARY KEY", ["''", "'a'", "'Z ä'", "'naïve 🦀'", "'%/:='"]),
    ("by_latin", "k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY", ["''", "'a'", "'é'", "'10'", "'9'"]),
    ("by_bytes", "k VARBINARY(16) PRIMARY KEY", ["''", "x'ff'", "x'ff00'", "x'ff0000'", "x'c3'"]),
    ("by_decimal", "k DECIMAL(20,5) PRIMARY KEY", ["-1.5", "0", "0.00001", "99999.5", "-99999999.99999"]),
    (
        "by_time",
        "k DATETIME(6) PRIMARY KEY",
        [
            "'1000-01-01'",
            "'1969-12-31 23:59:59.999999'",
            "'2026-11-21 14:12:30.5'",
            "'2026-11-21 14:12:30'",
            "'9999-12-31 23:59:59'",
        ],
    ),
    ("by_member", "k ENUM('b','a','ü','d','e') PRIMARY KEY", ["'b'", "'a'", "'ü'", "'d'", "'e'"]),
    ("by_day", "k DATE PRIMARY KEY", ["'1000-01-01'", "'1969-12-31'", "'1970-01-01'", "'2026-11-21'", "'9999-12-31'"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_kind() {
    for flavour in FLAVOURS {
        let mut scene = Scene::of(flavour, "keys", "").await;
        let rule = format!("[[table]]\nsource = \"{}.declared\"\nkey = [\"code\", \"country\"]\n", scene.database);
        scene.pipeline.set_config(&(scene.pipeline.config() + &rule));
        for (table, key, values) in KEYED {
            scene.run(&[&format!("CREATE TABLE {table} ({key}, v INT)")]).await;
            // two by the snapshot, the others by the binlog
            scene.run(&[&format!("INSERT INTO {table} VALUES ({}, 1), ({}, 2)", values[0], values[1])]).await;
        }
        scene
            .run(&[
                "CREATE TABLE composite (a INT, b VARCHAR(10), c DATE, v INT, PRIMARY KEY (b, c, a))",
                "INSERT INTO composite VALUES (1, 'x', '2026-01-01', 1), (1, 'y', '2026-01-01', 2), (2, 'x', '2025-01-01', 3)",
                "CREATE TABLE declared (code VARCHAR(5) NOT NULL, country VARCHAR(40) NOT NULL, combined VARCHAR(40) NOT NULL)",
                "INSERT INTO declared VALUES ('IN', 'India', 'IN-India'), ('US', 'USA', 'US-USA'), ('CA', 'Canada', 'CA-Canada')",
                "CREATE TABLE keyless (code VARCHAR(5), country VARCHAR(40) NOT NULL)",
                "INSERT INTO keyless VALUES ('IN', 'India')",
            ])
            .await;
        let mut tables: Vec<&str> = KEYED.iter().map(|(table, ..)| *table).collect();
        tables.extend(["composite", "declared"]);
        let service = scene.pipeline.run();
        scene.catches_up(&tables).await;
        let refused = scene.line("table isn't replicated", "keyless").await;
        assert!(refused.contains("key = ["), "{refused}");
        for (table, _, [first, second, third, fourth, fifth]) in KEYED {
            scene
                .run(&[
                    &format!("INSERT INTO {table} VALUES ({third}, 3), ({fourth}, 4)"),
                    &format!("UPDATE {table} SET v = v * 10 WHERE k = {first}"),
                    &format!("UPDATE {table} SET k = {fifth} WHERE k = {second}"),
                    &format!("DELETE FROM {table} WHERE k = {third}"),
                    &format!("REPLACE INTO {table} VALUES ({fourth}, 44), ({second}, 22)"),
                    &format!("INSERT INTO {table} VALUES ({fifth}, 0), ({third}, 33) ON DUPLICATE KEY UPDATE v = 55"),
                ])
                .await;
        }
        scene
            .run(&[
                // two rows change places
                "BEGIN",
                "UPDATE by_int SET k = 100 WHERE k = 7",
                "UPDATE by_int SET k = 7 WHERE k = 2147483647",
                "UPDATE by_int SET k = 2147483647 WHERE k = 100",
                "COMMIT",
                "UPDATE composite SET c = '2024-02-29' WHERE b = 'x' AND a = 1",
                "UPDATE composite SET v = 30 WHERE a = 2",
                "DELETE FROM composite WHERE b = 'y'",
                "INSERT INTO composite VALUES (1, 'x', '2026-01-01', 10), (-1, '', '2026-01-01', 11)",
                "UPDATE declared SET combined = 'US-USA-US' WHERE code = 'US'",
                "UPDATE declared SET code = 'C', country = 'Canada!' WHERE code = 'CA'",
                "DELETE FROM declared WHERE code = 'IN'",
                "INSERT INTO declared VALUES ('CN', 'China', 'CN-China')",
                "INSERT INTO keyless VALUES ('US', 'USA')",
            ])
            .await;
        scene.catches_up(&tables).await;
        scene.ends_well(service);
        scene.is_read_by_others(&tables).await;
        assert!(!scene.pipeline.table(&scene.database, "keyless").folder().exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_every_kind() {
    for flavour in FLAVOURS {
        let mut scene = Scene::of(flavour, "statements", "").await;
        scene
            .run(&[
                "CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, n INT, v VARCHAR(20))",
                "CREATE TABLE b (id INT PRIMARY KEY, n INT)",
                "CREATE TABLE old_engine (id INT PRIMARY KEY, v VARCHAR(20)) ENGINE = MyISAM",
                "INSERT INTO a (n, v) VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')",
            ])
            .await;
        let service = scene.pipeline.run();
        scene.catches_up(&["a", "b", "old_engine"]).await;
        scene
            .run(&[
                // savepoints, released and rolled back, over two tables
                "BEGIN",
                "INSERT INTO b VALUES (1, 1)",
                "SAVEPOINT one",
                "UPDATE a SET n = 100",
                "SAVEPOINT two",
                "DELETE FROM b",
                "ROLLBACK TO two",
                "RELEASE SAVEPOINT one",
                "INSERT INTO b VALUES (2, 2)",
                "COMMIT",
                // nothing of this stays
                "BEGIN",
                "DELETE FROM a",
                "INSERT INTO b VALUES (3, 3)",
                "ROLLBACK",
                // a statement that commits what was under way, so that the rollback finds nothing
                "BEGIN",
                "INSERT INTO b VALUES (4, 4)",
                "CREATE TABLE c (id INT PRIMARY KEY, v DECIMAL(8,2))",
                "ROLLBACK",
                "INSERT INTO c VALUES (1, 1.5)",
                // several tables in one statement
                "UPDATE a JOIN b ON a.id = b.id SET a.v = 'joined', b.n = b.n * 10",
                "DELETE a FROM a JOIN b ON a.id = b.id WHERE b.id = 2",
                "INSERT IGNORE INTO b VALUES (1, 999), (5, 5)",
                "INSERT INTO b SELECT id + 100, n FROM a",
                "REPLACE INTO a (id, n, v) VALUES (1, 11, 'replaced'), (50, 5, 'new')",
                "INSERT INTO a (id, n) VALUES (50, 6), (51, 7) ON DUPLICATE KEY UPDATE n = n + 1, id = id + 10",
                "UPDATE a SET id = id + 1000 ORDER BY id DESC",
                // an update that changes nothing; a delete that finds nothing
                "UPDATE a SET n = n",
                "DELETE FROM a WHERE id = -1",
                // no transactions here
                "INSERT INTO old_engine VALUES (1, 'a'), (2, 'b')",
                "UPDATE old_engine SET v = 'c' WHERE id = 2",
                "DELETE FROM old_engine WHERE id = 1",
                // tables of the session alone
                "CREATE TEMPORARY TABLE mine (id INT PRIMARY KEY)",
                "INSERT INTO mine VALUES (70), (71)",
                "INSERT INTO b SELECT id, 0 FROM mine",
                "DROP TEMPORARY TABLE mine",
                // emptied between two rows
                "INSERT INTO c VALUES (2, 2)",
                "TRUNCATE TABLE c",
                "INSERT INTO c VALUES (2, 3), (3, 3)",
                "TRUNCATE c",
                "INSERT INTO c VALUES (4, -4.25)",
                "ALTER TABLE c COMMENT 'no other shape', ADD INDEX (v)",
                "OPTIMIZE TABLE c",
                "CREATE OR REPLACE VIEW seen AS SELECT * FROM c",
                "UPDATE c SET v = 0 WHERE id = 4",
            ])
            .await;
        scene.catches_up(&["a", "b", "c", "old_engine"]).await;
        scene.ends_well(service);
        scene.pipeline.assert_calm_log();
        scene.is_read_by_others(&["a", "b", "c", "old_engine"]).await;
    }
}

/// Columns that come, in any place, with every kind of default; rows between.
const ADDED: [&str; 12] = [
    "ADD COLUMN first_one INT FIRST",
    "ADD COLUMN filled VARCHAR(10) NOT NULL AFTER id",
    "ADD COLUMN e ENUM('x','y') NOT NULL",
    "ADD COLUMN at DATETIME(3) DEFAULT '2026-01-01 10:11:12.5', ADD COLUMN day DATE NOT NULL DEFAULT '2026-02-28' FIRST",
    "ADD num DECIMAL(5,2) NOT NULL DEFAULT -1.50",
    "ADD (two INT DEFAULT 2, three BIGINT UNSIGNED NOT NULL DEFAULT 18446744073709551615)",
    "ADD COLUMN s SET('p','q') DEFAULT 'p,q'",
    "ADD COLUMN raw VARBINARY(8) DEFAULT x'00ff'",
    "ADD COLUMN flag TINYINT(1) NOT NULL DEFAULT TRUE",
    "ADD COLUMN clock TIME NOT NULL DEFAULT '-01:02:03'",
    "ADD COLUMN y YEAR DEFAULT 2026",
    "ADD COLUMN dbl DOUBLE NOT NULL DEFAULT 2.5e10",
];

/// Types that widen, in the lake or at the source alone.
const WIDENED: [&str; 9] = [
    "MODIFY i BIGINT",
    "MODIFY u INT UNSIGNED",
    "MODIFY f DOUBLE",
    "MODIFY d DECIMAL(14,4)",
    "MODIFY v TEXT",
    "MODIFY m ENUM('a','b','c')",
    "MODIFY t DATETIME(6)",
    "MODIFY c VARCHAR(40) CHARACTER SET utf8mb4 FIRST",
    "MODIFY id BIGINT NOT NULL",
];

const WIDENING: &str = "id INT PRIMARY KEY, i INT, u SMALLINT UNSIGNED, f FLOAT, d DECIMAL(10,2), v VARCHAR(10), m ENUM('a','b'), t DATETIME, \
     c CHAR(4) CHARACTER SET latin1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_and_types_widen_live_and_while_stopped() {
    for flavour in FLAVOURS {
        let mut scene = Scene::of(flavour, "columns", "").await;
        // NOT NULL without a default is what the type has by itself
        scene.run(&["SET sql_mode = ''"]).await;
        for suffix in ["live", "stopped"] {
            scene
                .run(&[
                    &format!("CREATE TABLE added_{suffix} (id INT PRIMARY KEY, n INT)"),
                    &format!("INSERT INTO added_{suffix} VALUES (1, 1), (2, 2), (3, 3)"),
                    &format!("CREATE TABLE widened_{suffix} ({WIDENING})"),
                    &format!(
                        "INSERT INTO widened_{suffix} VALUES (1, -2147483648, 65535, 0.1, -12345678.25, 'x', 'b', '2026-01-01 00:00:01', 'é'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
                    ),
                ])
                .await;
        }
        let mut number = 10;
        let mut change = async |scene: &mut Scene, suffix: &str| {
            for clause in ADDED {
                number += 1;
                scene
                    .run(&[
                        &format!("ALTER TABLE added_{suffix} {clause}"),
                        &format!("INSERT INTO added_{suffix} (id, n) VALUES ({number}, 0)"),
                        &format!("UPDATE added_{suffix} SET n = n + 1 WHERE id <= {number} AND id % 2 = 0"),
                    ])
                    .await;
            }
            for clause in WIDENED {
                number += 1;
                scene
                    .run(&[
                        &format!("ALTER TABLE widened_{suffix} {clause}"),
                        &format!("INSERT INTO widened_{suffix} (id, i, f, d) VALUES ({number}, 1, 0.3, 1.25)"),
                    ])
                    .await;
            }
            scene
                .run(&[&format!(
                    "INSERT INTO widened_{suffix} (id, i, u, f, d, v, m, t, c) VALUES (3000000000, 3000000000, 4294967295, 4294967296.5, 1234567890.1234, REPEAT('long ', 20), 'c', '2026-01-01 00:00:00.123456', 'größer 🦀')"
                )])
                .await;
        };
        let tables = ["added_live", "widened_live", "added_stopped", "widened_stopped"];
        let service = scene.pipeline.run();
        scene.catches_up(&tables).await;
        change(&mut scene, "live").await;
        scene.catches_up(&tables[..2]).await;
        scene.ends_well(service);
        change(&mut scene, "stopped").await;
        let service = scene.pipeline.run();
        scene.catches_up(&tables).await;
        scene.ends_well(service);
        scene.pipeline.assert_calm_log();
        scene.is_read_by_others(&tables).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_any_value() {
    let mut scene = Scene::of(Flavour::MySql, "partitions", "partition_by = \"place\"").await;
    let values = [
        "NULL",
        "''",
        "'a/b'",
        "'a:b'",
        "'a=b'",
        "'100 %'",
        "' two  spaces '",
        "'größer 🦀'",
        "'%2F'",
        "'..'",
        "'it''s \"so\"'",
        "'__HIVE_DEFAULT_PARTITION__'",
        "'#?*[x]{y}^\\\\'",
        "'plain'",
    ];
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, place VARCHAR(40), v INT)"]).await;
    for (id, value) in values.iter().enumerate() {
        scene.run(&[&format!("INSERT INTO t VALUES ({id}, {value}, 0), ({}, {value}, 0)", id + 100)]).await;
    }
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    // each row to the next partition, two of which are one (NULL and the empty text)
    for (id, value) in values.iter().cycle().skip(1).take(values.len()).enumerate() {
        scene.run(&[&format!("UPDATE t SET place = {value}, v = v + 1 WHERE id = {id}")]).await;
    }
    scene.catches_up(&["t"]).await;
    scene
        .run(&[
            "BEGIN",
            "UPDATE t SET place = '' WHERE place IS NULL",
            "UPDATE t SET place = NULL WHERE place = ''",
            "UPDATE t SET place = '' WHERE id = 100",
            "COMMIT",
            "DELETE FROM t WHERE id < 5",
            "UPDATE t SET v = 7",
        ])
        .await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
    scene.is_read_by_others(&["t"]).await;
    let sql = format!("SELECT count(*) FROM {}.t WHERE place = 'a/b'", scene.database);
    let counted = scene.pipeline.ok(&["query", "--format", "csv", &sql]);
    let expected = scene.client.value("SELECT COUNT(*) FROM t WHERE place = 'a/b'").await;
    assert_eq!(counted.lines().nth(1), Some(expected.as_str()));
    let verified = scene.pipeline.answer(&["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cascades_are_followed_or_warned_of() {
    for flavour in FLAVOURS {
        let mut scene = Scene::of(flavour, "cascades", "").await;
        scene
            .run(&[
                "CREATE TABLE parent (id INT PRIMARY KEY)",
                "CREATE TABLE child (id INT PRIMARY KEY, parent INT, other INT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE, \
                 CONSTRAINT harmless FOREIGN KEY (other) REFERENCES parent (id))",
                "INSERT INTO parent VALUES (1), (2), (3)",
                "INSERT INTO child VALUES (10, 1, NULL), (20, 2, 3), (30, 3, 3), (31, 3, NULL)",
            ])
            .await;
        let report = scene.pipeline.ok(&["doctor"]).split_whitespace().collect::<Vec<_>>().join(" ");
        let is_warned = report.contains("ON DELETE CASCADE ON UPDATE CASCADE") && report.contains("not in the binlog");
        assert_eq!(is_warned, flavour == Flavour::MariaDb, "{report}");
        assert!(!report.contains("harmless"), "{report}");
        let service = scene.pipeline.run();
        scene.catches_up(&["parent", "child"]).await;
        scene.run(&["DELETE FROM parent WHERE id = 1", "UPDATE parent SET id = 22 WHERE id = 2"]).await;
        match flavour {
            Flavour::MySql => scene.catches_up(&["parent", "child"]).await,
            Flavour::MariaDb => {
                scene.catches_up(&["parent"]).await;
                scene.line("not in the server's binlog", "child").await;
            }
        }
        scene.ends_well(service);
        let verified = scene.pipeline.answer(&["verify", "--wait", "0s"]);
        assert_eq!(verified.code, i32::from(flavour == Flavour::MariaDb), "{}{}", verified.out, verified.err);
    }
}

/// Of any two commits of orders and lines at one position, the totals are the sums of the lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_and_their_lines_agree_at_each_position() {
    let scene = Scene::of(Flavour::MySql, "orders", "").await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("[lake]\n", "[lake]\nretained_commits = 1000\n"));
    let (root, database) = (scene.server.root_url(), scene.database.clone());
    let generate = |arguments: &[&str]| {
        let common = ["generate", "--workload", "orders", "--database", &database, "--url", &root];
        scene.pipeline.ok(&[&common[..], arguments].concat())
    };
    let said = generate(&["--rows", "2000"]);
    assert!(said.contains(" inserted, 0 updated, 0 deleted"), "{said}");
    let service = scene.pipeline.run();
    // one commit is the snapshot's, the others come behind it
    eventually("the snapshot is in the lake", async || {
        ["orders", "order_lines"].iter().all(|table| !scene.pipeline.table(&database, table).instants().is_empty())
    })
    .await;
    let said = generate(&["--rate", "800", "--mix", "40/40/20", "--duration", "6s"]);
    assert!(!said.contains(" 0 updated") && !said.contains(" 0 deleted"), "{said}");
    scene.catches_up(&["orders", "order_lines"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();

    let differ = format!(
        "SELECT o.order_id FROM {database}.orders o LEFT JOIN (SELECT order_id, SUM(quantity * price) AS total FROM {database}.order_lines GROUP BY order_id) l \
         ON o.order_id = l.order_id WHERE l.total IS NULL OR o.total <> l.total"
    );
    let positions = |table: &str| -> Vec<String> {
        let lake = scene.pipeline.table(&database, table);
        let of = |instant: &String| lake.commit(instant)["extraMetadata"]["binlake.position"].as_str().map(str::to_owned);
        lake.instants().iter().filter_map(of).collect()
    };
    let orders = positions("orders");
    let mut compared = 0;
    for position in positions("order_lines").into_iter().filter(|position| orders.contains(position)) {
        let found = scene.pipeline.ok(&["query", "--format", "csv", "--as-of", &position, &differ]);
        assert_eq!(found.lines().count(), 1, "as of {position}: {found}");
        compared += 1;
    }
    assert!(compared > 1, "{compared} positions are too few to say anything");
    println!("orders and lines agree at {compared} positions");
}
