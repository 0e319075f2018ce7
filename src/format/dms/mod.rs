//! AWS DMS's messages for Kinesis, as its user guide documents them ("Using Amazon Kinesis Data Streams as a target", with `IncludeTransactionDetails`,
//! `IncludeControlDetails`, `IncludeTableAlterOperations`, `IncludeNullAndEmpty`, and before images of all columns).
//!
//! - Data: `{"data": {…}, "before-image": {…}, "metadata": {…}}`. As DMS does, a deleted row is `data`. Of an update the before image has all columns, of
//!   records by DMS perhaps only the changed ones.
//! - `transaction-id` is made of the transaction's binlog file and offset; `transaction-record-id` counts its rows on their lane, that is, for each key
//!   all that concerns it.
//! - Control: `{"control": {"table-def": …}, "metadata": {…}}`, operations `create-table`, `add-column`, `column-type-change`, `truncate-table`, `drop-table`, ….
//! - Two fields of `metadata` are Binlake's own: `gtid`, and `binlake`, the record's [`Mark`].

pub(super) mod value;

use super::clock::{instant_text, parse_instant};
use super::damaged;
use super::mark::Mark;
use super::row::{Change, DecodedRecord, Row, RowImage};
use crate::error::Result;
use crate::event::{BinlogCoordinates, Column, Operation, SourceType, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use serde_json::{Map, Value, json};

/// A transaction's number: its file's number and its offset there.
fn transaction_id(stamp: &TransactionStamp) -> u64 {
    stamp.coordinates.file_number() << 40 | (stamp.coordinates.offset & ((1 << 40) - 1))
}

fn time_text(time: Timestamp) -> Value {
    instant_text(time.as_micros(), 6).map_or(Value::Null, Value::from)
}

/// The fields of `metadata` that all records have.
fn metadata(record_type: &str, operation: &str, made_at: Timestamp, key_type: &str, table: Option<&TableId>) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("timestamp".into(), time_text(made_at));
    metadata.insert("record-type".into(), record_type.into());
    metadata.insert("operation".into(), operation.into());
    metadata.insert("partition-key-type".into(), key_type.into());
    metadata.insert("schema-name".into(), table.map_or("", TableId::database).into());
    metadata.insert("table-name".into(), table.map_or("", TableId::name).into());
    metadata
}

fn put_stamp(metadata: &mut Map<String, Value>, stamp: &TransactionStamp) {
    metadata.insert("commit-timestamp".into(), time_text(stamp.source_commit_time));
    metadata.insert("stream-position".into(), stamp.coordinates.to_string().into());
    if let Some(gtid) = &stamp.gtid {
        metadata.insert("gtid".into(), gtid.to_string().into());
    }
}

fn image(schema: &TableSchema, row: &Row<'_>) -> Value {
    let columns = schema.columns.iter().zip(row);
    Value::Object(columns.map(|(column, cell)| (column.name.clone(), value::encode(column, cell))).collect())
}

/// The record of a row's change.
pub(super) fn row(change: &Change<'_>) -> Value {
    let operation = match change.operation {
        Operation::Create => "insert",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Read => "load",
    };
    let mut metadata = metadata("data", operation, change.made_at, "primary-key", Some(&change.schema.table));
    if !change.stamp.is_snapshot {
        metadata.insert("transaction-id".into(), transaction_id(change.stamp).into());
        metadata.insert("transaction-record-id".into(), change.number.into());
        if let Some((stamp, rows)) = change.previous {
            metadata.insert("prev-transaction-id".into(), transaction_id(stamp).into());
            metadata.insert("prev-transaction-record-id".into(), rows.into());
        }
    }
    put_stamp(&mut metadata, change.stamp);
    metadata.insert("binlake".into(), change.mark.to_string().into());
    let mut record = Map::new();
    if let Some(row) = change.after.as_ref().or(change.before.as_ref()) {
        record.insert("data".into(), image(change.schema, row));
    }
    if let (Operation::Update, Some(before)) = (change.operation, &change.before) {
        record.insert("before-image".into(), image(change.schema, before));
    }
    record.insert("metadata".into(), metadata.into());
    record.into()
}

/// The partition key of a row's record, as DMS makes it of a primary key: `shop.orders.17`.
pub(super) fn partition_key(change: &Change<'_>) -> String {
    let mut text = change.schema.table.to_string();
    let row = change.after.as_ref().or(change.before.as_ref());
    for (i, row) in change.schema.key.iter().filter_map(|i| Some((*i, row?))) {
        if let (Some(column), Some(cell)) = (change.schema.columns.get(i), row.get(i)) {
            text.push('.');
            match value::encode(column, cell) {
                Value::String(part) => text += &part,
                other => text += &other.to_string(),
            }
        }
    }
    text
}

/// The metadata of a control record that is a statement about a table.
fn control_metadata(
    operation: &str,
    table: &TableId,
    stamp: &TransactionStamp,
    mark: Mark,
    made_at: Timestamp,
) -> Map<String, Value> {
    let mut metadata = metadata("control", operation, made_at, "task-id", Some(table));
    put_stamp(&mut metadata, stamp);
    metadata.insert("binlake".into(), mark.to_string().into());
    // a snapshot that begins anew is not a statement of the source's
    metadata.insert("is-snapshot".into(), stamp.is_snapshot.into());
    metadata
}

/// The control record of a truncation.
pub(super) fn truncate(table: &TableId, stamp: &TransactionStamp, mark: Mark, made_at: Timestamp) -> Value {
    let metadata = control_metadata("truncate-table", table, stamp, mark, made_at);
    json!({"control": {}, "metadata": metadata})
}

/// The control record of a new shape; `fill` is what existing rows have in new columns.
pub(super) fn shape(
    schema: &TableSchema,
    fill: Option<Value>,
    stamp: &TransactionStamp,
    mark: Mark,
    made_at: Timestamp,
) -> Result<Value> {
    let operation = if stamp.is_snapshot { "create-table" } else { "change-columns" };
    let metadata = control_metadata(operation, &schema.table, stamp, mark, made_at);
    let columns: Map<String, Value> =
        schema.columns.iter().map(|column| (column.name.clone(), column_definition(column))).collect();
    let key: Vec<&str> = schema.key.iter().filter_map(|i| schema.columns.get(*i)).map(|column| column.name.as_str()).collect();
    let own =
        serde_json::to_value(schema).map_err(|error| crate::error::Error::bug("a shape can't be written").caused_by(error))?;
    Ok(json!({
        "control": {"table-def": {"columns": columns, "primary-key": key}, "binlake": {"schema": own, "fill": fill}},
        "metadata": metadata,
    }))
}

/// What stands beside a chunk's own record.
pub(super) fn beside_chunk(made_at: Timestamp) -> Value {
    json!({"metadata": metadata("control", "binlake-chunk", made_at, "task-id", None)})
}

/// A column by DMS's own types.
fn column_definition(column: &Column) -> Value {
    use SourceType as T;
    let (name, length): (&str, Option<u32>) = match &column.source_type {
        T::Bool | T::Bit { bits: 1 } => ("BOOLEAN", None),
        T::TinyInt { unsigned: false } => ("INT8", None),
        T::TinyInt { unsigned: true } => ("UINT8", None),
        T::SmallInt { unsigned: false } => ("INT16", None),
        T::SmallInt { unsigned: true } => ("UINT16", None),
        T::MediumInt { unsigned: false } | T::Int { unsigned: false } | T::Year => ("INT32", None),
        T::MediumInt { unsigned: true } | T::Int { unsigned: true } => ("UINT32", None),
        T::BigInt { unsigned: false } => ("INT64", None),
        T::BigInt { unsigned: true } => ("UINT64", None),
        T::Float => ("REAL4", None),
        T::Double => ("REAL8", None),
        T::Decimal { .. } => ("NUMERIC", None),
        T::Bit { bits } => ("BYTES", Some(u32::from(bits.div_ceil(8)))),
        T::Binary { fixed_bytes } => ("BYTES", Some(*fixed_bytes).filter(|length| *length > 0)),
        T::Geometry => ("BLOB", None),
        T::Text { max_bytes, .. } => ("STRING", Some(*max_bytes).filter(|length| *length > 0)),
        T::Enum { .. } | T::Set { .. } | T::Vector => ("STRING", None),
        T::Json | T::Objects { .. } | T::List { .. } => ("CLOB", None),
        T::Date => ("DATE", None),
        T::Time { .. } => ("STRING", None),
        T::DateTime { .. } | T::Timestamp { .. } => ("DATETIME", None),
    };
    let mut definition = Map::new();
    definition.insert("type".into(), name.into());
    if let Some(length) = length {
        definition.insert("length".into(), length.into());
    }
    if let T::Decimal { precision, scale } = &column.source_type {
        definition.insert("precision".into(), (*precision).into());
        definition.insert("scale".into(), (*scale).into());
    }
    definition.insert("nullable".into(), column.nullable.into());
    definition.into()
}

/// A column's type from DMS's definition of it.
fn source_type(definition: &Value) -> SourceType {
    use SourceType as T;
    let number = |field: &str| definition.get(field).and_then(Value::as_u64).unwrap_or(0);
    let small = |field: &str| u8::try_from(number(field)).unwrap_or(0);
    match definition.get("type").and_then(Value::as_str).unwrap_or_default() {
        "BOOLEAN" => T::Bool,
        "INT8" => T::TinyInt { unsigned: false },
        "UINT8" => T::TinyInt { unsigned: true },
        "INT16" => T::SmallInt { unsigned: false },
        "UINT16" => T::SmallInt { unsigned: true },
        "INT32" => T::Int { unsigned: false },
        "UINT32" => T::Int { unsigned: true },
        "INT64" => T::BigInt { unsigned: false },
        "UINT64" => T::BigInt { unsigned: true },
        "REAL4" => T::Float,
        "REAL8" => T::Double,
        "NUMERIC" if number("precision") > 0 => T::Decimal { precision: small("precision"), scale: small("scale") },
        "BYTES" | "BLOB" => T::Binary { fixed_bytes: 0 },
        "DATE" => T::Date,
        "DATETIME" | "TIMESTAMP" => T::DateTime { fsp: 6 },
        _ => T::Text { charset: "utf8mb4".into(), max_bytes: 0 },
    }
}

/// Reads a record.
///
/// # Errors
/// `Corrupt` if it isn't one of DMS's.
pub(super) fn decode(record: &Value, arrived_at: Timestamp) -> Result<DecodedRecord> {
    let metadata = record.get("metadata").and_then(Value::as_object).ok_or_else(|| damaged("it has no `metadata`"))?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str);
    let (Some(kind), Some(operation)) = (text("record-type"), text("operation")) else {
        return Err(damaged("its `metadata` lacks `record-type` or `operation`"));
    };
    let (Some(database), Some(name)) = (text("schema-name"), text("table-name")) else {
        return Err(damaged("its `metadata` lacks `schema-name` or `table-name`"));
    };
    if database.is_empty() || name.is_empty() {
        return Ok(DecodedRecord::Nothing);
    }
    let table = TableId::new(database, name);
    let mark = text("binlake").and_then(|mark| mark.parse().ok());
    let stamp = stamp(metadata, operation == "load", arrived_at);
    if kind == "control" {
        return Ok(match operation {
            "truncate-table" | "drop-table" => DecodedRecord::Truncate { mark, table, stamp },
            "create-table" | "add-column" | "drop-column" | "rename-column" | "column-type-change" | "change-columns" => {
                decode_shape(record, mark, &table, stamp)?
            }
            _ => DecodedRecord::Nothing,
        });
    }
    let operation = match operation {
        "load" => Operation::Read,
        "insert" => Operation::Create,
        "update" => Operation::Update,
        "delete" => Operation::Delete,
        _ => return Err(damaged("its operation is unknown")),
    };
    let image = |field: &str| record.get(field).and_then(Value::as_object).cloned();
    let after = image("data").ok_or_else(|| damaged("it has no `data`"))?;
    Ok(DecodedRecord::Row { mark, table, operation, stamp, before: image("before-image"), after: Some(after) })
}

fn stamp(metadata: &Map<String, Value>, is_load: bool, arrived_at: Timestamp) -> TransactionStamp {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str);
    let time = text("commit-timestamp").or_else(|| text("timestamp")).and_then(parse_instant);
    let coordinates = text("stream-position").and_then(|position| position.rsplit_once(':'));
    let coordinates =
        coordinates.and_then(|(file, offset)| Some(BinlogCoordinates { file: file.into(), offset: offset.parse().ok()? }));
    TransactionStamp {
        gtid: text("gtid").and_then(|gtid| gtid.parse().ok()),
        coordinates: coordinates.unwrap_or_else(|| BinlogCoordinates { file: "".into(), offset: 0 }),
        source_commit_time: time.map_or(arrived_at, Timestamp::from_micros),
        is_snapshot: is_load || metadata.get("is-snapshot").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn decode_shape(record: &Value, mark: Option<Mark>, table: &TableId, stamp: TransactionStamp) -> Result<DecodedRecord> {
    let control = record.get("control");
    if let Some(own) = control.and_then(|control| control.get("binlake")) {
        let schema = own.get("schema").cloned().unwrap_or_default();
        let schema = serde_json::from_value(schema).map_err(|error| damaged("a shape can't be read").caused_by(error))?;
        let fill = own.get("fill").and_then(Value::as_object).cloned();
        return Ok(DecodedRecord::Shape { mark, schema: Some(schema), fill, stamp });
    }
    let definition = control.and_then(|control| control.get("table-def"));
    let schema = definition.and_then(|definition| {
        let columns = definition.get("columns")?.as_object()?;
        let columns: Vec<Column> = columns
            .iter()
            .map(|(name, column)| Column {
                name: name.clone(),
                source_type: source_type(column),
                nullable: column.get("nullable").and_then(Value::as_bool).unwrap_or(true),
            })
            .collect();
        let key = definition.get("primary-key").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let key = key.filter_map(|name| columns.iter().position(|column| column.name == name)).collect();
        Some(TableSchema { table: table.clone(), columns, key })
    });
    Ok(DecodedRecord::Shape { mark, schema, fill: None, stamp })
}

/// What existing rows have in new columns, as JSON.
pub(super) fn fill_image(columns: impl Iterator<Item = (Column, super::Cell<'static>)>) -> RowImage {
    columns.map(|(column, cell)| (column.name.clone(), value::encode(&column, &cell))).collect()
}
