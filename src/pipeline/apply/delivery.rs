//! A fold's changes as items: what a commit is for a delivery.

use crate::deliver::{ItemChange, ItemKey, ItemMapping, ItemStore, ItemsThere, KeyKinds, ShapedMapping};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{TableId, TableSchema};
use crate::merge::{Checkpoint, Fold, SpillFolder};
use crate::metrics as names;
use crate::pipeline::status::CommittedRows;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What a commit wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenItems {
    /// Items that were written, whether they were there or not.
    pub put: u64,
    /// Items that were deleted.
    pub deleted: u64,
}

impl From<WrittenItems> for CommittedRows {
    fn from(items: WrittenItems) -> Self {
        Self { updated: items.put, deleted: items.deleted, ..Self::default() }
    }
}

/// Keys of items that go, which are in memory at once.
const GONE_AT_ONCE: usize = 10_000;

/// What a fold's rows make, in their order.
fn items_of(fold: &Fold, shaped: ShapedMapping) -> impl Iterator<Item = Result<ItemChange>> + Send {
    fold.changes().flat_map(move |changes| {
        let items = changes.and_then(|changes| shaped.changes(&changes.rows, &changes.is_delete));
        items.map_or_else(|error| vec![Err(error)], |items| items.into_iter().map(Ok).collect())
    })
}

/// Changes of different items, as many as a store takes at once.
#[derive(Debug)]
struct Group {
    changes: BTreeMap<ItemKey, ItemChange>,
    bytes: usize,
    most: (usize, usize),
}

impl Group {
    fn new(most: (usize, usize)) -> Self {
        Self { changes: BTreeMap::new(), bytes: 0, most }
    }

    /// Adds a change, which takes the place of an earlier one of its item; gives those of before, if they and it are more than the store takes.
    fn add(&mut self, change: ItemChange) -> Option<Vec<ItemChange>> {
        let key = change.key().clone();
        if let Some(before) = self.changes.remove(&key) {
            self.bytes -= before.bytes();
        }
        let is_full = self.changes.len() == self.most.0 || self.bytes + change.bytes() > self.most.1;
        let full = (is_full && !self.changes.is_empty()).then(|| self.take());
        self.bytes += change.bytes();
        self.changes.insert(key, change);
        full
    }

    /// Those that it has.
    fn take(&mut self) -> Vec<ItemChange> {
        self.bytes = 0;
        std::mem::take(&mut self.changes).into_values().collect()
    }
}

/// A fold's items on their way into the store.
struct Writing<'a> {
    delivery: &'a Delivery,
    owner: String,
    key: KeyKinds,
    group: Group,
    written: WrittenItems,
}

impl Writing<'_> {
    async fn add(&mut self, change: ItemChange) -> Result<()> {
        match change {
            ItemChange::Put(_) => self.written.put += 1,
            ItemChange::Delete(_) => self.written.deleted += 1,
        }
        match self.group.add(change) {
            Some(full) => self.write(&full, None).await,
            None => Ok(()),
        }
    }

    /// The last ones, and the checkpoint with them.
    async fn finish(mut self, checkpoint: &str) -> Result<WrittenItems> {
        let last = self.group.take();
        self.write(&last, Some(checkpoint)).await?;
        Ok(self.written)
    }

    async fn write(&self, changes: &[ItemChange], checkpoint: Option<&str>) -> Result<()> {
        let Delivery { store, mapping, .. } = self.delivery;
        store.write(&mapping.target, &self.owner, &self.key, changes, checkpoint).await
    }
}

/// A source table's way into a store of items.
#[derive(Debug)]
pub(in crate::pipeline) struct Delivery {
    store: Arc<dyn ItemStore>,
    mapping: ItemMapping,
    /// What it is called in the status and the audit.
    shown: TableId,
    /// The name under which this process owns the target.
    owner: Mutex<String>,
}

impl Delivery {
    pub(in crate::pipeline) fn new(store: Arc<dyn ItemStore>, mapping: ItemMapping, shown: TableId) -> Self {
        Self { store, mapping, shown, owner: Mutex::default() }
    }

    pub(super) fn shown(&self) -> &TableId {
        &self.shown
    }

    pub(super) fn source(&self) -> &TableId {
        &self.mapping.source
    }

    /// Becomes the target's owner, and says how far it is.
    pub(super) async fn claim(&self) -> Result<Option<Checkpoint>> {
        let owner = uuid::Uuid::new_v4().to_string();
        let checkpoint = self.store.claim(&self.mapping.target, &owner).await?;
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
        checkpoint.as_deref().map(Checkpoint::from_json).transpose()
    }

    /// Writes a fold's changes and then its checkpoint. What was written of an attempt that failed is written again. Memory grows neither with the changes nor
    /// with the items: what must be known of all items is in `spill`.
    pub(super) async fn write(
        &self,
        fold: &Fold,
        before: Option<&Checkpoint>,
        checkpoint: &Checkpoint,
        spill: &SpillFolder,
    ) -> Result<WrittenItems> {
        let schema = fold.shape().source();
        self.ensure_key(schema)?;
        let target = self.mapping.target.as_str();
        let key = self.mapping.key_kinds(schema);
        self.store.prepare(target, &key).await?;
        let all = || Ok::<_, Error>(items_of(fold, self.mapping.shaped(schema)?));
        // all rows are looked at before the first item is written: one that can't be an item stops the delivery where it stands
        let mut has_deletes = false;
        for change in all()? {
            has_deletes |= matches!(change?, ItemChange::Delete(_));
        }
        let is_emptied = fold.truncate() && before.is_some();
        let there = match is_emptied || (has_deletes && before.is_none()) {
            true => Some(ItemsThere::of(self.store.as_ref(), target, &key, spill.path()).await?),
            false => None,
        };
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let group = Group::new(self.store.most_at_once());
        let mut writing = Writing { delivery: self, owner, key, group, written: WrittenItems { put: 0, deleted: 0 } };
        // two rows may make one item, which goes with the one and comes again with the other: so all that go are first
        match there {
            // all that don't come again
            Some(there) if is_emptied => {
                there.leave_out(all()?.filter_map(|change| match change {
                    Ok(ItemChange::Put(item)) => Some(Ok(item.key)),
                    Ok(ItemChange::Delete(_)) => None,
                    Err(error) => Some(Err(error)),
                }))?;
                loop {
                    let gone = there.take(GONE_AT_ONCE)?;
                    if gone.is_empty() {
                        break;
                    }
                    for gone in gone {
                        writing.add(ItemChange::Delete(gone)).await?;
                    }
                }
            }
            there if has_deletes => {
                for change in all()? {
                    let change = change?;
                    // what a filter leaves out of the first commit is not there, but for what an attempt that failed has written
                    if matches!(change, ItemChange::Delete(_))
                        && there.as_ref().map_or(Ok(true), |there| there.has(change.key()))?
                    {
                        writing.add(change).await?;
                    }
                }
            }
            _ => {}
        }
        for change in all()? {
            let change = change?;
            if matches!(change, ItemChange::Put(_)) {
                writing.add(change).await?;
            }
        }
        let written = writing.finish(&checkpoint.to_json()?).await?;
        for (operation, count) in [("put", written.put), ("delete", written.deleted)] {
            let labels = [("target", target.to_owned()), ("operation", operation.to_owned())];
            metrics::counter!(names::DELIVERED_ITEMS, &labels).increment(count);
        }
        Ok(written)
    }

    /// Rows are told apart by the table's key, items by the mapping's: they must be the same columns, or a row could leave its item behind.
    fn ensure_key(&self, schema: &TableSchema) -> Result<()> {
        if let Some(name) = self.mapping.unusable_key(schema) {
            return Err(Error::new(Area::Lake, Kind::Data, "a key is text, a number or bytes, and this one is not")
                .with("attribute", name)
                .remedy("map it as a scalar of the sub-type string in attribute-mappings"));
        }
        let of_table: BTreeSet<String> = schema.key.iter().map(|&i| schema.columns[i].name.clone()).collect();
        let of_items = self.mapping.key_columns();
        if of_table == of_items {
            return Ok(());
        }
        let joined = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(",");
        Err(Error::new(Area::Lake, Kind::Data, "the items' key isn't made of the table's key")
            .with("table_key", joined(of_table))
            .with("item_key", joined(of_items))
            .remedy("set `key` in the table's [[table]] to the columns of the items' key, or map the table's key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{Attribute, Item};

    fn key(name: &str) -> ItemKey {
        ItemKey { partition: Attribute::Text(name.into()), sort: None }
    }

    fn put(name: &str, value: &str) -> ItemChange {
        ItemChange::Put(Item { key: key(name), attributes: [("v".to_owned(), Attribute::Text(value.into()))].into() })
    }

    #[test]
    fn a_group_has_an_item_once_and_no_more_than_the_store_takes() {
        let mut group = Group::new((2, 10));
        assert_eq!(group.add(ItemChange::Delete(key("a"))), None);
        assert_eq!(group.add(put("a", "1")), None, "it comes again");
        assert_eq!(group.add(put("b", "2")), None);
        assert_eq!(group.add(put("b", "3")), None, "the later one counts");
        assert_eq!(group.add(put("c", "12345678")), Some(vec![put("a", "1"), put("b", "3")]));
        assert_eq!(group.add(put("d", "4")), Some(vec![put("c", "12345678")]), "by bytes");
        assert_eq!(group.add(put("e", "longer than all that a store takes")), Some(vec![put("d", "4")]), "alone");
        assert_eq!(group.take(), [put("e", "longer than all that a store takes")]);
        assert!(group.take().is_empty());
    }
}
