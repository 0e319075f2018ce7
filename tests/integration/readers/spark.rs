//! Spark 3.5 with Hudi 0.15, everything as it is by default: it reads our tables, upserts into them, and Binlake goes on. Runs with `make test-spark`.

use super::python::{cache, repository, row};
use super::{CHANGES, Moment, Scene, TABLES, changed, compare};
use crate::lake::Values;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running `tests/readers/spark.py`. Its standard input is a pipe from here, so it ends with this process.
struct Spark {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Spark {
    fn start() -> Self {
        let jar = cache().join("jars/hudi-spark3.5-bundle_2.12-0.15.0.jar");
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(cache().join("spark/bin/python"))
            .arg(repository("tests/readers/spark.py"))
            .arg(jar)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("no PySpark: run scripts/spark.sh");
        let (commands, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut spark = Spark { process, commands, answers, _folder: folder };
        spark.answer();
        spark
    }

    fn answer(&mut self) -> Vec<Values> {
        let mut rows = Vec::new();
        for line in self.answers.by_ref().lines() {
            match line.unwrap() {
                line if line == "done" => return rows,
                line if line.starts_with("failed") => panic!("Spark {line}"),
                line => rows.push(row(&line)),
            }
        }
        panic!("Spark ended");
    }

    fn ask(&mut self, command: &[&str]) -> Vec<Values> {
        writeln!(self.commands, "{}", command.join("\t")).unwrap();
        self.answer()
    }

    fn read(&mut self, how: &str, table: &str, moment: &Moment, instant: Option<&str>) -> Vec<Values> {
        let columns = moment.columns.join(",");
        self.ask(&[&[how, table, &columns], instant.as_slice()].concat())
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Tables of which the service has changed some rows, before and after that.
async fn changed_tables() -> (Scene, Vec<Moment>, Vec<Moment>) {
    let scene = Scene::new("").await;
    let service = scene.pipeline.run();
    let first = scene.moments().await;
    scene.sql(CHANGES).await;
    let second = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    (scene, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_reads_our_tables_and_writes_into_them_and_we_go_on() {
    if std::env::var_os("BINLAKE_TEST_SPARK").is_none() {
        println!("skipped: Spark; `make test-spark` runs it");
        return;
    }
    let (scene, first, second) = changed_tables().await;

    let mut spark = Spark::start();
    for (i, name) in TABLES.into_iter().enumerate() {
        let table = scene.folder(name);
        compare("Spark", name, &second[i].rows, spark.read("snapshot", &table, &second[i], None));
        let travelled = spark.read("as-of", &table, &first[i], Some(&first[i].instant));
        compare("Spark as of an instant", name, &first[i].rows, travelled);
        let since = spark.read("since", &table, &second[i], Some(&first[i].instant));
        compare("Spark incremental", name, &changed(&first[i], &second[i]), since);
    }

    // Spark writes, with its metadata table on: an update of one row, and a row of its own.
    let write = [("tickets", "id", "-", "sport", "id = 46"), ("orders", "customer,number", "placed_year", "amount", "number = 44")];
    for (name, key, partition, column, row) in write {
        let value = if name == "tickets" { "'by Spark'" } else { "CAST(4444.5 AS DECIMAL(12,3))" };
        let sql = replace_column(&scene, name, column, value, row);
        spark.ask(&["upsert", &scene.folder(name), key, partition, &sql]);
    }
    let spark_rows: Vec<Vec<Values>> =
        TABLES.into_iter().enumerate().map(|(i, name)| spark.read("snapshot", &scene.folder(name), &second[i], None)).collect();
    for (i, name) in TABLES.into_iter().enumerate() {
        let mut rows = spark_rows[i].clone();
        rows.sort();
        assert_eq!(rows.len(), second[i].rows.len(), "Spark's upsert of a present row changes no count");
        assert_ne!(rows, second[i].rows, "Spark wrote into {name}");
    }

    // We go on: the source changes the rows that Spark wrote, and others; the lake is the source's again.
    scene.sql("UPDATE tickets SET price = price + 1, sport = 'ours again' WHERE id % 46 = 0").await;
    scene.sql("UPDATE orders SET amount = amount + 1 WHERE number % 44 = 0").await;
    let service = scene.pipeline.run();
    let third = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    for (i, name) in TABLES.into_iter().enumerate() {
        compare("Spark after we went on", name, &third[i].rows, spark.read("snapshot", &scene.folder(name), &third[i], None));
    }

    // And Spark once more: nothing of ours may be undone by a metadata table that we didn't keep.
    let sql = replace_column(&scene, "tickets", "sport", "'Spark again'", "id = 46");
    spark.ask(&["upsert", &scene.folder("tickets"), "id", "-", &sql]);
    let mut expected = third[0].rows.clone();
    let sport = third[0].columns.iter().position(|column| column == "sport").unwrap();
    expected.iter_mut().filter(|row| row[0].as_deref() == Some("46")).for_each(|row| row[sport] = Some("Spark again".into()));
    compare(
        "Spark after it wrote once more",
        "tickets",
        &expected,
        spark.read("snapshot", &scene.folder("tickets"), &third[0], None),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_reads_tables_that_went_back_and_writes_into_them() {
    if std::env::var_os("BINLAKE_TEST_SPARK").is_none() {
        println!("skipped: Spark; `make test-spark` runs it");
        return;
    }
    let (scene, first, second) = changed_tables().await;
    let mut spark = Spark::start();
    for (i, name) in TABLES.into_iter().enumerate() {
        let table = format!("{}.{name}", scene.database);
        scene.pipeline.ok(&["savepoint", &table]);
        scene.pipeline.ok(&["restore", &table, &first[i].instant]);
        let folder = scene.folder(name);
        compare("Spark after it went back", name, &first[i].rows, spark.read("snapshot", &folder, &first[i], None));
        let undone = spark.read("as-of", &folder, &second[i], Some(&second[i].instant));
        compare("Spark as of what is undone", name, &second[i].rows, undone);
        let since = spark.read("since", &folder, &first[i], Some(&second[i].instant));
        assert!(since.is_empty(), "what came again is nothing new");
        let kept = spark.ask(&["savepoints", &folder]);
        assert_eq!(kept, [[Some(second[i].instant.clone())]], "Spark lists the savepoint");
    }
    // Spark writes into what went back, and we go on: what came since comes again
    let sql = replace_column(&scene, "tickets", "sport", "'by Spark'", "id = 46");
    spark.ask(&["upsert", &scene.folder("tickets"), "id", "-", &sql]);
    let service = scene.pipeline.run();
    let third = scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    for (i, name) in TABLES.into_iter().enumerate() {
        scene.pipeline.ok(&["cluster", &format!("{}.{name}", scene.database)]);
        compare("Spark after we went on", name, &third[i].rows, spark.read("snapshot", &scene.folder(name), &third[i], None));
    }
    // and deletes the savepoint as its own
    spark.ask(&["delete-savepoint", &scene.folder("tickets"), &second[0].instant]);
    let erased = scene.pipeline.ok(&["erase", &format!("{}.tickets", scene.database), "1"]);
    assert!(erased.contains("erased 1 rows"), "{erased}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_reads_a_history() {
    if std::env::var_os("BINLAKE_TEST_SPARK").is_none() {
        println!("skipped: Spark; `make test-spark` runs it");
        return;
    }
    let rule = "history = { valid_time = \"effective\" }\n";
    let mut scene =
        crate::capture::Scene::on(crate::mysql::Server::shared(crate::mysql::Flavour::MySql), "spark_history", rule).await;
    scene.run(&["CREATE TABLE prices (id INT PRIMARY KEY, price INT, effective DATE)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["prices"]).await;
    let mut known = Vec::new();
    for statement in [
        "INSERT INTO prices VALUES (1, 10, '2026-01-01'), (2, 20, '2026-01-01'), (3, 30, '2026-01-01')",
        "UPDATE prices SET price = 12, effective = '2026-03-01' WHERE id < 3",
        "UPDATE prices SET price = 11, effective = '2026-02-01' WHERE id = 1",
        "DELETE FROM prices WHERE id = 3",
    ] {
        scene.run(&[statement]).await;
        scene.catches_up(&["prices"]).await;
        known.push(scene.client.value("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%d %H:%i:%s.%f')").await);
    }
    scene.ends_well(service);
    let columns = ["id", "price", "_valid_from", "_valid_to", "_system_from", "_system_to"];
    let history = scene.pipeline.table(&scene.database, "prices_history");
    let mut expected = history.values(None, &columns).unwrap();
    expected.sort();
    let mut spark = Spark::start();
    let folder = history.folder().display().to_string();
    compare("Spark", "prices_history", &expected, spark.ask(&["snapshot", &folder, &columns.join(",")]));
    for system in &known {
        for valid in ["2026-01-15", "2026-02-10", "2026-03-10"] {
            let sql = format!(
                "SELECT id, price FROM input WHERE _valid_from <= TIMESTAMP '{valid}' AND TIMESTAMP '{valid}' < _valid_to \
                 AND _system_from <= TIMESTAMP '{system}' AND TIMESTAMP '{system}' < _system_to"
            );
            let question = format!("SELECT id, price FROM {}.prices ORDER BY 1", scene.database);
            let ours = scene.pipeline.ok(&["query", &question, "--format", "csv", "--valid-at", valid, "--as-of", system]);
            let ours: Vec<Values> =
                ours.lines().skip(1).map(|line| line.split(',').map(|value| Some(value.to_owned())).collect()).collect();
            compare("Spark as of two times", "prices_history", &ours, spark.ask(&["sql", &folder, "id,price", &sql]));
        }
    }
}

/// The table's rows that match, with one column's value changed.
fn replace_column(scene: &Scene, name: &str, column: &str, value: &str, row: &str) -> String {
    let files = scene.pipeline.table(&scene.database, name).batches(None).unwrap();
    let columns: Vec<String> = files[0]
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .filter(|name| !name.starts_with("_hoodie_"))
        .map(|name| if name == column { format!("{value} AS {name}") } else { name })
        .collect();
    format!("SELECT {} FROM input WHERE {row}", columns.join(", "))
}
