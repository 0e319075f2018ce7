//! The two tables: looked at, and made if they aren't there.

use super::item::LEASE_KEY;
use super::runs::{EXPIRES_AT, PIPELINE, RUN};
use super::{DynamoStore, refused};
use crate::cloud::{Failure, error_of};
use crate::error::{Area, Error, Kind, Result};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification,
};
use std::time::Duration;

/// How long a table that is being made is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

impl DynamoStore {
    /// Both tables are there, have the right keys and can be used.
    pub(super) async fn ensure_tables(&self) -> Result<()> {
        self.ensure_table(&self.table, &[LEASE_KEY]).await?;
        if self.ensure_table(&self.runs_table, &[PIPELINE, RUN]).await? {
            self.expire_runs().await;
        }
        Ok(())
    }

    /// Says whether the table was made.
    async fn ensure_table(&self, table: &str, keys: &[&str]) -> Result<bool> {
        let at = |error: Error| error.with("table", table);
        let mut was_made = false;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.describe(table).await.map_err(at)? {
                Some(found) if is_active(&found) => {
                    ensure_keys(&found, keys).map_err(at)?;
                    return Ok(was_made);
                }
                None if !was_made => {
                    self.create(table, keys).await.map_err(at)?;
                    was_made = true;
                    tracing::info!(table, "made the state store's table");
                }
                // being made, by us or by another; what was just made may not be seen at once
                Some(_) | None if tokio::time::Instant::now() < deadline => tokio::time::sleep(LOOK_INTERVAL).await,
                Some(_) | None => {
                    return Err(at(Error::new(Area::Config, Kind::Transient, "a table of the state store doesn't become active")));
                }
            }
        }
    }

    async fn describe(&self, table: &str) -> Result<Option<TableDescription>> {
        match self.client.describe_table().table_name(table).send().await {
            Ok(answer) => Ok(answer.table),
            Err(error) if Failure::of(&error) == Failure::Missing => Ok(None),
            Err(error) => Err(error_of(Area::Config, "the state store's table can't be looked at", &error)),
        }
    }

    async fn create(&self, table: &str, keys: &[&str]) -> Result<()> {
        let mut create = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
            let invalid = |error| Error::bug("a table's key can't be described").caused_by(error);
            let attribute = AttributeDefinition::builder().attribute_name(*key).attribute_type(ScalarAttributeType::S).build();
            let element = KeySchemaElement::builder().attribute_name(*key).key_type(kind).build();
            create = create.attribute_definitions(attribute.map_err(invalid)?).key_schema(element.map_err(invalid)?);
        }
        match create.send().await {
            Ok(_) => Ok(()),
            Err(error) => match Failure::of(&error) {
                // another process makes it at this moment
                Failure::Busy => Ok(()),
                Failure::Denied => Err(refused("the state store's table isn't there and can't be made", &error).remedy(format!(
                    "grant dynamodb:CreateTable, or make the table with the string keys {} (see deploy/), billed on demand",
                    keys.join(" and ")
                ))),
                _ => Err(error_of(Area::Config, "the state store's table can't be made", &error)),
            },
        }
    }

    /// Old runs go by themselves. Without the right to say so, they stay.
    async fn expire_runs(&self) {
        let specification = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_AT).build();
        let Ok(specification) = specification else { return };
        let set = self.client.update_time_to_live().table_name(&*self.runs_table).time_to_live_specification(specification);
        if let Err(error) = set.send().await {
            let error = error_of(Area::Config, "the audit's old runs won't expire", &error);
            tracing::warn!(%error, table = %self.runs_table, "go on without");
        }
    }
}

fn is_active(table: &TableDescription) -> bool {
    matches!(table.table_status, Some(TableStatus::Active | TableStatus::Updating))
}

fn ensure_keys(table: &TableDescription, keys: &[&str]) -> Result<()> {
    let found: Vec<&str> = table.key_schema().iter().map(KeySchemaElement::attribute_name).collect();
    if found == keys {
        return Ok(());
    }
    Err(Error::new(Area::Config, Kind::Refused, "the state store's table has other keys")
        .with("found", found.join(","))
        .with("needed", keys.join(","))
        .remedy("name another table in state.url; it is made if it isn't there"))
}
