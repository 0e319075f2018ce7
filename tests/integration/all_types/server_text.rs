//! What the server says a value is, compared with the column's.

use crate::mysql::Client;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use binlake::event::{SourceType, TableId, TableSchema};
use chrono::{DateTime, Duration, NaiveDate};
use std::fmt::Write;

/// Compares all of a table's values with the server's own text of them.
pub(super) async fn assert_says_the_same(client: &mut Client, table: &TableId, schema: &TableSchema, rows: &RecordBatch) {
    for (i, column) in schema.columns.iter().enumerate() {
        let expression = expression(&column.source_type, &column.name);
        let said = client.rows(&format!("SELECT {expression} FROM {table} ORDER BY id")).await;
        assert_eq!(said.len(), rows.num_rows());
        for (row, said) in said.into_iter().enumerate() {
            let (said, ours) = (said[0].clone(), ours(&column.source_type, rows.column(i), row));
            let said = said.filter(|text| !is_impossible_date(&column.source_type, text));
            let same = match (&column.source_type, &said, &ours) {
                // numbers are compared as numbers: how many digits are printed is the printer's choice
                (SourceType::Float | SourceType::Double, Some(said), Some(ours)) => {
                    said.parse::<f64>().unwrap().to_bits() == ours.parse::<f64>().unwrap().to_bits()
                }
                _ => said == ours,
            };
            let short = |text: Option<String>| text.map(|text| text.chars().take(400).collect::<String>());
            assert!(same, "column {} row {row}:\n the server {:?}\n ours       {:?}", column.name, short(said), short(ours));
        }
    }
}

/// A SELECT expression that shows a value exactly.
fn expression(source_type: &SourceType, name: &str) -> String {
    let name = format!("`{name}`");
    match source_type {
        SourceType::Text { .. } | SourceType::Enum { .. } | SourceType::Set { .. } | SourceType::Json => {
            format!("HEX(CONVERT({name} USING utf8mb4))")
        }
        SourceType::Binary { .. } | SourceType::Vector => format!("HEX({name})"),
        // without the spatial reference before it; ST_AsWKB may turn the axes round
        SourceType::Geometry => format!("SUBSTR(HEX({name}), 9)"),
        SourceType::Bit { .. } | SourceType::Bool => format!("CAST({name} AS UNSIGNED)"),
        // the number's own value, not the digits that its column shows
        SourceType::Float | SourceType::Double => format!("{name} * 1e0"),
        SourceType::Year => format!("{name} + 0"),
        // without the zeros of ZEROFILL
        SourceType::Int { .. } => format!("CAST({name} AS SIGNED)"),
        _ => name,
    }
}

fn is_impossible_date(source_type: &SourceType, text: &str) -> bool {
    let is_date = matches!(source_type, SourceType::Date | SourceType::DateTime { .. } | SourceType::Timestamp { .. });
    is_date && NaiveDate::parse_from_str(&text[..10], "%Y-%m-%d").is_err()
}

/// Our value in the form of [`expression`].
fn ours(source_type: &SourceType, array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02X}").unwrap();
            text
        })
    };
    Some(match source_type {
        SourceType::Bool | SourceType::Bit { bits: 1 } => u8::from(array.as_boolean().value(row)).to_string(),
        SourceType::TinyInt { .. }
        | SourceType::SmallInt { .. }
        | SourceType::MediumInt { .. }
        | SourceType::Int { unsigned: false }
        | SourceType::Year => array.as_primitive::<Int32Type>().value(row).to_string(),
        SourceType::Int { unsigned: true } | SourceType::BigInt { unsigned: false } => {
            array.as_primitive::<Int64Type>().value(row).to_string()
        }
        SourceType::BigInt { unsigned: true } => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        SourceType::Float => f64::from(array.as_primitive::<Float32Type>().value(row)).to_string(),
        SourceType::Double => array.as_primitive::<Float64Type>().value(row).to_string(),
        SourceType::Decimal { precision, .. } if *precision <= 38 => array.as_primitive::<Decimal128Type>().value_as_string(row),
        SourceType::Decimal { .. } | SourceType::Time { .. } => array.as_string::<i32>().value(row).to_owned(),
        SourceType::Bit { .. } => {
            array.as_binary::<i32>().value(row).iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).to_string()
        }
        SourceType::Text { .. } | SourceType::Enum { .. } | SourceType::Set { .. } | SourceType::Json => {
            hex(array.as_string::<i32>().value(row).as_bytes())
        }
        SourceType::Binary { .. } | SourceType::Geometry => hex(array.as_binary::<i32>().value(row)),
        SourceType::List { .. } | SourceType::Objects { .. } => unreachable!("the server has no lists"),
        SourceType::Vector => {
            let numbers = array.as_list::<i32>().value(row);
            hex(&numbers.as_primitive::<Float32Type>().values().iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
        }
        SourceType::Date => {
            let days = i64::from(array.as_primitive::<Date32Type>().value(row));
            (NaiveDate::default() + Duration::days(days)).format("%Y-%m-%d").to_string()
        }
        SourceType::DateTime { fsp } | SourceType::Timestamp { fsp } => {
            let time = DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row)).unwrap();
            let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            text[..if *fsp == 0 { 19 } else { 20 + usize::from(*fsp) }].to_owned()
        }
    })
}
