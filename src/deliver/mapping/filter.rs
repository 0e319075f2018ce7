//! Source filters: the conditions under which a row is delivered.
//!
//! A row passes if it passes every filter, and a filter if it meets one of its conditions. Numbers are compared as numbers with all their digits, dates
//! and times in their order, text by its bytes. No condition but `null` is met by NULL.

use crate::deliver::template::text_of;
use crate::event::SourceType;
use arrow::datatypes::DataType;
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Ordering;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FilterRule {
    filter_type: String,
    column_name: String,
    filter_conditions: Vec<ConditionRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ConditionRule {
    filter_operator: String,
    value: Option<Value>,
    start_value: Option<Value>,
    end_value: Option<Value>,
}

/// Conditions on one column, of which one must be met. The operands are text as it is written, or what is compared with the column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter<T = String> {
    pub(super) column: String,
    conditions: Vec<Condition<T>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition<T> {
    AtMost(T),
    AtLeast(T),
    Equal(T),
    NotEqual(T),
    Between(T, T),
    NotBetween(T, T),
    Null,
    NotNull,
}

impl<T> Condition<T> {
    fn map<U>(&self, to: impl Fn(&T) -> Result<U, String>) -> Result<Condition<U>, String> {
        Ok(match self {
            Self::AtMost(value) => Condition::AtMost(to(value)?),
            Self::AtLeast(value) => Condition::AtLeast(to(value)?),
            Self::Equal(value) => Condition::Equal(to(value)?),
            Self::NotEqual(value) => Condition::NotEqual(to(value)?),
            Self::Between(start, end) => Condition::Between(to(start)?, to(end)?),
            Self::NotBetween(start, end) => Condition::NotBetween(to(start)?, to(end)?),
            Self::Null => Condition::Null,
            Self::NotNull => Condition::NotNull,
        })
    }
}

impl Filter {
    pub(super) fn read(filter: Value) -> Result<Self, String> {
        let rule: FilterRule = serde_json::from_value(filter).map_err(|error| format!("a filter can't be read: {error}"))?;
        if rule.filter_type != "source" {
            return Err(format!("there is no filter of the type `{}`; write source", rule.filter_type));
        }
        if rule.filter_conditions.is_empty() {
            return Err(format!("the filter on `{}` has no conditions; add one to filter-conditions", rule.column_name));
        }
        let conditions = rule.filter_conditions.into_iter().map(condition).collect::<Result<_, _>>();
        let conditions = conditions.map_err(|what| format!("the filter on `{}`: {what}", rule.column_name))?;
        Ok(Self { column: rule.column_name, conditions })
    }

    /// The same for a column of this type.
    pub(super) fn of_type(&self, source_type: &SourceType) -> Result<Filter<Operand>, String> {
        let conditions = self.conditions.iter().map(|condition| condition.map(|text| Operand::read(source_type, text)));
        Ok(Filter { column: self.column.clone(), conditions: conditions.collect::<Result<_, _>>()? })
    }
}

fn condition(rule: ConditionRule) -> Result<Condition<String>, String> {
    let operator = rule.filter_operator.as_str();
    let given = (rule.value.as_ref().map(text_of), rule.start_value.as_ref().map(text_of), rule.end_value.as_ref().map(text_of));
    let (one, two, none) = match given {
        (Some(value), None, None) => (Some(value), None, false),
        (None, Some(start), Some(end)) => (None, Some((start, end)), false),
        (None, None, None) => (None, None, true),
        _ => return Err("a condition has either `value`, or `start-value` and `end-value`".to_owned()),
    };
    let wants = |what: &str| format!("the operator `{operator}` takes {what}");
    let one = || one.ok_or_else(|| wants("`value`"));
    let two = || two.ok_or_else(|| wants("`start-value` and `end-value`"));
    Ok(match operator {
        "lte" | "ste" => Condition::AtMost(one()?),
        "gte" => Condition::AtLeast(one()?),
        "eq" => Condition::Equal(one()?),
        "noteq" => Condition::NotEqual(one()?),
        "between" => two().map(|(start, end)| Condition::Between(start, end))?,
        "notbetween" => two().map(|(start, end)| Condition::NotBetween(start, end))?,
        "null" | "notnull" if !none => return Err(wants("no value")),
        "null" => Condition::Null,
        "notnull" => Condition::NotNull,
        other => {
            return Err(format!(
                "there is no operator `{other}`; write lte, ste, gte, eq, noteq, between, notbetween, null or notnull"
            ));
        }
    })
}

impl Filter<Operand> {
    /// Whether a row with this value of the column passes.
    pub(super) fn passes(&self, value: Option<&Value>) -> bool {
        let value = value.filter(|value| !value.is_null()).map(text_of);
        self.conditions.iter().any(|condition| {
            let Some(value) = &value else { return matches!(condition, Condition::Null) };
            let is_between = |start: &Operand, end: &Operand| start.order(value).is_ge() && end.order(value).is_le();
            match condition {
                Condition::AtMost(operand) => operand.order(value).is_le(),
                Condition::AtLeast(operand) => operand.order(value).is_ge(),
                Condition::Equal(operand) => operand.order(value).is_eq(),
                Condition::NotEqual(operand) => operand.order(value).is_ne(),
                Condition::Between(start, end) => is_between(start, end),
                Condition::NotBetween(start, end) => !is_between(start, end),
                Condition::Null => false,
                Condition::NotNull => true,
            }
        })
    }
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Number(Decimal),
    Moment(String),
    Boolean(bool),
    Text(String),
}

impl Operand {
    fn read(source_type: &SourceType, text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` is no {what}, which the column is; correct the filter's value");
        Ok(match (source_type, source_type.lake_type()) {
            (SourceType::Decimal { .. }, _)
            | (_, DataType::Int32 | DataType::Int64 | DataType::Decimal128(..) | DataType::Float32 | DataType::Float64) => {
                Self::Number(Decimal::read(text).ok_or_else(|| wrong("number"))?)
            }
            (_, DataType::Date32 | DataType::Timestamp(..)) => Self::Moment(moment(text).ok_or_else(|| wrong("date or time"))?),
            (_, DataType::Boolean) => Self::Boolean(boolean(text).ok_or_else(|| wrong("boolean"))?),
            (SourceType::Time { .. }, _) | (_, DataType::Binary | DataType::List(_)) => {
                return Err("columns of this type can't be filtered by their values; use `null` or `notnull`".to_owned());
            }
            _ => Self::Text(text.to_owned()),
        })
    }

    /// The order of a value to this one.
    fn order(&self, value: &str) -> Ordering {
        // a column's own values are of its type
        match self {
            Self::Number(number) => Decimal::read(value).map_or(Ordering::Greater, |value| value.cmp(number)),
            Self::Moment(at) => moment(value).map_or(Ordering::Greater, |value| value.cmp(at)),
            Self::Boolean(is) => boolean(value).map_or(Ordering::Greater, |value| value.cmp(is)),
            Self::Text(text) => value.cmp(text.as_str()),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A date or time as text that sorts: a date is its midnight.
fn moment(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('Z').replace('T', " ");
    let (date, time) = text.split_once(' ').unwrap_or((&text, "00:00:00"));
    let date = chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time = chrono::NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok()?;
    Some(date.and_time(time).format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}

/// A number with all of its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without zeros in front.
    whole: String,
    /// Without zeros at the end.
    fraction: String,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() < 400)?),
            None => (text, 0),
        };
        let (is_negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
        for _ in 0..exponent {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        }
        for _ in exponent..0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let is_negative = is_negative && !(whole.is_empty() && fraction.is_empty());
        Some(Self { is_negative, whole, fraction })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |number: &Self| (number.whole.len(), number.whole.clone(), number.fraction.clone());
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
