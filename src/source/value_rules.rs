//! A table's policies at work: dates that don't exist, text that is invalid; the same for the binlog and the snapshot. No I/O.

use super::charset::{Charset, Decoded};
use super::value::Value;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{InvalidText, TableId, ValuePolicies, ZeroDates};
use std::borrow::Cow;

/// Applies a table's policies, and counts how often it had to.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueRules {
    policies: ValuePolicies,
    zero_dates: u64,
    invalid_texts: u64,
}

impl ValueRules {
    /// Nothing counted yet.
    pub(super) fn new(policies: ValuePolicies) -> Self {
        Self { policies, zero_dates: 0, invalid_texts: 0 }
    }

    /// A text in `charset`.
    #[inline]
    pub(super) fn text<'a>(&mut self, charset: Charset, bytes: &'a [u8]) -> Result<Cow<'a, str>> {
        let Decoded { text, is_valid } = charset.decode(bytes);
        if !is_valid {
            self.invalid_text()?;
        }
        Ok(text)
    }

    #[cold]
    fn invalid_text(&mut self) -> Result<()> {
        self.invalid_texts += 1;
        match self.policies.invalid_text {
            InvalidText::Replace => Ok(()),
            InvalidText::Error => Err(Error::new(Area::Source, Kind::Data, "a text isn't valid in its column's character set")
                .remedy("correct it at the source, or set invalid_text = \"replace\" in the table's rule")),
        }
    }

    /// A DATE.
    #[inline]
    pub(super) fn date(&mut self, year: u32, month: u32, day: u32) -> Result<Value<'static>> {
        match days_since_epoch(year, month, day) {
            Some(days) => Ok(Value::Date(days)),
            None => self.zero_date(),
        }
    }

    /// A DATETIME or TIMESTAMP: a date and the microseconds of its day.
    #[inline]
    pub(super) fn date_time(&mut self, year: u32, month: u32, day: u32, micros_of_day: i64) -> Result<Value<'static>> {
        match days_since_epoch(year, month, day) {
            Some(days) => Ok(Value::Micros(i64::from(days) * 86_400_000_000 + micros_of_day)),
            None => self.zero_date(),
        }
    }

    /// A date that doesn't exist.
    #[cold]
    pub(super) fn zero_date(&mut self) -> Result<Value<'static>> {
        self.zero_dates += 1;
        match self.policies.zero_dates {
            ZeroDates::Null => Ok(Value::Null),
            ZeroDates::Error => Err(Error::new(
                Area::Source,
                Kind::Data,
                "a date doesn't exist (a zero date, or a day that its month doesn't have)",
            )
            .remedy("correct it at the source, or set zero_dates = \"null\" in the table's rule")),
        }
    }

    /// Adds what was counted since the last call to the metrics.
    pub(super) fn report(&mut self, table: &TableId) {
        for (metric, count) in
            [(crate::metrics::ZERO_DATES, &mut self.zero_dates), (crate::metrics::INVALID_TEXT, &mut self.invalid_texts)]
        {
            if *count > 0 {
                metrics::counter!(metric, "table" => table.to_string()).increment(std::mem::take(count));
            }
        }
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; `None`: there is no such date.
#[inline]
pub(super) fn days_since_epoch(year: u32, month: u32, day: u32) -> Option<i32> {
    const DAYS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = *DAYS.get(usize::try_from(month.checked_sub(1)?).ok()?)? + u32::from(month == 2 && is_leap);
    if day == 0 || day > last || year > 9999 {
        return None;
    }
    // March is the first month of the shifted year, so that the leap day is its last
    let (shifted_year, shifted_month) = if month > 2 { (year + 400, month - 3) } else { (year + 399, month + 9) };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100 + shifted_year / 400 + day_of_year;
    // 400 years are 146,097 days; 0000-03-01 is 719,468 days before the epoch
    i32::try_from(days).ok()?.checked_sub(146_097 + 719_468)
}

/// An ENUM's text by its number; 0 is the empty text that stands for an invalid value.
pub(super) fn enum_text(members: &[String], number: u64) -> Result<&str> {
    match number.checked_sub(1) {
        None => Ok(""),
        Some(index) => {
            usize::try_from(index).ok().and_then(|index| members.get(index)).map(String::as_str).ok_or_else(unknown_member)
        }
    }
}

/// A SET's text by its bits, the members joined by commas as the server does.
pub(super) fn set_text(members: &[String], bits: u64) -> Result<String> {
    let known = 1_u64.checked_shl(u32::try_from(members.len()).unwrap_or(64)).map_or(u64::MAX, |next| next - 1);
    if bits & !known != 0 {
        return Err(unknown_member());
    }
    let chosen: Vec<&str> =
        members.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, member)| member.as_str()).collect();
    Ok(chosen.join(","))
}

#[cold]
fn unknown_member() -> Error {
    Error::new(Area::Source, Kind::Data, "an ENUM or SET has a member that its column doesn't list")
        .remedy("run `binlake backfill --table` for the table")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;

    #[test]
    fn all_days_from_year_0_to_9999() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let mut day = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
        let last = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap();
        while day <= last {
            use chrono::Datelike;
            let ours = days_since_epoch(u32::try_from(day.year()).unwrap(), day.month(), day.day());
            assert_eq!(ours.map(i64::from), Some(day.signed_duration_since(epoch).num_days()), "{day}");
            day = day.succ_opt().unwrap();
        }
        for (year, month, day) in
            [(0, 0, 0), (2024, 0, 15), (2024, 2, 30), (2023, 2, 29), (1900, 2, 29), (2024, 13, 1), (2024, 4, 31)]
        {
            assert_eq!(days_since_epoch(year, month, day), None, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn policies_decide_and_are_counted() {
        let mut rules = ValueRules::new(ValuePolicies::default());
        assert_eq!(rules.date(0, 0, 0).unwrap(), Value::Null);
        assert_eq!(rules.date_time(1970, 1, 2, 5).unwrap(), Value::Micros(86_400_000_005));
        assert!(rules.text(Charset::Utf8, b"\xff").is_err());
        assert_eq!((rules.zero_dates, rules.invalid_texts), (1, 1));
        let mut rules = ValueRules::new(ValuePolicies { zero_dates: ZeroDates::Error, invalid_text: InvalidText::Replace });
        assert!(rules.date(2024, 2, 30).unwrap_err().to_string().contains("zero_dates"));
        assert_eq!(rules.text(Charset::Utf8, b"a\xff").unwrap(), "a\u{fffd}");
    }

    #[test]
    fn members() {
        let members = ["x", "it's", ""].map(String::from);
        assert_eq!(enum_text(&members, 2).unwrap(), "it's");
        assert_eq!(enum_text(&members, 0).unwrap(), "");
        assert!(enum_text(&members, 4).is_err());
        assert_eq!(set_text(&members, 0b011).unwrap(), "x,it's");
        assert_eq!(set_text(&members, 0).unwrap(), "");
        assert!(set_text(&members, 0b1000).is_err());
        let many: Vec<String> = (0..64).map(|i| i.to_string()).collect();
        assert!(set_text(&many, u64::MAX).unwrap().ends_with(",63"));
    }
}
