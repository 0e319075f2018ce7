//! A delivery's mapping is compared with its table's columns before anything is delivered.

use super::deliveries::{Place, items};
use crate::mysql::{Flavour, Server, eventually};
use crate::service::Pipeline;

const MAPPING: &str = r#"{"rules": [
  {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}, "rule-action": "include"},
  {"rule-type": "transformation", "rule-id": "2", "rule-name": "2", "rule-action": "remove-column", "rule-target": "column",
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock", "column-name": "secret"}},
  {"rule-type": "object-mapping", "rule-id": "3", "rule-name": "3", "rule-action": "map-record-to-record",
   "object-locator": {"schema-name": "DATABASE", "table-name": "stock"}, "target-table-name": "stock",
   "mapping-parameters": {"partition-key-name": "sku", "exclude-columns": ["id"],
     "attribute-mappings": [{"target-attribute-name": "sku", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "${id}"}]}}]}"#;

#[tokio::test]
async fn rules_that_name_what_is_not_there_are_refused_before_anything_is_delivered() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("misfits").await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE stock (id INT PRIMARY KEY, note VARCHAR(40), secret VARCHAR(10)); INSERT INTO stock VALUES (1, 'a', 's')"
        ))
        .await;
    let deliver = format!("[[deliver]]\nsource = '{database}.stock'\nto = 'sqlite:data/items.db'\nmapping = 'stock.json'\n");
    let right = MAPPING.replace("DATABASE", &database);
    let write = |pipeline: &Pipeline, text: &str| std::fs::write(pipeline.path().join("stock.json"), text).unwrap();
    let cases = [
        (right.replace("\"secret\"", "\"secert\""), "rule=2 column=secert", "write `secret`, or take it out of the rule"),
        (right.replace("${id}", "${Id}"), "rule=3 column=Id", "write `id`, or take it out of the rule"),
        (
            right.replace("\"target-attribute-name\": \"sku\"", "\"target-attribute-name\": \"n\""),
            "rule=3 attribute=sku",
            "add it to the rule's attribute-mappings",
        ),
    ];
    for (text, where_it_is, remedy) in &cases {
        let pipeline = Pipeline::new(server, &deliver);
        write(&pipeline, text);
        for command in ["run", "doctor"] {
            let answer = pipeline.answer(&[command, "--log-level", "off"]);
            if command == "run" {
                assert!(answer.code == 2 && answer.err.lines().count() == 1, "{} {}", answer.code, answer.err);
                assert!(answer.err.contains(where_it_is) && answer.err.contains(remedy), "{where_it_is}: {}", answer.err);
                let rules = pipeline.answer(&["rules"]);
                assert!(
                    rules.code == 2 && rules.err.contains("no service has run"),
                    "they never counted: {} {}",
                    rules.out,
                    rules.err
                );
            } else {
                let text = answer.out.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(answer.code == 1 && text.contains(where_it_is) && text.contains(remedy), "{where_it_is}: {}", answer.out);
            }
        }
        assert!(items(&Place::File, &pipeline, "stock").await.is_empty());
        // once it is corrected, it begins
        write(&pipeline, &right);
        let service = pipeline.run();
        eventually("it is delivered", async || items(&Place::File, &pipeline, "stock").await.len() == 1).await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }
    let pipeline = Pipeline::new(server, &deliver);
    write(&pipeline, &right);
    let doctor = pipeline.ok(&["doctor"]);
    assert!(doctor.contains("sqlite.stock") && doctor.contains(&format!("its rules fit {database}.stock")), "{doctor}");
    let service = pipeline.run();
    let delivered =
        async |count| eventually("it is delivered", async || items(&Place::File, &pipeline, "stock").await.len() == count).await;
    delivered(1).await;
    write(&pipeline, &cases[0].0);
    for arguments in [&["apply", "--dry-run"][..], &["apply"]] {
        let answer = pipeline.answer(arguments);
        assert!(answer.code == 2 && answer.out.is_empty() && answer.err.lines().count() == 1, "{} {}", answer.code, answer.err);
        assert!(answer.err.contains(cases[0].1) && answer.err.contains(cases[0].2), "{}", answer.err);
    }
    client.run("INSERT INTO stock VALUES (2, 'b', 's')").await;
    delivered(2).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    // where the table was changed since, the service says it and goes on
    write(&pipeline, &right);
    client.run("ALTER TABLE stock ADD COLUMN more INT, RENAME COLUMN secret TO hidden").await;
    let service = pipeline.run();
    eventually("it is said", async || pipeline.log().contains("a delivery's rules don't fit its table")).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}
