//! The reader on a recorded binlog (`tests/data/binlog/`): what it says, and that no damage makes it panic.

use super::binlog::BinlogFile;
use super::{BinlogReader, CaptureRule, LaneBuffers, Progress, TrackedTables};
use crate::error::Result;
use crate::event::{BinlogCoordinates, ChangeBatch, Lineage, Operation, Section, SourcePosition, TableState};
use crate::time::Timestamp;
use arrow::array::{Array, AsArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

fn events() -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/binlog/mysql-9.7.000001");
    BinlogFile::open(&path).unwrap().collect::<Result<_>>().unwrap()
}

fn reader() -> BinlogReader {
    let position = SourcePosition {
        lineage: Lineage(String::new()),
        coordinates: BinlogCoordinates { file: "mysql-9.7.000001".into(), offset: 4 },
        gtid_set: Some(Default::default()),
    };
    BinlogReader::new(TrackedTables::new(Arc::new(|_| Some(CaptureRule::default())), 1, false), position, Timestamp::from_micros(0))
}

fn feed(reader: &mut BinlogReader, lanes: &mut LaneBuffers, event: &Bytes) -> Result<()> {
    let mut progress = reader.feed(event, lanes)?;
    while progress == Progress::More {
        progress = reader.resume(lanes)?;
    }
    Ok(())
}

fn text(batch: &ChangeBatch, row: usize, column: &str) -> String {
    let array = batch.rows.column_by_name(column).unwrap();
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string()
}

#[test]
fn all_types_operations_and_kinds_of_transaction() {
    let (mut reader, mut lanes) = (reader(), LaneBuffers::new(1, usize::MAX));
    for event in events() {
        feed(&mut reader, &mut lanes, &event).unwrap();
    }
    assert!(reader.is_at_boundary());
    assert_eq!(reader.tables().states().values().collect::<Vec<_>>(), [&TableState::Live]);
    let counts = reader.take_counts();
    assert_eq!(
        (counts[0].1.created, counts[0].1.updated, counts[0].1.deleted),
        (9, 1, 2),
        "an update of the key is a delete and a create"
    );
    let sections = lanes.take_rest().unwrap().remove(0);
    let rows: Vec<&ChangeBatch> =
        sections.iter().filter_map(|section| if let Section::Rows(rows) = section { Some(rows) } else { None }).collect();
    assert!(sections.iter().any(|section| matches!(section, Section::Truncate { .. })));
    let fill =
        sections.iter().find_map(|section| if let Section::NewShape { fill, .. } = section { fill.clone() } else { None }).unwrap();
    assert_eq!(fill.column(0).as_primitive::<arrow::datatypes::Int32Type>().value(0), 5);
    let first = rows[0];
    for (column, expected) in [
        ("id", "18446744073709551615"),
        ("d", "2026-11-21"),
        ("dt", "2026-11-21T10:11:12.123456Z"),
        ("tm", "-12:34:56.78"),
        ("y", "2026"),
        ("de", "-12345.6789"),
        ("big", "12345678901234567890123456789012345.123456789012345678901234567891"),
        ("b", "0aaa"),
        ("b1", "true"),
        ("e", "y"),
        ("s", "a,c"),
        ("j", r#"{"d": 1.1, "k": [1, 2.5, "x", null, true, 1.2345678901234568e29]}"#),
        ("bin", "01000000"),
        ("vb", "00ff10"),
        ("txt", "é"),
        ("g", "你"),
        ("c", "ab"),
        ("u", "255"),
        ("m", "-8388608"),
        ("v", "[1.0, 2.0, 3.0]"),
    ] {
        assert_eq!(text(first, 0, column), expected, "{column}");
    }
    for column in ["d", "dt", "ts"] {
        assert_eq!(text(first, 1, column), "NULL", "zero and impossible dates: {column}");
    }
    assert_eq!(text(first, 2, "c"), "zz");
    let operations: Vec<u8> = rows.iter().flat_map(|rows| rows.operations.values().to_vec()).collect();
    assert_eq!(operations, b"ccudcdcccccc");
    let changed = first.changed.as_ref().unwrap();
    assert!(changed.is_null(0) && changed.value(2).iter().map(|byte| byte.count_ones()).sum::<u32>() == 2);
    assert!(first.transactions[0].gtid.is_some());
    assert!(reader.position().gtid_set.as_ref().unwrap().to_string().contains(":tagx:1"));
    assert_eq!(Operation::from_code(operations[0]), Some(Operation::Create));
}

#[test]
fn no_damage_makes_it_panic() {
    let events = events();
    for (damaged, event) in events.iter().enumerate() {
        // damage in many places, and ends at a third of them, past the checksum
        for place in (0..event.len()).step_by(1 + event.len() / 200) {
            for flip in [0x01, 0xff] {
                let mut bytes = event.to_vec();
                bytes[place] ^= flip;
                if place % 3 == 0 {
                    bytes.truncate(place + 1);
                }
                reseal(&mut bytes);
                let (mut reader, mut lanes) = (reader(), LaneBuffers::new(1, usize::MAX));
                // what comes before is needed to understand it
                let context = events[..damaged].iter().rev().take(3).rev();
                let bytes: Bytes = bytes.into();
                for event in events.iter().take(1).chain(context).chain([&bytes]) {
                    if feed(&mut reader, &mut lanes, event).is_err() {
                        break;
                    }
                }
                let _ = lanes.take_rest();
            }
        }
    }
}

/// Gives damaged bytes the size and the checksum that they should have, so that the damage gets through.
fn reseal(bytes: &mut [u8]) {
    let Some(end) = bytes.len().checked_sub(4).filter(|end| *end >= 19) else { return };
    let size = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    bytes[9..13].copy_from_slice(&size);
    let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
}
