//! What operators do to a pipeline: start what doesn't go together, ask for a backfill while things die, look at the audit.

use super::Scene;
use crate::dynamodb::DynamoDb;
use crate::mysql::{eventually, free_address};
use crate::service::{Answer, Service};
use crate::surface::post;

/// Refused in one line, by what the pipeline's other processes say in the state store.
fn assert_refused(answer: &Answer, by: &[&Service]) {
    assert_eq!((answer.code, answer.err.lines().count()), (4, 1), "{}", answer.err);
    let is_named = by.iter().any(|service| answer.err.contains(&format!(":{}:", service.pid())));
    assert!(answer.err.contains("another process works on this pipeline") && is_named, "{}", answer.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_and_workers_turn_each_other_away() {
    let mut scene = Scene::new(2).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let merge = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    assert_refused(&scene.pipeline.answer(&["run", "--log-level", "off"]), &[&capture, &merge]);
    // the workers' tables alone keep a run away as well
    capture.kill();
    assert_refused(&scene.pipeline.answer(&["run", "--log-level", "off"]), &[&merge]);
    let backfill = scene.pipeline.answer(&["backfill", "--log-level", "off"]);
    assert_eq!((backfill.code, backfill.err.lines().count()), (4, 1), "{}", backfill.err);
    // nobody is waited for who was a process of this machine and is gone
    merge.kill();
    let run = scene.pipeline.run();
    scene.change().await;
    scene.catches_up().await;
    assert_refused(&scene.pipeline.answer(&["merge", "--log-level", "off"]), &[&run]);
    assert_refused(&scene.pipeline.answer(&["run", "--log-level", "off"]), &[&run]);
    let mut standby = scene.pipeline.start(&["capture"]);
    eventually("a capture stands by", async || scene.pipeline.log().contains("standing by: another captures")).await;
    scene.change().await;
    scene.catches_up().await;
    assert!(run.terminate().success(), "{}", scene.pipeline.log_tail());
    let merge = scene.pipeline.start(&["merge"]);
    scene.change().await;
    scene.catches_up().await;
    assert!(standby.is_running());
    assert!(standby.terminate().success() && merge.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

impl Scene {
    /// With the admin interface on, at the address that is returned.
    fn with_admin(&self) -> String {
        let address = free_address();
        self.set("listen = \"off\"", &format!("listen = \"{address}\""));
        address
    }

    /// A change of the first table that no binlog has: only a backfill brings it to the lake.
    async fn change_in_secret(&mut self, id: u64) {
        let table = &self.tables[0];
        self.client
            .run_all(&format!("SET sql_log_bin = 0; INSERT INTO {table} VALUES ({id}, 'secret'); SET sql_log_bin = 1"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_asked_for_outlives_the_process() {
    let mut scene = Scene::new(1).await;
    // what is asked for is taken up at a cut: behind the one that ends the snapshot there is time to die
    scene.set("cut_interval = \"50ms\"", "cut_interval = \"10s\"");
    let address = scene.with_admin();
    let body = format!("{{\"tables\": [\"{}.t0\"]}}", scene.database);
    let service = scene.pipeline.run();
    scene.catches_up().await;
    scene.change_in_secret(1000).await;
    assert_eq!(post(&address, "/backfill", &body).await.0, 202);
    service.kill();
    scene.set("cut_interval = \"10s\"", "cut_interval = \"50ms\"");
    let service = scene.pipeline.run();
    scene.catches_up().await;
    assert!(scene.pipeline.log().contains("a backfill that was asked for before waits"), "{}", scene.pipeline.log_tail());
    // it is done once: the next start has nothing to do
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    let service = scene.pipeline.run();
    scene.change().await;
    scene.catches_up().await;
    assert_eq!(scene.pipeline.log().matches("a backfill that was asked for before waits").count(), 1);
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_the_capture_over_takes_its_requests() {
    let mut scene = Scene::new(1).await;
    scene.set("cut_interval = \"50ms\"", "cut_interval = \"3s\"");
    let address = scene.with_admin();
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let config = scene.pipeline.config();
    scene.set(&format!("listen = \"{address}\""), "listen = \"off\"");
    let merge = scene.pipeline.start(&["merge"]);
    let standby = scene.pipeline.start(&["capture"]);
    scene.catches_up().await;
    scene.change_in_secret(1000).await;
    let body = format!("{{\"tables\": [\"{}.t0\"]}}", scene.database);
    assert_eq!(post(&address, "/backfill", &body).await.0, 202, "{config}");
    capture.kill();
    scene.catches_up().await;
    assert!(standby.terminate().success() && merge.terminate().success(), "{}", scene.pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_merge_stopped_comes_back_without_a_restart() {
    let mut scene = Scene::new(1).await;
    let database = scene.database.clone();
    scene.client.run("CREATE TABLE odd (code INT PRIMARY KEY, value VARCHAR(40))").await;
    scene.client.run("INSERT INTO odd VALUES (1, 'one'), (2, 'two')").await;
    let address = scene.with_admin();
    let service = scene.pipeline.run();
    scene.pipeline.catches_up(scene.server, &database, "odd").await;
    let body = format!("{{\"tables\": [\"{database}.odd\"]}}");
    for round in 0..2 {
        // a name that is ours: the merge can't give the lake's table this column
        scene.client.run("ALTER TABLE odd ADD COLUMN _commit_ts INT").await;
        scene.client.run(&format!("INSERT INTO odd VALUES (10 + {round}, 'ten', 4)")).await;
        let stopped = async || scene.pipeline.log().matches("the table is stopped; the others go on").count() == round + 1;
        eventually("the table is stopped", stopped).await;
        scene.client.run("ALTER TABLE odd DROP COLUMN _commit_ts").await;
        scene.client.run(&format!("INSERT INTO odd VALUES (20 + {round}, 'twenty')")).await;
        assert_eq!(post(&address, "/backfill", &body).await.0, 202);
        scene.pipeline.catches_up(scene.server, &database, "odd").await;
        scene.client.run(&format!("UPDATE odd SET value = 'after {round}' WHERE code = 1")).await;
        scene.change().await;
        scene.catches_up().await;
        scene.pipeline.catches_up(scene.server, &database, "odd").await;
    }
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
}

/// The audit after a run that was killed, one that was stopped, and one that failed.
async fn audited(state: Option<String>) {
    let mut scene = Scene::new(2).await;
    if let Some(state) = state {
        scene.set("sqlite:./data/state.db", &state);
    }
    let service = scene.pipeline.run();
    scene.catches_up().await;
    // a commit is counted after it is visible
    let counted = async || scene.pipeline.ok(&["runs", "--format", "csv"]).lines().filter(|line| line.contains(".t")).count() == 2;
    eventually("both tables are counted", counted).await;
    service.kill();
    scene.change().await;
    let service = scene.pipeline.run();
    scene.catches_up().await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    let rows: serde_json::Value = serde_json::from_str(&scene.pipeline.ok(&["runs", "--format", "json"])).unwrap();
    let rows = rows.as_array().unwrap();
    let seen: Vec<(&str, &str, bool, u64, u64)> = rows
        .iter()
        .map(|row| {
            let count = |name: &str| row[name].as_u64().unwrap();
            let table = row["table"].as_str().map_or("", |table| &table[scene.database.len() + 1..]);
            (table, row["status"].as_str().unwrap(), row["ended"].is_string(), count("inserted"), count("updated"))
        })
        .collect();
    let expected = [
        ("", "Complete", true, 0, 0),
        ("t0", "Complete", true, 1, 1),
        ("t1", "Complete", true, 1, 1),
        ("", "Failed", true, 0, 0),
        ("t0", "Failed", true, 2, 0),
        ("t1", "Failed", true, 2, 0),
    ];
    assert_eq!(seen, expected, "{rows:?}");
    assert!(rows[1]["position"].as_str().is_some_and(|position| position.contains(':')), "{rows:?}");
    assert!(rows[3]["error"].as_str().is_some_and(|error| error.contains("without a word")), "{rows:?}");
    let shown = scene.pipeline.ok(&["runs", "--table", &format!("{}.t1", scene.database)]);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.contains("Complete") && shown.contains("t1") && !shown.contains("t0"), "{shown}");
    assert_eq!(scene.pipeline.ok(&["runs", "--last", "1"]).matches("->").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_in_the_audit_in_sqlite() {
    audited(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_in_the_audit_in_dynamodb() {
    let endpoint = DynamoDb::shared().await.endpoint();
    // no credentials are looked at
    let state = format!("dynamodb://audit-{}?region=us-east-1&endpoint={endpoint}", uuid::Uuid::new_v4());
    audited(Some(state)).await;
}

/// A worker that is told to stop gives its tables back: how long nobody has them is printed, and must be told by the log alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_soon_another_workers() {
    let mut scene = Scene::new(4).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = scene.pipeline.start(&["merge"]);
    let second = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&first, &second]).await;
    let before = scene.pipeline.log().len();
    assert!(first.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.is_shared_by(&[&second]).await;
    let log = scene.pipeline.log().split_off(before);
    let time = |what: &str| {
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}` in {log}"));
        chrono::DateTime::parse_from_rfc3339(line.split_whitespace().next().unwrap()).unwrap()
    };
    let (told, stopped, taken) = (time("stopping: "), time("stopped; "), time("a table is taken"));
    println!(
        "handover: told to stop, a worker had committed and given back after {} ms; another had its tables {} ms later",
        (stopped - told).num_milliseconds(),
        (taken - stopped).num_milliseconds()
    );
    assert!(log.contains("from=\"nobody\"") || log.contains("from=nobody"), "given back, not left to run out: {log}");
    assert!(second.terminate().success() && capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}
