//! The types that a mapping gives columns, in DMS's words, and values of them.
//!
//! A value that doesn't fit its type is an error: nothing is rounded or cut off.

use crate::deliver::item::{Attribute, AttributeKind};
use crate::deliver::template::{scalar, text_of};
use serde_json::Value;

/// A type of DMS's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetType {
    /// `string`, `wstring`, `clob`, `nclob`: at most so many characters.
    Text(Option<u64>),
    /// `int1` to `int8`, `uint1` to `uint8`: from, to.
    Integer(i128, i128),
    /// `numeric`: digits in all, and behind the point.
    Numeric(Option<u64>, Option<u64>),
    /// `real4`, `real8`.
    Real,
    Boolean,
    /// `bytes`, `blob`.
    Bytes,
    Date,
    Time,
    DateTime,
}

impl Default for TargetType {
    fn default() -> Self {
        Self::Text(None)
    }
}

impl TargetType {
    /// `{"type": "string", "length": 50}`.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let name = value.get("type").or_else(|| value.as_str().map(|_| value)).map(text_of);
        let name = name.ok_or("its data-type lacks the type; write {\"type\": \"string\"}")?;
        let number = |key: &str| value.get(key).and_then(|number| text_of(number).parse::<u64>().ok()).filter(|number| *number > 0);
        let signed = |bits: u32| Self::Integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1);
        let unsigned = |bits: u32| Self::Integer(0, (1 << bits) - 1);
        Ok(match name.as_str() {
            "string" | "wstring" | "clob" | "nclob" => Self::Text(number("length")),
            "int1" => signed(8),
            "int2" => signed(16),
            "int4" => signed(32),
            "int8" => signed(64),
            "uint1" => unsigned(8),
            "uint2" => unsigned(16),
            "uint4" => unsigned(32),
            "uint8" => unsigned(64),
            "numeric" => Self::Numeric(number("precision"), number("precision").and(number("scale").or(Some(0)))),
            "real4" | "real8" => Self::Real,
            "boolean" => Self::Boolean,
            "bytes" | "blob" => Self::Bytes,
            "date" => Self::Date,
            "time" => Self::Time,
            "datetime" => Self::DateTime,
            other => {
                return Err(format!(
                    "there is no type `{other}`; write string, int1 to int8, uint1 to uint8, numeric, real4, real8, boolean, bytes, date, time or datetime"
                ));
            }
        })
    }

    /// What attributes of it are.
    pub(super) fn kind(&self) -> AttributeKind {
        match self {
            Self::Text(_) | Self::Date | Self::Time | Self::DateTime => AttributeKind::Text,
            Self::Integer(..) | Self::Numeric(..) | Self::Real => AttributeKind::Number,
            Self::Boolean => AttributeKind::Boolean,
            Self::Bytes => AttributeKind::Bytes,
        }
    }

    /// A value of it. `Err` says why there is none.
    pub(super) fn of(&self, text: &str) -> Result<Attribute, &'static str> {
        let text = match self {
            Self::Text(Some(most)) if text.chars().count() as u64 > *most => return Err("it is longer than its type"),
            Self::Integer(from, to) => {
                let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
                let number = whole.parse::<i128>().ok().filter(|_| fraction.bytes().all(|digit| digit == b'0'));
                let number = number.ok_or("it is no whole number")?;
                if number < *from || number > *to {
                    return Err("it is out of its type's range");
                }
                number.to_string()
            }
            Self::Numeric(Some(precision), scale) => {
                let digits = text.trim().trim_start_matches('-');
                let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
                let scale = scale.unwrap_or(0);
                let (whole, fraction) = (whole.trim_start_matches('0').len() as u64, fraction.trim_end_matches('0').len() as u64);
                if fraction > scale || whole > precision.saturating_sub(scale) {
                    return Err("it has more digits than its type");
                }
                text.to_owned()
            }
            Self::Date | Self::Time | Self::DateTime => self.moment(text.trim()).ok_or("it is no date or time")?,
            _ => text.to_owned(),
        };
        scalar(self.kind(), text)
    }

    /// Dates and times as items have them.
    fn moment(&self, text: &str) -> Option<String> {
        let zone = if text.ends_with('Z') { "Z" } else { "" };
        let text = text.trim_end_matches('Z').replace('T', " ");
        let read_time = |time: &str| chrono::NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok();
        if let (Self::Time, Some(_)) = (self, read_time(&text)) {
            return Some(text);
        }
        let (date, time) = text.split_once(' ').unwrap_or((&text, "00:00:00"));
        let date = chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
        let at = read_time(time)?;
        Some(match self {
            Self::Date => date.to_string(),
            Self::Time => time.to_owned(),
            _ => format!("{}{zone}", date.and_time(at).format("%Y-%m-%dT%H:%M:%S%.6f")),
        })
    }
}
