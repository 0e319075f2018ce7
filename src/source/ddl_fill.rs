//! What rows that exist already have in an added column: MySQL gives it to them without an event.

use super::ddl_column::{ColumnDefinition, DefaultValue};
use super::tracked::stops_table;
use super::value::Value;
use super::value_rules::days_since_epoch;
use crate::error::{Error, Result};
use crate::event::{SourceType, ValuePolicies, ZeroDates};
use crate::time::Timestamp;
use std::borrow::Cow;

/// The value; `Value::Null` for NULL. An error if only the server knows it.
pub(super) fn existing_value(
    column: &ColumnDefinition,
    source_type: &SourceType,
    policies: ValuePolicies,
) -> Result<Value<'static>> {
    let value = match &column.default {
        DefaultValue::Null => Some(Value::Null),
        DefaultValue::None if column.is_nullable => Some(Value::Null),
        DefaultValue::None => implicit(source_type, policies),
        DefaultValue::Literal(text) => literal(text, source_type, policies),
        DefaultValue::Bytes(bytes) => of_bytes(bytes, source_type),
        DefaultValue::Unknown => None,
    };
    value.ok_or_else(|| unknown(&column.name))
}

fn unknown(column: &str) -> Error {
    stops_table("a column was added, and only the server knows what the existing rows have in it")
        .with("column", column)
        .remedy(super::shape::BACKFILL)
}

/// What a NOT NULL column without a DEFAULT has.
fn implicit(source_type: &SourceType, policies: ValuePolicies) -> Option<Value<'static>> {
    Some(match source_type {
        SourceType::Bool => Value::Bool(false),
        SourceType::Bit { bits: 1 } => Value::Bool(false),
        SourceType::Bit { bits } => Value::Bytes(vec![0; usize::from(bits.div_ceil(8))].into()),
        SourceType::Text { .. } | SourceType::Set { .. } => Value::Text("".into()),
        SourceType::Binary { fixed_bytes } => Value::Bytes(vec![0; *fixed_bytes as usize].into()),
        SourceType::Enum { members } => Value::Text(members.first()?.clone().into()),
        SourceType::Json => Value::Text("null".into()),
        SourceType::Date | SourceType::DateTime { .. } | SourceType::Timestamp { .. } => match policies.zero_dates {
            ZeroDates::Null => Value::Null,
            ZeroDates::Error => return None,
        },
        SourceType::Geometry | SourceType::Vector => return None,
        other => literal("0", other, policies)?,
    })
}

fn of_bytes(bytes: &[u8], source_type: &SourceType) -> Option<Value<'static>> {
    match source_type {
        SourceType::Bit { bits: 1 } => Some(Value::Bool(bytes.last().is_some_and(|byte| byte & 1 == 1))),
        SourceType::Bit { bits } => {
            let width = usize::from(bits.div_ceil(8));
            let mut value = vec![0; width.saturating_sub(bytes.len())];
            value.extend_from_slice(bytes);
            (value.len() == width).then_some(Value::Bytes(value.into()))
        }
        SourceType::Binary { fixed_bytes } => {
            let mut value = bytes.to_vec();
            value.resize(value.len().max(*fixed_bytes as usize), 0);
            Some(Value::Bytes(value.into()))
        }
        SourceType::Text { .. } => String::from_utf8(bytes.to_vec()).ok().map(|text| Value::Text(text.into())),
        _ => None,
    }
}

fn literal(text: &str, source_type: &SourceType, policies: ValuePolicies) -> Option<Value<'static>> {
    let text = if matches!(source_type, SourceType::Text { .. } | SourceType::Binary { .. }) { text } else { text.trim() };
    let owned = || Value::Text(Cow::Owned(text.to_owned()));
    match source_type {
        SourceType::Bool => Some(Value::Bool(text.parse::<i64>().ok()? != 0)),
        SourceType::BigInt { unsigned: true } => text.parse().ok().map(Value::Decimal),
        SourceType::TinyInt { .. } | SourceType::SmallInt { .. } | SourceType::MediumInt { .. } => {
            text.parse().ok().map(Value::Int)
        }
        SourceType::Int { .. } | SourceType::BigInt { .. } => text.parse().ok().map(Value::Int),
        SourceType::Year => text.parse().ok().filter(|year| *year == 0 || (1901..=2155).contains(year)).map(Value::Int),
        SourceType::Float => text.parse().ok().map(Value::Float),
        SourceType::Double => text.parse().ok().map(Value::Double),
        SourceType::Decimal { precision, scale } => decimal(text, *precision, *scale),
        SourceType::Bit { bits: 1 } => Some(Value::Bool(text.parse::<u64>().ok()? == 1)),
        SourceType::Bit { bits } => {
            let number: u64 = text.parse().ok()?;
            number.to_be_bytes().get(8 - usize::from(bits.div_ceil(8))..).map(|bytes| Value::Bytes(bytes.to_vec().into()))
        }
        SourceType::Text { .. } => Some(owned()),
        SourceType::Enum { members } => {
            members.iter().find(|member| member.eq_ignore_ascii_case(text)).map(|member| Value::Text(member.clone().into()))
        }
        SourceType::Set { members } => set(text, members),
        SourceType::Binary { .. } => of_bytes(text.as_bytes(), source_type),
        SourceType::Date => date(text, policies).map(|micros| match micros {
            Value::Micros(micros) => i32::try_from(micros.div_euclid(86_400_000_000)).map_or(Value::Null, Value::Date),
            other => other,
        }),
        SourceType::DateTime { .. } => date(text, policies),
        SourceType::Time { fsp } => time(text).map(|micros| Value::Time { micros, fsp: *fsp }),
        // a literal means another instant in each session's time zone
        SourceType::Timestamp { .. }
        | SourceType::Json
        | SourceType::Geometry
        | SourceType::Vector
        | SourceType::List { .. }
        | SourceType::Objects { .. } => None,
    }
}

fn decimal(text: &str, precision: u8, scale: u8) -> Option<Value<'static>> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(whole) || !is_plain(fraction) || fraction.len() > usize::from(scale) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let padded = format!("{fraction:0<width$}", width = usize::from(scale));
    if precision > 38 {
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if scale == 0 { "" } else { "." };
        return Some(Value::Text(format!("{sign}{whole}{point}{padded}").into()));
    }
    let all = format!("{sign}{whole}{padded}");
    if whole.is_empty() && padded.is_empty() { Some(Value::Decimal(0)) } else { all.parse().ok().map(Value::Decimal) }
}

/// Members in the column's order, as the server prints them.
fn set(text: &str, members: &[String]) -> Option<Value<'static>> {
    let wanted: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
    let is_wanted = |member: &&String| wanted.iter().any(|part| part.eq_ignore_ascii_case(member));
    let chosen: Vec<&str> = members.iter().filter(is_wanted).map(String::as_str).collect();
    (chosen.len() == wanted.len()).then(|| Value::Text(chosen.join(",").into()))
}

fn date(text: &str, policies: ValuePolicies) -> Option<Value<'static>> {
    let mut parts = text.get(..10)?.split('-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if days_since_epoch(year, month, day).is_none() {
        return (policies.zero_dates == ZeroDates::Null).then_some(Value::Null);
    }
    Timestamp::parse(text).map(|time| Value::Micros(time.as_micros()))
}

fn time(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let (clock, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let mut parts = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(sign * ((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros))
}

#[cfg(test)]
mod tests {
    use super::super::ddl::Tokens;
    use super::super::ddl_column::column_definition;
    use super::*;

    fn value(text: &str) -> Result<Value<'static>> {
        let (column, _) = column_definition(Tokens::read(text).unwrap()).unwrap();
        let kind = column.source_type(false).unwrap();
        existing_value(&column, &kind, ValuePolicies::default())
    }

    #[test]
    fn what_existing_rows_get() {
        let text = |text: &'static str| Value::Text(text.into());
        let cases = [
            ("a INT", Value::Null),
            ("a INT NOT NULL", Value::Int(0)),
            ("a INT DEFAULT '7'", Value::Int(7)),
            ("a BIGINT UNSIGNED NOT NULL DEFAULT 18446744073709551615", Value::Decimal(18_446_744_073_709_551_615)),
            ("a VARCHAR(9) NOT NULL", text("")),
            ("a VARCHAR(9) DEFAULT 'größe'", text("größe")),
            ("a DECIMAL(10,2) DEFAULT -1.5", Value::Decimal(-150)),
            ("a DECIMAL(10,2) NOT NULL", Value::Decimal(0)),
            ("a DECIMAL(50,2) DEFAULT 0012.5", text("12.50")),
            ("a ENUM('x','y') NOT NULL", text("x")),
            ("a ENUM('x','Y') DEFAULT 'y'", text("Y")),
            ("a SET('a','b','c') DEFAULT 'c,a'", text("a,c")),
            ("a DATE NOT NULL", Value::Null),
            ("a DATE DEFAULT '1970-01-03'", Value::Date(2)),
            ("a DATETIME(3) DEFAULT '1970-01-01 00:00:01.500'", Value::Micros(1_500_000)),
            ("a TIME(1) DEFAULT '-01:00:00.5'", Value::Time { micros: -3_600_500_000, fsp: 1 }),
            ("a TIME NOT NULL", Value::Time { micros: 0, fsp: 0 }),
            ("a BINARY(3) NOT NULL DEFAULT 'a'", Value::Bytes(vec![b'a', 0, 0].into())),
            ("a BIT(12) DEFAULT b'1'", Value::Bytes(vec![0, 1].into())),
            ("a BOOL DEFAULT TRUE", Value::Int(1)),
            ("a YEAR NOT NULL", Value::Int(0)),
        ];
        for (definition, expected) in cases {
            assert_eq!(value(definition).unwrap(), expected, "{definition}");
        }
    }

    #[test]
    fn what_only_the_server_knows() {
        for definition in [
            "a DATETIME DEFAULT NOW()",
            "a CHAR(36) DEFAULT (UUID())",
            "a INT AUTO_INCREMENT",
            "a TIMESTAMP DEFAULT '2026-01-01 00:00:00'",
        ] {
            assert!(value(definition).unwrap_err().to_string().contains("column=a"), "{definition}");
        }
    }
}
