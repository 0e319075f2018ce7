//! A table of DynamoDB, read whole by several scans at once.

use crate::cloud::{AwsUrl, Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use crate::lookup::Item;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};
use std::collections::HashMap;

/// Scans at once.
const SEGMENTS: i32 = 4;
/// How often the SDK tries a call: a throttled one waits longer each time.
const ATTEMPTS: u32 = 8;

/// All items of a table.
///
/// # Errors
/// If a part of it can't be read, whatever the reason: what is throttled isn't missing.
pub(super) async fn scan(url: &AwsUrl) -> Result<Vec<Item>> {
    let client = Client::new(&sdk_config(url, &Calls::retried(ATTEMPTS)).await?);
    let segments = (0..SEGMENTS).map(|segment| scan_segment(&client, &url.name, segment));
    let items = futures::future::try_join_all(segments).await.map_err(|error| error.with("table", &url.name))?;
    Ok(items.into_iter().flatten().collect())
}

async fn scan_segment(client: &Client, table: &str, segment: i32) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let scan = client.scan().table_name(table).segment(segment).total_segments(SEGMENTS).set_exclusive_start_key(after);
        let page = scan.consistent_read(true).send().await.map_err(|error| match Failure::of(&error) {
            Failure::Missing => Error::new(Area::Lake, Kind::Refused, "the lookup's table isn't there")
                .remedy("make it, or start the delivery that fills it"),
            _ => error_of(Area::Lake, "a lookup's table can't be read", &error),
        })?;
        items.extend(page.items.unwrap_or_default().iter().map(item_of));
        match page.last_evaluated_key {
            Some(key) if !key.is_empty() => after = Some(key),
            _ => return Ok(items),
        }
    }
}

pub(in crate::lookup) fn item_of(attributes: &HashMap<String, AttributeValue>) -> Item {
    let mut names: Vec<&String> = attributes.keys().collect();
    names.sort_unstable();
    names.into_iter().map(|name| (name.clone(), attributes[name].to_json())).collect()
}

/// An attribute's value as JSON, and back.
pub trait ItemValue {
    /// As JSON: numbers with all their digits, binary in base64, sets as lists.
    fn to_json(&self) -> Value;
}

impl ItemValue for AttributeValue {
    fn to_json(&self) -> Value {
        match self {
            Self::S(text) => text.clone().into(),
            Self::N(digits) => digits.parse::<Number>().map_or_else(|_| digits.clone().into(), Value::Number),
            Self::Bool(value) => (*value).into(),
            Self::B(bytes) => STANDARD.encode(bytes.as_ref()).into(),
            Self::L(values) => values.iter().map(Self::to_json).collect(),
            Self::M(values) => Value::Object(item_of(values)),
            Self::Ss(values) => values.iter().cloned().map(Value::from).collect(),
            Self::Ns(values) => values.iter().map(|digits| Self::N(digits.clone()).to_json()).collect(),
            Self::Bs(values) => values.iter().map(|bytes| STANDARD.encode(bytes.as_ref())).map(Value::from).collect(),
            _ => Value::Null,
        }
    }
}
