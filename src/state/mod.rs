//! The state store: a cache of what the stream and the lake know, who works on what, and the audit of runs.
//!
//! Nothing in it is needed to go on: the epoch is on the stream, the positions are in the lake's commits, and leases only keep processes from
//! doing the same twice (the lake's fence decides). If it is lost, a new one is made, and only the audit of earlier runs is gone.
//!
//! [`StateStore`] is one of two: a SQLite file for one machine, tables of DynamoDB for several. One suite (`tests/integration/state_suite.rs`)
//! holds both to the same conduct. [`Lease`] is a row of the lease table, [`Observer`] and [`plan_together`] are the pure part of sharing work by leases.

mod audit;
mod balance;
mod config;
mod dynamodb;
mod lease;
mod rules;
mod schedule;
mod sqlite;

pub use audit::{CommitCount, RunLabel, RunRow, RunStatus};
pub use balance::{Observer, Take, plan_together};
pub use config::{StateConfig, StateUrl};
pub use lease::{Lease, LeaseKey, TRIM_HORIZON, WorkerId};
pub use rules::{RulesDecision, RulesRevision, RulesStatus};
pub use schedule::{ScaleRule, Schedule, in_force, next_change};

use crate::error::Result;
use crate::event::{Epoch, TableId};
use dynamodb::DynamoStore;
use sqlite::SqliteStore;

/// The state store of one or more pipelines. Clones share it.
#[derive(Debug, Clone)]
pub struct StateStore {
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    Sqlite(SqliteStore),
    DynamoDb(DynamoStore),
}

/// Calls the method of the store that it is.
macro_rules! on {
    ($self:ident, $store:ident => $call:expr) => {
        match &$self.backend {
            Backend::Sqlite($store) => $call.await,
            Backend::DynamoDb($store) => $call.await,
        }
    };
}

impl StateStore {
    /// Opens the store that `config` names, and makes it if it isn't there.
    ///
    /// # Errors
    /// `Refused` if it can't be read and written, or a newer version made it; `Corrupt` if a SQLite file is none; `Transient` if DynamoDB doesn't answer.
    pub async fn open(config: &StateConfig) -> Result<Self> {
        let backend = match &config.url {
            StateUrl::Sqlite(path) => Backend::Sqlite(SqliteStore::open(path).await?),
            StateUrl::DynamoDb(url) => Backend::DynamoDb(DynamoStore::open(url).await?),
        };
        Ok(Self { backend })
    }

    /// The store in `table` of DynamoDB, by a client that was made elsewhere.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn over_dynamodb(client: aws_sdk_dynamodb::Client, table: &str) -> Result<Self> {
        Ok(Self { backend: Backend::DynamoDb(DynamoStore::over(client, table).await?) })
    }

    /// The last epoch that was taken for a stream, as far as this store knows.
    pub async fn known_epoch(&self, stream_id: &str) -> Result<Option<Epoch>> {
        on!(self, store => store.known_epoch(stream_id))
    }

    /// Takes the next epoch of a stream, higher than `seen` (the highest on the stream) and than any that was taken here: no two calls
    /// of whatever processes get the same.
    pub async fn take_epoch(&self, stream_id: &str, seen: Option<Epoch>) -> Result<Epoch> {
        on!(self, store => store.take_epoch(stream_id, seen))
    }

    /// Notes that a run has begun: as a row without a table.
    pub async fn begin_run(&self, run: &RunLabel) -> Result<()> {
        on!(self, store => store.begin_run(run))
    }

    /// Ends the runs of a pipeline that still count as running: for a process that knows that it is the only one.
    pub async fn end_lost_runs(&self, pipeline: &str) -> Result<()> {
        on!(self, store => store.end_lost_runs(pipeline))
    }

    /// Counts a commit of `table` in a run; the run's row is made at the table's first commit.
    pub async fn count_commit(&self, run: &RunLabel, table: &TableId, commit: &CommitCount) -> Result<()> {
        on!(self, store => store.count_commit(run, table, commit))
    }

    /// Notes that a table is stopped in a run; its next commit there says that it goes on.
    pub async fn fail_table(&self, run: &RunLabel, table: &TableId, error: &str) -> Result<()> {
        on!(self, store => store.fail_table(run, table, error))
    }

    /// Ends a run: all of its tables that still run get `status`.
    pub async fn end_run(&self, run: &RunLabel, status: RunStatus, error: Option<&str>) -> Result<()> {
        on!(self, store => store.end_run(run, status, error))
    }

    /// The newest runs of a pipeline, newest first, at most `most` rows.
    pub async fn runs(&self, pipeline: &str, most: usize) -> Result<Vec<RunRow>> {
        on!(self, store => store.runs(pipeline, most))
    }

    /// All leases whose keys begin so, in the order of their keys. What was written before this call is in it.
    pub async fn leases(&self, prefix: &str) -> Result<Vec<Lease>> {
        on!(self, store => store.leases(prefix))
    }

    /// Makes a lease; `false`: there is one of this key.
    pub async fn create_lease(&self, lease: &Lease) -> Result<bool> {
        on!(self, store => store.create_lease(lease))
    }

    /// Replaces a lease whose counter is still `expected`; `false`: it isn't, or the lease is gone.
    pub async fn update_lease(&self, lease: &Lease, expected: u64) -> Result<bool> {
        on!(self, store => store.update_lease(lease, expected))
    }

    /// Removes a lease whose counter is still `expected`; `false`: it isn't, or the lease is gone.
    pub async fn delete_lease(&self, key: &LeaseKey, expected: u64) -> Result<bool> {
        on!(self, store => store.delete_lease(key, expected))
    }

    /// Leaves nothing of what was removed or replaced in the store's own files, as far as others don't read it at this moment. (DynamoDB has none.)
    pub async fn forget_removed(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(store) => store.forget_removed().await,
            Backend::DynamoDb(_) => Ok(()),
        }
    }

    /// The newest revision's number, and how it stands: a cheap look, which may be a moment behind.
    pub async fn newest_rules(&self, pipeline: &str) -> Result<Option<(u64, RulesStatus)>> {
        on!(self, store => store.newest_rules(pipeline))
    }

    /// All revisions of a pipeline's rules, in their order. What was written before this call is in it.
    pub async fn rules(&self, pipeline: &str) -> Result<Vec<RulesRevision>> {
        on!(self, store => store.rules(pipeline))
    }

    /// Adds a revision; `false`: there is one of this number.
    pub async fn add_rules(&self, revision: &RulesRevision) -> Result<bool> {
        on!(self, store => store.add_rules(revision))
    }

    /// Writes what became of a revision that was proposed; `false`: that is decided already.
    pub async fn decide_rules(&self, decided: &RulesRevision) -> Result<bool> {
        on!(self, store => store.decide_rules(decided))
    }

    /// What was noted about a pipeline's rules under a name.
    pub async fn rules_note(&self, pipeline: &str, name: &str) -> Result<Option<String>> {
        on!(self, store => store.rules_note(pipeline, name))
    }

    /// Notes something about a pipeline's rules.
    pub async fn note_rules(&self, pipeline: &str, name: &str, value: &str) -> Result<()> {
        on!(self, store => store.note_rules(pipeline, name, value))
    }
}
