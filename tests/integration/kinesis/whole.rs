//! The whole way over Kinesis: MySQL → stream → lake by the real program, killed in the middle, over a stream that throttles and is resharded.

use super::proxy::{Fate, Proxy};
use super::reshard::reshard;
use super::{OnKinesis, StandIn};
use crate::mysql::{Client, Flavour, Server};
use crate::random::Random;
use crate::service::Pipeline;
use binlake::stream::kinesis::KinesisUrl;

struct Scene {
    server: &'static Server,
    database: String,
    pipeline: Pipeline,
    client: Client,
    /// The stream on the stand-in itself.
    url: KinesisUrl,
}

const TABLES: [&str; 2] = ["items", "marks"];

impl Scene {
    async fn new(endpoint: &str, options: &str) -> Self {
        let server = Server::shared(Flavour::MySql);
        server.create_repl_user().await;
        let database = server.create_database("kinesis").await;
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        client
            .run_all(
                "CREATE TABLE items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60), amount INT NOT NULL);
                 CREATE TABLE marks (a INT, b VARCHAR(20), note TEXT, PRIMARY KEY (a, b))",
            )
            .await;
        let url = OnKinesis::new(endpoint.to_owned(), 2).fresh_url();
        let pipeline = Pipeline::from_text(&format!(
            "[source]\nurl = \"{}\"\nheartbeat_interval = \"200ms\"\n\
             [stream]\nurl = \"kinesis://{}?endpoint={endpoint}&create=2&poll=20ms{options}\"\nlanes = 4\ncut_interval = \"50ms\"\n\
             [lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"200ms\"\ntarget_file_size = \"1MiB\"\n\
             [state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"off\"\n[[table]]\nsource = \"{database}.*\"\n",
            server.repl_url(),
            url.aws.name,
        ));
        let mut scene = Scene { server, database, pipeline, client, url };
        scene.change(1, 300).await;
        scene
    }

    /// Inserts, changes and deletes rows, in transactions over both tables.
    async fn change(&mut self, round: u32, rows: u32) {
        let items: Vec<String> = (0..rows).map(|row| format!("('item {round}/{row}', {row})")).collect();
        let marks: Vec<String> = (0..rows).map(|row| format!("({row}, 'r{round}', REPEAT('x', {}))", row % 50)).collect();
        self.client
            .run_all(&format!(
                "BEGIN; INSERT INTO items (name, amount) VALUES {}; INSERT INTO marks VALUES {}; COMMIT;
                 UPDATE items SET amount = amount + 1 WHERE id % 7 = {round} % 7;
                 BEGIN; DELETE FROM marks WHERE a % 11 = {round} % 11; UPDATE items SET name = NULL WHERE id % 13 = {round} % 13; COMMIT",
                items.join(","),
                marks.join(",")
            ))
            .await;
    }

    async fn catches_up(&self) {
        for table in TABLES {
            self.pipeline.catches_up(self.server, &self.database, table).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_over_kinesis_equals_the_source_through_kills_throttling_and_resharding() {
    let (mut puts, mut gets) = (0_u64, 0_u64);
    let judge = Box::new(move |call: &str| {
        puts += u64::from(call == "PutRecords");
        gets += u64::from(call == "GetRecords");
        match (call, puts % 12, gets % 30) {
            ("PutRecords", 3, _) => Fate::Fails("ProvisionedThroughputExceededException"),
            ("PutRecords", 5 | 8, _) => Fate::SomeRefused("ProvisionedThroughputExceededException", 60),
            ("PutRecords", 10, _) => Fate::AnswerLost,
            ("GetRecords", _, 9) => Fate::Fails("ExpiredIteratorException"),
            ("GetRecords", _, 19) => Fate::Fails("ProvisionedThroughputExceededException"),
            _ => Fate::Works,
        }
    });
    let proxy = Proxy::start(StandIn::shared().port(), judge).await;
    let mut scene = Scene::new(&proxy.endpoint(), "").await;
    let mut random = Random::new(12);
    let mut service = scene.pipeline.run();
    scene.catches_up().await;
    for round in 2..5 {
        scene.change(round, 200).await;
        reshard(&scene.url, &mut random).await;
        scene.change(round + 10, 100).await;
        service.kill();
        scene.change(round + 20, 50).await;
        service = scene.pipeline.run();
    }
    scene.catches_up().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
    let tailed = scene.pipeline.ok(&["stream", "tail", "--limit", "5"]);
    assert_eq!(tailed.lines().count(), 5, "{tailed}");
    let doctor = scene.pipeline.answer(&["doctor"]);
    assert!(doctor.out.contains("shards"), "{}", doctor.out);
    assert!(proxy.count("refused records") > 0 && proxy.count("PutRecords lost") > 0, "{:?}", proxy.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_and_merge_as_processes_of_their_own() {
    let mut scene = Scene::new(&StandIn::shared().endpoint(), "").await;
    let merge = scene.pipeline.answer(&["merge"]);
    assert_eq!(merge.code, 4, "{}", merge.err);
    assert!(merge.err.contains("there is no stream yet"), "{}", merge.err);
    let capture = scene.pipeline.start(&["capture"]);
    crate::mysql::eventually("the stream is there", async || scene.pipeline.answer(&["stream", "tail", "--limit", "1"]).code == 0)
        .await;
    let merge = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    scene.change(2, 100).await;
    merge.kill();
    scene.change(3, 100).await;
    let merge = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    // another capture stands by until the first one's lead has expired, then takes the stream over
    let second = scene.pipeline.start(&["capture"]);
    capture.kill();
    scene.change(4, 100).await;
    scene.catches_up().await;
    assert!(second.terminate().success() && merge.terminate().success(), "{}", scene.pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_go_over_parts_or_by_claim_check() {
    for (claim_check, format) in
        [(false, ""), (true, ""), (false, "format = \"dms-json\""), (true, "format = \"debezium-json\"\naggregate = \"kpl\"")]
    {
        let mut scene = Scene::new(&StandIn::shared().endpoint(), "").await;
        let config = scene.pipeline.config().replace("lanes = 4", &format!("lanes = 4\nclaim_check = {claim_check}\n{format}"));
        scene.pipeline.set_config(&config);
        scene.client.run("CREATE TABLE pictures (id INT PRIMARY KEY, picture LONGBLOB)").await;
        // random bytes can't be compressed: more than two records' worth
        let bytes =
            "(SELECT UNHEX(GROUP_CONCAT(SHA2(RAND(), 512) SEPARATOR '')) FROM (SELECT 1 FROM items a, items b LIMIT 40000) n)";
        scene.client.run("SET SESSION group_concat_max_len = 100000000").await;
        scene.client.run(&format!("INSERT INTO pictures VALUES (1, {bytes}), (2, 'small')")).await;
        let service = scene.pipeline.run();
        scene.catches_up().await;
        scene.pipeline.ok(&["verify"]);
        assert_eq!(scene.pipeline.lake().join("_stream").exists(), claim_check);
        assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    }
}

/// Nothing on the stream tells a producer that its records count no more: it must find out, from the state store or from the merge in its own process.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_takes_the_stream_back_from_one_that_was_started_by_mistake() {
    for (state, code) in [("state.db", 4), ("another.db", 5)] {
        let mut scene = Scene::new(&StandIn::shared().endpoint(), "").await;
        let first = scene.pipeline.run();
        scene.catches_up().await;
        scene.pipeline.set_config(&scene.pipeline.config().replace("state.db", state));
        let second = scene.pipeline.start(&["run"]);
        // where both have one state store, its leases turn the second one away at once
        if code == 5 {
            crate::mysql::eventually("the first one notices", async || {
                scene.pipeline.log().contains("another capture has taken the stream over")
            })
            .await;
        }
        scene.change(2, 100).await;
        assert_eq!(second.wait().code(), Some(code), "it is turned away: {}", scene.pipeline.log_tail());
        scene.change(3, 100).await;
        scene.catches_up().await;
        assert!(first.terminate().success(), "{}", scene.pipeline.log_tail());
    }
}
