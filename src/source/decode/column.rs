//! One column's decoder.

use super::{decimal, json, temporal};
use crate::error::{Area, Error, Kind, Result};
use crate::event::SourceType;
use crate::source::binlog::table_map::{MappedColumn, column_type as ty};
use crate::source::bytes::{Reader, malformed};
use crate::source::charset::Charset;
use crate::source::value::Value;
use crate::source::value_rules::{ValueRules, enum_text, set_text};
use std::borrow::Cow;

/// How the bytes are laid out.
#[derive(Debug, Clone)]
enum Layout {
    /// An integer of 1, 2, 3, 4 or 8 bytes.
    Int {
        bytes: u8,
        is_unsigned: bool,
    },
    /// TINYINT(1) that the lake has as a boolean.
    Bool,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit {
        bytes: u8,
        is_bool: bool,
    },
    Year,
    Date,
    Time {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Timestamp {
        fsp: u8,
    },
    OldTime,
    OldDateTime,
    OldTimestamp,
    /// Bytes after a length of `length_bytes`.
    Text {
        length_bytes: u8,
        charset: Charset,
        is_padded: bool,
    },
    Bytes {
        length_bytes: u8,
        fixed_bytes: u16,
    },
    Json {
        length_bytes: u8,
    },
    Geometry {
        length_bytes: u8,
    },
    Vector {
        length_bytes: u8,
    },
    Enum {
        bytes: u8,
        members: Vec<String>,
    },
    Set {
        bytes: u8,
        members: Vec<String>,
    },
}

/// Decodes one column of a table.
#[derive(Debug, Clone)]
pub(crate) struct ColumnDecoder {
    layout: Layout,
}

fn length_bytes(max: u16) -> u8 {
    if max > 255 { 2 } else { 1 }
}

fn charset(column: &MappedColumn) -> Result<Charset> {
    let name = column
        .charset
        .as_deref()
        .ok_or_else(|| malformed("a table map doesn't say a column's character set").with("column", &column.name))?;
    Charset::named(name).ok_or_else(|| {
        malformed("a column has a character set that binlake doesn't know")
            .with("column", &column.name)
            .with("charset", name)
            .remedy("convert the column to utf8mb4")
    })
}

fn members(column: &MappedColumn) -> Result<Vec<String>> {
    let charset = if column.charset.as_deref() == Some("binary") { Charset::Utf8 } else { charset(column)? };
    Ok(column.members.iter().map(|member| charset.decode(member).text.into_owned()).collect())
}

/// The column's type as the table map tells it.
pub(crate) fn mapped_source_type(column: &MappedColumn) -> Result<SourceType> {
    let unsigned = column.is_unsigned;
    let charset_name = column.charset.as_deref().unwrap_or("binary");
    Ok(match column.kind {
        ty::TINY => SourceType::TinyInt { unsigned },
        ty::SHORT => SourceType::SmallInt { unsigned },
        ty::INT24 => SourceType::MediumInt { unsigned },
        ty::LONG => SourceType::Int { unsigned },
        ty::LONGLONG => SourceType::BigInt { unsigned },
        ty::FLOAT => SourceType::Float,
        ty::DOUBLE => SourceType::Double,
        ty::NEWDECIMAL => SourceType::Decimal { precision: column.meta.0, scale: column.meta.1 },
        ty::BIT => SourceType::Bit { bits: column.meta.0.saturating_add(column.meta.1.saturating_mul(8)) },
        ty::YEAR => SourceType::Year,
        ty::DATE | ty::NEWDATE => SourceType::Date,
        ty::TIME => SourceType::Time { fsp: 0 },
        ty::TIME2 => SourceType::Time { fsp: column.meta.0 },
        ty::DATETIME => SourceType::DateTime { fsp: 0 },
        ty::DATETIME2 => SourceType::DateTime { fsp: column.meta.0 },
        ty::TIMESTAMP => SourceType::Timestamp { fsp: 0 },
        ty::TIMESTAMP2 => SourceType::Timestamp { fsp: column.meta.0 },
        ty::VARCHAR | ty::VAR_STRING if charset_name == "binary" => SourceType::Binary { fixed_bytes: 0 },
        ty::VARCHAR | ty::VAR_STRING => SourceType::Text {
            charset: charset_name.to_owned(),
            max_bytes: u32::from(u16::from_le_bytes([column.meta.0, column.meta.1])),
        },
        ty::STRING if charset_name == "binary" => SourceType::Binary { fixed_bytes: u32::from(column.string_bytes) },
        ty::STRING => SourceType::Text { charset: charset_name.to_owned(), max_bytes: u32::from(column.string_bytes) },
        ty::BLOB | ty::TINY_BLOB | ty::MEDIUM_BLOB | ty::LONG_BLOB if charset_name == "binary" => {
            SourceType::Binary { fixed_bytes: 0 }
        }
        ty::BLOB | ty::TINY_BLOB | ty::MEDIUM_BLOB | ty::LONG_BLOB => {
            SourceType::Text { charset: charset_name.to_owned(), max_bytes: 0 }
        }
        ty::JSON => SourceType::Json,
        ty::GEOMETRY => SourceType::Geometry,
        ty::VECTOR => SourceType::Vector,
        ty::ENUM => SourceType::Enum { members: members(column)? },
        ty::SET => SourceType::Set { members: members(column)? },
        ty::MARIADB_BLOB_COMPRESSED | ty::MARIADB_VARCHAR_COMPRESSED => {
            return Err(Error::new(Area::Source, Kind::Data, "a compressed column can't be read")
                .with("column", &column.name)
                .remedy("alter the column to one without COMPRESSED, or leave the table out"));
        }
        other => return Err(malformed("a column has a type that binlake doesn't know").with("type", other)),
    })
}

impl ColumnDecoder {
    /// A decoder for `column`; `is_bool`: the lake has this TINYINT(1) as a boolean.
    pub(crate) fn new(column: &MappedColumn, is_bool: bool) -> Result<Self> {
        let layout = match mapped_source_type(column)? {
            SourceType::TinyInt { .. } if is_bool => Layout::Bool,
            SourceType::Bool => Layout::Bool,
            SourceType::TinyInt { unsigned } => Layout::Int { bytes: 1, is_unsigned: unsigned },
            SourceType::SmallInt { unsigned } => Layout::Int { bytes: 2, is_unsigned: unsigned },
            SourceType::MediumInt { unsigned } => Layout::Int { bytes: 3, is_unsigned: unsigned },
            SourceType::Int { unsigned } => Layout::Int { bytes: 4, is_unsigned: unsigned },
            SourceType::BigInt { unsigned } => Layout::Int { bytes: 8, is_unsigned: unsigned },
            SourceType::Float => Layout::Float,
            SourceType::Double => Layout::Double,
            SourceType::Decimal { precision, scale } => Layout::Decimal { precision, scale },
            SourceType::Bit { bits } => Layout::Bit { bytes: bits.div_ceil(8), is_bool: bits == 1 },
            SourceType::Year => Layout::Year,
            SourceType::Date => Layout::Date,
            SourceType::Time { .. } if column.kind == ty::TIME => Layout::OldTime,
            SourceType::Time { fsp } => Layout::Time { fsp },
            SourceType::DateTime { .. } if column.kind == ty::DATETIME => Layout::OldDateTime,
            SourceType::DateTime { fsp } => Layout::DateTime { fsp },
            SourceType::Timestamp { .. } if column.kind == ty::TIMESTAMP => Layout::OldTimestamp,
            SourceType::Timestamp { fsp } => Layout::Timestamp { fsp },
            SourceType::Json => Layout::Json { length_bytes: column.meta.0 },
            SourceType::Geometry => Layout::Geometry { length_bytes: column.meta.0 },
            SourceType::Vector => Layout::Vector { length_bytes: column.meta.0 },
            SourceType::Enum { members } => Layout::Enum { bytes: column.meta.1, members },
            SourceType::Set { members } => Layout::Set { bytes: column.meta.1, members },
            SourceType::Text { .. } => Layout::Text {
                length_bytes: Self::length_bytes(column),
                charset: charset(column)?,
                is_padded: column.kind == ty::STRING,
            },
            SourceType::Binary { fixed_bytes } => {
                Layout::Bytes { length_bytes: Self::length_bytes(column), fixed_bytes: u16::try_from(fixed_bytes).unwrap_or(0) }
            }
            SourceType::List { .. } | SourceType::Objects { .. } => return Err(Error::bug("the server has no lists")),
        };
        Ok(Self { layout })
    }

    fn length_bytes(column: &MappedColumn) -> u8 {
        match column.kind {
            ty::STRING => length_bytes(column.string_bytes),
            ty::VARCHAR | ty::VAR_STRING => length_bytes(u16::from_le_bytes([column.meta.0, column.meta.1])),
            _ => column.meta.0,
        }
    }

    /// Whether an after image may hold this column as a difference to the before image.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.layout, Layout::Json { .. })
    }

    /// Takes the column's bytes without decoding them.
    #[inline]
    pub(crate) fn take<'a>(&self, reader: &mut Reader<'a>) -> Result<&'a [u8]> {
        let start = *reader;
        let fixed = match &self.layout {
            Layout::Int { bytes, .. } | Layout::Enum { bytes, .. } | Layout::Set { bytes, .. } | Layout::Bit { bytes, .. } => {
                usize::from(*bytes)
            }
            Layout::Bool | Layout::Year => 1,
            Layout::Float | Layout::OldTimestamp => 4,
            Layout::Double | Layout::OldDateTime => 8,
            Layout::Decimal { precision, scale } => decimal::byte_len(*precision, *scale),
            Layout::Date | Layout::OldTime => 3,
            Layout::Time { fsp } => 3 + usize::from(fsp.div_ceil(2)),
            Layout::DateTime { fsp } => 5 + usize::from(fsp.div_ceil(2)),
            Layout::Timestamp { fsp } => 4 + usize::from(fsp.div_ceil(2)),
            Layout::Text { length_bytes, .. }
            | Layout::Bytes { length_bytes, .. }
            | Layout::Json { length_bytes }
            | Layout::Geometry { length_bytes }
            | Layout::Vector { length_bytes } => {
                let length = reader.uint(usize::from(*length_bytes))? as usize;
                usize::from(*length_bytes) + length
            }
        };
        *reader = start;
        reader.take(fixed)
    }

    /// Decodes what [`Self::take`] took.
    #[inline]
    pub(crate) fn decode<'a>(&'a self, bytes: &'a [u8], rules: &mut ValueRules) -> Result<Value<'a>> {
        let mut reader = Reader::new(bytes);
        Ok(match &self.layout {
            Layout::Int { bytes, is_unsigned } => int(reader.uint(usize::from(*bytes))?, *bytes, *is_unsigned),
            Layout::Text { length_bytes, charset, is_padded } => {
                reader.take(usize::from(*length_bytes))?;
                let text = rules.text(*charset, reader.rest())?;
                Value::Text(if *is_padded { unpadded(text) } else { text })
            }
            Layout::DateTime { fsp } => wall_clock(temporal::datetime2(&mut reader, *fsp)?, rules)?,
            Layout::Timestamp { fsp } => instant(temporal::timestamp2(&mut reader, *fsp)?, rules)?,
            Layout::Date => {
                let (year, month, day) = temporal::date(&mut reader)?;
                rules.date(year, month, day)?
            }
            Layout::Bool => Value::Bool(reader.u8()? != 0),
            Layout::Float => Value::Float(f32::from_le_bytes(reader.array()?)),
            Layout::Double => Value::Double(f64::from_le_bytes(reader.array()?)),
            Layout::Decimal { precision, scale } if *precision <= 38 => {
                Value::Decimal(decimal::to_i128(&mut reader, *precision, *scale)?)
            }
            Layout::Decimal { precision, scale } => Value::Text(decimal::to_text(&mut reader, *precision, *scale)?.into()),
            Layout::Bit { is_bool: true, .. } => Value::Bool(reader.u8()? & 1 == 1),
            Layout::Bit { .. } => Value::Bytes(Cow::Borrowed(bytes)),
            Layout::Year => match reader.u8()? {
                0 => Value::Int(0),
                year => Value::Int(1900 + i64::from(year)),
            },
            Layout::Time { fsp } => Value::Time { micros: temporal::time2(&mut reader, *fsp)?, fsp: *fsp },
            Layout::OldTime => Value::Time { micros: temporal::old_time(&mut reader)?, fsp: 0 },
            Layout::OldDateTime => wall_clock(temporal::old_datetime(&mut reader)?, rules)?,
            Layout::OldTimestamp => instant(temporal::old_timestamp(&mut reader)?, rules)?,
            Layout::Bytes { length_bytes, fixed_bytes } => {
                reader.take(usize::from(*length_bytes))?;
                Value::Bytes(padded(reader.rest(), usize::from(*fixed_bytes)))
            }
            Layout::Json { length_bytes } => {
                reader.take(usize::from(*length_bytes))?;
                Value::Text(Cow::Owned(json::to_text(reader.rest())?))
            }
            Layout::Geometry { length_bytes } => {
                reader.take(usize::from(*length_bytes))?;
                reader.take(4)?; // the spatial reference
                Value::Bytes(Cow::Borrowed(reader.rest()))
            }
            Layout::Vector { length_bytes } => {
                reader.take(usize::from(*length_bytes))?;
                Value::Vector(Cow::Borrowed(reader.rest()))
            }
            Layout::Enum { bytes, members } => Value::Text(enum_text(members, reader.uint(usize::from(*bytes))?)?.into()),
            Layout::Set { bytes, members } => Value::Text(set_text(members, reader.uint(usize::from(*bytes))?)?.into()),
        })
    }
}

#[inline]
fn wall_clock((year, month, day, micros_of_day): temporal::WallClock, rules: &mut ValueRules) -> Result<Value<'static>> {
    rules.date_time(year, month, day, micros_of_day)
}

#[inline]
fn instant(micros: Option<i64>, rules: &mut ValueRules) -> Result<Value<'static>> {
    match micros {
        Some(micros) => Ok(Value::Micros(micros)),
        None => rules.zero_date(),
    }
}

#[inline]
fn int(raw: u64, bytes: u8, is_unsigned: bool) -> Value<'static> {
    if is_unsigned {
        return match i64::try_from(raw) {
            Ok(number) if bytes < 8 => Value::Int(number),
            _ => Value::Decimal(i128::from(raw)),
        };
    }
    let unused = 64 - u32::from(bytes) * 8;
    Value::Int(raw.cast_signed() << unused >> unused)
}

/// CHAR without the spaces that fill it, as SELECT gives it.
fn unpadded(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(' ')),
        Cow::Owned(mut text) => {
            text.truncate(text.trim_end_matches(' ').len());
            Cow::Owned(text)
        }
    }
}

/// BINARY(n) with the zeros that the binlog leaves out, as SELECT gives it.
fn padded(bytes: &[u8], fixed: usize) -> Cow<'_, [u8]> {
    if bytes.len() >= fixed {
        return Cow::Borrowed(bytes);
    }
    let mut whole = bytes.to_vec();
    whole.resize(fixed, 0);
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_extended_whatever_the_width() {
        assert_eq!(int(0x80_0000, 3, false), Value::Int(-8_388_608));
        assert_eq!(int(0xff_ffff, 3, true), Value::Int(16_777_215));
        assert_eq!(int(0xff, 1, false), Value::Int(-1));
        assert_eq!(int(u64::MAX, 8, true), Value::Decimal(18_446_744_073_709_551_615));
        assert_eq!(int(5, 8, true), Value::Decimal(5));
        assert_eq!(int(u64::MAX, 8, false), Value::Int(-1));
    }

    #[test]
    fn padding_is_as_in_a_select() {
        assert_eq!(unpadded("ab  ".into()), "ab");
        assert_eq!(*padded(&[1, 0, 2], 5), [1, 0, 2, 0, 0]);
        assert_eq!(*padded(&[1, 2], 0), [1, 2]);
    }
}
