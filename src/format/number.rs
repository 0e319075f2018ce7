//! Decimal numbers, exactly: text, unscaled integers, and the two's complement bytes of Kafka Connect's `Decimal`.

/// The unscaled value of a decimal text with `scale` digits behind the point, of at most `precision` digits. Exponents are understood; `None` if
/// it is no number, or doesn't fit exactly.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (is_negative, digits) = digits_at(text, i64::from(scale))?;
    let mut value: i128 = 0;
    for digit in digits.bytes() {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let most = 10_i128.checked_pow(u32::from(precision))?;
    (value < most).then_some(if is_negative { -value } else { value })
}

/// The decimal text of an unscaled value: `-0.05`.
pub(super) fn decimal_text(value: i128, scale: i8) -> String {
    with_point(value < 0, &value.unsigned_abs().to_string(), usize::try_from(scale).unwrap_or(0))
}

/// The same number with `scale` digits behind the point: numbers of any length as text. `None` if it is none, or would be rounded.
pub(super) fn decimal_at(text: &str, scale: u8) -> Option<String> {
    let (is_negative, digits) = digits_at(text, i64::from(scale))?;
    Some(with_point(is_negative && digits.bytes().any(|digit| digit != b'0'), &digits, usize::from(scale)))
}

fn with_point(is_negative: bool, digits: &str, scale: usize) -> String {
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if is_negative { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Sign and digits of a number's text as an integer of units of 10^-scale, without leading zeros (zero: `0`).
fn digits_at(text: &str, scale: i64) -> Option<(bool, String)> {
    let text = text.trim();
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Some((is_negative, "0".into()));
    }
    let shift = scale.checked_add(exponent)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    if shift >= 0 {
        // no decimal of the lake has more digits
        let zeros = usize::try_from(shift).ok().filter(|zeros| *zeros <= 400)?;
        digits.extend(std::iter::repeat_n('0', zeros));
    } else {
        let dropped = usize::try_from(-shift).ok()?;
        let kept = digits.len().checked_sub(dropped)?;
        if digits[kept..].bytes().any(|digit| digit != b'0') {
            return None;
        }
        digits.truncate(kept);
        if digits.is_empty() {
            digits.push('0');
        }
    }
    Some((is_negative, digits))
}

/// The shortest two's complement bytes, highest first, of an integer's digits (as Java's `BigInteger.toByteArray`).
pub(super) fn twos_complement(is_negative: bool, digits: &str) -> Vec<u8> {
    let mut magnitude: Vec<u8> = Vec::new(); // lowest first
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut magnitude {
            let value = u16::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry > 0 {
            magnitude.push(carry as u8);
        }
    }
    let is_negative = is_negative && !magnitude.is_empty();
    if is_negative {
        negate(&mut magnitude);
    }
    let sign = if is_negative { 0xff } else { 0 };
    // the top bit says the sign
    if magnitude.last().is_none_or(|top| (top & 0x80 != 0) != is_negative) {
        magnitude.push(sign);
    }
    while let [.., below, top] = magnitude.as_slice()
        && *top == sign
        && (below & 0x80 != 0) == is_negative
    {
        magnitude.pop();
    }
    magnitude.reverse();
    magnitude
}

fn negate(lowest_first: &mut [u8]) {
    let mut carry = true;
    for byte in lowest_first {
        let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = value;
        carry = overflow;
    }
}

/// The decimal text of two's complement bytes, highest first, with `scale` digits behind the point; `None` for no bytes, or too many.
pub(super) fn from_twos_complement(bytes: &[u8], scale: u8) -> Option<String> {
    if bytes.is_empty() || bytes.len() > 64 {
        return None;
    }
    let is_negative = bytes[0] & 0x80 != 0;
    let mut magnitude: Vec<u8> = bytes.iter().rev().copied().collect();
    if is_negative {
        negate(&mut magnitude);
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u16;
        for byte in magnitude.iter_mut().rev() {
            let value = rest << 8 | u16::from(*byte);
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        digits.push(b'0' + rest as u8);
    }
    digits.reverse();
    let digits = String::from_utf8(digits).ok()?;
    Some(with_point(is_negative, &digits, usize::from(scale)))
}

/// Sign and digits of a decimal text without its point.
pub(super) fn unscaled(text: &str) -> (bool, String) {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    (text.trim_start().starts_with('-'), digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_becomes_units_exactly_or_not_at_all() {
        assert_eq!(parse_decimal("-0.05", 10, 2), Some(-5));
        assert_eq!(parse_decimal("1.5e3", 10, 2), Some(150_000));
        assert_eq!(parse_decimal("15E-1", 10, 2), Some(150));
        assert_eq!(parse_decimal("1.2300", 10, 2), Some(123));
        for wrong in ["", ".", "-", "1.234", "1e", "x", "1.2.3", "99999999999", "1e400", "１"] {
            assert_eq!(parse_decimal(wrong, 10, 2), None, "{wrong}");
        }
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(0, 0), "0");
        assert_eq!(decimal_at("1e2", 3).as_deref(), Some("100.000"));
    }

    #[test]
    fn bytes_are_javas() {
        for (text, bytes) in [
            ("0", vec![0]),
            ("127", vec![127]),
            ("128", vec![0, 128]),
            ("-128", vec![128]),
            ("-129", vec![255, 127]),
            ("-1", vec![255]),
        ] {
            let (is_negative, digits) = unscaled(text);
            assert_eq!(twos_complement(is_negative, &digits), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_and_text_come_back(value in any::<i128>(), scale in 0_i8..31) {
            let text = decimal_text(value, scale);
            let (is_negative, digits) = unscaled(&text);
            let bytes = twos_complement(is_negative, &digits);
            let javas = value.to_be_bytes();
            let skip = 16 - bytes.len().min(16);
            prop_assert_eq!(&bytes[bytes.len() - (16 - skip)..], &javas[skip..]);
            prop_assert_eq!(from_twos_complement(&bytes, scale as u8).unwrap(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,12}") {
            let _ = parse_decimal(&text, 38, 10);
            let _ = decimal_at(&text, 30);
        }
    }
}
