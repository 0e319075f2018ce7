//! Kafka Connect's JSON schemas of Debezium's records.

use crate::event::{Column, SourceType, TableSchema};
use serde_json::{Map, Value, json};

/// A field: the JSON of its schema with its name.
fn field(name: &str, mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("field".into(), name.into());
    }
    schema
}

fn plain(name: &str, kind: &str, optional: bool) -> Value {
    json!({"type": kind, "optional": optional, "field": name})
}

/// A column's schema.
pub(super) fn column(column: &Column) -> Value {
    use SourceType as T;
    let (kind, name, parameters): (&str, Option<&str>, Vec<(&str, String)>) = match &column.source_type {
        T::Bool | T::Bit { bits: 1 } => ("boolean", None, vec![]),
        T::TinyInt { .. } | T::SmallInt { unsigned: false } => ("int16", None, vec![]),
        T::SmallInt { unsigned: true } | T::MediumInt { .. } | T::Int { unsigned: false } => ("int32", None, vec![]),
        T::Int { unsigned: true } | T::BigInt { .. } => ("int64", None, vec![]),
        T::Float => ("float", None, vec![]),
        T::Double => ("double", None, vec![]),
        T::Decimal { precision, scale } => (
            "bytes",
            Some("org.apache.kafka.connect.data.Decimal"),
            vec![("scale", scale.to_string()), ("connect.decimal.precision", precision.to_string())],
        ),
        T::Bit { bits } => ("bytes", Some("io.debezium.data.Bits"), vec![("length", bits.to_string())]),
        T::Text { .. } => ("string", None, vec![]),
        T::Binary { .. } => ("bytes", None, vec![]),
        T::Geometry => ("struct", Some("io.debezium.data.geometry.Geometry"), vec![]),
        T::Enum { members } => ("string", Some("io.debezium.data.Enum"), vec![("allowed", members.join(","))]),
        T::Set { members } => ("string", Some("io.debezium.data.EnumSet"), vec![("allowed", members.join(","))]),
        T::Json | T::Objects { .. } => ("string", Some("io.debezium.data.Json"), vec![]),
        T::Date => ("int32", Some("io.debezium.time.Date"), vec![]),
        T::DateTime { fsp: 0..=3 } => ("int64", Some("io.debezium.time.Timestamp"), vec![]),
        T::DateTime { .. } => ("int64", Some("io.debezium.time.MicroTimestamp"), vec![]),
        T::Timestamp { .. } => ("string", Some("io.debezium.time.ZonedTimestamp"), vec![]),
        T::Time { .. } => ("int64", Some("io.debezium.time.MicroTime"), vec![]),
        T::Year => ("int32", Some("io.debezium.time.Year"), vec![]),
        T::Vector => ("array", Some("io.debezium.data.FloatVector"), vec![]),
        T::List { .. } => ("array", None, vec![]),
    };
    let mut schema = Map::new();
    schema.insert("type".into(), kind.into());
    match &column.source_type {
        T::Geometry => {
            schema.insert("fields".into(), json!([plain("wkb", "bytes", false), plain("srid", "int32", true)]));
        }
        T::Vector => {
            schema.insert("items".into(), json!({"type": "float", "optional": false}));
        }
        _ => {}
    }
    if let T::List { item } = &column.source_type {
        let item = Column { name: String::new(), source_type: item.as_ref().clone(), nullable: true };
        schema.insert("items".into(), self::column(&item));
    }
    schema.insert("optional".into(), column.nullable.into());
    if let Some(name) = name {
        schema.insert("name".into(), name.into());
        schema.insert("version".into(), 1.into());
    }
    if column.source_type == T::Geometry {
        schema.insert("doc".into(), "Geometry".into());
    }
    if !parameters.is_empty() {
        let parameters: Map<String, Value> = parameters.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        schema.insert("parameters".into(), parameters.into());
    }
    field(&column.name, schema.into())
}

fn source() -> Value {
    let snapshot = json!({
        "type": "string", "optional": true, "name": "io.debezium.data.Enum", "version": 1,
        "parameters": {"allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},
        "default": "false", "field": "snapshot",
    });
    json!({
        "type": "struct",
        "fields": [
            plain("version", "string", false), plain("connector", "string", false), plain("name", "string", false),
            plain("ts_ms", "int64", false), snapshot, plain("db", "string", false), plain("sequence", "string", true),
            plain("ts_us", "int64", true), plain("ts_ns", "int64", true), plain("table", "string", true),
            plain("server_id", "int64", false), plain("gtid", "string", true), plain("file", "string", false),
            plain("pos", "int64", false), plain("row", "int32", false), plain("thread", "int64", true), plain("query", "string", true),
        ],
        "optional": false, "name": "io.debezium.connector.mysql.Source", "version": 1, "field": "source",
    })
}

/// Of a row's record.
pub(super) fn envelope(prefix: &str, table: &TableSchema) -> Value {
    let name = format!("{prefix}.{}", table.table);
    let fields: Vec<Value> = table.columns.iter().map(column).collect();
    let image = |field: &str| json!({"type": "struct", "fields": fields, "optional": true, "name": format!("{name}.Value"), "field": field});
    let block = json!({
        "type": "struct",
        "fields": [plain("id", "string", false), plain("total_order", "int64", false), plain("data_collection_order", "int64", false)],
        "optional": true, "name": "event.block", "version": 1, "field": "transaction",
    });
    json!({
        "type": "struct",
        "fields": [
            image("before"), image("after"), source(), block, plain("op", "string", false),
            plain("ts_ms", "int64", true), plain("ts_us", "int64", true), plain("ts_ns", "int64", true),
        ],
        "optional": false, "name": format!("{name}.Envelope"), "version": 2,
    })
}

/// Of a row's key.
pub(super) fn key(prefix: &str, table: &TableSchema) -> Value {
    let fields: Vec<Value> = table.key.iter().filter_map(|i| table.columns.get(*i)).map(column).collect();
    json!({"type": "struct", "fields": fields, "optional": false, "name": format!("{prefix}.{}.Key", table.table)})
}

/// Of a transaction's begin and end.
pub(super) fn transaction() -> Value {
    let item = json!({
        "type": "struct", "fields": [plain("data_collection", "string", false), plain("event_count", "int64", false)],
        "optional": true, "name": "event.collection", "version": 1,
    });
    json!({
        "type": "struct",
        "fields": [
            plain("status", "string", false), plain("id", "string", false), plain("event_count", "int64", true),
            {"type": "array", "items": item, "optional": true, "field": "data_collections"},
            plain("ts_ms", "int64", false),
        ],
        "optional": false, "name": "io.debezium.connector.common.TransactionMetadataValue", "version": 1,
    })
}

/// Of a schema change.
pub(super) fn schema_change() -> Value {
    let texts =
        |name: &str| json!({"type": "array", "items": {"type": "string", "optional": false}, "optional": true, "field": name});
    let column = json!({
        "type": "struct",
        "fields": [
            plain("name", "string", false), plain("jdbcType", "int32", false), plain("nativeType", "int32", true),
            plain("typeName", "string", false), plain("typeExpression", "string", true), plain("charsetName", "string", true),
            plain("length", "int32", true), plain("scale", "int32", true), plain("position", "int32", false),
            plain("optional", "boolean", true), plain("autoIncremented", "boolean", true), plain("generated", "boolean", true),
            plain("comment", "string", true), plain("defaultValueExpression", "string", true), texts("enumValues"),
        ],
        "optional": false, "name": "io.debezium.connector.schema.Column", "version": 1,
    });
    let table = json!({
        "type": "struct",
        "fields": [
            plain("defaultCharsetName", "string", true), texts("primaryKeyColumnNames"),
            {"type": "array", "items": column, "optional": false, "field": "columns"}, plain("comment", "string", true),
        ],
        "optional": true, "name": "io.debezium.connector.schema.Table", "version": 1, "field": "table",
    });
    let change = json!({
        "type": "struct", "fields": [plain("type", "string", false), plain("id", "string", false), table],
        "optional": false, "name": "io.debezium.connector.schema.Change", "version": 1,
    });
    json!({
        "type": "struct",
        "fields": [
            source(), plain("ts_ms", "int64", false), plain("databaseName", "string", true), plain("schemaName", "string", true),
            plain("ddl", "string", true), {"type": "array", "items": change, "optional": false, "field": "tableChanges"},
        ],
        "optional": false, "name": "io.debezium.connector.mysql.SchemaChangeValue", "version": 1,
    })
}
