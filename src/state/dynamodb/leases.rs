//! Leases in DynamoDB: each write is one conditional call.

use super::DynamoStore;
use super::item::{ENTITY_TYPE, LEASE, LEASE_COUNTER, LEASE_KEY, attributes, lease_of, number, text};
use crate::error::Result;
use crate::state::{Lease, LeaseKey};

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
            .condition_expression("attribute_not_exists(leaseKey)");
        for (name, value) in attributes(lease) {
            if let Some(value) = value {
                put = put.item(name, value);
            }
        }
        self.happened("a lease can't be made", put.send().await)
    }

    pub(in crate::state) async fn update_lease(&self, lease: &Lease, expected: u64) -> Result<bool> {
        let mut update = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(LEASE_KEY, text(&lease.key.0))
            .condition_expression("leaseCounter = :expected")
            .expression_attribute_values(":expected", number(expected));
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
        self.happened("a lease can't be written", update.update_expression(expression).send().await)
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
