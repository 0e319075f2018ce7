//! Mappings as DMS documents them. What every store of items promises is tried in `tests/integration`.

use super::*;
use crate::event::{Column, SourceType, TableSchema};
use serde_json::{Map, Value, json};
use std::fmt::Write;

fn customer() -> TableSchema {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
    TableSchema {
        table: "test.customer".parse().unwrap(),
        columns: vec![
            column("FirstName", text()),
            column("LastName", text()),
            column("Age", SourceType::Int { unsigned: false }),
            column("HomePhone", text()),
        ],
        key: vec![0, 1],
    }
}

fn mapping(action: &str, parameters: Value) -> Result<ItemMapping, String> {
    let rules = json!({"rules": [
        {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "rule-action": "include",
         "object-locator": {"schema-name": "test", "table-name": "%"}},
        {"rule-type": "object-mapping", "rule-id": "2", "rule-name": "to-items", "rule-action": action, "target-table-name": "customer_t",
         "object-locator": {"schema-name": "test", "table-name": "customer"}, "mapping-parameters": parameters}]});
    ItemMapping::parse(&rules.to_string(), &"test.customer".parse().unwrap())
}

fn shown(mapping: &ItemMapping, row: Value, is_delete: bool) -> String {
    let row: Map<String, Value> = row.as_object().unwrap().clone();
    match mapping
        .shaped(&customer())
        .unwrap()
        .changes_of(vec![(row, is_delete)], |_| Some("gtid:7".into()))
        .map(|mut changes| changes.pop())
    {
        Ok(None) => "nothing".to_owned(),
        Ok(Some(ItemChange::Put(item))) => Value::Object(item.to_json()).to_string(),
        Ok(Some(ItemChange::Delete(key))) => format!("delete {:?}", key),
        Err(error) => error.to_string(),
    }
}

const KEY: &str = "${FirstName},${LastName}";

#[test]
fn records_become_records() {
    let mapping = mapping(
        "map-record-to-record",
        json!({"partition-key-name": "CustomerName", "exclude-columns": ["FirstName", "LastName", "HomePhone"],
               "attribute-mappings": [
                   {"target-attribute-name": "CustomerName", "attribute-type": "scalar", "attribute-sub-type": "string", "value": KEY},
                   {"target-attribute-name": "ContactDetails", "attribute-type": "document", "attribute-sub-type": "dynamodb-map",
                    "value": {"M": {"Home": {"M": {"Phone": {"S": "${HomePhone}"}}}}}}]}),
    )
    .unwrap();
    assert_eq!(mapping.key_columns().into_iter().collect::<Vec<_>>(), ["FirstName", "LastName"]);
    let row = json!({"FirstName": "Ada", "LastName": "L", "Age": 36, "HomePhone": "1"});
    assert_eq!(shown(&mapping, row.clone(), false), r#"{"Age":36,"ContactDetails":{"Home":{"Phone":"1"}},"CustomerName":"Ada,L"}"#);
    assert!(shown(&mapping, row, true).contains("Ada,L"));
    let row = json!({"FirstName": "Bo", "LastName": null, "Age": null});
    assert_eq!(shown(&mapping, row, false), r#"{"ContactDetails":{"Home":{}},"CustomerName":"Bo,"}"#, "NULL is left out");
    let row = json!({"FirstName": null, "LastName": null, "HomePhone": "1"});
    let said = shown(&mapping, row.clone(), false);
    assert!(said.starts_with("a row can't be an item: the key is NULL attribute=CustomerName target=customer_t key=FirstName:null,LastName:null position=gtid:7"), "{said}");
    assert_eq!(shown(&mapping, row, true), "nothing", "it never was an item");
}

#[test]
fn records_become_documents() {
    let mapping = mapping(
        "map-record-to-document",
        json!({"partition-key-name": "CustomerName", "exclude-columns": ["FirstName"],
               "attribute-mappings": [{"target-attribute-name": "CustomerName", "value": "${FirstName}"}]}),
    )
    .unwrap();
    let row = json!({"FirstName": "Ada", "LastName": "L", "Age": 36});
    assert_eq!(shown(&mapping, row, false), r#"{"CustomerName":"Ada","_doc":{"Age":36,"LastName":"L"}}"#);
}

#[test]
fn mappings_that_cannot_be_followed_are_refused() {
    let attribute = |value: &str| json!([{"target-attribute-name": "k", "value": value}]);
    let wrong = [
        mapping("map-record-to-stars", json!({"partition-key-name": "k", "attribute-mappings": attribute(KEY)})),
        mapping("map-record-to-record", json!({"partition-key-name": "k", "exclude-columns": ["k"]})),
        mapping("map-record-to-document", json!({"partition-key-name": "k"})),
        mapping("map-record-to-record", json!({"partition-key-name": "k", "attribute-mappings": attribute("x")})),
        mapping("map-record-to-record", json!({"partition-key-name": "k", "attribute-mappings": attribute("${x")})),
        mapping(
            "map-record-to-record",
            json!({"partition-key-name": "k", "attribute-mappings": attribute(KEY), "apply-during-cdc": "false"}),
        ),
        mapping(
            "map-record-to-record",
            json!({"partition-key-name": "k", "attribute-mappings":
                [{"target-attribute-name": "k", "attribute-type": "scalar", "attribute-sub-type": "date", "value": KEY}]}),
        ),
        ItemMapping::parse("{", &"a.b".parse().unwrap()),
        ItemMapping::parse(r#"{"rules": []}"#, &"a.b".parse().unwrap()),
        ItemMapping::parse(
            r#"{"rules": [{"rule-type": "post-processing", "rule-id": "3", "rule-name": "tags"}]}"#,
            &"a.b".parse().unwrap(),
        ),
        mapping("map-record-to-record", json!({"attribute-mappings": attribute(KEY)})),
        mapping(
            "map-record-to-record",
            json!({"partition-key-name": "k", "attribute-mappings": attribute(KEY), "condition-expression": {"expression": "attribute_not_exists(k)"}}),
        ),
    ];
    let twice = json!([{"target-attribute-name": "k", "value": KEY}, {"target-attribute-name": "k", "value": "x"}]);
    let spelled = json!([{"target-attribute-name": "k", "atribute-type": "scalar", "value": KEY}]);
    let of_file = r#"{"rules": [], "settings": {}}"#;
    let of_rule = r#"{"rules": [{"rule-type": "selection", "rule-name": "s", "rule-action": "include", "object-locater": {}}]}"#;
    let of_locator =
        r#"{"rules": [{"rule-type": "transformation", "rule-name": "t", "object-locator": {"schema-name": "a", "table": "b"}}]}"#;
    let parse = |text: &str| ItemMapping::parse(text, &"a.b".parse().unwrap());
    let wrong = wrong.into_iter().chain([
        mapping("map-record-to-record", json!({"partition-key-name": "k", "attribute-mappings": twice})),
        mapping("map-record-to-record", json!({"partition-key-name": "k", "attribute-mappings": spelled})),
        mapping("map-record-to-record", json!({"partition-key": "k", "attribute-mappings": attribute(KEY)})),
        mapping("map-record-to-record", json!({"partition-key-name": "k", "attribute-mapping": attribute(KEY)})),
        parse(of_file),
        parse(of_rule),
        parse(of_locator),
    ]);
    let mut said = String::new();
    for wrong in wrong {
        writeln!(said, "{}", wrong.unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(said);
}
