//! Commits, and what can be read after them.

use super::harness::{Rows, apply, assert_tidy, base, commit, create, delete, objects, open, read, request, spec, upsert};
use crate::error::Kind;
use crate::table::{InstantTime, Table, TableView};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn rows_come_change_and_go() {
    for partitioned in [false, true] {
        let store = memory();
        let mut rows = Rows::new();
        let mut table = create(&store, partitioned).await.unwrap();
        let summary =
            commit(&mut table, &mut rows, &[upsert("a", 1, "x"), upsert("a", 2, "y"), upsert("b/c", 3, "z")], "1").await.unwrap();
        assert_eq!((summary.inserted, summary.updated, summary.deleted), (3, 0, 0));
        let first = summary.instant;
        let before = rows.clone();
        let mut table = open(&store, partitioned).await.unwrap();
        assert_eq!(table.extra_metadata("binlake.checkpoint"), Some("1"));
        assert_eq!(table.columns(), super::harness::schema());
        let summary = commit(&mut table, &mut rows, &[upsert("a", 1, "xx"), delete("a", 2)], "2").await.unwrap();
        assert_eq!((summary.inserted, summary.updated, summary.deleted), (0, 1, 1));
        assert!(summary.instant > first);
        assert_eq!(read(&store, None).await, rows.iter().map(|(key, value)| (escaped(key), value.clone())).collect());
        assert_eq!(read(&store, Some(&first)).await, before.iter().map(|(key, value)| (escaped(key), value.clone())).collect());
        assert_tidy(&store).await;
        let markers = objects(&store).await.into_iter().filter(|path| path.ends_with(".hoodie_partition_metadata")).count();
        assert_eq!(markers, if partitioned { 2 } else { 1 });
    }
}

fn escaped((part, id): &(String, i32)) -> (String, i32) {
    (part.replace("b/c", "b%2Fc"), *id)
}

#[tokio::test]
async fn a_truncate_replaces_all_file_groups() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x"), upsert("b", 2, "y")], "1").await.unwrap();
    let changes = [upsert("b", 9, "new")];
    let summary = table.commit(request(&changes, "2", true)).await.unwrap();
    apply(&mut rows, &changes, true, true);
    assert_eq!(read(&store, None).await, rows);
    let replace = format!(".hoodie/{}.replacecommit", summary.instant);
    let present = objects(&store).await;
    for state in ["", ".inflight", ".requested"] {
        assert!(present.contains(&format!("{replace}{state}")), "{state}");
    }
    commit(&mut table, &mut rows, &[upsert("a", 1, "again")], "3").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    drop(table);
    let table = open(&store, true).await.unwrap();
    assert_eq!(table.instants().iter().map(|instant| instant.action).collect::<Vec<_>>(), ["commit", "replacecommit", "commit"]);
    assert_tidy(&store).await;
}

#[tokio::test]
async fn a_file_group_without_rows_ends() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x"), upsert("b", 2, "y")], "1").await.unwrap();
    commit(&mut table, &mut rows, &[delete("a", 1)], "2").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    assert_eq!(table.slices(None).unwrap().len(), 1);
    assert_eq!(table.instants().last().unwrap().action, "replacecommit");
    let second = table.instants().last().unwrap().instant.clone();
    let names: Vec<String> = objects(&store).await.into_iter().filter(|path| path.contains(second.as_str())).collect();
    let expected = ["", ".inflight", ".requested"].map(|state| format!(".hoodie/{second}.replacecommit{state}"));
    assert_eq!(names, expected, "the plain commit that it began as is gone");
    assert_tidy(&store).await;
}

#[tokio::test]
async fn an_empty_commit_moves_the_checkpoint() {
    let store = memory();
    let mut table = create(&store, false).await.unwrap();
    table.commit(request(&[], "7", false)).await.unwrap();
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.extra_metadata("binlake.checkpoint"), Some("7"));
    assert!(view.slices(None).unwrap().is_empty());
    assert_eq!(view.columns(None).await.unwrap(), super::harness::schema());
}

#[tokio::test]
async fn a_table_is_made_once_and_opened_with_its_own_key() {
    let store = memory();
    assert!(!Table::exists(&store, &base()).await.unwrap());
    create(&store, false).await.unwrap();
    assert!(Table::exists(&store, &base()).await.unwrap());
    assert_eq!(create(&store, false).await.unwrap_err().kind(), Kind::Conflict);
    let error = open(&store, true).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 5));
    let nowhere = Table::open(store.clone(), Path::from("nowhere"), &spec(false), super::harness::options()).await.unwrap_err();
    assert!(nowhere.to_string().contains("there is no table here path=nowhere"), "{nowhere}");
}

#[tokio::test]
async fn columns_come_and_time_travel_sees_the_old_ones() {
    use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    let first = commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap().instant;
    let wider = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("value", DataType::Utf8, true),
        Field::new("part", DataType::Utf8, true),
        Field::new("added", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(
        wider.clone(),
        vec![
            Arc::new(Int32Array::from(vec![2])),
            Arc::new(StringArray::from(vec!["y"])),
            Arc::new(StringArray::from(vec!["a"])),
            Arc::new(Int64Array::from(vec![7])),
        ],
    )
    .unwrap();
    let mut commit = request(&[], "2", false);
    commit.columns = wider.clone();
    let piece = crate::table::SortedChanges { rows: batch, is_delete: vec![false].into() };
    commit.changes = Box::new(std::iter::once(Ok(piece)));
    table.commit(commit).await.unwrap();
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.columns(None).await.unwrap(), wider);
    assert_eq!(view.columns(Some(&first)).await.unwrap(), super::harness::schema());
    assert_eq!(read(&store, None).await.len(), 2);
}

#[tokio::test]
async fn many_commits_leave_a_bounded_number_of_files() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    let (mut most, mut history): (usize, Vec<(InstantTime, Rows)>) = (0, Vec::new());
    for round in 0..120 {
        let changes = match round % 10 {
            0 => vec![upsert("a", round, round), upsert("b", 1, round)],
            5 => vec![delete("a", round - 5), delete("b", 1)],
            _ => vec![upsert("c", 1, round)],
        };
        let summary = commit(&mut table, &mut rows, &changes, round).await.unwrap();
        history.push((summary.instant, rows.clone()));
        most = most.max(objects(&store).await.len());
    }
    assert!(most < 180, "{most} objects");
    assert_eq!(read(&store, None).await, rows);
    for (instant, rows) in history.iter().rev().take(3) {
        assert_eq!(read(&store, Some(instant)).await, *rows, "{instant}");
    }
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.slices(Some(&history[0].0)).unwrap_err().kind(), Kind::Refused);
    assert!(objects(&store).await.contains(&".hoodie/archived/.commits_.archive.1_1-0-1".to_owned()));
    assert_tidy(&store).await;
    // what was kept in memory and what is read anew agree
    assert_eq!(table.slices(None).unwrap(), view.slices(None).unwrap());
    assert_eq!(table.instants(), view.instants());
    let table = open(&store, true).await.unwrap();
    assert_eq!(table.extra_metadata("binlake.checkpoint"), Some("119"));
}

#[tokio::test]
async fn sparks_metadata_table_is_dropped_at_open_and_at_commit() {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    for store in [memory(), local] {
        drops_the_metadata_table(store).await;
    }
    assert!(!folder.path().join("lake/shop/orders/.hoodie/metadata").exists(), "Hudi asks for the folder");
}

async fn drops_the_metadata_table(store: Arc<dyn ObjectStore>) {
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    let properties = Path::from("lake/shop/orders/.hoodie/hoodie.properties");
    for at_open in [true, false] {
        commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
        let text = String::from_utf8(store.get(&properties).await.unwrap().bytes().await.unwrap().to_vec()).unwrap();
        store.put(&properties, format!("{text}hoodie.table.metadata.partitions=files\n").into()).await.unwrap();
        for path in
            [".hoodie/metadata/.hoodie/hoodie.properties", ".hoodie/metadata/files/x.hfile", ".hoodie/.hoodie.properties.crc"]
        {
            store.put(&Path::parse(format!("{}/{path}", base())).unwrap(), "x".into()).await.unwrap();
        }
        if at_open {
            table = open(&store, false).await.unwrap();
        } else {
            commit(&mut table, &mut rows, &[upsert("a", 1, "y")], "2").await.unwrap();
        }
        let present = objects(&store).await;
        assert!(!present.iter().any(|path| path.contains("metadata/") || path.ends_with(".crc")), "{present:?}");
        let after = String::from_utf8(store.get(&properties).await.unwrap().bytes().await.unwrap().to_vec()).unwrap();
        let keys = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(keys(&after), keys(&text));
    }
    assert_eq!(read(&store, None).await, rows);
}

#[tokio::test]
async fn a_change_loses_against_a_newer_row() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    let all: Vec<_> = (0..5000).map(|id| upsert("", id, "m")).collect();
    commit(&mut table, &mut rows, &all, "1").await.unwrap();
    // `value` says which row is newer; of equal ones the later wins
    let changes = [upsert("p", 1, "a"), upsert("p", 2, "z"), upsert("p", 3, "m"), upsert("p", 9000, "a"), delete("p", 4)];
    let ordered = crate::table::CommitRequest { ordering: Some("value".into()), ..request(&changes, "2", false) };
    let summary = table.commit(ordered).await.unwrap();
    assert_eq!((summary.inserted, summary.updated, summary.deleted), (1, 2, 1));
    let found = read(&store, None).await;
    let value = |id: i32| found.get(&(String::new(), id)).map(String::as_str);
    assert_eq!([1, 2, 3, 9000, 4].map(value), [Some("m"), Some("z"), Some("m"), Some("a"), None]);
    assert_eq!(found.len(), 5000);
    assert_tidy(&store).await;
}
