//! Tables fed by plain JSON records: as the impressions of the known system (scenario S2) arrive.

use crate::mysql::{PATIENCE, eventually, within};
use crate::service::{Pipeline, append};
use std::path::Path;

const CONFIG: &str = r#"
[lake]
url = "file:./data/lake"
commit_interval = "100ms"
target_file_size = "1MiB"
[state]
url = "sqlite:./data/state.db"
[admin]
listen = "off"
[[table]]
stream = "jsonl:./impressions/"
name = "mydev.impressions"
columns = { uuid = "string", country = "string", orderdate = { type = "date", format = "M/d/yy" }, unitssold = "string", impressiontime = { type = "timestamp", bad_values = "null" }, "geo.city" = "string" }
key = ["uuid"]
ordering = "orderdate"
"#;

fn add(folder: &Path, file: &str, lines: &[&str]) {
    append(&folder.join("impressions").join(file), &lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>());
}

fn rows(pipeline: &Pipeline) -> Vec<String> {
    let columns = ["uuid", "country", "orderdate", "impressiontime", "geo_city"];
    let rows = pipeline.table("mydev", "impressions").values(None, &columns).unwrap_or_default();
    let mut rows: Vec<String> = rows
        .into_iter()
        .map(|row| row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" "))
        .collect();
    rows.sort();
    rows
}

async fn comes_to(pipeline: &Pipeline, expected: &[&str]) {
    let mut last = Vec::new();
    let is_there = within(PATIENCE, async || {
        last = rows(pipeline);
        last == expected
    });
    assert!(is_there.await, "expected {expected:#?}, found {last:#?}\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn impressions_by_key_and_order_with_dead_letters() {
    let pipeline = Pipeline::from_text(CONFIG);
    add(
        pipeline.path(),
        "a.jsonl",
        &[
            r#"{"uuid": 10000000000000000000001, "country": "Canada", "orderdate": "2/15/11", "unitssold": "5", "impressiontime": "2026-11-21 10:11:12"}"#,
            r#"{"uuid": 2, "country": "Chad", "orderdate": "2/15/11", "impressiontime": "2026-14-21 10:11:12", "geo": {"city": "Sarh"}}"#,
            r#"{"uuid": 3, "country": "India", "orderdate": "2/30/11"}"#,
            "not JSON",
            r#"{"country": "no key"}"#,
        ],
    );
    let service = pipeline.run();
    let first = "10000000000000000000001 Canada 2011-02-15 2026-11-21 10:11:12 NULL";
    comes_to(&pipeline, &[first, "2 Chad 2011-02-15 NULL Sarh"]).await;
    // late records lose against newer ones, in one batch and later; of equals the later one wins
    add(
        pipeline.path(),
        "b.jsonl",
        &[
            r#"{"uuid": 2, "country": "late", "orderdate": "12/31/10"}"#,
            r#"{"uuid": 4, "country": "new", "orderdate": "1/2/12"}"#,
            r#"{"uuid": 4, "country": "older", "orderdate": "1/1/12"}"#,
        ],
    );
    comes_to(&pipeline, &[first, "2 Chad 2011-02-15 NULL Sarh", "4 new 2012-01-02 NULL NULL"]).await;
    service.kill();
    add(pipeline.path(), "b.jsonl", &[r#"{"uuid": 4, "country": "equal", "orderdate": "1/2/12"}"#]);
    add(pipeline.path(), "c.jsonl", &[r#"{"uuid": 5, "orderdate": "1/2/12"}"#]);
    let service = pipeline.run();
    let all = [first, "2 Chad 2011-02-15 NULL Sarh", "4 equal 2012-01-02 NULL NULL", "5 NULL 2012-01-02 NULL NULL"];
    comes_to(&pipeline, &all).await;

    let list =
        || -> Vec<serde_json::Value> { serde_json::from_str(&pipeline.ok(&["dead-letter", "list", "--format", "json"])).unwrap() };
    eventually("all dead letters are listed", async || list().len() == 3).await;
    let letters = list();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("`orderdate` can't be read: it is no date")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("not JSON")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("the key `uuid` is missing")), "{reasons:?}");
    assert!(letters.iter().all(|letter| letter["table"] == "mydev.impressions"), "{letters:?}");
    assert_eq!(service.terminate().code(), Some(0), "{}", pipeline.log_tail());

    // a bad date shall be NULL from now on: what was refused for it is read once more
    pipeline.set_config(&pipeline.config().replace("format = \"M/d/yy\" }", "format = \"M/d/yy\", bad_values = \"null\" }"));
    let said = pipeline.ok(&["dead-letter", "retry", "--table", "mydev.impressions"]);
    assert!(said.contains("3 records of mydev.impressions are read once more"), "{said}");
    // asked for twice, it is done once
    let said = pipeline.ok(&["dead-letter", "retry", "--table", "mydev.impressions"]);
    assert!(said.contains("3 records of mydev.impressions wait already"), "{said}");
    let service = pipeline.run();
    let mut with_retried = all.to_vec();
    with_retried.insert(2, "3 India NULL NULL NULL");
    comes_to(&pipeline, &with_retried).await;
    eventually("the letter that was read is gone", async || list().len() == 2).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// Killed again and again while files grow: each record is there once, in the table or among the dead letters.
#[tokio::test]
async fn each_record_counts_once_however_often_the_service_is_killed() {
    let pipeline = Pipeline::from_text(CONFIG);
    let mut expected = 0;
    for round in 0..6_u32 {
        let lines: Vec<String> = (0..400)
            .map(|i| {
                let id = round * 1000 + i;
                if i % 50 == 7 {
                    format!("bad {id}")
                } else {
                    format!("{{\"uuid\": {id}, \"country\": \"c{id}\", \"orderdate\": \"1/2/12\"}}")
                }
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        for (part, lines) in lines.chunks(100).enumerate() {
            add(pipeline.path(), &format!("{}.jsonl", part % 3), lines);
        }
        expected += 392;
        let service = pipeline.run();
        if round < 5 {
            eventually("some of it is there", async || rows(&pipeline).len() > (round * 392) as usize).await;
            service.kill();
        } else {
            eventually("all of it is there", async || rows(&pipeline).len() == expected).await;
            assert!(service.terminate().success(), "{}", pipeline.log_tail());
        }
    }
    let letters: Vec<serde_json::Value> =
        serde_json::from_str(&pipeline.ok(&["dead-letter", "list", "--format", "json", "--limit", "1000"])).unwrap();
    let mut records: Vec<&str> = letters.iter().map(|letter| letter["record"].as_str().unwrap()).collect();
    records.sort_unstable();
    let all = records.len();
    records.dedup();
    assert_eq!((all, records.len()), (48, 48));
    pipeline.assert_calm_log();
}
