//! What DynamoDB takes as numbers and keys.

use std::fmt;

/// Most bytes of a key's first attribute, and of its second one, as far as they are no numbers.
pub const MOST_KEY_BYTES: [usize; 2] = [2048, 1024];
/// Digits of a number that matter.
const MOST_DIGITS: usize = 38;
/// A number's first digit stands at most so far before its point; and so far behind it.
const MAGNITUDE: std::ops::RangeInclusive<i64> = -129..=126;

/// A number, however it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamoNumber {
    is_negative: bool,
    /// Without zeros around them; none: it is zero.
    digits: String,
    exponent: i64,
}

impl DynamoNumber {
    /// `None`: it is no number.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_end_matches('0');
        let zeros = i64::try_from(all.len() - digits.len()).ok()?;
        let exponent = exponent.checked_add(zeros)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { is_negative, digits: digits.trim_start_matches('0').to_owned(), exponent })
    }

    /// Whether it has more digits than are kept.
    pub fn is_too_long(&self) -> bool {
        self.digits.len() > MOST_DIGITS
    }

    /// Whether it is beyond 10^125, or nearer to zero than 10^-130.
    pub fn is_out_of_range(&self) -> bool {
        let magnitude = i64::try_from(self.digits.len()).ok().and_then(|digits| self.exponent.checked_add(digits));
        !self.digits.is_empty() && magnitude.is_none_or(|magnitude| !MAGNITUDE.contains(&magnitude))
    }
}

/// The one spelling of all that are the same number: digits without zeros around them, and a power of ten, as `15e-1`.
impl fmt::Display for DynamoNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        match (self.digits.as_str(), self.exponent) {
            ("", _) => f.write_str("0"),
            (digits, 0) => write!(f, "{sign}{digits}"),
            (digits, exponent) => write!(f, "{sign}{digits}e{exponent}"),
        }
    }
}
