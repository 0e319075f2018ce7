//! `make test-kcl`: Amazon's own Java beside us. The Kinesis Client Library reads a stream that Binlake writes and merges, through resharding; records that
//! Amazon's aggregation has packed are read by us.

use super::reshard::reshard;
use super::{OnKinesis, StandIn};
use crate::dynamodb::DynamoDb;
use crate::mysql::{Flavour, PATIENCE, Server, within};
use crate::random::Random;
use crate::service::Pipeline;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use binlake::format::{UserRecord, deaggregate};
use binlake::stream::kinesis::{KinesisStream, KinesisUrl, StreamPosition, line_hash_key};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A program of `tests/kcl`, with the jars that `scripts/kcl.sh` gets; `None` where the tests aren't asked for.
fn java(jars: &str, program: &str) -> Option<Command> {
    if std::env::var_os("BINLAKE_TEST_KCL").is_none() {
        println!("set BINLAKE_TEST_KCL, or run `make test-kcl`");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/kcl.sh")).arg(jars).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "scripts/kcl.sh failed");
    let folder = String::from_utf8(output.stdout).unwrap();
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-cp", &format!("{}/lib/*", folder.trim())]).arg(root.join("tests/kcl").join(program));
    Some(command)
}

/// What was read of each line: a hash key, or a partition key where a record has no other.
type Lines = BTreeMap<String, Vec<String>>;

/// A running consumer, and what it said so far.
struct Consumer {
    child: Child,
    said: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Consumer {
    async fn start(url: &KinesisUrl) -> Option<Self> {
        let mut command = java("kcl", "Consume.java")?;
        command.args([&StandIn::shared().endpoint(), &DynamoDb::shared().await.endpoint(), &url.aws.name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
        let (output, lines) = (BufReader::new(child.stdout.take().unwrap()), said.clone());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line.split('\t').map(str::to_owned).collect());
            }
        });
        Some(Self { child, said })
    }

    fn said(&self, what: &str) -> Vec<Vec<String>> {
        self.said.lock().unwrap().iter().filter(|line| line[0] == what).cloned().collect()
    }

    /// What it read of each line, the first sight of each record.
    fn read(&self) -> Lines {
        let mut lines = Lines::new();
        for record in self.said("record") {
            lines.entry(record[3].clone()).or_default().push(record[4].clone());
        }
        first_sights(lines)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // it ends with its standard input; whoever is in a hurry doesn't wait
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_sights(mut lines: Lines) -> Lines {
    for records in lines.values_mut() {
        let mut seen = HashSet::new();
        records.retain(|record| seen.insert(record.clone()));
    }
    lines
}

/// All that is on the stream, read by us.
async fn on_stream(url: &KinesisUrl) -> Lines {
    let stream = KinesisStream::open(url, false).await.unwrap().unwrap();
    let mut reader = stream.reader(&StreamPosition::Oldest).await.unwrap();
    let mut lines = Lines::new();
    loop {
        let records = reader.next().await.unwrap();
        if records.is_empty() {
            return first_sights(lines);
        }
        for record in records {
            let plain = || {
                vec![UserRecord {
                    partition_key: record.partition_key.clone(),
                    explicit_hash_key: None,
                    bytes: record.data.clone(),
                }]
            };
            for user in deaggregate(&record.data).unwrap_or_else(plain) {
                let line = user.explicit_hash_key.unwrap_or(user.partition_key);
                lines.entry(line).or_default().push(STANDARD.encode(&user.bytes));
            }
        }
    }
}

/// Whether `part` has the beginning of each line of `whole`.
fn begins(part: &Lines, whole: &Lines) -> bool {
    part.iter().all(|(line, records)| whole.get(line).is_some_and(|all| all.starts_with(records)))
}

async fn read_side_by_side(format: &str) {
    let server = Server::shared(Flavour::MySql);
    let url = OnKinesis::new(StandIn::shared().endpoint(), 2).fresh_url();
    KinesisStream::open(&url, true).await.unwrap();
    // before any resharding: of a table of leases that is empty, the library asks for shards that the stand-in lists otherwise
    let Some(consumer) = Consumer::start(&url).await else { return };
    server.create_repl_user().await;
    let database = server.create_database("kcl").await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.orders (id INT PRIMARY KEY, note VARCHAR(50), amount INT)")).await;
    let pipeline = crate::formats::credentials(Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n")));
    let stream = format!("url = \"kinesis://{}?endpoint={}&poll=20ms\"\n{format}", url.aws.name, StandIn::shared().endpoint());
    let config = pipeline.config().replace("url = \"file:./data/stream\"", &stream);
    pipeline.set_config(&config.replace("cut_interval = \"50ms\"", "cut_interval = \"500ms\""));
    let service = pipeline.run();
    let began = within(PATIENCE, async || consumer.said("begins").len() == 2).await;
    assert!(began, "{:?}", consumer.said.lock().unwrap());
    let mut random = Random::new(4);
    for round in 0..6 {
        let rows: Vec<String> = (0..100).map(|row| format!("({}, 'order {row}', {round})", round * 100 + row)).collect();
        client.run(&format!("INSERT INTO {database}.orders VALUES {}", rows.join(","))).await;
        client.run(&format!("UPDATE {database}.orders SET amount = amount + 1 WHERE id % 7 = {round}")).await;
        client.run(&format!("DELETE FROM {database}.orders WHERE id % 11 = {round}")).await;
        pipeline.catches_up(server, &database, "orders").await;
        if round % 2 == 1 {
            reshard(&url, &mut random).await;
        }
    }
    pipeline.catches_up(server, &database, "orders").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let ours = on_stream(&url).await;
    let all = within(PATIENCE, async || {
        let read = consumer.read();
        assert!(begins(&read, &ours), "what the library read isn't what we read:\n{read:?}\n{ours:?}");
        read == ours
    });
    let count = |lines: &Lines| lines.values().map(Vec::len).sum::<usize>();
    assert!(all.await, "it has {} of {} records; {:?}", count(&consumer.read()), count(&ours), consumer.said("error"));
    assert!(consumer.said("ended").len() >= 3, "it followed the resharding: {:?}", consumer.said("begins"));
    let aggregated = consumer.said("record").iter().filter(|record| record[2] == "true").count();
    assert_eq!(aggregated > 100, format.contains("kpl"), "{aggregated} records came out of aggregated ones");
    println!(
        "the library read {} records, {aggregated} of them aggregated; shards begun {:?}, ended {:?}",
        count(&ours),
        consumer.said("begins"),
        consumer.said("ended")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_reads_aggregated_dms_json_beside_our_merge_through_resharding() {
    read_side_by_side("format = \"dms-json\"\naggregate = \"kpl\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_reads_our_chunks_beside_our_merge_through_resharding() {
    read_side_by_side("format = \"binlake\"").await;
}

#[test]
fn what_amazons_aggregation_in_java_has_packed_is_read() {
    let Some(mut command) = java("kpl", "Aggregate.java") else { return };
    let record = |i: usize| UserRecord {
        partition_key: format!("shop.orders.{}", i % 7),
        explicit_hash_key: Some(line_hash_key((i % 3) as u32, 3).to_string()),
        bytes: "größe ".repeat(i % 50).into_bytes().into(),
    };
    // more than one aggregated record's worth: it closes one at 1 MB
    let records: Vec<UserRecord> = (0..12_000).map(record).collect();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = (records.iter())
        .map(|user| {
            let hash_key = user.explicit_hash_key.as_ref().unwrap();
            format!("{}\t{hash_key}\t{}\n", user.partition_key, STANDARD.encode(&user.bytes))
        })
        .collect();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    let packed = String::from_utf8(output.stdout).unwrap();
    let unpacked = packed.lines().map(|line| deaggregate(&STANDARD.decode(line).unwrap().into()).expect("an aggregated record"));
    let unpacked: Vec<Vec<UserRecord>> = unpacked.collect();
    assert!(unpacked.len() > 1);
    assert_eq!(unpacked.concat(), records);
}
