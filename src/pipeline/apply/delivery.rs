//! A fold's changes as items: what a commit is for a delivery.

use crate::deliver::{Attribute, ItemChange, ItemKey, ItemMapping, ItemStore};
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
        Attribute::Number(digits) if digits.contains('.') => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        Attribute::Number(digits) => digits.clone(),
        other => format!("{other:?}"),
    };
    format!("{} {}", one(&key.partition), key.sort.as_ref().map(one).unwrap_or_default())
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
        let (mut puts, mut deletes) = (BTreeMap::new(), BTreeMap::new());
        self.take(fold, schema, |change| {
            match change {
                ItemChange::Put(_) => puts.insert(change.key().clone(), change),
                ItemChange::Delete(_) => deletes.insert(change.key().clone(), change),
            };
        })?;
        let is_first = before.is_none();
        if fold.truncate() || (is_first && !deletes.is_empty()) {
            let there = self.store.keys(target, &key).await?;
            if is_first {
                // what a filter leaves out is not there, but for what an attempt that failed has written
                let there: BTreeSet<String> = there.iter().map(same).collect();
                deletes.retain(|key, _| there.contains(&same(key)));
            } else {
                let stays: BTreeSet<String> = puts.keys().map(same).collect();
                let gone = there.into_iter().filter(|key| !stays.contains(&same(key)));
                deletes.extend(gone.map(|key| (key.clone(), ItemChange::Delete(key))));
            }
        }
        // two rows may make one item: as long as one of them is there, it stays
        deletes.retain(|key, _| !puts.contains_key(key));
        let written = WrittenItems { put: puts.len() as u64, deleted: deletes.len() as u64 };
        let counts = [("put", written.put), ("delete", written.deleted)];
        let deletes: Vec<ItemChange> = deletes.into_values().collect();
        let puts: Vec<ItemChange> = puts.into_values().collect();
        let mut groups: Vec<&[ItemChange]> = self.groups(&deletes);
        groups.extend(self.groups(&puts));
        let last = groups.pop().unwrap_or_default();
        for group in groups {
            self.store.write(target, &owner, &key, group, None).await?;
        }
        self.store.write(target, &owner, &key, last, Some(&checkpoint.to_json()?)).await?;
        for (operation, count) in counts {
            let labels = [("target", target.to_owned()), ("operation", operation.to_owned())];
            metrics::counter!(names::DELIVERED_ITEMS, &labels).increment(count);
        }
        Ok(written)
    }

    /// A fold's changes as those of items.
    fn take(&self, fold: &Fold, schema: &TableSchema, mut take: impl FnMut(ItemChange)) -> Result<()> {
        let shaped = self.mapping.shaped(schema)?;
        for changes in fold.changes() {
            let changes = changes?;
            shaped.changes(&changes.rows, &changes.is_delete)?.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    /// As many changes as the store takes at once.
    fn groups<'a>(&self, changes: &'a [ItemChange]) -> Vec<&'a [ItemChange]> {
        let (most, most_bytes) = self.store.most_at_once();
        let mut groups = Vec::new();
        let (mut first, mut bytes) = (0, 0);
        for (i, change) in changes.iter().enumerate() {
            if i > first && (i - first == most || bytes + change.bytes() > most_bytes) {
                groups.push(&changes[first..i]);
                (first, bytes) = (i, 0);
            }
            bytes += change.bytes();
        }
        if first < changes.len() {
            groups.push(&changes[first..]);
        }
        groups
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
