//! One column's value on its way from MySQL's bytes to an Arrow builder.
//!
//! The binlog decoder and the snapshot both speak it, so that a row has the same bytes in the lake whichever way it came.

use std::borrow::Cow;
use std::fmt::Write;

/// A decoded value, in the lake's terms: one variant for each Arrow type that [`crate::event::SourceType::lake_type`] gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// BIT(1) and TINYINT(1) declared to be a boolean.
    Bool(bool),
    /// All integers but BIGINT UNSIGNED, and YEAR.
    Int(i64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL(p ≤ 38, s), times 10^s; BIGINT UNSIGNED.
    Decimal(i128),
    /// Text, ENUM, SET, JSON, and DECIMAL(p > 38, s).
    Text(Cow<'a, str>),
    /// BINARY, BLOB, BIT(n > 1) (big endian), GEOMETRY (WKB).
    Bytes(Cow<'a, [u8]>),
    /// DATE: days since 1970-01-01.
    Date(i32),
    /// DATETIME (the wall clock as if it were UTC) and TIMESTAMP: microseconds since 1970-01-01T00:00:00.
    Micros(i64),
    /// TIME(fsp): microseconds, printed as the server prints it.
    Time {
        /// The signed duration.
        micros: i64,
        /// Digits of the fraction, 0 to 6.
        fsp: u8,
    },
    /// VECTOR: little-endian 32-bit floats.
    Vector(Cow<'a, [u8]>),
}

impl Value<'_> {
    /// Bytes that it takes in a column, about.
    pub fn byte_len(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) => 1,
            Value::Int(_) | Value::Double(_) | Value::Micros(_) => 8,
            Value::Float(_) | Value::Date(_) => 4,
            Value::Decimal(_) => 16,
            Value::Text(text) => text.len() + 4,
            Value::Bytes(bytes) | Value::Vector(bytes) => bytes.len() + 4,
            Value::Time { .. } => 16,
        }
    }

    /// Appends the value's canonical bytes to a key from which the lane is computed: the lake's value with a type byte, and a length where it varies.
    ///
    /// Two keys are one key exactly if these bytes are equal. MySQL's collations don't matter: a case-insensitive unique key can't hold `a` and `A` at
    /// once, each row image has the bytes that are stored, and an update from `a` to `A` changes the bytes and so is a delete and a create.
    pub fn append_key_bytes(&self, key: &mut Vec<u8>) {
        match self {
            Value::Null => key.push(0),
            Value::Bool(value) => key.extend_from_slice(&[1, u8::from(*value)]),
            Value::Int(value) => tagged(key, 2, &value.to_le_bytes()),
            Value::Float(value) => tagged(key, 3, &value.to_bits().to_le_bytes()),
            Value::Double(value) => tagged(key, 4, &value.to_bits().to_le_bytes()),
            Value::Decimal(value) => tagged(key, 5, &value.to_le_bytes()),
            Value::Text(text) => sized(key, 6, text.as_bytes()),
            Value::Bytes(bytes) => sized(key, 7, bytes),
            Value::Date(days) => tagged(key, 8, &days.to_le_bytes()),
            Value::Micros(micros) => tagged(key, 9, &micros.to_le_bytes()),
            Value::Time { micros, fsp } => {
                let mut text = String::with_capacity(20);
                // writing to a String can't fail
                let _ = write_time(&mut text, *micros, *fsp);
                sized(key, 6, text.as_bytes());
            }
            Value::Vector(bytes) => sized(key, 10, bytes),
        }
    }
}

fn tagged(key: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    key.push(tag);
    key.extend_from_slice(bytes);
}

fn sized(key: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    key.push(tag);
    key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    key.extend_from_slice(bytes);
}

/// Writes a TIME as the server prints it: `-838:59:59`, `12:34:56.780`.
pub fn write_time(out: &mut impl Write, micros: i64, fsp: u8) -> std::fmt::Result {
    let magnitude = micros.unsigned_abs();
    let (seconds, fraction) = (magnitude / 1_000_000, magnitude % 1_000_000);
    if micros < 0 {
        out.write_char('-')?;
    }
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    if fsp > 0 {
        let width = usize::from(fsp.min(6));
        write!(out, ".{:0width$}", fraction / 10_u64.pow(6 - u32::from(fsp.min(6))))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(micros: i64, fsp: u8) -> String {
        let mut text = String::new();
        write_time(&mut text, micros, fsp).unwrap();
        text
    }

    #[test]
    fn time_is_printed_as_the_server_does() {
        assert_eq!(time(-3_020_399_000_000, 0), "-838:59:59");
        assert_eq!(time(45_296_780_000, 3), "12:34:56.780");
        assert_eq!(time(-500_000, 2), "-00:00:00.50");
        assert_eq!(time(1, 6), "00:00:00.000001");
        assert_eq!(time(0, 0), "00:00:00");
    }

    #[test]
    fn key_bytes_of_composite_keys_are_unambiguous() {
        let key = |parts: [&str; 2]| {
            let mut bytes = Vec::new();
            parts.iter().for_each(|part| Value::Text(Cow::Borrowed(*part)).append_key_bytes(&mut bytes));
            bytes
        };
        assert_ne!(key(["a", "bc"]), key(["ab", "c"]));
        assert_ne!(key(["a", ""]), key(["A", ""]));
    }
}
