//! Histories by the whole program: MySQL, service, files.

mod corrections;
mod erased;
mod failover;
mod fed;
mod letters;
mod mariadb;
mod positions;

pub(crate) use fed::CONFIG as FED;

use crate::capture::Scene;
use crate::lake::Values;
use crate::mysql::{Flavour, Server};
use crate::readers::{duckdb, hudi_rs};
use std::collections::BTreeMap;

const PERIODS: [&str; 4] = ["_valid_from", "_valid_to", "_system_from", "_system_to"];
const OPEN_END: &str = "9999-12-31 23:59:59.999999";

/// The history's rows: these columns and the periods, sorted.
fn versions(scene: &Scene, table: &str, columns: &[&str]) -> Vec<Values> {
    let columns: Vec<&str> = columns.iter().chain(&PERIODS).copied().collect();
    let history = scene.pipeline.table(&scene.database, &format!("{table}_history"));
    let mut found = history.values(None, &columns).unwrap_or_default();
    found.sort();
    found
}

fn some(values: &[&str]) -> Values {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

/// Makes the next transactions' commit time. System time rises from the snapshot on: so all of it lies in the future.
async fn at(scene: &mut Scene, time: &str) {
    let micros = format!("UNIX_TIMESTAMP('{time}') * 1000000");
    scene
        .run(&["SET time_zone = '+00:00'", &format!("SET @t = CAST({micros} AS UNSIGNED)"), "SET original_commit_timestamp = @t"])
        .await;
}

/// A table and its history say the same of themselves.
pub(crate) fn assert_at_one_cut(scene: &Scene, table: &str) {
    let checkpoint = |name: &str| {
        let table = scene.pipeline.table(&scene.database, name);
        let last = table.instants().pop().unwrap();
        table.commit(&last)["extraMetadata"]["binlake.checkpoint"].as_str().map(str::to_owned)
    };
    let of_table = checkpoint(table);
    assert!(of_table.as_ref().is_some_and(|text| text.contains("system_time")), "{of_table:?}");
    assert_eq!(of_table, checkpoint(&format!("{table}_history")));
}

#[tokio::test]
async fn the_worked_example() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "worked_example", "history = { valid_time = \"effective\" }\n").await;
    scene.run(&["CREATE TABLE prices (id INT PRIMARY KEY, price INT, effective DATE)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["prices"]).await;
    for (time, statement) in [
        ("2035-01-10", "INSERT INTO prices VALUES (1, 10, '2035-01-01')"),
        ("2035-02-01", "UPDATE prices SET price = 12, effective = '2035-03-01'"),
        ("2035-02-15", "UPDATE prices SET price = 11, effective = '2035-02-01'"),
        ("2035-04-01", "DELETE FROM prices"),
        ("2035-05-01", "INSERT INTO prices VALUES (1, 15, '2035-05-01')"),
    ] {
        at(&mut scene, time).await;
        scene.run(&[statement]).await;
        scene.catches_up(&["prices"]).await;
    }
    let time = |text: &str| if text == "∞" { OPEN_END.to_owned() } else { format!("2035-{text} 00:00:00") };
    let version = |(price, from, to, known, until): (&str, &str, &str, &str, &str)| {
        some(&[price, &time(from), &time(to), &time(known), &time(until)])
    };
    let expected: Vec<Values> = [
        ("10", "01-01", "02-01", "02-15", "∞"),
        ("10", "01-01", "03-01", "02-01", "02-15"),
        ("10", "01-01", "∞", "01-10", "02-01"),
        ("11", "02-01", "03-01", "02-15", "∞"),
        ("12", "03-01", "04-01", "04-01", "∞"),
        ("12", "03-01", "∞", "02-01", "04-01"),
        ("15", "05-01", "∞", "05-01", "∞"),
    ]
    .into_iter()
    .map(version)
    .collect();
    assert_eq!(versions(&scene, "prices", &["price"]), expected);
    assert_at_one_cut(&scene, "prices");
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
    asked_in_sql(&scene);
    asked_in_duckdb(&scene, &expected);
}

/// The answers of `binlake query`.
fn asked_in_sql(scene: &Scene) {
    let table = format!("{}.prices", scene.database);
    let csv = |sql: &str, options: &[&str]| {
        let sql = sql.replace("PRICES", &table);
        let out = scene.pipeline.ok(&[&["query", &sql, "--format", "csv"], options].concat());
        out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let price = "SELECT price FROM PRICES";
    assert_eq!(csv(price, &["--valid-at", "2035-02-10", "--as-of", "2035-02-10"]), ["10"]);
    assert_eq!(csv(price, &["--valid-at", "2035-02-10"]), ["11"]);
    assert_eq!(csv(price, &["--valid-at", "2035-04-15", "--as-of", "2035-03-20"]), ["12"]);
    assert!(csv(price, &["--valid-at", "2035-04-15"]).is_empty());
    assert_eq!(csv(price, &["--as-of", "2035-03-20"]), ["12"], "long before the first commit's instant");
    assert_eq!(csv(price, &[]), ["15"]);
    let all = "SELECT p.price FROM as_of('PRICES', '2035-02-20', NULL) p ORDER BY p._valid_from";
    assert_eq!(csv(all, &[]), ["10", "11", "12"]);
    assert_eq!(csv("SELECT count(*) FROM history('PRICES', 1)", &[]), ["7"]);
    assert_eq!(csv("SELECT count(*) FROM history('PRICES', 2)", &[]), ["0"]);
    let changes = "SELECT _change, price FROM changes('PRICES', '2035-02-01', '2035-02-15') ORDER BY 1, 2";
    assert_eq!(csv(changes, &[]), ["added,10", "added,11", "removed,10"]);
    let diff = "SELECT _side, price FROM diff('PRICES', '2035-02-10', '2035-02-10', '2035-06-01') ORDER BY 1";
    assert_eq!(csv(diff, &[]), ["after,11", "before,10"]);
    assert!(csv("SELECT * FROM diff('PRICES', '2035-01-10', '2035-02-10', '2035-06-01')", &[]).is_empty());
    assert_eq!(csv("SELECT count(*) FROM PRICES_history", &["--as-of", "2035-02-20"]), ["3"]);
    for (wrong, said) in [
        ("SELECT * FROM history('PRICES')", "wrong number of arguments"),
        ("SELECT * FROM changes('PRICES', 'x', 'y')", "time can't be read"),
        ("SELECT * FROM as_of('nowhere', NULL, NULL)", "no table"),
    ] {
        let answer = scene.pipeline.answer(&["query", &wrong.replace("PRICES", &table)]);
        assert_eq!(answer.code, 2, "{wrong}: {}", answer.err);
        assert!(answer.err.contains(said), "{wrong}: {}", answer.err);
    }
}

/// The answers of the macros, and the history as DuckDB and hudi-rs read it.
fn asked_in_duckdb(scene: &Scene, expected: &[Values]) {
    let views = scene.pipeline.lake().join("views.sql");
    let ask = |question: &str, columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let mut found = duckdb(&views, &format!("\"{}\".{question}", scene.database), &columns);
        found.sort();
        found
    };
    assert_eq!(ask("prices_as_of('2035-02-10', '2035-02-10')", &["price"]), [some(&["10"])]);
    assert_eq!(ask("prices_as_of('2035-06-01', '2035-02-10')", &["price"]), [some(&["11"])]);
    assert_eq!(ask("prices_as_of_valid('2035-02-10')", &["price"]), [some(&["11"])]);
    assert!(ask("prices_as_of('2035-06-01', '2035-04-15')", &["price"]).is_empty());
    assert_eq!(ask("prices_as_of_system('2035-02-20')", &["price"]).len(), 3);
    assert_eq!(ask("prices_history_of(1)", &["price"]).len(), 7);
    assert_eq!(ask("prices_changes('2035-02-01', '2035-02-15')", &["_change", "price"]).len(), 3);
    let diff = ask("prices_diff('2035-02-10', '2035-02-10', '2035-06-01')", &["_side", "price"]);
    assert_eq!(diff, [some(&["after", "11"]), some(&["before", "10"])]);
    let columns: Vec<&str> = ["price"].iter().chain(&PERIODS).copied().collect();
    assert_eq!(ask("prices_history", &columns), expected);
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let table = scene.pipeline.table(&scene.database, "prices_history");
    let mut found = hudi_rs(&table.folder().display().to_string(), &columns, &[]);
    found.sort();
    assert_eq!(found, expected);
}

/// What a history with `history = true` must hold: a key's rows by the time at which they came, `None`: it went.
fn expected(changes: &BTreeMap<i32, Vec<(String, Option<String>)>>) -> Vec<Values> {
    let mut versions = Vec::new();
    for (key, changes) in changes {
        let key = key.to_string();
        let mut present: Option<(&str, &str)> = None;
        for (time, value) in changes {
            if let Some((value, since)) = present {
                versions.push(some(&[&key, value, since, OPEN_END, since, time]));
                versions.push(some(&[&key, value, since, time, time, OPEN_END]));
            }
            present = value.as_deref().map(|value| (value, time.as_str()));
        }
        if let Some((value, since)) = present {
            versions.push(some(&[&key, value, since, OPEN_END, since, OPEN_END]));
        }
    }
    versions.sort();
    versions
}

#[tokio::test]
async fn a_killed_service_leaves_each_version_once() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_killed", "history = true\n").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)"]).await;
    let mut changes: BTreeMap<i32, Vec<(String, Option<String>)>> = BTreeMap::new();
    let mut random = crate::random::Random::new(7);
    let mut service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    for second in 0..120 {
        let time = format!("2035-01-01 00:{:02}:{:02}", second / 60, second % 60);
        at(&mut scene, &time).await;
        scene.run(&["BEGIN"]).await;
        for _ in 0..=random.below(4) {
            let (key, value) = (random.below(12) as i32, second);
            let history = changes.entry(key).or_default();
            // one change a key and transaction: the last counts
            if history.last().is_some_and(|(last, _)| *last == time) {
                continue;
            }
            if random.below(5) == 0 && history.last().is_some_and(|(_, value)| value.is_some()) {
                scene.run(&[&format!("DELETE FROM t WHERE id = {key}")]).await;
                history.push((time.clone(), None));
            } else {
                scene.run(&[&format!("REPLACE INTO t VALUES ({key}, {value})")]).await;
                history.push((time.clone(), Some(value.to_string())));
            }
        }
        scene.run(&["COMMIT"]).await;
        if second % 30 == 29 {
            service.kill();
            service = scene.pipeline.run();
        }
    }
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    assert_eq!(versions(&scene, "t", &["id", "v"]), expected(&changes));
    assert_at_one_cut(&scene, "t");
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn a_history_switched_on_later_starts_from_the_rows() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_later", "").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    let without = scene.pipeline.config();
    scene.pipeline.set_config(&format!("{without}history = true\n"));
    let service = scene.pipeline.run();
    scene.run(&["UPDATE t SET v = 20 WHERE id = 2"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    let open = |scene: &Scene| -> Vec<(String, String)> {
        let found =
            versions(scene, "t", &["id", "v"]).into_iter().map(|row| row.into_iter().map(Option::unwrap).collect::<Vec<_>>());
        found.filter(|row| row[3] == OPEN_END && row[5] == OPEN_END).map(|row| (row[0].clone(), row[1].clone())).collect()
    };
    let pair = |id: &str, v: &str| (id.to_owned(), v.to_owned());
    assert_eq!(open(&scene), [pair("1", "1"), pair("2", "20"), pair("3", "3")]);
    assert_eq!(versions(&scene, "t", &["id"]).len(), 5, "one closed, one that ended");
    let start = {
        let table = scene.pipeline.table(&scene.database, "t_history");
        let last = table.instants().pop().unwrap();
        table.commit(&last)["extraMetadata"]["binlake.history_start"].as_str().map(str::to_owned)
    };
    assert!(start.is_some_and(|start| start.starts_with("20")));
    // off and on again: what happened meanwhile is seen when it goes on
    scene.pipeline.set_config(&without);
    let service = scene.pipeline.run();
    scene.run(&["DELETE FROM t WHERE id = 1", "UPDATE t SET v = 30 WHERE id = 3", "INSERT INTO t VALUES (4, 4)"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    knows_where_it_ends(&scene);
    scene.pipeline.set_config(&format!("{without}history = true\n"));
    let service = scene.pipeline.run();
    scene.run(&["INSERT INTO t VALUES (5, 5)"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    assert_eq!(open(&scene), [pair("2", "20"), pair("3", "30"), pair("4", "4"), pair("5", "5")]);
    assert_at_one_cut(&scene, "t");
    scene.pipeline.assert_calm_log();
}

/// A history that was switched off doesn't pass for what is known now: the table's own commits answer, or nobody does.
fn knows_where_it_ends(scene: &Scene) {
    let table = format!("{}.t", scene.database);
    let asked = |sql: &str, options: &[&str]| {
        let sql = sql.replace("TABLE", &table);
        scene.pipeline.answer(&[&["query", &sql, "--format", "csv"], options].concat())
    };
    let rows = "SELECT id, v FROM TABLE ORDER BY id";
    let now = asked(rows, &["--as-of", "2099-01-01"]);
    assert_eq!(now.out, "id,v\n2,20\n3,30\n4,4\n", "{}", now.err);
    for (sql, options) in [
        (rows, &["--valid-at", "2099-01-01"][..]),
        (rows, &["--valid-at", "2099-01-01", "--as-of", "2099-01-01"]),
        ("SELECT * FROM as_of('TABLE', NULL, NULL)", &[]),
        ("SELECT * FROM as_of('TABLE', '2099-01-01', NULL)", &[]),
    ] {
        let refused = asked(sql, options);
        assert!(refused.code == 2 && refused.err.contains("switched off"), "{sql}: {} {}", refused.out, refused.err);
    }
    assert_eq!(asked("SELECT count(*) FROM history('TABLE', 2)", &[]).out, "count(*)\n3\n");
    assert!(scene.pipeline.ok(&["tables"]).contains(" until 20"), "{}", scene.pipeline.ok(&["tables"]));
}

#[tokio::test]
async fn a_backfill_is_compared_with_what_the_history_has() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_backfill", "history = true\npartition_by = \"v\"\n").await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene
        .run(&[
            "UPDATE t SET v = 20 WHERE id = 2",
            "TRUNCATE t",
            "INSERT INTO t VALUES (2, 7), (9, 9)",
            "ALTER TABLE t ADD w INT DEFAULT 5",
        ])
        .await;
    scene.run(&["INSERT INTO t VALUES (10, 10, 10)"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    let before = versions(&scene, "t", &["id", "v"]);
    // 1, 3: closed and ended; 2: twice, and the new row; 9, 10
    assert_eq!(before.len(), 2 + 2 + 4 + 1 + 1 + 1);
    scene.run(&["SET sql_log_bin = 0", "DELETE FROM t WHERE id = 9", "SET sql_log_bin = 1"]).await;
    scene.pipeline.ok(&["backfill", "--table", &format!("{}.t", scene.database)]);
    scene.catches_up(&["t"]).await;
    let after = versions(&scene, "t", &["id", "v"]);
    assert_eq!(after.len(), before.len() + 1, "one row more has ended: {after:?}");
    let gone = after.iter().filter(|row| row[0].as_deref() == Some("9")).count();
    assert_eq!(gone, 2);
    assert_at_one_cut(&scene, "t");
}

#[tokio::test]
async fn soft_deleted_rows() {
    let rule = "history = { soft_delete = \"deleted_at\" }\n";
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_soft_delete", rule).await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT, deleted_at DATETIME)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    for (time, statement) in [
        ("2035-01-10", "INSERT INTO t VALUES (1, 10, NULL), (2, 20, '2026-05-05'), (3, 30, '2035-06-01')"),
        // known late: it was gone since the first of the month, and an update of what is gone says nothing
        ("2035-02-15", "UPDATE t SET deleted_at = '2035-02-01' WHERE id = 1"),
        // one that goes later is there, and changes
        ("2035-02-16", "UPDATE t SET v = 31 WHERE id = 3"),
        ("2035-02-20", "UPDATE t SET v = 11 WHERE id = 1"),
        // back again
        ("2035-03-01", "UPDATE t SET v = 12, deleted_at = NULL WHERE id = 1"),
        // it goes later than was said
        ("2035-03-02", "UPDATE t SET deleted_at = '2035-08-01' WHERE id = 3"),
        ("2035-04-01", "DELETE FROM t WHERE id = 1"),
        // it has gone
        ("2035-04-02", "UPDATE t SET v = 32, deleted_at = '2035-03-15' WHERE id = 3"),
    ] {
        at(&mut scene, time).await;
        scene.run(&[statement]).await;
        scene.catches_up(&["t"]).await;
    }
    scene.ends_well(service);
    let time = |text: &str| if text == "∞" { OPEN_END.to_owned() } else { format!("2035-{text} 00:00:00") };
    let expected: Vec<Values> = [
        ("1", "10", "01-10", "02-01", "02-15", "∞"),
        ("1", "10", "01-10", "∞", "01-10", "02-15"),
        ("1", "12", "03-01", "04-01", "04-01", "∞"),
        ("1", "12", "03-01", "∞", "03-01", "04-01"),
        ("3", "30", "01-10", "02-16", "02-16", "∞"),
        ("3", "30", "01-10", "06-01", "01-10", "02-16"),
        ("3", "31", "02-16", "03-02", "03-02", "∞"),
        ("3", "31", "02-16", "06-01", "02-16", "03-02"),
        ("3", "31", "03-02", "03-15", "04-02", "∞"),
        ("3", "31", "03-02", "08-01", "03-02", "04-02"),
    ]
    .iter()
    .map(|(id, v, from, to, known, until)| some(&[id, v, &time(from), &time(to), &time(known), &time(until)]))
    .collect();
    assert_eq!(versions(&scene, "t", &["id", "v"]), expected, "and nothing of what came deleted");
    let listed = scene.pipeline.ok(&["tables", "--format", "csv"]);
    assert!(listed.lines().next().is_some_and(|titles| titles.contains("history_start")), "{listed}");
    assert!(listed.contains("t_history") && scene.pipeline.ok(&["tables"]).contains("every change since 20"), "{listed}");
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn rows_without_a_valid_time_are_dead_letters_until_they_have_one() {
    let rule = "history = { valid_time = \"effective\", on_invalid_valid_time = \"dead_letter\" }\n";
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_letters", rule).await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT, effective DATE)"]).await;
    scene.run(&["INSERT INTO t VALUES (1, 10, '2035-01-01'), (2, 20, '2035-01-01')"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    scene.run(&["UPDATE t SET v = 11, effective = NULL WHERE id = 1"]).await;
    let ids = |scene: &Scene| scene.pipeline.table(&scene.database, "t").values(None, &["id", "v"]).unwrap_or_default();
    crate::mysql::eventually("the row is none", async || ids(&scene) == [some(&["2", "20"])]).await;
    let letters = scene.pipeline.ok(&["dead-letter", "list", "--format", "csv"]);
    assert!(letters.contains("effective") && letters.contains("valid time"), "{letters}");
    let verified = scene.pipeline.ok(&["verify"]);
    assert!(verified.contains("equal, 1 rows"), "what is a dead letter is left out: {verified}");
    let ended = |scene: &Scene| {
        let all = versions(scene, "t", &["id"]);
        all.into_iter().filter(|row| row[0].as_deref() == Some("1") && row[4].as_deref() == Some(OPEN_END)).collect::<Vec<_>>()
    };
    assert!(ended(&scene).iter().all(|row| row[2].as_deref() != Some(OPEN_END)), "nothing is true of it: {:?}", ended(&scene));
    scene.run(&["UPDATE t SET effective = '2035-02-01' WHERE id = 1"]).await;
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    assert!(ended(&scene).iter().any(|row| row[2].as_deref() == Some(OPEN_END)), "{:?}", ended(&scene));
    assert_eq!(scene.pipeline.ok(&["dead-letter", "list", "--format", "csv"]).lines().count(), 1, "the letter is gone");
    assert_at_one_cut(&scene, "t");
}
