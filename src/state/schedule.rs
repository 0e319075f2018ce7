//! `[[scale]]`: capacity by the clock, bigger before the peak and smaller after.

use crate::time::Timestamp;
use chrono::{DateTime, Datelike, Duration, Timelike, Utc};
use serde::Deserialize;

/// A schedule is looked through so far: every day of the week of every month comes in it.
const LONGEST_DAYS: i64 = 366 * 8;

/// `[[scale]]`: from `at` on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRule {
    /// When, as cron has it, in UTC: minute, hour, day of the month, month, day of the week.
    pub at: Schedule,
    /// The stream's shards.
    pub shards: Option<u32>,
    /// How many `binlake merge` take tables; more stand by.
    pub workers: Option<u32>,
}

/// Times, as cron has them: `30 6 * * MON-FRI`. Minute, hour, day of the month, month, day of the week; in each `*`, numbers, names, ranges
/// `1-5`, lists `1,15` and steps `*/10`. If both days are given, either will do. UTC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month and of the week are both given.
    either_day: bool,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("`{text}` is not a schedule; write five fields as cron has them: \"30 6 * * MON-FRI\" (UTC)"));
        };
        let wrong = |what: &str| format!("`{text}` is not a schedule: {what}; write it as cron does: \"30 6 * * MON-FRI\" (UTC)");
        let schedule = Self {
            minutes: field(minutes, 0, 59, &[]).map_err(|what| wrong(&what))?,
            hours: field(hours, 0, 23, &[]).map_err(|what| wrong(&what))?,
            days: field(days, 1, 31, &[]).map_err(|what| wrong(&what))?,
            months: field(months, 1, 12, &MONTHS).map_err(|what| wrong(&what))?,
            weekdays: field(weekdays, 0, 7, &WEEKDAYS).map(|days| days | (days >> 7 & 1)).map_err(|what| wrong(&what))?,
            either_day: *days != "*" && *weekdays != "*",
        };
        match schedule.next_after(Timestamp::from_micros(0)) {
            Some(_) => Ok(schedule),
            None => Err(wrong("such a day never comes")),
        }
    }
}

/// The numbers that a field names, as bits.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Result<u64, String> {
    let number = |word: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(word));
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + least);
        let value = named.or_else(|| word.parse().ok()).filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| format!("`{word}` is not between {least} and {most}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse().ok().filter(|step| *step > 0).ok_or_else(|| format!("`{step}` is no step"))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/10` goes on to the end
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("`{range}` runs backwards"));
        }
        (from..=to).step_by(step).for_each(|value| bits |= 1 << value);
    }
    Ok(bits)
}

impl Schedule {
    fn has_day(&self, day: &DateTime<Utc>) -> bool {
        let is_in = |bits: u64, value: u32| bits >> value & 1 == 1;
        let of_month = is_in(self.days, day.day());
        let of_week = is_in(self.weekdays, day.weekday().num_days_from_sunday());
        is_in(self.months, day.month()) && if self.either_day { of_month || of_week } else { of_month && of_week }
    }

    /// The minutes of a day, in order.
    fn minutes_of_day(&self) -> impl DoubleEndedIterator<Item = i64> + '_ {
        let is_in = |bits: u64, value: i64| bits >> value & 1 == 1;
        (0..1440).filter(move |minute| is_in(self.hours, minute / 60) && is_in(self.minutes, minute % 60))
    }

    /// The first time after `time`; `None`: there is none.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let (midnight, now) = midnight_of(time)?;
        let after = |day: i64| move |minute: &i64| day > 0 || *minute > now;
        let days = (0..LONGEST_DAYS).map(|day| (day, midnight + Duration::days(day)));
        let mut times = days
            .filter(|(_, midnight)| self.has_day(midnight))
            .filter_map(|(day, midnight)| Some(midnight + Duration::minutes(self.minutes_of_day().find(after(day))?)));
        times.next().map(|time| Timestamp::from_micros(time.timestamp_micros()))
    }

    /// The last time at or before `time`; `None`: there is none.
    pub fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        let (midnight, now) = midnight_of(time)?;
        let until = |day: i64| move |minute: &i64| day > 0 || *minute <= now;
        let days = (0..LONGEST_DAYS).map(|day| (day, midnight - Duration::days(day)));
        let mut times = days
            .filter(|(_, midnight)| self.has_day(midnight))
            .filter_map(|(day, midnight)| Some(midnight + Duration::minutes(self.minutes_of_day().rfind(until(day))?)));
        times.next().map(|time| Timestamp::from_micros(time.timestamp_micros()))
    }
}

/// The day's beginning, and the minute of the day.
fn midnight_of(time: Timestamp) -> Option<(DateTime<Utc>, i64)> {
    let time = DateTime::from_timestamp_micros(time.as_micros())?;
    let midnight = time.date_naive().and_hms_opt(0, 0, 0)?.and_utc();
    Some((midnight, i64::from(time.hour() * 60 + time.minute())))
}

/// What is to be had at `time`: the rule whose time came last, and that time.
pub fn in_force(rules: &[ScaleRule], time: Timestamp) -> Option<(Timestamp, &ScaleRule)> {
    rules.iter().filter_map(|rule| Some((rule.at.last_until(time)?, rule))).max_by_key(|(at, _)| *at)
}

/// When the next rule's time comes.
pub fn next_change(rules: &[ScaleRule], time: Timestamp) -> Option<Timestamp> {
    rules.iter().filter_map(|rule| rule.at.next_after(time)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn times_come_as_cron_has_them() {
        // 2026-11-21 is a Saturday
        let now = at("2026-11-21T10:15:30Z");
        for (text, next, last) in [
            ("* * * * *", "2026-11-21T10:16:00Z", "2026-11-21T10:15:00Z"),
            ("*/20 * * * *", "2026-11-21T10:20:00Z", "2026-11-21T10:00:00Z"),
            ("30 6 * * MON-FRI", "2026-11-23T06:30:00Z", "2026-11-20T06:30:00Z"),
            ("0 0 1 * *", "2026-12-01T00:00:00Z", "2026-11-01T00:00:00Z"),
            ("0 12 * * 0,7", "2026-11-22T12:00:00Z", "2026-11-15T12:00:00Z"),
            ("0 12 13 * FRI", "2026-11-27T12:00:00Z", "2026-11-20T12:00:00Z"),
            ("59 23 29 feb *", "2028-02-29T23:59:00Z", "2024-02-29T23:59:00Z"),
            ("5/25 10 * * *", "2026-11-21T10:30:00Z", "2026-11-21T10:05:00Z"),
        ] {
            assert_eq!(schedule(text).next_after(now), Some(at(next)), "{text}");
            assert_eq!(schedule(text).last_until(now), Some(at(last)), "{text}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in ["", "* * * *", "60 * * * *", "* 5-2 * * *", "*/0 * * * *", "* * * * XYZ", "0 0 31 FEB *", "a * * * *"] {
            assert!(Schedule::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_rule_whose_time_came_last_is_in_force() {
        let rule = |text: &str, shards| ScaleRule { at: schedule(text), shards: Some(shards), workers: None };
        let rules = [rule("0 7 * * *", 8), rule("0 19 * * *", 2)];
        let in_force = |text| in_force(&rules, at(text)).map(|(since, rule)| (since, rule.shards));
        assert_eq!(in_force("2026-11-21T07:00:00Z"), Some((at("2026-11-21T07:00:00Z"), Some(8))));
        assert_eq!(in_force("2026-11-21T06:59:59Z"), Some((at("2026-11-20T19:00:00Z"), Some(2))));
        assert_eq!(next_change(&rules, at("2026-11-21T07:00:00Z")), Some(at("2026-11-21T19:00:00Z")));
    }
}
