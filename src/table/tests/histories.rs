//! Random histories of sessions that commit, crash anywhere, and overtake each other, against a model.
//! `BINLAKE_CASES` sets how many; a failure prints the history, shortened.

use super::faulty::{Fault, Faulty};
use super::harness::{Change, Rows, apply, assert_tidy_but_for_cleans, base, create, open, read, request};
use crate::error::Kind;
use crate::table::{Table, TableView};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Act {
    /// The session commits.
    Commit { changes: Vec<Change>, truncate: bool },
    /// A session begins, with a store that fails at that step, and commits.
    Crash { changes: Vec<Change>, truncate: bool, fault: Fault, step: usize },
    /// Another session takes the table; the one before tries to commit all the same.
    Overtake { changes: Vec<Change> },
    /// Many small commits, so that cleaning and archiving have work.
    Burst,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (prop_oneof![Just("a"), Just("b"), Just("c")], 0..12_i32, proptest::option::weighted(0.7, 0..1000_u32));
    proptest::collection::vec(change, 0..6).prop_map(|changes| {
        // one change a key
        let by_key: std::collections::BTreeMap<(&'static str, i32), Option<u32>> =
            changes.into_iter().map(|(part, id, value)| ((part, id), value)).collect();
        by_key.into_iter().map(|((part, id), value)| (part, id, value.map(|value| value.to_string()))).collect()
    })
}

fn act() -> impl Strategy<Value = Act> {
    let fault = prop_oneof![Just(Fault::CrashBefore), Just(Fault::CrashAfter), Just(Fault::Refused), Just(Fault::AnswerLost)];
    prop_oneof![
        3 => (changes(), proptest::bool::weighted(0.1)).prop_map(|(changes, truncate)| Act::Commit { changes, truncate }),
        5 => (changes(), proptest::bool::weighted(0.1), fault, 0..24_usize)
            .prop_map(|(changes, truncate, fault, step)| Act::Crash { changes, truncate, fault, step }),
        2 => changes().prop_map(|changes| Act::Overtake { changes }),
        1 => Just(Act::Burst),
    ]
}

/// The table and what it must hold.
struct World {
    store: Arc<dyn ObjectStore>,
    table: Option<Table>,
    rows: Rows,
    checkpoint: u64,
}

impl World {
    async fn table(&mut self) -> Table {
        match self.table.take() {
            Some(table) => table,
            None => open(&self.store, true).await.unwrap(),
        }
    }

    async fn commit(&mut self, changes: &[Change], truncate: bool) {
        let mut table = self.table().await;
        self.checkpoint += 1;
        table.commit(request(changes, &self.checkpoint.to_string(), truncate)).await.unwrap();
        apply(&mut self.rows, changes, truncate, true);
        self.table = Some(table);
    }

    /// What became of a commit whose answer isn't known: the checkpoint tells.
    async fn settle(&mut self, changes: &[Change], truncate: bool) {
        let table = open(&self.store, true).await.unwrap();
        if table.extra_metadata("binlake.checkpoint") == Some(self.checkpoint.to_string().as_str()) {
            apply(&mut self.rows, changes, truncate, true);
        }
        self.table = Some(table);
    }

    async fn run(&mut self, act: &Act) {
        match act {
            Act::Commit { changes, truncate } => self.commit(changes, *truncate).await,
            Act::Crash { changes, truncate, fault, step } => {
                self.table = None;
                self.checkpoint += 1;
                let through: Arc<dyn ObjectStore> = Faulty::new(self.store.clone(), *fault, *step);
                if let Ok(mut table) = open(&through, true).await {
                    _ = table.commit(request(changes, &self.checkpoint.to_string(), *truncate)).await;
                }
                self.settle(changes, *truncate).await;
            }
            Act::Overtake { changes } => {
                let mut before = self.table().await;
                self.table = Some(open(&self.store, true).await.unwrap());
                let error = before.commit(request(changes, "never", false)).await.unwrap_err();
                assert_eq!(error.kind(), Kind::Conflict, "{error}");
            }
            Act::Burst => {
                for number in 0..12 {
                    self.commit(&[("a", 1, Some(number.to_string()))], false).await;
                }
            }
        }
        assert_eq!(read(&self.store, None).await, self.rows);
    }
}

async fn history(acts: Vec<Act>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = Some(create(&store, true).await.unwrap());
    let mut world = World { store, table, rows: Rows::new(), checkpoint: 0 };
    for act in &acts {
        world.run(act).await;
    }
    world.table = Some(open(&world.store, true).await.unwrap());
    assert_tidy_but_for_cleans(&world.store).await;
    let view = TableView::open(world.store.clone(), base()).await.unwrap();
    assert_eq!(view.slices(None).unwrap(), world.table().await.slices(None).unwrap());
}

#[test]
fn whatever_happens_the_table_holds_what_was_committed() {
    let cases = std::env::var("BINLAKE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(acts in proptest::collection::vec(act(), 1..14))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(history(acts));
    });
}
