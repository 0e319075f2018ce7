//! From items to columns: declared, or inferred from the items of the first reading.

use super::content::{Content, Item};
use crate::error::{Area, Error, Kind, Result};
use crate::event::SourceType;
use crate::format::{Cell, CellColumns, PlainColumn, PlainType};
use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::Value;
use std::sync::Arc;

/// The columns that a lookup's items become.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemColumns(Arc<[PlainColumn]>);

impl ItemColumns {
    /// As the configuration declares them.
    pub fn declared(columns: Vec<PlainColumn>) -> Self {
        Self(columns.into())
    }

    /// As the items show them: each attribute of any item, with the narrowest type that holds all of its values.
    pub fn inferred(items: &[Item]) -> Self {
        let mut seen: Vec<(&str, Guess)> = Vec::new();
        for item in items {
            for (name, value) in item {
                let guess = Guess::of(value);
                match seen.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => *known = known.or(guess),
                    None => seen.push((name, guess)),
                }
            }
        }
        let columns = seen.into_iter().map(|(name, guess)| PlainColumn {
            path: vec![name.to_owned()],
            name: name.to_owned(),
            kind: guess.kind(),
            bad_values: None,
        });
        Self(columns.collect())
    }

    /// The same, and behind them the attributes that only these items have.
    #[must_use]
    pub fn with_more(&self, items: &[Item]) -> Self {
        let seen = Self::inferred(items);
        let is_new = |column: &&PlainColumn| !self.0.iter().any(|known| known.name == column.name);
        Self(self.0.iter().chain(seen.0.iter().filter(is_new)).cloned().collect())
    }

    /// As Arrow has them.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.0.iter().map(|column| Field::new(&column.name, column.kind.source_type().lake_type(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The items in these columns; an attribute that an item lacks is NULL.
    ///
    /// # Errors
    /// `Data` for a value that doesn't fit its column: names lookup, item and attribute.
    pub fn content(self, lookup: &str, items: &[Item]) -> Result<Content> {
        let mut rows = CellColumns::new(self.schema());
        for item in items {
            let mut row = Vec::with_capacity(self.0.len());
            for column in self.0.iter() {
                let cell = column.value(item).map_or(Ok(Cell::Null), |value| column.kind.cell(value));
                row.push(cell.map_err(|why| {
                    Error::new(Area::Lake, Kind::Data, "an item's attribute doesn't have its column's type")
                        .caused_by(std::io::Error::other(why))
                        .with("lookup", lookup)
                        .with("item", key_of(item))
                        .with("attribute", column.path.join("."))
                        .with("type", column.kind.source_type().lake_type())
                        .remedy("correct the item, or declare the column with another type in [lookup] columns")
                })?);
            }
            rows.push(row);
        }
        Ok(Content::new(rows.finish()?, Some(self)))
    }
}

/// Rows that came with types, in the lake's types and with the declared columns.
pub(super) fn typed(lookup: &str, declared: Option<SchemaRef>, rows: &RecordBatch) -> Result<Content> {
    let wrong = |name: &str, wanted: &DataType, why: String| {
        Error::new(Area::Lake, Kind::Data, "a lookup's column doesn't have its type")
            .caused_by(std::io::Error::other(why))
            .with("lookup", lookup)
            .with("attribute", name)
            .with("type", wanted)
            .remedy("declare the column with another type in [lookup] columns, or leave it out of them")
    };
    let wanted = match declared {
        Some(declared) => declared,
        None => {
            let schema = rows.schema();
            let lake =
                schema.fields().iter().filter_map(|field| Some(Field::new(field.name(), lake_type(field.data_type())?, true)));
            Arc::new(Schema::new(lake.collect::<Vec<_>>()))
        }
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = wanted.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => cast_with_options(column, field.data_type(), &strict)
            .map_err(|_| wrong(field.name(), field.data_type(), format!("it has {}", column.data_type()))),
        None => Err(wrong(field.name(), field.data_type(), "there is no such column".into())),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_new(wanted, columns).map_err(|error| Error::bug("a lookup's rows don't fit").caused_by(error))?;
    Ok(Content::new(rows, None))
}

/// The lake's type for a type of a file; `None`: the column is left out.
fn lake_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => return lake_type(values),
        DataType::Struct(_) | DataType::Map(..) | DataType::List(_) | DataType::Null => return None,
        plain => plain.clone(),
    })
}

/// What an item goes by: its first attribute.
fn key_of(item: &Item) -> String {
    item.iter()
        .next()
        .map(|(name, value)| format!("{name}:{}", value.as_str().map_or(value.to_string(), str::to_owned)))
        .unwrap_or_default()
}

/// What values of an attribute may all be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Nothing,
    Boolean,
    Whole,
    Number,
    Text,
}

impl Guess {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.as_i64().is_some() => Self::Whole,
            Value::Number(_) => Self::Number,
            _ => Self::Text,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Whole, Self::Number) | (Self::Number, Self::Whole) => Self::Number,
            _ => Self::Text,
        }
    }

    fn kind(self) -> PlainType {
        PlainType::of(match self {
            Self::Boolean => SourceType::Bool,
            Self::Whole => SourceType::BigInt { unsigned: false },
            Self::Number => SourceType::Double,
            Self::Nothing | Self::Text => SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 },
        })
    }
}
