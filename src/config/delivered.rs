//! Deliveries, and what they mean for the capture.

use super::Config;
use crate::deliver::{DeliverConfig, DeliverUrl, ItemMapping};
use crate::error::{Error, Result};
use crate::merge::{TablePattern, TableRule, TableRules};
use std::path::Path;

/// One `[[deliver]]`, with its table mapping.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The section.
    pub config: DeliverConfig,
    /// How rows become items.
    pub mapping: ItemMapping,
    /// The mapping file's text.
    pub(super) mapping_text: String,
}

impl Delivered {
    /// Reads the mapping, unless its text is known; paths are relative to `folder`.
    pub(super) fn read(mut config: DeliverConfig, folder: &Path, text: Option<&String>) -> Result<Self> {
        config.mapping = super::clean(&folder.join(&config.mapping));
        if let DeliverUrl::Sqlite(path) = &mut config.to {
            *path = super::clean(&folder.join(&*path));
        }
        let mapping_text = match text {
            Some(text) => text.clone(),
            None => ItemMapping::read_text(&config.mapping, &config.source)?,
        };
        let mapping = ItemMapping::of_text(&mapping_text, &config.mapping, &config.source)?;
        Ok(Self { config, mapping, mapping_text })
    }
}

impl Config {
    /// The rules of all tables that are captured: those of the lake, and those that are only delivered, by the key of their items.
    pub fn captured(&self) -> TableRules {
        let only_delivered = self.deliver.iter().filter(|delivered| self.tables.rule_for(&delivered.mapping.source).is_none());
        let mut rules = self.tables.rules().to_vec();
        for delivered in only_delivered {
            let key = delivered.mapping.key_columns().into_iter().collect();
            rules.push(TableRule { key, ..TableRule::named(TablePattern::Exact(delivered.mapping.source.clone())) });
        }
        TableRules::new(rules)
    }

    /// Deliveries that can't go together, with each other or with the lake's rules.
    pub(super) fn check_deliveries(&self) -> Result<()> {
        for (i, one) in self.deliver.iter().enumerate() {
            let same = |other: &&Delivered| other.config.to == one.config.to && other.mapping.target == one.mapping.target;
            if self.deliver[..i].iter().any(|other| same(&other)) {
                return Err(Error::config("two deliveries write to one table")
                    .with("target", &one.mapping.target)
                    .remedy("give each its own target-table-name"));
            }
            let key = one.mapping.key_columns();
            let rule = self.tables.rule_for(&one.mapping.source).filter(|rule| !rule.key.is_empty());
            let other = self.deliver[..i].iter().find(|other| other.mapping.source == one.mapping.source);
            if rule.is_some_and(|rule| rule.key.iter().cloned().collect::<std::collections::BTreeSet<_>>() != key)
                || other.is_some_and(|other| other.mapping.key_columns() != key)
            {
                return Err(Error::config("the items' key isn't made of the table's key")
                    .with("source", &one.mapping.source)
                    .with("item_key", key.into_iter().collect::<Vec<_>>().join(","))
                    .remedy("use the same columns for `key` in the [[table]] and for the key in the table mapping"));
            }
        }
        Ok(())
    }
}
