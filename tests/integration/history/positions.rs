//! Several tables at one position of the source, and a table together with its history.

use crate::capture::Scene;
use crate::mysql::{Flavour, Server};
use crate::service::Pipeline;
use std::fs;

/// Two tables, the second with a history.
async fn scene(topic: &str) -> Scene {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let rules = format!("[[table]]\nsource = \"{database}.plain\"\n[[table]]\nsource = \"{database}.k*\"\nhistory = true\n");
    let pipeline = Pipeline::new(server, &rules);
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    Scene { server, database, pipeline, client }
}

fn counts(scene: &Scene, sql: &str, options: &[&str]) -> Vec<String> {
    let sql = sql.replace("DB", &scene.database);
    let out = scene.pipeline.ok(&[&["query", &sql, "--format", "csv"], options].concat());
    out.lines().skip(1).map(str::to_owned).collect()
}

const BOTH: &str = "SELECT (SELECT count(*) FROM DB.plain) a, (SELECT count(*) FROM DB.kept) b";

#[tokio::test]
async fn all_tables_at_one_position() {
    let mut scene = scene("positions").await;
    scene.run(&["CREATE TABLE plain (id INT PRIMARY KEY)", "CREATE TABLE kept (id INT PRIMARY KEY)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["plain", "kept"]).await;
    let mut positions = Vec::new();
    for id in 1..=4 {
        scene
            .run(&["BEGIN", &format!("INSERT INTO plain VALUES ({id})"), &format!("INSERT INTO kept VALUES ({id})"), "COMMIT"])
            .await;
        scene.catches_up(&["plain", "kept"]).await;
        let plain = scene.pipeline.table(&scene.database, "plain");
        let last = plain.commit(&plain.instants().pop().unwrap());
        positions.push(last["extraMetadata"]["binlake.position"].as_str().unwrap().to_owned());
    }
    // the one goes on, the other doesn't
    scene.run(&["INSERT INTO kept VALUES (50)"]).await;
    scene.catches_up(&["kept"]).await;
    scene.ends_well(service);
    for (number, position) in positions.iter().enumerate() {
        let number = number + 1;
        let expected = [format!("{number},{number}")];
        assert_eq!(counts(&scene, BOTH, &["--at-position", position]), expected, "{position}");
        let known = "SELECT count(*) FROM as_of('DB.kept', NULL, NULL) h, (SELECT count(*) FROM DB.plain)";
        assert_eq!(counts(&scene, known, &["--at-position", position]), [number.to_string()]);
    }
    assert_eq!(counts(&scene, BOTH, &["--at-position", "latest"]), ["4,5"]);
    let beyond = "00000000-0000-0000-0000-000000000001:1";
    let sql = BOTH.replace("DB", &scene.database);
    let answer = scene.pipeline.answer(&["query", &sql, "--at-position", beyond]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("hasn't come to that position") && answer.err.contains("newest="), "{}", answer.err);
    let answer = scene.pipeline.answer(&["query", &sql, "--at-position", "yesterday"]);
    assert!(answer.code == 2 && answer.err.contains("no position of the source"), "{}", answer.err);
    asked_between_the_two(&scene);
}

/// The table's last commit hasn't appeared yet, its history's has.
fn asked_between_the_two(scene: &Scene) {
    let together = "SELECT (SELECT count(*) FROM DB.kept) a, (SELECT count(*) FROM DB.kept_history) b, \
                    (SELECT count(*) FROM as_of('DB.kept', NULL, NULL)) c";
    assert_eq!(counts(scene, together, &[]), ["5,5,5"]);
    let kept = scene.pipeline.table(&scene.database, "kept");
    let with_rows =
        |instant: &String| kept.commit(instant)["partitionToWriteStats"].as_object().is_some_and(|stats| !stats.is_empty());
    let instants = kept.instants();
    let first_gone = instants.iter().rposition(with_rows).unwrap();
    for instant in &instants[first_gone..] {
        for action in ["commit", "replacecommit"] {
            let _ = fs::remove_file(kept.folder().join(format!(".hoodie/{instant}.{action}")));
        }
    }
    assert_eq!(counts(scene, "SELECT count(*) FROM DB.kept_history", &[]), ["5"], "a history alone is as of its last commit");
    assert_eq!(counts(scene, together, &[]), ["4,4,4"]);
}

#[tokio::test]
async fn histories_between_two_commits() {
    let mut scene = scene("positions_between").await;
    scene.run(&["CREATE TABLE plain (id INT PRIMARY KEY)", "CREATE TABLE kept (id INT PRIMARY KEY, v INT)"]).await;
    scene.run(&["CREATE TABLE kin (id INT PRIMARY KEY, v INT)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["plain", "kept", "kin"]).await;
    scene.ends_well(service);
    let mut positions = Vec::new();
    for id in 1..=5 {
        let of_plain = format!("INSERT INTO plain VALUES ({id})");
        let of_kept = format!("INSERT INTO kept VALUES ({id}, 0)");
        let of_kin = format!("INSERT INTO kin VALUES ({id}, {id}), (10, {id}) ON DUPLICATE KEY UPDATE v = {id}");
        scene.run(&["BEGIN", &of_plain, &of_kept, &of_kin, "COMMIT"]).await;
        positions.push(scene.client.value("SELECT @@gtid_executed").await);
    }
    scene.run(&["DELETE FROM kept WHERE id = 5"]).await;
    let deleted = scene.client.value("SELECT @@gtid_executed").await;
    scene.run(&["INSERT INTO kept VALUES (7, 0)"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["plain", "kept", "kin"]).await;
    scene.ends_well(service);
    let both = "SELECT (SELECT count(*) FROM DB.kept) a, (SELECT max(v) FROM DB.kin) b";
    for (number, position) in positions.iter().enumerate().take(4) {
        let expected = [format!("{},{}", number + 1, number + 1)];
        assert_eq!(counts(&scene, both, &["--at-position", position]), expected, "{position}");
    }
    // a deletion leaves no position, so that the moment just before it and the one behind can't be told apart
    let answer = |sql: &str, position: &str| {
        let answer = scene.pipeline.answer(&["query", &sql.replace("DB", &scene.database), "--at-position", position]);
        assert_eq!(answer.code, 2, "{}{}", answer.out, answer.err);
        answer.err
    };
    assert!(answer(both, &deleted).contains("can't be seen together at that position"));
    // without a history only commits tell
    let said = answer("SELECT * FROM DB.plain", &positions[1]);
    assert!(said.contains("table=") && said.contains("plain") && said.contains("there are "), "{said}");
}
