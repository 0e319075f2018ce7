//! Leases in DynamoDB: each write is one conditional call.
//!
//! A call whose answer was lost is made again by the client, and its condition isn't met then: because of what it did itself. So a refusal brings
//! the item with it, and one that says what was to be written is a success. Else a lost answer would look like a lost lease.

use super::DynamoStore;
use super::item::{ENTITY_TYPE, Item, LEASE, LEASE_COUNTER, LEASE_KEY, attributes, lease_of, number, text};
use crate::error::Result;
use crate::state::{Lease, LeaseKey};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld;

impl DynamoStore {
    pub(in crate::state) async fn leases(&self, prefix: &str) -> Result<Vec<Lease>> {
        let pages = self
            .client
            .scan()
            .table_name(&*self.table)
            .consistent_read(true)
            .filter_expression("begins_with(leaseKey, :prefix) AND (attribute_not_exists(entityType) OR entityType = :lease)")
            .expression_attribute_values(":prefix", text(prefix))
            .expression_attribute_values(":lease", text(LEASE));
        let items = pages.into_paginator().items().send().collect::<std::result::Result<Vec<_>, _>>().await;
        let items = items.map_err(|error| self.failed("leases can't be read", &error))?;
        let mut leases: Vec<Lease> = items.iter().map(lease_of).collect::<Result<_>>()?;
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(leases)
    }

    pub(in crate::state) async fn create_lease(&self, lease: &Lease) -> Result<bool> {
        let mut put = self
            .client
            .put_item()
            .table_name(&*self.table)
            .item(LEASE_KEY, text(&lease.key.0))
            .item(ENTITY_TYPE, text(LEASE))
            .condition_expression("attribute_not_exists(leaseKey)")
            .return_values_on_condition_check_failure(AllOld);
        for (name, value) in attributes(lease) {
            if let Some(value) = value {
                put = put.item(name, value);
            }
        }
        let answer = put.send().await;
        let found = match answer.as_ref().err().and_then(|error| error.as_service_error()) {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => refusal.item().cloned(),
            _ => None,
        };
        Ok(self.happened("a lease can't be made", answer)? || is_written(found.as_ref(), lease))
    }

    pub(in crate::state) async fn update_lease(&self, lease: &Lease, expected: u64) -> Result<bool> {
        let mut update = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(LEASE_KEY, text(&lease.key.0))
            .condition_expression("leaseCounter = :expected")
            .expression_attribute_values(":expected", number(expected))
            .return_values_on_condition_check_failure(AllOld);
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for (name, value) in attributes(lease) {
            match value {
                Some(value) => {
                    set.push(format!("{name} = :{name}"));
                    update = update.expression_attribute_values(format!(":{name}"), value);
                }
                None => remove.push(name),
            }
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        let answer = update.update_expression(expression).send().await;
        let found = match answer.as_ref().err().and_then(|error| error.as_service_error()) {
            Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => refusal.item().cloned(),
            _ => None,
        };
        Ok(self.happened("a lease can't be written", answer)? || is_written(found.as_ref(), lease))
    }

    pub(in crate::state) async fn delete_lease(&self, key: &LeaseKey, expected: u64) -> Result<bool> {
        let delete = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .key(LEASE_KEY, text(&key.0))
            .condition_expression(format!("{LEASE_COUNTER} = :expected"))
            .expression_attribute_values(":expected", number(expected));
        self.happened("a lease can't be removed", delete.send().await)
    }
}

/// Whether the item that is there is the lease that was to be written.
fn is_written(found: Option<&Item>, lease: &Lease) -> bool {
    // an owner's name is unique, so nobody else writes the same; and one that is given back is given back
    found.is_some_and(|item| lease_of(item).is_ok_and(|found| found == *lease))
}
