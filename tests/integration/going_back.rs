//! `binlake rollback`, `restore`, `savepoint` and `cluster` by the whole program, read by readers that know nothing of them.

use crate::capture::Scene;
use crate::history::FED;
use crate::lake::Values;
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::{duckdb, hudi_rs};
use crate::service::{Pipeline, append};
use serde_json::Value;

const COLUMNS: [&str; 2] = ["id", "price"];

fn names() -> Vec<String> {
    COLUMNS.map(str::to_owned).to_vec()
}

/// The table's rows now, as hudi-rs and DuckDB see them, both alike.
fn read(pipeline: &Pipeline, database: &str, table: &str) -> Vec<Values> {
    let mut found = hudi_rs(&pipeline.table(database, table).folder().display().to_string(), &names(), &[]);
    found.sort();
    let mut other = duckdb(&pipeline.lake().join("views.sql"), &format!("{database}.{table}"), &names());
    other.sort();
    assert_eq!(found, other, "hudi-rs and DuckDB differ");
    found
}

fn rows(expected: &[(i32, i32)]) -> Vec<Values> {
    let mut rows: Vec<Values> = expected.iter().map(|(id, price)| vec![Some(id.to_string()), Some(price.to_string())]).collect();
    rows.sort();
    rows
}

/// The lines of `binlake timeline`.
fn timeline(pipeline: &Pipeline, table: &str) -> Vec<Value> {
    let text = pipeline.ok(&["timeline", table, "--format", "json", "-n", "100"]);
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn undone(pipeline: &Pipeline, table: &str) -> usize {
    timeline(pipeline, table).iter().filter(|line| line["undone"] == true).count()
}

impl Scene {
    fn quotes(&self) -> String {
        format!("{}.quotes", self.database)
    }

    /// Waits until the lake has all, and gives the last instant.
    async fn moment(&self) -> String {
        self.catches_up(&["quotes"]).await;
        self.pipeline.table(&self.database, "quotes").instants().pop().unwrap()
    }

    fn answer(&self, sql: &str, more: &[&str]) -> String {
        self.pipeline.ok(&[&["query", sql, "--format", "csv"], more].concat()).lines().skip(1).collect::<Vec<_>>().join(" ")
    }
}

/// Whether source and lake are the same, says `binlake verify`.
fn is_equal(scene: &Scene) -> bool {
    let answer = scene.pipeline.answer(&["verify", "--table", &scene.quotes()]);
    assert!(answer.code <= 1, "{}", answer.err);
    answer.code == 0
}

#[tokio::test]
async fn a_running_service_goes_back_and_what_came_since_comes_again() {
    goes_back(Flavour::MySql, "went_back").await;
}

#[tokio::test]
async fn a_running_service_on_mariadb_goes_back() {
    goes_back(Flavour::MariaDb, "went_back_mariadb").await;
}

async fn goes_back(flavour: Flavour, name: &str) {
    let mut scene = Scene::on(Server::shared(flavour), name, "history = true\n").await;
    scene.run(&["CREATE TABLE quotes (id INT PRIMARY KEY, price INT)", "CREATE TABLE others (id INT PRIMARY KEY)"]).await;
    scene.run(&["INSERT INTO quotes VALUES (1, 10), (2, 20), (3, 30)"]).await;
    let service = scene.pipeline.run();
    let first = scene.moment().await;
    scene.run(&["UPDATE quotes SET price = 11 WHERE id = 1", "INSERT INTO others VALUES (1)"]).await;
    let second = scene.moment().await;
    scene.run(&["DELETE FROM quotes WHERE id = 2", "ALTER TABLE quotes ADD COLUMN note VARCHAR(10)"]).await;
    scene.run(&["INSERT INTO quotes VALUES (4, 40, 'new')"]).await;
    let third = scene.moment().await;
    let known =
        scene.answer("SELECT id, price, _valid_to, _system_from, _system_to FROM quotes_history ORDER BY 1, 2, 3, 4, 5", &[]);

    // undoes the second commit and all behind it, over a change of columns; it all comes again
    let said = scene.pipeline.ok(&["rollback", &scene.quotes(), &second]);
    assert!(said.contains("commits are undone") && said.contains("quotes_history") && said.contains("comes again"), "{said}");
    eventually("the table is as the source", async || {
        timeline(&scene.pipeline, &scene.quotes()).last().unwrap()["undone"] == false && is_equal(&scene)
    })
    .await;
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 11), (3, 30), (4, 40)]));
    let again =
        scene.answer("SELECT id, price, _valid_to, _system_from, _system_to FROM quotes_history ORDER BY 1, 2, 3, 4, 5", &[]);
    assert_eq!(again, known, "the history has the same versions");
    assert!(undone(&scene.pipeline, &scene.quotes()) >= 2);
    // what is undone can be read as of its instant, and positions mean what stands
    assert_eq!(scene.answer("SELECT id FROM quotes ORDER BY id", &["--as-of", &third]), "1 3 4");
    let quotes = "SELECT count(*) AS a, (SELECT count(*) FROM others) AS b FROM quotes";
    assert_eq!(scene.answer(quotes, &["--at-position", "latest"]), "3,1");
    let position = timeline(&scene.pipeline, &scene.quotes()).last().unwrap()["position"].as_str().unwrap().to_owned();
    if flavour == Flavour::MySql {
        assert_eq!(scene.answer("SELECT id FROM quotes ORDER BY id", &["--as-of", &position]), "1 3 4");
    }
    // without what came since: other columns can't be left out, and those that are the same can
    let refused = scene.pipeline.answer(&["restore", &scene.quotes(), &first, "--skip-changes"]);
    assert!(refused.code == 5 && refused.err.contains("other columns then"), "{} {}", refused.code, refused.err);
    scene.run(&["UPDATE quotes SET price = 999"]).await;
    let wrong = scene.moment().await;
    scene.run(&["INSERT INTO quotes VALUES (5, 50, 'since')"]).await;
    scene.moment().await;
    let said = scene.pipeline.ok(&["rollback", &scene.quotes(), &wrong, "--skip-changes"]);
    assert!(said.contains("is left out"), "{said}");
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 11), (3, 30), (4, 40)]));
    let then = scene.answer("SELECT DISTINCT price FROM quotes", &["--as-of", &wrong]);
    assert_eq!(then, "999", "what is undone is as it was");
    scene.run(&["UPDATE quotes SET price = 12 WHERE id = 1"]).await;
    eventually("it goes on", async || scene.answer("SELECT price FROM quotes WHERE id = 1", &[]) == "12").await;
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 12), (3, 30), (4, 40)]));
    assert_eq!(scene.answer("SELECT count(*) FROM quotes_history WHERE price = 999", &[]), "0");
    assert_eq!(scene.answer("SELECT id, price FROM as_of('quotes', NULL, 'now') ORDER BY id", &[]), "1,12 3,30 4,40");
    super::history::assert_at_one_cut(&scene, "quotes");
    assert!(!is_equal(&scene), "the source has what was left out");
    scene.ends_well(service);
    scene.pipeline.ok(&["backfill", "--table", &scene.quotes()]);
    assert!(is_equal(&scene));
    let runs = scene.pipeline.ok(&["runs", "--format", "csv"]);
    assert!(runs.lines().filter(|line| line.contains(",restore,") && line.contains("Complete")).count() >= 2, "{runs}");
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn without_a_service_the_command_does_it() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "went_back_alone", "history = true\n").await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("[lake]\n", "[lake]\nretained_commits = 1000\n"));
    scene.run(&["CREATE TABLE quotes (id INT PRIMARY KEY, price INT)", "INSERT INTO quotes VALUES (1, 10), (2, 20)"]).await;
    let service = scene.pipeline.run();
    let first = scene.moment().await;
    scene.run(&["TRUNCATE quotes", "INSERT INTO quotes VALUES (3, 30)"]).await;
    let second = scene.moment().await;
    scene.ends_well(service);
    let quotes = scene.quotes();
    for (arguments, code, what) in [
        (["restore", &quotes, "20200101000000000"], 2, "no commit of that instant"),
        (["rollback", &quotes, "20200101000000000"], 2, "no commit of that instant"),
        (["rollback", &quotes, &first], 2, "no commit before"),
        (["restore", &quotes, "now"], 2, "no instant"),
        (["restore", &format!("{quotes}_history"), &first], 2, "goes with another"),
        (["restore", "no.such", &first], 2, "no.such"),
    ] {
        let answer = scene.pipeline.answer(&arguments);
        assert!(
            answer.code == code && answer.err.contains(what) && answer.err.lines().count() == 1,
            "{arguments:?}: {}",
            answer.err
        );
    }
    let same = scene.pipeline.ok(&["restore", &quotes, &second]);
    assert!(same.contains("nothing is undone"), "{same}");
    scene.pipeline.ok(&["restore", &quotes, &first]);
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 10), (2, 20)]));
    assert_eq!(scene.answer("SELECT count(*) FROM quotes_history WHERE _valid_to > TIMESTAMP '9000-01-01'", &[]), "2");
    let twice = scene.pipeline.answer(&["rollback", &quotes, &second]);
    assert!(twice.code == 2 && twice.err.contains("undone already"), "{}", twice.err);
    // going back can be undone as well
    let back = scene.pipeline.table(&scene.database, "quotes").instants().pop().unwrap();
    scene.pipeline.ok(&["rollback", &quotes, &back]);
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(3, 30)]));
    scene.pipeline.ok(&["restore", &quotes, &first]);
    let service = scene.pipeline.run();
    eventually("what came since comes again", async || is_equal(&scene)).await;
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(3, 30)]));
    scene.ends_well(service);
    // where the stream no longer has it, the line says so
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&config.replace("[stream]\n", "[stream]\nretention = \"0s\"\nsegment_size = \"1KiB\"\n"));
    let service = scene.pipeline.run();
    let is_refused = || scene.pipeline.answer(&["restore", &quotes, &first]).err.contains("the stream no longer has");
    eventually("the first segments are gone", async || {
        scene.client.run("INSERT INTO quotes VALUES (4, 0) ON DUPLICATE KEY UPDATE price = price + 1").await;
        is_refused()
    })
    .await;
    let by_service = scene.pipeline.answer(&["restore", &quotes, &first]);
    assert!(by_service.code == 4 && by_service.err.lines().count() == 1, "{} {}", by_service.code, by_service.err);
    scene.ends_well(service);
    let refused = scene.pipeline.answer(&["restore", &quotes, &first]);
    assert!(refused.code == 4 && refused.err.contains("--skip-changes") && refused.err.lines().count() == 1, "{}", refused.err);
    scene.pipeline.ok(&["restore", &quotes, &first, "--skip-changes"]);
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 10), (2, 20)]));
}

#[tokio::test]
async fn records_that_were_wrong_are_taken_back_with_history_and_children() {
    let pipeline = Pipeline::from_text(FED);
    let add = |line: &str| append(&pipeline.path().join("prices/a.jsonl"), &format!("{line}\n"));
    let values = |table: &str, columns: &[&str]| {
        let mut rows = pipeline.table("index", table).values(None, columns).unwrap_or_default();
        rows.sort();
        rows
    };
    let is = |table: &str, columns: &[&str], expected: &[[&str; 2]]| {
        values(table, columns) == expected.iter().map(|row| row.map(|value| Some(value.to_owned())).to_vec()).collect::<Vec<_>>()
    };
    add(r#"{"id": 1, "price": 10, "day": "2026-01-10", "parts": [{"name": "a"}, {"name": "b"}]}"#);
    add(r#"{"id": 2, "price": 20, "day": "2026-01-10", "parts": [{"name": "c"}]}"#);
    let service = pipeline.run();
    eventually("both are there", async || is("prices", &COLUMNS, &[["1", "10"], ["2", "20"]])).await;
    let history = values("prices_history", &["id", "price", "_valid_from", "_system_to"]);
    add(r#"{"id": 1, "price": 9999, "day": "2026-02-10", "parts": [{"name": "wrong"}]}"#);
    add(r#"{"id": 3, "price": 9999, "day": "2026-02-10"}"#);
    eventually("and the wrong ones", async || values("prices", &COLUMNS).len() == 3).await;
    let wrong = pipeline.table("index", "prices").instants().pop().unwrap();
    let said = pipeline.ok(&["rollback", "index.prices", &wrong, "--skip-changes"]);
    assert!(said.contains("index.prices_history") && said.contains("index.prices_parts"), "{said}");
    assert!(is("prices", &COLUMNS, &[["1", "10"], ["2", "20"]]));
    assert!(
        is("prices_parts", &["prices_id", "name"], &[["1", "a"], ["1", "b"], ["2", "c"]])
            || values("prices_parts", &["name"]).len() == 3
    );
    assert_eq!(values("prices_history", &["id", "price", "_valid_from", "_system_to"]), history);
    add(r#"{"id": 1, "price": 11, "day": "2026-01-20", "parts": [{"name": "d"}]}"#);
    eventually("it goes on behind them", async || is("prices", &COLUMNS, &[["1", "11"], ["2", "20"]])).await;
    assert_eq!(values("prices_parts", &["name"]), [["c"], ["d"]].map(|row| row.map(|name| Some(name.to_owned())).to_vec()));
    // all of it again: nothing is lost by going back
    let first = pipeline.table("index", "prices").instants()[0].clone();
    pipeline.ok(&["restore", "index.prices", &first]);
    eventually("all records have come again", async || is("prices", &COLUMNS, &[["1", "9999"], ["2", "20"], ["3", "9999"]])).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

#[tokio::test]
async fn a_savepoint_is_gone_back_to_behind_cleaning() {
    let server = Server::shared(Flavour::MySql);
    let mut scene = Scene::on(server, "savepoint", "history = true\n").await;
    scene.pipeline.set_config(&scene.pipeline.config().replace("[lake]\n", "[lake]\nretained_commits = 2\n"));
    scene.run(&["CREATE TABLE quotes (id INT PRIMARY KEY, price INT)", "INSERT INTO quotes VALUES (1, 10), (2, 20)"]).await;
    let service = scene.pipeline.run();
    let kept = scene.moment().await;
    let quotes = scene.quotes();
    let said = scene.pipeline.ok(&["savepoint", &quotes]);
    assert!(said.contains(&kept) && said.contains("quotes_history"), "{said}");
    for price in 0..15 {
        scene.run(&[&format!("UPDATE quotes SET price = {price} WHERE id = 1")]).await;
        scene.moment().await;
    }
    assert!(scene.pipeline.ok(&["timeline", &quotes, "-n", "100"]).contains(&format!("{kept} commit*")));
    assert_eq!(scene.answer("SELECT id, price FROM quotes ORDER BY id", &["--as-of", &kept]), "1,10 2,20");
    let mut found =
        hudi_rs(&scene.pipeline.table(&scene.database, "quotes").folder().display().to_string(), &names(), &["--as-of", &kept]);
    found.sort();
    assert_eq!(found, rows(&[(1, 10), (2, 20)]));
    let refused = scene.pipeline.answer(&["erase", &quotes, "1"]);
    assert!(refused.code == 5 && refused.err.contains("binlake savepoint"), "{}", refused.err);
    scene.pipeline.ok(&["restore", &quotes, &kept, "--skip-changes"]);
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(1, 10), (2, 20)]));
    assert_eq!(scene.answer("SELECT count(*) FROM quotes_history", &[]), "2");
    let said = scene.pipeline.ok(&["savepoint", &quotes, &kept, "--delete"]);
    assert!(said.contains("no longer"), "{said}");
    scene.run(&["UPDATE quotes SET price = 100 WHERE id = 2"]).await;
    eventually("it goes on", async || scene.answer("SELECT price FROM quotes WHERE id = 2", &[]) == "100").await;
    scene.pipeline.ok(&["erase", &quotes, "1"]);
    assert_eq!(read(&scene.pipeline, &scene.database, "quotes"), rows(&[(2, 100)]));
    scene.ends_well(service);
    let rest = scene.pipeline.answer(&["restore", &quotes, &kept]);
    assert!(rest.code == 5 && rest.err.contains("cleaned away") || rest.code == 2, "{} {}", rest.code, rest.err);
    scene.pipeline.assert_calm_log();
}

#[tokio::test]
async fn small_files_are_made_one_while_the_service_runs() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "clustered", "history = true\n").await;
    scene
        .run(&[
            "CREATE TABLE quotes (id INT PRIMARY KEY, price INT, noise VARBINARY(16))",
            "SET SESSION cte_max_recursion_depth = 1000000",
            "INSERT INTO quotes WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 250000) SELECT id, id % 97, RANDOM_BYTES(12) FROM n",
        ])
        .await;
    let service = scene.pipeline.run();
    eventually("all rows are there", async || {
        let answer = scene.pipeline.answer(&["query", "SELECT count(*) FROM quotes", "--format", "csv"]);
        answer.out.lines().nth(1) == Some("250000")
    })
    .await;
    scene.ends_well(service);
    let files =
        |scene: &Scene, as_of: Option<&str>| scene.pipeline.table(&scene.database, "quotes").base_files(as_of).unwrap().len();
    let many = files(&scene, None);
    assert!(many >= 3, "{many}");
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&config.replace("target_file_size = \"1MiB\"", "target_file_size = \"64MiB\""));
    let before = scene.pipeline.table(&scene.database, "quotes").instants().pop().unwrap();
    let service = scene.pipeline.run();
    scene.run(&["DELETE FROM quotes WHERE id = 77"]).await;
    let said = scene.pipeline.ok(&["cluster", &scene.quotes()]);
    assert!(said.contains(&format!("1 files in the place of {many}")) && said.contains("quotes_history"), "{said}");
    scene.run(&["UPDATE quotes SET price = 1000 WHERE id = 99999"]).await;
    eventually("it goes on", async || scene.answer("SELECT price FROM quotes WHERE id = 99999", &[]) == "1000").await;
    assert_eq!(files(&scene, None), 1);
    assert_eq!(files(&scene, Some(&before)), many);
    assert!(is_equal(&scene));
    let found = read(&scene.pipeline, &scene.database, "quotes");
    assert_eq!(found.len(), 249_999);
    assert!(found.contains(&vec![Some("99999".into()), Some("1000".into())]));
    let none = scene.pipeline.ok(&["cluster", &scene.quotes()]);
    assert!(none.contains("1 files, none to be rewritten"), "{none}");
    // readers that ask what changed since see no row of the clustering
    let since =
        hudi_rs(&scene.pipeline.table(&scene.database, "quotes").folder().display().to_string(), &names(), &["--since", &before]);
    assert_eq!(since, rows(&[(99_999, 1000)]));
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}

/// Whoever is killed in the middle: a request is done once, and the table ends as it is to be.
#[tokio::test]
async fn a_kill_in_the_middle_neither_loses_nor_doubles_it() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "went_back_killed", "history = true\n").await;
    scene.run(&["CREATE TABLE quotes (id INT PRIMARY KEY, price INT)", "INSERT INTO quotes VALUES (1, 0)"]).await;
    let mut service = scene.pipeline.run();
    scene.moment().await;
    for round in 1..=5u64 {
        let good = scene.pipeline.table(&scene.database, "quotes").instants().pop().unwrap();
        let state = scene.answer("SELECT id, price FROM quotes ORDER BY id", &[]);
        scene.run(&[&format!("UPDATE quotes SET price = -{round}")]).await;
        let wrong = format!("-{round}");
        eventually("it is wrong", async || scene.answer("SELECT max(price) FROM quotes", &[]) == wrong).await;
        let quotes = scene.quotes();
        let (asking, again) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| scene.pipeline.answer(&["restore", &quotes, &good, "--skip-changes"]));
            std::thread::sleep(std::time::Duration::from_millis(700 + 150 * round));
            service.kill();
            let again = scene.pipeline.run();
            (asking.join().unwrap(), again)
        });
        service = again;
        assert_eq!(asking.code, 0, "{}", asking.err);
        assert_eq!(scene.answer("SELECT id, price FROM quotes ORDER BY id", &[]), state, "round {round}");
        // what comes behind it stays, though the service starts once more
        scene
            .run(&[&format!("INSERT INTO quotes VALUES ({}, {round})", round + 1), "UPDATE quotes SET price = 0 WHERE id = 1"])
            .await;
        let (sql, count) = ("SELECT count(*) FROM quotes", (round + 1).to_string());
        eventually("the new row is there", async || scene.answer(sql, &[]) == count).await;
        service.kill();
        service = scene.pipeline.run();
        scene.run(&["UPDATE quotes SET price = 1 WHERE id = 1"]).await;
        eventually("the service goes on", async || scene.answer("SELECT price FROM quotes WHERE id = 1", &[]) == "1").await;
        assert_eq!(scene.answer(sql, &[]), count, "nothing of behind is left out");
        super::history::assert_at_one_cut(&scene, "quotes");
    }
    scene.ends_well(service);
}
