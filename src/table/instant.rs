//! Instants: the times that name everything on a Hudi timeline.

use crate::time::Timestamp;
use chrono::{NaiveDateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The time that names an action on the timeline, and the base files that it wrote: `yyyyMMddHHmmssSSS` in UTC.
///
/// Compared as text, as Hudi does. Tables of old Hudi versions also have 14 digits (whole seconds); ours have 17.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstantTime(String);

/// What chrono calls the first 14 digits; it has no way to read three digits of milliseconds right behind them.
const SECONDS: &str = "%Y%m%d%H%M%S";

impl InstantTime {
    /// Reads 14 to 17 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (14..=17).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Self(text.to_owned()))
    }

    /// The instant of a moment, to the millisecond below; `None` before the year 0 and after 9999.
    pub fn from_timestamp(time: Timestamp) -> Option<Self> {
        Self::from_datetime(time.to_datetime()?.naive_utc())
    }

    /// The first instant for an action that starts at `now` and comes after `latest`: strictly later than it, also when the clock went back.
    pub fn after(latest: Option<&InstantTime>, now: Timestamp) -> Self {
        let now = Self::from_timestamp(now).unwrap_or_else(|| Self("00010101000000000".to_owned()));
        match latest {
            Some(latest) if *latest >= now => latest.successor(),
            _ => now,
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The moment that it names; `None` where the digits are no date.
    pub fn to_timestamp(&self) -> Option<Timestamp> {
        Some(Timestamp::from_micros(self.to_datetime()?.and_utc().timestamp_micros()))
    }

    /// One millisecond later.
    fn successor(&self) -> Self {
        let later = self.to_datetime().and_then(|time| Self::from_datetime(time + TimeDelta::milliseconds(1)));
        later.unwrap_or_else(|| {
            // no date (a hand-made instant): count on as a number
            let number: u64 = format!("{:0<17}", self.0).parse().unwrap_or(0);
            Self(format!("{:017}", number.saturating_add(1)))
        })
    }

    fn to_datetime(&self) -> Option<NaiveDateTime> {
        let time = NaiveDateTime::parse_from_str(self.0.get(..14)?, SECONDS).ok()?;
        let millis: i64 = format!("{:0<3}", self.0.get(14..)?).parse().ok()?;
        Some(time + TimeDelta::milliseconds(millis))
    }

    fn from_datetime(time: NaiveDateTime) -> Option<Self> {
        let millis = time.and_utc().timestamp_subsec_millis().min(999);
        let text = format!("{}{millis:03}", time.format(SECONDS));
        (text.len() == 17).then_some(Self(text))
    }
}

impl fmt::Display for InstantTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn seventeen_digits_and_back() {
        let instant = InstantTime::from_timestamp(at("2026-11-21T14:12:30.755999Z")).unwrap();
        assert_eq!(instant.as_str(), "20261121141230755");
        assert_eq!(instant.to_timestamp(), Some(at("2026-11-21T14:12:30.755Z")));
        assert_eq!(InstantTime::parse("20261121141230755"), Some(instant));
        assert_eq!(InstantTime::parse("2026112114123075x"), None);
        assert_eq!(InstantTime::parse(""), None);
    }

    #[test]
    fn the_next_instant_is_later_though_the_clock_went_back() {
        let latest = InstantTime::parse("20261231235959999").unwrap();
        assert_eq!(InstantTime::after(Some(&latest), at("2026-11-21")).as_str(), "20270101000000000");
        assert_eq!(InstantTime::after(Some(&latest), at("2028-01-01")).as_str(), "20280101000000000");
        let seconds = InstantTime::parse("20261121141230").unwrap();
        let next = InstantTime::after(Some(&seconds), at("2026-11-21T14:12:30Z"));
        assert!(next > seconds && next.as_str().len() == 17, "{next}");
        let no_date = InstantTime::parse("99999999999990000").unwrap();
        assert_eq!(InstantTime::after(Some(&no_date), at("2026-11-21")).as_str(), "99999999999990001");
    }
}
