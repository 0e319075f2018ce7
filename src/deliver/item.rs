//! Items and their attributes.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// What an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeKind {
    /// Text.
    Text,
    /// A number, with all its digits.
    Number,
    /// True or false.
    Boolean,
    /// Bytes.
    Bytes,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// A number as its digits.
    Number(String),
    /// True or false.
    Boolean(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Attributes by name.
    Map(BTreeMap<String, Attribute>),
    /// Several.
    List(Vec<Attribute>),
}

impl Attribute {
    /// As DynamoDB has it.
    pub fn to_dynamodb(&self) -> AttributeValue {
        match self {
            Self::Text(text) => AttributeValue::S(text.clone()),
            Self::Number(digits) => AttributeValue::N(digits.clone()),
            Self::Boolean(value) => AttributeValue::Bool(*value),
            Self::Bytes(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
            Self::Map(attributes) => {
                AttributeValue::M(attributes.iter().map(|(name, value)| (name.clone(), value.to_dynamodb())).collect())
            }
            Self::List(values) => AttributeValue::L(values.iter().map(Self::to_dynamodb).collect()),
        }
    }

    /// As JSON; bytes in base64.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Number(digits) => digits.parse::<Number>().map_or_else(|_| digits.clone().into(), Value::Number),
            Self::Boolean(value) => (*value).into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::Map(attributes) => Value::Object(json(attributes)),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
        }
    }

    /// About the bytes that a store counts for it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Number(text) => text.len(),
            Self::Boolean(_) => 1,
            Self::Bytes(bytes) => bytes.len(),
            Self::Map(attributes) => attributes.iter().map(|(name, value)| name.len() + value.bytes() + 3).sum(),
            Self::List(values) => values.iter().map(|value| value.bytes() + 3).sum(),
        }
    }
}

fn json(attributes: &BTreeMap<String, Attribute>) -> Map<String, Value> {
    attributes.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
}

/// What an item is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemKey {
    /// The partition key's value.
    pub partition: Attribute,
    /// The sort key's value, where the table has one.
    pub sort: Option<Attribute>,
}

/// For messages.
impl std::fmt::Display for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |attribute: &Attribute| match attribute.to_json() {
            Value::String(text) => text.chars().take(100).collect(),
            other => other.to_string(),
        };
        f.write_str(&text(&self.partition))?;
        self.sort.as_ref().map_or(Ok(()), |sort| write!(f, ",{}", text(sort)))
    }
}

/// An item: attributes by name, those of its key included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is found by.
    pub key: ItemKey,
    /// All of its attributes.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Item {
    /// As JSON.
    pub fn to_json(&self) -> Map<String, Value> {
        json(&self.attributes)
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    /// It takes the place of what has its key.
    Put(Item),
    /// It goes.
    Delete(ItemKey),
}

impl ItemChange {
    /// The item's key.
    pub fn key(&self) -> &ItemKey {
        match self {
            Self::Put(item) => &item.key,
            Self::Delete(key) => key,
        }
    }

    /// About the bytes that a store counts for it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(item) => item.attributes.iter().map(|(name, value)| name.len() + value.bytes()).sum(),
            Self::Delete(key) => key.partition.bytes() + key.sort.as_ref().map_or(0, Attribute::bytes),
        }
    }
}

/// A target table's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyKinds {
    /// The partition key's attribute.
    pub partition: (String, AttributeKind),
    /// The sort key's, where there is one.
    pub sort: Option<(String, AttributeKind)>,
}
