//! Leases in SQLite.

use super::SqliteStore;
use crate::error::Result;
use crate::state::{Lease, LeaseKey, WorkerId};
use rusqlite::{Row, ToSql, params};

impl SqliteStore {
    pub(in crate::state) async fn leases(&self, prefix: &str) -> Result<Vec<Lease>> {
        let prefix = prefix.to_owned();
        self.with(move |connection| {
            let mut statement = connection.prepare(
                "SELECT leaseKey, leaseOwner, leaseCounter, ownerSwitchesSinceCheckpoint, checkpoint, committedCheckpoint, checkpointOwner
                 FROM leases WHERE substr(leaseKey, 1, length(?1)) = ?1 ORDER BY leaseKey",
            )?;
            statement.query_map([prefix], lease_row)?.collect()
        })
        .await
    }

    pub(in crate::state) async fn create_lease(&self, lease: &Lease) -> Result<bool> {
        let lease = lease.clone();
        self.with(move |connection| {
            let made = connection.execute(
                "INSERT INTO leases (leaseKey, leaseOwner, leaseCounter, ownerSwitchesSinceCheckpoint, checkpoint, committedCheckpoint, checkpointOwner)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (leaseKey) DO NOTHING",
                rusqlite::params_from_iter(values(&lease)),
            )?;
            Ok(made == 1)
        })
        .await
    }

    pub(in crate::state) async fn update_lease(&self, lease: &Lease, expected: u64) -> Result<bool> {
        let lease = lease.clone();
        self.with(move |connection| {
            let mut values = values(&lease);
            values.push(Box::new(signed(expected)));
            let changed = connection.execute(
                "UPDATE leases SET leaseOwner = ?2, leaseCounter = ?3, ownerSwitchesSinceCheckpoint = ?4, checkpoint = ?5,
                     committedCheckpoint = ?6, checkpointOwner = ?7
                 WHERE leaseKey = ?1 AND leaseCounter = ?8",
                rusqlite::params_from_iter(values),
            )?;
            Ok(changed == 1)
        })
        .await
    }

    pub(in crate::state) async fn delete_lease(&self, key: &LeaseKey, expected: u64) -> Result<bool> {
        let key = key.0.clone();
        self.with(move |connection| {
            let gone = connection
                .execute("DELETE FROM leases WHERE leaseKey = ?1 AND leaseCounter = ?2", params![key, signed(expected)])?;
            Ok(gone == 1)
        })
        .await
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A lease as a row: the parameters 1 to 7.
fn values(lease: &Lease) -> Vec<Box<dyn ToSql>> {
    let name = |worker: &Option<WorkerId>| worker.as_ref().map(|worker| worker.0.clone());
    vec![
        Box::new(lease.key.0.clone()),
        Box::new(name(&lease.owner)),
        Box::new(signed(lease.counter)),
        Box::new(signed(lease.owner_switches)),
        Box::new(lease.checkpoint.clone()),
        Box::new(lease.committed_checkpoint.clone()),
        Box::new(name(&lease.checkpoint_owner)),
    ]
}

fn lease_row(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let count = |i: usize| row.get::<_, i64>(i).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Lease {
        key: LeaseKey(row.get(0)?),
        owner: row.get::<_, Option<String>>(1)?.map(WorkerId),
        counter: count(2)?,
        owner_switches: count(3)?,
        checkpoint: row.get(4)?,
        committed_checkpoint: row.get(5)?,
        checkpoint_owner: row.get::<_, Option<String>>(6)?.map(WorkerId),
    })
}
