//! Deliveries through every kind of change, and through kills: the items are the source's rows.

use crate::dynamodb::DynamoDb;
use crate::mysql::{Flavour, PATIENCE, Server, eventually, free_address, within};
use crate::service::{Pipeline, without_zeros};
use binlake::lookup::ItemValue;
use serde_json::Value;
use std::collections::BTreeMap;

const MAPPING: &str = r#"{"rules": [
  {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "object-locator": {"schema-name": "%", "table-name": "stock"}, "rule-action": "include"},
  {"rule-type": "object-mapping", "rule-id": "2", "rule-name": "2", "rule-action": "map-record-to-record",
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}, "target-table-name": "TARGET",
   "mapping-parameters": {"partition-key-name": "sku", "exclude-columns": ["id"],
     "attribute-mappings": [{"target-attribute-name": "sku", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "sku-${id}"}]}}]}"#;

/// Where items are read from.
pub(super) enum Place {
    File,
    DynamoDb,
}

/// The items, by their key: the rest as text.
pub(super) async fn items(place: &Place, pipeline: &Pipeline, target: &str) -> BTreeMap<String, String> {
    let items: Vec<serde_json::Map<String, Value>> = match place {
        Place::File => {
            let Ok(file) = rusqlite::Connection::open(pipeline.path().join("data/items.db")) else { return BTreeMap::new() };
            file.busy_timeout(PATIENCE).unwrap();
            let Ok(mut items) = file.prepare(&format!("SELECT item FROM \"{target}\"")) else { return BTreeMap::new() };
            let text = items.query_map([], |row| row.get::<_, String>(0)).unwrap();
            text.map(|text| serde_json::from_str(&text.unwrap()).unwrap()).collect()
        }
        Place::DynamoDb => {
            let client = DynamoDb::shared().await.client().await;
            let mut pages = client.scan().table_name(target).into_paginator().items().send();
            let mut all = Vec::new();
            while let Some(Ok(item)) = pages.next().await {
                all.push(item.iter().map(|(name, value)| (name.clone(), value.to_json())).collect());
            }
            all
        }
    };
    let shown = |item: serde_json::Map<String, Value>| {
        let key = item["sku"].as_str().unwrap().to_owned();
        let rest: BTreeMap<String, String> = item
            .into_iter()
            .filter(|(name, _)| name != "sku")
            .map(|(name, value)| (name, without_zeros(&value.to_string())))
            .collect();
        (key, format!("{rest:?}"))
    };
    items.into_iter().map(shown).collect()
}

async fn source(client: &mut crate::mysql::Client) -> BTreeMap<String, String> {
    let rows = client.rows("SELECT id, note, amount FROM stock").await;
    let shown = |row: Vec<Option<String>>| {
        let mut rest = BTreeMap::new();
        if let Some(note) = &row[1] {
            rest.insert("note", format!("{note:?}"));
        }
        if let Some(amount) = &row[2] {
            rest.insert("amount", without_zeros(amount));
        }
        (format!("sku-{}", row[0].as_ref().unwrap()), format!("{rest:?}"))
    };
    rows.into_iter().map(shown).collect()
}

async fn follows(place: Place, topic: &str, to: &str) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let target = format!("{topic}-{}", uuid::Uuid::new_v4());
    let mut client = server.client().await;
    client
        .run_all(&format!("USE {database}; CREATE TABLE stock (id INT PRIMARY KEY, note VARCHAR(40), amount DECIMAL(10,2))"))
        .await;
    // more than a transaction of the store takes
    let rows: Vec<String> = (0..250).map(|i| format!("({i}, 'n{i}', {i}.25)")).collect();
    client.run(&format!("INSERT INTO stock VALUES {}", rows.join(","))).await;
    // in the lake as well: neither loop may hold up the other
    let tables = format!(
        "[[table]]\nsource = '{database}.stock'\n[[deliver]]\nsource = '{database}.stock'\nto = '{to}'\nmapping = 'stock.json'\n"
    );
    let pipeline = Pipeline::new(server, &tables);
    std::fs::write(pipeline.path().join("stock.json"), MAPPING.replace("DATABASE", &database).replace("TARGET", &target)).unwrap();
    let mut service = pipeline.run();
    for round in 0..5 {
        let expected = source(&mut client).await;
        let mut found = BTreeMap::new();
        let same = within(PATIENCE, async || {
            found = items(&place, &pipeline, &target).await;
            found == expected
        });
        assert!(
            same.await,
            "round {round}: {} expected, {} found; {:?}\n{}",
            expected.len(),
            found.len(),
            expected.iter().find(|(key, value)| found.get(*key) != Some(value)),
            pipeline.log_tail()
        );
        let change = match round {
            0 => "UPDATE stock SET note = NULL, amount = -1 WHERE id % 7 = 0; DELETE FROM stock WHERE id % 5 = 1",
            1 => {
                "UPDATE stock SET id = id + 1000 WHERE id % 11 = 3; INSERT INTO stock VALUES (1, 'again', 1); DELETE FROM stock WHERE id = 0"
            }
            2 => "TRUNCATE TABLE stock; INSERT INTO stock VALUES (5, 'after', 5), (1003, 'after', 6)",
            3 => "ALTER TABLE stock ADD COLUMN extra INT; UPDATE stock SET amount = 7 WHERE id = 5",
            _ => break,
        };
        // some of it comes while nobody is there
        if round % 2 == 1 {
            service.kill();
            client.run_all(change).await;
            service = pipeline.run();
        } else {
            client.run_all(change).await;
            service.kill();
            service = pipeline.run();
        }
    }
    eventually("the lake has it, too", async || {
        pipeline.table(&database, "stock").values(None, &["id"]).is_ok_and(|rows| rows.len() == 2)
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn items_in_a_file_are_the_sources_rows() {
    follows(Place::File, "deliver_file", "sqlite:./data/items.db").await;
}

#[tokio::test]
async fn items_in_dynamodb_are_the_sources_rows() {
    let to = DynamoDb::shared().await.deliveries();
    follows(Place::DynamoDb, "deliver_dynamodb", &to).await;
}

/// One of several workers delivers; when it dies, another goes on. A table that is only delivered is copied anew on demand, and what is delivered is audited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_take_a_delivery_over_and_it_is_copied_anew() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("deliver_workers").await;
    let mut client = server.client().await;
    client
        .run_all(&format!("USE {database}; CREATE TABLE stock (id INT PRIMARY KEY, note VARCHAR(40), amount DECIMAL(10,2))"))
        .await;
    client.run("INSERT INTO stock VALUES (1, 'a', 1), (2, 'b', 2)").await;
    let to = "sqlite:./data/items.db";
    let pipeline =
        Pipeline::new(server, &format!("[[deliver]]\nsource = '{database}.stock'\nto = '{to}'\nmapping = 'stock.json'\n"));
    std::fs::write(pipeline.path().join("stock.json"), MAPPING.replace("DATABASE", &database).replace("TARGET", "stock")).unwrap();
    let address = free_address();
    let short = pipeline.config().replace("[state]", "[state]\nlease_duration = \"1s\"");
    pipeline.set_config(&short.replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let capture = pipeline.start(&["capture"]);
    eventually("there is a stream", async || pipeline.path().join("data/stream/stream.json").exists()).await;
    pipeline.set_config(&short);
    let mut workers = vec![pipeline.start(&["merge"]), pipeline.start(&["merge"])];
    for round in 0..3 {
        let expected = source(&mut client).await;
        let mut found = BTreeMap::new();
        let same = within(PATIENCE, async || {
            found = items(&Place::File, &pipeline, "stock").await;
            found == expected
        });
        assert!(same.await, "round {round}: {expected:?}, found {found:?}\n{}", pipeline.log_tail());
        workers.remove(0).kill();
        client
            .run_all(&format!(
                "INSERT INTO stock VALUES ({}, 'more', 5); UPDATE stock SET note = 'n{round}' WHERE id = 1",
                10 + round
            ))
            .await;
        workers.push(pipeline.start(&["merge"]));
    }
    // what nobody at the source knows goes when the table is copied anew
    let file = rusqlite::Connection::open(pipeline.path().join("data/items.db")).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    let stray = r#"INSERT INTO stock VALUES ('sku-stray', '', '{"sku": "sku-stray"}')"#;
    file.execute(stray, []).unwrap();
    for name in [format!("{database}.stock"), "sqlite.stock".to_owned()] {
        let (status, said) = crate::surface::post(&address, "/backfill", &format!("{{\"tables\": [\"{name}\"]}}")).await;
        assert_eq!(status, 202, "{name}: {said}");
    }
    let expected = source(&mut client).await;
    eventually("the stray item is gone", async || items(&Place::File, &pipeline, "stock").await == expected).await;
    for service in workers.into_iter().chain([capture]) {
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    let listed = pipeline.ok(&["tables"]);
    assert!(
        listed.contains("sqlite.stock") && listed.contains(&format!("  delivered: the items of {database}.stock\n")),
        "{listed}"
    );
    let audit = pipeline.ok(&["runs", "--table", "sqlite.stock", "--format", "csv"]);
    assert!(audit.lines().any(|line| line.contains("sqlite.stock")), "{audit}");
    let first = |line: &str| line.contains("committed table=sqlite.stock ") && line.contains("updated=2 deleted=0");
    assert!(pipeline.log().lines().any(first), "the log says how many items were written\n{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
