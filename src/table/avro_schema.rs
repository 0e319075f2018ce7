//! The table's columns as an Avro schema, which is how Hudi keeps them in each commit, and back.
//!
//! Names are Hudi's: record `<table>_record` in the namespace `hoodie.<table>`, characters that Avro doesn't allow becoming `__`;
//! a decimal is a fixed named `fixed` in the namespace `hoodie.<table>.<table>_record.<column>`.

use crate::error::{Area, Error, Kind, Result};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use std::sync::Arc;

/// Hudi's own columns, which come first in every file; all are nullable strings.
pub(super) const META_COLUMNS: [&str; 5] =
    ["_hoodie_commit_time", "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name"];

/// The schema of a table's columns, as commits have it.
pub(super) fn avro_schema(table: &str, columns: &Schema) -> Result<String> {
    render(table, columns, Vec::new())
}

/// The schema of a table's files, Hudi's own columns first.
pub(super) fn avro_file_schema(table: &str, columns: &Schema) -> Result<String> {
    let meta = META_COLUMNS.iter().map(|name| json!({"name": name, "type": ["null", "string"], "doc": "", "default": null}));
    render(table, columns, meta.collect())
}

fn render(table: &str, columns: &Schema, mut fields: Vec<Value>) -> Result<String> {
    let table = sanitized(table);
    for field in columns.fields() {
        ensure_column_name(field.name())?;
        let namespace = format!("hoodie.{table}.{table}_record.{}", field.name());
        let avro = avro_type(field.data_type(), &namespace).ok_or_else(|| {
            Error::new(Area::Lake, Kind::Data, "a column's type has no place in the lake")
                .with("column", field.name())
                .with("type", field.data_type())
        })?;
        fields.push(match field.is_nullable() {
            true => json!({"name": field.name(), "type": ["null", avro], "default": null}),
            false => json!({"name": field.name(), "type": avro}),
        });
    }
    let schema =
        json!({"type": "record", "name": format!("{table}_record"), "namespace": format!("hoodie.{table}"), "fields": fields});
    Ok(schema.to_string())
}

/// Hudi's `HoodieAvroUtils.sanitizeName`.
fn sanitized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, character) in name.chars().enumerate() {
        match character {
            'A'..='Z' | 'a'..='z' | '_' => out.push(character),
            '0'..='9' if at > 0 => out.push(character),
            _ => out.push_str("__"),
        }
    }
    out
}

/// No reader that goes by the Avro schema (Spark, hudi-rs, Athena) opens a table with a name that Avro doesn't allow.
///
/// # Errors
/// `Data` for such a column's name.
pub fn ensure_column_name(name: &str) -> Result<()> {
    if !name.is_empty() && sanitized(name) == name {
        return Ok(());
    }
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    Err(Error::new(Area::Lake, Kind::Data, "a column's name has characters that Hudi's readers can't read")
        .with("column", name)
        .remedy(format!(
            "give it another name by a transform, SELECT * EXCEPT ({quoted}), {quoted} AS {} FROM input, or at the source: letters, digits and _ only, no digit first",
            sanitized(name)
        )))
}

fn avro_type(arrow: &DataType, namespace: &str) -> Option<Value> {
    Some(match arrow {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("bytes"),
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!({"type": "long", "logicalType": "timestamp-micros"}),
        DataType::Timestamp(TimeUnit::Microsecond, None) => json!({"type": "long", "logicalType": "local-timestamp-micros"}),
        DataType::Timestamp(TimeUnit::Millisecond, Some(_)) => json!({"type": "long", "logicalType": "timestamp-millis"}),
        DataType::Decimal128(precision, scale) => json!({
            "type": "fixed", "name": "fixed", "namespace": namespace, "size": decimal_bytes(*precision),
            "logicalType": "decimal", "precision": precision, "scale": scale
        }),
        DataType::List(item) => {
            let items = avro_type(item.data_type(), &format!("{namespace}.{}", item.name()))?;
            json!({"type": "array", "items": if item.is_nullable() { json!(["null", items]) } else { items }})
        }
        _ => return None,
    })
}

/// The least bytes that hold every number of `precision` digits, with its sign.
pub(super) fn decimal_bytes(precision: u8) -> u32 {
    let largest = 10_u128.checked_pow(u32::from(precision)).map_or(u128::MAX, |power| power - 1);
    let bits = 128 - largest.leading_zeros() + 1;
    bits.div_ceil(8).min(16)
}

/// The columns of a commit's schema, without Hudi's own.
pub(super) fn arrow_columns(avro_schema: &str) -> Result<SchemaRef> {
    let corrupt = |what: &'static str| Error::new(Area::Lake, Kind::Corrupt, what);
    let schema: Value =
        serde_json::from_str(avro_schema).map_err(|error| corrupt("a commit's Avro schema is no JSON").caused_by(error))?;
    let fields = schema.get("fields").and_then(Value::as_array).ok_or_else(|| corrupt("a commit's Avro schema is no record"))?;
    let fields: Vec<Field> = fields
        .iter()
        .map(|field| {
            let name = field
                .get("name")
                .and_then(Value::as_str)
                .ok_or_else(|| corrupt("a commit's Avro schema has a field without a name"))?;
            let avro = field.get("type").unwrap_or(&Value::Null);
            arrow_field(name, avro).ok_or_else(|| {
                Error::new(Area::Lake, Kind::Refused, "another writer gave the table a column of a type that binlake can't write")
                    .with("column", name)
                    .with("type", avro)
                    .remedy("drop the column with that writer, or load the table anew under another name")
            })
        })
        .filter(|field| !matches!(field, Ok(field) if META_COLUMNS.contains(&field.name().as_str())))
        .collect::<Result<_>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

fn arrow_field(name: &str, avro: &Value) -> Option<Field> {
    let (avro, nullable) = match avro {
        Value::Array(variants) => {
            let mut others = variants.iter().filter(|variant| variant.as_str() != Some("null"));
            let only = others.next().filter(|_| others.next().is_none())?;
            (only, variants.len() == 2)
        }
        avro => (avro, false),
    };
    Some(Field::new(name, arrow_type(avro)?, nullable))
}

fn arrow_type(avro: &Value) -> Option<DataType> {
    if let Some(name) = avro.as_str() {
        return Some(match name {
            "boolean" => DataType::Boolean,
            "int" => DataType::Int32,
            "long" => DataType::Int64,
            "float" => DataType::Float32,
            "double" => DataType::Float64,
            "string" => DataType::Utf8,
            "bytes" => DataType::Binary,
            _ => return None,
        });
    }
    let digits = |key: &str| avro.get(key).and_then(Value::as_i64);
    let base = avro.get("type")?;
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Some(match (base.as_str(), avro.get("logicalType").and_then(Value::as_str)) {
        (Some("int"), Some("date")) => DataType::Date32,
        (Some("long"), Some("timestamp-micros")) => micros(Some("UTC")),
        (Some("long"), Some("timestamp-millis")) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        (Some("long"), Some("local-timestamp-micros")) => micros(None),
        (Some("fixed" | "bytes"), Some("decimal")) => DataType::Decimal128(
            u8::try_from(digits("precision")?).ok().filter(|digits| *digits <= 38)?,
            i8::try_from(digits("scale").unwrap_or(0)).ok()?,
        ),
        (Some("enum"), _) => DataType::Utf8,
        (Some("array"), _) => DataType::List(Arc::new(arrow_field("item", avro.get("items")?)?)),
        (Some("record"), _) => {
            let fields = avro.get("fields")?.as_array()?.iter();
            let fields = fields.map(|field| arrow_field(field.get("name")?.as_str()?, field.get("type")?));
            DataType::Struct(fields.collect::<Option<Vec<_>>>().map(Fields::from)?)
        }
        // a name of a primitive type, as {"type": "string", "avro.java.string": "String"}, or a type in another
        (Some(name), _) if name != "fixed" && name != "map" => arrow_type(&Value::String(name.to_owned()))?,
        (None, _) => arrow_type(base)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Schema {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("sport_type", DataType::Utf8, true),
            Field::new("price", DataType::Decimal128(12, 2), true),
            Field::new("event_day", DataType::Date32, true),
            Field::new("updated_at", utc(), true),
            Field::new("sold", DataType::Boolean, true),
            Field::new("score", DataType::Float64, true),
            Field::new("blob", DataType::Binary, true),
            Field::new("created_at", utc(), true),
        ])
    }

    /// As Spark wrote it for the same columns (`np.zip`).
    const SPARKS: &str = r#"{"type":"record","name":"np_record","namespace":"hoodie.np","fields":[{"name":"id","type":"int"},{"name":"sport_type","type":["null","string"],"default":null},{"name":"price","type":["null",{"type":"fixed","name":"fixed","namespace":"hoodie.np.np_record.price","size":6,"logicalType":"decimal","precision":12,"scale":2}],"default":null},{"name":"event_day","type":["null",{"type":"int","logicalType":"date"}],"default":null},{"name":"updated_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},{"name":"sold","type":["null","boolean"],"default":null},{"name":"score","type":["null","double"],"default":null},{"name":"blob","type":["null","bytes"],"default":null},{"name":"created_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null}]}"#;

    #[test]
    fn the_schema_is_sparks_byte_for_byte_and_reads_back() {
        assert_eq!(avro_schema("np", &columns()).unwrap(), SPARKS);
        assert_eq!(*arrow_columns(SPARKS).unwrap(), columns());
        let file_schema = avro_file_schema("np", &columns()).unwrap();
        assert!(
            file_schema.contains(r#""fields":[{"name":"_hoodie_commit_time","type":["null","string"],"doc":"","default":null}"#)
        );
        assert_eq!(*arrow_columns(&file_schema).unwrap(), columns());
    }

    #[test]
    fn every_lake_type_survives() {
        let item = Field::new("item", DataType::Float32, true);
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Float32, true),
            Field::new("c", DataType::List(Arc::new(item)), true),
            Field::new("d", DataType::Decimal128(20, 0), false),
            Field::new("e", DataType::Decimal128(38, 30), true),
        ]);
        assert_eq!(*arrow_columns(&avro_schema("t", &schema).unwrap()).unwrap(), schema);
        // nullable last, as Spark's SQL has it; a string with Java's hint
        let sql =
            r#"{"type":"record","name":"r","fields":[{"name":"x","type":[{"type":"string","avro.java.string":"String"},"null"]}]}"#;
        assert_eq!(*arrow_columns(sql).unwrap(), Schema::new(vec![Field::new("x", DataType::Utf8, true)]));
    }

    #[test]
    fn decimals_have_the_least_bytes() {
        for (precision, bytes) in [(1, 1), (2, 1), (3, 2), (9, 4), (10, 5), (12, 6), (18, 8), (20, 9), (38, 16)] {
            assert_eq!(decimal_bytes(precision), bytes, "{precision}");
        }
    }

    #[test]
    fn names_are_sanitized_or_refused() {
        assert!(
            avro_schema("my-täble", &Schema::empty())
                .unwrap()
                .contains(r#""name":"my__t__ble_record","namespace":"hoodie.my__t__ble""#)
        );
        let schema = Schema::new(vec![Field::new("naïve name", DataType::Int32, true)]);
        let error = avro_schema("t", &schema).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("column=naïve name"), "{error}");
        let map = r#"{"type":"record","name":"r","fields":[{"name":"x","type":{"type":"map","values":"int"}}]}"#;
        assert_eq!(arrow_columns(map).unwrap_err().kind(), Kind::Refused);
    }
}
