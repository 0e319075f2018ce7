//! Tables with histories, shared by workers that die: each change is one version, and a key is erased by whoever has its table.

use super::Scene;
use crate::mysql::eventually;

const OPEN_END: &str = "9999-12-31 23:59:59.999999";

impl Scene {
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
    let mut scene = Scene::new(3).await;
    let rules = format!("[[table]]\nsource = \"{}.*\"\n", scene.database);
    scene.set(&rules, &format!("{rules}history = true\n"));
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
