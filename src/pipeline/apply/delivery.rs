//! A fold's changes as items: what a commit is for a delivery.

use crate::cloud::DynamoNumber;
use crate::deliver::{Attribute, ItemChange, ItemKey, ItemMapping, ItemStore, KeyKinds};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{TableId, TableSchema};
use crate::merge::{Checkpoint, Fold};
use crate::metrics as names;
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

/// The same text for the same key, however a store writes its numbers.
fn same(key: &ItemKey) -> String {
    let one = |attribute: &Attribute| match attribute {
        Attribute::Number(digits) => DynamoNumber::parse(digits).map_or_else(|| digits.clone(), |number| number.to_string()),
        other => format!("{other:?}"),
    };
    format!("{} {}", one(&key.partition), key.sort.as_ref().map(one).unwrap_or_default())
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

    /// Writes a fold's changes and then its checkpoint. What was written of an attempt that failed is written again.
    pub(super) async fn write(&self, fold: &Fold, before: Option<&Checkpoint>, checkpoint: &Checkpoint) -> Result<WrittenItems> {
        let schema = fold.shape().source();
        self.ensure_key(schema)?;
        let target = self.mapping.target.as_str();
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = self.mapping.key_kinds(schema);
        self.store.prepare(target, &key).await?;
        // all rows are looked at before the first item is written: one that can't be an item stops the delivery where it stands
        let deletes = self.deletes(fold, schema, before.is_none(), &key).await?;
        let shaped = self.mapping.shaped(schema)?;
        let mut written = WrittenItems { put: 0, deleted: deletes.len() as u64 };
        let mut group = Group::new(self.store.most_at_once());
        // two rows may make one item: it goes with the one and comes again with the other
        for delete in deletes {
            if let Some(full) = group.add(ItemChange::Delete(delete)) {
                self.store.write(target, &owner, &key, &full, None).await?;
            }
        }
        for changes in fold.changes() {
            let changes = changes?;
            for change in shaped.changes(&changes.rows, &changes.is_delete)? {
                if matches!(change, ItemChange::Delete(_)) {
                    continue;
                }
                written.put += 1;
                if let Some(full) = group.add(change) {
                    self.store.write(target, &owner, &key, &full, None).await?;
                }
            }
        }
        self.store.write(target, &owner, &key, &group.take(), Some(&checkpoint.to_json()?)).await?;
        for (operation, count) in [("put", written.put), ("delete", written.deleted)] {
            let labels = [("target", target.to_owned()), ("operation", operation.to_owned())];
            metrics::counter!(names::DELIVERED_ITEMS, &labels).increment(count);
        }
        Ok(written)
    }

    /// The items that go. Only keys are held in memory, and of the first commit only those that are there: what a filter leaves out is not, but for what an
    /// attempt that failed has written.
    async fn deletes(&self, fold: &Fold, schema: &TableSchema, is_first: bool, key: &KeyKinds) -> Result<BTreeSet<ItemKey>> {
        let shaped = self.mapping.shaped(schema)?;
        let is_emptied = fold.truncate() && !is_first;
        let mut there = None;
        if is_emptied {
            there = Some(self.there(key).await?);
        }
        let mut deletes = BTreeSet::new();
        for changes in fold.changes() {
            let changes = changes?;
            for change in shaped.changes(&changes.rows, &changes.is_delete)? {
                let is_delete = matches!(change, ItemChange::Delete(_));
                if is_first && is_delete && there.is_none() {
                    there = Some(self.there(key).await?);
                }
                let may_go = match &mut there {
                    // what comes again stays, and what goes is not to go twice
                    Some(there) if is_emptied => {
                        there.remove(&same(change.key()));
                        true
                    }
                    Some(there) => there.contains_key(&same(change.key())),
                    None => true,
                };
                if is_delete && may_go {
                    deletes.insert(change.key().clone());
                }
            }
        }
        if is_emptied {
            deletes.extend(there.unwrap_or_default().into_values());
        }
        Ok(deletes)
    }

    /// The keys of all items, by the text that is the same for the same key.
    async fn there(&self, key: &KeyKinds) -> Result<BTreeMap<String, ItemKey>> {
        let keys = self.store.keys(&self.mapping.target, key).await?;
        Ok(keys.into_iter().map(|key| (same(&key), key)).collect())
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
    use crate::deliver::Item;

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
