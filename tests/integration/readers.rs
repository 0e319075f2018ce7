//! Readers that no one here wrote read our tables: hudi-rs, DuckDB, and (`make test-spark`) Spark with Hudi. What they read is compared with
//! what the source's own SELECT says, and Spark writes into our tables before we go on.

mod handover;
mod python;
mod spark;

use crate::lake::Values;
use crate::mysql::{Flavour, Server, eventually};
use crate::service::{Pipeline, difference, source_rows};
pub(crate) use python::moto;
pub(crate) use python::{duckdb, files_with, glue, hudi_rs};
use std::collections::BTreeSet;

/// Two tables, unpartitioned and partitioned, with a history of commits.
struct Scene {
    server: &'static Server,
    database: String,
    pipeline: Pipeline,
}

/// A table at one moment: its instant in the lake, the source's columns, and their sorted rows.
#[derive(Debug, Clone)]
struct Moment {
    instant: String,
    columns: Vec<String>,
    rows: Vec<Values>,
}

const TABLES: [&str; 2] = ["tickets", "orders"];

impl Scene {
    async fn new(lake: &str) -> Self {
        let server = Server::shared(Flavour::MySql);
        server.create_repl_user().await;
        let database = server.create_database("readers").await;
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        client
            .run_all(
                "CREATE TABLE tickets (id INT AUTO_INCREMENT PRIMARY KEY, sport VARCHAR(40) NOT NULL, start DATETIME NOT NULL, price DECIMAL(10,2),
                     seats BIGINT UNSIGNED, paid TINYINT, weight DOUBLE, day DATE, kind ENUM('a','b','ü'), raw VARBINARY(20), changed TIMESTAMP(6) NULL);
                 CREATE TABLE orders (customer VARCHAR(20), number INT, placed DATETIME NOT NULL, amount DECIMAL(12,3), PRIMARY KEY (customer, number))",
            )
            .await;
        let rules = format!(
            "[[table]]\nsource = \"{database}.orders\"\npartition_by = \"year(placed)\"\n[[table]]\nsource = \"{database}.*\"\n"
        );
        let scene = Scene { server, database, pipeline: Pipeline::with_lake(server, lake, &rules) };
        scene.insert(0, 400).await;
        scene
    }

    async fn sql(&self, statements: &str) {
        let mut client = self.server.client().await;
        client.run(&format!("USE {}", self.database)).await;
        client.run_all(statements).await;
    }

    /// Inserts rows with numbers from `first` on into both tables.
    async fn insert(&self, first: u32, count: u32) {
        let rows = |row: &dyn Fn(u32) -> String| (first..first + count).map(row).collect::<Vec<_>>().join(",");
        let tickets = rows(&|i| {
            format!(
                "('sport {}','2026-01-01 10:00:00' + INTERVAL {i} HOUR,{i}.25,18446744073709551615-{i},{i}%2,{i}/8,'2026-01-01' + INTERVAL {i} DAY,\
                     ELT({i}%3+1,'a','b','ü'),NULL,'2026-01-01 00:00:00.000001' + INTERVAL {i} SECOND)",
                i % 7
            )
        });
        let orders = rows(&|i| format!("('kunde-{}',{i},'{}-06-01 00:00:00',{i}.125)", i % 11, 2020 + i % 5));
        self.sql(&format!(
            "INSERT INTO tickets (sport,start,price,seats,paid,weight,day,kind,raw,changed) VALUES {tickets};\nINSERT INTO orders (customer,number,placed,amount) VALUES {orders}"
        ))
        .await;
    }

    /// Waits until the lake has all that the source has.
    async fn moment(&self, name: &str) -> Moment {
        self.pipeline.catches_up(self.server, &self.database, name).await;
        let (columns, rows) = source_rows(self.server, &self.database, name).await;
        let instant = self.pipeline.table(&self.database, name).instants().pop().unwrap();
        Moment { instant, columns, rows }
    }

    async fn moments(&self) -> Vec<Moment> {
        let mut moments = Vec::new();
        for name in TABLES {
            moments.push(self.moment(name).await);
        }
        moments
    }

    fn folder(&self, name: &str) -> String {
        self.pipeline.table(&self.database, name).folder().display().to_string()
    }
}

pub(crate) fn compare(reader: &str, name: &str, expected: &[Values], mut found: Vec<Values>) {
    found.sort();
    assert!(found == expected, "{reader} on {name}: {}", difference(expected, &found));
    println!("{reader}: {name}, {} rows equal the source's", found.len());
}

/// Rows of `now` that `before` doesn't have.
fn changed(before: &Moment, now: &Moment) -> Vec<Values> {
    let before: BTreeSet<&Values> = before.rows.iter().collect();
    now.rows.iter().filter(|row| !before.contains(row)).cloned().collect()
}

/// Inserts, updates, deletes, and rows that move to another partition.
const CHANGES: &str = "UPDATE tickets SET price = 500, changed = '2026-11-21 12:00:00.5' WHERE id = 46;
    UPDATE tickets SET sport = 'Fußball', price = NULL WHERE id % 50 = 0;
    DELETE FROM tickets WHERE id BETWEEN 100 AND 120;
    UPDATE tickets SET id = 100000 WHERE id = 7;
    UPDATE orders SET placed = '2025-01-01 00:00:00' WHERE number = 33;
    UPDATE orders SET amount = amount + 1 WHERE number < 10;
    DELETE FROM orders WHERE number BETWEEN 200 AND 250";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hudi_rs_and_duckdb_read_what_the_source_holds() {
    let scene = Scene::new("").await;
    let service = scene.pipeline.run();
    let first = scene.moments().await;
    scene.sql(CHANGES).await;
    scene.insert(400, 20).await;
    let second = scene.moments().await;
    scene.sql("ALTER TABLE tickets ADD COLUMN remark VARCHAR(50)").await;
    scene.sql("ALTER TABLE orders ADD COLUMN rank_no INT").await;
    scene.sql("UPDATE tickets SET remark = 'after' WHERE id = 46;\nUPDATE orders SET rank_no = 8 WHERE number = 44").await;
    let third = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();

    let views = scene.pipeline.lake().join("views.sql");
    for (i, name) in TABLES.into_iter().enumerate() {
        let folder = scene.folder(name);
        compare("hudi-rs", name, &third[i].rows, hudi_rs(&folder, &third[i].columns, &[]));
        compare("DuckDB", name, &third[i].rows, duckdb(&views, &format!("{}.{name}", scene.database), &third[i].columns));
        for moment in [&first[i], &second[i]] {
            let travelled = hudi_rs(&folder, &moment.columns, &["--as-of", &moment.instant]);
            compare("hudi-rs as of an instant", name, &moment.rows, travelled);
        }
        let since = hudi_rs(&folder, &second[i].columns, &["--since", &first[i].instant]);
        // The last change reaches further than `second`: only rows that both have are compared.
        let expected = changed(&first[i], &second[i]);
        let found: BTreeSet<&Values> = since.iter().collect();
        let late: BTreeSet<&str> = [if name == "tickets" { "46" } else { "44" }].into();
        let key = usize::from(name == "orders");
        for row in expected.iter().filter(|row| !late.contains(row[key].as_deref().unwrap())) {
            assert!(found.contains(row), "hudi-rs, incremental, lacks {row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_still_read_after_cleaning_and_archiving() {
    let scene = Scene::new("retained_commits = 3\n").await;
    let service = scene.pipeline.run();
    scene.moments().await;
    let table = scene.pipeline.table(&scene.database, "tickets");
    for round in 0..45 {
        let before = table.instants().pop();
        scene.sql(&format!("UPDATE tickets SET paid = 10 + {round} WHERE id = {}", round + 1)).await;
        eventually("one commit more", async || table.instants().pop() != before).await;
    }
    scene.sql(CHANGES).await;
    let now = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());

    let kept = table.instants().len();
    assert!(kept < 40, "the active timeline has {kept} commits after 45 and more: nothing was archived");
    let views = scene.pipeline.lake().join("views.sql");
    for (moment, name) in now.iter().zip(TABLES) {
        compare("hudi-rs", name, &moment.rows, hudi_rs(&scene.folder(name), &moment.columns, &[]));
        compare("DuckDB", name, &moment.rows, duckdb(&views, &format!("{}.{name}", scene.database), &moment.columns));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_added_with_a_default_has_it_in_the_rows_of_before() {
    let scene = Scene::new("").await;
    let service = scene.pipeline.run();
    scene.moments().await;
    scene.sql("ALTER TABLE orders ADD COLUMN rank_no INT NOT NULL DEFAULT 7").await;
    scene.sql("ALTER TABLE tickets ADD COLUMN remark VARCHAR(20) DEFAULT 'wie üblich'").await;
    scene.sql("UPDATE orders SET rank_no = 8 WHERE number = 44;\nUPDATE tickets SET remark = NULL WHERE id = 5").await;
    let now = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    let views = scene.pipeline.lake().join("views.sql");
    for (moment, name) in now.iter().zip(TABLES) {
        compare("hudi-rs", name, &moment.rows, hudi_rs(&scene.folder(name), &moment.columns, &[]));
        compare("DuckDB", name, &moment.rows, duckdb(&views, &format!("{}.{name}", scene.database), &moment.columns));
    }
}
