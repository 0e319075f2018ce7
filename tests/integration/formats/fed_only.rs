//! Pipelines without a source: commands that are about one say so at once, and ask no server that nobody named.

use super::inferred::{add, comes_to, config};
use crate::mysql::{eventually, free_address};
use crate::service::Pipeline;
use crate::surface::ask;

#[tokio::test]
async fn commands_about_a_source_say_that_there_is_none() {
    let pipeline = Pipeline::from_text(&config("name = \"mydev.events\"\nkey = [\"id\"]\ncolumns = { id = \"int\" }\n"));
    for (command, said) in [
        (vec!["verify"], "there is nothing to compare"),
        (vec!["verify", "--table", "mydev.events"], "there is nothing to compare"),
        (vec!["backfill"], "there is nothing to copy"),
        (vec!["capture"], "there is nothing to capture"),
        (vec!["stream", "tail"], "there is no stream of binlake's own"),
    ] {
        let answer = pipeline.answer(&command);
        assert_eq!(answer.code, 2, "{command:?}: {}", answer.err);
        assert!(answer.err.contains(said) && answer.err.contains("; "), "{command:?}: {}", answer.err);
        assert_eq!(answer.err.lines().filter(|line| !line.contains("INFO")).count(), 1, "{command:?}: {}", answer.err);
    }
    // before the first run, and after it
    let doctor = pipeline.answer(&["doctor"]);
    assert_eq!(doctor.code, 0, "{}", doctor.out);
    assert!(doctor.out.contains("feed jsonl:") && doctor.out.contains("doesn't exist yet"), "{}", doctor.out);
    assert!(!doctor.out.contains("source") && !doctor.out.contains("data/stream"), "{}", doctor.out);
    add(pipeline.path(), "a.jsonl", &[r#"{"id": 1}"#]);
    let address = free_address();
    pipeline.set_config(&pipeline.config().replace("\"off\"", &format!("\"{address}\"")));
    let service = pipeline.run();
    comes_to(&pipeline, "events", &["id"], &["1"]).await;
    eventually("it is ready", async || ask(&address, "/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let doctor = pipeline.ok(&["doctor"]);
    assert!(doctor.contains("can be read, 1 files") && doctor.contains("declared columns: 1"), "{doctor}");
    assert!(doctor.lines().all(|line| line.chars().count() <= 80), "{doctor}");
    assert!(pipeline.ok(&["tables"]).contains("mydev.events"));
    assert!(!pipeline.path().join("data/stream").exists(), "a stream was made that nobody needs");
    // a stream that isn't there, and a folder that is a file
    pipeline.set_config(&pipeline.config().replace("jsonl:./in/", "kinesis://missing?endpoint=http://127.0.0.1:1&region=x"));
    let doctor = pipeline.answer(&["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.out);
    assert!(doctor.out.contains("feed kinesis://missing"), "{}", doctor.out);
}

#[tokio::test]
async fn beside_a_source_the_fed_tables_are_not_compared_or_copied() {
    let fed = config("name = \"mydev.events\"\nkey = [\"id\"]\n");
    let pipeline =
        Pipeline::from_text(&format!("[source]\nurl = \"mysql://nobody@127.0.0.1:1\"\n{fed}[[table]]\nsource = \"shop.*\"\n"));
    for command in ["verify", "backfill"] {
        let answer = pipeline.answer(&[command, "--table", "mydev.events"]);
        assert_eq!(answer.code, 2, "{}", answer.err);
        assert!(answer.err.contains("the table is fed by a stream"), "{}", answer.err);
    }
}
