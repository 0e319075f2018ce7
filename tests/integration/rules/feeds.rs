//! A table that a stream of others feeds, changed live and killed: each record is of one set of rules, those behind the turn of the new ones, and none is lost or twice.

use crate::mysql::{PATIENCE, eventually, within};
use crate::service::{Pipeline, append};
use std::collections::BTreeSet;

/// A stream's format, and how it writes a record of `id`.
struct Format {
    section: &'static str,
    line: fn(u64) -> String,
}

const JSON: Format = Format {
    section: "key = [\"id\"]\ncolumns = { id = \"int\", note = \"string\" }\n",
    line: |id| format!(r#"{{"id": {id}, "note": "n{id}"}}"#),
};

const DMS: Format = Format {
    section: "format = \"dms-json\"\nkey = [\"id\"]\ncolumns = { id = \"int\", note = \"string\" }\n",
    line: |id| {
        format!(
            r#"{{"data": {{"id": {id}, "note": "n{id}"}}, "metadata": {{"operation": "insert", "record-type": "data", "schema-name": "mydev", "table-name": "events", "timestamp": "2024-07-29T00:57:35.691762Z", "commit-timestamp": "2024-07-29T00:57:35Z", "transaction-id": {id}, "transaction-record-id": 1, "stream-position": "0000000{id}/1"}}}}"#
        )
    },
};

struct Fed {
    pipeline: Pipeline,
    format: Format,
    next: u64,
}

impl Fed {
    fn new(format: Format) -> Self {
        let fed = Self { pipeline: Pipeline::from_text(""), format, next: 0 };
        fed.write("one");
        fed
    }

    fn write(&self, era: &str) {
        self.pipeline.set_config(&format!(
            "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"50ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"off\"\n\
             [[table]]\nstream = \"jsonl:./in/\"\nname = \"mydev.events\"\n{}transform = \"SELECT *, '{era}' AS era FROM input\"\n",
            self.format.section
        ));
    }

    /// So many records more.
    fn add(&mut self, count: u64) {
        let lines = (0..count).map(|_| {
            self.next += 1;
            (self.format.line)(self.next) + "\n"
        });
        append(&self.pipeline.path().join("in/a.jsonl"), &lines.collect::<String>());
    }

    /// Key and era of each record, in the order of the stream.
    fn found(&self) -> Vec<(u64, String)> {
        let rows = self.pipeline.table("mydev", "events").values(None, &["id", "era"]).unwrap_or_default();
        let row = |row: Vec<Option<String>>| (row[0].as_ref().unwrap().parse().unwrap(), row[1].clone().unwrap());
        let mut rows: Vec<(u64, String)> = rows.into_iter().map(row).collect();
        rows.sort();
        rows
    }

    /// Waits until the stream is read by a revision, as is written down before the log says it: who is killed between the two says nothing.
    async fn is_read_by(&self, revision: u64) {
        let revision = revision.to_string();
        eventually("the stream is read by these rules", async || {
            self.pipeline.ok(&["rules", &revision]).contains("fed       mydev.events since ")
        })
        .await;
    }

    /// Waits until all records are there, each once, and gives the eras that follow each other in the order of the stream.
    async fn eras(&self) -> Vec<String> {
        let mut found = Vec::new();
        let expected: Vec<u64> = (1..=self.next).collect();
        let is_there = within(PATIENCE, async || {
            found = self.found();
            found.iter().map(|(id, _)| *id).eq(expected.iter().copied())
        });
        assert!(is_there.await, "{} records expected: {found:?}\n{}", self.next, self.pipeline.log_tail());
        let mut eras: Vec<String> = found.into_iter().map(|(_, era)| era).collect();
        eras.dedup();
        eras
    }
}

async fn each_record_is_of_one_set_of_rules(format: Format) {
    let mut fed = Fed::new(format);
    fed.add(20);
    let mut service = fed.pipeline.run();
    let mut eras = vec!["one".to_owned()];
    assert_eq!(fed.eras().await, eras);
    for round in 2..=6_u64 {
        let era = format!("era {round}");
        fed.write(&era);
        // what was written before is of the rules before, if it was read by then
        fed.add(10);
        let applied = fed.pipeline.answer(&["apply"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
        assert!(applied.out.ends_with(&format!("revision {round} is proposed\nin force\n")), "{}", applied.out);
        if round % 2 == 0 {
            // before or while the stream is read on by the new rules
            service.kill();
            fed.add(5);
            service = fed.pipeline.run();
        }
        fed.is_read_by(round).await;
        fed.add(10);
        eras.push(era);
        assert_eq!(fed.eras().await, eras);
    }
    let rolled_back = fed.pipeline.answer(&["apply", "--rollback", "1"]);
    assert_eq!(rolled_back.code, 0, "{}{}", rolled_back.out, rolled_back.err);
    fed.is_read_by(7).await;
    fed.add(10);
    eras.push("one".to_owned());
    assert_eq!(fed.eras().await, eras);
    assert!(service.terminate().success(), "{}", fed.pipeline.log_tail());
    fed.pipeline.assert_calm_log();
    // who reads the book sees from where on each revision counted
    assert!(fed.pipeline.ok(&["rules", "1"]).contains("fed       mydev.events since the beginning\n"));
    let listed: Vec<serde_json::Value> = serde_json::from_str(&fed.pipeline.ok(&["rules", "--format", "json"])).unwrap();
    let places: Vec<&str> = listed.iter().map(|revision| revision["fed_tables"].as_str().unwrap()).collect();
    assert_eq!(places.len(), 7);
    assert!(places.iter().all(|place| place.starts_with("mydev.events since ")), "{places:?}");
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 7, "each its own: {places:?}");
}

#[tokio::test]
async fn json_records() {
    each_record_is_of_one_set_of_rules(JSON).await;
}

#[tokio::test]
async fn records_of_dms() {
    each_record_is_of_one_set_of_rules(DMS).await;
}
