//! `on_change = "reapply"` where it is hard: more rows than the merge's memory holds, a kill inside the commit, several workers, children.

use super::of_source::{comes_to, shown};
use super::sales::sales;
use crate::mysql::{eventually, within};
use crate::service::Pipeline;
use std::collections::BTreeSet;
use std::time::Duration;

const TABLE: &str =
    "transform = 'SELECT t.id, t.location, t.note, c.name FROM input t LEFT JOIN country c ON t.location = c.country'\n";
const LOOKUP: &str = "[lookup.country]\nurl = 'file:country.csv'\non_change = 'reapply'\n";

/// Files of commits that have begun and not ended, in the table's timeline.
fn under_way(pipeline: &Pipeline, database: &str) -> BTreeSet<String> {
    let Ok(folder) = std::fs::read_dir(pipeline.lake().join(database).join("sales/.hoodie")) else { return BTreeSet::new() };
    let names: BTreeSet<String> = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let begun = names.iter().filter_map(|name| name.strip_suffix(".inflight").or(name.strip_suffix(".commit.requested")));
    begun
        .map(|name| name.trim_end_matches(".commit"))
        .filter(|name| !names.contains(&format!("{name}.commit")))
        .map(str::to_owned)
        .collect()
}

/// Twice what waits in memory, killed in the middle of the amending commit, more than once.
#[tokio::test]
async fn a_large_table_is_joined_anew_through_kills() {
    let (server, database, mut client) = sales("reapply_large").await;
    client.run("ALTER TABLE sales MODIFY note TEXT; ").await;
    client.run("SET SESSION cte_max_recursion_depth = 100000").await;
    client
        .run(
            "INSERT INTO sales WITH RECURSIVE n AS (SELECT 100 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 20099)
             SELECT id, IF(id % 4 = 0, 'Chad', 'India'), 2026, CONCAT_WS('', SHA2(id, 512), SHA2(-id, 512), SHA2(id + 0.5, 512), SHA2(id * 7 + 0.1, 512), SHA2(id * 9 + 0.1, 512), SHA2(id * 11 + 0.1, 512)) FROM n",
        )
        .await;
    // 15 MB of rows; 8 MiB wait in memory
    let pipeline =
        Pipeline::with_lake(server, "memory = \"16MiB\"\n", &format!("[[table]]\nsource = '{database}.sales'\n{TABLE}{LOOKUP}"));
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "country,name\nIndia,0\nChad,c\n").unwrap();
    let mut service = pipeline.run();
    let named = |name: &str| {
        let rows = pipeline.table(&database, "sales").values(None, &["location", "name"]).unwrap_or_default();
        let is_so = |row: &Vec<Option<String>>| match row[0].as_deref() {
            Some("India") => row[1].as_deref() == Some(name),
            Some("Chad") => row[1].as_deref() == Some("c"),
            _ => row[1].is_none(),
        };
        rows.len() == 20005 && rows.iter().all(is_so)
    };
    let patience = Duration::from_secs(120);
    assert!(within(patience, async || named("0")).await, "{}", pipeline.log_tail());
    let mut met = 0;
    for round in 1..=3 {
        let before = under_way(&pipeline, &database);
        let committed = pipeline.table(&database, "sales").instants().len();
        std::fs::write(&file, format!("country,name\nIndia,{round}\nChad,c\n")).unwrap();
        let name = round.to_string();
        // in the middle of it, or, if that was missed, right behind
        let is_met = within(patience, async || {
            let begun = under_way(&pipeline, &database).difference(&before).next().is_some();
            met += u32::from(begun);
            // to read all rows takes long: only where there is something new
            begun || (pipeline.table(&database, "sales").instants().len() > committed && named(&name))
        });
        assert!(is_met.await, "{}", pipeline.log_tail());
        service.kill();
        service = pipeline.run();
        assert!(within(patience, async || named(&name)).await, "round {round}\n{}", pipeline.log_tail());
    }
    assert!(met > 0, "no commit was met");
    let positions = shown(&pipeline, &database, "sales", &["_position"]).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(positions.len(), 1, "all rows are still the snapshot's: {positions:?}");
    let listed = pipeline.ok(&["verify"]);
    assert!(listed.contains("equal"), "{listed}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// A child has the elements of its parent's rows, whichever way these change; a history of it a version more.
#[tokio::test]
async fn children_follow_what_is_joined_anew() {
    let (server, database, mut client) = sales("reapply_children").await;
    client.run("DELETE FROM sales WHERE id > 2").await;
    let table = "transform = '''SELECT t.id, t.location, concat('[{\"sku\": \"', c.name, '\"}]') AS doc FROM input t LEFT JOIN country c ON t.location = c.country'''\n";
    let children = format!("[table.children.doc]\nname = '{database}.items'\ncolumns = {{ sku = 'string' }}\n");
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\n{table}{children}{LOOKUP}"));
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "country,name\nIndia,IN\nChad,TD\n").unwrap();
    let service = pipeline.run();
    let items = async |expected: &[&str]| comes_to(&pipeline, &database, "items", &["id", "sku"], expected).await;
    items(&["1 IN", "2 TD"]).await;
    // the source says nothing meanwhile
    std::fs::write(&file, "country,name\nIndia,IND\nChad,TD\n").unwrap();
    items(&["1 IND", "2 TD"]).await;
    service.kill();
    std::fs::write(&file, "country,name\nIndia,IND\nChad,TCD\n").unwrap();
    let service = pipeline.run();
    items(&["1 IND", "2 TCD"]).await;
    client.run("DELETE FROM sales WHERE id = 1").await;
    items(&["2 TCD"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// Of several workers each joins its own tables anew, also one that takes a table over whose lookup changed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_join_their_tables_anew() {
    let (server, database, mut client) = sales("reapply_workers").await;
    for number in 0..3 {
        client.run_all(&format!("CREATE TABLE sales{number} LIKE sales; INSERT INTO sales{number} SELECT * FROM sales")).await;
    }
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales*'\n{TABLE}{LOOKUP}"));
    pipeline.set_config(&pipeline.config().replace("[state]", "[state]\nlease_duration = \"1s\""));
    let file = pipeline.path().join("country.csv");
    let write = |name: &str| std::fs::write(&file, format!("country,name\nIndia,{name}\n")).unwrap();
    write("0");
    let capture = pipeline.start(&["capture"]);
    eventually("there is a stream", async || pipeline.path().join("data/stream/stream.json").exists()).await;
    let mut workers = vec![pipeline.start(&["merge"]), pipeline.start(&["merge"])];
    let expect = async |name: &str| {
        let rows = [format!("1 {name}"), "2 NULL".into(), "3 NULL".into(), "4 NULL".into(), format!("5 {name}")];
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        for table in ["sales", "sales0", "sales1", "sales2"] {
            comes_to(&pipeline, &database, table, &["id", "name"], &rows).await;
        }
    };
    expect("0").await;
    for round in 1..=3 {
        let leaving = workers.remove(0);
        write(&format!("a{round}"));
        leaving.kill();
        workers.push(pipeline.start(&["merge"]));
        expect(&format!("a{round}")).await;
        write(&format!("b{round}"));
        expect(&format!("b{round}")).await;
    }
    for service in workers.into_iter().chain([capture]) {
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    pipeline.assert_calm_log();
}
