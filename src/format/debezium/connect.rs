//! Kafka Connect's schemas as others' records have them, read: what columns a row has, and how each value is written.

use super::schema;
use super::value;
use crate::event::{Column, SourceType};
use crate::format::cell::Cell;
use crate::format::clock::{parse_date, parse_instant, time_text};
use crate::format::evolve::fit;
use crate::format::number::from_twos_complement;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A field of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnectField {
    /// The column that it is.
    pub(crate) column: Column,
    writing: Writing,
    /// Type and semantic type.
    kind: (String, Option<String>),
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// As the MySQL connector does by its defaults.
    Default,
    /// A time in units of so many nanoseconds.
    Time(i64),
    /// A date and time in nanoseconds.
    Nanos,
    /// Text in ISO 8601.
    IsoDate,
    IsoTimestamp,
    /// A decimal with its scale beside.
    VariableDecimal,
    /// Any JSON.
    Json,
}

/// The fields of the rows that an envelope's schema describes; `None` if it describes none.
pub(crate) fn row_fields(envelope: &Value) -> Option<Vec<ConnectField>> {
    let fields = envelope.get("fields")?.as_array()?;
    let image = |name: &str| fields.iter().find(|field| field.get("field").and_then(Value::as_str) == Some(name));
    let row = image("after").or_else(|| image("before"))?;
    row.get("fields")?.as_array()?.iter().map(field).collect()
}

fn field(schema: &Value) -> Option<ConnectField> {
    use SourceType as T;
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let parameter = |key: &str| schema.get("parameters").and_then(|parameters| parameters.get(key)).and_then(Value::as_str);
    let digits = |key: &str| parameter(key).and_then(|text| text.parse::<u8>().ok());
    let (kind, name) = (text("type")?, text("name"));
    let plain = || T::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    let datetime = |fsp: u8| T::DateTime { fsp };
    let default = |source_type: SourceType| (source_type, Writing::Default);
    let (source_type, writing) = match (kind, name) {
        (_, Some("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date")) => default(T::Date),
        (_, Some("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp")) => default(datetime(3)),
        (_, Some("io.debezium.time.MicroTimestamp")) => default(datetime(6)),
        (_, Some("io.debezium.time.NanoTimestamp")) => (datetime(6), Writing::Nanos),
        (_, Some("io.debezium.time.ZonedTimestamp")) => default(T::Timestamp { fsp: 6 }),
        (_, Some("io.debezium.time.IsoTimestamp")) => (datetime(6), Writing::IsoTimestamp),
        (_, Some("io.debezium.time.IsoDate")) => (T::Date, Writing::IsoDate),
        (_, Some("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time")) => (T::Time { fsp: 3 }, Writing::Time(1_000_000)),
        (_, Some("io.debezium.time.MicroTime")) => default(T::Time { fsp: 6 }),
        (_, Some("io.debezium.time.NanoTime")) => (T::Time { fsp: 6 }, Writing::Time(1)),
        (_, Some("io.debezium.time.Year")) => default(T::Year),
        ("bytes", Some("org.apache.kafka.connect.data.Decimal")) => {
            let scale = digits("scale")?;
            let precision = digits("connect.decimal.precision").unwrap_or(38);
            default(T::Decimal { precision: precision.max(scale), scale })
        }
        (_, Some("io.debezium.data.VariableScaleDecimal")) => (plain(), Writing::VariableDecimal),
        (_, Some("io.debezium.data.Json")) => default(T::Json),
        (_, Some("io.debezium.data.geometry.Geometry" | "io.debezium.data.geometry.Point")) => default(T::Geometry),
        (_, Some("io.debezium.data.FloatVector")) => default(T::Vector),
        ("bytes", Some("io.debezium.data.Bits")) => match digits("length") {
            Some(bits @ 1..=64) => default(T::Bit { bits }),
            _ => default(T::Binary { fixed_bytes: 0 }),
        },
        ("boolean", _) => default(T::Bool),
        ("int8" | "int16", _) => default(T::SmallInt { unsigned: false }),
        ("int32", _) => default(T::Int { unsigned: false }),
        // with column.propagate.source.type the connector says more
        ("int64", _) => {
            let declared = parameter("__debezium.source.column.type").unwrap_or_default();
            default(T::BigInt { unsigned: declared.starts_with("BIGINT UNSIGNED") })
        }
        ("float" | "float32", _) => default(T::Float),
        ("double" | "float64", _) => default(T::Double),
        ("string", _) => default(plain()),
        ("bytes", _) => default(T::Binary { fixed_bytes: 0 }),
        ("array", None) => match schema.get("items").and_then(item) {
            Some(item) => default(T::List { item: Box::new(item) }),
            None => (T::Json, Writing::Json),
        },
        ("array" | "map" | "struct", _) => (T::Json, Writing::Json),
        _ => return None,
    };
    let nullable = schema.get("optional").and_then(Value::as_bool).unwrap_or(true);
    let column = Column { name: text("field")?.to_owned(), source_type, nullable };
    Some(ConnectField { column, writing, kind: (kind.to_owned(), name.map(str::to_owned)) })
}

/// The type of a list's items, if they are plain and written by the defaults.
fn item(schema: &Value) -> Option<SourceType> {
    let mut schema = schema.clone();
    schema.as_object_mut()?.insert("field".into(), "item".into());
    let field = field(&schema)?;
    let is_plain = field.writing == Writing::Default && !matches!(field.column.source_type, SourceType::List { .. });
    is_plain.then_some(field.column.source_type)
}

impl ConnectField {
    /// A value as one of the column that is known; `Err` says what is wrong, without the value.
    pub(crate) fn cell(&self, known: &Column, value: &Value) -> Result<Cell<'static>, &'static str> {
        // what is written alike is read by what is known of the column, which may be more: its sign, its digits
        if self.writing == Writing::Default && self.is_kind_of(known) {
            return value::decode(known, value);
        }
        fit(self.decode(value)?, &self.column.source_type, &known.source_type)
    }

    fn is_kind_of(&self, known: &Column) -> bool {
        let written = schema::column(known);
        let text = |key: &str| written.get(key).and_then(Value::as_str);
        (text("type"), text("name")) == (Some(self.kind.0.as_str()), self.kind.1.as_deref())
            && !matches!(self.column.source_type, SourceType::Decimal { .. })
    }

    fn decode(&self, value: &Value) -> Result<Cell<'static>, &'static str> {
        if value.is_null() {
            return Ok(Cell::Null);
        }
        const FINE: &str = "it has nanoseconds, which the lake can't hold";
        let integer = || value.as_i64().ok_or("it is no whole number");
        let text = || value.as_str().ok_or("it is no text");
        let micros = |nanos: i64| if nanos % 1000 == 0 { Ok(nanos / 1000) } else { Err(FINE) };
        Ok(match self.writing {
            Writing::Default => return value::decode(&self.column, value),
            Writing::Time(nanos) => {
                let time = integer()?.checked_mul(nanos).ok_or("it is no time")?;
                let SourceType::Time { fsp } = self.column.source_type else { return Err("it is no time") };
                Cell::Text(time_text(micros(time)?, fsp).into())
            }
            Writing::Nanos => Cell::Micros(micros(integer()?)?),
            Writing::IsoDate => Cell::Date(parse_date(text()?.trim_end_matches('Z')).ok_or("it is no date")?),
            Writing::IsoTimestamp => Cell::Micros(parse_instant(text()?).ok_or("it is no date and time")?),
            Writing::VariableDecimal => {
                let scale = value.get("scale").and_then(Value::as_u64).and_then(|scale| u8::try_from(scale).ok());
                let bytes = value.get("value").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
                let decimal = scale.zip(bytes).and_then(|(scale, bytes)| from_twos_complement(&bytes, scale));
                Cell::Text(decimal.ok_or("it is no decimal")?.into())
            }
            Writing::Json => Cell::Text(value.to_string().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The JSON of a field's schema and a value; the type that it becomes, and the cell.
    fn read(schema: Value, value: Value) -> (SourceType, Result<Cell<'static>, &'static str>) {
        let mut schema = schema;
        schema["field"] = "f".into();
        let envelope = json!({"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": [schema]}]});
        let field = row_fields(&envelope).unwrap().remove(0);
        let cell = field.cell(&field.column, &value);
        (field.column.source_type, cell)
    }

    #[test]
    fn logical_types_become_columns() {
        let named = |kind: &str, name: &str| json!({"type": kind, "name": name, "optional": true});
        let text = |text: &str| Cell::Text(text.to_owned().into());
        for (schema, value, source_type, cell) in [
            (named("int32", "io.debezium.time.Date"), json!(15020), SourceType::Date, Cell::Date(15020)),
            (
                named("int64", "org.apache.kafka.connect.data.Timestamp"),
                json!(1500),
                SourceType::DateTime { fsp: 3 },
                Cell::Micros(1_500_000),
            ),
            (named("int64", "io.debezium.time.NanoTimestamp"), json!(-2000), SourceType::DateTime { fsp: 6 }, Cell::Micros(-2)),
            (
                named("string", "io.debezium.time.IsoTimestamp"),
                json!("1970-01-01T00:00:00.000001Z"),
                SourceType::DateTime { fsp: 6 },
                Cell::Micros(1),
            ),
            (named("string", "io.debezium.time.IsoDate"), json!("1970-01-02Z"), SourceType::Date, Cell::Date(1)),
            (named("int32", "io.debezium.time.Time"), json!(3_600_005), SourceType::Time { fsp: 3 }, text("01:00:00.005")),
            (named("int64", "io.debezium.time.NanoTime"), json!(5000), SourceType::Time { fsp: 6 }, text("00:00:00.000005")),
            (
                json!({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2", "connect.decimal.precision": "10"}}),
                json!("AJY="),
                SourceType::Decimal { precision: 10, scale: 2 },
                Cell::Decimal(150),
            ),
            (
                named("struct", "io.debezium.data.VariableScaleDecimal"),
                json!({"scale": 1, "value": "Dw=="}),
                SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 },
                text("1.5"),
            ),
            (
                json!({"type": "array", "items": {"type": "int32"}}),
                json!([1, null]),
                SourceType::List { item: Box::new(SourceType::Int { unsigned: false }) },
                Cell::List(vec![Cell::Int(1), Cell::Null]),
            ),
            (json!({"type": "array", "items": {"type": "struct", "fields": []}}), json!([{}]), SourceType::Json, text("[{}]")),
            (
                json!({"type": "int64", "parameters": {"__debezium.source.column.type": "BIGINT UNSIGNED"}}),
                json!(-1),
                SourceType::BigInt { unsigned: true },
                Cell::Decimal(u64::MAX.into()),
            ),
        ] {
            assert_eq!(read(schema.clone(), value), (source_type, Ok(cell)), "{schema}");
        }
        let (_, fine) = read(named("int64", "io.debezium.time.NanoTimestamp"), json!(1));
        assert!(fine.unwrap_err().contains("nanoseconds"));
    }

    #[test]
    fn what_is_known_of_a_column_counts_where_it_is_written_alike() {
        let envelope = json!({"fields": [{"field": "before", "fields": [{"type": "int64", "optional": true, "field": "n"}]}]});
        let field = row_fields(&envelope).unwrap().remove(0);
        let known = Column { name: "n".into(), source_type: SourceType::BigInt { unsigned: true }, nullable: true };
        assert_eq!(field.cell(&known, &json!(-1)), Ok(Cell::Decimal(u64::MAX.into())));
        let wider = Column { source_type: SourceType::Decimal { precision: 30, scale: 1 }, ..known };
        assert_eq!(field.cell(&wider, &json!(-1)), Ok(Cell::Decimal(-10)));
        assert_eq!(row_fields(&json!({"type": "string"})), None);
    }
}
