//! `binlake dead-letter`: wrong input, and a service that is killed in the middle of a retry.

use super::inferred::{add, comes_to, config};
use crate::mysql::eventually;
use crate::service::Pipeline;
use std::path::Path;
use std::process::Command;

const TABLE: &str = "name = \"mydev.events\"\nkey = [\"id\"]\ncolumns = { id = \"int\", n = \"int\", at = \"date\" }\n";

fn letters(pipeline: &Pipeline) -> usize {
    let list = pipeline.answer(&["dead-letter", "list", "--format", "json", "--limit", "100000"]);
    // there may be no lake yet
    if list.code == 5 { 0 } else { serde_json::from_str::<Vec<serde_json::Value>>(&list.out).unwrap().len() }
}

#[tokio::test]
async fn what_cannot_be_is_said_in_a_line() {
    let pipeline = Pipeline::from_text(&config(TABLE));
    add(
        pipeline.path(),
        "a.jsonl",
        &[r#"{"id": 1, "n": 1}"#, "\u{1b}[31mnot JSON, and very long: 0123456789 0123456789 0123456789 0123456789"],
    );
    let service = pipeline.run();
    comes_to(&pipeline, "events", &["id"], &["1"]).await;
    eventually("the letter is there", async || letters(&pipeline) == 1).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let list = pipeline.ok(&["dead-letter", "list"]);
    assert!(list.lines().count() == 3 && list.lines().all(|line| line.chars().count() <= 80), "{list}");
    assert!(list.contains("a.jsonl#2") && !list.contains('\u{1b}'), "{list}");
    for (arguments, said) in [
        (vec!["list", "--table", "mydev.nothing"], "no stream feeds a table of this name"),
        (vec!["retry", "--table", "mydev.nothing"], "no stream feeds a table of this name"),
        (vec!["retry", "--table", "mydev.events", "--position", "a.jsonl#9"], "there is no dead letter at this position"),
        (vec!["retry", "--table", "events"], "--table"),
        (vec!["retry"], "--table"),
        (vec!["list", "--limit", "many"], "--limit"),
    ] {
        let answer = pipeline.answer(&[&["dead-letter"], arguments.as_slice()].concat());
        assert_eq!(answer.code, 2, "{arguments:?}: {}{}", answer.out, answer.err);
        assert!(answer.err.contains(said), "{arguments:?}: {}", answer.err);
    }
    assert_eq!(pipeline.ok(&["dead-letter", "list", "--limit", "0"]), "… and 1 more (--limit)\n");
}

/// A retried record counts once: not again over what came later, however often the service is killed.
#[tokio::test]
async fn a_retry_that_is_killed_counts_once() {
    const IDS: usize = 40;
    let pipeline = Pipeline::from_text(&config(TABLE));
    let strict = pipeline.config();
    let lenient = strict.replace("at = \"date\"", "at = { type = \"date\", bad_values = \"null\" }");
    let mut expected: Vec<String> = Vec::new();
    for round in 0..4 {
        let id = |i: usize| round * 1000 + i;
        let bad: Vec<String> = (0..IDS).map(|i| format!("{{\"id\": {}, \"n\": 1, \"at\": \"never\"}}", id(i))).collect();
        pipeline.set_config(&strict);
        add(pipeline.path(), "bad.jsonl", &bad.iter().map(String::as_str).collect::<Vec<_>>());
        let service = pipeline.run();
        eventually("they are dead letters", async || letters(&pipeline) == IDS).await;
        service.kill();
        pipeline.set_config(&lenient);
        pipeline.ok(&["dead-letter", "retry", "--table", "mydev.events"]);
        let service = pipeline.run();
        let rows = || pipeline.table("mydev", "events").values(None, &["id", "n"]).unwrap_or_default().len();
        if round % 2 == 0 {
            eventually("the rows are there", async || rows() == (round + 1) * IDS).await;
        } else {
            eventually("a letter is gone", async || letters(&pipeline) < IDS).await;
        }
        service.kill();
        // what comes later stays the newest
        let newer: Vec<String> = (0..IDS / 2).map(|i| format!("{{\"id\": {}, \"n\": 2}}", id(i))).collect();
        add(pipeline.path(), "newer.jsonl", &newer.iter().map(String::as_str).collect::<Vec<_>>());
        let service = pipeline.run();
        expected.extend((0..IDS).map(|i| format!("{} {} NULL", id(i), if i < IDS / 2 { 2 } else { 1 })));
        expected.sort();
        comes_to(&pipeline, "events", &["id", "n", "at"], &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        eventually("no letter is left", async || letters(&pipeline) == 0).await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    pipeline.assert_calm_log();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// A table's dead letters are committed before it says that it has read their records; what is a letter by the rules of before becomes no row by others.
#[tokio::test]
async fn a_record_is_a_row_or_a_letter_whatever_the_rules_become() {
    let pipeline = Pipeline::from_text(&config(TABLE));
    let strict = pipeline.config();
    let lenient = strict.replace("at = \"date\"", "at = { type = \"date\", bad_values = \"null\" }");
    let records =
        |round: i32| [format!("{{\"id\": {round}, \"n\": 1}}"), format!("{{\"id\": {}, \"at\": \"never\"}}", 100 + round)];
    let folder = pipeline.table("mydev", "events").folder().to_owned();
    let earlier = pipeline.path().join("earlier");
    let mut service = pipeline.run();
    for round in 0..5 {
        add(pipeline.path(), "a.jsonl", &records(round).iter().map(String::as_str).collect::<Vec<_>>());
        let ids: Vec<String> = (0..=round).map(|id| id.to_string()).collect();
        comes_to(&pipeline, "events", &["id"], &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(letters(&pipeline), ids.len(), "with the rows of their records they are there");
        if round == 1 {
            assert!(service.terminate().success(), "{}", pipeline.log_tail());
            copy(&folder, &earlier);
            service = pipeline.run();
        }
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());

    // as if the service had been killed before the table's last commits
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&earlier, &folder);
    pipeline.set_config(&lenient);
    let service = pipeline.run();
    comes_to(&pipeline, "events", &["id"], &["0", "1", "2", "3", "4"]).await;
    assert_eq!(letters(&pipeline), 5);
    pipeline.ok(&["dead-letter", "retry", "--table", "mydev.events"]);
    comes_to(&pipeline, "events", &["id"], &["0", "1", "100", "101", "102", "103", "104", "2", "3", "4"]).await;
    eventually("no letter is left", async || letters(&pipeline) == 0).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
