//! Tables with histories, shared by workers that die: each change is one version, and a key is erased by whoever has its table.

use super::Scene;
use crate::mysql::{eventually, free_address};
use crate::service::Service;
use crate::surface::{ask, post};
use serde_json::Value;

const OPEN_END: &str = "9999-12-31 23:59:59.999999";

impl Scene {
    /// Three tables, each with its history.
    async fn with_histories() -> Self {
        let scene = Self::new(3).await;
        let rules = format!("[[table]]\nsource = \"{}.*\"\n", scene.database);
        scene.set(&rules, &format!("{rules}history = true\n"));
        scene
    }

    /// What row 1 of a table was, one after the other, as is known now.
    fn past_of_one(&self, table: &str) -> Vec<String> {
        let history = self.pipeline.table(&self.database, &format!("{table}_history"));
        let rows = history.values(None, &["id", "_valid_from", "value", "_system_to"]).unwrap_or_default();
        let mut rows: Vec<Vec<String>> =
            rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect();
        rows.retain(|row| row[0] == "1" && row[3] == OPEN_END);
        rows.sort();
        rows.into_iter().map(|row| row[2].clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_tables_with_histories() {
    let mut scene = Scene::with_histories().await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    let second = scene.pipeline.start(&["merge"]);
    for round in 0..6 {
        scene.change().await;
        if round % 3 == 0 {
            scene.catches_up().await;
        }
    }
    first.kill();
    for _ in 0..4 {
        scene.change().await;
    }
    scene.catches_up().await;
    let third = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&second, &third]).await;
    let expected: Vec<String> =
        std::iter::once("one".to_owned()).chain((101..=scene.next).map(|id| format!("seen {id}"))).collect();
    for table in scene.tables.clone() {
        assert_eq!(scene.past_of_one(&table), expected, "{table}");
    }
    // the tables have different owners: each does its own
    for table in scene.tables.clone() {
        scene.client.run(&format!("DELETE FROM {table} WHERE id = 1")).await;
        let said = scene.pipeline.ok(&["erase", &format!("{}.{table}", scene.database), "1"]);
        assert!(said.contains(" versions"), "{said}");
        assert!(scene.past_of_one(&table).is_empty());
    }
    scene.change().await;
    scene.catches_up().await;
    assert!(
        second.terminate().success() && third.terminate().success() && capture.terminate().success(),
        "{}",
        scene.pipeline.log_tail()
    );
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_several_workers_go_back() {
    let mut scene = Scene::with_histories().await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = scene.pipeline.start(&["merge"]);
    let second = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&first, &second]).await;
    let instants: Vec<String> =
        scene.tables.iter().map(|table| scene.pipeline.table(&scene.database, table).instants().pop().unwrap()).collect();
    let pasts: Vec<Vec<String>> = scene.tables.iter().map(|table| scene.past_of_one(table)).collect();
    for _ in 0..3 {
        scene.change().await;
        scene.catches_up().await;
    }
    let now: Vec<Vec<String>> = scene.tables.iter().map(|table| scene.past_of_one(table)).collect();
    // what came since comes again, to a table of each worker, while changes go on
    for (table, instant) in scene.tables.clone().iter().zip(&instants) {
        let said = scene.pipeline.ok(&["restore", &format!("{}.{table}", scene.database), instant]);
        assert!(said.contains("comes again"), "{said}");
        scene.change().await;
    }
    scene.catches_up().await;
    for ((table, past), now) in scene.tables.iter().zip(&pasts).zip(&now) {
        let again = scene.past_of_one(table);
        assert!(again.starts_with(past) && again.starts_with(now), "{table}: {again:?} after {now:?}");
    }
    // and is left out, though the worker that did it dies
    let table = scene.tables[0].clone();
    let owner = scene.writers()[0].clone();
    let said = scene.pipeline.ok(&["restore", &format!("{}.{table}", scene.database), &instants[0], "--skip-changes"]);
    assert!(said.contains("is left out"), "{said}");
    assert_eq!(scene.past_of_one(&table), pasts[0]);
    let (dying, living) = if owner == first.pid().to_string() { (first, second) } else { (second, first) };
    dying.kill();
    scene.client.run(&format!("UPDATE {table} SET value = 'behind' WHERE id = 1")).await;
    let mut expected = pasts[0].clone();
    expected.push("behind".to_owned());
    eventually("the other goes on behind it", async || scene.past_of_one(&table) == expected).await;
    assert!(living.terminate().success() && capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

/// What the service at `address` says of the last request.
async fn last_erasure(address: &str) -> Value {
    let Some((200, status)) = ask(address, "/status").await else { return Value::Null };
    let status: Value = serde_json::from_str(&status).unwrap();
    status["erasures"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_worker_can_be_asked_to_erase() {
    let mut scene = Scene::with_histories().await;
    let start = |half: &str| -> (Service, String) {
        let address = free_address();
        let config = scene.pipeline.config();
        let (before, rest) = config.split_once("listen = \"").unwrap();
        let (_, behind) = rest.split_once('"').unwrap();
        scene.pipeline.set_config(&format!("{before}listen = \"{address}\"{behind}"));
        (scene.pipeline.start(&[half]), address)
    };
    let (capture, of_capture) = start("capture");
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let (first, of_first) = start("merge");
    eventually("it has read its configuration", async || ask(&of_first, "/healthz").await.is_some()).await;
    let (second, of_second) = start("merge");
    scene.is_shared_by(&[&first, &second]).await;
    // each table asked of one that hasn't it: whoever has it does it, and all say so
    let writers = scene.writers();
    for (table, writer) in scene.tables.clone().iter().zip(writers) {
        let other = if writer == first.pid().to_string() { &of_second } else { &of_first };
        scene.client.run(&format!("DELETE FROM {table} WHERE id = 1")).await;
        let body = format!("{{\"table\": \"{}.{table}\", \"keys\": [1]}}", scene.database);
        let (status, said) = post(other, "/erase", &body).await;
        assert_eq!(status, 202, "{said}");
        for address in [other, &of_first, &of_second, &of_capture] {
            let mut shown = Value::Null;
            eventually("it is done", async || {
                shown = last_erasure(address).await;
                shown["table"] == format!("{}.{table}", scene.database)
                    && shown["state"] != "waiting"
                    && shown["state"] != "running"
            })
            .await;
            assert!(shown["state"] == "done" && shown["versions"].as_u64().is_some_and(|versions| versions > 1), "{shown}");
        }
        assert!(scene.past_of_one(table).is_empty());
    }
    // what the capture has not read yet is waited for, else it would bring the person back
    let table = scene.tables[0].clone();
    let of_behind = |id: i32| {
        let rows = scene.pipeline.table(&scene.database, &format!("{table}_history"));
        rows.values(None, &["id"]).unwrap().into_iter().filter(|row| row[0] == Some(id.to_string())).count()
    };
    scene.pipeline.pause(&capture);
    for statement in [
        format!("INSERT INTO {table} VALUES (3, 'a person'), (4, 'another')"),
        format!("UPDATE {table} SET value = 'the same person' WHERE id = 3"),
        format!("DELETE FROM {table} WHERE id = 3"),
    ] {
        scene.client.run(&statement).await;
    }
    let (status, said) = post(&of_first, "/erase", &format!("{{\"table\": \"{}.{table}\", \"keys\": [3]}}", scene.database)).await;
    assert_eq!(status, 202, "{said}");
    let mut shown = Value::Null;
    eventually("it waits for the capture", async || {
        shown = last_erasure(&of_second).await;
        shown["waits"].as_str().is_some_and(|waits| waits.contains("the capture has read what it had by"))
    })
    .await;
    capture.signal("CONT");
    eventually("it is done", async || {
        shown = last_erasure(&of_first).await;
        shown["state"] == "done"
    })
    .await;
    assert!(shown["versions"] == 4 && of_behind(3) == 0 && of_behind(4) == 1, "{shown}, {} {}", of_behind(3), of_behind(4));
    // one whose owner is killed before it can begin is done by whoever takes over
    let (owner, other, address) =
        if scene.writers()[0] == first.pid().to_string() { (first, second, of_second) } else { (second, first, of_first) };
    owner.signal("STOP");
    let (status, said) = post(&address, "/erase", &format!("{{\"table\": \"{}.{table}\", \"keys\": [2]}}", scene.database)).await;
    assert_eq!(status, 202, "{said}");
    owner.kill();
    let mut shown = Value::Null;
    eventually("the other one has done it", async || {
        shown = last_erasure(&address).await;
        shown["state"] == "done" && shown["rows"] == 1
    })
    .await;
    scene.client.run(&format!("DELETE FROM {table} WHERE id = 2")).await;
    scene.change().await;
    scene.catches_up().await;
    assert!(other.terminate().success() && capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}
