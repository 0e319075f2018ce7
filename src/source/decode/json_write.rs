//! JSON's scalars as the server prints them.
//!
//! Source: MySQL `sql-common/json_dom.cc` (`wrapper_to_string`, `double_quote`) and `strings/dtoa.cc` (`my_gcvt`).

use super::decimal;
use crate::error::Result;
use crate::source::bytes::{Reader, malformed};
use crate::source::value::write_time;
use std::fmt::Write;

/// A string in quotes, with the server's escapes.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            8 => "\\b",
            12 => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(text.get(plain..i).unwrap_or_default());
        plain = i + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// The shortest digits that mean the number, in plain form between 1e-15 and 1e15, else with an exponent; always seen to be a double.
pub(super) fn write_double(out: &mut String, number: f64) {
    const MAX_PLAIN: i32 = 15;
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // where the point stands, counted from the digits' start
    let point = exponent + 1;
    if number.is_sign_negative() {
        out.push('-');
    }
    if number == 0.0 {
        out.push_str("0.0");
    } else if !(1 - MAX_PLAIN..=MAX_PLAIN).contains(&point) {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
        let dot = if rest.is_empty() { "" } else { "." };
        let _ = write!(out, "{first}{dot}{rest}e{exponent}");
    } else if point <= 0 {
        let _ = write!(out, "0.{:0>width$}", digits, width = digits.len() + point.unsigned_abs() as usize);
    } else {
        let whole = point.unsigned_abs() as usize;
        let padded = format!("{digits:0<whole$}");
        let (before, after) = padded.split_at_checked(whole).unwrap_or((&padded, ""));
        let _ = write!(out, "{before}.{}", if after.is_empty() { "0" } else { after });
    }
}

/// A value of a MySQL type that JSON doesn't have.
pub(super) fn write_opaque(out: &mut String, field_type: u8, bytes: &[u8]) -> Result<()> {
    const TIMESTAMP: u8 = 7;
    const DATE: u8 = 10;
    const TIME: u8 = 11;
    const DATETIME: u8 = 12;
    const NEWDECIMAL: u8 = 246;
    let mut reader = Reader::new(bytes);
    match field_type {
        NEWDECIMAL => {
            let (precision, scale) = (reader.u8()?, reader.u8()?);
            out.push_str(&decimal::to_text(&mut reader, precision, scale)?);
        }
        DATE | DATETIME | TIMESTAMP | TIME => {
            out.push('"');
            write_packed_time(out, reader.u64()?.cast_signed(), field_type == TIME, field_type == DATE)?;
            out.push('"');
        }
        _ => {
            let _ = write!(out, "\"base64:type{field_type}:");
            write_base64(out, bytes);
            out.push('"');
        }
    }
    Ok(())
}

/// The server's packed form of a time: 24 bits of fraction, and above it the clock, and above that the day and month.
fn write_packed_time(out: &mut String, packed: i64, is_time: bool, is_date: bool) -> Result<()> {
    let magnitude = packed.unsigned_abs();
    let (clock, micros) = (magnitude >> 24, magnitude & 0xff_ffff);
    let failed = |_| malformed("a time in a JSON value can't be printed");
    if is_time {
        let (hour, minute, second) = (clock >> 12 & 1023, clock >> 6 & 63, clock & 63);
        let total = i64::try_from((hour * 3600 + minute * 60 + second) * 1_000_000 + micros).unwrap_or(0) * packed.signum();
        return write_time(out, total, 6).map_err(failed);
    }
    let (day, months) = (clock >> 17 & 31, clock >> 22);
    write!(out, "{:04}-{:02}-{day:02}", months / 13, months % 13).map_err(failed)?;
    if !is_date {
        let (hour, minute, second) = (clock >> 12 & 31, clock >> 6 & 63, clock & 63);
        write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}").map_err(failed)?;
    }
    Ok(())
}

fn write_base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const LINE: usize = 76;
    let mut written = 0;
    for chunk in bytes.chunks(3) {
        // the server breaks lines, and the break is escaped in the string
        if written > 0 && written % LINE == 0 {
            out.push_str("\\n");
        }
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let index = (group >> (18 - 6 * i) & 63) as usize;
            let letter = if i > chunk.len() { b'=' } else { ALPHABET.get(index).copied().unwrap_or(b'=') };
            out.push(char::from(letter));
        }
        written += 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: f64) -> String {
        let mut out = String::new();
        write_double(&mut out, number);
        out
    }

    #[test]
    fn doubles_as_the_server_prints_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1e15, "1e15"),
            (1.5e20, "1.5e20"),
            (1e-15, "0.000000000000001"),
            (1.25e-16, "1.25e-16"),
            (f64::MAX, "1.7976931348623157e308"),
        ] {
            assert_eq!(double(number), text);
        }
    }

    #[test]
    fn strings_are_escaped_as_the_server_does() {
        let mut out = String::new();
        write_string(&mut out, "a\"b\\c/\n\t\u{1}ü🎫\u{7f}");
        assert_eq!(out, "\"a\\\"b\\\\c/\\n\\t\\u0001ü🎫\u{7f}\"");
    }

    #[test]
    fn base64_of_all_lengths() {
        let text = |bytes: &[u8]| {
            let mut out = String::new();
            write_base64(&mut out, bytes);
            out
        };
        assert_eq!([text(b""), text(b"f"), text(b"fo"), text(b"foo"), text(b"foob")], ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
