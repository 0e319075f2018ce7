//! Prices with corrections during the reporting period, asked as they were known then: what the lake says beside what the server computes from a log of
//! all statements. Small by default; `make test-corrections` makes a million versions.

use super::at;
use crate::capture::Scene;
use crate::mysql::{Flavour, Server};
use std::time::Duration;

/// Months in each of which every price is stated anew, for some day of the year.
const STEPS: u32 = 12;

/// Versions that the history has at least.
fn versions_wanted() -> u64 {
    std::env::var("BINLAKE_VERSIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// The rows that a question counts, and two sums over them, by the log: of each key the latest statement about the last day up to `valid`.
async fn of_server(scene: &mut Scene, valid: &str, step: u32) -> String {
    let sql = format!(
        "SELECT CONCAT_WS(',', COUNT(*), COALESCE(SUM(price), 0), COALESCE(SUM(price * id), 0)) FROM \
         (SELECT id, price, ROW_NUMBER() OVER (PARTITION BY id ORDER BY effective DESC, step DESC) AS place \
          FROM log WHERE step <= {step} AND effective <= '{valid}') latest WHERE place = 1"
    );
    scene.client.value(&sql).await
}

/// The same by the lake.
fn of_lake(scene: &Scene, valid: &str, step: Option<u32>) -> String {
    let sql = format!(
        "SELECT count(*), coalesce(sum(price), 0), coalesce(sum(CAST(price AS BIGINT) * id), 0) FROM {}.prices",
        scene.database
    );
    let known = step.map(|step| format!("2036-{step:02}-15"));
    let mut arguments = vec!["query", &sql, "--format", "csv", "--valid-at", valid];
    if let Some(known) = &known {
        arguments.extend(["--as-of", known]);
    }
    scene.pipeline.ok(&arguments).lines().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn figures_as_they_were_known_then() {
    let wanted = versions_wanted();
    let keys = wanted / 20 + 1;
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "corrections", "history = { valid_time = \"effective\" }\n").await;
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&config.replace(&format!("\"{}.*\"", scene.database), &format!("\"{}.prices\"", scene.database)));
    scene
        .run(&[
            "CREATE TABLE prices (id INT PRIMARY KEY, price INT, effective DATE)",
            "CREATE TABLE log (id INT, step INT, price INT, effective DATE, KEY (id, effective, step))",
            "SET cte_max_recursion_depth = 10000000",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["prices"]).await;
    let mut then = Vec::new();
    let days = ["2036-01-20", "2036-07-01", "2036-12-31"];
    for step in 1..=STEPS {
        at(&mut scene, &format!("2036-{step:02}-01")).await;
        let price = |id: &str| format!("MOD(CRC32(CONCAT({id}, '-{step}')), 10000)");
        // half of what is said is about days that are past
        let effective = |id: &str| format!("DATE_ADD('2036-01-01', INTERVAL MOD(CRC32(CONCAT('{step}/', {id})), 365) DAY)");
        let statement = if step == 1 {
            format!(
                "INSERT INTO prices WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {keys}) \
                 SELECT n, {}, {} FROM n",
                price("n"),
                effective("n")
            )
        } else {
            format!("UPDATE prices SET price = {}, effective = {}", price("id"), effective("id"))
        };
        scene.run(&[&statement, &format!("INSERT INTO log SELECT id, {step}, price, effective FROM prices")]).await;
        if step == STEPS / 2 {
            scene.pipeline.catches_up_in(Duration::from_secs(600), scene.server, &scene.database, "prices").await;
            then.extend(days.map(|day| of_lake(&scene, day, None)));
        }
    }
    scene.pipeline.catches_up_in(Duration::from_secs(600), scene.server, &scene.database, "prices").await;
    scene.ends_well(service);
    let count =
        scene.pipeline.ok(&["query", &format!("SELECT count(*) FROM {}.prices_history", scene.database), "--format", "csv"]);
    let count: u64 = count.lines().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!(count >= wanted, "{count} versions");
    println!("{keys} prices, {count} versions");
    for step in [1, 3, STEPS / 2, STEPS - 1, STEPS] {
        for day in days {
            assert_eq!(
                of_lake(&scene, day, Some(step)),
                of_server(&mut scene, day, step).await,
                "{day} as was known in month {step}"
            );
        }
    }
    for (day, then) in days.iter().zip(then) {
        assert_eq!(of_lake(&scene, day, Some(STEPS / 2)), then, "{day} is answered as it was then");
        assert_eq!(of_lake(&scene, day, None), of_server(&mut scene, day, STEPS).await);
    }
    scene.pipeline.assert_calm_log();
}
