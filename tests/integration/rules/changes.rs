//! One service, and each kind of rule.

use super::{MAPPING, Stage, of_era};
use crate::mysql::free_address;
use crate::surface::{ask, request};
use crate::transforms::{comes_to, shown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transform_changes_at_a_cut_and_is_rolled_back() {
    let mut stage = Stage::new("rules_transform", &["t"], |database| of_era(&format!("{database}.t"), "one")).await;
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &stage.database, "t", &["id", "era"], &["1 one", "2 one"]).await;
    stage.change("t").await;
    stage.write(&of_era(&format!("{}.t", stage.database), "two"));
    let dry = stage.pipeline.ok(&["apply", "--dry-run"]);
    assert!(dry.contains("~ table") && dry.contains("'two' AS era") && dry.lines().all(|line| line.chars().count() <= 80), "{dry}");
    assert_eq!(stage.effects().len(), 0, "nothing was proposed");
    let applied = stage.apply(&["t"], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    assert!(applied.out.contains("revision 2 is proposed\nin force since cut "), "{}", applied.out);
    stage.change("t").await;
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &["one", "two"]).await;
    assert_eq!(stage.pipeline.ok(&["apply"]).trim(), "no change: revision 2 is in force");
    // another column, which the rules of before don't give
    let wide = of_era(&format!("{}.t", stage.database), "three").replace("AS era", "AS era, 7 AS extra");
    stage.write(&wide);
    assert_eq!(stage.apply(&["t"], &[]).code, 0);
    stage.change("t").await;
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &["one", "two", "three"]).await;
    let rolled_back = stage.apply(&["t"], &["--rollback"]);
    assert_eq!(rolled_back.code, 0, "{}{}", rolled_back.out, rolled_back.err);
    stage.change("t").await;
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &["one", "two", "three", "two"]).await;
    // the column stays; rows since then have nothing in it
    let rows = shown(&stage.pipeline, &stage.database, "t", &["era", "extra"]);
    assert!(rows.contains(&"three 7".to_owned()) && rows.contains(&"two NULL".to_owned()), "{rows:?}");
    // the file says three still, and doesn't count: it was seen, and rolled back since
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    let service = stage.pipeline.run();
    stage.change("t").await;
    stage.each_row_is_of_its_era("t", &effects, &["one", "two", "three", "two"]).await;
    // edited, it counts from a cut of the next start on
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.write(&of_era(&format!("{}.t", stage.database), "four"));
    let service = stage.pipeline.run();
    crate::mysql::eventually("the file counts", async || stage.effects().len() == 4).await;
    stage.change("t").await;
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &["one", "two", "three", "two", "four"]).await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    let listed = stage.pipeline.ok(&["rules"]);
    assert!(listed.contains("in force") && listed.lines().count() == 6, "{listed}");
    let shown = stage.pipeline.ok(&["rules", "3"]);
    assert!(shown.contains("7 AS extra") && shown.contains("replaced"), "{shown}");
    stage.pipeline.assert_calm_log();
}

/// Of a table as the source has it, with a history: columns that a transform leaves out stay, empty in new rows, and are filled again without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transform_that_leaves_columns_out_comes_and_goes() {
    let table = |database: &str, more: &str| format!("[[table]]\nsource = '{database}.t'\nhistory = true\n{more}");
    let mut stage = Stage::new("rules_columns", &["t"], |database| table(database, "")).await;
    let database = stage.database.clone();
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &database, "t", &["id", "value"], &["1 one", "2 two"]).await;
    stage.write(&table(&database, "transform = 'SELECT id, upper(value) AS loud FROM input'\n"));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    // also where nothing came by the new rules before others follow
    assert_eq!(stage.apply(&[], &["--rollback"]).code, 0);
    stage.client.run("INSERT INTO t VALUES (3, 'three')").await;
    comes_to(&stage.pipeline, &database, "t", &["id", "value"], &["1 one", "2 two", "3 three"]).await;
    assert_eq!(stage.apply(&[], &["--rollback"]).code, 0);
    stage.client.run("UPDATE t SET value = 'four' WHERE id = 3").await;
    let columns = ["id", "value", "loud"];
    comes_to(&stage.pipeline, &database, "t", &columns, &["1 one NULL", "2 two NULL", "3 NULL FOUR"]).await;
    service.kill();
    let service = stage.pipeline.run();
    stage.client.run("UPDATE t SET value = 'five' WHERE id = 2").await;
    comes_to(&stage.pipeline, &database, "t", &columns, &["1 one NULL", "2 NULL FIVE", "3 NULL FOUR"]).await;
    assert_eq!(stage.apply(&[], &["--rollback"]).code, 0);
    stage.client.run("UPDATE t SET value = 'six' WHERE id = 2").await;
    comes_to(&stage.pipeline, &database, "t", &columns, &["1 one NULL", "2 six NULL", "3 NULL FOUR"]).await;
    let mut versions = shown(&stage.pipeline, &database, "t_history", &columns);
    versions.dedup();
    assert_eq!(versions, ["1 one NULL", "2 NULL FIVE", "2 six NULL", "2 two NULL", "3 NULL FOUR", "3 three NULL"]);
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}

/// What a transform gave stays without it, empty in new rows, also where rows whose valid time can't be read become dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transform_goes_beside_a_history_that_makes_dead_letters() {
    let table = |database: &str, more: &str| format!("[[table]]\nsource = '{database}.t'\n{more}");
    let loud = "history = { valid_time = 'value' }\ntransform = 'SELECT *, upper(value) AS loud FROM input'\n";
    let mut stage = Stage::new("rules_letters", &["t"], |database| table(database, loud)).await;
    let database = stage.database.clone();
    let service = stage.pipeline.run();
    let columns = ["id", "value", "loud"];
    comes_to(&stage.pipeline, &database, "t", &columns, &["1 one ONE", "2 two TWO"]).await;
    stage.write(&table(&database, "history = { valid_time = 'value', on_invalid_valid_time = 'dead_letter' }\n"));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    stage.client.run("INSERT INTO t VALUES (3, '2026-02-01'), (4, 'no time')").await;
    let letters = async |expected: &[&str]| {
        crate::mysql::eventually("the dead letters", async || {
            let listed = stage.pipeline.ok(&["dead-letter", "list", "--table", &format!("{database}.t"), "--format", "json"]);
            let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
            let records: Vec<&str> = listed.iter().filter_map(|letter| letter["record"].as_str()).collect();
            records == expected
        })
        .await;
    };
    comes_to(&stage.pipeline, &database, "t", &columns, &["1 one ONE", "2 two TWO", "3 2026-02-01 NULL"]).await;
    letters(&[r#"{"id":4,"value":"no time"}"#]).await;
    service.kill();
    let service = stage.pipeline.run();
    stage.client.run_all("UPDATE t SET value = '2026-03-01' WHERE id = 4; UPDATE t SET value = 'nor this' WHERE id = 1").await;
    comes_to(&stage.pipeline, &database, "t", &columns, &["2 two TWO", "3 2026-02-01 NULL", "4 2026-03-01 NULL"]).await;
    let mut versions = shown(&stage.pipeline, &database, "t_history", &columns);
    versions.dedup();
    assert_eq!(versions, ["1 one ONE", "2 two TWO", "3 2026-02-01 NULL", "4 2026-03-01 NULL"]);
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_lookups_and_deliveries_come_and_go() {
    let table = |database: &str, name: &str| format!("[[table]]\nsource = '{database}.{name}'\n");
    let mut stage = Stage::new("rules_tables", &["a", "b"], |database| table(database, "a")).await;
    let database = stage.database.clone();
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &database, "a", &["id", "value"], &["1 one", "2 two"]).await;
    // b comes, with what it has; a joins a lookup
    std::fs::write(stage.pipeline.path().join("names.csv"), "id,name\n1,Ada\n2,Bo\n").unwrap();
    let joined = format!(
        "[[table]]\nsource = '{database}.a'\ntransform = 'SELECT t.*, n.name FROM input t LEFT JOIN names n ON t.id = n.id'\n\
         [lookup.names]\nurl = 'file:names.csv'\ncolumns = {{ id = 'int', name = 'string' }}\n"
    );
    stage.write(&format!("{joined}{}", table(&database, "b")));
    let applied = stage.apply(&["a"], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    assert!(applied.out.contains("+ lookup names") && applied.out.contains(&format!("+ table {database}.b")), "{}", applied.out);
    comes_to(&stage.pipeline, &database, "b", &["id", "value"], &["1 one", "2 two"]).await;
    stage.client.run_all("UPDATE a SET value = 'new' WHERE id = 2; INSERT INTO b VALUES (3, 'three')").await;
    comes_to(&stage.pipeline, &database, "b", &["id", "value"], &["1 one", "2 two", "3 three"]).await;
    let has = async |row: &str| {
        crate::mysql::eventually(row, async || {
            shown(&stage.pipeline, &database, "a", &["id", "value", "name"]).contains(&row.into())
        })
        .await;
    };
    has("2 new Bo").await;
    // another lookup's content by another file; b goes
    std::fs::write(stage.pipeline.path().join("others.csv"), "id,name\n2,Cy\n").unwrap();
    stage.write(&joined.replace("file:names.csv", "file:others.csv"));
    let applied = stage.apply(&["a"], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    assert!(
        applied.out.contains(&format!("- table {database}.b")) && applied.out.contains("file:names.csv\" -> \"file:others.csv"),
        "{}",
        applied.out
    );
    stage.client.run_all("UPDATE a SET value = 'newer' WHERE id = 2; INSERT INTO b VALUES (4, 'unseen')").await;
    let has = async |row: &str| {
        crate::mysql::eventually(row, async || {
            shown(&stage.pipeline, &database, "a", &["id", "value", "name"]).contains(&row.into())
        })
        .await;
    };
    has("2 newer Cy").await;
    assert_eq!(shown(&stage.pipeline, &database, "b", &["id"]), ["1", "2", "3"]);
    // a delivery comes, of a table that is captured already: it has all rows
    std::fs::write(stage.pipeline.path().join("stock.json"), MAPPING).unwrap();
    let delivery = format!("[[deliver]]\nsource = '{database}.a'\nto = 'sqlite:./data/items.db'\nmapping = 'stock.json'\n");
    stage.write(&format!("{}{delivery}", joined.replace("file:names.csv", "file:others.csv")));
    let applied = stage.apply(&["a"], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    stage.change("a").await;
    let expected = stage.rows_at_source("a").await;
    crate::mysql::eventually("all rows are delivered", async || stage.items() == expected).await;
    // b comes back, with what happened to it meanwhile; the delivery goes
    stage.write(&format!("{joined}{}", table(&database, "b")));
    assert_eq!(stage.apply(&["a"], &[]).code, 0);
    stage.client.run("DELETE FROM b WHERE id = 3").await;
    comes_to(&stage.pipeline, &database, "b", &["id", "value"], &["1 one", "2 two", "4 unseen"]).await;
    stage.pipeline.catches_up(stage.server, &database, "b").await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_interface_shows_and_changes_the_rules() {
    let mut stage = Stage::new("rules_admin", &["t"], |database| of_era(&format!("{database}.t"), "one")).await;
    let address = free_address();
    stage.pipeline.set_config(&stage.pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &stage.database, "t", &["id", "era"], &["1 one", "2 one"]).await;
    stage.change("t").await;
    let post = async |path: &str, kind: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}",
            body.len()
        );
        request(&address, &format!("{head}\r\n\r\n{body}")).await.unwrap()
    };
    let two = of_era(&format!("{}.t", stage.database), "two");
    let (status, said) = post("/rules?dry_run=true", "application/toml", &two).await;
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("'two' AS era") && stage.effects().is_empty(), "{said}");
    assert_eq!(post("/rules", "text/plain", &two).await.0, 415);
    let (status, said) = post("/rules", "application/toml", "[[table]]\nsource = 'a.*'\nkye = ['x']\n").await;
    assert!(status == 422 && said.contains("unknown key `kye`"), "{status} {said}");
    let (status, said) = post("/rules", "application/toml", "[lake]\nurl = 's3://x'\n").await;
    assert!(status == 422 && said.contains("key=lake.url"), "{status} {said}");
    let (status, said) = post("/rules", "application/toml", &two).await;
    assert_eq!(status, 202, "{said}");
    crate::mysql::eventually("it is in force", async || stage.effects().len() == 1).await;
    stage.change("t").await;
    let (status, said) = post("/rules/rollback", "application/json", "{}").await;
    assert_eq!(status, 202, "{said}");
    crate::mysql::eventually("it is in force", async || stage.effects().len() == 2).await;
    stage.change("t").await;
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &["one", "two", "one"]).await;
    let (_, listed) = ask(&address, "/rules").await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed["in_force"], &listed["revisions"][0]["origin"]), (&3.into(), &"revision 1".into()));
    assert!(listed["revisions"][1]["author"].as_str().unwrap().starts_with("admin 127.0.0.1"), "{listed}");
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}
