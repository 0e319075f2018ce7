//! More than one writer.

use super::harness::{Rows, apply, assert_tidy, base, commit, create, objects, open, read, request, upsert};
use crate::error::Kind;
use crate::table::TableView;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// The path of a file of the table.
fn at(path: &str) -> Path {
    Path::parse(format!("{}/{path}", base())).unwrap()
}

#[tokio::test]
async fn a_session_that_was_overtaken_commits_nothing() {
    let store = memory();
    let mut rows = Rows::new();
    let mut first = create(&store, true).await.unwrap();
    commit(&mut first, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
    let mut second = open(&store, true).await.unwrap();
    let error = first.commit(request(&[upsert("a", 1, "lost")], "2", false)).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Conflict, 5));
    let line = error.to_string();
    assert!(line.starts_with("another binlake writes this table writer=test pid=") && line.contains(" since="), "{line}");
    assert_eq!(read(&store, None).await, rows);
    // it left an instant under way and a file: the other undoes them with its next commit
    commit(&mut second, &mut rows, &[upsert("b", 2, "y")], "2").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    assert!(first.commit(request(&[], "3", false)).await.is_err(), "a table that lost its fence stays unusable");
    open(&store, true).await.unwrap();
    assert_tidy(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_writers_that_race_one_wins() {
    for local in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = match local {
            true => Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()) as Arc<dyn ObjectStore>,
            false => memory(),
        };
        let mut rows = Rows::new();
        let mut table = create(&store, true).await.unwrap();
        commit(&mut table, &mut rows, &[upsert("a", 0, "x")], "0").await.unwrap();
        for round in 0..8 {
            let racers: Vec<_> = (1..5)
                .map(|racer| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let changes = [upsert("a", racer, round)];
                        let mut table = open(&store, true).await.ok()?;
                        table.commit(request(&changes, &racer.to_string(), false)).await.ok()?;
                        Some(changes)
                    })
                })
                .collect();
            let mut committed = 0;
            for racer in racers {
                if let Some(changes) = racer.await.unwrap() {
                    apply(&mut rows, &changes, false, true);
                    committed += 1;
                }
            }
            open(&store, true).await.unwrap();
            let found = read(&store, None).await;
            // an answer may be lost to the next session, which finished the commit: then it counts without its writer's knowing
            for (key, value) in &found {
                if rows.get(key) != Some(value) {
                    assert_eq!(*value, round.to_string());
                    rows.insert(key.clone(), value.clone());
                }
            }
            assert_eq!(found, rows, "round {round}, {committed} committed");
            assert_tidy(&store).await;
        }
    }
}

#[tokio::test]
async fn another_writers_commits_are_built_upon() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    let first = commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "ours").await.unwrap().instant;
    // Spark commits: no keys of ours, the same file group; here with the same rows
    let path = format!(".hoodie/{first}.commit");
    let mut json: serde_json::Value = serde_json::from_slice(&store.get(&at(&path)).await.unwrap().bytes().await.unwrap()).unwrap();
    let instant = super::super::InstantTime::after(Some(&first), crate::time::Timestamp::now());
    let schema = json["extraMetadata"]["schema"].clone();
    json["extraMetadata"] = serde_json::json!({"schema": schema});
    let slice = table.slices(None).unwrap().remove(0);
    let name = format!("{}_0-7-7_{instant}.parquet", slice.file_id);
    let bytes = store.get(&at(&slice.path())).await.unwrap().bytes().await.unwrap();
    store.put(&at(&name), bytes.into()).await.unwrap();
    store.put(&at(&format!(".hoodie/{instant}.commit")), json.to_string().into()).await.unwrap();

    commit(&mut table, &mut rows, &[upsert("a", 2, "y")], "ours again").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    assert_eq!(table.instants().len(), 3);
    // but not upon one that has moved the checkpoint: what waits here may be older than what is there
    json["extraMetadata"]["binlake.checkpoint"] = "by Spark".into();
    json["partitionToWriteStats"] = serde_json::json!({});
    store.put(&at(".hoodie/20991231000000000.commit"), json.to_string().into()).await.unwrap();
    let error = table.commit(request(&[upsert("a", 3, "z")], "late", false)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.to_string().contains("moved the table's checkpoint"), "{error}");
    let mut again = open(&store, false).await.unwrap();
    assert_eq!(again.extra_metadata("binlake.checkpoint"), Some("by Spark"));
    store.delete(&at(".hoodie/20991231000000000.commit")).await.unwrap();
    let error = again.commit(request(&[upsert("a", 3, "z")], "late", false)).await.unwrap_err();
    assert!(error.to_string().contains("moved the table's checkpoint"), "a commit that was undone: {error}");
    let table = open(&store, false).await.unwrap();
    let stat = table.slices(None).unwrap().remove(0);
    assert_eq!(stat.file_id, slice.file_id);
    let view = TableView::open(store.clone(), base()).await.unwrap();
    assert_eq!(view.extra_metadata("binlake.checkpoint"), Some("ours again"));
    // and with the foreign commit as the newest
    store.delete(&at(&format!(".hoodie/{}.commit", table.instants()[2].instant))).await.unwrap();
    let view = TableView::open(store, base()).await.unwrap();
    assert_eq!(view.extra_metadata("binlake.checkpoint"), Some("ours"));
}

#[tokio::test]
async fn unfinished_work_of_others_is_not_touched() {
    for name in ["20991231000000000.inflight", "20991231000000000.commit.requested", "20991231000000000.replacecommit.requested"] {
        let store = memory();
        let mut rows = Rows::new();
        let mut table = create(&store, false).await.unwrap();
        commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
        store.put(&at(&format!(".hoodie/{name}")), "{}".into()).await.unwrap();
        // who is turned away at the door does not fence the one inside
        for error in [open(&store, false).await.unwrap_err(), table.commit(request(&[], "2", false)).await.unwrap_err()] {
            assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 5), "{name}: {error}");
            assert!(error.to_string().contains("instant=20991231000000000."), "{error}");
        }
        assert!(objects(&store).await.contains(&format!(".hoodie/{name}")));
    }
}

#[tokio::test]
async fn a_commit_that_spark_rolled_back_is_tried_again_cleanly() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
    // what Spark leaves of a commit of ours that was under way: the base file alone
    let orphan = "6a0ba3a6-a12b-5a68-a7d5-9e9a1d2ab111-0_0-0-0_20991231000000000.parquet";
    let slice = table.slices(None).unwrap().remove(0);
    let bytes = store.get(&at(&slice.path())).await.unwrap().bytes().await.unwrap();
    store.put(&at(orphan), bytes.into()).await.unwrap();
    let mut table = open(&store, false).await.unwrap();
    assert!(!objects(&store).await.contains(&orphan.to_owned()));
    commit(&mut table, &mut rows, &[upsert("a", 2, "y")], "2").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
}

#[tokio::test]
async fn a_checkpoint_outlives_the_archiving_of_all_our_commits() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    let ours = commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "ours").await.unwrap().instant;
    let schema = {
        let json: serde_json::Value =
            serde_json::from_slice(&store.get(&at(&format!(".hoodie/{ours}.commit"))).await.unwrap().bytes().await.unwrap())
                .unwrap();
        json["extraMetadata"]["schema"].clone()
    };
    let foreign = serde_json::json!({"partitionToWriteStats": {}, "extraMetadata": {"schema": schema}, "operationType": "UPSERT"});
    store.put(&at(".hoodie/20991231000000000.commit"), foreign.to_string().into()).await.unwrap();
    for state in [".commit", ".commit.requested", ".inflight"] {
        store.delete(&at(&format!(".hoodie/{ours}{state}"))).await.unwrap();
    }
    let table = open(&store, false).await.unwrap();
    assert_eq!(table.extra_metadata("binlake.checkpoint"), Some("ours"));
    assert_eq!(read(&store, None).await, rows);
}

#[tokio::test]
async fn a_commit_that_was_rolled_back_after_it_was_done_does_not_come_back() {
    use crate::table::avro_file::ROLLBACK_METADATA;
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
    let undone = table.commit(request(&[upsert("a", 1, "unwanted")], "2", false)).await.unwrap().instant;
    // as Spark's `call rollback_to_instant` leaves it
    let file = table.slices(None).unwrap().remove(0);
    store.delete(&at(&file.path())).await.unwrap();
    for state in [".commit", ".commit.requested", ".inflight"] {
        store.delete(&at(&format!(".hoodie/{undone}{state}"))).await.unwrap();
    }
    let rollback = serde_json::json!({"startRollbackTime": "20991231000000000", "timeTakenInMillis": 1, "totalFilesDeleted": 1,
        "commitsRollback": [undone], "partitionMetadata": {}});
    let bytes = ROLLBACK_METADATA.encode(&rollback, [3; 16]).unwrap();
    store.put(&at(".hoodie/20991231000000000.rollback"), bytes.into()).await.unwrap();
    let mut table = open(&store, false).await.unwrap();
    assert_eq!(table.extra_metadata("binlake.checkpoint"), Some("1"));
    assert_eq!(read(&store, None).await, rows);
    commit(&mut table, &mut rows, &[upsert("a", 1, "wanted")], "2").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
}

#[tokio::test]
async fn a_file_that_a_fenced_session_wrote_late_never_comes_alive() {
    let store = memory();
    let mut rows = Rows::new();
    let mut table = create(&store, false).await.unwrap();
    commit(&mut table, &mut rows, &[upsert("a", 1, "x")], "1").await.unwrap();
    // a session that is overtaken leaves an instant under way, which is rolled back
    let mut late = open(&store, false).await.unwrap();
    let mut table = open(&store, false).await.unwrap();
    late.commit(request(&[upsert("a", 1, "late")], "2", false)).await.unwrap_err();
    commit(&mut table, &mut rows, &[upsert("a", 1, "y")], "2").await.unwrap();
    let rollback = objects(&store).await.into_iter().find(|path| path.ends_with(".rollback")).unwrap();
    let bytes = store.get(&at(&rollback)).await.unwrap().bytes().await.unwrap();
    let undone = crate::table::avro_file::decode(&bytes, &rollback).unwrap()["commitsRollback"][0].as_str().unwrap().to_owned();
    // only then does it write its file, in a group of its own: it would double the key once the timeline starts behind it
    let slice = table.slices(None).unwrap().remove(0);
    let orphan = format!("6a0ba3a6-a12b-5a68-a7d5-9e9a1d2ab111-0_0-0-0_{undone}.parquet");
    let bytes = store.get(&at(&slice.path())).await.unwrap().bytes().await.unwrap();
    store.put(&at(&orphan), bytes.into()).await.unwrap();
    for round in 0..80 {
        commit(&mut table, &mut rows, &[upsert("a", 2, round)], round).await.unwrap();
        assert_eq!(read(&store, None).await, rows, "round {round}");
    }
    assert!(!objects(&store).await.contains(&orphan));
    assert!(!objects(&store).await.contains(&rollback), "the rollback is archived as well");
}
