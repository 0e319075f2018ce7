//! Our events beside those that Debezium 3.6.1 made of the same binlog.
//!
//! `tests/data/debezium/` has the statements, the binlog that MySQL 9.7 wrote of them, and the events (topic, key, value a line each), recorded by
//! `tests/readers/debezium/Events.java`.

use crate::mysql::{Options, Server};
use binlake::event::{
    BinlogCoordinates, ChunkContent, ChunkHeader, ChunkIndex, CutNumber, Epoch, Lane, Lineage, Section, SourcePosition,
};
use binlake::format::{ChunkTranslator, DebeziumOptions, Dialect, RecordFormat, UserRecord};
use binlake::source::{BinlogFile, BinlogReader, CaptureRule, LaneBuffers, Progress, TrackedTables};
use binlake::time::Timestamp;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/debezium").join(name)
}

/// The sections of a binlog.
fn sections(binlog: &Path) -> Vec<Section> {
    let position = SourcePosition {
        lineage: Lineage(String::new()),
        coordinates: BinlogCoordinates { file: "binlog.000001".into(), offset: 4 },
        gtid_set: Some(Default::default()),
    };
    let tables = TrackedTables::new(Arc::new(|_| Some(CaptureRule::default())), 1, false);
    let mut reader = BinlogReader::new(tables, position, Timestamp::from_micros(0));
    let mut lanes = LaneBuffers::new(1, usize::MAX).with_before_images(true);
    for event in BinlogFile::open(binlog).unwrap() {
        let mut progress = reader.feed(&event.unwrap(), &mut lanes).unwrap();
        while progress == Progress::More {
            progress = reader.resume(&mut lanes).unwrap();
        }
    }
    lanes.take_rest().unwrap().remove(0)
}

fn ours(sections: Vec<Section>) -> Vec<UserRecord> {
    let options = DebeziumOptions { transaction_metadata: true, ..DebeziumOptions::default() };
    let format = RecordFormat { dialect: Dialect::Debezium(Arc::new(options)), is_aggregated: false };
    let header = ChunkHeader {
        lane: Lane(0),
        epoch: Epoch(1),
        producer: 1,
        index: ChunkIndex(0),
        window: CutNumber(1),
        resumed_from: None,
        opens_epoch: true,
        starts_window: true,
        ends_with_cut: true,
        payload_bytes: 0,
        part_start: 0,
        control_bytes: 0,
    };
    // the cut ends the last transaction
    let cut = binlake::event::Cut {
        number: CutNumber(1),
        position: SourcePosition {
            lineage: Lineage(String::new()),
            coordinates: BinlogCoordinates { file: "binlog.000001".into(), offset: 4 },
            gtid_set: None,
        },
        source_commit_time: Timestamp::from_micros(0),
        tables: Default::default(),
        schemas: Default::default(),
        rules: None,
        complete_until: None,
    };
    let content = ChunkContent { sections, cut: Some(Arc::new(cut)) };
    ChunkTranslator::new(format, Lane(0), 1, 1 << 20).records(&header, &content, true, Timestamp::from_micros(0)).unwrap().concat()
}

/// What of an event is the same by whoever made it: not when, nor the versions, nor what only the connector or only we say.
fn comparable(mut event: Value) -> Value {
    let is_row = event.get("op").is_some();
    if let Some(event) = event.as_object_mut().filter(|_| is_row) {
        for field in ["ts_ms", "ts_us", "ts_ns"] {
            event.remove(field);
        }
    }
    if let Some(source) = event.get_mut("source").and_then(Value::as_object_mut) {
        // `pos` is the rows event's at Debezium, the transaction's here; `row` counts in the event there, in the transaction here
        for field in ["version", "sequence", "server_id", "pos", "row", "thread"] {
            source.remove(field);
        }
    }
    for image in ["before", "after"] {
        // the declared type of a column with shapes is not known here: a point is a geometry
        if let Some(point) = event.get_mut(image).and_then(|image| image.get_mut("pt")).and_then(Value::as_object_mut) {
            point.remove("x");
            point.remove("y");
        }
        let Some(image) = event.get_mut(image).and_then(Value::as_object_mut) else { continue };
        // the server's own text of a document has spaces; Debezium's has none
        if let Some(text) = image.get("js").and_then(Value::as_str) {
            let document: Value = serde_json::from_str(text).unwrap();
            image.insert("js".into(), document);
        }
        // Debezium takes the year 1 for one of two digits (`enable.time.adjuster`): 2001-01-01
        if image.get("dt").and_then(Value::as_i64) == Some(11_323) {
            image.insert("dt".into(), (-719_162).into());
        }
        // Java writes a FLOAT with more digits than tell it from its neighbours
        for column in ["f", "ve"] {
            image.get_mut(column).into_iter().for_each(single);
        }
    }
    floats(&mut event);
    event
}

fn single(value: &mut Value) {
    match value {
        Value::Number(number) => *value = format!("float {:?}", number.to_string().parse::<f32>().unwrap()).into(),
        Value::Array(items) => items.iter_mut().for_each(single),
        _ => {}
    }
}

/// Java and Rust write one number differently: `3.4E38`, `3.4e38`.
fn floats(value: &mut Value) {
    match value {
        Value::Number(number) if number.to_string().contains(['.', 'e', 'E']) => {
            *value = format!("float {:?}", number.to_string().parse::<f64>().unwrap()).into();
        }
        Value::Array(items) => items.iter_mut().for_each(floats),
        Value::Object(fields) => fields.values_mut().for_each(floats),
        _ => {}
    }
}

#[test]
fn events_are_debeziums() {
    compare(&data("binlog.000001"), &std::fs::read_to_string(data("events.txt")).unwrap());
}

/// Compares our events of a binlog with Debezium's.
fn compare(binlog: &Path, recorded: &str) {
    let lines: Vec<&str> = recorded.split('\n').collect();
    let theirs: Vec<(&str, &str)> = lines.chunks_exact(3).map(|event| (event[1], event[2])).collect();
    let ours: Vec<UserRecord> = ours(sections(binlog))
        .into_iter()
        .filter(|record| {
            // truncations are skipped by Debezium's default, and what the chunk and its shapes are is our own affair
            let event: Value = serde_json::from_slice(&record.bytes).unwrap_or_default();
            event.get("binlake").is_none() && event["op"] != "t"
        })
        .collect();
    assert_eq!(ours.len(), theirs.len());
    let mut rows = 0;
    for (ours, (key, value)) in ours.iter().zip(theirs) {
        if value.is_empty() {
            assert!(ours.bytes.is_empty(), "a tombstone is expected");
            assert_eq!(ours.partition_key, key);
            continue;
        }
        let event: Value = serde_json::from_slice(&ours.bytes).unwrap();
        let theirs: Value = serde_json::from_str(value).unwrap();
        if event.get("op").is_some() {
            assert_eq!(serde_json::from_str::<Value>(&ours.partition_key).unwrap(), serde_json::from_str::<Value>(key).unwrap());
            rows += 1;
        }
        let names = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&event), names(&theirs));
        assert_eq!(comparable(event), comparable(theirs));
    }
    assert_eq!(rows, 11);
}

/// Debezium's embedded engine of today on a server of today: `make test-debezium`.
#[tokio::test]
async fn debezium_itself_says_the_same() {
    if std::env::var_os("BINLAKE_TEST_DEBEZIUM").is_none() {
        return;
    }
    let server = Server::start(Options::default().with("--sql-mode="));
    let mut client = server.client().await;
    for statement in std::fs::read_to_string(data("statements.sql")).unwrap().lines().filter(|line| !line.is_empty()) {
        client.run(statement.trim_end_matches(';')).await;
    }
    let uuid = client.value("SELECT @@server_uuid").await;
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/binlake");
    let jars = std::env::var_os("BINLAKE_CACHE").map_or_else(home, PathBuf::from).join("debezium");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/debezium/Events.java");
    let output = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(program)
        .args([&server.port().to_string(), "root", "", "shop.types", "11", "false", &format!("{uuid}:1")])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "Debezium failed");
    let all = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = all.split('\n').collect();
    let of_table = lines.chunks_exact(3).filter(|event| event[0] != "binlake").flatten();
    let recorded = of_table.copied().collect::<Vec<_>>().join("\n");
    compare(&server.data_folder().join("binlog.000001"), &recorded);
}
