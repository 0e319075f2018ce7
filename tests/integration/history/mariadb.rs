//! An oracle that others made: MariaDB's system-versioned table with an application-time period, given the same facts. `late = "to_end"` is what
//! `FOR PORTION OF` does.

use super::{OPEN_END, versions};
use crate::capture::Scene;
use crate::mysql::{Flavour, Server};
use crate::random::Random;
use crate::service::without_zeros;

const KEYS: u64 = 4;
/// Valid times are days of this month.
const DAYS: u64 = 20;

fn day(number: u64) -> String {
    format!("2026-03-{:02} 00:00:00", number + 1)
}

/// Who was what, from when to when, as known from when to when.
type Version = (String, String, String, String, String, String);

/// What was true of `key` at `valid`, as was known at `system`.
fn answer<'a>(versions: &'a [Version], key: &str, valid: &str, system: &str) -> Vec<&'a str> {
    let holds = |version: &&Version| {
        version.0 == key
            && version.2.as_str() <= valid
            && valid < version.3.as_str()
            && version.4.as_str() <= system
            && system < version.5.as_str()
    };
    versions.iter().filter(holds).map(|version| version.1.as_str()).collect()
}

#[tokio::test]
async fn mariadb_answers_the_same() {
    let rule = "history = { valid_time = \"since\", valid_to = \"until\", late = \"to_end\" }\n";
    let mut scene = Scene::on(Server::shared(Flavour::MariaDb), "history_oracle", rule).await;
    let database = scene.database.clone();
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&config.replace(&format!("\"{database}.*\""), &format!("\"{database}.facts\"")));
    scene
        .run(&[
            "CREATE TABLE facts (id INT PRIMARY KEY, price INT, since DATETIME, until DATETIME NULL)",
            "CREATE TABLE oracle (id INT, price INT, f DATETIME(6) NOT NULL, t DATETIME(6) NOT NULL, PERIOD FOR valid (f, t)) WITH SYSTEM VERSIONING",
            "SET time_zone = '+00:00'",
        ])
        .await;
    let service = scene.pipeline.run();
    scene.catches_up(&["facts"]).await;
    let mut random = Random::new(11);
    // 2035-01-01: system time rises from the snapshot on
    let first = 2_051_222_400_u64;
    let transactions = 150;
    for number in 0..transactions {
        let second = first + 10 * number;
        scene.run(&[&format!("SET timestamp = {second}"), "BEGIN"]).await;
        let key = random.below(KEYS);
        if random.below(8) == 0 {
            let now = format!("FROM_UNIXTIME({second})");
            scene.run(&[&format!("DELETE FROM oracle FOR PORTION OF valid FROM {now} TO '{OPEN_END}' WHERE id = {key}")]).await;
            scene.run(&[&format!("DELETE FROM facts WHERE id = {key}")]).await;
        } else {
            let since = random.below(DAYS);
            let (price, is_open, length) = (random.below(5), random.below(2) == 0, 1 + random.below(5));
            let until = if is_open { OPEN_END.to_owned() } else { day(since + length) };
            let of_fact = if is_open { "NULL".to_owned() } else { format!("'{until}'") };
            let since = day(since);
            scene
                .run(&[
                    &format!("DELETE FROM oracle FOR PORTION OF valid FROM '{since}' TO '{until}' WHERE id = {key}"),
                    &format!("INSERT INTO oracle VALUES ({key}, {price}, '{since}', '{until}')"),
                    &format!(
                        "INSERT INTO facts VALUES ({key}, {price}, '{since}', {of_fact}) ON DUPLICATE KEY UPDATE price = {price}, since = '{since}', until = {of_fact}"
                    ),
                ])
                .await;
        }
        scene.run(&["COMMIT"]).await;
    }
    scene.catches_up(&["facts"]).await;
    scene.ends_well(service);
    let ours: Vec<Version> = versions(&scene, "facts", &["id", "price"]).into_iter().map(version).collect();
    let all = "SELECT id, price, f, t, row_start, row_end FROM oracle FOR SYSTEM_TIME ALL";
    let rows = scene.client.rows(all).await;
    let theirs: Vec<Version> = rows
        .into_iter()
        .map(version)
        .map(|mut version| {
            // the end of its TIMESTAMPs is open
            if version.5.as_str() > "2037" {
                version.5 = OPEN_END.to_owned();
            }
            version
        })
        .collect();
    let mut found = 0;
    for key in 0..KEYS {
        for number in 0..transactions {
            let system = scene.client.value(&format!("SELECT FROM_UNIXTIME({})", first + 10 * number + 5)).await;
            for valid in (0..DAYS + 8).map(day).chain(["2035-01-01 00:10:00".to_owned()]) {
                let expected = answer(&theirs, &key.to_string(), &valid, &system);
                assert!(expected.len() <= 1, "{expected:?}");
                let said = answer(&ours, &key.to_string(), &valid, &system);
                assert_eq!(said, expected, "key {key} at {valid} as of {system}");
                found += said.len();
            }
        }
    }
    assert!(found > 1_000, "{found} answers are too few to prove anything");
    scene.pipeline.assert_calm_log();
}

fn version(row: Vec<Option<String>>) -> Version {
    let mut values = row.into_iter().map(Option::unwrap_or_default);
    let mut next = || values.next().unwrap_or_default();
    let (id, price) = (next(), next());
    let mut time = || without_zeros(&next());
    let (from, to, known, until) = (time(), time(), time(), time());
    (id, price, from, to, known, until)
}
