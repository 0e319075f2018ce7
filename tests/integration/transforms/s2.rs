//! What the tests of scenario S2 share: its table of countries, how its names change, its columns, and what becomes of them.

use crate::mysql::Client;

/// A table mapping as DMS has it; `DATABASE` and `TARGET` stand for names.
pub(super) const MAPPING: &str = r#"{"rules": [
  {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "object-locator": {"schema-name": "DATABASE", "table-name": "country_lookup_table"},
   "rule-action": "include"},
  {"rule-type": "object-mapping", "rule-id": "2", "rule-name": "2", "rule-action": "map-record-to-record",
   "object-locator": {"schema-name": "DATABASE", "table-name": "country_lookup_table"}, "target-table-name": "TARGET",
   "mapping-parameters": {"partition-key-name": "code", "sort-key-name": "countryname", "exclude-columns": ["code", "countryname"],
     "attribute-mappings": [
       {"target-attribute-name": "code", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "${code}"},
       {"target-attribute-name": "countryname", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "${countryname}"}],
     "apply-during-cdc": true}}]}"#;

/// All columns are declared strings, `uuid`, which arrives as a number, and the ordering as well.
pub(super) const FIELDS: [&str; 15] = [
    "uuid",
    "country",
    "itemtype",
    "saleschannel",
    "orderpriority",
    "orderdate",
    "region",
    "shipdate",
    "unitssold",
    "unitprice",
    "unitcost",
    "totalrevenue",
    "totalcost",
    "totalprofit",
    "impressiontime",
];

/// What is left of them, and of the lookup.
pub(super) const COLUMNS: [&str; 11] = [
    "uuid",
    "itemtype",
    "saleschannel",
    "orderpriority",
    "orderdate",
    "region",
    "shipdate",
    "unitssold",
    "impressiontime",
    "code",
    "combinedname",
];

/// The countries' names, codes and combined names at first.
pub(super) const OLD: [(&str, &str, &str); 4] =
    [("India", "IN", "IN-India"), ("USA", "US", "US-USA"), ("Canada", "CA", "CA-Canada"), ("China", "CN", "CN-China")];

/// The same after they have changed.
pub(super) const NEW: [(&str, &str, &str); 4] = [
    ("India", "IN", "IN-IND-India"),
    ("USA", "US", "US-USA-US"),
    ("Canada", "CA", "CA-CAN-Canada"),
    ("China", "CN", "CN-CHN-China"),
];

/// The table of impressions that comes from `stream`.
pub(super) fn impressions(stream: &str) -> String {
    let left = COLUMNS[..9].iter().map(|name| format!("t.{name}, ")).collect::<String>();
    let columns = FIELDS.map(|field| format!("{field} = \"string\"\n")).concat();
    format!(
        "[[table]]\nstream = \"{stream}\"\nname = \"mydev.impressions\"\nformat = \"json\"\nkey = [\"uuid\"]\nordering = \"orderdate\"\n\
         transform = \"SELECT {left}c.code, c.combinedname FROM input t LEFT JOIN country c ON t.country = c.countryname\"\n\
         [table.columns]\n{columns}"
    )
}

/// Makes the table of countries, which has no primary key.
pub(super) async fn make_countries(client: &mut Client, database: &str) {
    let rows = OLD.map(|(name, code, combined)| format!("('{code}','{name}','{combined}')")).join(", ");
    client
        .run_all(&format!(
            "USE {database};
             CREATE TABLE country_lookup_table (code VARCHAR(5), countryname VARCHAR(40) NOT NULL, combinedname VARCHAR(40) NOT NULL);
             INSERT INTO country_lookup_table VALUES {rows}"
        ))
        .await;
}

/// Changes their combined names, one after the other.
pub(super) async fn rename_countries(client: &mut Client) {
    for (_, code, combined) in NEW.iter().rev() {
        client.run(&format!("UPDATE country_lookup_table SET combinedname = '{combined}' WHERE code = '{code}'")).await;
    }
}
