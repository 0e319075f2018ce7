//! Since when a row is true, and until when: from its columns.

use super::rule::{HistoryRule, OnInvalid};
use super::versions::{FIRST_TIME, OPEN_END};
use crate::error::Result;
use crate::merge::shape::{POSITION, data};
use crate::time::Timestamp;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};

const DAY: i64 = 86_400_000_000;
/// 9999-12-31, which as an end means none.
const LAST_DAY: i64 = OPEN_END - DAY + 1;

/// What a column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Time(i64),
    Null,
    Unreadable,
}

/// The periods of a batch's rows, as far as their columns say.
#[derive(Debug)]
pub(super) struct ValidTimes<'a> {
    rule: &'a HistoryRule,
    rows: &'a RecordBatch,
    from: Option<Vec<Said>>,
    to: Option<Vec<Said>>,
    deleted: Option<Vec<Said>>,
}

impl<'a> ValidTimes<'a> {
    /// Of rows with the lake's columns.
    ///
    /// # Errors
    /// `Data` if the table lacks a column that the rule names, or if it is of a type that is no time.
    pub(super) fn new(rule: &'a HistoryRule, rows: &'a RecordBatch) -> Result<Self> {
        let read = |name: &Option<String>, option: &'static str| match name {
            None => Ok(None),
            Some(name) => {
                let column = rows.column_by_name(name).ok_or_else(|| {
                    data("`history` names a column that the table lacks")
                        .with("option", option)
                        .with("column", name)
                        .remedy("correct `history` in the table's [[table]]")
                })?;
                times(column, rule).map(Some).map_err(|error| error.with("column", name))
            }
        };
        let deleted = match rule.soft_delete.as_deref().and_then(|name| rows.column_by_name(name)) {
            Some(column) if *column.data_type() == DataType::Boolean => {
                let flags = column.as_boolean();
                Some(
                    (0..flags.len())
                        .map(|row| if flags.is_valid(row) && flags.value(row) { Said::Unreadable } else { Said::Null })
                        .collect(),
                )
            }
            _ => read(&rule.soft_delete, "soft_delete")?,
        };
        Ok(Self { rule, rows, from: read(&rule.valid_time, "valid_time")?, to: read(&rule.valid_to, "valid_to")?, deleted })
    }

    /// Since when the row at `row`, which is known since `system_time`, is deleted by its own word; `None`: it isn't. A flag (true, a number that is no time,
    /// text that is none) counts from the system time on.
    pub(super) fn deleted_at(&self, row: usize, system_time: i64) -> Option<i64> {
        let is_off = |text: &str| matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "n" | "no" | "false" | "f");
        match self.deleted.as_ref()?[row] {
            Said::Null => None,
            Said::Time(0) => None,
            // a flag in a number
            Said::Time(time) if time == self.rule.unit.micros() => Some(system_time),
            Said::Time(time) if (FIRST_TIME..LAST_DAY).contains(&time) => Some(time),
            // the end of all days: not deleted as long as anybody lives
            Said::Time(time) if time >= LAST_DAY => None,
            Said::Time(_) => Some(system_time),
            Said::Unreadable => {
                let column = self.rule.soft_delete.as_deref().and_then(|name| self.rows.column_by_name(name));
                let text = column.and_then(|column| column.as_string_opt::<i32>()).map(|texts| texts.value(row));
                (!text.is_some_and(is_off)).then_some(system_time)
            }
        }
    }

    /// The period of the row at `row`, which is known since `system_time`.
    pub(super) fn of(&self, row: usize, system_time: i64) -> Result<(i64, i64)> {
        let from = match self.from.as_ref().map(|from| from[row]) {
            None => system_time,
            Some(Said::Time(time)) if (FIRST_TIME..OPEN_END).contains(&time) => time,
            Some(_) => {
                self.invalid(row, self.rule.valid_time.as_deref())?;
                system_time
            }
        };
        let to = match self.to.as_ref().map(|to| to[row]) {
            None | Some(Said::Null) => OPEN_END,
            Some(Said::Time(time)) if time >= LAST_DAY => OPEN_END,
            Some(Said::Time(time)) if time > from => time,
            Some(_) => {
                self.invalid(row, self.rule.valid_to.as_deref())?;
                OPEN_END
            }
        };
        Ok((from, to))
    }

    /// The column for which the row at `row` has no period; `None`: it has one.
    pub(super) fn unreadable(&self, row: usize) -> Option<&str> {
        let from = self.from.as_ref().map(|from| from[row]);
        if !matches!(from, None | Some(Said::Time(FIRST_TIME..OPEN_END))) {
            return self.rule.valid_time.as_deref();
        }
        // an end before the beginning is known when that is: at the system time of a row without one
        let begins = match from {
            Some(Said::Time(time)) => time,
            _ => i64::MIN,
        };
        match self.to.as_ref().map(|to| to[row]) {
            Some(Said::Unreadable) => self.rule.valid_to.as_deref(),
            Some(Said::Time(time)) if time <= begins => self.rule.valid_to.as_deref(),
            _ => None,
        }
    }

    fn invalid(&self, row: usize, column: Option<&str>) -> Result<()> {
        metrics::counter!(crate::metrics::INVALID_VALID_TIMES).increment(1);
        // of rows that become dead letters none comes here
        if self.rule.on_invalid_valid_time != OnInvalid::Stop {
            return Ok(());
        }
        let position = self.rows.column_by_name(POSITION).and_then(|column| column.as_string_opt::<i32>());
        Err(data("a row's valid time is NULL or can't be read")
            .with("column", column.unwrap_or_default())
            .with("position", position.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row)).unwrap_or_default())
            .remedy(
                "correct the row at the source and run `binlake backfill --table`, or set on_invalid_valid_time = \"system_time\"",
            ))
    }
}

/// The times in a column, as the rule reads them.
fn times(column: &ArrayRef, rule: &HistoryRule) -> Result<Vec<Said>> {
    let counted = |number: Option<i64>| number.and_then(|number| number.checked_mul(rule.unit.micros()));
    let read = |said: &dyn Fn(usize) -> Option<i64>| -> Vec<Said> {
        let of = |row: usize| match column.is_null(row) {
            true => Said::Null,
            false => said(row).map_or(Said::Unreadable, Said::Time),
        };
        (0..column.len()).map(of).collect()
    };
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            read(&|row| Some(values.value(row)))
        }
        DataType::Date32 => {
            let values = column.as_primitive::<Date32Type>();
            read(&|row| Some(i64::from(values.value(row)) * DAY))
        }
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            read(&|row| counted(Some(i64::from(values.value(row)))))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            read(&|row| counted(Some(values.value(row))))
        }
        DataType::Decimal128(_, 0) => {
            let values = column.as_primitive::<Decimal128Type>();
            read(&|row| counted(i64::try_from(values.value(row)).ok()))
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            read(&|row| text(values.value(row), rule.format.as_deref()))
        }
        other => {
            return Err(data("a column of this type is no valid time")
                .with("type", other)
                .remedy("name a DATE, DATETIME, TIMESTAMP, integer or text column in `history`"));
        }
    })
}

fn text(text: &str, format: Option<&str>) -> Option<i64> {
    use chrono::{DateTime, NaiveDate, NaiveDateTime};
    let text = text.trim();
    let Some(format) = format else { return Timestamp::parse(text).map(Timestamp::as_micros) };
    // with an offset, which the others would read over
    if let Ok(time) = DateTime::parse_from_str(text, format) {
        return Some(time.timestamp_micros());
    }
    let time = NaiveDateTime::parse_from_str(text, format).ok();
    let time = time.or_else(|| NaiveDate::parse_from_str(text, format).ok()?.and_hms_opt(0, 0, 0));
    Some(time?.and_utc().timestamp_micros())
}

/// Whether times that are written by `format` can be read by it.
pub(super) fn reads_back(format: &str) -> bool {
    use std::fmt::Write;
    let Some(time) = Timestamp::from_micros(1_792_000_000_000_000).to_datetime() else { return false };
    let mut written = String::new();
    write!(written, "{}", time.format(format)).is_ok() && text(&written, Some(format)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn periods(rule: &HistoryRule, from: ArrayRef, to: ArrayRef) -> Vec<(i64, i64)> {
        let rows = RecordBatch::try_from_iter([("f", from), ("t", to)]).unwrap();
        let times = ValidTimes::new(rule, &rows).unwrap();
        (0..rows.num_rows()).map(|row| times.of(row, 77).unwrap()).collect()
    }

    #[test]
    fn dates_numbers_and_texts() {
        let rule = HistoryRule { valid_time: Some("f".into()), valid_to: Some("t".into()), ..HistoryRule::default() };
        let to: ArrayRef = Arc::new(Date32Array::from(vec![None, Some(2), Some(2_932_896), Some(0)]));
        let from: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), Some(1), Some(1), Some(1)]));
        assert_eq!(periods(&rule, from, to.clone()), [(DAY, OPEN_END), (DAY, 2 * DAY), (DAY, OPEN_END), (DAY, OPEN_END)]);
        let from: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(i64::MAX), Some(6)]));
        let found: Vec<i64> = periods(&rule, from, to.clone()).iter().map(|period| period.0).collect();
        assert_eq!(found, [5_000_000, 77, 77, 6_000_000]);
        let from: ArrayRef = Arc::new(StringArray::from(vec!["1970-01-02", "1970-01-01T00:00:01Z", "nonsense", "10000-01-01"]));
        let found: Vec<i64> = periods(&rule, from, to.clone()).iter().map(|period| period.0).collect();
        assert_eq!(found, [DAY, 1_000_000, 77, 77]);
        let rule = HistoryRule { format: Some("%m/%d/%y".into()), valid_to: None, ..rule };
        let from: ArrayRef = Arc::new(StringArray::from(vec!["1/2/70", "13/1/70", "", "01/03/70"]));
        let found: Vec<i64> = periods(&rule, from, to.clone()).iter().map(|period| period.0).collect();
        assert_eq!(found, [DAY, 77, 77, 2 * DAY]);
        // an offset counts
        let rule = HistoryRule { format: Some("%d.%m.%Y %H:%M %z".into()), ..rule };
        let from: ArrayRef =
            Arc::new(StringArray::from(vec!["02.01.1970 02:00 +0200", "02.01.1970 00:00", " 01.01.1970 22:30 -01:30", "x"]));
        let found: Vec<i64> = periods(&rule, from, to).iter().map(|period| period.0).collect();
        assert_eq!(found, [DAY, 77, DAY, 77]);
    }

    #[test]
    fn rows_without_a_period_are_told_apart() {
        let rule = HistoryRule { valid_time: Some("f".into()), valid_to: Some("t".into()), ..HistoryRule::default() };
        let from: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), None, Some(5), Some(2_932_897), Some(1)]));
        let to: ArrayRef = Arc::new(StringArray::from(vec![None, None, Some("1970-01-02"), None, Some("nonsense")]));
        let rows = RecordBatch::try_from_iter([("f", from), ("t", to)]).unwrap();
        let times = ValidTimes::new(&rule, &rows).unwrap();
        let found: Vec<_> = (0..5).map(|row| times.unreadable(row)).collect();
        assert_eq!(found, [None, Some("f"), Some("t"), Some("f"), Some("t")]);
        // on the last of all days: not yet
        let from: ArrayRef = Arc::new(Date32Array::from(vec![Some(2_932_896)]));
        let to: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        assert_eq!(periods(&rule, from, to), [(LAST_DAY, OPEN_END)]);
    }

    #[test]
    fn a_table_that_stops_says_where() {
        let rule = HistoryRule { valid_time: Some("f".into()), on_invalid_valid_time: OnInvalid::Stop, ..HistoryRule::default() };
        let from: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        let position: ArrayRef = Arc::new(StringArray::from(vec!["b.1:4"]));
        let rows = RecordBatch::try_from_iter([("f", from), (POSITION, position)]).unwrap();
        let error = ValidTimes::new(&rule, &rows).unwrap().of(0, 1).unwrap_err().to_string();
        assert!(error.contains("column=f") && error.contains("position=b.1:4"), "{error}");
        let lacks = HistoryRule { valid_time: Some("g".into()), ..rule };
        assert!(ValidTimes::new(&lacks, &rows).unwrap_err().to_string().contains("column=g"));
    }
}
