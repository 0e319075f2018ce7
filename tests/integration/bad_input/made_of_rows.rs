//! What is wrong with transforms, lookups and deliveries.

use super::cases::{Ground, Outcome, run};
use super::failed;
use crate::service::Pipeline;

const LOOKUP: &str = "[lookup.country]\nurl = \"file:country.csv\"\ncolumns = { code = \"string\", name = \"string\" }\n";
const MAPPING: &str = r#"{"rules": [{"rule-type": "selection", "rule-id": "1", "rule-name": "all", "rule-action": "include",
  "object-locator": {"schema-name": "%", "table-name": "items"}}, {"rule-type": "object-mapping", "rule-id": "2", "rule-name": "items", "rule-action": "map-record-to-record",
  "object-locator": {"schema-name": "%", "table-name": "items"}, "target-table-name": "items", "mapping-parameters": PARAMETERS}]}"#;

pub(super) fn all(ground: &Ground) -> Vec<Outcome> {
    let table = |lines: &str| Pipeline::new(ground.server, &format!("{}{lines}", ground.rule()));
    let transformed = |sql: &str| run(&table(&format!("transform = \"{sql}\"\n{LOOKUP}")));
    let with = |lines: &str| run(&table(lines));
    let join = "SELECT t.id, c.code FROM input t LEFT JOIN country c ON t.name = c.name";
    let delivered = |parameters: &str, more: &str| {
        let deliver =
            format!("[[deliver]]\nsource = \"{}.items\"\nto = \"sqlite:items.db\"\nmapping = \"m.json\"\n", ground.database);
        let pipeline = table(&deliver);
        let text = MAPPING.replace("PARAMETERS", parameters).replace("\"rules\": [", &format!("\"rules\": [{more}"));
        std::fs::write(pipeline.path().join("m.json"), text).unwrap();
        run(&pipeline)
    };
    let by_id = r#"{"partition-key-name": "id"}"#;
    let mask = r#"{"rule-type": "transformation", "rule-id": "3", "rule-name": "mask", "rule-action": "data-masking-digits-mask", "rule-target": "column",
      "object-locator": {"schema-name": "%", "table-name": "items", "column-name": "name"}, "value": "9"},"#;
    let exclude = r#"{"rule-type": "selection", "rule-id": "4", "rule-name": "none", "rule-action": "exclude",
      "object-locator": {"schema-name": "%", "table-name": "it%"}},"#;
    vec![
        failed("A transform with a misspelt column", transformed("SELECT id, nam FROM input"), 2, &["nam", "sql=1:12", "`name`"]),
        failed(
            "A transform that isn't row-wise",
            transformed("SELECT id, count(*) AS n FROM input GROUP BY id"),
            2,
            &["count", "row-wise"],
        ),
        failed("A transform that a replay would give other rows", transformed("SELECT id, now() AS at FROM input"), 2, &["now"]),
        failed("A transform without the key", transformed("SELECT name FROM input"), 2, &["`id`"]),
        failed(
            "A transform that joins what is no lookup",
            transformed("SELECT t.id FROM input t LEFT JOIN countri c ON t.name = c.name"),
            2,
            &["countri", "`country`"],
        ),
        failed("Dead letters without a transform", with("on_error = \"dead_letter\"\n"), 2, &["on_error", "transform"]),
        failed(
            "A partition that depends on a lookup",
            run(&table(&format!("partition_by = \"code\"\ntransform = \"{join}\"\n{LOOKUP}"))),
            2,
            &["code", "lookups"],
        ),
        failed(
            "A lookup that is applied anew, without what it is joined by",
            run(&table(&format!("transform = \"{join}\"\n{LOOKUP}on_change = \"reapply\"\n"))),
            2,
            &["country", "`name`"],
        ),
        failed(
            "A lookup of an unknown kind",
            with("[lookup.country]\nurl = \"http://example.org/country.csv\"\n"),
            2,
            &["http:", "file:"],
        ),
        failed(
            "A lookup that is got by key, from a file",
            with("[lookup.country]\nurl = \"file:country.csv\"\nmode = \"get\"\n"),
            2,
            &["lookup.country", "mode"],
        ),
        failed(
            "A delivery without its mapping file",
            {
                let deliver = format!(
                    "[[deliver]]\nsource = \"{}.items\"\nto = \"sqlite:items.db\"\nmapping = \"m.json\"\n",
                    ground.database
                );
                with(&deliver)
            },
            2,
            &["m.json"],
        ),
        failed(
            "A mapping that nothing gives the key of",
            delivered(r#"{"partition-key-name": "id", "exclude-columns": ["id"]}"#, ""),
            2,
            &["`id`"],
        ),
        failed(
            "A mapping that names a column that isn't there",
            delivered(
                r#"{"partition-key-name": "id", "attribute-mappings": [{"target-attribute-name": "n", "value": "${nmae}"}]}"#,
                "",
            ),
            2,
            &["rule=items column=nmae", "write `name`"],
        ),
        failed(
            "A mapping whose key no column makes",
            delivered(r#"{"partition-key-name": "code"}"#, ""),
            2,
            &["nothing makes", "rule=items attribute=code"],
        ),
        failed("A mapping that masks", delivered(by_id, mask), 2, &["mask"]),
        failed("A mapping that selects nothing", delivered(by_id, exclude), 2, &["selection rule", ".items"]),
    ]
}
