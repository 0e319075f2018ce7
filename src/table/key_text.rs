//! Values of a key as people write them, as a column of the key's type: exactly these, or none. What a type would round or cut is no value of it: it would be
//! another row's.

use arrow::array::{ArrayRef, BinaryArray, Date32Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use chrono::NaiveDate;
use std::sync::Arc;

use crate::time::Timestamp;

/// The values `texts` of a key's column. Bytes are written as they are where they are text, or as `0x…`; times as in ISO 8601, in UTC if they don't say otherwise.
///
/// # Errors
/// The first text that is no value of the type.
pub fn key_column(texts: &[&str], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let wrong = |text: &str| ArrowError::CastError(format!("'{text}' is no {data_type}"));
    let read = |text: &str| -> Result<Option<i64>, ArrowError> {
        match data_type {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let time = Timestamp::parse(text.trim()).filter(|_| decimals(text) <= 6);
                time.map(|time| Some(time.as_micros())).ok_or_else(|| wrong(text))
            }
            DataType::Date32 => {
                let date = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").map_err(|_| wrong(text))?;
                Ok(Some(date.signed_duration_since(NaiveDate::default()).num_days()))
            }
            DataType::Decimal128(_, scale) if i64::from(*scale) < decimals(text) as i64 || text.contains(['e', 'E']) => {
                Err(wrong(text))
            }
            _ => Ok(None),
        }
    };
    let numbers = texts.iter().map(|text| read(text)).collect::<Result<Option<Vec<i64>>, _>>();
    Ok(match (data_type, numbers?) {
        (DataType::Date32, Some(days)) => {
            let days = days.into_iter().map(|day| i32::try_from(day).map_err(|_| wrong("a date")));
            Arc::new(Date32Array::from(days.collect::<Result<Vec<_>, _>>()?))
        }
        (DataType::Timestamp(..), Some(micros)) => {
            Arc::new(TimestampMicrosecondArray::from(micros).with_data_type(data_type.clone()))
        }
        (DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_), _) => {
            let bytes: Vec<Vec<u8>> = texts.iter().map(|text| hex(text).unwrap_or_else(|| text.as_bytes().to_vec())).collect();
            cast(&BinaryArray::from_iter_values(bytes), data_type)?
        }
        _ => {
            let texts = StringArray::from_iter_values(texts);
            cast_with_options(&texts, data_type, &CastOptions { safe: false, ..CastOptions::default() })?
        }
    })
}

/// The bytes that `0x…` means.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?.as_bytes();
    if digits.is_empty() || digits.len() % 2 != 0 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Digits behind the point, without zeros at the end.
fn decimals(text: &str) -> usize {
    let Some((_, fraction)) = text.split_once('.') else { return 0 };
    let digits = fraction.find(|c: char| !c.is_ascii_digit()).map_or(fraction, |end| &fraction[..end]);
    digits.trim_end_matches('0').len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::display::array_value_to_string;

    fn read(text: &str, data_type: &DataType) -> Option<String> {
        let column = key_column(&[text], data_type).ok()?;
        assert_eq!(column.data_type(), data_type);
        array_value_to_string(&column, 0).ok()
    }

    #[test]
    fn exactly_the_value_or_none() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (text, data_type, wanted) in [
            ("42", DataType::Int32, Some("42")),
            ("4.2", DataType::Int32, None),
            ("99999999999", DataType::Int32, None),
            ("18446744073709551615", DataType::Decimal128(20, 0), Some("18446744073709551615")),
            ("2.25", DataType::Decimal128(10, 2), Some("2.25")),
            ("2.2500", DataType::Decimal128(10, 2), Some("2.25")),
            ("-2", DataType::Decimal128(10, 2), Some("-2.00")),
            // would be rounded to another row's key
            ("2.251", DataType::Decimal128(10, 2), None),
            ("2251e-3", DataType::Decimal128(10, 2), None),
            ("2026-01-02", DataType::Date32, Some("2026-01-02")),
            ("1969-12-31", DataType::Date32, Some("1969-12-31")),
            ("2026-01-02 23:00:00", DataType::Date32, None),
            ("2026-02-30", DataType::Date32, None),
            ("2026-01-02 10:00:00.123", time.clone(), Some("2026-01-02T10:00:00.123Z")),
            ("2026-01-02T11:00:00+01:00", time.clone(), Some("2026-01-02T10:00:00Z")),
            ("2026-01-02 10:00:00.1234567", time, None),
            (" Abc, d", DataType::Utf8, Some(" Abc, d")),
            ("0x0102ff", DataType::Binary, Some("0102ff")),
            ("ab,c", DataType::Binary, Some("61622c63")),
            ("0x012", DataType::Binary, Some("3078303132")),
            ("true", DataType::Boolean, Some("true")),
            ("maybe", DataType::Boolean, None),
        ] {
            assert_eq!(read(text, &data_type).as_deref(), wanted, "{text} as {data_type}");
        }
    }
}
