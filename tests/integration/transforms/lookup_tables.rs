//! Lookups that are tables of the same lake (`url = "table:…"`): joined as of the very cut where both come from one stream, whoever applies them.

use super::of_source::{comes_to, shown};
use super::sales::{JOIN, sales};
use crate::mysql::{Client, PATIENCE, eventually, within};
use crate::service::Pipeline;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

fn tables(database: &str, refresh: &str) -> String {
    format!(
        "[[table]]\nsource = '{database}.country'\n[[table]]\nsource = '{database}.sales'\n{JOIN}\
         [lookup.country]\nurl = 'table:{database}.country'\nrefresh = '{refresh}'\n"
    )
}

async fn countries(client: &mut Client, name: &str) {
    client
        .run_all(&format!(
            "CREATE TABLE country (countryname VARCHAR(40) PRIMARY KEY, combinedname VARCHAR(40)); INSERT INTO country VALUES ('India', '{name}')"
        ))
        .await;
}

#[tokio::test]
async fn another_replicated_table_is_joined() {
    let (server, database, mut client) = sales("lookup_table").await;
    countries(&mut client, "IN-India").await;
    let pipeline = Pipeline::new(server, &tables(&database, "100ms"));
    let service = pipeline.run();
    let columns = ["id", "location", "combinedname"];
    let expected = ["1 India IN-India", "2 Chad NULL", "3 NULL NULL", "4 USA NULL", "5 India IN-India"];
    comes_to(&pipeline, &database, "sales", &columns, &expected).await;
    let verified = pipeline.ok(&["verify"]);
    assert!(verified.contains("without combinedname (not of the source's row alone)"), "{verified}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

/// The other table has no commit yet when the copy begins.
#[tokio::test]
async fn a_first_backfill_joins_what_it_copies() {
    let (server, database, mut client) = sales("lookup_backfill").await;
    countries(&mut client, "IN-India").await;
    let pipeline = Pipeline::new(server, &tables(&database, "1h"));
    pipeline.ok(&["backfill"]);
    let columns = ["id", "location", "combinedname"];
    let expected = ["1 India IN-India", "2 Chad NULL", "3 NULL NULL", "4 USA NULL", "5 India IN-India"];
    assert_eq!(shown(&pipeline, &database, "sales", &columns), expected);
    client.run("UPDATE country SET combinedname = 'IN' WHERE countryname = 'India'").await;
    pipeline.ok(&["backfill", "--table", &format!("{database}.sales"), "--table", &format!("{database}.country")]);
    assert_eq!(shown(&pipeline, &database, "sales", &columns)[0], "1 India IN");
}

/// However seldom a lookup is read again, a commit of its table is news.
#[tokio::test]
async fn rows_are_joined_anew_when_the_other_table_has_a_commit() {
    let (server, database, mut client) = sales("lookup_anew").await;
    countries(&mut client, "IN-India").await;
    let pipeline = Pipeline::new(server, &format!("{}on_change = 'reapply'\n", tables(&database, "1h")));
    let service = pipeline.run();
    let columns = ["id", "location", "combinedname"];
    let rows = |name: &str, chad: &str| {
        [format!("1 India {name}"), format!("2 Chad {chad}"), "3 NULL NULL".into(), "4 USA NULL".into(), format!("5 India {name}")]
    };
    for (statement, name, chad) in [
        ("SELECT 1", "IN-India", "NULL"),
        ("UPDATE country SET combinedname = 'IN-IND' WHERE countryname = 'India'", "IN-IND", "NULL"),
        ("INSERT INTO country VALUES ('Chad', 'TD')", "IN-IND", "TD"),
    ] {
        client.run(statement).await;
        comes_to(&pipeline, &database, "sales", &columns, &rows(name, chad).each_ref().map(String::as_str)).await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// What was done to the other table beside its changes counts at once, though no commit brings anything.
#[tokio::test]
async fn rows_follow_a_joined_table_that_goes_back_or_is_erased_from() {
    for on_change in ["reapply", "keep"] {
        let (server, database, mut client) = sales(&format!("lookup_back_{on_change}")).await;
        countries(&mut client, "IN-India").await;
        let pipeline = Pipeline::new(server, &format!("{}on_change = '{on_change}'\n", tables(&database, "1h")));
        let service = pipeline.run();
        let columns = ["id", "location", "combinedname"];
        let rows = |first: &str, others: &[&str]| -> Vec<String> {
            let all = [
                format!("1 India {first}"),
                "2 Chad NULL".into(),
                "3 NULL NULL".into(),
                "4 USA NULL".into(),
                format!("5 India {first}"),
            ];
            let others = others.iter().zip(6..).map(|(name, id)| format!("{id} India {name}"));
            all.into_iter().chain(others).collect()
        };
        let sells = "INSERT INTO sales SELECT MAX(id) + 1, 'India', 2026, 'x' FROM sales";
        comes_to(&pipeline, &database, "sales", &columns, &rows("IN-India", &[]).iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        client.run("UPDATE country SET combinedname = 'WRONG'").await;
        client.run(sells).await;
        let was = if on_change == "keep" { "IN-India" } else { "WRONG" };
        comes_to(&pipeline, &database, "sales", &columns, &rows(was, &["WRONG"]).iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        let country = format!("{database}.country");
        let wrong = pipeline.table(&database, "country").instants().pop().unwrap();
        pipeline.ok(&["rollback", &country, &wrong, "--skip-changes"]);
        client.run(sells).await;
        let was = if on_change == "keep" { "WRONG" } else { "IN-India" };
        comes_to(
            &pipeline,
            &database,
            "sales",
            &columns,
            &rows("IN-India", &[was, "IN-India"]).iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
        pipeline.ok(&["erase", &country, "India"]);
        client.run(sells).await;
        let all = if on_change == "keep" {
            rows("IN-India", &["WRONG", "IN-India", "NULL"])
        } else {
            rows("NULL", &["NULL", "NULL", "NULL"])
        };
        comes_to(&pipeline, &database, "sales", &columns, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
        pipeline.assert_calm_log();
    }
}

/// Each transaction gives India another name and sells a ticket there.
async fn sell(client: &mut Client, first: u32, last: u32) {
    for id in first..=last {
        client
            .run_all(&format!(
                "BEGIN; UPDATE country SET combinedname = '{id}'; INSERT INTO sales (id, location) VALUES ({id}, 'India'); COMMIT"
            ))
            .await;
    }
}

/// Whatever a commit of the sales has, its last sale says the name of its own transaction.
fn assert_as_of_the_cuts(pipeline: &Pipeline, database: &str) {
    let mut last = BTreeMap::new();
    for row in pipeline.table(database, "sales").values(None, &["id", "combinedname"]).unwrap() {
        let number = |value: &Option<String>| value.as_ref().unwrap().parse::<u32>().unwrap();
        let latest = last.entry(number(&row[1])).or_insert(0);
        *latest = number(&row[0]).max(*latest);
    }
    assert!(last.len() > 2, "more than one commit: {last:?}");
    assert!(last.iter().all(|(name, sale)| name == sale), "{last:?}\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn a_table_of_the_same_loop_is_joined_as_of_the_very_cut() {
    let (server, database, mut client) = sales("lookup_cut").await;
    client.run("DELETE FROM sales").await;
    countries(&mut client, "0").await;
    let pipeline = Pipeline::new(server, &tables(&database, "1h"));
    let service = pipeline.run();
    let rows = || pipeline.table(&database, "sales").values(None, &["id"]).unwrap_or_default().len();
    // the first waits until the lookup was read; what comes then is committed while more comes
    for (first, last) in [(1, 1), (2, 150), (151, 300)] {
        sell(&mut client, first, last).await;
        eventually("all sales are there", async || rows() == last as usize).await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_as_of_the_cuts(&pipeline, &database);
    pipeline.assert_calm_log();
}

/// Workers come, are killed and are told to end, and tables move; those that are joined move together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_joined_as_of_the_very_cut_whoever_applies_it() {
    let (server, database, mut client) = sales("lookup_workers").await;
    client.run("DELETE FROM sales").await;
    countries(&mut client, "0").await;
    for number in 0..3 {
        client.run_all(&format!("CREATE TABLE other{number} (id INT PRIMARY KEY); INSERT INTO other{number} VALUES (1)")).await;
    }
    let others = format!("[[table]]\nsource = '{database}.other*'\n");
    let pipeline = Pipeline::new(server, &(others + &tables(&database, "1h")));
    pipeline.set_config(&pipeline.config().replace("[state]", "[state]\nlease_duration = \"1s\""));
    let capture = pipeline.start(&["capture"]);
    eventually("there is a stream", async || pipeline.path().join("data/stream/stream.json").exists()).await;
    let mut workers = vec![pipeline.start(&["merge"]), pipeline.start(&["merge"])];
    let rows = || pipeline.table(&database, "sales").values(None, &["id"]).unwrap_or_default().len();
    let mut last = 0;
    for round in 0..4 {
        sell(&mut client, last + 1, last + 40).await;
        let leaving = workers.remove(0);
        if round % 2 == 0 {
            leaving.kill();
        } else {
            assert!(leaving.terminate().success(), "{}", pipeline.log_tail());
        }
        workers.push(pipeline.start(&["merge"]));
        sell(&mut client, last + 41, last + 60).await;
        last += 60;
        let are_there = within(PATIENCE, async || rows() == last as usize);
        assert!(are_there.await, "round {round}: {} of {last}\n{}", rows(), pipeline.log_tail());
    }
    for service in workers.into_iter().chain([capture]) {
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    assert_as_of_the_cuts(&pipeline, &database);
    pipeline.assert_calm_log();
}

/// Tables that join each other in a ring: none waits for ever.
#[tokio::test]
async fn tables_that_join_each_other_go_on() {
    let (server, database, mut client) = sales("lookup_ring").await;
    for name in ["a", "b", "c"] {
        client.run(&format!("CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")).await;
        client.run(&format!("INSERT INTO {name} VALUES (1, 0)")).await;
    }
    let table = |name: &str, joined: &str| {
        format!(
            "[[table]]\nsource = '{database}.{name}'\ntransform = 'SELECT t.id, t.v, j.v AS w FROM input t LEFT JOIN {joined} j ON t.id = j.id'\n\
             [lookup.{joined}]\nurl = 'table:{database}.{joined}'\nrefresh = '100ms'\ncolumns = {{ id = 'int', v = 'int' }}\n"
        )
    };
    let pipeline = Pipeline::new(server, &[table("a", "b"), table("b", "c"), table("c", "a")].concat());
    // a ring has no beginning: what isn't there yet is made without it
    pipeline.set_config(&pipeline.config().replace(&table("a", "b"), &format!("[[table]]\nsource = '{database}.a'\n")));
    let service = pipeline.run();
    comes_to(&pipeline, &database, "b", &["id", "v", "w"], &["1 0 0"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let ringed = pipeline.config().replace(&format!("[[table]]\nsource = '{database}.a'\n"), &table("a", "b"));
    pipeline.set_config(&ringed);
    let service = pipeline.run();
    for value in 1..=30 {
        client
            .run_all(&format!("BEGIN; UPDATE a SET v = {value}; UPDATE b SET v = {value}; UPDATE c SET v = {value}; COMMIT"))
            .await;
    }
    for name in ["a", "b", "c"] {
        eventually("the last change is there", async || shown(&pipeline, &database, name, &["id", "v"]) == ["1 30"]).await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// A ring of which none was there before: the first of them is made without the others, all at one cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_begins_alike_whoever_is_killed() {
    let (server, database, mut client) = sales("lookup_ring_new").await;
    for name in ["a", "b", "c", "d"] {
        client.run(&format!("CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")).await;
        client.run(&format!("INSERT INTO {name} VALUES (1, 0)")).await;
    }
    let table = |name: &str, joined: &str| {
        format!(
            "[[table]]\nsource = '{database}.{name}'\ntransform = 'SELECT t.id, t.v, j.v AS w FROM input t LEFT JOIN {joined} j ON t.id = j.id'\n"
        )
    };
    let lookup = |name: &str| format!("[lookup.{name}]\nurl = 'table:{database}.{name}'\ncolumns = {{ id = 'int', v = 'int' }}\n");
    // d stands outside, and joins one of them
    let rules =
        [table("c", "a"), table("d", "c"), table("b", "c"), table("a", "b")].concat() + &["a", "b", "c"].map(lookup).concat();
    let first = [("a", "1 0 NULL"), ("b", "1 0 NULL"), ("c", "1 0 0"), ("d", "1 0 0")];
    let columns = ["id", "v", "w"];
    for (halves, killed_at) in [(vec!["run"], "a"), (vec!["capture", "merge", "merge"], "b")] {
        let pipeline = Pipeline::new(server, &rules);
        let config = pipeline.config().replace("[state]", "[state]\nlease_duration = \"1s\"");
        // what is read of all of them is whole at one cut
        pipeline.set_config(&config.replace("cut_interval = \"50ms\"", "cut_interval = \"2s\""));
        let mut services = Vec::new();
        for half in &halves {
            services.push(pipeline.start(&[half]));
            eventually("there is a stream", async || pipeline.path().join("data/stream/stream.json").exists()).await;
        }
        let table = pipeline.table(&database, killed_at);
        eventually("it has begun", async || !table.instants().is_empty()).await;
        services.remove(halves.len() - 1).kill();
        services.extend(halves.last().map(|half| pipeline.start(&[half])));
        for (name, row) in first {
            comes_to(&pipeline, &database, name, &columns, &[row]).await;
        }
        let cut = |name: &str| {
            let table = pipeline.table(&database, name);
            let commit = table.commit(table.instants().first().unwrap());
            let checkpoint = commit["extraMetadata"]["binlake.checkpoint"].as_str().unwrap();
            let checkpoint: serde_json::Value = serde_json::from_str(checkpoint).unwrap();
            (checkpoint["epoch"].clone(), checkpoint["cut"].clone())
        };
        // on a slow machine the copy of one may be whole a cut later
        let tail = pipeline.ok(&["stream", "tail"]);
        let cuts: Vec<serde_json::Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let live = |name: &str| {
            let of_table = format!("{database}.{name}");
            let cut = cuts.iter().find(|cut| cut["op"] == "cut" && cut["tables"][&of_table] == "live").unwrap();
            (cut["epoch"].clone(), cut["cut"].clone())
        };
        for name in ["a", "b", "c"] {
            assert_eq!(cut(name), live(name), "{name} {halves:?}\n{tail}");
        }
        // and they go on
        client.run_all("BEGIN; UPDATE a SET v = v + 1; UPDATE b SET v = v + 1; UPDATE c SET v = v + 1; COMMIT").await;
        let value = client.value("SELECT v FROM a").await;
        for name in ["a", "b", "c"] {
            let is_there = async || shown(&pipeline, &database, name, &["id", "v"]) == [format!("1 {value}")];
            eventually("the change is there", is_there).await;
        }
        for service in services.into_iter().rev() {
            assert!(service.terminate().success(), "{}", pipeline.log_tail());
        }
        pipeline.assert_calm_log();
        client.run_all("UPDATE a SET v = 0; UPDATE b SET v = 0; UPDATE c SET v = 0").await;
    }
}

/// Of a table of another stream the last commit counts as it is when a commit begins: what a query has seen, later records see as well.
#[tokio::test]
async fn a_fed_table_joins_what_was_committed_before() {
    let (server, database, mut client) = sales("lookup_fed").await;
    countries(&mut client, "0").await;
    let fed = "[[table]]\nstream = 'jsonl:./tickets/'\nname = 'mydev.tickets'\nformat = 'json'\nkey = ['id']\ncolumns = { id = 'int', location = 'string' }\n";
    let pipeline = Pipeline::new(server, &(tables(&database, "1h") + fed + JOIN));
    let folder = pipeline.path().join("tickets");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = File::options().create(true).append(true).open(folder.join("all.jsonl")).unwrap();
    let service = pipeline.run();
    for id in 1..=4 {
        client.run(&format!("UPDATE country SET combinedname = 'name {id}'")).await;
        comes_to(&pipeline, &database, "country", &["combinedname"], &[&format!("name {id}")]).await;
        file.write_all(format!("{{\"id\": {id}, \"location\": \"India\"}}\n").as_bytes()).unwrap();
        let expected: Vec<String> = (1..=id).map(|id| format!("{id} name {id}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        comes_to(&pipeline, "mydev", "tickets", &["id", "combinedname"], &expected).await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
