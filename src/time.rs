//! One type of instant: microseconds since 1970-01-01T00:00:00Z.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An instant in UTC, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The machine's clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As `chrono` has it; `None` outside of its range (±262,000 years).
    pub fn to_datetime(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }

    /// Reads ISO 8601: RFC 3339 (`2026-11-21T14:00:00Z`), or less of it: `2026-11-21 14:00:00[.ffffff]`, `2026-11-21T14:00`, `2026-11-21`, `20261121T140000`,
    /// `20261121`; with an offset (`Z`, `+01:00`, `+0100`, `+01`) or, without one, as UTC.
    pub fn parse(text: &str) -> Option<Self> {
        const TIMES: [&str; 6] =
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y%m%dT%H%M%S%.f", "%Y%m%dT%H%M"];
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(time.timestamp_micros()));
        }
        // the year has four digits, and in the forms without hyphens the day ends where it must
        let is_digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
        let bytes = text.as_bytes();
        if !bytes.get(..4).is_some_and(is_digits) {
            return None;
        }
        let is_basic = bytes.get(..8).is_some_and(is_digits);
        let formats = if is_basic { &TIMES[4..] } else { &TIMES[..4] };
        for format in formats {
            if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
                return Some(Self(time.and_utc().timestamp_micros()));
            }
            if let Ok(time) = DateTime::parse_from_str(text, &format!("{format}%#z")) {
                return Some(Self(time.timestamp_micros()));
            }
        }
        if is_basic && bytes.len() != 8 {
            return None;
        }
        let day = chrono::NaiveDate::parse_from_str(text, if is_basic { "%Y%m%d" } else { "%Y-%m-%d" }).ok()?;
        Some(Self(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with microseconds and `Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime() {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
            None => write!(f, "{}us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let time = Timestamp::parse("2026-11-21T14:12:30.721211Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-21T14:12:30.721211Z");
        assert_eq!(Timestamp::parse("2026-11-21 14:12:30.721211"), Some(time));
        assert_eq!(Timestamp::parse("1970-01-02").map(Timestamp::as_micros), Some(86_400_000_000));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn the_forms_of_iso_8601() {
        let read = |text: &str| Timestamp::parse(text).map(|time| time.to_string()).unwrap_or_default();
        for text in [
            "2026-11-21T14:12",
            "2026-11-21 14:12",
            "2026-11-21T14:12Z",
            "2026-11-21 14:12:00Z",
            "2026-11-21T15:12:00+0100",
            "2026-11-21T15:12:00+01",
            "2026-11-21 15:12:00.000+01:00",
            "2026-11-21 15:12+01:00",
            "20261121T141200",
            "20261121T1412",
            "20261121T141200Z",
            "20261121T151200+0100",
        ] {
            assert_eq!(read(text), "2026-11-21T14:12:00.000000Z", "{text}");
        }
        assert_eq!(read("20261121"), "2026-11-21T00:00:00.000000Z");
        assert_eq!(read("2026-11-21T14:12:00.5+0000"), "2026-11-21T14:12:00.500000Z");
        for text in [
            "2026-02-30",
            "2026",
            "2026-11",
            "202611211",
            "20261121141200",
            "2026-11-21T14",
            "2026-11-21T14:12:00+1",
            "+2026-11-21",
            "26-11-21",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
