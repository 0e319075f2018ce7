//! Commits on several tables: a crash, and a lost answer, at every durable step leaves all changed or none.

use super::faulty::{Fault, Faulty};
use super::harness::{Change, Rows, apply, copy_of, delete, options, request, rows_at, spec, upsert};
use crate::error::{Kind, Result};
use crate::table::{COMMITTED_WITH, Follower, GoingBack, Table, TableSpec, TableView};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::sync::Arc;

/// What is done last.
#[derive(Clone, Copy)]
enum Last<'a> {
    /// A commit, and whether it truncates.
    Commit(&'a [Change], bool),
    /// All tables go back to their first commits.
    GoBack,
}

/// A leader, and so many tables that follow it.
#[derive(Clone, Copy)]
struct Group {
    followers: usize,
}

impl Group {
    fn numbers(self) -> std::ops::RangeInclusive<usize> {
        0..=self.followers
    }

    /// The leader first: it decides.
    async fn open(self, store: &Arc<dyn ObjectStore>) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        for number in self.numbers() {
            tables.push(Table::open(store.clone(), base(number), &spec_of(number), options()).await?);
        }
        Ok(tables)
    }

    /// Tables with `commits` commits, and what they hold.
    async fn prepared(self, commits: usize) -> (Arc<dyn ObjectStore>, Vec<Rows>) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut tables = Vec::new();
        for number in self.numbers() {
            tables.push(Table::create(store.clone(), base(number), &spec_of(number), options()).await.unwrap());
        }
        let mut rows = vec![Rows::new(); self.followers + 1];
        for number in 0..commits {
            let changes = [upsert("a", 1, number), upsert("b", 2, number), upsert("a", 10 + (number % 7) as i32, number)];
            commit(&mut tables, &changes, false, &number.to_string()).await.unwrap();
            apply_to_all(&mut rows, &changes, false);
        }
        (store, rows)
    }

    async fn at_every_step(self, commits: usize, last: Last<'_>) {
        let (store, before) = self.prepared(commits).await;
        let after = match last {
            Last::Commit(changes, truncate) => {
                let mut after = before.clone();
                apply_to_all(&mut after, changes, truncate);
                after
            }
            Last::GoBack => self.prepared(1).await.1,
        };
        let (old, new) = (commits.checked_sub(1).map(|last| last.to_string()).unwrap_or_default(), commits.to_string());
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Refused, Fault::AnswerLost] {
            for step in 0.. {
                let case = format!("{fault:?} at step {step}");
                let copy = copy_of(&store).await;
                let faulty = Faulty::new(copy.clone(), fault, step);
                let through: Arc<dyn ObjectStore> = faulty.clone();
                let done = async {
                    let mut tables = self.open(&through).await?;
                    match last {
                        Last::Commit(changes, truncate) => commit(&mut tables, changes, truncate, &new).await,
                        Last::GoBack => go_back(&mut tables, &new).await,
                    }
                }
                .await;
                if !faulty.was_reached() {
                    done.unwrap();
                    break;
                }
                // readers see each table before or after, with the checkpoint that says so
                for number in self.numbers() {
                    let state = if checkpoint(&copy, number).await == new { &after } else { &before };
                    assert_eq!(rows_at(&copy, &base(number), None).await, state[number], "{case}: {}", base(number));
                }
                // who is next may crash as well; or somebody only reads
                if step % 3 == 0 {
                    let again: Arc<dyn ObjectStore> = Faulty::new(copy.clone(), Fault::CrashAfter, step % 7);
                    _ = self.open(&again).await;
                } else if step % 3 == 1 {
                    for number in self.numbers().rev() {
                        _ = Table::settled_view(copy.clone(), base(number)).await.unwrap();
                    }
                }
                let mut tables = self.open(&copy).await.unwrap_or_else(|error| panic!("{case}: {error}"));
                let first = checkpoint(&copy, 0).await;
                for number in self.numbers() {
                    assert_eq!(checkpoint(&copy, number).await, first, "{case}: they parted");
                }
                assert!(first == new || first == old, "{case}: {first}");
                assert!(done.is_err() || first == new, "{case}: it was done");
                let mut rows = if first == new { after.clone() } else { before.clone() };
                self.assert_rows(&copy, &rows, &case).await;
                let next = [upsert("c", 9, "next"), delete("a", 1)];
                commit(&mut tables, &next, false, "next").await.unwrap_or_else(|error| panic!("{case}: {error}"));
                apply_to_all(&mut rows, &next, false);
                self.assert_rows(&copy, &rows, &format!("{case}, after the next commit")).await;
            }
        }
    }

    async fn assert_rows(self, store: &Arc<dyn ObjectStore>, rows: &[Rows], case: &str) {
        for number in self.numbers() {
            assert_eq!(rows_at(store, &base(number), None).await, rows[number], "{case}: {}", base(number));
        }
    }
}

fn name(number: usize) -> String {
    if number == 0 { "orders".to_owned() } else { format!("orders_{number}") }
}

/// The last of three lies in another folder.
fn base(number: usize) -> Path {
    Path::from(format!("lake/{}shop/{}", if number == 2 { "_elsewhere/" } else { "" }, name(number)))
}

fn spec_of(number: usize) -> TableSpec {
    TableSpec { name: name(number), ..spec(true) }
}

async fn checkpoint(store: &Arc<dyn ObjectStore>, number: usize) -> String {
    let view = TableView::open(store.clone(), base(number)).await.unwrap();
    view.extra_metadata("binlake.checkpoint").unwrap_or_default().to_owned()
}

/// The same changes for each table, but other values.
fn mirrored(changes: &[Change], number: usize) -> Vec<Change> {
    changes.iter().map(|(part, id, value)| (*part, *id, value.as_ref().map(|value| format!("{value} of {number}")))).collect()
}

fn apply_to_all(rows: &mut [Rows], changes: &[Change], truncate: bool) {
    for (number, rows) in rows.iter_mut().enumerate() {
        apply(rows, &mirrored(changes, number), truncate, true);
    }
}

async fn commit(tables: &mut [Table], changes: &[Change], truncate: bool, checkpoint: &str) -> Result<()> {
    let request = |number| request(&mirrored(changes, number), checkpoint, truncate);
    let [leader, followers @ ..] = tables else { panic!("a group has a leader") };
    let followers = followers.iter_mut().enumerate();
    let mut followers: Vec<_> = followers.map(|(number, table)| Follower { table, request: request(number + 1) }).collect();
    if followers.len() == 1 {
        return leader.commit_group(request(0), followers).await.map(|_| ());
    }
    // what the last one gets may show only when the others are written
    let last = followers.split_off(followers.len() - 1);
    let staged = leader.stage(request(0), followers).await?;
    leader.finish(staged, last).await.map(|_| ())
}

async fn go_back(tables: &mut [Table], checkpoint: &str) -> Result<()> {
    let going = tables.iter_mut().map(|table| {
        let to = table.instants().first().map(|first| first.instant.clone());
        let extra_metadata = [("binlake.checkpoint".to_owned(), checkpoint.to_owned())].into();
        GoingBack { table, to, extra_metadata }
    });
    Table::go_back(going.collect()).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn both_change_or_none() {
    let changes = [upsert("a", 1, "new"), delete("a", 10), upsert("c", 3, "new partition")];
    Group { followers: 1 }.at_every_step(2, Last::Commit(&changes, false)).await;
}

#[tokio::test(start_paused = true)]
async fn all_of_several_change_or_none() {
    Group { followers: 2 }.at_every_step(1, Last::Commit(&[upsert("a", 1, "new"), delete("a", 10)], false)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_commit_of_both_happens_or_does_not() {
    Group { followers: 1 }.at_every_step(0, Last::Commit(&[upsert("a", 1, "new")], false)).await;
}

#[tokio::test(start_paused = true)]
async fn both_are_truncated_or_none() {
    Group { followers: 1 }.at_every_step(2, Last::Commit(&[upsert("b", 5, "new")], true)).await;
}

#[tokio::test(start_paused = true)]
async fn all_go_back_or_none() {
    Group { followers: 2 }.at_every_step(3, Last::GoBack).await;
}

#[tokio::test]
async fn each_commit_names_those_that_came_with_it() {
    let (store, _) = Group { followers: 2 }.prepared(1).await;
    let mut named = Vec::new();
    for number in 0..3 {
        let view = TableView::open(store.clone(), base(number)).await.unwrap();
        let own = format!("{}@{}", name(number), view.instants()[0].instant);
        named.push((own, view.extra_metadata(COMMITTED_WITH).unwrap().to_owned()));
    }
    assert_eq!(named[0].1, format!("{},{}", named[1].0, named[2].0));
    assert_eq!((&named[1].1, &named[2].1), (&named[0].0, &named[0].0));
}

/// The follower's entry is there, the leader's is not, and the leader's session lives: nobody may open the follower alone.
#[tokio::test]
async fn a_follower_waits_for_its_leader() {
    let group = Group { followers: 1 };
    let (store, _) = group.prepared(2).await;
    let changes = [upsert("a", 1, "new")];
    for step in 0.. {
        let copy = copy_of(&store).await;
        let faulty = Faulty::new(copy.clone(), Fault::CrashAfter, step);
        let through: Arc<dyn ObjectStore> = faulty.clone();
        drop(group.open(&copy).await.unwrap());
        let mut tables = match group.open(&through).await {
            Ok(tables) => tables,
            Err(_) => continue,
        };
        _ = commit(&mut tables, &changes, false, "2").await;
        assert!(faulty.was_reached(), "no step leaves the follower waiting");
        let alone = Table::open(copy.clone(), base(1), &spec_of(1), options()).await;
        if let Err(error) = alone {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.to_string().contains("awaits another table's"), "{error}");
            // reading shows what was, and changes nothing
            assert_eq!(Table::settled_view(copy.clone(), base(1)).await.unwrap().extra_metadata("binlake.checkpoint"), Some("1"));
            group.open(&copy).await.unwrap();
            return;
        }
    }
}
