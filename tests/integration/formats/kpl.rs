//! Aggregated records beside Amazon's library in Python: it takes ours apart, and we take its.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use binlake::format::{UserRecord, aggregate, deaggregate};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn kpl(command: &str, lines: &[String]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let requirements = root.join("tests/readers/requirements-kpl.txt");
    let made = Command::new(root.join("scripts/python.sh")).arg(requirements).arg("kpl").status().unwrap();
    assert!(made.success(), "scripts/python.sh failed");
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/binlake");
    let cache = std::env::var_os("BINLAKE_CACHE").map_or_else(home, PathBuf::from);
    let mut child = Command::new(cache.join("kpl/bin/python"))
        .arg(root.join("tests/readers/kpl.py"))
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "kpl.py {command} failed");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn records() -> Vec<UserRecord> {
    let record = |i: usize| UserRecord {
        partition_key: format!("shop.orders.{}", i % 7),
        explicit_hash_key: Some(((i % 3) * 1000 + 1).to_string()),
        bytes: "größe ".repeat(i % 50).into_bytes().into(),
    };
    (0..200).map(record).collect()
}

fn as_line(record: &UserRecord) -> Value {
    json!({"partition_key": record.partition_key, "explicit_hash_key": record.explicit_hash_key, "data": STANDARD.encode(&record.bytes)})
}

#[test]
fn pythons_library_takes_our_records_apart() {
    let ours = STANDARD.encode(aggregate(&records()));
    let lines: Vec<Value> = kpl("deaggregate", &[ours]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, records().iter().map(as_line).collect::<Vec<_>>());
}

#[test]
fn we_take_its_records_apart() {
    let lines: Vec<String> = records().iter().map(|record| as_line(record).to_string()).collect();
    let theirs = STANDARD.decode(&kpl("aggregate", &lines)[0]).unwrap();
    assert_eq!(deaggregate(&theirs.into()).unwrap(), records());
}
