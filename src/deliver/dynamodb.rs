//! Items in tables of DynamoDB. Each call of `write` is a transaction that holds only for the target's owner.

use super::item::{Attribute, AttributeKind, ItemChange, ItemKey, KeyKinds};
use super::limits;
use super::sqlite::overtaken;
use super::store::ItemStore;
use crate::cloud::{AwsUrl, Calls, Failure, error_of, sdk_config};
use crate::error::{Area, Error, Kind, Result};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, Delete, KeySchemaElement, KeyType, Put, ReturnValue,
    ScalarAttributeType, TableStatus, TimeToLiveSpecification, TransactWriteItem, Update,
};
use futures::stream::{BoxStream, try_unfold};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often the SDK tries a call: a throttled one waits longer each time.
const ATTEMPTS: u32 = 8;
/// How long a table that is being made is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// The control table's key, and what it holds.
const TARGET: &str = "target";
const OWNER: &str = "owner";
const CHECKPOINT: &str = "checkpoint";

/// How far a table is read.
type Place = HashMap<String, AttributeValue>;

/// A store of tables.
#[derive(Debug)]
pub(super) struct DynamoItems {
    client: Client,
    control: String,
    ttl_attribute: Option<String>,
    /// Whether the target lets its items expire, as far as is known.
    expires: AtomicBool,
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bug("a call of DynamoDB can't be described").caused_by(error)
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

impl DynamoItems {
    pub(super) async fn open(url: &AwsUrl, ttl_attribute: Option<String>) -> Result<Self> {
        let client = Client::new(&sdk_config(url, &Calls::retried(ATTEMPTS)).await?);
        Ok(Self { client, control: url.name.clone(), ttl_attribute, expires: AtomicBool::new(false) })
    }

    /// Waits until the table can be used; makes it if it isn't there.
    async fn ensure(&self, table: &str, key: &KeyKinds) -> Result<()> {
        let mut was_made = false;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = match self.client.describe_table().table_name(table).send().await {
                Ok(answer) => answer.table,
                Err(error) if Failure::of(&error) == Failure::Missing => None,
                Err(error) => return Err(error_of(Area::Lake, "a table of items can't be looked at", &error).with("target", table)),
            };
            match known {
                Some(found) if matches!(found.table_status, Some(TableStatus::Active | TableStatus::Updating)) => {
                    let kind_of = |name: &str| {
                        let definition = found.attribute_definitions().iter().find(|other| other.attribute_name() == name);
                        definition.map_or("?", |definition| definition.attribute_type().as_str())
                    };
                    let named = found.key_schema().iter().map(|element| element.attribute_name());
                    let named: Vec<String> = named.map(|name| format!("{name} {}", kind_of(name))).collect();
                    let wanted = std::iter::once(&key.partition).chain(&key.sort);
                    let wanted: Vec<String> =
                        wanted.map(|(name, kind)| format!("{name} {}", scalar_type(*kind).as_str())).collect();
                    if named != wanted {
                        return Err(Error::new(Area::Lake, Kind::Data, "the table of items has another key")
                            .with("target", table)
                            .with("found", named.join(","))
                            .with("wanted", wanted.join(","))
                            .remedy("correct the table mapping, or delete the table"));
                    }
                    return Ok(());
                }
                None if !was_made => {
                    self.create(table, key).await.map_err(|error| error.with("target", table))?;
                    was_made = true;
                    tracing::info!(table, "made a table of items");
                }
                _ if Instant::now() < deadline => tokio::time::sleep(LOOK_INTERVAL).await,
                _ => {
                    let late = Error::new(Area::Lake, Kind::Transient, "a table of items doesn't become active");
                    return Err(late.with("target", table));
                }
            }
        }
    }

    async fn create(&self, table: &str, key: &KeyKinds) -> Result<()> {
        let mut create = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for ((name, kind), role) in std::iter::once(&key.partition).chain(&key.sort).zip([KeyType::Hash, KeyType::Range]) {
            let definition =
                AttributeDefinition::builder().attribute_name(name).attribute_type(scalar_type(*kind)).build().map_err(invalid)?;
            let element = KeySchemaElement::builder().attribute_name(name).key_type(role).build().map_err(invalid)?;
            create = create.attribute_definitions(definition).key_schema(element);
        }
        match create.send().await {
            Ok(_) => Ok(()),
            // another process makes it
            Err(error) if Failure::of(&error) == Failure::Busy => Ok(()),
            Err(error) => Err(error_of(Area::Lake, "a table of items can't be made", &error)),
        }
    }

    async fn let_expire(&self, table: &str, attribute: &str) -> Result<()> {
        let described = self.client.describe_time_to_live().table_name(table).send().await;
        let described = described
            .map_err(|error| error_of(Area::Lake, "it can't be seen whether items expire", &error).with("target", table))?;
        let known = described.time_to_live_description.and_then(|known| known.attribute_name);
        match known {
            Some(known) if known == attribute => return Ok(()),
            Some(known) => {
                return Err(Error::new(Area::Lake, Kind::Data, "the items expire by another attribute")
                    .with("target", table)
                    .with("found", known)
                    .with("wanted", attribute)
                    .remedy("correct `ttl_attribute`, or switch the table's time to live off"));
            }
            None => {}
        }
        let rule = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build().map_err(invalid)?;
        let set = self.client.update_time_to_live().table_name(table).time_to_live_specification(rule).send().await;
        set.map(|_| ()).map_err(|error| error_of(Area::Lake, "items can't be made to expire", &error).with("target", table))
    }

    /// Keys of items from a place on, and the next place.
    async fn page(&self, target: &str, key: &KeyKinds, after: Option<Place>) -> Result<(Vec<ItemKey>, Option<Place>)> {
        let mut scan = self.client.scan().table_name(target).consistent_read(true).set_exclusive_start_key(after);
        scan = scan.projection_expression(if key.sort.is_some() { "#p, #s" } else { "#p" });
        scan = scan.expression_attribute_names("#p", &key.partition.0);
        if let Some((name, _)) = &key.sort {
            scan = scan.expression_attribute_names("#s", name);
        }
        let page =
            scan.send().await.map_err(|error| error_of(Area::Lake, "the items can't be listed", &error).with("target", target))?;
        let mut keys = Vec::with_capacity(page.items().len());
        for item in page.items() {
            let value = |name: &str| item.get(name).and_then(attribute_of);
            let Some(partition) = value(&key.partition.0) else { continue };
            keys.push(ItemKey { partition, sort: key.sort.as_ref().and_then(|(name, _)| value(name)) });
        }
        Ok((keys, page.last_evaluated_key.filter(|next| !next.is_empty())))
    }

    /// What makes a transaction hold only for the owner; moves the checkpoint where one is given.
    fn for_owner(&self, target: &str, owner: &str, checkpoint: Option<&str>) -> Result<TransactWriteItem> {
        const CONDITION: &str = "#owner = :owner";
        let item = match checkpoint {
            Some(checkpoint) => TransactWriteItem::builder().update(
                Update::builder()
                    .table_name(&self.control)
                    .key(TARGET, text(target))
                    .condition_expression(CONDITION)
                    .update_expression("SET #checkpoint = :checkpoint")
                    .expression_attribute_names("#owner", OWNER)
                    .expression_attribute_names("#checkpoint", CHECKPOINT)
                    .expression_attribute_values(":owner", text(owner))
                    .expression_attribute_values(":checkpoint", text(checkpoint))
                    .build()
                    .map_err(invalid)?,
            ),
            None => TransactWriteItem::builder().condition_check(
                ConditionCheck::builder()
                    .table_name(&self.control)
                    .key(TARGET, text(target))
                    .condition_expression(CONDITION)
                    .expression_attribute_names("#owner", OWNER)
                    .expression_attribute_values(":owner", text(owner))
                    .build()
                    .map_err(invalid)?,
            ),
        };
        Ok(item.build())
    }
}

/// A key's attribute as DynamoDB declares it.
fn scalar_type(kind: AttributeKind) -> ScalarAttributeType {
    match kind {
        AttributeKind::Number => ScalarAttributeType::N,
        AttributeKind::Bytes => ScalarAttributeType::B,
        AttributeKind::Text | AttributeKind::Boolean => ScalarAttributeType::S,
    }
}

fn key_of(kinds: &KeyKinds, key: &ItemKey) -> HashMap<String, AttributeValue> {
    let sort = kinds.sort.iter().zip(&key.sort).map(|((name, _), value)| (name.clone(), value.to_dynamodb()));
    std::iter::once((kinds.partition.0.clone(), key.partition.to_dynamodb())).chain(sort).collect()
}

fn written(target: &str, kinds: &KeyKinds, change: &ItemChange) -> Result<TransactWriteItem> {
    Ok(match change {
        ItemChange::Put(item) => {
            let attributes = item.attributes.iter().map(|(name, value)| (name.clone(), value.to_dynamodb())).collect();
            let put = Put::builder().table_name(target).set_item(Some(attributes)).build().map_err(invalid)?;
            TransactWriteItem::builder().put(put).build()
        }
        ItemChange::Delete(key) => {
            let delete = Delete::builder().table_name(target).set_key(Some(key_of(kinds, key))).build().map_err(invalid)?;
            TransactWriteItem::builder().delete(delete).build()
        }
    })
}

/// An item that can't be stops its delivery; `key` is its key's text.
fn no_item(target: &str, key: Option<String>, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = Error::new(Area::Lake, Kind::Data, "an item can't be in DynamoDB").caused_by(why).with("target", target);
    let error = match key {
        Some(key) => error.with("item", key),
        None => error,
    };
    error.remedy(
        "correct the row at the source or the table mapping (exclude-columns, a filter), then run `binlake backfill --table`",
    )
}

/// Why a transaction didn't happen. The owner's condition is its last part.
fn refused(error: &SdkError<TransactWriteItemsError>, target: &str, changes: &[&ItemChange]) -> Error {
    let reasons = match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled.cancellation_reasons(),
        _ => &[],
    };
    if reasons.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed")) {
        return overtaken().with("target", target);
    }
    let other = reasons.iter().enumerate().filter_map(|(at, reason)| Some((at, reason.code()?))).find(|(_, code)| *code != "None");
    match other {
        None if error.code() == Some("ValidationException") => {
            no_item(target, None, error.message().unwrap_or_default().to_owned())
        }
        Some((_, code @ ("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"))) => {
            Error::new(Area::Lake, Kind::Transient, "items can't be written now").with("reason", code).with("target", target)
        }
        Some((at, code)) => {
            let why = reasons.get(at).and_then(|reason| reason.message()).unwrap_or(code);
            no_item(target, changes.get(at).map(|change| change.key().to_string()), why.to_owned())
        }
        None => error_of(Area::Lake, "items can't be written", error).with("target", target),
    }
}

#[async_trait]
impl ItemStore for DynamoItems {
    async fn claim(&self, target: &str, owner: &str) -> Result<Option<String>> {
        let key = KeyKinds { partition: (TARGET.to_owned(), AttributeKind::Text), sort: None };
        self.ensure(&self.control, &key).await?;
        let update = self
            .client
            .update_item()
            .table_name(&self.control)
            .key(TARGET, text(target))
            .update_expression("SET #owner = :owner")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":owner", text(owner))
            .return_values(ReturnValue::AllNew);
        let claimed = update.send().await.map_err(|error| {
            error_of(Area::Lake, "a delivery can't be claimed", &error).with("target", target).with("table", &self.control)
        })?;
        let checkpoint = claimed.attributes.as_ref().and_then(|attributes| attributes.get(CHECKPOINT));
        Ok(checkpoint.and_then(|value| value.as_s().ok()).cloned())
    }

    async fn checkpoint(&self, target: &str) -> Result<Option<String>> {
        let get = self.client.get_item().table_name(&self.control).key(TARGET, text(target)).consistent_read(true);
        let read = match get.send().await {
            Err(error) if Failure::of(&error) == Failure::Missing => return Ok(None),
            read => {
                read.map_err(|error| error_of(Area::Lake, "a delivery's checkpoint can't be read", &error).with("target", target))?
            }
        };
        let checkpoint = read.item.as_ref().and_then(|item| item.get(CHECKPOINT));
        Ok(checkpoint.and_then(|value| value.as_s().ok()).cloned())
    }

    async fn prepare(&self, target: &str, key: &KeyKinds) -> Result<()> {
        self.ensure(target, key).await?;
        if let (false, Some(attribute)) = (self.expires.load(Ordering::Relaxed), &self.ttl_attribute) {
            self.let_expire(target, attribute).await?;
            self.expires.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn write(
        &self,
        target: &str,
        owner: &str,
        key: &KeyKinds,
        changes: &[ItemChange],
        checkpoint: Option<&str>,
    ) -> Result<()> {
        let mut sent = Vec::with_capacity(changes.len());
        for change in changes {
            match (limits::refusal(change), change) {
                (None, _) => sent.push(change),
                (Some(why), ItemChange::Put(item)) => return Err(no_item(target, Some(item.key.to_string()), why)),
                // there is nothing of this key
                (Some(_), ItemChange::Delete(_)) => {}
            }
        }
        let mut items = sent.iter().map(|change| written(target, key, change)).collect::<Result<Vec<_>>>()?;
        items.push(self.for_owner(target, owner, checkpoint)?);
        let token = uuid::Uuid::new_v4().to_string();
        let call = self.client.transact_write_items().set_transact_items(Some(items)).client_request_token(token);
        call.send().await.map(|_| ()).map_err(|error| refused(&error, target, &sent))
    }

    fn keys<'a>(&'a self, target: &'a str, key: &'a KeyKinds) -> BoxStream<'a, Result<Vec<ItemKey>>> {
        Box::pin(try_unfold(Some(None), move |after| async move {
            let Some(after) = after else { return Ok(None) };
            let (keys, next) = self.page(target, key, after).await?;
            Ok(Some((keys, next.map(Some))))
        }))
    }

    fn most_at_once(&self) -> (usize, usize) {
        // 100 with the owner's; 4 MiB in all
        (99, 3 << 20)
    }
}

/// A key's attribute.
fn attribute_of(value: &AttributeValue) -> Option<Attribute> {
    match value {
        AttributeValue::S(text) => Some(Attribute::Text(text.clone())),
        AttributeValue::N(digits) => Some(Attribute::Number(digits.clone())),
        AttributeValue::B(bytes) => Some(Attribute::Bytes(bytes.as_ref().to_vec())),
        _ => None,
    }
}
