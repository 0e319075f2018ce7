//! Which lake type a result becomes.

use arrow::datatypes::{DataType, TimeUnit};

/// The lake's type for a result of `data_type`; `Err` says why there is none.
pub(super) fn lake_type(data_type: &DataType) -> Result<DataType, &'static str> {
    Ok(match data_type {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => data_type.clone(),
        DataType::List(item)
            if !matches!(item.data_type(), DataType::List(_)) && lake_type(item.data_type()) == Ok(item.data_type().clone()) =>
        {
            data_type.clone()
        }
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => return lake_type(values),
        DataType::Null => return Err("write CAST(NULL AS …), which says its type"),
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_) => {
            return Err("a lake table has no times of day or intervals: CAST it AS VARCHAR");
        }
        DataType::Decimal256(..) => return Err("a decimal has up to 38 digits: CAST it AS DECIMAL(38, …) or VARCHAR"),
        _ => return Err("a lake table's columns are plain: take a part of it, or CAST it AS VARCHAR"),
    })
}
