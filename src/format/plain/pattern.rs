//! How dates and times are written: `%m/%d/%y` (as C's `strftime`), `M/d/yy` (as Java's), or a number since 1970 (`epoch_s`, `epoch_ms`, `epoch_us`).

use crate::format::clock::{days, has_whole_year, parse_date, parse_instant};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// A pattern that values are read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// ISO 8601.
    Iso,
    /// Microseconds in one unit of a number.
    Epoch(i64),
    /// `strftime`'s.
    Text(String),
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Iso => f.write_str("iso"),
            Self::Epoch(unit) => write!(f, "epoch of {unit} us"),
            Self::Text(pattern) => f.write_str(pattern),
        }
    }
}

impl Pattern {
    /// Reads a pattern's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pattern = match text {
            "iso" => return Ok(Self::Iso),
            "epoch_s" => return Ok(Self::Epoch(1_000_000)),
            "epoch_ms" => return Ok(Self::Epoch(1_000)),
            "epoch_us" => return Ok(Self::Epoch(1)),
            _ if text.contains('%') => text.to_owned(),
            _ => from_java(text)?,
        };
        let is_known = chrono::format::StrftimeItems::new(&pattern).all(|item| item != chrono::format::Item::Error);
        if is_known { Ok(Self::Text(pattern)) } else { Err(format!("`{text}` is not a pattern for dates")) }
    }

    /// Days since 1970-01-01 of a text.
    pub(crate) fn date(&self, text: &str) -> Option<i32> {
        match self {
            Self::Iso => parse_date(text).or_else(|| i32::try_from(parse_instant(text)?.div_euclid(86_400_000_000)).ok()),
            Self::Epoch(unit) => i32::try_from(epoch(text, *unit)?.div_euclid(86_400_000_000)).ok(),
            Self::Text(pattern) if lacks_year(pattern, text) => None,
            Self::Text(pattern) => {
                let date = NaiveDate::parse_from_str(text, pattern).ok();
                days(date.or_else(|| Some(NaiveDateTime::parse_from_str(text, pattern).ok()?.date()))?)
            }
        }
    }

    /// Microseconds since 1970-01-01T00:00:00Z of a text; without a zone it is UTC, without a time midnight.
    pub(crate) fn instant(&self, text: &str) -> Option<i64> {
        match self {
            Self::Iso => parse_instant(text),
            Self::Epoch(unit) => epoch(text, *unit),
            Self::Text(pattern) if lacks_year(pattern, text) => None,
            Self::Text(pattern) => {
                if let Ok(time) = DateTime::parse_from_str(text, pattern) {
                    return Some(time.timestamp_micros());
                }
                let time = NaiveDateTime::parse_from_str(text, pattern).ok();
                let time = time.or_else(|| NaiveDate::parse_from_str(text, pattern).ok()?.and_hms_opt(0, 0, 0));
                Some(time?.and_utc().timestamp_micros())
            }
        }
    }

    /// Whether a number can be read with it.
    pub(crate) fn takes_numbers(&self) -> bool {
        matches!(self, Self::Epoch(_))
    }
}

/// Whether a year of four digits is wanted, and the text has fewer.
fn lacks_year(pattern: &str, text: &str) -> bool {
    pattern.contains("%Y") && !has_whole_year(text)
}

fn epoch(text: &str, unit: i64) -> Option<i64> {
    let scale = match unit {
        1_000_000 => 6,
        1_000 => 3,
        _ => 0,
    };
    i64::try_from(crate::format::number::parse_decimal(text, 19, scale)?).ok()
}

/// Java's letters as `strftime`'s.
fn from_java(text: &str) -> Result<String, String> {
    let mut pattern = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let end = quoted.find('\'').ok_or_else(|| format!("`{text}` has an open quote"))?;
            pattern.push_str(&quoted[..end]);
            rest = &quoted[end + 1..];
            continue;
        }
        let length = rest.len() - rest.trim_start_matches(first).len();
        let letters = match (first, length / first.len_utf8()) {
            ('y' | 'u', 2) => "%y",
            ('y' | 'u', _) => "%Y",
            ('M', 1 | 2) => "%m",
            ('M', 3) => "%b",
            ('M', _) => "%B",
            ('d', _) => "%d",
            ('H', _) => "%H",
            ('h', _) => "%I",
            ('m', _) => "%M",
            ('s', _) => "%S",
            ('S', _) if pattern.ends_with('.') => {
                pattern.pop();
                "%.f"
            }
            ('a', _) => "%p",
            ('E', 4) => "%A",
            ('E', _) => "%a",
            ('X', 3) => "%:z",
            ('X' | 'Z' | 'x', _) => "%z",
            (letter, _) if letter.is_ascii_alphabetic() => {
                return Err(format!("`{letter}` in `{text}` is not a letter of date patterns that is known here"));
            }
            _ => {
                pattern.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
        };
        pattern.push_str(letters);
        rest = &rest[length..];
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_all_spellings() {
        let date = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().date(text);
        let expected = parse_date("2011-02-15");
        for (pattern, text) in [
            ("iso", "2011-02-15"),
            ("M/d/yy", "2/15/11"),
            ("%m/%d/%y", "2/15/11"),
            ("dd.MM.yyyy", "15.02.2011"),
            ("epoch_s", "1297771200"),
            ("yyyy-MM-dd'T'HH:mm:ss", "2011-02-15T10:00:00"),
        ] {
            assert_eq!(date(pattern, text), expected, "{pattern}");
        }
        assert_eq!(date("M/d/yy", "13/15/11"), None);
        assert_eq!(date("iso", "2011-13-15"), None);
        assert_eq!((date("M/d/yyyy", "2/15/11"), date("M/d/yyyy", "2/15/2011")), (None, expected), "11 isn't the year 11");
        assert_eq!((date("iso", "11-02-15"), date("iso", "0011-02-15").is_some()), (None, true));
        assert_eq!((date("M/d/yy", "2/15/2011"), date("M/d/yy", "2/30/11")), (None, None));
        let instant = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().instant(text);
        assert_eq!(instant("yyyy-MM-dd HH:mm:ss.SSS", "2011-02-15 10:00:00.123"), parse_instant("2011-02-15T10:00:00.123Z"));
        assert_eq!(instant("epoch_ms", "1297764000123"), parse_instant("2011-02-15T10:00:00.123Z"));
        assert_eq!(instant("yyyy-MM-dd HH:mm:ssXXX", "2011-02-15 10:00:00+02:00"), parse_instant("2011-02-15T08:00:00Z"));
        for wrong in ["%Q", "yyyy-QQ", "'open"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
