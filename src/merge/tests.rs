//! Folding against the naive way: random batches over lanes and windows, spilled at random, give the last row of each key in order.

use super::rule::PartitionBy;
use super::{SpillFolder, TablePending, Treatment};
use crate::event::{
    BinlogCoordinates, ChangeBatch, Column, CutNumber, CutPoint, Epoch, Lane, Lineage, Operation, Section, SourcePosition,
    SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn schema(is_text: bool) -> Arc<TableSchema> {
    let int = SourceType::Int { unsigned: false };
    let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 100 };
    let column = |name: &str, source_type, nullable| Column { name: name.into(), source_type, nullable };
    let columns = vec![
        column("id", if is_text { text } else { int.clone() }, false),
        column("part", int.clone(), true),
        column("value", int, true),
    ];
    Arc::new(TableSchema { table: TableId::new("s", "t"), columns, key: vec![0] })
}

/// Keys that share a long prefix, some of them wholly.
fn key_text(key: i32) -> String {
    format!("shared prefix {}", "x".repeat(key as usize % 5)) + &key.to_string()
}

#[derive(Debug, Clone)]
struct Change {
    key: i32,
    part: Option<i32>,
    is_delete: bool,
}

fn batch(schema: &Arc<TableSchema>, is_text: bool, first_value: i32, changes: &[Change]) -> Section {
    let key: ArrayRef = match is_text {
        true => Arc::new(StringArray::from_iter_values(changes.iter().map(|change| key_text(change.key)))),
        false => Arc::new(Int32Array::from_iter_values(changes.iter().map(|change| change.key - 20))),
    };
    let part = Arc::new(changes.iter().map(|change| change.part).collect::<Int32Array>());
    let value = Arc::new(Int32Array::from_iter_values(first_value..first_value + changes.len() as i32));
    let code = |change: &Change| if change.is_delete { Operation::Delete.code() } else { Operation::Create.code() };
    Section::Rows(ChangeBatch {
        schema: schema.clone(),
        rows: RecordBatch::try_new(schema.arrow(), vec![key, part, value]).unwrap(),
        operations: UInt8Array::from_iter_values(changes.iter().map(code)),
        stamps: UInt32Array::from(vec![0; changes.len()]),
        transactions: Arc::new(vec![TransactionStamp {
            gtid: None,
            coordinates: BinlogCoordinates { file: "b.000001".into(), offset: 1000 },
            source_commit_time: Timestamp::from_micros(7),
            is_snapshot: false,
        }]),
        changed: None,
        before: None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_change_of_each_key_in_order(
        batches in prop::collection::vec(
            (prop::collection::vec((0..40, prop::option::of(0..12), any::<bool>()), 1..30), any::<bool>(), any::<bool>()), 1..12),
        is_text: bool,
        is_partitioned: bool,
        is_computed: bool,
    ) {
        let schema = schema(is_text);
        let name = if is_computed { "computed" } else { "part" };
        let by: Option<PartitionBy> = is_partitioned.then(|| name.parse().unwrap());
        let sql = "SELECT t.*, t.part + 0 AS computed FROM input t WHERE t.id IS NOT NULL";
        let transform = is_computed.then(|| sql.parse().unwrap());
        let mut pending = TablePending::new(schema.table.clone(), Treatment { partition_by: by, transform, ..Treatment::default() }, None);
        let folder = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(folder.path());
        let mut naive: BTreeMap<(String, String), (i32, bool)> = BTreeMap::new();
        let (mut window, mut value) = (1, 0);
        for (changes, ends_window, spills) in &batches {
            let changes: Vec<Change> = changes.iter().map(|(key, part, is_delete)| Change { key: *key, part: *part, is_delete: *is_delete }).collect();
            for lane in 0..3 {
                let of_lane: Vec<Change> = changes.iter().filter(|change| change.key % 3 == lane).cloned().collect();
                let closing = CutPoint { epoch: Epoch(1), number: CutNumber(window) };
                pending.take_section(Lane(lane as u16), closing, &batch(&schema, is_text, value, &of_lane)).unwrap();
                for change in of_lane {
                    let path = match (is_partitioned, change.part) {
                        (false, _) => String::new(),
                        (true, Some(part)) => format!("{name}={part}"),
                        (true, None) => format!("{name}=__HIVE_DEFAULT_PARTITION__"),
                    };
                    let key = if is_text { key_text(change.key) } else { format!("{:03}", change.key) };
                    naive.insert((path, key), (value, change.is_delete));
                    value += 1;
                }
            }
            let reached = CutPoint { epoch: Epoch(1), number: CutNumber(window) };
            window += u64::from(*ends_window);
            if *spills {
                pending.spill(&folder, Some(reached)).unwrap();
                prop_assert_eq!(pending.bytes(), 0);
            }
        }
        let position = SourcePosition {
            lineage: Lineage("a".into()),
            coordinates: BinlogCoordinates { file: "b.000001".into(), offset: 2000 },
            gtid_set: None,
        };
        let fold = pending.take(CutPoint { epoch: Epoch(1), number: CutNumber(window) }, &position).unwrap().unwrap();
        // an attempt that failed is repeated
        for _ in 0..2 {
            let mut found = Vec::new();
            for changes in fold.changes() {
                let changes = changes.unwrap();
                let values = changes.rows.column_by_name("value").unwrap().as_primitive::<Int32Type>();
                prop_assert_eq!(changes.rows.column_by_name("_position").unwrap().as_string::<i32>().value(0), "b.000001:1000");
                found.extend((0..values.len()).map(|i| (values.value(i), changes.is_delete.value(i))));
            }
            prop_assert_eq!(&found, &naive.values().copied().collect::<Vec<_>>());
        }
    }
}
