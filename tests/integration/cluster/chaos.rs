//! Two captures of which one leads, three workers, a load: each round one of them is killed, told to stop, or paused for longer than its leases last.
//! The lake ends equal to the source, and no commit on the way shows half a transaction.
//!
//! `CHAOS_ROUNDS` says how many rounds (`make test-chaos`: 50), `CHAOS_SEED` brings a run back as far as the machine's timing allows.

use super::signal;
use crate::crash::load::{self, TABLES};
use crate::crash::{RETAINED, Witness, rounds};
use crate::dynamodb::DynamoDb;
use crate::kinesis::StandIn;
use crate::kinesis::faults::judge;
use crate::kinesis::proxy::Proxy;
use crate::mysql::{Options, Server};
use crate::random::Random;
use crate::service::{Pipeline, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// `kill -9`; another comes in its place.
    Kill,
    /// SIGTERM; another comes in its place.
    Stop,
    /// SIGSTOP, until its leases have run out.
    Pause,
}

/// The processes.
struct Troop {
    workers: Vec<Service>,
    captures: Vec<Service>,
    /// One that is paused, and the commits at which it goes on.
    paused: Option<(usize, u64)>,
}

impl Troop {
    /// Strikes one at random, and puts another in its place.
    fn strike(&mut self, random: &mut Random, pipeline: &Pipeline, now: u64) -> String {
        let blow = [Blow::Kill, Blow::Kill, Blow::Stop, Blow::Pause][random.below(4) as usize];
        // a capture that is paused holds its stream's folder
        if random.below(3) == 0 && blow != Blow::Pause {
            let number = random.below(self.captures.len() as u64) as usize;
            let old = std::mem::replace(&mut self.captures[number], pipeline.start(&["capture"]));
            end(old, blow, pipeline);
            return format!("capture {number}: {blow:?}");
        }
        let number = random.below(self.workers.len() as u64) as usize;
        match blow {
            Blow::Pause if self.paused.is_none() => {
                signal(&self.workers[number], "STOP");
                self.paused = Some((number, now + 1500));
            }
            _ if self.paused.is_some_and(|(paused, _)| paused == number) => return format!("worker {number} sleeps"),
            _ => {
                let old = std::mem::replace(&mut self.workers[number], pipeline.start(&["merge"]));
                end(old, if blow == Blow::Pause { Blow::Kill } else { blow }, pipeline);
            }
        }
        format!("worker {number}: {blow:?}")
    }

    fn wake(&mut self, now: Option<u64>) {
        if let Some((number, at)) = self.paused
            && now.is_none_or(|now| now >= at)
        {
            signal(&self.workers[number], "CONT");
            self.paused = None;
        }
    }
}

fn end(service: Service, blow: Blow, pipeline: &Pipeline) {
    match blow {
        Blow::Stop => assert!(service.terminate().success(), "{}", pipeline.log_tail()),
        Blow::Kill | Blow::Pause => service.kill(),
    }
}

/// `stream` and `state` are URLs; empty: in the pipeline's folder.
async fn strike_under_load(stream: &str, state: &str, rounds: u64) {
    let server = Server::start(Options::default());
    let mut random = Random::from_environment("CHAOS_SEED");
    server.create_repl_user().await;
    let database = server.create_database("troop").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    load::create(&mut client).await;
    let rules = format!(
        "[[table]]\nsource = \"{database}.orders\"\npartition_by = \"month(placed)\"\n[[table]]\nsource = \"{database}.*\"\n"
    );
    let pipeline = Pipeline::with_lake(&server, &format!("retained_commits = {RETAINED}\n"), &rules)
        .environment("AWS_ACCESS_KEY_ID", "test")
        .environment("AWS_SECRET_ACCESS_KEY", "test");
    let mut config = pipeline.config().replace("[state]", "[state]\nlease_duration = \"1s\"");
    for (ours, theirs) in [("sqlite:./data/state.db", state), ("file:./data/stream", stream)] {
        if !theirs.is_empty() {
            config = config.replace(ours, theirs);
        }
    }
    pipeline.set_config(&config);

    let (committed, mut count) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load::run(client, random.split(), committed, stop.clone()));
    let first = pipeline.start(&["capture"]);
    crate::mysql::eventually("there is a stream", async || pipeline.log().contains("the capture begins")).await;
    let mut troop = Troop {
        workers: (0..3).map(|_| pipeline.start(&["merge"])).collect(),
        captures: vec![first, pipeline.start(&["capture"])],
        paused: None,
    };
    let mut witness = Witness::default();
    for round in 1..=rounds {
        let until = *count.borrow_and_update() + random.below(1000);
        let now = *count.wait_for(|count| *count >= until).await.expect("the load failed");
        troop.wake(Some(now));
        let struck = troop.strike(&mut random, &pipeline, now);
        println!("round {round}, {now} transactions: {struck}");
        if !stream.is_empty() {
            let shards = (1 + random.below(4)).to_string();
            let said = pipeline.ok(&["scale", "--shards", &shards, "--workers", if random.below(2) == 0 { "2" } else { "all" }]);
            println!("  {}", said.replace('\n', ", "));
        }
        witness.look(&pipeline, &database);
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    troop.wake(None);
    for name in TABLES {
        pipeline.catches_up(&server, &database, name).await;
    }
    for service in troop.workers.into_iter().chain(troop.captures) {
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    pipeline.assert_calm_log();
    witness.look(&pipeline, &database);
    let (commits, pairs) = witness.counts();
    println!(
        "chaos: {rounds} blows to three workers and two captures, {} transactions; {} tables equal the source; {commits} commits and {pairs} pairs of commits hold",
        *count.borrow(),
        TABLES.len(),
    );
    assert!(commits > TABLES.len(), "too few commits were seen to say anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_and_two_captures_with_sqlite() {
    strike_under_load("", "", rounds(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_and_two_captures_with_dynamodb() {
    let endpoint = DynamoDb::shared().await.endpoint();
    let table = format!("chaos-{}", uuid::Uuid::new_v4());
    strike_under_load("", &format!("dynamodb://{table}?region=us-east-1&endpoint={endpoint}"), rounds(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_and_two_captures_on_kinesis_while_shards_come_and_go() {
    // a Kinesis that throttles, refuses single records, loses answers after it has done what was asked, and lets iterators and credentials expire
    let proxy = Proxy::start(StandIn::shared().port(), judge(11)).await;
    let state =
        format!("dynamodb://chaos-{}?region=us-east-1&endpoint={}", uuid::Uuid::new_v4(), DynamoDb::shared().await.endpoint());
    let stream =
        format!("kinesis://chaos-{}?region=us-east-1&create=2&poll=50ms&endpoint={}", uuid::Uuid::new_v4(), proxy.endpoint());
    strike_under_load(&stream, &state, rounds(6)).await;
    println!(
        "chaos: {} answers of PutRecords lost, {} records refused",
        proxy.count("PutRecords lost"),
        proxy.count("refused records")
    );
}
