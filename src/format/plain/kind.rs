//! The types of plain JSON's columns, and how a value becomes one of them.

use super::pattern::Pattern;
use crate::event::SourceType;
use crate::format::cell::Cell;
use crate::format::number::parse_decimal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fmt;

/// A declared type: `string`, `int`, `bigint`, `float`, `double`, `boolean`, `decimal(p,s)`, `date`, `timestamp`, `json`, `binary`,
/// `array<…>` of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainType {
    source_type: SourceType,
    /// How dates and times are written.
    pattern: Pattern,
}

impl PlainType {
    /// From its name and, for dates and times, their pattern.
    ///
    /// # Errors
    /// What is wrong, for the configuration's reader.
    pub fn parse(text: &str, pattern: Option<&str>) -> Result<Self, String> {
        use SourceType as T;
        let wrong = || {
            format!(
                "there is no type `{text}`; write string, int, bigint, float, double, boolean, decimal(p,s), date, timestamp, json, binary or array<…>"
            )
        };
        let name = text.trim().to_ascii_lowercase();
        let source_type = match name.as_str() {
            "string" => T::Text { charset: "utf8mb4".into(), max_bytes: 0 },
            "int" => T::Int { unsigned: false },
            "bigint" => T::BigInt { unsigned: false },
            "float" => T::Float,
            "double" => T::Double,
            "boolean" => T::Bool,
            "date" => T::Date,
            "timestamp" => T::Timestamp { fsp: 6 },
            "json" => T::Json,
            "binary" => T::Binary { fixed_bytes: 0 },
            _ if name.starts_with("array<") => {
                let item = name.strip_prefix("array<").and_then(|rest| rest.strip_suffix('>')).ok_or_else(wrong)?;
                let item = Self::parse(item, pattern)?;
                if matches!(item.source_type, T::List { .. }) {
                    return Err(format!("`{text}` is a list of lists; write json, which keeps it as text"));
                }
                return Ok(Self { source_type: T::List { item: Box::new(item.source_type) }, pattern: item.pattern });
            }
            _ => {
                let inner = name.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
                let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
                let (precision, scale) = (precision.trim().parse().ok(), scale.trim().parse().ok());
                match (precision, scale) {
                    (Some(precision @ 1..=38), Some(scale)) if scale <= precision => T::Decimal { precision, scale },
                    _ => return Err(format!("`{text}` is not a decimal; write decimal(p,s) with p up to 38 and s up to p")),
                }
            }
        };
        let pattern = match (pattern, &source_type) {
            (None, _) => Pattern::Iso,
            (Some(pattern), T::Date | T::Timestamp { .. }) => Pattern::parse(pattern)?,
            (Some(_), _) => return Err(format!("`format` is for dates and timestamps, not for {text}")),
        };
        Ok(Self { source_type, pattern })
    }

    /// The plain type of a source's type, or of an inferred column, with dates and times as ISO 8601 has them.
    pub fn of(source_type: SourceType) -> Self {
        Self { source_type, pattern: Pattern::Iso }
    }

    /// A value as a cell; `Err` says what is wrong, without the value.
    ///
    /// # Errors
    /// If it isn't of this type, and can't be converted without loss.
    pub fn cell(&self, value: &Value) -> Result<Cell<'static>, &'static str> {
        use SourceType as T;
        if let (T::List { item }, false) = (&self.source_type, value.is_null()) {
            let item = Self { source_type: item.as_ref().clone(), pattern: self.pattern.clone() };
            let items = value.as_array().ok_or("it is no list")?.iter().map(|value| item.cell(value));
            return Ok(Cell::List(items.collect::<Result<_, _>>().map_err(|_| "an item is of another type")?));
        }
        let text = match value {
            Value::Null => return Ok(Cell::Null),
            Value::String(text) => text.clone(),
            // as it is written: no digit is lost
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            other => other.to_string(),
        };
        let is_nested = value.is_array() || value.is_object();
        let is_boolean = value.is_boolean();
        if is_nested && !matches!(self.source_type, T::Text { .. } | T::Json | T::Objects { .. }) {
            return Err("it is a list or an object");
        }
        if is_boolean && !matches!(self.source_type, T::Bool | T::Text { .. } | T::Json | T::Objects { .. }) {
            return Err("it is a boolean");
        }
        Ok(match &self.source_type {
            T::Int { .. } => {
                let number = parse_decimal(&text, 10, 0).and_then(|number| i32::try_from(number).ok());
                Cell::Int(number.ok_or("it is no int")?.into())
            }
            T::BigInt { .. } => {
                let number = parse_decimal(&text, 19, 0).and_then(|number| i64::try_from(number).ok());
                Cell::Int(number.ok_or("it is no bigint")?)
            }
            T::Decimal { precision, scale } => {
                let scale = i8::try_from(*scale).unwrap_or(0);
                Cell::Decimal(parse_decimal(&text, *precision, scale).ok_or("it doesn't fit the decimal")?)
            }
            T::Float => {
                let number: f32 = text.trim().parse().map_err(|_| "it is no number")?;
                if number.is_infinite() && has_digits(&text) {
                    return Err("it is too large for a float");
                }
                Cell::Float(number)
            }
            T::Double => {
                let number: f64 = text.trim().parse().map_err(|_| "it is no number")?;
                if number.is_infinite() && has_digits(&text) {
                    return Err("it is too large for a double");
                }
                Cell::Double(number)
            }
            T::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Cell::Bool(true),
                "false" | "0" => Cell::Bool(false),
                _ => return Err("it is no boolean"),
            },
            T::Date => Cell::Date(self.clock(value)?.date(&text).ok_or("it is no date")?),
            T::Timestamp { .. } => Cell::Micros(self.clock(value)?.instant(&text).ok_or("it is no timestamp")?),
            T::Binary { .. } => Cell::Bytes(STANDARD.decode(&text).map_err(|_| "it is not base64")?.into()),
            T::Json | T::Objects { .. } => Cell::Text(value.to_string().into()),
            _ => Cell::Text(text.into()),
        })
    }

    fn clock(&self, value: &Value) -> Result<&Pattern, &'static str> {
        if value.is_number() && !self.pattern.takes_numbers() {
            return Err("it is a number, and `format` doesn't say of what");
        }
        Ok(&self.pattern)
    }

    /// What was declared, with the pattern of dates and times.
    pub fn declared(&self) -> String {
        if self.pattern == Pattern::Iso { self.to_string() } else { format!("{self} as {}", self.pattern) }
    }

    /// The type in the lake.
    pub fn source_type(&self) -> &SourceType {
        &self.source_type
    }
}

/// A number that is written out, not called infinite.
fn has_digits(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

impl fmt::Display for PlainType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use SourceType as T;
        f.write_str(match &self.source_type {
            T::Int { .. } => "int",
            T::BigInt { .. } => "bigint",
            T::Float => "float",
            T::Double => "double",
            T::Bool => "boolean",
            T::Date => "date",
            T::Timestamp { .. } => "timestamp",
            T::Json | T::Objects { .. } => "json",
            T::Binary { .. } => "binary",
            T::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
            T::List { item } => return write!(f, "array<{}>", Self::of(item.as_ref().clone())),
            _ => "string",
        })
    }
}
