//! `kill -9` at random, under load, again and again: the lake ends equal to the source, and no commit on the way shows half a transaction.
//!
//! `CHAOS_ROUNDS` says how many rounds (`make test-chaos`: 50), `CHAOS_SEED` brings a run back as far as the machine's timing allows.

pub(crate) mod load;

use crate::mysql::{Flavour, Options, Server};
use crate::random::Random;
use crate::service::Pipeline;
use load::TABLES;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

pub(crate) const RETAINED: usize = 30;

/// Which commits were looked at.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    seen: BTreeMap<&'static str, BTreeSet<String>>,
    pairs: usize,
}

impl Witness {
    /// How many commits were looked at, and how many pairs of them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.seen.values().map(BTreeSet::len).sum(), self.pairs)
    }

    /// Looks at every commit since the last time, as long as readers can travel back to it.
    pub(crate) fn look(&mut self, pipeline: &Pipeline, database: &str) {
        let mut cuts: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for name in TABLES {
            let table = pipeline.table(database, name);
            let instants = table.instants();
            let seen = self.seen.entry(name).or_default();
            for instant in instants[instants.len().saturating_sub(RETAINED)..].iter() {
                let checkpoint = &table.commit(instant)["extraMetadata"]["binlake.checkpoint"];
                let Some(checkpoint) = checkpoint.as_str() else {
                    panic!("{name} at {instant} has no checkpoint: {}", table.commit(instant))
                };
                let checkpoint: serde_json::Value = serde_json::from_str(checkpoint).unwrap();
                if seen.insert(instant.clone()) {
                    if let Some(fault) = load::fault(&table, name, instant) {
                        panic!("{name} at {instant}: {fault}; checkpoint {checkpoint}\n{}", pipeline.log_tail());
                    }
                    cuts.entry(name).or_default().insert(checkpoint["cut"].to_string(), instant.clone());
                }
            }
        }
        let (Some(accounts), Some(ledger)) = (cuts.get("accounts"), cuts.get("ledger")) else { return };
        for (cut, at) in accounts {
            let Some(ledger_at) = ledger.get(cut) else { continue };
            let tables = (pipeline.table(database, "accounts"), pipeline.table(database, "ledger"));
            if let Some(fault) = load::fault_between(&tables.0, at, &tables.1, ledger_at) {
                panic!("at cut {cut} ({at}, {ledger_at}): {fault}");
            }
            self.pairs += 1;
        }
    }
}

async fn kill_under_load(server: &Server, rounds: u64) {
    kill_in_format(server, rounds, "").await;
}

/// The same with lines for `[stream]`.
async fn kill_in_format(server: &Server, rounds: u64, stream: &str) {
    let mut random = Random::from_environment("CHAOS_SEED");
    server.create_repl_user().await;
    let database = server.create_database("chaos").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    load::create(&mut client).await;
    let rules = format!(
        "[[table]]\nsource = \"{database}.orders\"\npartition_by = \"month(placed)\"\n[[table]]\nsource = \"{database}.*\"\n"
    );
    let pipeline = Pipeline::with_lake(server, &format!("retained_commits = {RETAINED}\n"), &rules);

    pipeline.set_config(&pipeline.config().replace("[stream]\n", &format!("[stream]\n{stream}")));

    let (committed, mut count) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load::run(client, random.split(), committed, stop.clone(), std::time::Duration::ZERO));
    let mut witness = Witness::default();
    for round in 1..=rounds {
        let mut service = pipeline.run();
        let until = *count.borrow_and_update() + random.below(1200);
        count.wait_for(|count| *count >= until).await.expect("the load failed");
        assert!(service.is_running(), "round {round}: binlake ended by itself\n{}", pipeline.log_tail());
        service.kill();
        witness.look(&pipeline, &database);
        if random.below(6) == 0 {
            std::fs::remove_file(pipeline.path().join("data/state.db")).ok(); // a cache: it may be lost
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();

    let service = pipeline.run();
    for name in TABLES {
        pipeline.catches_up(server, &database, name).await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    witness.look(&pipeline, &database);
    let (commits, pairs) = witness.counts();
    println!(
        "chaos: {rounds} rounds of kill -9, {} transactions; {} tables equal the source; {commits} commits and {} pairs of commits hold",
        *count.borrow(),
        TABLES.len(),
        pairs
    );
    assert!(commits > TABLES.len(), "too few commits were seen to say anything");
}

pub(crate) fn rounds(unless_told: u64) -> u64 {
    std::env::var("CHAOS_ROUNDS").map_or(unless_told, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_equals_the_source_after_any_number_of_kills() {
    kill_under_load(&Server::start(Options::default()), rounds(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_without_gtids() {
    kill_under_load(&Server::start(Options { gtid: false, ..Options::default() }), rounds(12) / 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_from_mariadb() {
    kill_under_load(&Server::start(Options { flavour: Flavour::MariaDb, ..Options::default() }), rounds(12) / 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_a_stream_of_dms_json() {
    kill_in_format(&Server::start(Options::default()), rounds(12) / 4, "format = \"dms-json\"\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_a_stream_of_aggregated_debezium_json() {
    let stream = "format = \"debezium-json\"\naggregate = \"kpl\"\ndebezium = { transaction_metadata = true }\n";
    kill_in_format(&Server::start(Options::default()), rounds(12) / 4, stream).await;
}
