//! Values of the binary protocol's rows, decoded to the same [`Value`]s as a row image's. No I/O.
//!
//! Source: MySQL's protocol documentation, "Binary Protocol Resultset Row". FLOAT and DOUBLE come bit by bit, text in its column's own character set.

use super::bytes::{Reader, bit, malformed};
use super::charset::Charset;
use super::snapshot_session::WireType;
use super::value::Value;
use super::value_rules::{ValueRules, enum_text, set_text};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Column, SourceType};
use std::borrow::Cow;

/// Reads one column of a result's rows.
#[derive(Debug)]
pub(super) struct FieldReader<'a> {
    source_type: &'a SourceType,
    wire_type: WireType,
    /// Of text.
    charset: Option<Charset>,
}

impl<'a> FieldReader<'a> {
    /// A reader of `column`'s values, which the result announces as `wire_type`; `None`: they aren't of the column's type.
    pub(super) fn new(column: &'a Column, wire_type: WireType) -> Option<Self> {
        let charset = match &column.source_type {
            SourceType::Text { charset, .. } => Some(Charset::named(charset)?),
            _ => None,
        };
        is_expected(&column.source_type, wire_type).then_some(Self { source_type: &column.source_type, wire_type, charset })
    }

    /// The next value.
    fn read<'r>(&self, row: &mut Reader<'r>, rules: &mut ValueRules) -> Result<Value<'r>> {
        Ok(match self.source_type {
            SourceType::Bool => Value::Bool(self.integer(row)? != 0),
            SourceType::TinyInt { unsigned: true }
            | SourceType::SmallInt { unsigned: true }
            | SourceType::MediumInt { unsigned: true }
            | SourceType::Int { unsigned: true }
            | SourceType::Year => Value::Int(self.integer(row)?.cast_signed()),
            SourceType::TinyInt { .. } | SourceType::SmallInt { .. } | SourceType::MediumInt { .. } | SourceType::Int { .. } => {
                Value::Int(self.signed(row)?)
            }
            SourceType::BigInt { unsigned: false } => Value::Int(self.signed(row)?),
            SourceType::BigInt { unsigned: true } => Value::Decimal(i128::from(self.integer(row)?)),
            SourceType::Float => Value::Float(f32::from_le_bytes(row.array()?)),
            SourceType::Double => Value::Double(f64::from_le_bytes(row.array()?)),
            SourceType::Decimal { precision, .. } if *precision > 38 => Value::Text(ascii(row.sized()?)?),
            SourceType::Decimal { scale, .. } => Value::Decimal(decimal(row.sized()?, *scale)?),
            SourceType::Bit { bits: 1 } => Value::Bool(row.sized()?.iter().any(|byte| *byte != 0)),
            SourceType::Bit { .. } | SourceType::Binary { .. } => Value::Bytes(Cow::Borrowed(row.sized()?)),
            SourceType::Geometry => {
                let mut geometry = Reader::new(row.sized()?);
                geometry.take(4)?; // the spatial reference
                Value::Bytes(Cow::Borrowed(geometry.rest()))
            }
            SourceType::Text { .. } => {
                let charset = self.charset.ok_or_else(|| Error::bug("a text column without its character set"))?;
                Value::Text(rules.text(charset, row.sized()?)?)
            }
            SourceType::Json => Value::Text(rules.text(Charset::Utf8, row.sized()?)?),
            SourceType::Enum { .. } | SourceType::Set { .. } if integer_width(self.wire_type).is_none() => {
                Value::Text(rules.text(Charset::Utf8, row.sized()?)?)
            }
            SourceType::Enum { members } => Value::Text(Cow::Owned(enum_text(members, self.integer(row)?)?.to_owned())),
            SourceType::Set { members } => Value::Text(Cow::Owned(set_text(members, self.integer(row)?)?)),
            SourceType::Date => {
                let Moment { year, month, day, .. } = moment(row)?;
                rules.date(year, month, day)?
            }
            SourceType::DateTime { .. } | SourceType::Timestamp { .. } => {
                let Moment { year, month, day, micros } = moment(row)?;
                rules.date_time(year, month, day, micros)?
            }
            SourceType::Time { fsp } => Value::Time { micros: time(row)?, fsp: *fsp },
            SourceType::Vector => Value::Vector(Cow::Borrowed(row.sized()?)),
            SourceType::List { .. } | SourceType::Objects { .. } => return Err(Error::bug("the server has no lists")),
        })
    }

    /// An integer as its bits, zeros above.
    fn integer(&self, row: &mut Reader<'_>) -> Result<u64> {
        row.uint(integer_width(self.wire_type).unwrap_or(8))
    }

    fn signed(&self, row: &mut Reader<'_>) -> Result<i64> {
        let width = integer_width(self.wire_type).unwrap_or(8);
        let unused = 64 - 8 * width as u32;
        Ok(row.uint(width)?.cast_signed() << unused >> unused)
    }
}

/// Reads a row's packet: appends a value for each field to `values`, which is emptied first. An error comes with its field's index.
pub(super) fn read_row<'r>(
    packet: &'r [u8],
    fields: &[FieldReader<'_>],
    rules: &mut ValueRules,
    values: &mut Vec<Value<'r>>,
) -> Result<(), (usize, Error)> {
    values.clear();
    let mut row = Reader::new(packet);
    let nulls = row.u8().and_then(|_| row.take((fields.len() + 9) / 8)).map_err(|error| (0, error))?;
    for (index, field) in fields.iter().enumerate() {
        // the first two bits of the set are reserved
        let value =
            if bit(nulls, index + 2) { Value::Null } else { field.read(&mut row, rules).map_err(|error| (index, error))? };
        values.push(value);
    }
    Ok(())
}

/// Bytes of an integer: TINY, SHORT, YEAR, LONG, INT24, LONGLONG.
fn integer_width(wire_type: WireType) -> Option<usize> {
    match wire_type.0 {
        1 => Some(1),
        2 | 13 => Some(2),
        3 | 9 => Some(4),
        8 => Some(8),
        _ => None,
    }
}

fn is_expected(source_type: &SourceType, WireType(code): WireType) -> bool {
    match source_type {
        SourceType::Bool | SourceType::TinyInt { .. } => code == 1,
        SourceType::SmallInt { .. } => code == 2,
        SourceType::MediumInt { .. } => code == 9,
        SourceType::Int { .. } => code == 3,
        SourceType::BigInt { .. } => code == 8,
        SourceType::Year => code == 13,
        // read as numbers, or as text
        SourceType::Enum { .. } | SourceType::Set { .. } => integer_width(WireType(code)).is_some() || matches!(code, 249..=254),
        SourceType::Float => code == 4,
        SourceType::Double => code == 5,
        SourceType::Decimal { .. } => code == 246,
        SourceType::Bit { .. } => code == 16,
        SourceType::Text { .. } | SourceType::Binary { .. } => matches!(code, 15 | 249..=254),
        SourceType::Geometry => code == 255,
        SourceType::Json => code == 245,
        SourceType::Date => matches!(code, 10 | 14),
        SourceType::DateTime { .. } => code == 12,
        SourceType::Timestamp { .. } => code == 7,
        SourceType::Time { .. } => code == 11,
        SourceType::Vector => code == 242,
        SourceType::List { .. } | SourceType::Objects { .. } => false,
    }
}

struct Moment {
    year: u32,
    month: u32,
    day: u32,
    micros: i64,
}

/// DATE, DATETIME, TIMESTAMP: what is zero at the end is left out.
fn moment(row: &mut Reader<'_>) -> Result<Moment> {
    let length = row.u8()?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(malformed("a date in a snapshot's row is malformed"));
    }
    let (year, month, day) = match length {
        0 => (0, 0, 0),
        _ => (u32::from(row.u16()?), u32::from(row.u8()?), u32::from(row.u8()?)),
    };
    let seconds = if length >= 7 { clock(row)? } else { 0 };
    let fraction = if length == 11 { i64::from(row.u32()?) } else { 0 };
    Ok(Moment { year, month, day, micros: seconds * 1_000_000 + fraction })
}

fn clock(row: &mut Reader<'_>) -> Result<i64> {
    let (hour, minute, second) = (i64::from(row.u8()?), i64::from(row.u8()?), i64::from(row.u8()?));
    Ok((hour * 60 + minute) * 60 + second)
}

/// A TIME ends at 838:59:59.
const MOST_DAYS_OF_A_TIME: i64 = 34;

/// TIME, in microseconds.
fn time(row: &mut Reader<'_>) -> Result<i64> {
    let length = row.u8()?;
    if length == 0 {
        return Ok(0);
    }
    if !matches!(length, 8 | 12) {
        return Err(malformed("a time in a snapshot's row is malformed"));
    }
    let is_negative = row.u8()? != 0;
    let days = i64::from(row.u32()?);
    if days > MOST_DAYS_OF_A_TIME {
        return Err(malformed("a time in a snapshot's row is malformed"));
    }
    let seconds = days * 86_400 + clock(row)?;
    let fraction = if length == 12 { i64::from(row.u32()?) } else { 0 };
    let micros = seconds * 1_000_000 + fraction;
    Ok(if is_negative { -micros } else { micros })
}

fn ascii(bytes: &[u8]) -> Result<Cow<'_, str>> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| malformed("a decimal in a snapshot's row is malformed"))
}

/// A decimal's text, times 10^`scale`.
fn decimal(text: &[u8], scale: u8) -> Result<i128> {
    let wrong = || Error::new(Area::Source, Kind::Data, "a decimal in a snapshot's row is malformed");
    let (is_negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let (mut number, mut after_point) = (0_i128, None);
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                number = number.checked_mul(10).and_then(|number| number.checked_add(i128::from(byte - b'0'))).ok_or_else(wrong)?;
                after_point = after_point.map(|count: u32| count + 1);
            }
            b'.' if after_point.is_none() => after_point = Some(0),
            _ => return Err(wrong()),
        }
    }
    let missing = u32::from(scale).checked_sub(after_point.unwrap_or(0)).ok_or_else(wrong)?;
    let number = 10_i128.checked_pow(missing).and_then(|power| number.checked_mul(power)).ok_or_else(wrong)?;
    Ok(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ValuePolicies;
    use proptest::prelude::*;

    fn column(source_type: SourceType) -> Column {
        Column { name: "c".into(), source_type, nullable: true }
    }

    fn one(source_type: SourceType, code: u8, bytes: &[u8]) -> Value<'static> {
        let column = column(source_type);
        let field = FieldReader::new(&column, WireType(code)).unwrap();
        let packet = [&[0, 0][..], bytes].concat();
        let mut values = Vec::new();
        read_row(&packet, &[field], &mut ValueRules::new(ValuePolicies::default()), &mut values).unwrap();
        match values.remove(0) {
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Value::Vector(bytes) => Value::Vector(Cow::Owned(bytes.into_owned())),
            Value::Null => Value::Null,
            Value::Int(number) => Value::Int(number),
            Value::Decimal(number) => Value::Decimal(number),
            Value::Micros(micros) => Value::Micros(micros),
            Value::Time { micros, fsp } => Value::Time { micros, fsp },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values() {
        let medium = SourceType::MediumInt { unsigned: false };
        assert_eq!(one(medium, 9, &(-8_388_608_i32).to_le_bytes()), Value::Int(-8_388_608));
        assert_eq!(one(SourceType::TinyInt { unsigned: true }, 1, &[255]), Value::Int(255));
        assert_eq!(one(SourceType::TinyInt { unsigned: false }, 1, &[255]), Value::Int(-1));
        assert_eq!(one(SourceType::BigInt { unsigned: true }, 8, &[255; 8]), Value::Decimal(i128::from(u64::MAX)));
        assert_eq!(one(SourceType::Decimal { precision: 20, scale: 4 }, 246, b"\x0b-12345.6789"), Value::Decimal(-123_456_789));
        assert_eq!(
            one(SourceType::Time { fsp: 0 }, 11, &[8, 1, 34, 0, 0, 0, 22, 59, 59]),
            Value::Time { micros: -3_020_399_000_000, fsp: 0 }
        );
        assert_eq!(one(SourceType::DateTime { fsp: 0 }, 12, &[0]), Value::Null, "a zero date by the default policy");
        assert_eq!(one(SourceType::DateTime { fsp: 6 }, 12, &[4, 0xb2, 7, 1, 2]), Value::Micros(86_400_000_000));
        let set = SourceType::Set { members: vec!["a".into(), "b".into()] };
        assert_eq!(one(set, 8, &[3, 0, 0, 0, 0, 0, 0, 0]), Value::Text("a,b".into()));
    }

    #[test]
    fn another_type_than_the_columns_is_noticed() {
        assert!(FieldReader::new(&column(SourceType::Json), WireType(252)).is_none());
        assert!(FieldReader::new(&column(SourceType::Int { unsigned: true }), WireType(8)).is_none());
    }

    #[test]
    fn a_time_of_too_many_days_is_refused() {
        let wire = |days: u32| [&[8, 0][..], &days.to_le_bytes(), &[1, 2, 3]].concat();
        assert_eq!(time(&mut Reader::new(&wire(34))).unwrap(), ((34 * 24 + 1) * 3600 + 2 * 60 + 3) * 1_000_000);
        assert_eq!(time(&mut Reader::new(&wire(35))).unwrap_err().kind(), Kind::Data);
        assert_eq!(time(&mut Reader::new(&wire(u32::MAX))).unwrap_err().kind(), Kind::Data);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let types = [
                (SourceType::Int { unsigned: false }, 3), (SourceType::Decimal { precision: 65, scale: 30 }, 246),
                (SourceType::Decimal { precision: 38, scale: 30 }, 246), (SourceType::DateTime { fsp: 6 }, 12),
                (SourceType::Time { fsp: 6 }, 11), (SourceType::Json, 245), (SourceType::Set { members: vec!["a".into()] }, 8),
                (SourceType::Text { charset: "utf16".into(), max_bytes: 0 }, 252), (SourceType::Vector, 242),
            ];
            let columns: Vec<(Column, u8)> = types.into_iter().map(|(source_type, code)| (column(source_type), code)).collect();
            let fields: Vec<FieldReader<'_>> = columns.iter().map(|(column, code)| FieldReader::new(column, WireType(*code)).unwrap()).collect();
            let _ = read_row(&bytes, &fields, &mut ValueRules::default(), &mut Vec::new());
        }
    }
}
