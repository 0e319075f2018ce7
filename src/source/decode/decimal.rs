//! DECIMAL's packed bytes: groups of nine digits in four bytes, the first and the last group shorter, the sign as the inverted highest bit.
//!
//! Source: MySQL `strings/decimal.cc` (`bin2decimal`).

use crate::error::Result;
use crate::source::bytes::{Reader, malformed};

/// Bytes of a group of so many digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const GROUP: u8 = 9;

/// Bytes of a DECIMAL(precision, scale).
pub(super) fn byte_len(precision: u8, scale: u8) -> usize {
    let of = |digits: u8| usize::from(digits / GROUP) * 4 + GROUP_BYTES.get(usize::from(digits % GROUP)).copied().unwrap_or(0);
    of(precision.saturating_sub(scale)) + of(scale)
}

/// Calls `each` with every group (its value and number of digits), the highest first; gives the sign.
fn groups(reader: &mut Reader<'_>, precision: u8, scale: u8, mut each: impl FnMut(u32, u8)) -> Result<bool> {
    let bytes = reader.take(byte_len(precision, scale))?;
    let first = *bytes.first().ok_or_else(|| malformed("a DECIMAL has no digits"))?;
    let is_negative = first & 0x80 == 0;
    let flip = if is_negative { 0xff } else { 0 };
    let mut place = 0;
    let mut group = |digits: u8| {
        let length = GROUP_BYTES.get(usize::from(digits)).copied().unwrap_or(0);
        let mut value = 0_u32;
        for byte in bytes.get(place..place + length).unwrap_or_default() {
            let byte = if place == 0 { byte ^ 0x80 } else { *byte };
            value = value << 8 | u32::from(byte ^ flip);
            place += 1;
        }
        each(value, digits);
    };
    let whole = precision.saturating_sub(scale);
    if !whole.is_multiple_of(GROUP) {
        group(whole % GROUP);
    }
    (0..whole / GROUP).for_each(|_| group(GROUP));
    (0..scale / GROUP).for_each(|_| group(GROUP));
    if !scale.is_multiple_of(GROUP) {
        group(scale % GROUP);
    }
    Ok(is_negative)
}

/// The number times 10^scale; for precisions up to 38.
pub(super) fn to_i128(reader: &mut Reader<'_>, precision: u8, scale: u8) -> Result<i128> {
    let mut number = 0_i128;
    let is_negative = groups(reader, precision, scale, |value, digits| {
        number = number.wrapping_mul(10_i128.pow(u32::from(digits))).wrapping_add(i128::from(value));
    })?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

/// As the server prints it: no leading zeros, all digits of the scale.
pub(super) fn to_text(reader: &mut Reader<'_>, precision: u8, scale: u8) -> Result<String> {
    let mut digits = String::with_capacity(usize::from(precision) + 3);
    let is_negative = groups(reader, precision, scale, |value, count| {
        digits.push_str(&format!("{value:0width$}", width = usize::from(count)));
    })?;
    let point = digits.len().saturating_sub(usize::from(scale));
    let (whole, fraction) = digits.split_at_checked(point).unwrap_or(("", ""));
    let whole = whole.trim_start_matches('0');
    let is_zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    let sign = if is_negative && !is_zero { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: [u8; 8] = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2, 0];

    #[test]
    fn the_example_of_the_manual() {
        // 1234567890.1234 as DECIMAL(14,4)
        assert_eq!(byte_len(14, 4), 7);
        assert_eq!(to_text(&mut Reader::new(&SAMPLE), 14, 4).unwrap(), "1234567890.1234");
        assert_eq!(to_i128(&mut Reader::new(&SAMPLE), 14, 4).unwrap(), 12_345_678_901_234);
        let negative = SAMPLE.map(|byte| !byte);
        assert_eq!(to_text(&mut Reader::new(&negative), 14, 4).unwrap(), "-1234567890.1234");
        assert_eq!(to_i128(&mut Reader::new(&negative), 14, 4).unwrap(), -12_345_678_901_234);
        assert!(to_i128(&mut Reader::new(&SAMPLE[..6]), 14, 4).is_err());
    }

    #[test]
    fn zero_and_small_fractions() {
        assert_eq!(to_text(&mut Reader::new(&[0x80, 0, 0]), 4, 2).unwrap(), "0.00");
        assert_eq!(to_text(&mut Reader::new(&[0x80, 5]), 3, 2).unwrap(), "0.05");
        assert_eq!(to_text(&mut Reader::new(&[0x7f, !5]), 3, 2).unwrap(), "-0.05");
    }
}
