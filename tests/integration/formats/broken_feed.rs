//! A stream that others broke, beside one that goes on.

use crate::mysql::{PATIENCE, eventually, within};
use crate::service::{Pipeline, append};
use crate::transforms::comes_to;

const CONFIG: &str = r#"
[lake]
url = "file:./data/lake"
commit_interval = "100ms"
[state]
url = "sqlite:./data/state.db"
[admin]
listen = "off"
[[table]]
stream = "jsonl:./broken/"
name = "m.broken"
columns = { id = "int" }
key = ["id"]
[[table]]
stream = "jsonl:./whole/"
name = "m.whole"
columns = { id = "int" }
key = ["id"]
"#;

fn add(pipeline: &Pipeline, file: &str, text: &str) {
    append(&pipeline.path().join(file), text);
}

/// As a log is rotated: the file gets another name, and a new one its own.
#[tokio::test]
async fn a_file_that_is_rotated_stops_its_table_alone_and_hides_no_record() {
    let pipeline = Pipeline::from_text(CONFIG);
    // a dead letter: its table's checkpoint stays behind, so a restart begins before it
    add(&pipeline, "broken/a.jsonl", "{\"id\": 1}\nno record\n{\"id\": 2}\n");
    add(&pipeline, "whole/a.jsonl", "{\"id\": 1}\n");
    let service = pipeline.run();
    comes_to(&pipeline, "m", "broken", &["id"], &["1", "2"]).await;
    add(&pipeline, "broken/a.jsonl", "{\"id\": 3}\n");
    comes_to(&pipeline, "m", "broken", &["id"], &["1", "2", "3"]).await;

    let folder = pipeline.path().join("broken");
    std::fs::rename(folder.join("a.jsonl"), folder.join("old")).unwrap();
    add(&pipeline, "broken/a.jsonl", "{\"id\": 4}\n");
    let said = || pipeline.log().matches("a stream's tables are stopped; the others go on").count();
    eventually("its table is stopped", async || said() == 1).await;
    add(&pipeline, "whole/a.jsonl", "{\"id\": 2}\n");
    comes_to(&pipeline, "m", "whole", &["id"], &["1", "2"]).await;
    // and so it is after a restart
    service.kill();
    let service = pipeline.run();
    eventually("its table is stopped again", async || said() == 2).await;
    add(&pipeline, "whole/a.jsonl", "{\"id\": 3}\n");
    comes_to(&pipeline, "m", "whole", &["id"], &["1", "2", "3"]).await;

    // the remedy: nothing was lost, and nothing is restarted
    std::fs::rename(folder.join("a.jsonl"), folder.join("b.jsonl")).unwrap();
    std::fs::rename(folder.join("old"), folder.join("a.jsonl")).unwrap();
    let mut last = Vec::new();
    let all = async || {
        last = crate::transforms::shown(&pipeline, "m", "broken", &["id"]);
        last == ["1", "2", "3", "4"]
    };
    assert!(within(PATIENCE, all).await, "{last:?}\n{}", pipeline.log_tail());
    assert_eq!(said(), 2, "each time once");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}
