//! Arrow builders, one a column, fed with [`Value`]s.

use super::value::{Value, write_time};
use crate::error::{Area, Error, Kind, Result};
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, TimeUnit};
use std::sync::Arc;

/// The builder of one column.
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Micros(TimestampMicrosecondBuilder),
    Vector(ListBuilder<Float32Builder>),
}

impl ColumnBuilder {
    /// A builder of arrays of `lake_type`, which is one that [`crate::event::SourceType::lake_type`] gives.
    pub(super) fn new(lake_type: &DataType) -> Result<Self> {
        Ok(match lake_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float(Float32Builder::new()),
            DataType::Float64 => Self::Double(Float64Builder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(lake_type.clone())),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Micros(TimestampMicrosecondBuilder::new().with_data_type(lake_type.clone()))
            }
            DataType::List(field) => Self::Vector(ListBuilder::new(Float32Builder::new()).with_field(Arc::clone(field))),
            other => return Err(Error::bug(format!("no column builder for {other}"))),
        })
    }

    /// Whether [`Self::append`] can take `value`; checked for all columns before the first one is appended.
    pub(super) fn check(&self, value: &Value<'_>) -> Result<()> {
        let fits = |held: usize, more: usize| held.saturating_add(more) <= i32::MAX as usize;
        match (self, value) {
            (_, Value::Null)
            | (Self::Boolean(_), Value::Bool(_))
            | (Self::Int64(_), Value::Int(_))
            | (Self::Float(_), Value::Float(_))
            | (Self::Double(_), Value::Double(_))
            | (Self::Decimal(_), Value::Decimal(_))
            | (Self::Date(_), Value::Date(_))
            | (Self::Micros(_), Value::Micros(_))
            | (Self::Vector(_), Value::Vector(_))
            | (Self::Text(_), Value::Time { .. }) => Ok(()),
            (Self::Int32(_), Value::Int(number)) if i32::try_from(*number).is_ok() => Ok(()),
            (Self::Text(builder), Value::Text(text)) if fits(builder.values_slice().len(), text.len()) => Ok(()),
            (Self::Bytes(builder), Value::Bytes(bytes)) if fits(builder.values_slice().len(), bytes.len()) => Ok(()),
            (Self::Text(_), Value::Text(_)) | (Self::Bytes(_), Value::Bytes(_)) => {
                Err(Error::new(Area::Source, Kind::Data, "a value is larger than 2 GiB"))
            }
            _ => Err(Error::bug("a decoded value doesn't fit its column's lake type")),
        }
    }

    /// Appends a value that [`Self::check`] has accepted; another one becomes NULL.
    pub(super) fn append(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Self::Boolean(builder), Value::Bool(value)) => builder.append_value(*value),
            (Self::Int32(builder), Value::Int(value)) => builder.append_option(i32::try_from(*value).ok()),
            (Self::Int64(builder), Value::Int(value)) => builder.append_value(*value),
            (Self::Float(builder), Value::Float(value)) => builder.append_value(*value),
            (Self::Double(builder), Value::Double(value)) => builder.append_value(*value),
            (Self::Decimal(builder), Value::Decimal(value)) => builder.append_value(*value),
            (Self::Text(builder), Value::Text(value)) => builder.append_value(value),
            (Self::Text(builder), Value::Time { micros, fsp }) => {
                // a StringBuilder takes all that is written
                let _ = write_time(builder, *micros, *fsp);
                builder.append_value("");
            }
            (Self::Bytes(builder), Value::Bytes(value)) => builder.append_value(value),
            (Self::Date(builder), Value::Date(value)) => builder.append_value(*value),
            (Self::Micros(builder), Value::Micros(value)) => builder.append_value(*value),
            (Self::Vector(builder), Value::Vector(bytes)) => {
                for chunk in bytes.as_chunks::<4>().0 {
                    builder.values().append_value(f32::from_le_bytes(*chunk));
                }
                builder.append(true);
            }
            (builder, _) => builder.append_null(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Micros(builder) => builder.append_null(),
            Self::Vector(builder) => builder.append(false),
        }
    }

    /// The array of all that was appended; the builder is empty afterwards.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Micros(builder) => Arc::new(builder.finish()),
            Self::Vector(builder) => Arc::new(builder.finish()),
        }
    }
}
