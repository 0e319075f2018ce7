//! ⑥ A source table as items of a key-value store, for those who look up by key: lookup replication.
//!
//! [`DeliverConfig`] is one `[[deliver]]`; [`ItemMapping`] makes items of rows, as a DMS table-mapping file says; [`ItemStore`] keeps them: tables of DynamoDB,
//! or a SQLite file as the embedded default. The pipeline folds changes for a delivery as it does for a lake table, and writes them here instead.
//!
//! **Why an older change never overwrites a newer one, and a replay never resurrects an item.** Each delivery has one owner, a name that is drawn when it begins
//! and written beside the delivery's checkpoint. Every write is a transaction that holds only if the owner is still the same, so a process that was overtaken
//! can't write at all, however late its calls arrive; the owner itself writes its changes in their order. The checkpoint moves in the transaction of a
//! commit's last items; after a crash before it, the same items are written again, with the same or newer values. So items carry nothing of Binlake's
//! own: no positions and no tombstones that others would read.

mod config;
mod dynamodb;
mod item;
mod limits;
mod mapping;
mod sqlite;
mod store;
mod template;
mod there;

pub use config::{DeliverConfig, DeliverUrl};
pub use item::{Attribute, AttributeKind, Item, ItemChange, ItemKey, KeyKinds};
pub use mapping::{ItemMapping, ShapedMapping};
pub use store::{ItemStore, open_items};
pub use there::ItemsThere;

#[cfg(test)]
mod tests;
