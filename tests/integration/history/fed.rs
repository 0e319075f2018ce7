//! The history of a table that a stream of records feeds, with an ordering field: a late record is no news for the table, and a correction of the past for its history.

use super::OPEN_END;
use crate::mysql::{PATIENCE, within};
use crate::service::{Pipeline, append};

pub(crate) const CONFIG: &str = r#"
[lake]
url = "file:./data/lake"
commit_interval = "100ms"
[state]
url = "sqlite:./data/state.db"
[admin]
listen = "off"
[[table]]
stream = "jsonl:./prices/"
name = "index.prices"
columns = { id = "int", price = "int", day = { type = "date", format = "yyyy-MM-dd" } }
key = ["id"]
ordering = "day"
history = { valid_time = "day" }
[table.children.parts]
columns = { name = "string" }
"#;

fn add(pipeline: &Pipeline, lines: &[&str]) {
    append(&pipeline.path().join("prices/a.jsonl"), &lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>());
}

async fn comes_to(pipeline: &Pipeline, table: &str, columns: &[&str], expected: &[&str]) {
    let mut last = Vec::new();
    let is_there = within(PATIENCE, async || {
        let rows = pipeline.table("index", table).values(None, columns).unwrap_or_default();
        last = rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")).collect();
        last.sort();
        last == expected
    });
    assert!(is_there.await, "expected {expected:#?}, found {last:#?}\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn a_late_record_corrects_the_past_alone() {
    let pipeline = Pipeline::from_text(CONFIG);
    add(&pipeline, &[r#"{"id": 1, "price": 10, "day": "2026-01-10"}"#, r#"{"id": 2, "price": 7, "day": "2026-01-01"}"#]);
    let service = pipeline.run();
    comes_to(&pipeline, "prices", &["id", "price"], &["1 10", "2 7"]).await;
    add(&pipeline, &[r#"{"id": 1, "price": 20, "day": "2026-02-10", "parts": [{"name": "a"}, {"name": "b"}]}"#]);
    comes_to(&pipeline, "prices", &["id", "price"], &["1 20", "2 7"]).await;
    // late: before both that are known, and between them
    add(&pipeline, &[r#"{"id": 1, "price": 5, "day": "2026-01-05"}"#, r#"{"id": 1, "price": 15, "day": "2026-02-01"}"#]);
    let periods = ["id", "price", "_valid_from", "_valid_to"];
    let open = format!("1 20 2026-02-10 00:00:00 {OPEN_END}");
    let of_two = format!("2 7 2026-01-01 00:00:00 {OPEN_END}");
    let closed = [format!("1 10 2026-01-10 00:00:00 {OPEN_END}"), "1 10 2026-01-10 00:00:00 2026-02-10 00:00:00".to_owned()];
    let mut all = vec![
        "1 10 2026-01-10 00:00:00 2026-02-01 00:00:00",
        "1 15 2026-02-01 00:00:00 2026-02-10 00:00:00",
        "1 5 2026-01-05 00:00:00 2026-01-10 00:00:00",
        &open,
        &of_two,
        &closed[0],
        &closed[1],
    ];
    all.sort_unstable();
    comes_to(&pipeline, "prices_history", &periods, &all).await;
    comes_to(&pipeline, "prices", &["id", "price"], &["1 20", "2 7"]).await;
    // a restart changes nothing
    service.kill();
    let service = pipeline.run();
    add(&pipeline, &[r#"{"id": 3, "price": 1, "day": "2026-01-01"}"#]);
    comes_to(&pipeline, "prices", &["id", "price"], &["1 20", "2 7", "3 1"]).await;
    assert_eq!(service.terminate().code(), Some(0), "{}", pipeline.log_tail());
    let ask = |valid: &str| {
        let out = pipeline.ok(&["query", "SELECT price FROM index.prices WHERE id = 1", "--format", "csv", "--valid-at", valid]);
        out.lines().nth(1).map(str::to_owned)
    };
    let answers = ["2026-01-04", "2026-01-07", "2026-01-31", "2026-02-05", "2026-03-01"].map(ask);
    assert_eq!(answers, [None, Some("5"), Some("10"), Some("15"), Some("20")].map(|price| price.map(str::to_owned)));
    // what was wrong and personal goes, by the service or without
    let said = pipeline.ok(&["erase", "index.prices", "1"]);
    assert!(said.contains("erased 1 rows") && said.contains("2 rows of its children"), "{said}");
    comes_to(&pipeline, "prices_parts", &["name"], &[]).await;
    comes_to(&pipeline, "prices_history", &["id"], &["2", "3"]).await;
}
