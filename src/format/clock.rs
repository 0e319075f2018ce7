//! Dates and times as the formats write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// `2026-11-21`; `None` outside of chrono's range.
pub(super) fn date_text(days: i32) -> Option<String> {
    Some(date(days)?.to_string())
}

fn date(days: i32) -> Option<NaiveDate> {
    NaiveDate::default().checked_add_signed(chrono::Duration::days(days.into()))
}

/// Days since 1970-01-01 of `2026-11-21`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    days(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| has_whole_year(text))?)
}

/// Whether four digits of a text stand together: `11` isn't the year 11.
pub(super) fn has_whole_year(text: &str) -> bool {
    text.as_bytes().windows(4).any(|four| four.iter().all(u8::is_ascii_digit))
}

/// Days since 1970-01-01.
pub(super) fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// `2026-11-21T10:11:12.345Z` with `digits` digits of the fraction.
pub(super) fn instant_text(micros: i64, digits: u8) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
    let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    if digits > 0 {
        let fraction = micros.rem_euclid(1_000_000) / 10_i64.pow(6 - u32::from(digits.min(6)));
        text += &format!(".{fraction:0width$}", width = usize::from(digits.min(6)));
    }
    text.push('Z');
    Some(text)
}

/// Microseconds since 1970-01-01T00:00:00Z of an ISO 8601 text; without a zone it is UTC.
pub(super) fn parse_instant(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let time = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let time = time.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    Some(time.filter(|_| has_whole_year(text))?.and_utc().timestamp_micros())
}

/// Microseconds of a TIME as the server prints it: `-838:59:59.5`.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    if parts.next().is_some() || fraction.len() > 6 {
        return None;
    }
    let micros = if fraction.is_empty() { 0 } else { number(&format!("{fraction:0<6}"))? };
    let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
    Some(sign * ((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros))
}

/// A TIME as the server prints it, with `fsp` digits of the fraction.
pub(super) fn time_text(micros: i64, fsp: u8) -> String {
    let magnitude = micros.unsigned_abs();
    let (seconds, fraction) = (magnitude / 1_000_000, magnitude % 1_000_000);
    let sign = if micros < 0 { "-" } else { "" };
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fsp > 0 {
        let width = usize::from(fsp.min(6));
        text += &format!(".{:0width$}", fraction / 10_u64.pow(6 - u32::from(fsp.min(6))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        for (text, fsp) in [("-838:59:59", 0), ("12:34:56.780", 3), ("-00:00:00.000001", 6), ("00:00:00", 0)] {
            assert_eq!(time_text(parse_time(text).unwrap(), fsp), text);
        }
        for (text, digits) in [("1969-12-31T23:59:59.999999Z", 6), ("0001-01-01T00:00:00Z", 0), ("9999-12-31T23:59:59.9Z", 1)] {
            assert_eq!(instant_text(parse_instant(text).unwrap(), digits).unwrap(), text);
        }
        assert_eq!(parse_instant("2026-11-21 10:11"), parse_instant("2026-11-21T10:11:00Z"));
        assert_eq!(date_text(parse_date("0001-01-01").unwrap()).unwrap(), "0001-01-01");
        for wrong in ["", "1:2", "a:b:c", "1:2:3:4", "12:34:56.1234567", "99999999999:00:00"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        assert_eq!((parse_date("2026-13-01"), parse_instant("2026-13-01T00:00:00Z")), (None, None));
    }
}
