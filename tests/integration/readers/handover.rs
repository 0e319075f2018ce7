//! A table goes from Binlake to Spark (`deploy/spark/merge.py`) and back, while the capture goes on: each begins where the other's last commit ends. Runs with
//! `make test-spark`.

use super::python::{cache, repository};
use super::{CHANGES, Scene, TABLES};
use crate::kinesis::StandIn;
use crate::mysql::eventually;
use crate::service::Service;
use binlake::event::GtidSet;
use binlake::stream::{StreamConfig, find_last_cut, open_to_read};
use std::process::Command;

/// The job, to the stream's end. Gives its exit code and what it printed.
fn merge_by_spark(scene: &Scene, stream: &str, format: &str, table: &str) -> (i32, String) {
    let jar = cache().join("jars/hudi-spark3.5-bundle_2.12-0.15.0.jar");
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().display();
    let submit = format!(
        "--master local[2] --driver-memory 2g --jars {} --conf spark.driver.host=127.0.0.1 --conf spark.driver.bindAddress=127.0.0.1 \
         --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 --conf spark.local.dir={local} \
         --conf spark.driver.extraJavaOptions=-Duser.timezone=UTC pyspark-shell",
        jar.display(),
    );
    let output = Command::new(cache().join("spark/bin/python"))
        .arg(repository("deploy/spark/merge.py"))
        .args(["--stream", stream, "--format", format, "--once", "--table", &format!("{}.{table}", scene.database)])
        .args(["--lake", &format!("file:{}", scene.pipeline.lake().display())])
        .env("PYSPARK_SUBMIT_ARGS", submit)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .current_dir(folder.path())
        .output()
        .expect("no PySpark: run scripts/spark.sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().unwrap_or(-1);
    assert!(code == 0 || code == 3, "{said}{}", String::from_utf8_lossy(&output.stderr));
    (code, said)
}

/// The checkpoint of a table's last commit.
fn checkpoint(scene: &Scene, table: &str) -> serde_json::Value {
    let table = scene.pipeline.table(&scene.database, table);
    let last = table.instants().pop().unwrap();
    serde_json::from_str(table.commit(&last)["extraMetadata"]["binlake.checkpoint"].as_str().unwrap()).unwrap()
}

fn place(checkpoint: &serde_json::Value) -> (u64, u64) {
    (checkpoint["epoch"].as_u64().unwrap(), checkpoint["cut"].as_u64().unwrap())
}

/// Where the stream is, and what the configuration says about it.
struct Stream {
    url: String,
    format: &'static str,
}

async fn hand_over_and_back(stream: Option<String>, format: &'static str) {
    let scene = Scene::new("").await;
    let stream = Stream { url: stream.unwrap_or_else(|| format!("file:{}/data/stream", scene.pipeline.path().display())), format };
    let config = scene.pipeline.config().replace("file:./data/stream", &stream.url);
    scene.pipeline.set_config(&config.replace("[stream]\n", &format!("[stream]\nformat = \"{format}\"\n")));
    let service = scene.pipeline.run();
    scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());

    // the capture goes on, and Spark has the tables
    let capture = start_capture(&scene).await;
    let began: Vec<_> = TABLES.iter().map(|table| place(&checkpoint(&scene, table))).collect();
    scene.sql(CHANGES).await;
    scene.insert(400, 50).await;
    captured(&scene, &stream).await;
    let taken = by_spark(&scene, &stream).await;
    assert!(taken.iter().zip(&began).all(|(now, before)| now > before), "{began:?} {taken:?}");

    // a capture that is killed: what it sent behind its last cut is void, and comes again under a new epoch
    capture.kill();
    let capture = start_capture(&scene).await;
    scene.sql("UPDATE tickets SET sport = CONCAT(sport, '!') WHERE id % 3 = 0; DELETE FROM orders WHERE number % 7 = 0").await;
    scene.sql("TRUNCATE TABLE orders").await;
    scene.insert(600, 30).await;
    scene.sql("UPDATE orders SET placed = '2031-01-01 00:00:00' WHERE number % 2 = 0").await;
    captured(&scene, &stream).await;
    let taken = by_spark(&scene, &stream).await;
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());

    // Binlake takes them back: what Spark has isn't done again
    scene.sql("UPDATE tickets SET price = 1 WHERE id = 46; DELETE FROM orders WHERE number = 601").await;
    let before = scene.pipeline.log().len();
    let service = scene.pipeline.run();
    scene.moments().await;
    for (table, spark) in TABLES.iter().zip(&taken) {
        assert!(place(&checkpoint(&scene, table)) > *spark, "{table}");
    }
    let log = scene.pipeline.log().split_off(before);
    let changed = log.lines().filter(|line| line.contains("INFO committed")).map(|line| {
        let count = |name: &str| line.split(name).nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()).unwrap();
        count("inserted=") + count("updated=") + count("deleted=")
    });
    assert_eq!(changed.sum::<u64>(), 2, "{log}");

    // and once more: a shape that changes is Binlake's business
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    let capture = start_capture(&scene).await;
    scene.sql("UPDATE tickets SET price = 2 WHERE id = 46; ALTER TABLE tickets ADD COLUMN remark VARCHAR(20) DEFAULT 'neu'").await;
    scene.sql("UPDATE tickets SET remark = 'alt' WHERE id = 46").await;
    captured(&scene, &stream).await;
    let (code, said) = merge_by_spark(&scene, &stream.url, stream.format, "tickets");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("columns change"), "{said}");
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    let service = scene.pipeline.run();
    scene.moments().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.ok(&["verify"]);
    scene.pipeline.assert_calm_log();
    println!("handover: binlake -> Spark -> binlake -> Spark -> binlake over {format} equals the source");
}

async fn start_capture(scene: &Scene) -> Service {
    let before = scene.pipeline.log().matches("the capture begins").count();
    let capture = scene.pipeline.start(&["capture"]);
    let begins = async || scene.pipeline.log().matches("the capture begins").count() > before;
    eventually("the capture begins", begins).await;
    capture
}

/// Waits until the stream has all that the source has.
async fn captured(scene: &Scene, stream: &Stream) {
    let text = format!("url = \"{}\"\nlanes = 4\nformat = \"{}\"\n", stream.url, stream.format);
    let config: StreamConfig = toml::from_str(&text).unwrap();
    let executed = scene.server.client().await.value("SELECT @@GLOBAL.gtid_executed").await;
    let executed: GtidSet = executed.parse().unwrap();
    eventually("all is captured", async || {
        let log = open_to_read(&config, None).await.unwrap().unwrap();
        let last = find_last_cut(log.as_ref()).await.unwrap().cut;
        last.is_some_and(|(_, cut)| cut.position.gtid_set.as_ref().is_some_and(|captured| executed.is_subset(captured)))
    })
    .await;
}

/// Spark takes both tables to the stream's end, and they equal the source.
async fn by_spark(scene: &Scene, stream: &Stream) -> Vec<(u64, u64)> {
    let mut places = Vec::new();
    for table in TABLES {
        let (code, said) = merge_by_spark(scene, &stream.url, stream.format, table);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("committed at cut"), "{said}");
        scene.moment(table).await;
        places.push(place(&checkpoint(scene, table)));
    }
    places
}

fn is_asked_for() -> bool {
    let is_asked_for = std::env::var_os("BINLAKE_TEST_SPARK").is_some();
    if !is_asked_for {
        println!("skipped: Spark; `make test-spark` runs it");
    }
    is_asked_for
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_takes_tables_over_and_gives_them_back() {
    if is_asked_for() {
        hand_over_and_back(None, "binlake").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_takes_tables_over_from_a_stream_of_dms_json() {
    if is_asked_for() {
        hand_over_and_back(None, "dms-json").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_takes_tables_over_from_kinesis() {
    if is_asked_for() {
        let endpoint = StandIn::shared().endpoint();
        let url = format!("kinesis://handover-{}?region=us-east-1&create=2&poll=20ms&endpoint={endpoint}", uuid::Uuid::new_v4());
        hand_over_and_back(Some(url), "binlake").await;
    }
}
