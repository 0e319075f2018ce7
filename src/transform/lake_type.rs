//! Which lake type a result becomes.

use arrow::datatypes::DataType;

/// The lake's type for a result of `data_type`; `Err` says why there is none.
pub(super) fn lake_type(data_type: &DataType) -> Result<DataType, &'static str> {
    match data_type {
        DataType::List(item)
            if !matches!(item.data_type(), DataType::List(_)) && lake_type(item.data_type()) == Ok(item.data_type().clone()) =>
        {
            Ok(data_type.clone())
        }
        DataType::Dictionary(_, values) => lake_type(values),
        DataType::Null => Err("write CAST(NULL AS …), which says its type"),
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_) => {
            Err("a lake table has no times of day or intervals: CAST it AS VARCHAR")
        }
        DataType::Decimal256(..) => Err("a decimal has up to 38 digits: CAST it AS DECIMAL(38, …) or VARCHAR"),
        plain => {
            crate::lookup::lake_type(plain).ok_or("a lake table's columns are plain: take a part of it, or CAST it AS VARCHAR")
        }
    }
}
