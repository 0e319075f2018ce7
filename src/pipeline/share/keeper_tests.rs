//! Takeover by the keepers' own clock: paused time, a real state store, no processes.

use super::super::{Assignment, Need, Note, Share};
use super::{Keeper, NamedTables, ShareRules};
use crate::event::TableId;
use crate::merge::{TableRule, TableRules};
use crate::state::{StateConfig, StateStore, StateUrl, WorkerId};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const DURATION: Duration = Duration::from_secs(10);
/// The longest time between two looks, and the time that the store takes.
const SLACK: Duration = Duration::from_secs(4);

struct World {
    state: StateStore,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = StateConfig { url: StateUrl::Sqlite(folder.path().join("state.db")), ..Default::default() };
        Self { state: StateStore::open(&config).await.unwrap(), _folder: folder }
    }

    fn worker(&self, name: &str) -> (JoinHandle<()>, Share) {
        let rule: TableRule = toml::from_str("source = \"s.*\"").unwrap();
        let tables = NamedTables::new(vec![Arc::new(TableRules::new(vec![rule]))]);
        let rules = ShareRules { pipeline: "p".into(), tables, lease_duration: DURATION };
        let (keeper, share) = Keeper::new(self.state.clone(), WorkerId(name.into()), rules);
        (tokio::spawn(keeper.run()), share)
    }
}

fn table(number: u32) -> TableId {
    TableId::new("s", format!("t{number}"))
}

/// Waits until the worker has so many tables; plays the apply loop's part meanwhile.
async fn has(share: &mut Share, tables: usize) -> Assignment {
    loop {
        let assigned = share.assignment();
        assigned.leave.iter().for_each(|table| share.note(Note::Left(table.clone())));
        if assigned.apply.len() == tables {
            return assigned;
        }
        share.changed().await;
    }
}

async fn two_workers(world: &World) -> ((JoinHandle<()>, Share), (JoinHandle<()>, Share)) {
    let mut first = world.worker("a");
    for number in 0..4 {
        first.1.note(Note::Seen { table: table(number), need: Need::Beginning, is_ours: false });
    }
    has(&mut first.1, 4).await;
    let mut second = world.worker("b");
    tokio::join!(has(&mut first.1, 2), has(&mut second.1, 2));
    (first, second)
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_worker_had_is_taken_over_within_the_duration_and_no_earlier() {
    let world = World::new().await;
    let (first, mut second) = two_workers(&world).await;
    first.0.abort();
    let killed = Instant::now();
    has(&mut second.1, 4).await;
    // it was last renewed at most a look before it was killed
    let took = killed.elapsed();
    assert!(took + SLACK >= DURATION && took <= DURATION + SLACK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_taken_at_the_next_look() {
    let world = World::new().await;
    let (first, mut second) = two_workers(&world).await;
    first.1.note(Note::Close);
    first.0.await.unwrap();
    let given = Instant::now();
    has(&mut second.1, 4).await;
    assert!(given.elapsed() <= SLACK, "{:?}", given.elapsed());
}
