//! A row as JSON, nothing rounded: for people and for foreign formats.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, NaiveDate};
use serde_json::{Number, Value};

use super::{ChangeBatch, Column, SourceType, TableSchema};

impl ChangeBatch {
    /// Row `row` as a JSON object, columns in the source's order: numbers exact, binary in base64, DATETIME without and TIMESTAMP with a zone.
    pub fn row_json(&self, row: usize) -> serde_json::Map<String, Value> {
        let columns = self.schema.columns.iter().zip(self.rows.columns());
        columns.map(|(column, array)| (column.name.clone(), value_json(&column.source_type, array, row))).collect()
    }

    /// The names of the columns that an update changed; `None` where that isn't known.
    pub fn changed_columns(&self, row: usize) -> Option<Vec<&str>> {
        let bits = self.changed.as_ref().filter(|changed| changed.is_valid(row))?.value(row);
        let is_set = |column: usize| bits.get(column / 8).is_some_and(|byte| byte >> (column % 8) & 1 == 1);
        Some(self.schema.columns.iter().enumerate().filter(|(i, _)| is_set(*i)).map(|(_, column)| column.name.as_str()).collect())
    }
}

/// Row `row` of `rows`, which has the columns of `schema` by name, as JSON: as [`ChangeBatch::row_json`] gives it.
pub fn row_values(schema: &TableSchema, rows: &RecordBatch, row: usize) -> serde_json::Map<String, Value> {
    let value = |column: &Column| {
        let array = rows.column_by_name(&column.name)?;
        Some((column.name.clone(), value_json(&column.source_type, array, row)))
    };
    schema.columns.iter().filter_map(value).collect()
}

fn value_json(source_type: &SourceType, array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Decimal128(..) => exact(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Float32 => exact(&array.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => STANDARD.encode(array.as_binary::<i32>().value(row)).into(),
        DataType::Date32 => {
            let days = i64::from(array.as_primitive::<Date32Type>().value(row));
            let date = NaiveDate::default().checked_add_signed(Duration::days(days));
            date.map_or(Value::from(days), |date| date.to_string().into())
        }
        DataType::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            let format = match source_type {
                SourceType::Timestamp { .. } => "%Y-%m-%dT%H:%M:%S%.6fZ",
                _ => "%Y-%m-%dT%H:%M:%S%.6f",
            };
            DateTime::from_timestamp_micros(micros).map_or(Value::from(micros), |time| time.format(format).to_string().into())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let source_type = if let SourceType::List { item } = source_type { item.as_ref() } else { source_type };
            (0..items.len()).map(|item| value_json(source_type, &items, item)).collect::<Vec<_>>().into()
        }
        other => format!("a value of type {other}").into(),
    }
}

/// A number as it is written; what JSON has no number for, as text.
fn exact(text: &str) -> Value {
    text.parse::<Number>().map_or_else(|_| text.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use crate::event::sample::ticket_changes;
    use crate::event::{ChangeBatch, Column, SourceType, TableId, TableSchema};
    use arrow::array::*;
    use std::sync::Arc;

    #[test]
    fn values_of_each_type_are_exact() {
        let mut vector = ListBuilder::new(Float32Builder::new());
        vector.values().append_slice(&[0.1, -2.5]);
        vector.append(true);
        let micros = 1_790_000_000_123_456_i64;
        let time = || Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC")) as ArrayRef;
        let decimal =
            Decimal128Array::from(vec![12_345_678_901_234_567_890_123_456_789_i128]).with_precision_and_scale(30, 9).unwrap();
        let columns: Vec<(SourceType, ArrayRef)> = vec![
            (SourceType::Bool, Arc::new(BooleanArray::from(vec![true]))),
            (SourceType::TinyInt { unsigned: false }, Arc::new(Int32Array::from(vec![-128]))),
            (SourceType::BigInt { unsigned: false }, Arc::new(Int64Array::from(vec![i64::MIN]))),
            (SourceType::Decimal { precision: 30, scale: 9 }, Arc::new(decimal)),
            (SourceType::Float, Arc::new(Float32Array::from(vec![0.1]))),
            (SourceType::Double, Arc::new(Float64Array::from(vec![0.1]))),
            (SourceType::Json, Arc::new(StringArray::from(vec!["{\"a\": 1.10}"]))),
            (SourceType::Geometry, Arc::new(BinaryArray::from_vec(vec![b"\x00\xff\x01"]))),
            (SourceType::Date, Arc::new(Date32Array::from(vec![-1]))),
            (SourceType::DateTime { fsp: 6 }, time()),
            (SourceType::Timestamp { fsp: 6 }, time()),
            (SourceType::Vector, Arc::new(vector.finish())),
            (SourceType::Year, Arc::new(Int32Array::from(vec![None]))),
        ];
        let (types, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let columns =
            types.into_iter().enumerate().map(|(i, source_type)| Column { name: format!("c{i}"), source_type, nullable: true });
        let schema = Arc::new(TableSchema { table: TableId::new("a", "b"), columns: columns.collect(), key: vec![] });
        let rows = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
        let batch = ChangeBatch { schema, rows, changed: None, ..ticket_changes(0, 1, 1) };
        assert_eq!(
            serde_json::to_string(&batch.row_json(0)).unwrap(),
            r#"{"c0":true,"c1":-128,"c2":-9223372036854775808,"c3":12345678901234567890.123456789,"c4":0.1,"c5":0.1,"c6":"{\"a\": 1.10}","c7":"AP8B","c8":"1969-12-31","c9":"2026-09-21T14:13:20.123456","c10":"2026-09-21T14:13:20.123456Z","c11":[0.1,-2.5],"c12":null}"#
        );
        assert_eq!(batch.changed_columns(0), None);
    }
}
