//! A crash, and a lost answer, at every durable step.

use super::faulty::{Fault, Faulty};
use super::harness::{
    Change, Rows, apply, assert_tidy, assert_tidy_but_for_cleans, base, copy_of, create, delete, objects, open, read, request,
    upsert,
};
use crate::error::Kind;
use crate::table::TableView;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// One commit.
#[derive(Debug, Clone)]
struct Act {
    changes: Vec<Change>,
    truncate: bool,
}

fn act(changes: &[Change]) -> Act {
    Act { changes: changes.to_vec(), truncate: false }
}

fn checkpoint(number: usize) -> String {
    number.to_string()
}

async fn checkpoint_of(store: &Arc<dyn ObjectStore>) -> String {
    let view = TableView::open(store.clone(), base()).await.unwrap();
    view.extra_metadata("binlake.checkpoint").unwrap_or("").to_owned()
}

/// Runs `acts` upon the table in `store`, with a fault at each step of the last; then opens it anew and compares.
async fn at_every_step(store: Arc<dyn ObjectStore>, mut rows: Rows, first: usize, last: Act, next: Act) {
    let before = rows.clone();
    apply(&mut rows, &last.changes, last.truncate, true);
    let after = rows.clone();
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Refused, Fault::AnswerLost] {
        for step in 0.. {
            let case = format!("{fault:?} at step {step}");
            let copy = copy_of(&store).await;
            let faulty = Faulty::new(copy.clone(), fault, step);
            let through: Arc<dyn ObjectStore> = faulty.clone();
            let done = async {
                let mut table = open(&through, true).await?;
                table.commit(request(&last.changes, &checkpoint(first), last.truncate)).await
            }
            .await;
            if !faulty.was_reached() {
                done.unwrap();
                break;
            }
            if matches!(fault, Fault::Refused | Fault::AnswerLost) {
                // the writer of base files leaves it to the caller to try the whole commit again
                assert!(done.as_ref().is_ok() || done.as_ref().is_err_and(|error| error.is_transient()), "{case}: {done:?}");
            }
            // readers see one of the two at any time, with its own checkpoint
            let seen = read(&copy, None).await;
            let expected = if checkpoint_of(&copy).await == checkpoint(first) { &after } else { &before };
            assert_eq!(seen, *expected, "{case}, before it is opened");
            // the next session, which a crash may hit as well: every third case
            if step % 3 == 0 {
                let again: Arc<dyn ObjectStore> = Faulty::new(copy.clone(), Fault::CrashAfter, step % 5);
                _ = open(&again, true).await;
            }
            let mut table = open(&copy, true).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let took_effect = table.extra_metadata("binlake.checkpoint") == Some(checkpoint(first).as_str());
            let mut expected = if took_effect { after.clone() } else { before.clone() };
            assert_eq!(read(&copy, None).await, expected, "{case}");
            assert_tidy_but_for_cleans(&copy).await;
            table
                .commit(request(&next.changes, &checkpoint(first + 1), false))
                .await
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            apply(&mut expected, &next.changes, false, true);
            assert_eq!(read(&copy, None).await, expected, "{case}, after the next commit");
            assert_tidy(&copy).await;
        }
    }
}

/// A table after some commits.
async fn prepared(commits: usize) -> (Arc<dyn ObjectStore>, Rows) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut rows = Rows::new();
    let mut table = create(&store, true).await.unwrap();
    for number in 0..commits {
        let changes =
            [upsert("a", 1, number), upsert("b", 2, number), upsert("a", 10 + i32::try_from(number).unwrap() % 7, number)];
        table.commit(request(&changes, &checkpoint(number), false)).await.unwrap();
        apply(&mut rows, &changes, false, true);
    }
    (store, rows)
}

#[tokio::test(start_paused = true)]
async fn an_upsert_happens_or_does_not() {
    let (store, rows) = prepared(2).await;
    let last = act(&[upsert("a", 1, "new"), delete("a", 10), upsert("c", 3, "new partition")]);
    at_every_step(store, rows, 2, last, act(&[upsert("c", 4, "next")])).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_commit_happens_or_does_not() {
    let (store, rows) = prepared(0).await;
    at_every_step(store, rows, 0, act(&[upsert("a", 1, "new")]), act(&[upsert("a", 1, "next")])).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_file_group_happens_or_does_not() {
    let (store, rows) = prepared(2).await;
    at_every_step(store, rows, 2, act(&[delete("b", 2), upsert("a", 1, "new")]), act(&[upsert("b", 2, "next")])).await;
}

#[tokio::test(start_paused = true)]
async fn a_truncate_happens_or_does_not() {
    let (store, rows) = prepared(2).await;
    let last = Act { changes: vec![upsert("b", 5, "new")], truncate: true };
    at_every_step(store, rows, 2, last, act(&[upsert("a", 1, "next")])).await;
}

#[tokio::test(start_paused = true)]
async fn cleaning_and_archiving_may_crash_anywhere() {
    // the 33rd commit cleans and archives
    let (store, rows) = prepared(32).await;
    assert!(!objects(&store).await.iter().any(|path| path.contains("archived")));
    at_every_step(store, rows, 32, act(&[upsert("a", 1, "new")]), act(&[upsert("b", 2, "next")])).await;
}

#[tokio::test]
async fn a_completed_instant_that_a_power_failure_cut_off_is_mended() {
    let (store, rows) = prepared(3).await;
    let view = TableView::open(store.clone(), base()).await.unwrap();
    let last = view.instants().last().unwrap();
    let path = object_store::path::Path::parse(format!("{}/.hoodie/{}.commit", base(), last.instant)).unwrap();
    let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
    for length in [0, 1, whole.len() - 1] {
        let store = copy_of(&store).await;
        store.put(&path, whole.slice(..length).into()).await.unwrap();
        assert_eq!(TableView::open(store.clone(), base()).await.unwrap_err().kind(), Kind::Corrupt);
        let table = open(&store, true).await.unwrap();
        assert_eq!(table.extra_metadata("binlake.checkpoint"), Some("2"));
        assert_eq!(read(&store, None).await, rows);
    }
}

#[tokio::test]
async fn what_a_commit_costs() {
    let (store, _) = prepared(2).await;
    let counted = Faulty::never(store);
    let through: Arc<dyn ObjectStore> = counted.clone();
    let mut table = open(&through, true).await.unwrap();
    let (mut cheapest, mut sum) = ((usize::MAX, usize::MAX), (0, 0));
    for round in 0..60 {
        let before = counted.calls();
        table.commit(request(&[upsert("a", 1, round)], "2", false)).await.unwrap();
        let after = counted.calls();
        let cost = (after.0 - before.0, after.1 - before.1);
        cheapest = cheapest.min(cost);
        sum = (sum.0 + cost.0, sum.1 + cost.1);
    }
    // inflight, requested, one base file, the fence's entry, the completed instant;
    // the timeline before and after, the fence's log behind our entry; the rewritten file's footer and rows
    assert_eq!(cheapest.0, 5);
    assert!(cheapest.1 <= 3 + 4, "{cheapest:?}");
    // with cleaning and archiving: each commit's three instants and its file are deleted once, a clean is written and deleted every fourth
    assert!(sum.0 <= 60 * 12 && sum.1 <= 60 * 9, "{sum:?}");
}
