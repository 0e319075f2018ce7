//! Tables for other readers: `BINLAKE_SAMPLE_LAKE=<folder> cargo test --lib samples -- --ignored` makes them, or commits to them once more.

use crate::table::{CommitRequest, SortedChanges, Table, TableOptions, TableSpec};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, TimeUnit};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::sync::Arc;

fn schema() -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("big", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("unsigned", DataType::Decimal128(20, 0), true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", micros.clone(), true),
        Field::new("sold", DataType::Boolean, true),
        Field::new("score", DataType::Float64, true),
        Field::new("ratio", DataType::Float32, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("embedding", DataType::List(item), true),
        Field::new("name", DataType::Utf8, true),
        Field::new("_commit_ts", micros, true),
        Field::new("_position", DataType::Utf8, true),
        Field::new("sport", DataType::Utf8, true),
    ]))
}

/// Rows `ids`, as revision `revision`.
fn rows(ids: &[i32], revision: i64) -> RecordBatch {
    let some = |id: &&i32| **id % 7 != 0;
    let list = ids.iter().map(|id| some(&id).then(|| vec![Some(0.5), Some(*id as f32)]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(ids.iter().copied())),
        Arc::new(Int64Array::from_iter(ids.iter().map(|id| some(&id).then_some(i64::from(*id) << 33)))),
        Arc::new(
            Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(*id) * 100 + i128::from(revision)))
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(
            Decimal128Array::from_iter_values(ids.iter().map(|_| i128::from(u64::MAX))).with_precision_and_scale(20, 0).unwrap(),
        ),
        Arc::new(Date32Array::from_iter_values(ids.iter().map(|id| 19_723 + *id))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| 1_704_067_200_123_456 + i64::from(*id)))
                .with_timezone("UTC"),
        ),
        Arc::new(BooleanArray::from_iter(ids.iter().map(|id| Some(id % 2 == 0)))),
        Arc::new(Float64Array::from_iter_values(ids.iter().map(|id| f64::from(*id) / 3.0))),
        Arc::new(Float32Array::from_iter_values(ids.iter().map(|id| *id as f32 / 3.0))),
        Arc::new(BinaryArray::from_iter_values(ids.iter().map(|id| id.to_be_bytes()))),
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(list)),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("ünïcödé {id} rev {revision}")))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.iter().map(|_| 1_700_000_000_000_000 + revision)).with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|_| format!("binlog.000001:{revision}")))),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|id| sport(*id)))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn sport(id: i32) -> &'static str {
    ["base ball", "foot/ball", "nba"][usize::try_from(id % 3).unwrap()]
}

fn request(ids: &[i32], deleted: &[i32], revision: i64, partitioned: bool) -> CommitRequest {
    let mut all: Vec<i32> = ids.iter().chain(deleted).copied().collect();
    all.sort_by_key(|id| if partitioned { (sport(*id), *id) } else { ("", *id) });
    let changes =
        SortedChanges { rows: rows(&all, revision), is_delete: all.iter().map(|id| Some(deleted.contains(id))).collect() };
    CommitRequest {
        columns: schema(),
        record_key: None,
        fill: None,
        truncate: false,
        changes: Box::new(std::iter::once(Ok(changes))),
        ordering: None,
        extra_metadata: BTreeMap::from([("binlake.checkpoint".to_owned(), revision.to_string())]),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes files for other programs"]
async fn make_tables_for_other_readers() {
    let folder = std::env::var("BINLAKE_SAMPLE_LAKE").expect("set BINLAKE_SAMPLE_LAKE to a folder");
    std::fs::create_dir_all(&folder).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&folder).unwrap());
    for partitioned in [false, true] {
        let name = if partitioned { "parts" } else { "plain" };
        let spec = TableSpec {
            database: "shop".to_owned(),
            name: name.to_owned(),
            columns: schema(),
            record_key: vec!["id".to_owned()],
            sort_prefix: Vec::new(),
            ordering_field: "_commit_ts".to_owned(),
            partition_columns: if partitioned { vec!["sport".to_owned()] } else { Vec::new() },
        };
        let options = TableOptions {
            target_file_bytes: 8 << 20,
            retained_commits: 5,
            rewrite_threads: 2,
            memory_bytes: 64 << 20,
            writer_name: "samples".to_owned(),
        };
        let base = Path::from_iter(["shop", name]);
        if Table::exists(&store, &base).await.unwrap() {
            let mut table = Table::open(store.clone(), base, &spec, options).await.unwrap();
            println!("{name}: opened, checkpoint {:?}", table.extra_metadata("binlake.checkpoint"));
            let summary = table.commit(request(&[1, 2, 1_001], &[5], 1_000, partitioned)).await.unwrap();
            println!("{name}: {summary:?}");
            continue;
        }
        let mut table = Table::create(store.clone(), base, &spec, options).await.unwrap();
        for revision in 0..60_i64 {
            let ids: Vec<i32> = match revision {
                0 => (0..100).collect(),
                other => vec![i32::try_from(other).unwrap(), 100 + i32::try_from(other).unwrap()],
            };
            let deleted: &[i32] = if revision == 30 { &[97, 98, 99] } else { &[] };
            let summary = table.commit(request(&ids, deleted, revision, partitioned)).await.unwrap();
            if revision >= 57 {
                println!("{name}: {summary:?}");
            }
        }
    }
}

/// `BINLAKE_COMMITS=100000 cargo test --release --lib samples::soak -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes long"]
async fn soak() {
    use super::harness::{Rows, commit, create, objects, open, upsert};
    let commits: i32 = std::env::var("BINLAKE_COMMITS").ok().and_then(|number| number.parse().ok()).unwrap_or(2_000);
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    for number in 0..commits {
        commit(&mut table, &mut rows, &[upsert("a", number % 50, number), upsert("b", 1, number)], number).await.unwrap();
        if (number + 1) % (commits / 8) == 0 {
            let counted = super::faulty::Faulty::never(store.clone());
            let through: Arc<dyn ObjectStore> = counted.clone();
            open(&through, true).await.unwrap();
            let all = objects(&store).await;
            let archived = all.iter().filter(|path| path.contains("/archived/")).count();
            println!(
                "after {} commits: {} objects, {archived} archive logs; opening took {:?} (writes, reads)",
                number + 1,
                all.len(),
                counted.calls()
            );
            table = open(&store, true).await.unwrap();
        }
    }
}
