//! What can be asked of a history, as SQL that DataFusion, DuckDB and Athena understand.
//!
//! Times are given as expressions of SQL: each engine writes them in its own way.

use super::shape::{HISTORY_SUFFIX, OWN_COLUMNS, PLACE, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO};
use crate::merge::shape::{COMMIT_TS, POSITION};
use arrow::datatypes::Schema;

/// The periods' columns, in their order.
const PERIODS: [&str; 4] = [VALID_FROM, VALID_TO, SYSTEM_FROM, SYSTEM_TO];

/// A quoted identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether `time` lies in a period.
fn within(from: &str, time: &str, to: &str) -> String {
    format!("h.\"{from}\" <= {time} AND {time} < h.\"{to}\"")
}

/// A history that is asked.
#[derive(Debug, Clone)]
pub struct Questions {
    from: String,
    rows: Vec<String>,
    key: Vec<String>,
}

impl Questions {
    /// `from` is the history as SQL names it, `columns` and `record_key` are the history's.
    pub fn new(from: impl Into<String>, columns: &Schema, record_key: &[String]) -> Self {
        let own = |name: &str| OWN_COLUMNS.contains(&name);
        let rows = columns.fields().iter().filter(|field| !own(field.name()));
        let key = record_key.iter().filter(|name| !own(name)).cloned().collect();
        Self { from: from.into(), rows: rows.map(|field| field.name().clone()).collect(), key }
    }

    /// Names of the key's columns, in the key's order.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    fn list<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> String {
        names.into_iter().map(|name| format!("h.{}", quoted(name))).collect::<Vec<_>>().join(", ")
    }

    fn versions(&self) -> String {
        self.list(self.rows.iter().map(String::as_str).chain(PERIODS))
    }

    /// What was true at `valid` (`None`: at any time), as was known at `system` (`None`: as is known now). `open_end`: how the open end is written.
    pub fn as_of(&self, system: Option<&str>, valid: Option<&str>, open_end: &str) -> String {
        format!("SELECT {} FROM {} h WHERE {}", self.versions(), self.from, self.holds(system, valid, open_end))
    }

    /// What was true at `valid`, or at any time where that is NULL, as was known at `system`: for parameters.
    pub fn as_of_any(&self, system: &str, valid: &str) -> String {
        let known = self.holds(Some(system), None, "");
        let holds = within(VALID_FROM, valid, VALID_TO);
        format!("SELECT {} FROM {} h WHERE {known} AND ({valid} IS NULL OR ({holds}))", self.versions(), self.from)
    }

    /// The same in these columns of the rows alone.
    pub fn rows_as_of<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        system: Option<&str>,
        valid: Option<&str>,
        open_end: &str,
    ) -> String {
        format!("SELECT {} FROM {} h WHERE {}", self.list(names), self.from, self.holds(system, valid, open_end))
    }

    fn holds(&self, system: Option<&str>, valid: Option<&str>, open_end: &str) -> String {
        let known = match system {
            Some(system) => within(SYSTEM_FROM, system, SYSTEM_TO),
            None => format!("h.\"{SYSTEM_TO}\" = {open_end}"),
        };
        let holds = valid.map(|valid| within(VALID_FROM, valid, VALID_TO));
        std::iter::once(known).chain(holds).collect::<Vec<_>>().join(" AND ")
    }

    /// All versions of a key, whose values `key` gives in its columns' order.
    pub fn history(&self, key: &[String]) -> String {
        let equal: Vec<String> = self.key.iter().zip(key).map(|(name, value)| format!("h.{} = {value}", quoted(name))).collect();
        let order = format!("h.\"{SYSTEM_FROM}\", h.\"{VALID_FROM}\"");
        format!("SELECT {} FROM {} h WHERE {} ORDER BY {order}", self.versions(), self.from, equal.join(" AND "))
    }

    /// What became known after `first` and up to `last`: versions that came (`added`) and that went (`removed`).
    pub fn changes(&self, first: &str, last: &str) -> String {
        let part = |change: &str, at: &str| {
            format!(
                "SELECT '{change}' AS \"_change\", h.\"{at}\" AS \"_changed_at\", {} FROM {} h WHERE h.\"{at}\" > {first} AND h.\"{at}\" <= {last}",
                self.versions(),
                self.from
            )
        };
        format!("{} UNION ALL {}", part("added", SYSTEM_FROM), part("removed", SYSTEM_TO))
    }

    /// What was true at `valid` by what was known at `first` (`before`) and by what was known at `last` (`after`), where that differs.
    pub fn diff(&self, valid: &str, first: &str, last: &str) -> String {
        let names = || self.rows.iter().map(String::as_str).filter(|name| *name != COMMIT_TS && *name != POSITION);
        let at = |system: &str| self.rows_as_of(names(), Some(system), Some(valid), "");
        let side = |name: &str, these: &str, others: &str| {
            format!("SELECT '{name}' AS \"_side\", h.* FROM ({} EXCEPT {}) h", at(these), at(others))
        };
        format!("{} UNION ALL {}", side("before", first, last), side("after", last, first))
    }
}

/// What makes a history's questions easy to ask in Athena: a view of what is true as far as is known, and statements that `EXECUTE … USING` takes times for.
///
/// Athena takes parameters in a WHERE alone, and each for one place: a time is asked for as often as it is compared.
pub fn athena_questions(database: &str, table: &str, columns: &Schema, record_key: &[String]) -> String {
    let name = |suffix: &str| format!("{table}_{suffix}").replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_lowercase();
    let questions =
        Questions::new(format!("{}.{}", quoted(database), quoted(&format!("{table}{HISTORY_SUFFIX}"))), columns, record_key);
    let open_end = "TIMESTAMP '9999-12-31 23:59:59.999999'";
    let utc = "current_timestamp AT TIME ZONE 'UTC'";
    let now = questions.as_of(Some(utc), Some(utc), open_end);
    let mut text = format!("CREATE OR REPLACE VIEW {}.{} AS\n{now};\n", quoted(database), quoted(&name("now")));
    let keys: Vec<String> = questions.key.iter().map(|_| "?".to_owned()).collect();
    let at = "CAST(? AS timestamp)";
    let statements = [
        ("as_of_system", questions.as_of(Some(at), None, open_end)),
        ("as_of_valid", questions.as_of(Some(utc), Some(at), open_end)),
        ("as_of", questions.as_of(Some(at), Some(at), open_end)),
        ("history_of", questions.history(&keys)),
        ("changes", questions.changes(at, at)),
        ("diff", questions.diff(at, at, at)),
    ];
    for (suffix, statement) in statements {
        text.push_str(&format!("PREPARE {} FROM\n{statement};\n", name(suffix)));
    }
    text
}

/// Whether a column is one of a history's own.
pub fn is_own_column(name: &str) -> bool {
    PERIODS.contains(&name) || name == PLACE
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn what_is_asked() {
        let rows = Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("odd \"name\"", DataType::Utf8, true),
            Field::new(COMMIT_TS, DataType::Utf8, true),
        ]);
        let shape = super::super::HistoryShape::new(&"s.t".parse().unwrap(), &rows, &["id".to_owned()], None).unwrap();
        let questions = Questions::new("h", shape.columns(), &shape.record_key());
        assert_eq!(questions.key(), ["id"]);
        let asked = [
            questions.as_of(Some(":s"), Some(":v"), ":end"),
            questions.as_of(None, None, ":end"),
            questions.history(&["1".to_owned()]),
            questions.changes(":s1", ":s2"),
            questions.diff(":v", ":s1", ":s2"),
            athena_questions("s", "t", shape.columns(), &shape.record_key()),
            questions.as_of_any(":s", ":v"),
        ];
        insta::assert_snapshot!(asked.join("\n\n"));
    }
}
