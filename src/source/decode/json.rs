//! MySQL's binary JSON to the text that the server prints.
//!
//! Source: MySQL `sql-common/json_binary.h`: a type byte, then the value; objects and arrays have a count, a size, and entries with offsets from
//! their own start; small values lie in the entry itself. Every offset is checked, and nesting is bounded as the server bounds it.

use super::json_write::{write_double, write_opaque, write_string};
use crate::error::Result;
use crate::source::bytes::{Reader, malformed};
use std::fmt::Write;

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// The server refuses documents that are nested deeper than 100.
const MAX_DEPTH: usize = 128;

/// The text of a document. An empty value (which a NULL cast by some statements leaves) is the text `null`.
pub(crate) fn to_text(bytes: &[u8]) -> Result<String> {
    let mut out = String::with_capacity(bytes.len() + bytes.len() / 4);
    match bytes.split_first() {
        None => out.push_str("null"),
        Some((kind, value)) => write_value(&mut out, *kind, value, 0)?,
    }
    Ok(out)
}

fn write_value(out: &mut String, kind: u8, bytes: &[u8], depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(malformed("a JSON value is nested too deep"));
    }
    let mut reader = Reader::new(bytes);
    match kind {
        SMALL_OBJECT | LARGE_OBJECT | SMALL_ARRAY | LARGE_ARRAY => {
            let container = Container::parse(kind, bytes)?;
            container.write(out, depth)?;
        }
        LITERAL => out.push_str(literal(reader.u8()?)?),
        INT16 => integer(out, i64::from(reader.u16()?.cast_signed())),
        UINT16 => integer(out, i64::from(reader.u16()?)),
        INT32 => integer(out, i64::from(reader.u32()?.cast_signed())),
        UINT32 => integer(out, i64::from(reader.u32()?)),
        INT64 => integer(out, reader.u64()?.cast_signed()),
        UINT64 => {
            let _ = write!(out, "{}", reader.u64()?);
        }
        DOUBLE => write_double(out, f64::from_bits(reader.u64()?)),
        STRING => {
            let length = variable_length(&mut reader)?;
            let text = std::str::from_utf8(reader.take(length)?).map_err(|_| malformed("a JSON string is not UTF-8"))?;
            write_string(out, text);
        }
        OPAQUE => {
            let field_type = reader.u8()?;
            let length = variable_length(&mut reader)?;
            write_opaque(out, field_type, reader.take(length)?)?;
        }
        _ => return Err(malformed("a JSON value has an unknown type")),
    }
    Ok(())
}

fn integer(out: &mut String, number: i64) {
    // writing to a String can't fail
    let _ = write!(out, "{number}");
}

fn literal(byte: u8) -> Result<&'static str> {
    match byte {
        0 => Ok("null"),
        1 => Ok("true"),
        2 => Ok("false"),
        _ => Err(malformed("a JSON literal is unknown")),
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn variable_length(reader: &mut Reader<'_>) -> Result<usize> {
    let mut length = 0_u64;
    for shift in 0..5 {
        let byte = reader.u8()?;
        length |= u64::from(byte & 0x7f) << (shift * 7);
        if byte & 0x80 == 0 {
            return usize::try_from(length).map_err(|_| malformed("a JSON value is too long"));
        }
    }
    Err(malformed("a length in a JSON value is malformed"))
}

/// An object or an array: offsets count from `bytes`' start.
struct Container<'a> {
    bytes: &'a [u8],
    count: usize,
    is_object: bool,
    offset_bytes: usize,
}

impl<'a> Container<'a> {
    fn parse(kind: u8, bytes: &'a [u8]) -> Result<Self> {
        let offset_bytes = if matches!(kind, LARGE_OBJECT | LARGE_ARRAY) { 4 } else { 2 };
        let mut reader = Reader::new(bytes);
        let count = reader.uint(offset_bytes)? as usize;
        let size = reader.uint(offset_bytes)? as usize;
        let bytes = bytes.get(..size).ok_or_else(|| malformed("a JSON value ends too early"))?;
        let container = Self { bytes, count, is_object: matches!(kind, SMALL_OBJECT | LARGE_OBJECT), offset_bytes };
        let keys = if container.is_object { container.offset_bytes + 2 } else { 0 };
        let entries = count.checked_mul(keys + offset_bytes + 1).and_then(|entries| entries.checked_add(2 * offset_bytes));
        match entries {
            Some(needed) if needed <= size => Ok(container),
            _ => Err(malformed("a JSON value has more entries than room")),
        }
    }

    fn at(&self, offset: usize) -> Result<Reader<'a>> {
        self.bytes.get(offset..).map(Reader::new).ok_or_else(|| malformed("a JSON value has an offset beyond its end"))
    }

    fn key(&self, i: usize) -> Result<&'a str> {
        let mut entry = self.at(2 * self.offset_bytes + i * (self.offset_bytes + 2))?;
        let offset = entry.uint(self.offset_bytes)? as usize;
        let length = usize::from(entry.u16()?);
        std::str::from_utf8(self.at(offset)?.take(length)?).map_err(|_| malformed("a JSON key is not UTF-8"))
    }

    /// The type and the bytes of a value.
    fn value(&self, i: usize) -> Result<(u8, &'a [u8])> {
        let keys = if self.is_object { self.count * (self.offset_bytes + 2) } else { 0 };
        let mut entry = self.at(2 * self.offset_bytes + keys + i * (self.offset_bytes + 1))?;
        let kind = entry.u8()?;
        let is_inlined = matches!(kind, LITERAL | INT16 | UINT16) || self.offset_bytes == 4 && matches!(kind, INT32 | UINT32);
        if is_inlined {
            return Ok((kind, entry.take(self.offset_bytes)?));
        }
        let offset = entry.uint(self.offset_bytes)? as usize;
        Ok((kind, self.at(offset)?.rest()))
    }

    fn write(&self, out: &mut String, depth: usize) -> Result<()> {
        out.push(if self.is_object { '{' } else { '[' });
        for i in 0..self.count {
            if i > 0 {
                out.push_str(", ");
            }
            if self.is_object {
                write_string(out, self.key(i)?);
                out.push_str(": ");
            }
            let (kind, bytes) = self.value(i)?;
            write_value(out, kind, bytes, depth + 1)?;
        }
        out.push(if self.is_object { '}' } else { ']' });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"a": 1, "bb": [true, "x"]}` as the server stores it.
    const OBJECT: &[u8] = &[
        0, 2, 0, 35, 0, // small object, 2 members, 35 bytes
        18, 0, 1, 0, 19, 0, 2, 0, // keys
        5, 1, 0, 2, 21, 0, // int16 1 in the entry; small array at 21
        b'a', b'b', b'b', //
        2, 0, 14, 0, 4, 1, 0, 12, 10, 0, 1, b'x', 0, 0, // array: literal true, string at 10
    ];

    #[test]
    fn an_object_as_the_server_prints_it() {
        assert_eq!(to_text(OBJECT).unwrap(), r#"{"a": 1, "bb": [true, "x"]}"#);
        assert_eq!(to_text(&[]).unwrap(), "null");
        assert_eq!(to_text(&[4, 0]).unwrap(), "null");
        assert_eq!(to_text(&[10, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap(), "18446744073709551615");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for length in 1..OBJECT.len() - 2 {
            let _ = to_text(&OBJECT[..length]);
        }
        for place in 0..OBJECT.len() {
            for value in [0, 1, 2, 12, 15, 0x7f, 0x80, 0xff] {
                let mut bytes = OBJECT.to_vec();
                bytes[place] = value;
                let _ = to_text(&bytes);
            }
        }
        // an array that contains itself
        assert!(to_text(&[2, 1, 0, 7, 0, 2, 0, 0]).is_err());
    }
}
