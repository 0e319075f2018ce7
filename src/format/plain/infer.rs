//! Columns of fields that nobody declared: the fields of a record, flattened, and the types that their values have in common.
//!
//! Nothing is altered by a guess: a number with more digits than a double holds makes its column a `decimal` or a `string`, and what looks like a date
//! is a `string` until somebody declares it.

use super::PlainColumn;
use crate::event::SourceType;
use crate::format::number::parse_decimal;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Whole numbers up to here are doubles without loss.
const EXACT_IN_DOUBLE: u64 = 1 << 53;
/// More columns than these aren't inferred: the names are then rather data.
const MOST_COLUMNS: usize = 1000;
/// Objects that lie deeper are JSON text.
const MOST_LEVELS: usize = 12;
/// Names that a lake's table has for itself.
const OWN_PREFIXES: [&str; 2] = ["_hoodie_", "_binlake_"];
const OWN: [&str; 2] = ["_commit_ts", "_position"];

/// Names that a table's columns can't have because others have them: fields that are called so get the prefix.
#[derive(Debug, Clone, Default)]
pub(super) struct Reserved {
    pub(super) names: Vec<String>,
    pub(super) prefix: String,
}

impl Reserved {
    /// The name of the column of a field that is called `name`.
    pub(super) fn free(&self, name: String) -> String {
        let is_taken = self.names.iter().any(|taken| taken.eq_ignore_ascii_case(&name));
        if is_taken { format!("{}_{name}", self.prefix) } else { name }
    }
}

/// A record's fields that aren't declared, by the column that each is.
#[derive(Debug, Default)]
pub(super) struct Leaves<'a> {
    /// In the record's order.
    names: Vec<String>,
    values: BTreeMap<String, &'a Value>,
}

impl<'a> Leaves<'a> {
    /// The fields of a record; `Err` says why they can't be told apart.
    pub(super) fn of(record: &'a Map<String, Value>, declared: &[PlainColumn], reserved: &Reserved) -> Result<Self, String> {
        let mut leaves = Self::default();
        leaves.collect(record, &mut Vec::new(), declared, reserved)?;
        Ok(leaves)
    }

    fn collect(
        &mut self,
        fields: &'a Map<String, Value>,
        path: &mut Vec<&'a str>,
        declared: &[PlainColumn],
        reserved: &Reserved,
    ) -> Result<(), String> {
        for (field, value) in fields {
            path.push(field);
            let text = path.join(".");
            let is_declared = declared.iter().any(|column| column.path.join(".") == text);
            match value {
                _ if is_declared => {}
                Value::Object(inner) if path.len() < MOST_LEVELS => self.collect(inner, path, declared, reserved)?,
                Value::Null => {}
                value => self.add(reserved.free(column_name(path)), value, declared)?,
            }
            path.pop();
        }
        Ok(())
    }

    fn add(&mut self, name: String, value: &'a Value, declared: &[PlainColumn]) -> Result<(), String> {
        let is_declared = declared.iter().any(|column| column.name == name);
        if is_declared || self.values.insert(name.clone(), value).is_some() {
            return Err(format!("two fields would be the column `{name}`; declare one of them under another name"));
        }
        self.names.push(name);
        Ok(())
    }

    /// The value that a column has.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).copied()
    }

    /// The columns, in the record's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }
}

/// Letters, digits and `_` alone, no digit first: what all readers of the lake know as a name.
fn column_name(path: &[&str]) -> String {
    let mut name: String =
        path.join("_").chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) || name.is_empty() {
        name.insert(0, '_');
    }
    name
}

/// New fields of some records, and what their values are.
#[derive(Debug)]
pub(super) struct Fields {
    /// In lower case.
    known: BTreeSet<String>,
    count: usize,
    new: Vec<(String, Guess)>,
}

impl Fields {
    /// Beside the columns that are known.
    pub(super) fn new<'a>(known: impl Iterator<Item = &'a str>) -> Self {
        let known: BTreeSet<String> = known.map(str::to_ascii_lowercase).collect();
        Self { count: known.len(), known, new: Vec::new() }
    }

    /// Takes note of a record.
    pub(super) fn take(&mut self, leaves: &Leaves<'_>) {
        for name in leaves.names() {
            let Some(value) = leaves.get(name) else { continue };
            if let Some((_, guess)) = self.new.iter_mut().find(|(known, _)| known == name) {
                *guess = guess.and(Guess::of(value));
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let is_own = OWN.contains(&lower.as_str()) || OWN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
            if !is_own && self.count < MOST_COLUMNS && self.known.insert(lower) {
                self.count += 1;
                self.new.push((name.clone(), Guess::of(value)));
            }
        }
    }

    /// The new columns, in the order in which they came.
    pub(super) fn columns(self) -> Vec<(String, SourceType)> {
        self.new.into_iter().map(|(name, guess)| (name, guess.source_type())).collect()
    }
}

/// What all values of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Bool,
    BigInt,
    /// The same, some of which no double holds exactly.
    LongInt,
    /// Whole numbers, some of which are no bigint.
    Whole,
    /// Numbers that a double holds exactly, as far as they are written.
    Double,
    Text,
    Json,
    /// A list of these; `None`: only empty ones and nulls so far.
    List(Option<Item>),
}

/// The narrowest type that holds all of these values with every digit; NULLs say nothing, and lists and objects are text.
pub fn narrowest<'a>(values: impl Iterator<Item = &'a Value>) -> SourceType {
    let given = values.filter(|value| !value.is_null()).map(Guess::of);
    match given.reduce(Guess::and) {
        None | Some(Guess::Json | Guess::List(_)) => Guess::Text.source_type(),
        Some(guess) => guess.source_type(),
    }
}

/// What all items of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Bool,
    BigInt,
    LongInt,
    Whole,
    Double,
    Text,
}

impl Item {
    fn guess(self) -> Guess {
        match self {
            Self::Bool => Guess::Bool,
            Self::BigInt => Guess::BigInt,
            Self::LongInt => Guess::LongInt,
            Self::Whole => Guess::Whole,
            Self::Double => Guess::Double,
            Self::Text => Guess::Text,
        }
    }

    fn of(guess: Guess) -> Option<Self> {
        Some(match guess {
            Guess::Bool => Self::Bool,
            Guess::BigInt => Self::BigInt,
            Guess::LongInt => Self::LongInt,
            Guess::Whole => Self::Whole,
            Guess::Double => Self::Double,
            Guess::Text => Self::Text,
            Guess::Json | Guess::List(_) => return None,
        })
    }
}

impl Guess {
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(_) => Self::Bool,
            Value::Number(number) => {
                let text = number.to_string();
                match parse_decimal(&text, 38, 0).map(i64::try_from) {
                    Some(Ok(whole)) if whole.unsigned_abs() <= EXACT_IN_DOUBLE => Self::BigInt,
                    Some(Ok(_)) => Self::LongInt,
                    Some(Err(_)) => Self::Whole,
                    None if is_exact(&text) => Self::Double,
                    None => Self::Text,
                }
            }
            Value::Array(items) => {
                let given = items.iter().filter(|item| !item.is_null());
                let all = given.map(Self::of).reduce(Self::and);
                match all.map(Item::of) {
                    None => Self::List(None),
                    Some(Some(item)) => Self::List(Some(item)),
                    Some(None) => Self::Json,
                }
            }
            Value::Object(_) => Self::Json,
            Value::String(_) | Value::Null => Self::Text,
        }
    }

    fn and(self, other: Self) -> Self {
        use Guess::{BigInt, Double, Json, List, LongInt, Text, Whole};
        match (self, other) {
            (a, b) if a == b => a,
            (List(a), List(b)) => match (a, b) {
                (None, other) | (other, None) => List(other),
                (Some(a), Some(b)) => Item::of(a.guess().and(b.guess())).map_or(Json, |item| List(Some(item))),
            },
            (Json | List(_), _) | (_, Json | List(_)) => Json,
            (BigInt, LongInt) | (LongInt, BigInt) => LongInt,
            (BigInt | LongInt, Whole) | (Whole, BigInt | LongInt) => Whole,
            (BigInt, Double) | (Double, BigInt) => Double,
            _ => Text,
        }
    }

    fn source_type(self) -> SourceType {
        match self {
            Self::Bool => SourceType::Bool,
            Self::BigInt | Self::LongInt => SourceType::BigInt { unsigned: false },
            Self::Whole => SourceType::Decimal { precision: 38, scale: 0 },
            Self::Double => SourceType::Double,
            Self::Text => SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 },
            // what its items are isn't known, and a type stays
            Self::Json | Self::List(None) => SourceType::Json,
            Self::List(Some(item)) => SourceType::List { item: Box::new(item.guess().source_type()) },
        }
    }
}

/// Whether a double holds a number with all digits that are written.
fn is_exact(text: &str) -> bool {
    let digits = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    };
    let written = digits(text);
    written.len() <= 15 || text.parse::<f64>().is_ok_and(|value| digits(&format!("{value:?}")) == written)
}
