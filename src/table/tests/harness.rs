//! A table of a few columns beside a model of what it must hold.

use crate::error::Result;
use crate::table::timeline::Action;
use crate::table::{CommitRequest, CommitSummary, InstantTime, SortedChanges, Table, TableOptions, TableSpec, TableView};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rows of a table: by partition and id, the value.
pub(super) type Rows = BTreeMap<(String, i32), String>;

/// A change: partition, id, and the new value, or none for a delete.
pub(super) type Change = (&'static str, i32, Option<String>);

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("value", DataType::Utf8, true),
        Field::new("part", DataType::Utf8, true),
    ]))
}

pub(super) fn spec(partitioned: bool) -> TableSpec {
    TableSpec {
        database: "shop".to_owned(),
        name: "orders".to_owned(),
        columns: schema(),
        record_key: vec!["id".to_owned()],
        sort_prefix: Vec::new(),
        ordering_field: "value".to_owned(),
        partition_columns: if partitioned { vec!["part".to_owned()] } else { Vec::new() },
    }
}

pub(super) fn options() -> TableOptions {
    TableOptions {
        target_file_bytes: 1 << 20,
        retained_commits: 3,
        rewrite_threads: 1,
        memory_bytes: 16 << 20,
        writer_name: "test".to_owned(),
    }
}

pub(super) fn base() -> Path {
    Path::from("lake/shop/orders")
}

/// A commit of `changes`, which are sorted here.
pub(super) fn request(changes: &[Change], checkpoint: &str, truncate: bool) -> CommitRequest {
    let mut changes = changes.to_vec();
    changes.sort();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(changes.iter().map(|(_, id, _)| *id))),
        Arc::new(StringArray::from_iter(changes.iter().map(|(_, _, value)| value.clone()))),
        Arc::new(StringArray::from_iter_values(changes.iter().map(|(part, _, _)| *part))),
    ];
    let piece = SortedChanges {
        rows: RecordBatch::try_new(schema(), columns).unwrap(),
        is_delete: BooleanArray::from_iter(changes.iter().map(|(_, _, value)| Some(value.is_none()))),
    };
    let pieces: Vec<Result<SortedChanges>> = if changes.is_empty() { Vec::new() } else { vec![Ok(piece)] };
    CommitRequest {
        columns: schema(),
        record_key: None,
        fill: None,
        truncate,
        changes: Box::new(pieces.into_iter()),
        ordering: None,
        extra_metadata: BTreeMap::from([("binlake.checkpoint".to_owned(), checkpoint.to_owned())]),
    }
}

/// What the model says of a commit.
pub(super) fn apply(rows: &mut Rows, changes: &[Change], truncate: bool, partitioned: bool) {
    if truncate {
        rows.clear();
    }
    for (part, id, value) in changes {
        let part = if partitioned { format!("part={part}") } else { String::new() };
        match value {
            Some(value) => rows.insert((part, *id), value.clone()),
            None => rows.remove(&(part, *id)),
        };
    }
}

pub(super) fn upsert(part: &'static str, id: i32, value: impl ToString) -> Change {
    (part, id, Some(value.to_string()))
}

pub(super) fn delete(part: &'static str, id: i32) -> Change {
    (part, id, None)
}

pub(super) async fn create(store: &Arc<dyn ObjectStore>, partitioned: bool) -> Result<Table> {
    Table::create(store.clone(), base(), &spec(partitioned), options()).await
}

pub(super) async fn open(store: &Arc<dyn ObjectStore>, partitioned: bool) -> Result<Table> {
    Table::open(store.clone(), base(), &spec(partitioned), options()).await
}

pub(super) async fn commit(
    table: &mut Table,
    rows: &mut Rows,
    changes: &[Change],
    checkpoint: impl ToString,
) -> Result<CommitSummary> {
    let summary = table.commit(request(changes, &checkpoint.to_string(), false)).await?;
    apply(rows, changes, false, !table.spec.partition_columns.is_empty());
    Ok(summary)
}

/// The rows that a reader of the table's files finds, now or as of an instant. Panics over a key that is there twice.
pub(super) async fn read(store: &Arc<dyn ObjectStore>, as_of: Option<&InstantTime>) -> Rows {
    rows_at(store, &base(), as_of).await
}

/// The same of the table at `base`.
pub(super) async fn rows_at(store: &Arc<dyn ObjectStore>, base: &Path, as_of: Option<&InstantTime>) -> Rows {
    let view = TableView::open(store.clone(), base.clone()).await.unwrap();
    let mut rows = Rows::new();
    for slice in view.slices(as_of).unwrap() {
        let path = Path::parse(format!("{base}/{}", slice.path())).unwrap();
        let bytes: Bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.len() as u64, slice.file_bytes);
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int32Type>();
            let values = batch.column_by_name("value").unwrap();
            let values = arrow::compute::cast(values, &DataType::Utf8).unwrap();
            let values = values.as_string::<i32>();
            for row in 0..batch.num_rows() {
                assert!(values.is_valid(row));
                let twice = rows.insert((slice.partition_path.clone(), ids.value(row)), values.value(row).to_owned());
                assert_eq!(twice, None, "the key {} is there twice", ids.value(row));
            }
        }
    }
    rows
}

/// Paths of all objects, below the table, sorted.
pub(super) async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let all: Vec<_> = store.list(Some(&base())).try_collect().await.unwrap();
    let prefix = format!("{}/", base());
    let mut paths: Vec<String> =
        all.iter().map(|object| object.location.as_ref().strip_prefix(&prefix).unwrap().to_owned()).collect();
    paths.sort();
    paths
}

/// Every base file belongs to a completed commit, and nothing is under way.
pub(super) async fn assert_tidy(store: &Arc<dyn ObjectStore>) {
    assert_tidy_but_for_cleans(store).await;
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.timeline.pending().count(), 0);
}

/// The same, but a clean may be under way: the next commit finishes it.
pub(super) async fn assert_tidy_but_for_cleans(store: &Arc<dyn ObjectStore>) {
    let view = TableView::open(store.clone(), base()).await.unwrap();
    let orphans = view.groups.orphans(&view.timeline);
    assert!(orphans.is_empty(), "left over: {orphans:?}");
    let pending: Vec<_> = view.timeline.pending().filter(|(_, action, _)| *action != Action::Clean).collect();
    assert!(pending.is_empty(), "under way: {pending:?}");
}

/// A copy of a store's objects.
pub(super) async fn copy_of(store: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let copy: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in all {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        copy.put(&object.location, bytes.into()).await.unwrap();
    }
    copy
}
