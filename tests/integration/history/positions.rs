//! Several tables at one position of the source, and a table together with its history.

use crate::capture::Scene;
use crate::mysql::{Flavour, Server};
use crate::service::Pipeline;
use std::fs;

/// Two tables, the second with a history.
async fn scene(flavour: Flavour, topic: &str) -> Scene {
    let server = Server::shared(flavour);
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
    let mut scene = scene(Flavour::MySql, "positions").await;
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
    histories_between_commits(Flavour::MySql, "positions_between", "SELECT @@gtid_executed").await;
}

/// Its clock counts seconds, in which many transactions are.
#[tokio::test]
async fn histories_between_two_commits_of_mariadb() {
    histories_between_commits(Flavour::MariaDb, "positions_mariadb", "SELECT @@gtid_binlog_pos").await;
}

async fn histories_between_commits(flavour: Flavour, topic: &str, position_of: &str) {
    let mut scene = scene(flavour, topic).await;
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
        positions.push((scene.client.value(position_of).await, format!("{id},{id}")));
    }
    // deletions, one beside another and beside what other tables get, and a truncation
    for (statement, expected) in [
        ("DELETE FROM kept WHERE id = 5", "4,5"),
        ("DELETE FROM kept WHERE id = 4", "3,5"),
        ("INSERT INTO kin VALUES (6, 6)", "3,6"),
        ("UPDATE kept SET v = 1 WHERE id = 3", "3,6"),
        ("TRUNCATE TABLE kept", "0,6"),
        ("INSERT INTO kept VALUES (7, 0)", "1,6"),
    ] {
        scene.run(&[statement]).await;
        positions.push((scene.client.value(position_of).await, expected.to_owned()));
    }
    let service = scene.pipeline.run();
    scene.catches_up(&["plain", "kept", "kin"]).await;
    scene.ends_well(service);
    let both = "SELECT (SELECT count(*) FROM DB.kept) a, (SELECT max(v) FROM DB.kin) b";
    for (position, expected) in &positions {
        assert_eq!(counts(&scene, both, &["--at-position", position]), std::slice::from_ref(expected), "{position}");
    }
    let answer = |sql: &str, position: &str| {
        let answer = scene.pipeline.answer(&["query", &sql.replace("DB", &scene.database), "--at-position", position]);
        assert_eq!((answer.code, answer.err.lines().count()), (2, 1), "{}{}", answer.out, answer.err);
        answer.err
    };
    // without a history only commits tell
    let said = answer("SELECT * FROM DB.plain", &positions[1].0);
    assert!(said.contains("table=") && said.contains("plain") && said.contains("there are "), "{said}");
    // which transaction has deleted only its commit says: once that is archived nobody can tell, but right beside it alone
    let history = scene.pipeline.table(&scene.database, "kept_history");
    for instant in history.instants() {
        let path = history.folder().join(format!(".hoodie/{instant}.commit"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains("binlake.ends") {
            fs::write(&path, text.replace("binlake.ends", "binlake.gone")).unwrap();
        }
    }
    let said = answer(both, &positions[5].0);
    assert!(said.contains("can't be seen together at that position") && said.contains("kept"), "{said}");
    for number in [0, 3, 10] {
        let (position, expected) = &positions[number];
        assert_eq!(counts(&scene, both, &["--at-position", position]), std::slice::from_ref(expected), "{position}");
    }
}
