//! Plain JSON records, one object a record, with declared columns, or columns that are inferred from the records.
//!
//! - A column is a field, or a path into nested objects: `"a.b" = "int"` is the lake's column `a_b`.
//! - A value is converted where nothing is lost: a number where text is declared becomes its digits as they are written (an `E` as `e`), text with a number in it where a
//!   number is declared. An array or object becomes JSON text (`json`, or `string`).
//! - A value that can't be converted makes the record a dead letter, or is NULL, as the column or its table says; a key is never NULL.
//! - Inferred columns: a field that isn't declared becomes a column when it has a value for the first time, of a type that all its values of that batch of
//!   records have; the table's shape in its commits keeps it. From then on its values are converted as those of a declared column.
//! - A list of objects may be a table of its own ([`ChildTable`]): its elements are read as records are. A record with an element that can't be read is a dead
//!   letter as a whole, so that parent and children never differ.

mod child_spec;
mod children;
#[cfg(test)]
mod children_tests;
mod infer;
mod kind;
mod pattern;
mod table;

pub use child_spec::{ChildSpec, ChildSpecs, DeclaredColumns, declare_lists};
pub use children::{ChildTable, Element, INDEX};
pub use infer::narrowest;
pub use kind::PlainType;
pub use table::{PlainTable, Unreadable};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// What becomes of a value that isn't of its column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadValues {
    /// The record goes to the dead-letter area.
    #[default]
    DeadLetter,
    /// The value is NULL; counted in the metrics.
    Null,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainColumn {
    /// The fields that lead to it.
    pub path: Vec<String>,
    /// Its name in the lake.
    pub name: String,
    /// Its type.
    pub kind: PlainType,
    /// What becomes of a value of another type; `None`: what the table says.
    pub bad_values: Option<BadValues>,
}

impl PlainColumn {
    /// The column's value in a record; `None`: the record lacks it.
    pub fn value<'a>(&self, record: &'a Map<String, Value>) -> Option<&'a Value> {
        at(record, &self.path)
    }
}

/// The value that a path leads to. A field that is called as the whole rest of the path wins.
fn at<'a>(fields: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        return fields.get(first);
    }
    fields.get(&path.join(".")).or_else(|| at(fields.get(first)?.as_object()?, rest))
}

/// `"string"`, or `{ type = "date", format = "M/d/yy", path = "a.b", bad_values = "null" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    kind: PlainType,
    path: Option<String>,
    bad_values: Option<BadValues>,
}

impl ColumnSpec {
    /// The column that `key` of `columns` declares so.
    pub fn column(self, key: &str) -> PlainColumn {
        let path = self.path.as_deref().unwrap_or(key);
        PlainColumn {
            path: path.split('.').map(str::to_owned).collect(),
            name: key.replace('.', "_"),
            kind: self.kind,
            bad_values: self.bad_values,
        }
    }
}

impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            r#type: String,
            format: Option<String>,
            path: Option<String>,
            bad_values: Option<BadValues>,
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a type as \"string\", or { type = \"date\", format = \"M/d/yy\" }")]
        enum Spec {
            Short(String),
            Long(Long),
        }
        let long = match Spec::deserialize(deserializer)? {
            Spec::Short(kind) => Long { r#type: kind, format: None, path: None, bad_values: None },
            Spec::Long(long) => long,
        };
        let kind = PlainType::parse(&long.r#type, long.format.as_deref()).map_err(serde::de::Error::custom)?;
        Ok(Self { kind, path: long.path, bad_values: long.bad_values })
    }
}
