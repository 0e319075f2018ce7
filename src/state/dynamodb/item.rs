//! Items and their attributes: the lease table's names.

use crate::error::{Area, Error, Kind, Result};
use crate::state::{Lease, LeaseKey, WorkerId};
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;

pub(super) const LEASE_KEY: &str = "leaseKey";
pub(super) const LEASE_OWNER: &str = "leaseOwner";
pub(super) const LEASE_COUNTER: &str = "leaseCounter";
pub(super) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const CHECKPOINT_OWNER: &str = "checkpointOwner";
/// Ours.
pub(super) const COMMITTED_CHECKPOINT: &str = "committedCheckpoint";
/// Which kind of row it is; leases of versions before 3.5 of the library have none.
pub(super) const ENTITY_TYPE: &str = "entityType";
pub(super) const LEASE: &str = "LEASE";
pub(super) const EPOCH: &str = "BINLAKE_EPOCH";

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn text_of(item: &Item, name: &str) -> Option<String> {
    item.get(name).and_then(|value| value.as_s().ok()).cloned()
}

pub(super) fn number_of(item: &Item, name: &str) -> Option<u64> {
    item.get(name).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok())
}

/// What a lease says in these attributes, `None` where the attribute must not be there; the key aside.
pub(super) fn attributes(lease: &Lease) -> Vec<(&'static str, Option<AttributeValue>)> {
    let name = |worker: &Option<WorkerId>| worker.as_ref().map(|worker| text(&worker.0));
    vec![
        (LEASE_OWNER, name(&lease.owner)),
        (LEASE_COUNTER, Some(number(lease.counter))),
        (OWNER_SWITCHES, Some(number(lease.owner_switches))),
        (CHECKPOINT, Some(text(&lease.checkpoint))),
        (COMMITTED_CHECKPOINT, lease.committed_checkpoint.as_deref().map(text)),
        (CHECKPOINT_OWNER, name(&lease.checkpoint_owner)),
    ]
}

/// Reads a lease, also one that the library wrote.
pub(super) fn lease_of(item: &Item) -> Result<Lease> {
    let corrupt = |missing: &'static str| {
        Error::new(Area::Config, Kind::Corrupt, "an item of the lease table is no lease")
            .with("missing", missing)
            .with("key", text_of(item, LEASE_KEY).unwrap_or_default())
            .remedy("delete the item, or name another table in state.url")
    };
    Ok(Lease {
        key: LeaseKey(text_of(item, LEASE_KEY).ok_or_else(|| corrupt(LEASE_KEY))?),
        owner: text_of(item, LEASE_OWNER).map(WorkerId),
        counter: number_of(item, LEASE_COUNTER).ok_or_else(|| corrupt(LEASE_COUNTER))?,
        owner_switches: number_of(item, OWNER_SWITCHES).unwrap_or(0),
        checkpoint: text_of(item, CHECKPOINT).ok_or_else(|| corrupt(CHECKPOINT))?,
        committed_checkpoint: text_of(item, COMMITTED_CHECKPOINT),
        checkpoint_owner: text_of(item, CHECKPOINT_OWNER).map(WorkerId),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as 2.7.2 and 3.5.1 of the library wrote them.
    #[test]
    fn leases_of_the_library_are_read() {
        let seen = |pairs: &[(&str, AttributeValue)]| -> Item {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let open = seen(&[
            (CHECKPOINT, text("49680431484340046891701745855035937655605931773213540354")),
            ("checkpointSubSequenceNumber", number(998)),
            ("endingHashKey", text("170141183460469231731687303715884105726")),
            (LEASE_COUNTER, number(3)),
            (LEASE_KEY, text("shardId-000000000000")),
            (LEASE_OWNER, text("worker-A")),
            (OWNER_SWITCHES, number(0)),
            ("startingHashKey", text("0")),
        ]);
        let lease = lease_of(&open).unwrap();
        assert_eq!((lease.owner, lease.counter), (Some(WorkerId("worker-A".into())), 3));
        let leader = seen(&[(ENTITY_TYPE, text("LEADER")), (LEASE_KEY, text("Leader")), ("ownerName", text("worker-A"))]);
        assert_eq!(lease_of(&leader).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_lease_comes_back() {
        let mut lease = Lease::new(LeaseKey("p/table/s.t".into())).asked_by(&WorkerId("a".into())).asked_by(&WorkerId("b".into()));
        for committed in [None, Some("1.2@3:4".to_owned())] {
            lease.committed_checkpoint = committed;
            let mut item: Item =
                attributes(&lease).into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
            item.insert(LEASE_KEY.into(), text(&lease.key.0));
            assert_eq!(lease_of(&item).unwrap(), lease);
        }
    }
}
