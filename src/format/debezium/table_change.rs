//! The columns that a schema change event describes (`tableChanges`).

use crate::event::{Column, SourceType, TableId, TableSchema};
use serde_json::Value;

/// The shape of a table; `None` if the event doesn't say it, or has a type that isn't known.
pub(super) fn shape(change: &Value) -> Option<TableSchema> {
    let table = table_of(change)?;
    let described = change.get("table")?;
    let columns: Vec<Column> = described.get("columns")?.as_array()?.iter().map(column).collect::<Option<_>>()?;
    let key = described.get("primaryKeyColumnNames").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let key = key.filter_map(|name| columns.iter().position(|column| column.name == name)).collect();
    Some(TableSchema { table, columns, key })
}

/// The table that a change is about: `"shop"."orders"`.
pub(super) fn table_of(change: &Value) -> Option<TableId> {
    let id = change.get("id").and_then(Value::as_str)?;
    let (database, name) = id.strip_prefix('"')?.strip_suffix('"')?.split_once("\".\"")?;
    Some(TableId::new(database, name))
}

fn column(described: &Value) -> Option<Column> {
    let number = |key: &str| described.get(key).and_then(Value::as_u64);
    let name = described.get("name").and_then(Value::as_str)?.to_owned();
    let nullable = described.get("optional").and_then(Value::as_bool).unwrap_or(true);
    let source_type = source_type(described, number("length"), number("scale"))?;
    Some(Column { name, source_type, nullable })
}

fn source_type(described: &Value, length: Option<u64>, scale: Option<u64>) -> Option<SourceType> {
    use SourceType as T;
    let type_name = described.get("typeName").and_then(Value::as_str)?.to_ascii_uppercase();
    let unsigned = type_name.contains(" UNSIGNED") || type_name.contains(" ZEROFILL");
    let base = type_name.split([' ', '(']).next().unwrap_or_default();
    let small = |number: Option<u64>, default: u8| number.map_or(Some(default), |number| u8::try_from(number).ok());
    let fsp = || small(length, 0);
    let members = || {
        let members = described.get("enumValues").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let bare = |text: &str| text.trim_start_matches('\'').trim_end_matches('\'').replace("''", "'");
        members.map(bare).collect::<Vec<_>>()
    };
    Some(match base {
        "BOOL" | "BOOLEAN" => T::Bool,
        "TINYINT" => T::TinyInt { unsigned },
        "SMALLINT" => T::SmallInt { unsigned },
        "MEDIUMINT" => T::MediumInt { unsigned },
        "INT" | "INTEGER" => T::Int { unsigned },
        "BIGINT" | "SERIAL" => T::BigInt { unsigned: unsigned || base == "SERIAL" },
        "FLOAT" if length.is_some_and(|digits| digits > 23) && scale.is_none() => T::Double,
        "FLOAT" => T::Float,
        "DOUBLE" | "REAL" => T::Double,
        "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => T::Decimal { precision: small(length, 10)?, scale: small(scale, 0)? },
        "BIT" => T::Bit { bits: small(length, 1)? },
        "CHAR" | "VARCHAR" | "NCHAR" | "NVARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "UUID" | "INET4"
        | "INET6" => T::Text { charset: "utf8mb4".into(), max_bytes: 0 },
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => T::Binary { fixed_bytes: 0 },
        "GEOMETRY" | "POINT" | "LINESTRING" | "POLYGON" | "MULTIPOINT" | "MULTILINESTRING" | "MULTIPOLYGON"
        | "GEOMETRYCOLLECTION" | "GEOMCOLLECTION" => T::Geometry,
        "ENUM" => T::Enum { members: members() },
        "SET" => T::Set { members: members() },
        "JSON" => T::Json,
        "DATE" => T::Date,
        "TIME" => T::Time { fsp: fsp()? },
        "DATETIME" => T::DateTime { fsp: fsp()? },
        "TIMESTAMP" => T::Timestamp { fsp: fsp()? },
        "YEAR" => T::Year,
        "VECTOR" => T::Vector,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BinlogCoordinates, ChunkIndex, Epoch, Lane, TransactionStamp};
    use crate::format::debezium::{self, DebeziumOptions};
    use crate::format::mark::Mark;
    use crate::time::Timestamp;
    use serde_json::json;

    /// What we write of a shape says as much as it is read for.
    #[test]
    fn our_own_events_come_back() {
        let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
        let text = SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
        let columns = vec![
            column("id", SourceType::BigInt { unsigned: true }),
            column("note", text),
            column("at", SourceType::DateTime { fsp: 3 }),
            column("price", SourceType::Decimal { precision: 12, scale: 4 }),
            column("kind", SourceType::Enum { members: vec!["a".into(), "it's".into()] }),
            column("bits", SourceType::Bit { bits: 12 }),
        ];
        let schema = TableSchema { table: TableId::new("shop", "orders.old"), columns, key: vec![0] };
        let stamp = TransactionStamp {
            gtid: None,
            coordinates: BinlogCoordinates { file: "b.1".into(), offset: 4 },
            source_commit_time: Timestamp::from_micros(0),
            is_snapshot: true,
        };
        let mark = Mark { lane: Lane(0), epoch: Epoch(1), chunk: ChunkIndex(1), number: 0 };
        let made_at = Timestamp::from_micros(0);
        let event = debezium::shape(&DebeziumOptions::default(), &schema, None, &stamp, mark, made_at).unwrap();
        assert_eq!(shape(&event["tableChanges"][0]), Some(schema));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let of = |kind: &str| json!({"id": "\"a\".\"b\"", "table": {"columns": [{"name": "x", "typeName": kind}], "primaryKeyColumnNames": ["x"]}});
        assert_eq!(shape(&of("INT UNSIGNED")).unwrap().columns[0].source_type, SourceType::Int { unsigned: true });
        assert_eq!(shape(&of("HYPERCUBE")), None);
        assert_eq!(table_of(&json!({"id": "b"})), None);
    }
}
