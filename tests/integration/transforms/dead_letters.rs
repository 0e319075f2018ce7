//! Rows that can't be transformed and become dead letters: each row of the source is in the table or among them, never in both.

use super::of_source::{comes_to, shown};
use crate::mysql::{Flavour, PATIENCE, Server, eventually, within};
use crate::random::Random;
use crate::service::Pipeline;
use serde_json::Value;
use std::collections::BTreeMap;

const CAST: &str = "transform = 'SELECT id, CAST(v AS INT) AS number FROM input'\non_error = 'dead_letter'\n";

async fn table(topic: &str) -> (&'static Server, String, crate::mysql::Client) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let mut client = server.client().await;
    client.run_all(&format!("USE {database}; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))")).await;
    (server, database, client)
}

/// The dead letters, by their rows: reason and row.
pub(super) fn letters(pipeline: &Pipeline) -> BTreeMap<i64, (String, Value)> {
    let list = pipeline.answer(&["dead-letter", "list", "--format", "json", "--limit", "100000"]);
    // there may be no lake yet
    let all: Vec<Value> = if list.code == 5 { Vec::new() } else { serde_json::from_str(&list.out).unwrap() };
    let letter = |letter: Value| {
        let row: Value = serde_json::from_str(letter["record"].as_str().unwrap()).unwrap();
        (row["id"].as_i64().unwrap(), (letter["reason"].as_str().unwrap().to_owned(), row))
    };
    all.into_iter().map(letter).collect()
}

pub(super) async fn has_letters(pipeline: &Pipeline, ids: &[i64]) {
    let mut found = Vec::new();
    let same = within(PATIENCE, async || {
        found = letters(pipeline).into_keys().collect();
        found == ids
    });
    assert!(same.await, "{ids:?} expected, {found:?} found\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn a_row_is_in_the_table_or_a_dead_letter() {
    let (server, database, mut client) = table("letters").await;
    client.run("INSERT INTO t VALUES (1, '5'), (2, 'secret'), (3, '7')").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.t'\n{CAST}"));
    let service = pipeline.run();
    let expect = async |rows: &[&str], ids: &[i64]| {
        comes_to(&pipeline, &database, "t", &["id", "number"], rows).await;
        has_letters(&pipeline, ids).await;
    };
    expect(&["1 5", "3 7"], &[2]).await;
    let (reason, row) = letters(&pipeline).remove(&2).unwrap();
    assert_eq!(reason, "`number`: a value can't be cast to the type");
    assert_eq!(row.to_string(), r#"{"id":2,"v":"secret"}"#);
    // an earlier version goes, too: it isn't so any more
    client.run("UPDATE t SET v = 'bad' WHERE id = 1").await;
    expect(&["3 7"], &[1, 2]).await;
    let verified = pipeline.ok(&["verify"]);
    assert!(verified.contains("equal, 1 rows"), "{verified}");
    // what comes later takes the letter's place: a row, a delete, another letter
    client
        .run_all("UPDATE t SET v = '8' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET id = 4, v = 'worse' WHERE id = 3")
        .await;
    expect(&["1 8"], &[4]).await;
    client.run_all("TRUNCATE TABLE t; INSERT INTO t VALUES (5, 'x'), (6, '6')").await;
    expect(&["6 6"], &[5]).await;
    // with another SQL they are tried again
    service.kill();
    pipeline.set_config(&pipeline.config().replace("CAST(v AS INT)", "COALESCE(TRY_CAST(v AS INT), -1)"));
    let service = pipeline.run();
    let said = pipeline.ok(&["dead-letter", "retry", "--table", &format!("{database}.t")]);
    assert!(said.starts_with(&format!("1 rows of {database}.t are tried once more\n")), "{said}");
    expect(&["5 -1", "6 6"], &[]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    assert!(!pipeline.log().contains("secret"), "no value is in the log");
    // a letter of a time when rows became such goes with the next change of its key, whatever the rule says now
    pipeline.set_config(&pipeline.config().replace("COALESCE(TRY_CAST(v AS INT), -1)", "CAST(v AS BIGINT)"));
    client.run("INSERT INTO t VALUES (7, 'x')").await;
    let service = pipeline.run();
    expect(&["5 -1", "6 6"], &[7]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.set_config(&pipeline.config().replace("on_error = 'dead_letter'\n", ""));
    let service = pipeline.run();
    client.run("UPDATE t SET v = '8' WHERE id = 7").await;
    expect(&["5 -1", "6 6", "7 8"], &[]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(
        pipeline.ok(&["dead-letter", "retry", "--table", &format!("{database}.t")]),
        format!("{database}.t has no dead letters\n")
    );
}

/// Whatever comes and whenever the service is killed: table and letters together are the source.
#[tokio::test]
async fn kills_neither_lose_nor_double_a_row() {
    let (server, database, mut client) = table("letters_kills").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.t'\n{CAST}"));
    let mut random = Random::from_environment("LETTERS_SEED");
    let mut service = pipeline.run();
    for round in 0..6 {
        for _ in 0..25 {
            let id = random.below(30);
            let value = if random.below(3) == 0 { "bad".to_owned() } else { random.below(1000).to_string() };
            client
                .run(&match random.below(5) {
                    0 => format!("DELETE FROM t WHERE id = {id}"),
                    1 => format!("UPDATE IGNORE t SET id = {} WHERE id = {id}", random.below(30)),
                    _ => format!("REPLACE INTO t VALUES ({id}, '{value}')"),
                })
                .await;
        }
        if round == 3 {
            // nothing can be made of them still
            pipeline.answer(&["dead-letter", "retry", "--table", &format!("{database}.t")]);
        }
        service.kill();
        service = pipeline.run();
    }
    let source = client.rows("SELECT id, v FROM t ORDER BY id").await;
    let (good, bad): (Vec<_>, Vec<_>) = source.into_iter().partition(|row| row[1].as_deref() != Some("bad"));
    let text = |row: &Vec<Option<String>>| row.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let mut good: Vec<String> = good.iter().map(text).collect();
    good.sort();
    comes_to(&pipeline, &database, "t", &["id", "number"], &good.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let bad: Vec<i64> = bad.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    has_letters(&pipeline, &bad).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn rows_without_an_item_are_dead_letters_where_the_lookup_says_so() {
    let (server, database, mut client) = table("letters_lookup").await;
    client.run("INSERT INTO t VALUES (1, 'India'), (2, 'Chad'), (3, NULL)").await;
    let tables = format!(
        "[[table]]\nsource = '{database}.t'\ntransform = 'SELECT id, v, c.code FROM input t LEFT JOIN country c ON t.v = c.name'\n\
         [lookup.country]\nurl = 'file:country.csv'\nmissing = 'dead_letter'\n"
    );
    let pipeline = Pipeline::new(server, &tables);
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "name,code\nIndia,IN\n").unwrap();
    let service = pipeline.run();
    comes_to(&pipeline, &database, "t", &["id", "code"], &["1 IN", "3 NULL"]).await;
    has_letters(&pipeline, &[2]).await;
    assert_eq!(letters(&pipeline)[&2].0, "`country.name`: the lookup `country` has no item for it");
    std::fs::write(&file, "name,code\nIndia,IN\nChad,TD\n").unwrap();
    // the file is read a second after it changed
    eventually("the row has its item", async || {
        pipeline.ok(&["dead-letter", "retry", "--table", &format!("{database}.t")]);
        shown(&pipeline, &database, "t", &["id", "code"]) == ["1 IN", "2 TD", "3 NULL"]
    })
    .await;
    has_letters(&pipeline, &[]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// While its row is a dead letter, nothing is true of a key; from its retry on it is again.
#[tokio::test]
async fn a_history_knows_of_dead_letters() {
    let (server, database, mut client) = table("letters_history").await;
    client.run("INSERT INTO t VALUES (1, '5'), (2, '6')").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.t'\nhistory = true\n{CAST}"));
    let service = pipeline.run();
    let versions = async |expected: &[&str]| comes_to(&pipeline, &database, "t_history", &["id", "number"], expected).await;
    let open = |expected: usize| {
        let ends = shown(&pipeline, &database, "t_history", &["_system_to", "_valid_to"]);
        assert_eq!(ends.iter().filter(|end| end.matches("9999-12-31").count() == 2).count(), expected, "{ends:?}");
    };
    versions(&["1 5", "2 6"]).await;
    open(2);
    client.run("UPDATE t SET v = 'bad' WHERE id = 1").await;
    has_letters(&pipeline, &[1]).await;
    // as known until then, and what was true until then
    versions(&["1 5", "1 5", "2 6"]).await;
    open(1);
    service.kill();
    pipeline.set_config(&pipeline.config().replace("CAST(v AS INT)", "COALESCE(TRY_CAST(v AS INT), -1)"));
    let service = pipeline.run();
    pipeline.ok(&["dead-letter", "retry", "--table", &format!("{database}.t")]);
    comes_to(&pipeline, &database, "t", &["id", "number"], &["1 -1", "2 6"]).await;
    versions(&["1 -1", "1 5", "1 5", "2 6"]).await;
    open(2);
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// A row that is a dead letter has no elements in its child table either.
#[tokio::test]
async fn children_go_and_come_with_their_row() {
    let (server, database, mut client) = table("letters_children").await;
    client.run("ALTER TABLE t ADD COLUMN doc JSON").await;
    client.run(r#"INSERT INTO t VALUES (1, '5', '[{"sku": "a"}, {"sku": "b"}]'), (2, 'bad', '[{"sku": "c"}]')"#).await;
    let rule = format!(
        "[[table]]\nsource = '{database}.t'\ntransform = 'SELECT id, CAST(v AS INT) AS number, doc FROM input'\non_error = 'dead_letter'\n\
         [table.children.doc]\nname = '{database}.items'\ncolumns = {{ sku = 'string' }}\n"
    );
    let pipeline = Pipeline::new(server, &rule);
    let service = pipeline.run();
    let items = async |expected: &[&str]| comes_to(&pipeline, &database, "items", &["id", "sku"], expected).await;
    items(&["1 a", "1 b"]).await;
    has_letters(&pipeline, &[2]).await;
    // which are committed before the table itself
    comes_to(&pipeline, &database, "t", &["id", "number"], &["1 5"]).await;
    let listed = pipeline.ok(&["tables"]);
    assert!(listed.contains("  transformed, 1 dead letters\n"), "{listed}");
    client.run("UPDATE t SET v = 'bad' WHERE id = 1").await;
    items(&[]).await;
    client.run("UPDATE t SET v = '7' WHERE id = 1").await;
    items(&["1 a", "1 b"]).await;
    service.kill();
    pipeline.set_config(&pipeline.config().replace("CAST(v AS INT)", "TRY_CAST(v AS INT)"));
    let service = pipeline.run();
    pipeline.ok(&["dead-letter", "retry", "--table", &format!("{database}.t")]);
    comes_to(&pipeline, &database, "t", &["id", "number"], &["1 7", "2 NULL"]).await;
    items(&["1 a", "1 b", "2 c"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
