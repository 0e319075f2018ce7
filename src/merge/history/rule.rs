//! `history = …` of a `[[table]]`.

use super::shape::HistoryShape;
use super::valid_time::{ValidTimes, reads_back};
use super::versions::Late;
use crate::error::Result;
use crate::merge::LakeShape;
use arrow::array::RecordBatch;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// How a table's history is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryRule {
    /// The column that says since when a row is true; `None`: since the source committed it.
    pub valid_time: Option<String>,
    /// The column that says until when; `None`: until further notice.
    pub valid_to: Option<String>,
    /// The column that says that a row is deleted, and since when if it is a time; `None`: only a DELETE ends a row.
    pub soft_delete: Option<String>,
    /// What becomes of versions that begin after a fact which came late.
    pub late: Late,
    /// What becomes of a row whose valid time is NULL or can't be read.
    pub on_invalid_valid_time: OnInvalid,
    /// What an integer in these columns counts, since 1970.
    pub unit: Unit,
    /// How text in these columns is written (as in `strftime`); `None`: ISO 8601.
    pub format: Option<String>,
}

/// What becomes of a row whose valid time is NULL or can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// It counts from its system time on.
    #[default]
    SystemTime,
    /// It becomes a dead letter: its key is deleted, until a row comes that can be read.
    DeadLetter,
    /// The table stops.
    Stop,
}

/// What an integer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Unit {
    /// Seconds.
    #[default]
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Microseconds.
    #[serde(rename = "us")]
    Micros,
}

impl Unit {
    /// Microseconds in one.
    pub(super) fn micros(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Millis => 1_000,
            Self::Micros => 1,
        }
    }
}

impl HistoryRule {
    /// Whether all periods begin in the order of system time, so that nothing is ever late.
    pub(super) fn follows_system_time(&self) -> bool {
        self.valid_time.is_none() && self.valid_to.is_none() && self.soft_delete.is_none()
    }

    /// Whether a history that was kept by this rule is kept by `other`, however their columns are read: what there is stays right then.
    pub fn keeps_alike(&self, other: &Self) -> bool {
        let HistoryRule { on_invalid_valid_time, unit, ref format, .. } = *other;
        Self { on_invalid_valid_time, unit, format: format.clone(), ..self.clone() } == *other
    }

    /// Whether its `format` says what a time is.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn ensure_format(&self) -> std::result::Result<(), String> {
        match &self.format {
            Some(format) if !reads_back(format) => Err(format!(
                "`history.format` is \"{format}\", by which no time can be read; write it as in strftime, with year, month and day, such as \"%d.%m.%Y %H:%M\""
            )),
            _ => Ok(()),
        }
    }

    /// Whether a table of this shape can have such a history.
    ///
    /// # Errors
    /// `Data` if it lacks a column that is named, one is of a type that is no time, or one is called as a column of the history.
    pub fn ensure_fits(&self, shape: &LakeShape) -> Result<()> {
        HistoryShape::new(&shape.source().table, shape.columns(), &shape.key_names(), None)?;
        let checked = ValidTimes::new(self, &RecordBatch::new_empty(shape.columns().clone())).map(|_| ());
        checked.map_err(|error| error.with("table", &shape.source().table))
    }

    /// Reads `true`, `false` or a table.
    pub fn deserialize_optional<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Self>, D::Error> {
        struct BoolOrTable;
        impl<'de> Visitor<'de> for BoolOrTable {
            type Value = Option<HistoryRule>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or { valid_time = \"column\", … }")
            }

            fn visit_bool<E>(self, is_on: bool) -> std::result::Result<Self::Value, E> {
                Ok(is_on.then(HistoryRule::default))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
                HistoryRule::deserialize(MapAccessDeserializer::new(map)).map(Some)
            }
        }
        deserializer.deserialize_any(BoolOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Section {
        #[serde(default, deserialize_with = "HistoryRule::deserialize_optional")]
        history: Option<HistoryRule>,
    }

    fn read(text: &str) -> std::result::Result<Option<HistoryRule>, String> {
        toml::from_str::<Section>(text).map(|section| section.history).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn true_false_or_a_table() {
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("history = false").unwrap(), None);
        assert_eq!(read("history = true").unwrap(), Some(HistoryRule::default()));
        let full = read(
            "history = { valid_time = 'a', valid_to = 'b', late = 'to_end', on_invalid_valid_time = 'stop', unit = 'ms', soft_delete = 'c' }",
        );
        let full = full.unwrap().unwrap();
        assert_eq!((full.late, full.on_invalid_valid_time, full.unit), (Late::ToEnd, OnInvalid::Stop, Unit::Millis));
        assert_eq!(full.soft_delete.as_deref(), Some("c"));
        let letters = read("history = { valid_time = 'a', on_invalid_valid_time = 'dead_letter' }").unwrap().unwrap();
        assert_eq!(letters.on_invalid_valid_time, OnInvalid::DeadLetter);
        let other = |text: &str| read(text).unwrap().unwrap();
        assert!(letters.keeps_alike(&other("history = { valid_time = 'a', format = '%Y', unit = 'ms' }")));
        assert!(!letters.keeps_alike(&other("history = { valid_time = 'b' }")) && !letters.keeps_alike(&other("history = true")));
        for (format, is_good) in [
            ("%d.%m.%Y %H:%M %z", true),
            ("%m/%d/%y", true),
            ("%Y%m%d", true),
            ("%s", true),
            ("YYYY-MM-DD", false),
            ("%Y-%m", false),
            ("%H:%M", false),
            ("%Q", false),
            ("", false),
        ] {
            let rule = HistoryRule { format: Some(format.to_owned()), ..HistoryRule::default() };
            assert_eq!(rule.ensure_format().is_ok(), is_good, "{format}");
        }
        assert!(read("history = { valid_tme = 'a' }").unwrap_err().contains("valid_tme"));
        assert!(read("history = 1").unwrap_err().contains("true, false, or"));
    }
}
