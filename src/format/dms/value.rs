//! Values as AWS DMS writes them: numbers and text as JSON has them, dates and times in ISO 8601, bytes in hexadecimal after `0x`.

use crate::event::{Column, SourceType};
use crate::format::cell::Cell;
use crate::format::clock::{date_text, instant_text, parse_date, parse_instant};
use crate::format::number::{decimal_at, decimal_text, parse_decimal};
use serde_json::{Number, Value};
use std::fmt::Write;

/// A cell of a column as JSON.
pub(crate) fn encode(column: &Column, cell: &Cell<'_>) -> Value {
    match (cell, &column.source_type) {
        (Cell::Null, _) => Value::Null,
        (Cell::Bool(value), _) => Value::Bool(*value),
        (Cell::Int(value), _) => (*value).into(),
        (Cell::Decimal(value), source_type) => number(&decimal_text(*value, scale_of(source_type))),
        (Cell::Float(value), _) => number(&format!("{value:?}")),
        (Cell::Double(value), _) => number(&format!("{value:?}")),
        (Cell::Text(text), SourceType::Decimal { .. }) => number(text),
        (Cell::Text(text), _) => text.as_ref().into(),
        (Cell::Bytes(bytes), _) => hex(bytes).into(),
        (Cell::Date(days), _) => date_text(*days).map_or(Value::Null, Value::from),
        (Cell::Micros(micros), source_type) => instant_text(*micros, fsp_of(source_type)).map_or(Value::Null, Value::from),
        (Cell::Vector(items), _) => items.iter().map(|item| number(&format!("{item:?}"))).collect(),
        (Cell::List(items), source_type) => {
            let item_column = item_of(column, source_type);
            items.iter().map(|item| encode(&item_column, item)).collect()
        }
    }
}

/// A list's items as a column of their own.
pub(crate) fn item_of(column: &Column, list: &SourceType) -> Column {
    let source_type = if let SourceType::List { item } = list { item.as_ref() } else { list };
    Column { source_type: source_type.clone(), ..column.clone() }
}

/// A cell of a column from JSON; the error says what is wrong, without the value.
pub(crate) fn decode(column: &Column, value: &Value) -> Result<Cell<'static>, &'static str> {
    use SourceType as T;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        other => match &column.source_type {
            T::Vector | T::List { .. } => String::new(),
            // DMS writes JSON columns as text, but a document inside of one is as good
            T::Json | T::Objects { .. } | T::Text { .. } => other.to_string(),
            _ => return Err("it is a list or an object"),
        },
    };
    Ok(match &column.source_type {
        T::Bool | T::Bit { bits: 1 } => match text.as_str() {
            "true" | "1" => Cell::Bool(true),
            "false" | "0" => Cell::Bool(false),
            _ => return Err("it is no boolean"),
        },
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { unsigned: false } | T::Year => {
            let number = parse_decimal(&text, 10, 0).and_then(|number| i32::try_from(number).ok());
            Cell::Int(number.ok_or("it is no int")?.into())
        }
        T::Int { unsigned: true } | T::BigInt { unsigned: false } => {
            let number = parse_decimal(&text, 20, 0).and_then(|number| i64::try_from(number).ok());
            Cell::Int(number.ok_or("it is no bigint")?)
        }
        T::BigInt { unsigned: true } => Cell::Decimal(parse_decimal(&text, 20, 0).ok_or("it is no unsigned bigint")?),
        T::Decimal { precision, scale } if *precision <= 38 => {
            let scale = i8::try_from(*scale).map_err(|_| "the column has an unknown scale")?;
            Cell::Decimal(parse_decimal(&text, *precision, scale).ok_or("it doesn't fit the decimal")?)
        }
        T::Decimal { scale, .. } => Cell::Text(decimal_at(&text, *scale).ok_or("it doesn't fit the decimal")?.into()),
        T::Float => Cell::Float(text.parse().map_err(|_| "it is no number")?),
        T::Double => Cell::Double(text.parse().map_err(|_| "it is no number")?),
        T::Bit { .. } | T::Binary { .. } | T::Geometry => Cell::Bytes(unhex(&text).ok_or("it is not hexadecimal")?.into()),
        T::Date => {
            let days = parse_date(&text).or_else(|| i32::try_from(parse_instant(&text)?.div_euclid(86_400_000_000)).ok());
            Cell::Date(days.ok_or("it is no date")?)
        }
        T::DateTime { .. } | T::Timestamp { .. } => Cell::Micros(parse_instant(&text).ok_or("it is no date and time")?),
        T::Vector => {
            let items = value.as_array().ok_or("it is no list")?;
            let item = |item: &Value| item.to_string().parse().map_err(|_| "an item is no number");
            Cell::Vector(items.iter().map(item).collect::<Result<_, _>>()?)
        }
        T::List { .. } => {
            let (items, of) = (value.as_array().ok_or("it is no list")?, item_of(column, &column.source_type));
            Cell::List(items.iter().map(|item| decode(&of, item)).collect::<Result<_, _>>()?)
        }
        T::Text { .. } | T::Enum { .. } | T::Set { .. } | T::Json | T::Objects { .. } | T::Time { .. } => Cell::Text(text.into()),
    })
}

/// Digits of the fraction of a second.
fn fsp_of(source_type: &SourceType) -> u8 {
    match source_type {
        SourceType::DateTime { fsp } | SourceType::Timestamp { fsp } => *fsp,
        _ => 6,
    }
}

/// Digits behind the point.
pub(crate) fn scale_of(source_type: &SourceType) -> i8 {
    match source_type {
        SourceType::Decimal { scale, .. } => i8::try_from(*scale).unwrap_or(0),
        _ => 0,
    }
}

/// A number with all its digits; what JSON has no number for, as text.
pub(crate) fn number(text: &str) -> Value {
    text.parse::<Number>().map_or_else(|_| text.into(), Value::Number)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        // a String takes all that is written
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}
