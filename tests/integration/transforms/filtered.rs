//! Deliveries by a mapping with source filters and transformations: the items are the source's rows that pass.

use super::deliveries::{Place, items};
use crate::dynamodb::DynamoDb;
use crate::mysql::{Client, Flavour, PATIENCE, Server, within};
use crate::service::{Pipeline, without_zeros};
use std::collections::BTreeMap;

const MAPPING: &str = r#"{"rules": [
  {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}, "rule-action": "include",
   "filters": [
     {"filter-type": "source", "column-name": "amount", "filter-conditions": [{"filter-operator": "gte", "value": "10"}, {"filter-operator": "eq", "value": "-1"}]},
     {"filter-type": "source", "column-name": "note", "filter-conditions": [{"filter-operator": "notnull"}]}]},
  {"rule-type": "transformation", "rule-id": "2", "rule-name": "2", "rule-action": "rename", "rule-target": "column", "value": "label",
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock", "column-name": "note"}},
  {"rule-type": "transformation", "rule-id": "3", "rule-name": "3", "rule-action": "remove-column", "rule-target": "column",
   "object-locator": {"schema-name": "%", "table-name": "%", "column-name": "sec%"}},
  {"rule-type": "transformation", "rule-id": "4", "rule-name": "4", "rule-action": "add-column", "rule-target": "column", "value": "shout",
   "expression": "upper($note)||' '||$id", "data-type": {"type": "string", "length": 60},
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}},
  {"rule-type": "object-mapping", "rule-id": "5", "rule-name": "5", "rule-action": "map-record-to-record",
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}, "target-table-name": "TARGET",
   "mapping-parameters": {"partition-key-name": "sku", "exclude-columns": ["id"],
     "attribute-mappings": [{"target-attribute-name": "sku", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "${id}"}]}}]}"#;

/// The items that there must be.
async fn passing(client: &mut Client) -> BTreeMap<String, String> {
    let rows = client
        .rows("SELECT id, note, amount, CONCAT(UPPER(note), ' ', id) FROM stock WHERE (amount >= 10 OR amount = -1) AND note IS NOT NULL")
        .await;
    let shown = |row: Vec<Option<String>>| {
        let text = |i: usize| row[i].clone().unwrap();
        let item = BTreeMap::from([
            ("amount", without_zeros(&text(2))),
            ("label", format!("{:?}", text(1))),
            ("shout", format!("{:?}", text(3))),
        ]);
        (text(0), format!("{item:?}"))
    };
    rows.into_iter().map(shown).collect()
}

async fn comes_and_goes(place: Place, topic: &str, to: &str) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let target = format!("{topic}-{}", uuid::Uuid::new_v4());
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE stock (id INT PRIMARY KEY, note VARCHAR(40), amount DECIMAL(10,2), secret VARCHAR(10));
             INSERT INTO stock VALUES (1, 'a', 10, 's'), (2, 'b', 9.99, 's'), (3, NULL, 50, 's'), (4, 'd', 100, 's'), (5, 'e', NULL, 's'), (6, 'f', -1, 's')"
        ))
        .await;
    let pipeline =
        Pipeline::new(server, &format!("[[deliver]]\nsource = '{database}.stock'\nto = '{to}'\nmapping = 'stock.json'\n"));
    std::fs::write(pipeline.path().join("stock.json"), MAPPING.replace("DATABASE", &database).replace("TARGET", &target)).unwrap();
    let mut service = pipeline.run();
    let changes = [
        // in, out, changed within, changed without
        "UPDATE stock SET amount = 12 WHERE id = 2; UPDATE stock SET amount = 1 WHERE id = 1; UPDATE stock SET note = 'dd' WHERE id = 4; UPDATE stock SET secret = 't' WHERE id = 5",
        // there and back in one window, a key that changes inside and one that changes outside
        "UPDATE stock SET note = NULL WHERE id = 4; UPDATE stock SET note = 'back' WHERE id = 4; UPDATE stock SET id = 20 WHERE id = 2; UPDATE stock SET id = 30, note = 'c' WHERE id = 3",
        "DELETE FROM stock WHERE id IN (4, 5); INSERT INTO stock VALUES (7, 'g', 10, 's'), (8, 'h', 9, 's')",
        "TRUNCATE TABLE stock; INSERT INTO stock VALUES (1, 'again', 11, 's'), (2, 'low', 1, 's')",
        "",
    ];
    for (round, change) in changes.iter().enumerate() {
        let expected = passing(&mut client).await;
        assert!(!expected.is_empty());
        let mut found = BTreeMap::new();
        let same = within(PATIENCE, async || {
            found = items(&place, &pipeline, &target).await;
            found == expected
        });
        assert!(same.await, "round {round}: {expected:?} expected, {found:?} found\n{}", pipeline.log_tail());
        // some of it comes while nobody is there
        if round % 2 == 1 {
            service.kill();
            client.run_all(change).await;
            service = pipeline.run();
        } else if !change.is_empty() {
            client.run_all(change).await;
        }
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn rows_that_pass_are_items_in_a_file() {
    comes_and_goes(Place::File, "filtered_file", "sqlite:./data/items.db").await;
}

#[tokio::test]
async fn rows_that_pass_are_items_in_dynamodb() {
    let to = DynamoDb::shared().await.deliveries();
    comes_and_goes(Place::DynamoDb, "filtered_dynamodb", &to).await;
}

#[tokio::test]
async fn a_mapping_that_does_not_fit_the_table_is_refused_with_its_rule() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("filtered_wrong").await;
    server.client().await.run(&format!("CREATE TABLE {database}.stock (id INT PRIMARY KEY, note VARCHAR(40))")).await;
    server.client().await.run(&format!("INSERT INTO {database}.stock VALUES (1, 'a')")).await;
    let pipeline = Pipeline::new(
        server,
        &format!("[[deliver]]\nsource = '{database}.stock'\nto = 'sqlite:./data/items.db'\nmapping = 'stock.json'\n"),
    );
    std::fs::write(pipeline.path().join("stock.json"), MAPPING.replace("DATABASE", &database).replace("TARGET", "stock")).unwrap();
    let answer = pipeline.answer(&["run", "--log-level", "off"]);
    assert!(answer.code == 2 && answer.err.lines().count() == 1, "{} {}", answer.code, answer.err);
    assert!(answer.err.contains("column=amount") && answer.err.contains("take it out of the rule"), "{}", answer.err);
}
