//! Lists of objects as tables of their own: nested parents and children of JSON records (scenario S3), and of a MySQL table's JSON column.

use super::inferred::{add, comes_to, config};
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::{duckdb, hudi_rs};
use crate::service::Pipeline;
use std::collections::BTreeMap;

const ORDERS: &str = r#"name = "mydev.orders"
columns = { id = "string", at = { type = "date", format = "M/d/yy" }, "customer.name" = "string" }
key = ["id"]
ordering = "at"
history = { valid_time = "at" }
[table.children.items]
columns = { sku = "string", qty = "int", "price.amount" = "decimal(10,2)" }
key = ["sku"]
history = true
[table.children.items.children.discounts]
[table.children."customer.phones"]
name = "mydev.phones"
columns = { number = "string" }
"#;

const ITEMS: [&str; 4] = ["id", "sku", "qty", "price_amount"];
const DISCOUNTS: [&str; 4] = ["id", "sku", "_index", "percent"];

#[tokio::test]
async fn children_follow_what_becomes_of_their_parents() {
    let pipeline = Pipeline::from_text(&config(ORDERS));
    add(
        pipeline.path(),
        "a.jsonl",
        &[
            r#"{"id": 1, "at": "2/15/11", "customer": {"name": "Ann", "phones": [{"number": 5}, {"number": 6}]}, "items": [{"sku": "a", "qty": 1, "price": {"amount": 1.5}, "discounts": [{"percent": 10}, {"percent": 20}]}, {"sku": "b", "qty": "2"}]}"#,
            r#"{"id": 2, "at": "2/15/11", "items": [{"sku": "a", "qty": 3, "discounts": []}]}"#,
            r#"{"id": 3, "at": "2/15/11"}"#,
            r#"{"id": 4, "at": "2/15/11", "items": [{"sku": "a", "qty": "many"}]}"#,
            r#"{"id": 5, "at": "2/15/11", "items": [{"sku": "a"}, {"sku": "a"}]}"#,
            r#"{"id": 6, "at": "2/15/11", "items": [7]}"#,
        ],
    );
    let service = pipeline.run();
    comes_to(&pipeline, "orders_items", &ITEMS, &["1 a 1 1.50", "1 b 2 NULL", "2 a 3 NULL"]).await;
    comes_to(&pipeline, "orders_items_discounts", &DISCOUNTS, &["1 a 0 10", "1 a 1 20"]).await;
    comes_to(&pipeline, "phones", &["id", "_index", "number"], &["1 0 5", "1 1 6"]).await;
    comes_to(&pipeline, "orders", &["id", "customer_name"], &["1 Ann", "2 NULL", "3 NULL"]).await;
    service.kill();
    // one is late and changes nothing, one loses an element and changes another, one's list is emptied, one gets one
    add(
        pipeline.path(),
        "b.jsonl",
        &[
            r#"{"id": 2, "at": "2/14/11", "items": [{"sku": "late"}]}"#,
            r#"{"id": 1, "at": "2/16/11", "items": [{"sku": "b", "qty": 9}, {"sku": "c", "discounts": [{"percent": 5, "why": "new"}]}]}"#,
            r#"{"id": 3, "at": "2/16/11", "items": [{"sku": "x", "qty": 1}]}"#,
        ],
    );
    let service = pipeline.run();
    let items = ["1 b 9 NULL", "1 c NULL NULL", "2 a 3 NULL", "3 x 1 NULL"];
    comes_to(&pipeline, "orders_items", &ITEMS, &items).await;
    let all = [&DISCOUNTS[..], &["why"]].concat();
    comes_to(&pipeline, "orders_items_discounts", &all, &["1 c 0 5 new"]).await;
    comes_to(&pipeline, "phones", &["id"], &[]).await;
    add(pipeline.path(), "b.jsonl", &[r#"{"id": 3, "at": "2/17/11", "items": []}"#]);
    comes_to(&pipeline, "orders_items", &ITEMS, &items[..3]).await;
    eventually("the dead letters are listed", async || {
        let letters = pipeline.ok(&["dead-letter", "list"]);
        ["the value of `qty` can't be read: it is no int", "an element before it has the same key", "it is no object"]
            .iter()
            .all(|why| letters.contains(why))
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();

    // tables like others, for Binlake and for others' readers
    let tables = pipeline.ok(&["tables"]);
    for table in ["orders", "orders_history", "orders_items", "orders_items_history", "orders_items_discounts", "phones"] {
        assert!(tables.contains(&format!("mydev.{table} ")), "{tables}");
    }
    let query = "SELECT o.id, i.sku FROM mydev.orders o JOIN mydev.orders_items i ON i.id = o.id ORDER BY o.id, i.sku";
    assert_eq!(pipeline.ok(&["query", query, "--format", "csv"]), "id,sku\n1,b\n1,c\n2,a\n");
    let versions = "SELECT count(*) FROM history('mydev.orders', '1')";
    assert_eq!(pipeline.ok(&["query", versions, "--format", "csv"]).lines().nth(1), Some("3"));
    // the items as they were then: the parent's versions, taken apart
    let as_of = |valid: &str| {
        let query = "SELECT id, sku, qty FROM mydev.orders_items ORDER BY id, sku";
        pipeline.ok(&["query", query, "--valid-at", valid, "--format", "csv"])
    };
    assert_eq!(as_of("2011-02-14T12:00:00Z"), "id,sku,qty\n2,late,\n");
    assert_eq!(as_of("2011-02-15T12:00:00Z"), "id,sku,qty\n1,a,1\n1,b,2\n2,a,3\n");
    assert_eq!(as_of("2011-02-16T12:00:00Z"), "id,sku,qty\n1,b,9\n1,c,\n2,a,3\n3,x,1\n");
    assert_eq!(as_of("2026-01-01T00:00:00Z"), "id,sku,qty\n1,b,9\n1,c,\n2,a,3\n");
    let versions = "SELECT count(*) FROM history('mydev.orders_items', '1', 'b')";
    assert_eq!(pipeline.ok(&["query", versions, "--format", "csv"]).lines().nth(1), Some("3"));
    for (table, columns) in [("orders_items", &ITEMS), ("orders_items_discounts", &DISCOUNTS)] {
        let columns = columns.map(str::to_owned);
        let mut by_hudi_rs = hudi_rs(&pipeline.table("mydev", table).folder().display().to_string(), &columns, &[]);
        let mut by_duckdb = duckdb(&pipeline.lake().join("views.sql"), &format!("mydev.{table}"), &columns);
        by_hudi_rs.sort();
        by_duckdb.sort();
        assert_eq!(by_hudi_rs, by_duckdb, "{table}");
        assert_eq!(by_hudi_rs.len(), if table == "orders_items" { 3 } else { 1 }, "{table}");
    }

    // declared otherwise, and with one that is new: written anew from the orders that are there, at once
    let other = pipeline.config().replace("qty = \"int\", ", "amount = { type = \"bigint\", path = \"qty\" }, ");
    let other = other.replace("key = [\"sku\"]\n", "").replace("name = \"mydev.phones\"", "name = \"mydev.telephones\"");
    pipeline.set_config(&other);
    let service = pipeline.run();
    let anew = ["1 0 b 9", "1 1 c NULL", "2 0 a 3"];
    comes_to(&pipeline, "orders_items", &["id", "_index", "sku", "amount"], &anew).await;
    add(pipeline.path(), "c.jsonl", &[r#"{"id": 2, "at": "2/18/11", "customer": {"phones": [{"number": 1}]}}"#]);
    comes_to(&pipeline, "orders_items", &["id", "_index", "sku", "amount"], &anew[..2]).await;
    comes_to(&pipeline, "telephones", &["id", "_index", "number"], &["2 0 1"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();

    // who is erased takes the elements along, those of earlier versions as well
    let left = |id: &str| {
        ["orders", "orders_history", "orders_items", "orders_items_history"].map(|table| {
            let query = format!("SELECT count(*) > 0 FROM mydev.{table} WHERE id = '{id}'");
            pipeline.ok(&["query", &query, "--format", "csv"]).lines().nth(1) == Some("true")
        })
    };
    assert_eq!((left("1"), left("2")), ([true; 4], [true, true, false, true]));
    pipeline.ok(&["erase", "mydev.orders", "1"]);
    assert_eq!((left("1"), left("2")), ([false; 4], [true, true, false, true]));
}

/// Killed again and again while orders come, come late, come twice and are emptied: at last the items are what the orders say.
#[tokio::test]
async fn children_are_what_their_parents_say_however_often_the_service_is_killed() {
    let table = "name = \"mydev.orders\"\nkey = [\"id\"]\nordering = \"at\"\ncolumns = { id = \"int\", at = \"int\" }\n\
                 [table.children.items]\nkey = [\"no\"]\ncolumns = { no = \"int\", of = \"int\" }\n";
    let pipeline = Pipeline::from_text(&config(table));
    let mut expected: BTreeMap<usize, (usize, Vec<usize>)> = BTreeMap::new();
    for round in 0..5_usize {
        let mut lines = Vec::new();
        for i in 0..300 {
            let (id, at) = (i * 7 % 120, (i * 13 + round * 40) % 260);
            let items: Vec<usize> = (0..(i + round) % 4).map(|no| no * 2 + i % 2).collect();
            let text: Vec<String> = items.iter().map(|no| format!("{{\"no\": {no}, \"of\": {at}}}")).collect();
            lines.push(format!("{{\"id\": {id}, \"at\": {at}, \"items\": [{}]}}", text.join(", ")));
            if expected.get(&id).is_none_or(|(before, _)| *before <= at) {
                expected.insert(id, (at, items));
            }
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        add(pipeline.path(), "a.jsonl", &lines);
        let instants = pipeline.table("mydev", "orders").instants().len();
        let service = pipeline.run();
        if round < 4 {
            eventually("a commit", async || pipeline.table("mydev", "orders").instants().len() > instants).await;
            service.kill();
            continue;
        }
        let of = |(id, (at, items)): (&usize, &(usize, Vec<usize>))| -> Vec<String> {
            items.iter().map(|no| format!("{id} {no} {at}")).collect()
        };
        let mut rows: Vec<String> = expected.iter().flat_map(of).collect();
        rows.sort();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        comes_to(&pipeline, "orders_items", &["id", "no", "of"], &rows).await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn a_mysql_tables_json_column_has_children() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("children").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    client.run("CREATE TABLE orders (id INT PRIMARY KEY, region INT, doc JSON)").await;
    client.run("INSERT INTO orders VALUES (1, 1, '[{\"sku\": \"a\", \"qty\": 1}, {\"sku\": \"b\"}]'), (2, 1, NULL), (3, 2, '[{\"sku\": \"c\"}]')").await;
    let children =
        "[table.children.doc]\nname = \"DB.items\"\ncolumns = { sku = \"string\", qty = \"int\" }\n".replace("DB", &database);
    let pipeline =
        Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.orders\"\npartition_by = \"region\"\n{children}"));
    let rows = || -> Vec<String> {
        let columns = ["id", "region", "_index", "sku", "qty"];
        let rows = pipeline.table(&database, "items").values(None, &columns).unwrap_or_default();
        let text =
            |row: Vec<Option<String>>| row.into_iter().map(|v| v.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" ");
        let mut rows: Vec<String> = rows.into_iter().map(text).collect();
        rows.sort();
        rows
    };
    let service = pipeline.run();
    eventually("the snapshot's items", async || rows() == ["1 1 0 a 1", "1 1 1 b NULL", "3 2 0 c NULL"]).await;
    client.run("START TRANSACTION").await;
    client.run("UPDATE orders SET doc = JSON_REMOVE(doc, '$[0]') WHERE id = 1").await;
    client.run("UPDATE orders SET id = 20, region = 2, doc = '[{\"sku\": \"moved\"}]' WHERE id = 2").await;
    client.run("DELETE FROM orders WHERE id = 3").await;
    client.run("COMMIT").await;
    client.run("UPDATE orders SET region = 3 WHERE id = 1").await;
    eventually("the changed items", async || rows() == ["1 3 0 b NULL", "20 2 0 moved NULL"]).await;
    client.run("TRUNCATE TABLE orders").await;
    client.run("INSERT INTO orders VALUES (9, 1, '[{\"sku\": \"z\", \"qty\": \"4\"}]')").await;
    eventually("the items after the truncation", async || rows() == ["9 1 0 z 4"]).await;
    // a backfill of the parent brings its children
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.ok(&["backfill", "--table", &format!("{database}.orders")]);
    assert_eq!(rows(), ["9 1 0 z 4"]);
    pipeline.ok(&["verify", "--table", &format!("{database}.orders")]);
    // what isn't read before the merge stops the one table, with the place and the remedy
    let service = pipeline.run();
    client.run("INSERT INTO orders VALUES (10, 1, '[{\"qty\": 1}, 5]')").await;
    eventually("the table is stopped", async || pipeline.log().contains("element 1 of `doc`: it is no object")).await;
    assert_eq!(rows(), ["9 1 0 z 4"]);
    drop(service);
}
