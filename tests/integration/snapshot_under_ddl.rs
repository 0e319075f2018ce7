//! Tables that are altered, emptied and dropped while their snapshot is being taken: it is taken again, of what they are then.

use crate::mysql::{Client, Options, Server, eventually};
use crate::service::Pipeline;

/// A server with the database `d` and a user who may take no lock, so that a table's writer doesn't hold up the snapshot's start.
async fn server_without_locks() -> (Server, Client, String) {
    let server = Server::start(Options::default());
    let mut root = server.client().await;
    root.run_all(
        "CREATE DATABASE d;
         CREATE USER fenced@'%' IDENTIFIED BY 'x';
         GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO fenced@'%';
         USE d",
    )
    .await;
    let url = format!("mysql://fenced:x@127.0.0.1:{}", server.port());
    (server, root, url)
}

fn pipeline(url: &str) -> Pipeline {
    let pipeline = Pipeline::with_source(url, "", "[[table]]\nsource = \"d.*\"\n");
    pipeline.set_config(&pipeline.config().replace("[source]\n", "[source]\nsnapshot_connections = 1\n"));
    pipeline
}

/// Waits until a connection waits for a lock in this statement.
async fn waits(root: &mut Client, statement: &str) {
    let is_it = |row: &Vec<Option<String>>| {
        let says = |column: usize, what: &str| row[column].as_deref().is_some_and(|text| text.starts_with(what));
        says(7, statement) && says(6, "Waiting")
    };
    eventually(statement, async || root.rows("SHOW FULL PROCESSLIST").await.iter().any(is_it)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_before_the_point_is_planned_anew() {
    let server = Server::start(Options::default());
    server.create_repl_user().await;
    let mut writer = server.client().await;
    writer
        .run_all(
            "CREATE DATABASE d;
             USE d;
             CREATE TABLE grown (id INT PRIMARY KEY, v INT);
             INSERT INTO grown VALUES (1, 10), (2, 20);
             CREATE TABLE calm (id INT PRIMARY KEY);
             INSERT INTO calm VALUES (1);
             LOCK TABLES grown WRITE",
        )
        .await;
    let pipeline = pipeline(&server.repl_url());
    let run = pipeline.start(&["run"]);
    // the catalog is read, and the point isn't taken
    waits(&mut server.client().await, "FLUSH TABLES WITH READ LOCK").await;
    writer.run_all("ALTER TABLE grown ADD COLUMN w INT DEFAULT 7;\nINSERT INTO grown VALUES (3, 30, 31);\nUNLOCK TABLES").await;
    for table in ["grown", "calm"] {
        pipeline.catches_up(&server, "d", table).await;
    }
    writer.run("INSERT INTO grown VALUES (4, 40, 41)").await;
    pipeline.catches_up(&server, "d", "grown").await;
    assert!(run.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_or_emptied_under_the_snapshot_is_read_anew_and_what_is_dropped_stops() {
    let (server, mut root, url) = server_without_locks().await;
    root.run_all(
        "CREATE TABLE a_first (id INT PRIMARY KEY, v INT);
         INSERT INTO a_first VALUES (1, 1), (2, 2);
         CREATE TABLE altered LIKE a_first;
         INSERT INTO altered SELECT * FROM a_first;
         CREATE TABLE dropped LIKE a_first;
         CREATE TABLE emptied LIKE a_first;
         INSERT INTO emptied SELECT * FROM a_first;
         CREATE TABLE renamed LIKE a_first;
         LOCK TABLES a_first WRITE",
    )
    .await;
    let pipeline = pipeline(&url);
    let run = pipeline.start(&["run"]);
    let mut other = server.client().await;
    // the point is taken, and the first table is waited for
    waits(&mut other, "SELECT").await;
    other
        .run_all(
            "USE d;
             ALTER TABLE altered MODIFY v BIGINT, ADD COLUMN w VARCHAR(9) DEFAULT 'w' FIRST;
             INSERT INTO altered (id, v) VALUES (3, 1 << 40);
             TRUNCATE TABLE emptied;
             INSERT INTO emptied VALUES (9, 9);
             DROP TABLE dropped",
        )
        .await;
    root.run_all("UNLOCK TABLES;\nINSERT INTO a_first VALUES (3, 3)").await;
    for table in ["a_first", "altered", "emptied", "renamed"] {
        pipeline.catches_up(&server, "d", table).await;
    }
    other.run("UPDATE altered SET v = v + 1, w = 'x'").await;
    pipeline.catches_up(&server, "d", "altered").await;
    let log = pipeline.log();
    assert!(log.contains("the table was changed while its snapshot was read"), "{}", pipeline.log_tail());
    // it is stopped, unless it was gone before the stream knew it
    let stopped: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(stopped.iter().all(|line| line.contains("d.dropped")), "{stopped:?}");
    assert!(run.terminate().success(), "{}", pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_appears_with_rows_of_before_is_read_by_a_snapshot() {
    let (server, mut root, url) = server_without_locks().await;
    root.run_all(
        "CREATE TABLE known (id INT PRIMARY KEY);
         CREATE DATABASE other;
         CREATE TABLE other.filled (id INT PRIMARY KEY, v INT);
         INSERT INTO other.filled VALUES (1, 1), (2, 2);
         CREATE TABLE other.altered LIKE other.filled;
         INSERT INTO other.altered VALUES (1, 1)",
    )
    .await;
    let pipeline = pipeline(&url);
    let run = pipeline.start(&["run"]);
    pipeline.catches_up(&server, "d", "known").await;
    root.run_all(
        "RENAME TABLE other.filled TO d.shown;
         INSERT INTO shown VALUES (3, 3);
         ALTER TABLE other.altered RENAME TO d.altered;
         UPDATE altered SET v = 2;
         CREATE TABLE made (id INT PRIMARY KEY);
         INSERT INTO made VALUES (1);
         CREATE TABLE IF NOT EXISTS perhaps (id INT PRIMARY KEY);
         INSERT INTO perhaps VALUES (1), (2);
         CREATE TABLE other.swapped (id INT PRIMARY KEY, v INT);
         INSERT INTO other.swapped VALUES (7, 7);
         RENAME TABLE other.swapped TO d.swapped;
         INSERT INTO swapped VALUES (8, 8)",
    )
    .await;
    for table in ["shown", "altered", "made", "perhaps", "swapped"] {
        pipeline.catches_up(&server, "d", table).await;
    }
    let log = pipeline.log();
    // the others may have been met in the catalog, as the capture began anew for the first
    for (table, is_met) in [("shown", true), ("made", false)] {
        let line =
            log.lines().any(|line| line.contains("made before is read by a snapshot") && line.contains(&format!("d.{table} ")));
        assert_eq!(line, is_met, "{table}");
    }
    root.run_all("UPDATE shown SET v = v + 1;\nDELETE FROM swapped WHERE id = 7").await;
    for table in ["shown", "swapped"] {
        pipeline.catches_up(&server, "d", table).await;
    }
    assert!(run.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_may_not_be_read_is_stopped_at_its_first_event_and_the_others_go_on() {
    let server = Server::start(Options::default());
    let mut root = server.client().await;
    root.run_all(
        "CREATE DATABASE d;
         CREATE USER part@'%' IDENTIFIED BY 'x';
         GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO part@'%';
         USE d;
         CREATE TABLE open (id INT PRIMARY KEY);
         CREATE TABLE hidden (id INT PRIMARY KEY);
         INSERT INTO hidden VALUES (1);
         GRANT SELECT ON d.open TO part@'%'",
    )
    .await;
    let pipeline = pipeline(&format!("mysql://part:x@127.0.0.1:{}", server.port()));
    let run = pipeline.start(&["run"]);
    pipeline.catches_up(&server, "d", "open").await;
    root.run_all("INSERT INTO hidden VALUES (2);\nINSERT INTO open VALUES (1)").await;
    pipeline.catches_up(&server, "d", "open").await;
    eventually("the hidden table is stopped", async || {
        pipeline
            .log()
            .lines()
            .any(|line| line.contains("ERROR") && line.contains("d.hidden") && line.contains("grant SELECT on it"))
    })
    .await;
    root.run_all("GRANT SELECT ON d.hidden TO part@'%';\nINSERT INTO open VALUES (2)").await;
    pipeline.catches_up(&server, "d", "open").await;
    assert!(run.terminate().success(), "{}", pipeline.log_tail());
    assert!(pipeline.table("d", "hidden").instants().is_empty());
    assert_eq!(pipeline.answer(&["backfill", "--table", "d.hidden"]).code, 0, "{}", pipeline.log_tail());
    assert_eq!(pipeline.table("d", "hidden").values(None, &["id"]).unwrap().len(), 2);
}
