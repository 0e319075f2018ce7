//! The shape of a source table at one moment, and the lake types it maps to.

use super::TableId;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A source table's columns and key at one moment of its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table.
    pub table: TableId,
    /// The columns, in the source's order.
    pub columns: Vec<Column>,
    /// Indices into `columns` of the key: the primary key, or the key that the table's rule declares.
    pub key: Vec<usize>,
}

/// One column of a source table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type at the source.
    pub source_type: SourceType,
    /// Whether NULL is allowed at the source.
    pub nullable: bool,
}

/// A MySQL column type with all that is needed to decode its bytes and to choose its lake type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceType {
    /// TINYINT(1) that the table's rule declares to be a boolean.
    Bool,
    /// TINYINT.
    TinyInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// SMALLINT.
    SmallInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// MEDIUMINT.
    MediumInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// INT.
    Int {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// BIGINT.
    BigInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DECIMAL(precision, scale).
    Decimal {
        /// Digits in all, 1 to 65.
        precision: u8,
        /// Digits after the point, 0 to 30.
        scale: u8,
    },
    /// BIT(bits).
    Bit {
        /// 1 to 64.
        bits: u8,
    },
    /// CHAR, VARCHAR, TINYTEXT … LONGTEXT.
    Text {
        /// The character set's name, as `utf8mb4`.
        charset: String,
        /// CHAR(n) and VARCHAR(n): n in bytes; TEXT types: 0.
        max_bytes: u32,
    },
    /// BINARY, VARBINARY, TINYBLOB … LONGBLOB.
    Binary {
        /// BINARY(n) is padded with zero bytes to n at the source, and the binlog leaves them out: n; other types 0.
        fixed_bytes: u32,
    },
    /// GEOMETRY and its subtypes.
    Geometry,
    /// ENUM.
    Enum {
        /// The members, decoded to UTF-8.
        members: Vec<String>,
    },
    /// SET.
    Set {
        /// The members, decoded to UTF-8.
        members: Vec<String>,
    },
    /// JSON.
    Json,
    /// DATE.
    Date,
    /// DATETIME(fsp): a wall clock without a zone.
    DateTime {
        /// Digits of the fraction of a second, 0 to 6.
        fsp: u8,
    },
    /// TIMESTAMP(fsp): an instant.
    Timestamp {
        /// Digits of the fraction of a second, 0 to 6.
        fsp: u8,
    },
    /// TIME(fsp).
    Time {
        /// Digits of the fraction of a second, 0 to 6.
        fsp: u8,
    },
    /// YEAR.
    Year,
    /// VECTOR (MySQL 9).
    Vector,
    /// A list, as JSON and other systems have them; MySQL has none.
    List {
        /// The items' type, not itself a list.
        item: Box<SourceType>,
    },
    /// JSON of which the elements become rows of a table of their own; MySQL has none.
    Objects {
        /// The elements' columns that are known.
        columns: Vec<Column>,
    },
}

impl SourceType {
    /// The column's type in chunks, in the merge and in the lake's files.
    pub fn lake_type(&self) -> DataType {
        match self {
            SourceType::Bool | SourceType::Bit { bits: 1 } => DataType::Boolean,
            SourceType::TinyInt { .. } | SourceType::SmallInt { .. } | SourceType::MediumInt { .. } => DataType::Int32,
            SourceType::Int { unsigned: false } | SourceType::Year => DataType::Int32,
            SourceType::Int { unsigned: true } | SourceType::BigInt { unsigned: false } => DataType::Int64,
            SourceType::BigInt { unsigned: true } => DataType::Decimal128(20, 0),
            SourceType::Float => DataType::Float32,
            SourceType::Double => DataType::Float64,
            SourceType::Decimal { precision, scale } if *precision <= 38 => {
                DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0))
            }
            SourceType::Bit { .. } | SourceType::Binary { .. } | SourceType::Geometry => DataType::Binary,
            SourceType::Date => DataType::Date32,
            SourceType::DateTime { .. } | SourceType::Timestamp { .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            SourceType::Vector => DataType::List(Arc::new(Field::new("item", DataType::Float32, true))),
            SourceType::List { item } => DataType::List(Arc::new(Field::new("item", item.lake_type(), true))),
            SourceType::Decimal { .. }
            | SourceType::Text { .. }
            | SourceType::Enum { .. }
            | SourceType::Set { .. }
            | SourceType::Json
            | SourceType::Objects { .. }
            | SourceType::Time { .. } => DataType::Utf8,
        }
    }
}

impl TableSchema {
    /// The source's columns as Arrow has them, in the source's order; all but the key nullable,
    /// so that a column can be dropped or relaxed at the source without a rewrite.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| Field::new(&column.name, column.source_type.lake_type(), !self.key.contains(&i)))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// The index of the column called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
