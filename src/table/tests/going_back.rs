//! Going back, savepoints and clustering: the rows are those of the commit, or stay; what is undone can be read for as long as it is retained.

use super::harness::{Change, Rows, apply, assert_tidy, commit, create, delete, open, read, request, spec, upsert};
use crate::error::Kind;
use crate::table::{FileSlice, GoingBack, InstantTime, RESTORED_KEY, Table, TableOptions, TableView};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn small_files(target_file_bytes: u64, retained_commits: usize) -> TableOptions {
    TableOptions { target_file_bytes, retained_commits, ..super::harness::options() }
}

async fn open_with(store: &Arc<dyn ObjectStore>, options: TableOptions) -> Table {
    Table::open(store.clone(), super::harness::base(), &spec(true), options).await.unwrap()
}

async fn go_back(table: &mut Table, to: Option<&InstantTime>) -> crate::table::CommitSummary {
    let going = GoingBack { table, to: to.cloned(), extra_metadata: BTreeMap::new() };
    Table::go_back(vec![going]).await.unwrap().remove(0)
}

async fn view(store: &Arc<dyn ObjectStore>) -> TableView {
    TableView::open(store.clone(), super::harness::base()).await.unwrap()
}

fn last(view: &TableView) -> InstantTime {
    view.instants().last().unwrap().instant.clone()
}

/// Numbers that look random, the same each time.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[tokio::test]
async fn whatever_was_done_since_the_rows_are_those_of_the_commit() {
    for seed in 0..12 {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        drop(create(&store, true).await.unwrap());
        let mut random = numbers(seed);
        let (mut rows, mut states) = (Rows::new(), BTreeMap::<InstantTime, Rows>::new());
        let mut kept = BTreeSet::new();
        for step in 0..40 {
            // another size each time, so that groups split and are made one again
            let mut table = open_with(&store, small_files([1_500, 3_000, 1 << 20][random(3) as usize], 6)).await;
            let retained: Vec<InstantTime> = view(&store).await.instants().iter().map(|known| known.instant.clone()).collect();
            match random(10) {
                0..2 if !retained.is_empty() => {
                    let to = &retained[random(retained.len() as u64) as usize];
                    match view(&store).await.slices(Some(to)) {
                        Ok(_) => {
                            go_back(&mut table, Some(to)).await;
                            rows = states[to].clone();
                        }
                        Err(error) => assert_eq!(error.kind(), Kind::Refused, "{error}"),
                    }
                }
                2 => _ = table.cluster(BTreeMap::new()).await.unwrap(),
                3 if !retained.is_empty() => {
                    let instant = retained.last().unwrap();
                    assert_eq!(table.keep(instant).await.unwrap(), kept.insert(instant.clone()));
                }
                number => {
                    let count = 1 + random(60);
                    let changes: BTreeMap<i32, Change> = (0..count)
                        .map(|_| {
                            let id = random(300) as i32;
                            let part = ["a", "b"][(id % 2) as usize];
                            (id, if random(4) == 0 { delete(part, id) } else { upsert(part, id, format!("{step} {id}")) })
                        })
                        .collect();
                    let changes: Vec<Change> = changes.into_values().collect();
                    let truncate = number == 9;
                    table.commit(request(&changes, &step.to_string(), truncate)).await.unwrap();
                    apply(&mut rows, &changes, truncate, true);
                }
            }
            assert_eq!(read(&store, None).await, rows, "seed {seed}, step {step}");
            let now = view(&store).await;
            if let Some(newest) = now.instants().last() {
                states.insert(newest.instant.clone(), rows.clone());
            }
            for known in now.instants() {
                if now.slices(Some(&known.instant)).is_ok() {
                    assert_eq!(
                        read(&store, Some(&known.instant)).await,
                        states[&known.instant],
                        "seed {seed}, as of {}",
                        known.instant
                    );
                } else {
                    assert!(!kept.contains(&known.instant), "a savepoint's files are gone");
                }
            }
        }
        assert_tidy(&store).await;
    }
}

#[tokio::test]
async fn what_is_undone_is_said_and_can_be_undone_itself() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut table = create(&store, false).await.unwrap();
    let mut rows = Rows::new();
    let mut states = Vec::new();
    for number in 0..3 {
        let done = commit(&mut table, &mut rows, &[upsert("", 1, number), upsert("", 10 + number, "x")], number).await.unwrap();
        states.push((done.instant, rows.clone()));
    }
    let before: BTreeSet<String> = view(&store).await.slices(None).unwrap().iter().map(FileSlice::path).collect();
    let back = go_back(&mut table, Some(&states[0].0)).await;
    assert_eq!((back.inserted, back.updated, back.deleted), (0, 0, 0));
    let now = view(&store).await;
    let undone: Vec<bool> = now.instants().iter().map(|known| known.is_undone).collect();
    assert_eq!(undone, [false, true, true, false]);
    assert_eq!(now.extra_metadata(RESTORED_KEY), Some(states[0].0.as_str()));
    assert_eq!(table.instants(), now.instants(), "the session knows as well");
    assert_eq!(read(&store, None).await, states[0].1);
    assert!(now.slices(None).unwrap().iter().all(|slice| !before.contains(&slice.path())));
    // a commit goes on from there
    let mut rows = states[0].1.clone();
    commit(&mut table, &mut rows, &[upsert("", 1, "other"), delete("", 10)], "3").await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    // and all that is taken back
    go_back(&mut table, Some(&states[2].0)).await;
    assert_eq!(read(&store, None).await, states[2].1);
    let undone: Vec<bool> = view(&store).await.instants().iter().map(|known| known.is_undone).collect();
    assert_eq!(undone, [false, false, false, true, true, false]);
    // before its first commit it was empty
    go_back(&mut table, None).await;
    assert_eq!(read(&store, None).await, Rows::new());
    commit(&mut table, &mut Rows::new(), &[upsert("", 5, "again")], "4").await.unwrap();
    assert_eq!(read(&store, None).await.len(), 1);
    assert_tidy(&store).await;
}

#[tokio::test]
async fn a_savepoint_outlives_cleaning_until_it_is_deleted() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut table = create(&store, false).await.unwrap();
    let mut rows = Rows::new();
    let first = commit(&mut table, &mut rows, &[upsert("", 1, "first"), upsert("", 2, "first")], 0).await.unwrap().instant;
    let then = rows.clone();
    assert!(table.keep(&first).await.unwrap() && !table.keep(&first).await.unwrap());
    let none = InstantTime::parse("20200101000000000").unwrap();
    assert_eq!(table.keep(&none).await.unwrap_err().kind(), Kind::Refused);
    for number in 0..60 {
        commit(&mut table, &mut rows, &[upsert("", 1, number), delete("", 2)], number).await.unwrap();
    }
    assert_eq!(read(&store, Some(&first)).await, then);
    assert_eq!(view(&store).await.savepoints().collect::<Vec<_>>(), [&first]);
    go_back(&mut table, Some(&first)).await;
    assert_eq!(read(&store, None).await, then);
    assert!(table.keep_no_longer(&first).await.unwrap() && !table.keep_no_longer(&first).await.unwrap());
    assert!(!view(&store).await.has_savepoints());
    let mut rows = then.clone();
    for number in 0..60 {
        commit(&mut table, &mut rows, &[upsert("", 3, number)], number).await.unwrap();
    }
    let now = view(&store).await;
    assert!(now.slices(Some(&first)).is_err(), "its files are cleaned");
    assert!(now.instants().len() < 40, "the timeline is archived again: {}", now.instants().len());
    assert_eq!(read(&store, None).await, rows);
}

#[tokio::test]
async fn small_files_become_large_ones_and_no_row_changes() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    drop(create(&store, true).await.unwrap());
    let mut rows = Rows::new();
    let mut table = open_with(&store, small_files(1_500, 5)).await;
    for lot in 0..6 {
        let changes: Vec<Change> =
            (0..100).map(|id| upsert(["a", "b"][id % 2], (lot * 100 + id) as i32, format!("{lot} {id}"))).collect();
        commit(&mut table, &mut rows, &changes, lot).await.unwrap();
    }
    let before = view(&store).await;
    let many = before.slices(None).unwrap().len();
    assert_eq!(many, 4);
    let mut table = open(&store, true).await.unwrap();
    let said = BTreeMap::from([("binlake.checkpoint".to_owned(), "5".to_owned())]);
    let done = table.cluster(said.clone()).await.unwrap().unwrap();
    assert_eq!((done.inserted, done.updated, done.deleted, done.files_written), (0, 0, 0, 2));
    assert_eq!(read(&store, None).await, rows);
    assert_eq!(read(&store, Some(&last(&before))).await, rows, "the small files can still be read");
    let now = view(&store).await;
    assert_eq!((now.slices(None).unwrap().len(), now.extra_metadata("binlake.checkpoint")), (2, Some("5")));
    assert_eq!(table.cluster(said).await.unwrap(), None);
    assert_eq!(view(&store).await.instants(), now.instants(), "nothing is left of a clustering that did nothing");
    assert_tidy(&store).await;
    commit(&mut table, &mut rows, &[upsert("a", 0, "new"), delete("b", 1), upsert("a", 1_000, "new")], 6).await.unwrap();
    assert_eq!(read(&store, None).await, rows);
    assert_eq!(view(&store).await.slices(None).unwrap().len(), 2);
}
