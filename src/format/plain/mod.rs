//! Plain JSON records, one object a record, with declared columns.
//!
//! - A column is a field, or a path into nested objects: `"a.b" = "int"` is the lake's column `a_b`.
//! - A value is converted where nothing is lost: a number where text is declared becomes its digits as they are written (an `E` as `e`), text with a number in it where a
//!   number is declared. An array or object becomes JSON text (`json`, or `string`).
//! - A value that can't be converted makes the record a dead letter, or is NULL, as the column or its table says; a key is never NULL.

mod pattern;

use super::cell::Cell;
use super::number::parse_decimal;
use crate::event::{Column, SourceType, TableId, TableSchema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pattern::Pattern;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::sync::Arc;

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

/// A declared column.
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

/// A declared type: `string`, `int`, `bigint`, `float`, `double`, `boolean`, `decimal(p,s)`, `date`, `timestamp`, `json`, `binary`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainType {
    source_type: SourceType,
    /// How dates and times are written.
    pattern: Pattern,
}

impl PlainType {
    /// From its name and, for dates and times, their pattern.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn parse(text: &str, pattern: Option<&str>) -> Result<Self, String> {
        use SourceType as T;
        let wrong = || {
            format!(
                "there is no type `{text}`; write string, int, bigint, float, double, boolean, decimal(p,s), date, timestamp, json or binary"
            )
        };
        let name = text.trim().to_ascii_lowercase();
        let source_type = match name.as_str() {
            "string" => T::Text { charset: "utf8mb4".into(), max_bytes: 0 },
            "int" => T::Int { unsigned: false },
            "bigint" => T::BigInt { unsigned: false },
            "float" => T::Float,
            "double" => T::Double,
            "boolean" => T::Bool,
            "date" => T::Date,
            "timestamp" => T::Timestamp { fsp: 6 },
            "json" => T::Json,
            "binary" => T::Binary { fixed_bytes: 0 },
            _ => {
                let inner = name.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
                let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
                let (precision, scale) = (precision.trim().parse().ok(), scale.trim().parse().ok());
                match (precision, scale) {
                    (Some(precision @ 1..=38), Some(scale)) if scale <= precision => T::Decimal { precision, scale },
                    _ => return Err(format!("`{text}` is not a decimal; write decimal(p,s) with p up to 38 and s up to p")),
                }
            }
        };
        let pattern = match (pattern, &source_type) {
            (None, _) => Pattern::Iso,
            (Some(pattern), T::Date | T::Timestamp { .. }) => Pattern::parse(pattern)?,
            (Some(_), _) => return Err(format!("`format` is for dates and timestamps, not for {text}")),
        };
        Ok(Self { source_type, pattern })
    }

    /// The plain type of a source's type, with dates and times as ISO 8601 has them.
    pub fn of(source_type: SourceType) -> Self {
        Self { source_type, pattern: Pattern::Iso }
    }

    /// A value as a cell; `Err` says what is wrong, without the value.
    ///
    /// # Errors
    /// If it isn't of this type, and can't be converted without loss.
    pub fn cell(&self, value: &Value) -> Result<Cell<'static>, &'static str> {
        use SourceType as T;
        let text = match value {
            Value::Null => return Ok(Cell::Null),
            Value::String(text) => text.clone(),
            // as it is written: no digit is lost
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            other => other.to_string(),
        };
        let is_nested = value.is_array() || value.is_object();
        let is_boolean = value.is_boolean();
        if is_nested && !matches!(self.source_type, T::Text { .. } | T::Json) {
            return Err("it is a list or an object");
        }
        if is_boolean && !matches!(self.source_type, T::Bool | T::Text { .. } | T::Json) {
            return Err("it is a boolean");
        }
        Ok(match &self.source_type {
            T::Int { .. } => {
                let number = parse_decimal(&text, 10, 0).and_then(|number| i32::try_from(number).ok());
                Cell::Int(number.ok_or("it is no int")?.into())
            }
            T::BigInt { .. } => {
                let number = parse_decimal(&text, 19, 0).and_then(|number| i64::try_from(number).ok());
                Cell::Int(number.ok_or("it is no bigint")?)
            }
            T::Decimal { precision, scale } => {
                let scale = i8::try_from(*scale).unwrap_or(0);
                Cell::Decimal(parse_decimal(&text, *precision, scale).ok_or("it doesn't fit the decimal")?)
            }
            T::Float => Cell::Float(text.trim().parse().map_err(|_| "it is no number")?),
            T::Double => Cell::Double(text.trim().parse().map_err(|_| "it is no number")?),
            T::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Cell::Bool(true),
                "false" | "0" => Cell::Bool(false),
                _ => return Err("it is no boolean"),
            },
            T::Date => Cell::Date(self.clock(value)?.date(&text).ok_or("it is no date")?),
            T::Timestamp { .. } => Cell::Micros(self.clock(value)?.instant(&text).ok_or("it is no timestamp")?),
            T::Binary { .. } => Cell::Bytes(STANDARD.decode(&text).map_err(|_| "it is not base64")?.into()),
            T::Json => Cell::Text(value.to_string().into()),
            _ => Cell::Text(text.into()),
        })
    }

    fn clock(&self, value: &Value) -> Result<&Pattern, &'static str> {
        if value.is_number() && !self.pattern.takes_numbers() {
            return Err("it is a number, and `format` doesn't say of what");
        }
        Ok(&self.pattern)
    }

    /// The type in the lake.
    pub fn source_type(&self) -> &SourceType {
        &self.source_type
    }
}

/// A table of plain JSON records.
#[derive(Debug, Clone)]
pub struct PlainTable {
    schema: Arc<TableSchema>,
    columns: Vec<PlainColumn>,
    bad_values: BadValues,
}

/// A record that can't be a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl PlainTable {
    /// A table with these columns; `key` names some of them.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn new(table: TableId, columns: Vec<PlainColumn>, key: &[String], bad_values: BadValues) -> Result<Self, String> {
        if key.is_empty() {
            return Err(format!("the table {table} needs `key`: the columns that say which row a record is about"));
        }
        let position = |name: &String| {
            let found = columns.iter().position(|column| column.name == *name || column.path.join(".") == *name);
            found.ok_or_else(|| format!("the key of {table} has the column `{name}`, which `columns` doesn't declare"))
        };
        let key: Vec<usize> = key.iter().map(position).collect::<Result<_, _>>()?;
        let schema = TableSchema {
            table,
            columns: columns
                .iter()
                .map(|column| Column { name: column.name.clone(), source_type: column.kind.source_type.clone(), nullable: true })
                .collect(),
            key,
        };
        Ok(Self { schema: Arc::new(schema), columns, bad_values })
    }

    /// Its shape.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// A record's row, and how many of its values became NULL.
    ///
    /// # Errors
    /// Why the record is none.
    pub fn row(&self, record: &[u8]) -> Result<(Vec<Cell<'static>>, u64), Unreadable> {
        let record: Value = serde_json::from_slice(record).map_err(|error| Unreadable(format!("it is not JSON: {error}")))?;
        let fields = record.as_object().ok_or_else(|| Unreadable("it is not a JSON object".into()))?;
        let mut nulls = 0;
        let mut row = Vec::with_capacity(self.columns.len());
        for (i, column) in self.columns.iter().enumerate() {
            let is_key = self.schema.key.contains(&i);
            let cell = match at(fields, &column.path).map(|value| column.kind.cell(value)) {
                None => Cell::Null,
                Some(Ok(cell)) => cell,
                Some(Err(_)) if !is_key && column.bad_values.unwrap_or(self.bad_values) == BadValues::Null => {
                    nulls += 1;
                    Cell::Null
                }
                Some(Err(what)) => {
                    return Err(Unreadable(format!("the value of `{}` can't be read: {what}", column.path.join("."))));
                }
            };
            if is_key && cell == Cell::Null {
                return Err(Unreadable(format!("the key `{}` is missing", column.path.join("."))));
            }
            row.push(cell);
        }
        Ok((row, nulls))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &str, key: &str, bad_values: BadValues) -> PlainTable {
        let columns: std::collections::BTreeMap<String, ColumnSpec> = toml::from_str(columns).unwrap();
        let columns = columns.into_iter().map(|(key, spec)| spec.column(&key)).collect();
        PlainTable::new("mydev.t".parse().unwrap(), columns, &[key.to_owned()], bad_values).unwrap()
    }

    fn row(table: &PlainTable, record: &str) -> Result<Vec<Cell<'static>>, String> {
        table.row(record.as_bytes()).map(|(row, _)| row).map_err(|Unreadable(why)| why)
    }

    fn text(text: &str) -> Cell<'static> {
        Cell::Text(text.to_owned().into())
    }

    #[test]
    fn a_number_where_text_is_declared_keeps_its_digits() {
        let table = table("uuid = 'string'\n", "uuid", BadValues::DeadLetter);
        for digits in ["12345678901234567890123", "1.10", "1e+5", "-0"] {
            let digits_are = row(&table, &format!("{{\"uuid\": {digits}}}")).unwrap();
            assert_eq!(digits_are, [text(digits)], "{digits}");
        }
        assert_eq!(row(&table, "{\"uuid\": true}").unwrap(), [text("true")]);
        assert_eq!(row(&table, "{\"uuid\": [1, \"x\"]}").unwrap(), [text("[1,\"x\"]")]);
    }

    #[test]
    fn nested_fields_by_path_and_values_of_each_type() {
        let columns = "'a.b' = 'int'\n'a.list' = 'json'\nid = 'bigint'\nd = { type = 'date', format = 'M/d/yy' }\nn = 'decimal(10,2)'\n\
                       t = 'timestamp'\nok = 'boolean'\nx = { type = 'double', path = 'deep.er.x' }\nraw = 'binary'\n";
        let table = table(columns, "id", BadValues::DeadLetter);
        let record = r#"{"id": "7", "a": {"b": 5, "list": [1, {"c": 2.50}]}, "d": "2/15/11", "n": 1.5, "t": "2026-11-21T10:11:12Z",
                         "ok": "true", "deep.er": {"x": 1}, "deep": {"er": {"x": 0.5}}, "raw": "AP8=", "other": 1}"#;
        let names: Vec<&str> = table.schema().columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a_b", "a_list", "d", "id", "n", "ok", "raw", "t", "x"]);
        let cells = row(&table, record).unwrap();
        assert_eq!(cells[0], Cell::Int(5));
        assert_eq!(cells[1], text(r#"[1,{"c":2.50}]"#));
        assert_eq!(cells[2], Cell::Date(15_020));
        assert_eq!((&cells[3], &cells[4], &cells[5]), (&Cell::Int(7), &Cell::Decimal(150), &Cell::Bool(true)));
        assert_eq!(cells[6], Cell::Bytes(vec![0, 255].into()));
        assert_eq!(cells[8], Cell::Double(0.5));
    }

    #[test]
    fn what_cannot_be_read_says_why_or_is_null() {
        let columns = "id = 'int'\nt = 'timestamp'\n";
        let strict = table(columns, "id", BadValues::DeadLetter);
        assert!(
            row(&strict, r#"{"id": 1, "t": "2026-14-01 00:00:00"}"#).unwrap_err().contains("`t` can't be read: it is no timestamp")
        );
        assert!(row(&strict, r#"{"id": 1, "t": 12}"#).unwrap_err().contains("a number"));
        assert!(row(&strict, r#"{"t": null}"#).unwrap_err().contains("the key `id` is missing"));
        assert!(row(&strict, "[1]").unwrap_err().contains("not a JSON object"));
        assert!(row(&strict, "{\"id\"").unwrap_err().contains("not JSON"));
        let lenient = table(columns, "id", BadValues::Null);
        let (cells, nulls) = lenient.row(br#"{"id": 1, "t": "2026-14-01 00:00:00"}"#).unwrap();
        assert_eq!((cells, nulls), (vec![Cell::Int(1), Cell::Null], 1));
        assert!(row(&lenient, r#"{"id": "x"}"#).is_err(), "a key is never NULL");
    }

    #[test]
    fn wrong_declarations_are_said() {
        for (text, pattern) in
            [("varchar", None), ("decimal(40,2)", None), ("decimal(3,4)", None), ("int", Some("M/d/yy")), ("date", Some("Q"))]
        {
            assert!(PlainType::parse(text, pattern).is_err(), "{text}");
        }
        let column = ColumnSpec { kind: PlainType::parse("int", None).unwrap(), path: None, bad_values: None }.column("id");
        assert!(PlainTable::new("a.b".parse().unwrap(), vec![column.clone()], &[], BadValues::Null).is_err());
        assert!(PlainTable::new("a.b".parse().unwrap(), vec![column], &["x".into()], BadValues::Null).is_err());
    }
}
