//! An attribute's value as a mapping writes it: text with `${column}` in it, or a document of such.

use super::item::{Attribute, AttributeKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A row's values by column; of NULL and of a column that isn't there, nothing.
pub(super) type RowValues = Map<String, Value>;

/// How an attribute is made of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Template {
    /// One value.
    Scalar(AttributeKind, Vec<Part>),
    /// A document of attributes.
    Map(Vec<(String, Template)>),
    /// Several.
    List(Vec<Template>),
}

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Column(String),
}

impl Template {
    /// `"${first},${last}"`.
    pub(super) fn scalar(kind: AttributeKind, text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let end = rest[start..].find('}').ok_or_else(|| format!("`{text}` has a ${{ without its }}"))? + start;
            if start > 0 {
                parts.push(Part::Literal(rest[..start].to_owned()));
            }
            parts.push(Part::Column(rest[start + 2..end].trim().to_owned()));
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self::Scalar(kind, parts))
    }

    /// A document as DynamoDB writes it: `{"M": {"Home": {"S": "${phone}"}}}`.
    pub(super) fn document(value: &Value) -> Result<Self, String> {
        let wrong = || "a document's value is written as {\"M\": {\"name\": {\"S\": \"${column}\"}}}".to_owned();
        let (kind, inner) =
            value.as_object().filter(|object| object.len() == 1).and_then(|object| object.iter().next()).ok_or_else(wrong)?;
        let scalar = |kind| match inner {
            Value::String(text) => Self::scalar(kind, text),
            other => Self::scalar(kind, &other.to_string()),
        };
        match (kind.as_str(), inner) {
            ("S", _) => scalar(AttributeKind::Text),
            ("N", _) => scalar(AttributeKind::Number),
            ("BOOL", _) => scalar(AttributeKind::Boolean),
            ("B", _) => scalar(AttributeKind::Bytes),
            ("M", Value::Object(attributes)) => {
                let named = attributes.iter().map(|(name, value)| Ok((name.clone(), Self::document(value)?)));
                named.collect::<Result<_, String>>().map(Self::Map)
            }
            ("L", Value::Array(values)) => values.iter().map(Self::document).collect::<Result<_, _>>().map(Self::List),
            _ => Err(wrong()),
        }
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> BTreeSet<&str> {
        match self {
            Self::Scalar(_, parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Column(name) => Some(name.as_str()),
                    Part::Literal(_) => None,
                })
                .collect(),
            Self::Map(named) => named.iter().flat_map(|(_, template)| template.columns()).collect(),
            Self::List(all) => all.iter().flat_map(Self::columns).collect(),
        }
    }

    /// What it is of a row; `None` if all that it reads is NULL. `Err` says why a value isn't of its type.
    pub(super) fn of(&self, row: &RowValues) -> Result<Option<Attribute>, &'static str> {
        match self {
            Self::Scalar(kind, parts) => {
                let mut text = String::new();
                let (mut reads, mut found) = (false, false);
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.push_str(literal),
                        Part::Column(name) => {
                            reads = true;
                            if let Some(value) = row.get(name).filter(|value| !value.is_null()) {
                                found = true;
                                text.push_str(&text_of(value));
                            }
                        }
                    }
                }
                if reads && !found { Ok(None) } else { scalar(*kind, text).map(Some) }
            }
            Self::Map(named) => {
                let mut attributes = BTreeMap::new();
                for (name, template) in named {
                    if let Some(value) = template.of(row)? {
                        attributes.insert(name.clone(), value);
                    }
                }
                Ok(Some(Attribute::Map(attributes)))
            }
            Self::List(all) => {
                let values = all.iter().filter_map(|template| template.of(row).transpose()).collect::<Result<_, _>>()?;
                Ok(Some(Attribute::List(values)))
            }
        }
    }
}

/// A value as text: numbers as their digits.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text as an attribute of a kind.
pub(super) fn scalar(kind: AttributeKind, text: String) -> Result<Attribute, &'static str> {
    Ok(match kind {
        AttributeKind::Text => Attribute::Text(text),
        AttributeKind::Number => {
            let digits = text.trim();
            let is_number = digits.parse::<serde_json::Number>().is_ok();
            if !is_number {
                return Err("it is no number");
            }
            Attribute::Number(digits.to_owned())
        }
        AttributeKind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Attribute::Boolean(true),
            "false" | "0" => Attribute::Boolean(false),
            _ => return Err("it is no boolean"),
        },
        AttributeKind::Bytes => Attribute::Bytes(STANDARD.decode(&text).map_err(|_| "it is not base64")?),
    })
}
