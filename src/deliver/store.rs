//! Where items are kept: what a store promises.

use super::config::{DeliverConfig, DeliverUrl};
use super::dynamodb::DynamoItems;
use super::item::{ItemChange, ItemKey, KeyKinds};
use super::sqlite::SqliteItems;
use crate::error::Result;
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::fmt::Debug;
use std::sync::Arc;

/// A store of items, by target table.
///
/// - *One owner*: `claim` makes the caller the owner of a target; whoever was it before can't write to it any more, whatever it has under way.
/// - *Atomic*: a call of `write` happens as a whole or not at all, its checkpoint included. After an error it may have happened.
/// - *Errors*: `Conflict` says that another has become the owner; `Transient` that the same call may succeed later.
#[async_trait]
pub trait ItemStore: Send + Sync + Debug {
    /// Makes `owner` the owner of `target`; what its last checkpoint says.
    async fn claim(&self, target: &str, owner: &str) -> Result<Option<String>>;

    /// What the last checkpoint says, for who only wants to know.
    async fn checkpoint(&self, target: &str) -> Result<Option<String>>;

    /// Sees to it that the target is there, with this key, and can be written to.
    async fn prepare(&self, target: &str, key: &KeyKinds) -> Result<()>;

    /// Writes at most [`Self::most_at_once`] changes of different items, and the checkpoint where one is given.
    async fn write(
        &self,
        target: &str,
        owner: &str,
        key: &KeyKinds,
        changes: &[ItemChange],
        checkpoint: Option<&str>,
    ) -> Result<()>;

    /// The keys of all items, some at a time; none before the first was written. Nobody writes meanwhile.
    fn keys<'a>(&'a self, target: &'a str, key: &'a KeyKinds) -> BoxStream<'a, Result<Vec<ItemKey>>>;

    /// How many changes, and about how many bytes of them, `write` takes at once.
    fn most_at_once(&self) -> (usize, usize);
}

/// Opens the store of a delivery.
///
/// # Errors
/// If it can't be reached.
pub async fn open_items(config: &DeliverConfig) -> Result<Arc<dyn ItemStore>> {
    Ok(match &config.to {
        DeliverUrl::Sqlite(path) => Arc::new(SqliteItems::open(path)?),
        DeliverUrl::DynamoDb(url) => Arc::new(DynamoItems::open(url, config.ttl_attribute.clone()).await?),
    })
}
