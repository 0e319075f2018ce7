//! Tables whose columns nobody declared: inferred from plain records, or read from the schema beside Debezium's.

use crate::mysql::{PATIENCE, eventually, within};
use crate::readers::{duckdb, hudi_rs};
use crate::service::{Pipeline, append};
use std::path::Path;

pub(super) fn config(table: &str) -> String {
    format!(
        "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\ntarget_file_size = \"1MiB\"\n[state]\nurl = \"sqlite:./data/state.db\"\n\
         [admin]\nlisten = \"off\"\n[[table]]\nstream = \"jsonl:./in/\"\n{table}"
    )
}

pub(super) fn add(folder: &Path, file: &str, lines: &[&str]) {
    append(&folder.join("in").join(file), &lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>());
}

pub(super) async fn comes_to(pipeline: &Pipeline, table: &str, columns: &[&str], expected: &[&str]) {
    let mut last = Vec::new();
    let is_there = within(PATIENCE, async || {
        let rows = pipeline.table("mydev", table).values(None, columns).unwrap_or_default();
        let text =
            |row: Vec<Option<String>>| row.into_iter().map(|v| v.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" ");
        last = rows.into_iter().map(text).collect();
        last.sort();
        last == expected
    });
    assert!(is_there.await, "expected {expected:#?}, found {last:#?}\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn columns_are_inferred_stay_and_grow() {
    let pipeline = Pipeline::from_text(&config("name = \"mydev.events\"\nkey = [\"id\"]\n"));
    add(
        pipeline.path(),
        "a.jsonl",
        &[r#"{"id": 1, "price": 5, "geo": {"city": "Sarh"}}"#, r#"{"id": 2, "price": 1.5, "ok": true, "list": [1, {"a": 2}]}"#],
    );
    let service = pipeline.run();
    comes_to(
        &pipeline,
        "events",
        &["id", "price", "geo_city", "ok", "list"],
        &["1 5 Sarh NULL NULL", r#"2 1.5 NULL true [1,{"a":2}]"#],
    )
    .await;
    service.kill();
    // another process knows the types from the lake: what doesn't fit them is a dead letter, and a new field is a new column
    add(pipeline.path(), "a.jsonl", &[r#"{"id": 3, "price": "cheap"}"#, r#"{"id": 4, "price": "7", "note": "new"}"#]);
    let service = pipeline.run();
    let rows = ["1 5 NULL", "2 1.5 NULL", "4 7 new"];
    comes_to(&pipeline, "events", &["id", "price", "note"], &rows).await;
    eventually("the dead letter is listed", async || {
        pipeline.ok(&["dead-letter", "list"]).contains("the value of `price` can't be read: it is no number")
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    assert!(pipeline.log().contains("columns are inferred"), "{}", pipeline.log_tail());
    let inferred = "id bigint, price double, geo_city string, ok boolean, list json, note string";
    let tables = pipeline.ok(&["tables"]);
    assert!(tables.contains(&format!("inferred: {inferred}")), "{tables}");
    let doctor: String = pipeline.ok(&["doctor"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(doctor.contains(inferred), "{doctor}");
    assert_eq!(pipeline.ok(&["query", "SELECT sum(price) FROM mydev.events", "--format", "csv"]).lines().nth(1), Some("13.5"));
}

#[tokio::test]
async fn debeziums_schema_says_the_columns() {
    let pipeline = Pipeline::from_text(&config("name = \"mydev.orders\"\nformat = \"debezium-json\"\nkey = [\"id\"]\n"));
    let event = |fields: &str, op: &str, before: &str, after: &str| {
        format!(
            r#"{{"schema": {{"type": "struct", "fields": [{{"type": "struct", "field": "after", "fields": [{{"field": "id", "type": "int32", "optional": false}}{fields}]}}]}}, "payload": {{"op": "{op}", "before": {before}, "after": {after}, "source": {{"db": "mydev", "table": "orders", "ts_ms": 1790000000000, "snapshot": "false"}}}}}}"#
        )
    };
    const AT: &str = r#", {"field": "at", "type": "int64", "optional": true, "name": "io.debezium.time.MicroTimestamp"}"#;
    const NOTE: &str = r#", {"field": "note", "type": "string", "optional": true}"#;
    let first = event(AT, "c", "null", r#"{"id": 1, "at": 1500000}"#);
    add(pipeline.path(), "a.jsonl", &[&first, r#"{"status": "BEGIN", "id": "x:1", "ts_ms": 5}"#]);
    let service = pipeline.run();
    comes_to(&pipeline, "orders", &["id", "at"], &["1 1970-01-01 00:00:01.5"]).await;
    service.kill();
    let wider = format!("{AT}{NOTE}");
    let second = event(&wider, "c", "null", r#"{"id": 2, "at": null, "note": "x"}"#);
    let moved = event(AT, "u", r#"{"id": 1, "at": 1500000}"#, r#"{"id": 3, "at": 2000000}"#);
    add(pipeline.path(), "b.jsonl", &[&second, &moved]);
    let service = pipeline.run();
    comes_to(&pipeline, "orders", &["id", "at", "note"], &["2 NULL x", "3 1970-01-01 00:00:02 NULL"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    assert!(!pipeline.ok(&["dead-letter", "list", "--format", "csv"]).contains("orders"));
}

#[tokio::test]
async fn lists_are_lists_for_every_reader() {
    let columns = "columns = { id = \"int\", tags = \"array<string>\", days = { type = \"array<date>\", format = \"M/d/yy\" }, prices = \"array<decimal(10,2)>\", scores = \"array<double>\", at = \"array<timestamp>\" }\n";
    let pipeline = Pipeline::from_text(&config(&format!("name = \"mydev.lists\"\nkey = [\"id\"]\n{columns}infer = true\n")));
    add(
        pipeline.path(),
        "a.jsonl",
        &[
            r#"{"id": 1, "tags": ["a", null, "größe"], "days": ["2/15/11"], "prices": [1.5, 2], "scores": [], "at": ["2026-11-21T10:11:12Z"], "more": [1, 2]}"#,
            r#"{"id": 2, "tags": [], "more": null}"#,
            r#"{"id": 3, "tags": "not a list"}"#,
        ],
    );
    let service = pipeline.run();
    comes_to(&pipeline, "lists", &["id"], &["1", "2"]).await;
    service.kill();
    add(pipeline.path(), "a.jsonl", &[r#"{"id": 2, "tags": ["later"], "more": [3]}"#, r#"{"id": 4, "more": [5, "x"]}"#]);
    let service = pipeline.run();
    eventually("the change is there", async || {
        pipeline.ok(&["query", "SELECT id FROM mydev.lists WHERE array_length(more) = 1", "--format", "csv"]).lines().nth(1)
            == Some("2")
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    let query = "SELECT id, tags[3] AS tag, days[1] AS day, prices[2] AS price, more[1] AS more FROM mydev.lists ORDER BY id";
    assert_eq!(pipeline.ok(&["query", query, "--format", "csv"]), "id,tag,day,price,more\n1,größe,2011-02-15,2.00,1\n2,,,,3\n");
    let letters = pipeline.ok(&["dead-letter", "list", "--format", "csv"]);
    assert!(letters.contains("`tags` can't be read: it is no list") && letters.contains("`more` can't be read"), "{letters}");
    let columns = ["id", "tags", "days", "prices", "scores", "at", "more"].map(str::to_owned);
    let mut by_hudi_rs = hudi_rs(&pipeline.table("mydev", "lists").folder().display().to_string(), &columns, &[]);
    let mut by_duckdb = duckdb(&pipeline.lake().join("views.sql"), "mydev.lists", &columns);
    by_hudi_rs.sort();
    by_duckdb.sort();
    assert_eq!(by_hudi_rs, by_duckdb);
    assert!(by_hudi_rs[0][1].as_ref().is_some_and(|tags| tags.contains("größe")), "{by_hudi_rs:?}");
}
