//! A truncating commit may give the table other columns and another key: before it, all is as it was; after it, all is new.

use super::faulty::{Fault, Faulty};
use super::harness::{Rows, assert_tidy, base, commit, copy_of, create, options, read, request, spec, upsert};
use crate::error::{Kind, Result};
use crate::table::properties::PROPERTIES_FILE;
use crate::table::{CommitRequest, InstantTime, SortedChanges, Table, TableSpec, TableView};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `value` is the key now, `id` is gone, and so is the number type of the key.
fn new_columns() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![text("value", false), text("note", true), text("part", true)]))
}

fn new_spec() -> TableSpec {
    TableSpec { columns: new_columns(), record_key: vec!["value".into(), "part".into()], ..spec(true) }
}

/// Rows of (value, part), sorted by part.
fn new_request(rows: &[(&str, &str)], checkpoint: &str, truncate: bool) -> CommitRequest {
    let column = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let columns = vec![
        column(rows.iter().map(|row| row.0).collect()),
        column(vec!["noted"; rows.len()]),
        column(rows.iter().map(|row| row.1).collect()),
    ];
    let changes = SortedChanges {
        rows: RecordBatch::try_new(new_columns(), columns).unwrap(),
        is_delete: BooleanArray::from(vec![false; rows.len()]),
    };
    CommitRequest {
        columns: new_columns(),
        record_key: Some(new_spec().record_key),
        fill: None,
        truncate,
        changes: Box::new(std::iter::once(Ok(changes))),
        ordering: None,
        extra_metadata: BTreeMap::from([("binlake.checkpoint".to_owned(), checkpoint.to_owned())]),
    }
}

async fn reopen(store: &Arc<dyn ObjectStore>) -> Result<Table> {
    Table::open_to_replace(store.clone(), base(), &new_spec(), options()).await
}

/// A table with the former shape and some rows, and the instant of its last commit.
async fn prepared() -> (Arc<dyn ObjectStore>, Rows, InstantTime) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x"), upsert("b", 2, "y")], "0").await.unwrap();
    let summary = commit(&mut table, &mut rows, &[upsert("a", 1, "z")], "1").await.unwrap();
    (store, rows, summary.instant)
}

async fn properties(store: &Arc<dyn ObjectStore>) -> String {
    let path = base().parts().chain(PROPERTIES_FILE.split('/').map(Into::into)).collect();
    String::from_utf8(store.get(&path).await.unwrap().bytes().await.unwrap().to_vec()).unwrap()
}

/// The table is the new one, in every respect, and can be written; what was before can still be read.
async fn assert_new(store: &Arc<dyn ObjectStore>, before: &Rows, last: &InstantTime, case: &str) {
    let mut table = Table::open(store.clone(), base(), &new_spec(), options()).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    table.commit(new_request(&[("new", "c")], "3", false)).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    let text = properties(store).await;
    assert!(text.contains("hoodie.table.recordkey.fields=value,part"), "{case}: {text}");
    assert!(text.contains("ComplexKeyGenerator"), "{case}: {text}");
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.latest_columns(), new_columns(), "{case}");
    assert_eq!(view.slices(None).unwrap().len(), 3, "{case}");
    assert_eq!(view.columns(Some(last)).await.unwrap(), super::harness::schema(), "{case}");
    assert_eq!(read(store, Some(last)).await, *before, "{case}");
    assert_tidy(store).await;
    let former = Table::open(store.clone(), base(), &spec(true), options()).await.unwrap_err();
    assert_eq!(former.kind(), Kind::Refused, "{case}: {former}");
}

#[tokio::test]
async fn without_a_truncation_the_shape_binds() {
    let (store, _, _) = prepared().await;
    let mut table = reopen(&store).await.unwrap();
    let error = table.commit(new_request(&[("x", "a")], "2", false)).await.unwrap_err();
    assert!(error.to_string().contains("found=id wanted=value,part") && error.to_string().contains("backfill"), "{error}");
    let mut table = reopen(&store).await.unwrap();
    let kept = CommitRequest { record_key: Some(vec!["id".into()]), ..request(&[upsert("a", 1, "still")], "2", false) };
    table.commit(kept).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_shape_and_key_happen_or_do_not() {
    let (store, before, last) = prepared().await;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Refused, Fault::AnswerLost] {
        for step in 0.. {
            let case = format!("{fault:?} at step {step}");
            let copy = copy_of(&store).await;
            let faulty = Faulty::new(copy.clone(), fault, step);
            let through: Arc<dyn ObjectStore> = faulty.clone();
            let done = async { reopen(&through).await?.commit(new_request(&[("x", "a"), ("x", "b")], "2", true)).await }.await;
            if !faulty.was_reached() {
                done.unwrap();
                assert_new(&copy, &before, &last, &case).await;
                break;
            }
            let mut table = reopen(&copy).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            if table.extra_metadata("binlake.checkpoint") == Some("1") {
                assert_eq!(read(&copy, None).await, before, "{case}");
                assert!(properties(&copy).await.contains("hoodie.table.recordkey.fields=id\n"), "{case}");
                table.commit(new_request(&[("x", "a"), ("x", "b")], "2", true)).await.unwrap_or_else(|e| panic!("{case}: {e}"));
            }
            assert_new(&copy, &before, &last, &case).await;
        }
    }
}
