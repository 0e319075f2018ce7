//! Histories and children that come and go while the service runs.

use super::Stage;
use crate::mysql::eventually;
use crate::transforms::{comes_to, shown};

/// What `binlake tables` says since when a history has every change.
fn history_start(stage: &Stage) -> Option<String> {
    let listed = stage.pipeline.ok(&["tables", "--format", "json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let history = format!("{}.t_history", stage.database);
    listed.iter().find(|table| table["table"] == history)?["history_start"].as_str().map(str::to_owned)
}

/// All versions that the history ever got, with their values.
fn versions(stage: &Stage) -> Vec<String> {
    shown(&stage.pipeline, &stage.database, "t_history", &["id", "value"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_comes_from_the_rows_that_are_there_and_goes() {
    let table = |database: &str, more: &str| format!("[[table]]\nsource = '{database}.t'\n{more}");
    let mut stage = Stage::new("rules_history", &["t"], |database| table(database, "")).await;
    let database = stage.database.clone();
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &database, "t", &["id", "value"], &["1 one", "2 two"]).await;
    stage.client.run("UPDATE t SET value = 'before' WHERE id = 1").await;
    comes_to(&stage.pipeline, &database, "t", &["id", "value"], &["1 before", "2 two"]).await;
    assert_eq!(history_start(&stage), None);
    // it comes, with the rows of now; what they were before is unknown, and it says since when all is known
    stage.write(&table(&database, "history = true\n"));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    eventually("the history has the rows that are there", async || versions(&stage) == ["1 before", "2 two"]).await;
    let start = history_start(&stage).expect("it says since when it has every change");
    let committed = shown(&stage.pipeline, &database, "t", &["_commit_ts"]);
    assert!(committed.iter().all(|time| start.replace('T', " ").as_str() > &time[..19]), "{start} {committed:?}");
    stage.client.run("UPDATE t SET value = 'after' WHERE id = 1").await;
    stage.client.run("DELETE FROM t WHERE id = 2").await;
    // the row's two versions: open, and closed; as it was known before, and as it is known now
    eventually("versions follow", async || versions(&stage).iter().any(|version| version == "1 after")).await;
    eventually("the deleted row's end", async || versions(&stage).len() == 5).await;
    let grown = versions(&stage);
    assert_eq!(history_start(&stage), Some(start.clone()));
    // it goes, and grows no more
    stage.write(&table(&database, ""));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    stage.client.run("UPDATE t SET value = 'unseen' WHERE id = 1").await;
    comes_to(&stage.pipeline, &database, "t", &["id", "value"], &["1 unseen"]).await;
    assert_eq!(versions(&stage), grown);
    // it comes back, and claims nothing of what it didn't see
    stage.write(&table(&database, "history = true\n"));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    eventually("it begins anew", async || history_start(&stage).is_some_and(|again| again > start)).await;
    eventually("with the row of now", async || versions(&stage).iter().any(|version| version == "1 unseen")).await;
    stage.client.run("UPDATE t SET value = 'last' WHERE id = 1").await;
    eventually("versions follow", async || versions(&stage).iter().any(|version| version == "1 last")).await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_table_comes_with_what_its_parents_have_and_goes() {
    let mut stage = Stage::new("rules_children", &[], |_| String::new()).await;
    let database = stage.database.clone();
    let orders = |more: &str| format!("[[table]]\nsource = '{database}.orders'\n{more}");
    let children = format!("[table.children.doc]\nname = '{database}.items'\ncolumns = {{ sku = 'string', qty = 'int' }}\n");
    stage
        .client
        .run_all("CREATE TABLE orders (id INT PRIMARY KEY, doc JSON); INSERT INTO orders VALUES (1, '[{\"sku\": \"a\", \"qty\": 1}, {\"sku\": \"b\"}]'), (2, NULL)")
        .await;
    stage.write(&orders(""));
    let service = stage.pipeline.run();
    stage.pipeline.catches_up(stage.server, &database, "orders").await;
    let items = |stage: &Stage| shown(&stage.pipeline, &database, "items", &["id", "_index", "sku", "qty"]);
    assert!(items(&stage).is_empty());
    // it comes: the elements of all rows that are there, and of those that follow
    stage.write(&orders(&children));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    eventually("the elements that are there", async || items(&stage) == ["1 0 a 1", "1 1 b NULL"]).await;
    stage.client.run("UPDATE orders SET doc = '[{\"sku\": \"c\", \"qty\": 3}]' WHERE id = 2").await;
    stage.client.run("UPDATE orders SET doc = '[{\"sku\": \"b\"}]' WHERE id = 1").await;
    eventually("elements follow", async || items(&stage) == ["1 0 b NULL", "2 0 c 3"]).await;
    // it goes, and stays as it is
    stage.write(&orders(""));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    stage.client.run("UPDATE orders SET doc = '[{\"sku\": \"unseen\"}]' WHERE id = 1").await;
    stage.pipeline.catches_up(stage.server, &database, "orders").await;
    assert_eq!(items(&stage), ["1 0 b NULL", "2 0 c 3"]);
    // it comes back as the parents are by now
    stage.write(&orders(&children));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    eventually("written anew", async || items(&stage) == ["1 0 unseen NULL", "2 0 c 3"]).await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}
