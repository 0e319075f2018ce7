//! Debezium's events for MySQL as JSON: envelopes, transaction metadata, tombstones, schema changes; compared with the connector's version 3.6.1.
//!
//! - An event of a row: `{"before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"}`; with `schemas` under `payload`, beside its
//!   Kafka Connect `schema`. What Kafka Connect puts into a record's key is the Kinesis record's partition key.
//! - A delete is followed by a tombstone: a record without bytes, as Debezium Server sends it to Kinesis.
//! - Transaction metadata is by lane: `BEGIN` before a transaction's first row of the lane, `END` with the counts behind its last; over all lanes the counts add up.
//! - `source.sequence`, which the MySQL connector leaves null, has the record's [`Mark`]. `source.pos` is where the transaction begins, `source.row` the row's number
//!   among those of its transaction on its lane; `server_id` and `thread` aren't known here (0, null); a schema change has no `ddl`.

pub(super) mod connect;
mod schema;
mod table_change;
pub(super) mod value;

use super::damaged;
use super::mark::Mark;
use super::row::{Change, DecodedRecord, Row};
use crate::error::{Error, Result};
use crate::event::{BinlogCoordinates, Column, Operation, SourceType, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `[stream.debezium]`: what the connector's own options of these names do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DebeziumOptions {
    /// `topic.prefix`: the name of the source.
    pub topic_prefix: String,
    /// `converter.schemas.enable`: each record has its schema.
    pub schemas: bool,
    /// `provide.transaction.metadata`.
    pub transaction_metadata: bool,
    /// `tombstones.on.delete`.
    pub tombstones: bool,
}

impl Default for DebeziumOptions {
    fn default() -> Self {
        Self { topic_prefix: "binlake".into(), schemas: false, transaction_metadata: false, tombstones: true }
    }
}

const VERSION: &str = concat!("binlake-", env!("CARGO_PKG_VERSION"));

fn times(prefix: &mut Map<String, Value>, time: Timestamp) {
    prefix.insert("ts_us".into(), time.as_micros().into());
    prefix.insert("ts_ns".into(), time.as_micros().saturating_mul(1000).into());
}

fn millis(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1000)
}

/// A transaction's id: its GTID, else file and offset.
fn transaction_id(stamp: &TransactionStamp) -> String {
    match &stamp.gtid {
        Some(gtid) => gtid.to_string(),
        None => format!("file={},pos={}", stamp.coordinates.file, stamp.coordinates.offset),
    }
}

fn source(options: &DebeziumOptions, table: &TableId, stamp: &TransactionStamp, row: u64, mark: Mark) -> Value {
    let mut source = Map::new();
    source.insert("version".into(), VERSION.into());
    source.insert("connector".into(), "mysql".into());
    source.insert("name".into(), options.topic_prefix.clone().into());
    source.insert("ts_ms".into(), millis(stamp.source_commit_time).into());
    source.insert("snapshot".into(), if stamp.is_snapshot { "true" } else { "false" }.into());
    source.insert("db".into(), table.database().into());
    source.insert("sequence".into(), mark.to_string().into());
    times(&mut source, stamp.source_commit_time);
    source.insert("table".into(), table.name().into());
    source.insert("server_id".into(), 0.into());
    source.insert("gtid".into(), stamp.gtid.as_ref().map(|gtid| gtid.to_string()).into());
    source.insert("file".into(), stamp.coordinates.file.as_ref().into());
    source.insert("pos".into(), stamp.coordinates.offset.into());
    source.insert("row".into(), row.into());
    source.insert("thread".into(), Value::Null);
    source.insert("query".into(), Value::Null);
    source.into()
}

fn image(schema: &TableSchema, row: Option<&Row<'_>>) -> Value {
    let Some(row) = row else { return Value::Null };
    let columns = schema.columns.iter().zip(row);
    Value::Object(columns.map(|(column, cell)| (column.name.clone(), value::encode(column, cell))).collect())
}

fn envelope(
    options: &DebeziumOptions,
    schema: &TableSchema,
    before: Value,
    after: Value,
    rest: [Value; 3],
    made_at: Timestamp,
) -> Value {
    let [source, transaction, op] = rest;
    let mut envelope = Map::new();
    envelope.insert("before".into(), before);
    envelope.insert("after".into(), after);
    envelope.insert("source".into(), source);
    envelope.insert("transaction".into(), transaction);
    envelope.insert("op".into(), op);
    envelope.insert("ts_ms".into(), millis(made_at).into());
    times(&mut envelope, made_at);
    with_schema(options, envelope.into(), || schema::envelope(&options.topic_prefix, schema))
}

/// The payload under its schema, where records have theirs.
fn with_schema(options: &DebeziumOptions, payload: Value, schema: impl FnOnce() -> Value) -> Value {
    if options.schemas { json!({"schema": schema(), "payload": payload}) } else { payload }
}

/// The record of a row's change.
pub(super) fn row(options: &DebeziumOptions, change: &Change<'_>) -> Value {
    let op = char::from(change.operation.code()).to_string();
    let transaction = match options.transaction_metadata && !change.stamp.is_snapshot {
        true => json!({
            "id": transaction_id(change.stamp), "total_order": change.number, "data_collection_order": change.number_of_table,
        }),
        false => Value::Null,
    };
    let source = source(options, &change.schema.table, change.stamp, change.number - 1, change.mark);
    let (before, after) = (image(change.schema, change.before.as_ref()), image(change.schema, change.after.as_ref()));
    envelope(options, change.schema, before, after, [source, transaction, op.into()], change.made_at)
}

/// The key of a row's record.
pub(super) fn partition_key(options: &DebeziumOptions, change: &Change<'_>) -> String {
    let row = change.after.as_ref().or(change.before.as_ref());
    let key = change.schema.key.iter().filter_map(|i| Some((change.schema.columns.get(*i)?, row?.get(*i)?)));
    let key: Map<String, Value> = key.map(|(column, cell)| (column.name.clone(), value::encode(column, cell))).collect();
    with_schema(options, key.into(), || schema::key(&options.topic_prefix, change.schema)).to_string()
}

/// A transaction's begin on a lane.
pub(super) fn begin(options: &DebeziumOptions, stamp: &TransactionStamp) -> Value {
    let payload = json!({
        "status": "BEGIN", "id": transaction_id(stamp), "event_count": null, "data_collections": null,
        "ts_ms": millis(stamp.source_commit_time),
    });
    with_schema(options, payload, schema::transaction)
}

/// A transaction's end on a lane, with its rows there by table.
pub(super) fn end<'a>(
    options: &DebeziumOptions,
    stamp: &TransactionStamp,
    rows: impl Iterator<Item = (&'a TableId, u64)>,
) -> Value {
    let mut total = 0;
    let collections: Vec<Value> = rows
        .map(|(table, count)| {
            total += count;
            json!({"data_collection": table.to_string(), "event_count": count})
        })
        .collect();
    let payload = json!({
        "status": "END", "id": transaction_id(stamp), "event_count": total, "data_collections": collections,
        "ts_ms": millis(stamp.source_commit_time),
    });
    with_schema(options, payload, schema::transaction)
}

/// The record of a truncation: operation `t`.
pub(super) fn truncate(
    options: &DebeziumOptions,
    table: &TableId,
    stamp: &TransactionStamp,
    mark: Mark,
    made_at: Timestamp,
) -> Value {
    let source = source(options, table, stamp, 0, mark);
    let schema = TableSchema { table: table.clone(), columns: Vec::new(), key: Vec::new() };
    envelope(options, &schema, Value::Null, Value::Null, [source, Value::Null, "t".into()], made_at)
}

/// The record of a schema change.
pub(super) fn shape(
    options: &DebeziumOptions,
    schema: &TableSchema,
    fill: Option<Value>,
    stamp: &TransactionStamp,
    mark: Mark,
    made_at: Timestamp,
) -> Result<Value> {
    let own = serde_json::to_value(schema).map_err(|error| Error::bug("a shape can't be written").caused_by(error))?;
    let key: Vec<&str> = schema.key.iter().filter_map(|i| schema.columns.get(*i)).map(|column| column.name.as_str()).collect();
    let columns: Vec<Value> = (1..).zip(&schema.columns).map(|(position, column)| column_definition(position, column)).collect();
    let payload = json!({
        "source": source(options, &schema.table, stamp, 0, mark),
        "ts_ms": millis(made_at),
        "databaseName": schema.table.database(),
        "schemaName": null,
        "ddl": null,
        "tableChanges": [{
            "type": if stamp.is_snapshot { "CREATE" } else { "ALTER" },
            "id": format!("\"{}\".\"{}\"", schema.table.database(), schema.table.name()),
            "table": {"defaultCharsetName": null, "primaryKeyColumnNames": key, "columns": columns, "comment": null},
        }],
        "binlake": {"schema": own, "fill": fill},
    });
    Ok(with_schema(options, payload, schema::schema_change))
}

/// What stands beside a chunk's own record: a heartbeat's payload.
pub(super) fn beside_chunk(made_at: Timestamp) -> Value {
    json!({"ts_ms": millis(made_at)})
}

/// A column as a schema change describes it.
fn column_definition(position: u32, column: &Column) -> Value {
    use SourceType as T;
    /// The JDBC type, its name, length, scale, character set and members.
    type Described<'a> = (i32, String, Option<u32>, Option<u8>, Option<&'a str>, Option<Vec<String>>);
    let sign = |unsigned: bool| if unsigned { " UNSIGNED" } else { "" };
    let members =
        |members: &[String]| Some(members.iter().map(|member| format!("'{}'", member.replace('\'', "''"))).collect::<Vec<_>>());
    let (jdbc, name, length, scale, charset, members): Described<'_> = match &column.source_type {
        T::Bool => (5, "TINYINT".into(), Some(1), None, None, None),
        T::TinyInt { unsigned } => (5, format!("TINYINT{}", sign(*unsigned)), None, None, None, None),
        T::SmallInt { unsigned } => (5, format!("SMALLINT{}", sign(*unsigned)), None, None, None, None),
        T::MediumInt { unsigned } => (4, format!("MEDIUMINT{}", sign(*unsigned)), None, None, None, None),
        T::Int { unsigned } => (4, format!("INT{}", sign(*unsigned)), None, None, None, None),
        T::BigInt { unsigned } => (-5, format!("BIGINT{}", sign(*unsigned)), None, None, None, None),
        T::Float => (6, "FLOAT".into(), None, None, None, None),
        T::Double => (8, "DOUBLE".into(), None, None, None, None),
        T::Decimal { precision, scale } => (3, "DECIMAL".into(), Some(u32::from(*precision)), Some(*scale), None, None),
        T::Bit { bits } => (-7, "BIT".into(), Some(u32::from(*bits)), None, None, None),
        T::Text { charset, max_bytes: 0 } => (12, "TEXT".into(), None, None, Some(charset), None),
        T::Text { charset, max_bytes } => (12, "VARCHAR".into(), Some(*max_bytes), None, Some(charset), None),
        T::Binary { fixed_bytes: 0 } => (-3, "VARBINARY".into(), None, None, None, None),
        T::Binary { fixed_bytes } => (-2, "BINARY".into(), Some(*fixed_bytes), None, None, None),
        T::Geometry => (1111, "GEOMETRY".into(), None, None, None, None),
        T::Enum { members: all } => (1, "ENUM".into(), Some(1), None, None, members(all)),
        T::Set { members: all } => {
            (1, "SET".into(), u32::try_from(all.len() * 2).ok().map(|n| n.saturating_sub(1)), None, None, members(all))
        }
        T::Json | T::Objects { .. } => (1111, "JSON".into(), None, None, None, None),
        T::Date => (91, "DATE".into(), None, None, None, None),
        T::Time { fsp } => (92, "TIME".into(), Some(u32::from(*fsp)).filter(|fsp| *fsp > 0), None, None, None),
        T::DateTime { fsp } => (93, "DATETIME".into(), Some(u32::from(*fsp)).filter(|fsp| *fsp > 0), None, None, None),
        T::Timestamp { fsp } => (2014, "TIMESTAMP".into(), Some(u32::from(*fsp)).filter(|fsp| *fsp > 0), None, None, None),
        T::Year => (4, "YEAR".into(), None, None, None, None),
        T::Vector => (1111, "VECTOR".into(), None, None, None, None),
        T::List { .. } => (2003, "ARRAY".into(), None, None, None, None),
    };
    json!({
        "name": column.name, "jdbcType": jdbc, "nativeType": null, "typeName": name, "typeExpression": name, "charsetName": charset,
        "length": length, "scale": scale, "position": position, "optional": column.nullable, "autoIncremented": false,
        "generated": false, "comment": null, "defaultValueExpression": null, "enumValues": members,
    })
}

/// Reads a record.
///
/// # Errors
/// `Corrupt` if it isn't one of Debezium's.
pub(super) fn decode(record: &Value, arrived_at: Timestamp) -> Result<DecodedRecord> {
    let payload = match record.get("payload") {
        Some(payload) if record.get("schema").is_some() => payload,
        _ => record,
    };
    if payload.is_null() || payload.get("status").is_some() {
        return Ok(DecodedRecord::Nothing);
    }
    let Some(source) = payload.get("source") else {
        // a heartbeat, or a notification of how a snapshot goes
        let is_heartbeat = payload.get("ts_ms").is_some() && payload.get("op").is_none();
        return if is_heartbeat || payload.get("aggregate_type").is_some() {
            Ok(DecodedRecord::Nothing)
        } else {
            Err(damaged("it has no `source`"))
        };
    };
    let text = |field: &str| source.get(field).and_then(Value::as_str);
    let mark = text("sequence").and_then(|mark| mark.parse().ok());
    let stamp = stamp(source, arrived_at);
    if let Some(changes) = payload.get("tableChanges").and_then(Value::as_array) {
        let Some(own) = payload.get("binlake") else {
            let said = changes.iter().filter_map(|change| match change.get("type").and_then(Value::as_str) {
                Some("DROP") => {
                    Some(DecodedRecord::Truncate { mark, table: table_change::table_of(change)?, stamp: stamp.clone() })
                }
                Some("CREATE" | "ALTER") => {
                    Some(DecodedRecord::Shape { mark, schema: table_change::shape(change), fill: None, stamp: stamp.clone() })
                }
                _ => None,
            });
            return Ok(DecodedRecord::Several(said.collect()));
        };
        let schema = own.get("schema").cloned().unwrap_or_default();
        let schema = serde_json::from_value(schema).map_err(|error| damaged("a shape can't be read").caused_by(error))?;
        return Ok(DecodedRecord::Shape {
            mark,
            schema: Some(schema),
            fill: own.get("fill").and_then(Value::as_object).cloned(),
            stamp,
        });
    }
    let (Some(database), Some(name)) = (text("db"), text("table")) else {
        return Err(damaged("its `source` lacks `db` or `table`"));
    };
    let table = TableId::new(database, name);
    let operation = match payload.get("op").and_then(Value::as_str) {
        Some("c") => Operation::Create,
        Some("u") => Operation::Update,
        Some("d") => Operation::Delete,
        Some("r") => Operation::Read,
        Some("t") => return Ok(DecodedRecord::Truncate { mark, table, stamp }),
        Some("m") => return Ok(DecodedRecord::Nothing),
        _ => return Err(damaged("its operation is unknown")),
    };
    let image = |field: &str| payload.get(field).and_then(Value::as_object).cloned();
    let (before, after) = (image("before"), image("after"));
    let needed = if operation == Operation::Delete { &before } else { &after };
    if needed.is_none() {
        return Err(damaged("it has no row"));
    }
    Ok(DecodedRecord::Row { mark, table, operation, stamp, before, after })
}

fn stamp(source: &Value, arrived_at: Timestamp) -> TransactionStamp {
    let text = |field: &str| source.get(field).and_then(Value::as_str);
    let number = |field: &str| source.get(field).and_then(Value::as_i64);
    let micros = number("ts_us").or_else(|| number("ts_ms")?.checked_mul(1000));
    TransactionStamp {
        gtid: text("gtid").and_then(|gtid| gtid.parse().ok()),
        coordinates: BinlogCoordinates {
            file: text("file").unwrap_or_default().into(),
            offset: source.get("pos").and_then(Value::as_u64).unwrap_or(0),
        },
        source_commit_time: micros.map_or(arrived_at, Timestamp::from_micros),
        is_snapshot: !matches!(text("snapshot"), None | Some("false")),
    }
}
