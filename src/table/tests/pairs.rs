//! Commits on two tables: a crash, and a lost answer, at every durable step leaves both changed or none.

use super::faulty::{Fault, Faulty};
use super::harness::{Change, Rows, apply, copy_of, delete, options, request, rows_at, spec, upsert};
use crate::error::{Kind, Result};
use crate::table::{CommitRequest, Table, TableSpec, TableView};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::sync::Arc;

fn leader() -> Path {
    Path::from("lake/shop/orders")
}

fn follower() -> Path {
    Path::from("lake/shop/orders_history")
}

fn follower_spec() -> TableSpec {
    TableSpec { name: "orders_history".to_owned(), ..spec(true) }
}

/// The leader first: it decides.
async fn open(store: &Arc<dyn ObjectStore>) -> Result<(Table, Table)> {
    let first = Table::open(store.clone(), leader(), &spec(true), options()).await?;
    let second = Table::open(store.clone(), follower(), &follower_spec(), options()).await?;
    Ok((first, second))
}

async fn checkpoint(store: &Arc<dyn ObjectStore>, base: Path) -> String {
    let view = TableView::open(store.clone(), base).await.unwrap();
    view.extra_metadata("binlake.checkpoint").unwrap_or_default().to_owned()
}

/// The same changes for the follower, but other values.
fn mirrored(changes: &[Change]) -> Vec<Change> {
    changes.iter().map(|(part, id, value)| (*part, *id, value.as_ref().map(|value| format!("{value} too")))).collect()
}

async fn commit(pair: &mut (Table, Table), changes: &[Change], truncate: bool, checkpoint: &str) -> Result<()> {
    let of_follower: CommitRequest = request(&mirrored(changes), checkpoint, truncate);
    pair.0.commit_with(request(changes, checkpoint, truncate), &mut pair.1, of_follower).await.map(|_| ())
}

async fn prepared(commits: usize) -> (Arc<dyn ObjectStore>, Rows, Rows) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let first = Table::create(store.clone(), leader(), &spec(true), options()).await.unwrap();
    let second = Table::create(store.clone(), follower(), &follower_spec(), options()).await.unwrap();
    let (mut pair, mut rows, mut others) = ((first, second), Rows::new(), Rows::new());
    for number in 0..commits {
        let changes = [upsert("a", 1, number), upsert("b", 2, number), upsert("a", 10 + (number % 7) as i32, number)];
        commit(&mut pair, &changes, false, &number.to_string()).await.unwrap();
        apply(&mut rows, &changes, false, true);
        apply(&mut others, &mirrored(&changes), false, true);
    }
    (store, rows, others)
}

async fn at_every_step(commits: usize, last: &[Change], truncate: bool) {
    let (store, rows, others) = prepared(commits).await;
    let before = (rows.clone(), others.clone());
    let (mut rows, mut others) = (rows, others);
    apply(&mut rows, last, truncate, true);
    apply(&mut others, &mirrored(last), truncate, true);
    let after = (rows, others);
    let (old, new) = (commits.checked_sub(1).map(|last| last.to_string()).unwrap_or_default(), commits.to_string());
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Refused, Fault::AnswerLost] {
        for step in 0.. {
            let case = format!("{fault:?} at step {step}");
            let copy = copy_of(&store).await;
            let faulty = Faulty::new(copy.clone(), fault, step);
            let through: Arc<dyn ObjectStore> = faulty.clone();
            let done = async { commit(&mut open(&through).await?, last, truncate, &new).await }.await;
            if !faulty.was_reached() {
                done.unwrap();
                break;
            }
            // readers see each table before or after, with the checkpoint that says so
            for (base, which) in [(leader(), 0), (follower(), 1)] {
                let state = if checkpoint(&copy, base.clone()).await == new { &after } else { &before };
                let expected = if which == 0 { &state.0 } else { &state.1 };
                assert_eq!(rows_at(&copy, &base, None).await, *expected, "{case}: {base}");
            }
            // who is next may crash as well; or somebody only reads
            if step % 3 == 0 {
                let again: Arc<dyn ObjectStore> = Faulty::new(copy.clone(), Fault::CrashAfter, step % 7);
                _ = open(&again).await;
            } else if step % 3 == 1 {
                _ = Table::settled_view(copy.clone(), follower()).await.unwrap();
                _ = Table::settled_view(copy.clone(), leader()).await.unwrap();
            }
            let mut pair = open(&copy).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let (first, second) = (checkpoint(&copy, leader()).await, checkpoint(&copy, follower()).await);
            assert_eq!(first, second, "{case}: the two parted");
            assert!(first == new || first == old, "{case}: {first}");
            assert!(done.is_err() || first == new, "{case}: it was done");
            let (mut rows, mut others) = if first == new { after.clone() } else { before.clone() };
            assert_eq!(rows_at(&copy, &leader(), None).await, rows, "{case}");
            assert_eq!(rows_at(&copy, &follower(), None).await, others, "{case}");
            let next = [upsert("c", 9, "next"), delete("a", 1)];
            commit(&mut pair, &next, false, "next").await.unwrap_or_else(|error| panic!("{case}: {error}"));
            apply(&mut rows, &next, false, true);
            apply(&mut others, &mirrored(&next), false, true);
            assert_eq!(rows_at(&copy, &leader(), None).await, rows, "{case}, after the next commit");
            assert_eq!(rows_at(&copy, &follower(), None).await, others, "{case}, after the next commit");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_change_or_none() {
    at_every_step(2, &[upsert("a", 1, "new"), delete("a", 10), upsert("c", 3, "new partition")], false).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_commit_of_both_happens_or_does_not() {
    at_every_step(0, &[upsert("a", 1, "new")], false).await;
}

#[tokio::test(start_paused = true)]
async fn both_are_truncated_or_none() {
    at_every_step(2, &[upsert("b", 5, "new")], true).await;
}

/// The follower's entry is there, the leader's is not, and the leader's session lives: nobody may open the follower alone.
#[tokio::test]
async fn a_follower_waits_for_its_leader() {
    let (store, _, _) = prepared(2).await;
    let changes = [upsert("a", 1, "new")];
    for step in 0.. {
        let copy = copy_of(&store).await;
        let faulty = Faulty::new(copy.clone(), Fault::CrashAfter, step);
        let through: Arc<dyn ObjectStore> = faulty.clone();
        let mut pair = open(&copy).await.unwrap();
        drop(pair);
        pair = match open(&through).await {
            Ok(pair) => pair,
            Err(_) => continue,
        };
        _ = commit(&mut pair, &changes, false, "2").await;
        assert!(faulty.was_reached(), "no step leaves the follower waiting");
        let alone = Table::open(copy.clone(), follower(), &follower_spec(), options()).await;
        if let Err(error) = alone {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.to_string().contains("awaits another table's"), "{error}");
            // reading shows what was, and changes nothing
            assert_eq!(
                Table::settled_view(copy.clone(), follower()).await.unwrap().extra_metadata("binlake.checkpoint"),
                Some("1")
            );
            open(&copy).await.unwrap();
            return;
        }
    }
}
