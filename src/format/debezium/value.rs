//! Values as Debezium's MySQL connector writes them by its defaults (`decimal.handling.mode=precise`, `time.precision.mode=adaptive_time_microseconds`,
//! `bigint.unsigned.handling.mode=long`, `binary.handling.mode=bytes`), compared with version 3.6.1.

use crate::event::{Column, SourceType};
use crate::format::cell::Cell;
use crate::format::clock::{instant_text, parse_instant, parse_time, time_text};
use crate::format::dms::value::{item_of, number, scale_of};
use crate::format::number::{decimal_at, decimal_text, from_twos_complement, parse_decimal, twos_complement, unscaled};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A cell of a column as JSON.
pub(crate) fn encode(column: &Column, cell: &Cell<'_>) -> Value {
    use SourceType as T;
    match (cell, &column.source_type) {
        (Cell::Null, _) => Value::Null,
        (Cell::Bool(value), _) => Value::Bool(*value),
        (Cell::Int(value), _) => (*value).into(),
        // `long`: the bits of the unsigned number
        (Cell::Decimal(value), T::BigInt { .. }) => u64::try_from(*value).map_or(Value::Null, |value| (value as i64).into()),
        (Cell::Decimal(value), source_type) => decimal(&decimal_text(*value, scale_of(source_type))),
        (Cell::Float(value), _) => number(&format!("{value:?}")),
        (Cell::Double(value), _) => number(&format!("{value:?}")),
        (Cell::Text(text), T::Decimal { .. }) => decimal(text),
        (Cell::Text(text), T::Time { .. }) => parse_time(text).map_or(Value::Null, Value::from),
        (Cell::Text(text), _) => text.as_ref().into(),
        (Cell::Bytes(bytes), T::Bit { .. }) => base64(&bytes.iter().rev().copied().collect::<Vec<u8>>()),
        (Cell::Bytes(bytes), T::Geometry) => geometry(bytes),
        (Cell::Bytes(bytes), _) => base64(bytes),
        (Cell::Date(days), _) => (*days).into(),
        (Cell::Micros(micros), T::DateTime { fsp }) if *fsp <= 3 => micros.div_euclid(1000).into(),
        (Cell::Micros(micros), T::Timestamp { fsp }) => instant_text(*micros, *fsp).map_or(Value::Null, Value::from),
        (Cell::Micros(micros), _) => (*micros).into(),
        (Cell::Vector(items), _) => items.iter().map(|item| number(&format!("{item:?}"))).collect(),
        (Cell::List(items), source_type) => {
            let of = item_of(column, source_type);
            items.iter().map(|item| encode(&of, item)).collect()
        }
    }
}

/// A cell of a column from JSON; the error says what is wrong, without the value.
pub(crate) fn decode(column: &Column, value: &Value) -> Result<Cell<'static>, &'static str> {
    use SourceType as T;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let integer = || value.as_i64().ok_or("it is no whole number");
    let bytes = || STANDARD.decode(value.as_str().unwrap_or("?")).map_err(|_| "it is not base64");
    let text = || value.as_str().map(str::to_owned).ok_or("it is no text");
    Ok(match &column.source_type {
        T::Bool | T::Bit { bits: 1 } => match value {
            Value::Bool(value) => Cell::Bool(*value),
            _ => Cell::Bool(integer()? != 0),
        },
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { unsigned: false } | T::Year => {
            Cell::Int(i32::try_from(integer()?).map_err(|_| "it is no int")?.into())
        }
        T::Int { unsigned: true } | T::BigInt { unsigned: false } => Cell::Int(integer()?),
        T::BigInt { unsigned: true } => Cell::Decimal((integer()? as u64).into()),
        T::Decimal { precision, scale } => {
            // `decimal.handling.mode` may also be `string` or `double`
            let exact = match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) if text.parse::<f64>().is_ok() && STANDARD.decode(text).is_err() => text.clone(),
                _ => from_twos_complement(&bytes()?, *scale).ok_or("it is no decimal")?,
            };
            if *precision <= 38 {
                Cell::Decimal(parse_decimal(&exact, *precision, scale_of(&column.source_type)).ok_or("it doesn't fit the decimal")?)
            } else {
                Cell::Text(decimal_at(&exact, *scale).ok_or("it doesn't fit the decimal")?.into())
            }
        }
        T::Float => Cell::Float(number_of(value)?),
        T::Double => Cell::Double(number_of(value)?),
        T::Bit { .. } => Cell::Bytes(bytes()?.into_iter().rev().collect::<Vec<u8>>().into()),
        T::Geometry => match value.get("wkb").and_then(Value::as_str) {
            Some(wkb) => Cell::Bytes(STANDARD.decode(wkb).map_err(|_| "its shape is not base64")?.into()),
            None => return Err("it is no geometry"),
        },
        T::Binary { .. } => Cell::Bytes(bytes()?.into()),
        T::Date => Cell::Date(i32::try_from(integer()?).map_err(|_| "it is no date")?),
        T::DateTime { fsp } if *fsp <= 3 => Cell::Micros(integer()?.checked_mul(1000).ok_or("it is no date and time")?),
        T::DateTime { .. } => Cell::Micros(integer()?),
        T::Timestamp { .. } => Cell::Micros(parse_instant(&text()?).ok_or("it is no date and time")?),
        T::Time { fsp } => Cell::Text(time_text(integer()?, *fsp).into()),
        T::Vector => {
            let items = value.as_array().ok_or("it is no list")?;
            Cell::Vector(items.iter().map(number_of).collect::<Result<_, _>>()?)
        }
        T::List { .. } => {
            let (items, of) = (value.as_array().ok_or("it is no list")?, item_of(column, &column.source_type));
            Cell::List(items.iter().map(|item| decode(&of, item)).collect::<Result<_, _>>()?)
        }
        T::Text { .. } | T::Enum { .. } | T::Set { .. } | T::Json | T::Objects { .. } => Cell::Text(text()?.into()),
    })
}

fn number_of<T: std::str::FromStr>(value: &Value) -> Result<T, &'static str> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err("it is no number"),
    };
    text.parse().map_err(|_| "it is no number")
}

/// Kafka Connect's `Decimal`.
fn decimal(text: &str) -> Value {
    let (is_negative, digits) = unscaled(text);
    base64(&twos_complement(is_negative, &digits))
}

fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

/// A shape. The lake's shapes say neither their reference system nor that their column takes points alone, so points have no `x` and `y` beside.
fn geometry(wkb: &[u8]) -> Value {
    json!({"wkb": base64(wkb), "srid": null})
}
