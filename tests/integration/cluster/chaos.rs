//! Two captures of which one leads, three workers, a load: each round one of them is killed, told to stop, or paused for longer than its leases last.
//! The lake ends equal to the source, no commit on the way shows half a transaction, and no table is left without an owner.
//!
//! `CHAOS_ROUNDS` says how many rounds (`make test-chaos`: 50); with `CHAOS_SECONDS` the tests on Kinesis go on for that long, at a gentle pace.
//! `CHAOS_SEED` brings a run back as far as the machine's timing allows.

mod alter;
mod raw_order;
mod troop;

use crate::crash::load::{self, TABLES};
use crate::crash::{RETAINED, Witness, rounds};
use crate::dynamodb::DynamoDb;
use crate::kinesis::StandIn;
use crate::kinesis::faults::{judge, judge_of_state};
use crate::kinesis::proxy::Proxy;
use crate::mysql::{Client, Options, Server, eventually};
use crate::random::Random;
use crate::service::Pipeline;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use troop::Troop;

/// How long the stand-in may take to give out what the load has left, over all the shards that there were.
const CATCHING_UP: Duration = Duration::from_secs(600);

/// Where it takes place; empty: in the pipeline's folder.
#[derive(Debug, Default)]
struct Scenery {
    stream: String,
    state: String,
    /// Lines for `[stream]`.
    format: &'static str,
}

/// When it is over, and how fast it goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rounds: u64,
    at_least: Duration,
    /// Between two transactions of a load.
    pause: Duration,
    /// Most transactions between two blows.
    between: u64,
    /// So many transactions a paused process sleeps through.
    sleep: u64,
}

impl Pace {
    fn quick(rounds: u64) -> Self {
        Self { rounds, at_least: Duration::ZERO, pause: Duration::ZERO, between: 1000, sleep: 1500 }
    }

    /// `CHAOS_SECONDS`, else quick.
    fn told(rounds: u64) -> Self {
        // the stand-in takes some hundred records a second
        match std::env::var("CHAOS_SECONDS") {
            Ok(seconds) => {
                let at_least = Duration::from_secs(seconds.parse().unwrap());
                Self { rounds: 0, at_least, pause: Duration::from_millis(25), between: 250, sleep: 300 }
            }
            Err(_) => Self { pause: Duration::from_millis(20), between: 60, sleep: 300, ..Self::quick(rounds) },
        }
    }
}

/// What there was.
struct Ended {
    server: Server,
    database: String,
}

async fn strike_under_load(scenery: &Scenery, pace: Pace) -> Ended {
    let server = Server::start(Options::default());
    let mut random = Random::from_environment("CHAOS_SEED");
    server.create_repl_user().await;
    let database = server.create_database("troop").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        clients.push(client);
    }
    let [mut client, mut altering] = <[Client; 2]>::try_from(clients).unwrap();
    load::create(&mut client).await;
    alter::create(&mut altering).await;
    let pipeline = pipeline(&server, &database, scenery);

    let (committed, mut count) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let loads = [
        tokio::spawn(load::run(client, random.split(), committed, stop.clone(), pace.pause)),
        tokio::spawn(alter::run(altering, random.split(), stop.clone(), pace.pause)),
    ];
    let first = pipeline.start(&["capture"]);
    eventually("there is a stream", async || pipeline.log().contains("the capture begins")).await;
    let mut troop = Troop::new(&pipeline, first, !scenery.stream.is_empty());
    let mut witness = Witness::default();
    let mut blows: BTreeMap<String, usize> = BTreeMap::new();
    let began = Instant::now();
    let mut round = 0;
    while round < pace.rounds || began.elapsed() < pace.at_least {
        round += 1;
        let until = *count.borrow_and_update() + random.below(pace.between);
        let now = *count.wait_for(|count| *count >= until).await.expect("the load failed");
        assert!(!loads[1].is_finished(), "the load that alters tables failed");
        troop.wake(Some(now));
        let struck = troop.strike(&mut random, &pipeline, now, pace.sleep);
        println!("round {round}, {:.0} s, {now} transactions: {struck}", began.elapsed().as_secs_f64());
        *blows.entry(struck.split(": ").last().unwrap().into()).or_default() += 1;
        if random.below(3) == 0 {
            let done = serve(&mut random, &pipeline, &database);
            println!("  {done}");
            *blows.entry(done.split(' ').next().unwrap().into()).or_default() += 1;
        }
        if !scenery.stream.is_empty() {
            let shards = (1 + random.below(4)).to_string();
            let workers = if random.below(2) == 0 { "2" } else { "all" };
            let said = pipeline.answer(&["scale", "--shards", &shards, "--workers", workers]);
            // while the state store is away the answer is no, in one line; and the stand-in can't merge shards of just any sizes
            let is_in_vain = said.err.contains("nothing changes");
            assert!(said.code == 0 || is_in_vain || said.err.lines().count() == 1, "{}", said.err);
            println!("  {}{}", said.out.replace('\n', ", "), said.err.trim_end());
            *blows.entry(if said.code == 0 { "scaled" } else { "not scaled" }.into()).or_default() += 1;
        }
        witness.look(&pipeline, &database);
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    troop.wake(None);
    let tables = all_tables(&server, &database).await;
    for name in &tables {
        pipeline.catches_up_in(CATCHING_UP, &server, &database, name).await;
    }
    history_agrees(&pipeline, &database);
    troop.owns_all(&pipeline, tables.len()).await;
    troop.end(&pipeline);
    pipeline.assert_calm_log();
    witness.look(&pipeline, &database);
    let (commits, pairs) = witness.counts();
    println!(
        "chaos: {round} rounds in {:.0} s on three workers and two captures {blows:?}, {} transactions; {} tables equal the source, \
         each had one owner; {commits} commits and {pairs} pairs of commits hold",
        began.elapsed().as_secs_f64(),
        *count.borrow(),
        tables.len(),
    );
    assert!(commits > TABLES.len(), "too few commits were seen to say anything");
    Ended { server, database }
}

/// What is known now of `stock` are its rows, each once.
fn history_agrees(pipeline: &Pipeline, database: &str) {
    let columns: Vec<String> = pipeline
        .ok(&["query", &format!("SELECT * FROM {database}.stock LIMIT 0"), "--format", "csv"])
        .trim()
        .split(',')
        .map(str::to_owned)
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
    let rows = |table: &str, and: &[&str]| {
        let all: Vec<&str> = columns.iter().chain(and).copied().collect();
        let mut rows = pipeline.table(database, table).values(None, &all).unwrap();
        rows.retain(|row| row[columns.len()..].iter().all(|end| end.as_ref().is_some_and(|end| end.starts_with("9999"))));
        rows.iter_mut().for_each(|row| row.truncate(columns.len()));
        rows.sort();
        rows
    };
    assert_eq!(rows("stock_history", &["_valid_to", "_system_to"]), rows("stock", &[]), "the history says otherwise");
}

/// A table goes back to what it was a while ago, and all comes again; or its files are kept, or made one. Whoever has it may be killed or asleep.
fn serve(random: &mut Random, pipeline: &Pipeline, database: &str) -> String {
    // every other time the one with a history
    let name = if random.below(2) == 0 { "stock" } else { TABLES[random.below(TABLES.len() as u64) as usize] };
    let instants = pipeline.table(database, name).instants();
    if instants.len() < 3 {
        return "nothing to serve yet".into();
    }
    let instant = &instants[instants.len() - 1 - random.below(2 + instants.len() as u64 / 4) as usize];
    let table = format!("{database}.{name}");
    let arguments: &[&str] = match random.below(5) {
        0 => &["cluster", &table],
        1 => &["savepoint", &table],
        2 => &["rollback", &table, instant],
        _ => &["restore", &table, instant],
    };
    let said = pipeline.answer(arguments);
    // what was retained may be cleaned by now, who has the table may be stopped
    assert!(said.code == 0 || (matches!(said.code, 2 | 4 | 5) && said.err.lines().count() == 1), "{arguments:?}: {}", said.err);
    let line = if said.code == 0 { said.out.lines().next().unwrap_or_default().to_owned() } else { said.err };
    format!("{}{}: {}", arguments[0], if said.code == 0 { "" } else { "-refused" }, line.trim_end())
}

fn pipeline(server: &Server, database: &str, scenery: &Scenery) -> Pipeline {
    let rules = format!(
        "[[table]]\nsource = \"{database}.orders\"\npartition_by = \"month(placed)\"\n[[table]]\nsource = \"{database}.stock\"\nhistory = true\n\
         [[table]]\nsource = \"{database}.*\"\n"
    );
    // the witness looks at the newest while others are cleaned away
    let pipeline = Pipeline::with_lake(server, &format!("retained_commits = {}\n", 4 * RETAINED), &rules)
        .environment("AWS_ACCESS_KEY_ID", "test")
        .environment("AWS_SECRET_ACCESS_KEY", "test");
    // where calls fail, they are made again, and a lease must outlast that
    let lease = if scenery.stream.is_empty() { "1s" } else { "5s" };
    let mut config = pipeline.config().replace("[state]", &format!("[state]\nlease_duration = \"{lease}\""));
    config = config.replace("[stream]\n", &format!("[stream]\n{}", scenery.format));
    for (ours, theirs) in [("sqlite:./data/state.db", &scenery.state), ("file:./data/stream", &scenery.stream)] {
        if !theirs.is_empty() {
            config = config.replace(ours, theirs);
        }
    }
    pipeline.set_config(&config);
    pipeline
}

async fn all_tables(server: &Server, database: &str) -> Vec<String> {
    let rows = server.client().await.rows(&format!("SHOW TABLES FROM {database}")).await;
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_and_two_captures_with_sqlite() {
    strike_under_load(&Scenery::default(), Pace::quick(rounds(8))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_and_two_captures_with_dynamodb() {
    let endpoint = DynamoDb::shared().await.endpoint();
    let state = format!("dynamodb://chaos-{}?region=us-east-1&endpoint={endpoint}", uuid::Uuid::new_v4());
    strike_under_load(&Scenery { state, ..Scenery::default() }, Pace::quick(rounds(8))).await;
}

/// A Kinesis that throttles, refuses single records, loses answers after it has done what was asked, and lets iterators and credentials expire;
/// and a DynamoDB that throttles, loses answers, and is away now and then.
struct Weather {
    kinesis: Proxy,
    dynamodb: Proxy,
    name: uuid::Uuid,
}

impl Weather {
    async fn new(seed: u64) -> Self {
        let port = |endpoint: String| endpoint.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            kinesis: Proxy::start(StandIn::shared().port(), judge(seed)).await,
            dynamodb: Proxy::start(port(DynamoDb::shared().await.endpoint()), judge_of_state(seed)).await,
            name: uuid::Uuid::new_v4(),
        }
    }

    fn scenery(&self, format: &'static str) -> Scenery {
        Scenery {
            stream: format!(
                "kinesis://chaos-{}?region=us-east-1&create=2&poll=200ms&endpoint={}",
                self.name,
                self.kinesis.endpoint()
            ),
            state: format!("dynamodb://chaos-{}?region=us-east-1&endpoint={}", self.name, self.dynamodb.endpoint()),
            format,
        }
    }

    /// The stream without the weather.
    fn behind(&self) -> String {
        format!("kinesis://chaos-{}?region=us-east-1&endpoint={}", self.name, StandIn::shared().endpoint())
    }

    fn report(&self) {
        let of = |proxy: &Proxy, what: &str| proxy.count(what);
        println!(
            "chaos: of {} PutRecords {} answers were lost and {} records refused; of {} UpdateItem {} answers were lost, {} throttled, {} came while away",
            of(&self.kinesis, "PutRecords"),
            of(&self.kinesis, "PutRecords lost"),
            of(&self.kinesis, "refused records"),
            of(&self.dynamodb, "UpdateItem"),
            of(&self.dynamodb, "UpdateItem lost"),
            of(&self.dynamodb, "UpdateItem ProvisionedThroughputExceededException"),
            of(&self.dynamodb, "UpdateItem InternalServerError"),
        );
        assert!(of(&self.kinesis, "PutRecords lost") > 0 && of(&self.dynamodb, "UpdateItem lost") > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the stand-in is too slow for every day: make test-chaos"]
async fn three_workers_and_two_captures_on_kinesis_while_shards_come_and_go() {
    let weather = Weather::new(11).await;
    strike_under_load(&weather.scenery(""), Pace::told(rounds(3))).await;
    weather.report();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the stand-in is too slow for every day: make test-chaos"]
async fn the_same_in_dms_json_with_the_order_of_each_key_in_the_raw_stream() {
    let weather = Weather::new(12).await;
    let scenery = weather.scenery("format = \"dms-json\"\n");
    let mut pace = Pace::told(rounds(2).min(12));
    // and each row is one
    pace.pause = Duration::from_millis(100);
    pace.between = pace.between.min(60);
    pace.sleep = pace.sleep.min(100);
    let Ended { server, database } = strike_under_load(&scenery, pace).await;
    weather.report();
    raw_order::check(&weather.behind(), &server, &database).await;
}
