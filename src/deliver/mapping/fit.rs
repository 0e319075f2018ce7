//! Whether a mapping fits a table as it is now: the columns that its rules name are there, and something makes the key.
//!
//! Rows of an earlier shape are mapped all the same, so this is asked of the source's catalog, not of rows. Rules that name their table by a wildcard may mean
//! columns of other tables.

use super::expression::header_columns;
use super::selection::is_like;
use super::{AttributeKind, ItemMapping};
use crate::error::{Error, Result};
use crate::event::TableSchema;
use std::collections::BTreeSet;

/// How like a name must be to be meant by another.
const LIKENESS: f64 = 0.8;

/// A column that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedColumn {
    /// The rule's name, or its id.
    pub(super) rule: String,
    pub(super) column: String,
    /// Whether it is a pattern, as a locator's names are.
    pub(super) is_pattern: bool,
}

impl NamedColumn {
    fn is_in(&self, schema: &TableSchema) -> bool {
        let is_it = |name: &str| if self.is_pattern { is_like(&self.column, name) } else { self.column == name };
        schema.columns.iter().any(|column| is_it(&column.name))
    }
}

impl ItemMapping {
    /// What of the rules doesn't fit a table of this shape, an error for each.
    pub fn misfits(&self, schema: &TableSchema) -> Vec<Error> {
        let missing = self.named.iter().filter(|named| !named.is_in(schema) && !self.adds(&named.column));
        let mut errors: Vec<Error> = missing.map(|named| self.no_column(named, schema)).collect();
        errors.dedup_by_key(|error| error.to_string());
        errors.extend(self.ensure_key(schema).err());
        errors
    }

    /// Whether items can expire by an attribute: DynamoDB wants a number there, the second of the time of Unix.
    pub fn expires_by(&self, attribute: &str, schema: &TableSchema) -> Result<()> {
        let kind = if self.is_document && !self.attributes.contains_key(attribute) {
            None
        } else {
            self.kind_of_attribute(attribute, schema)
        };
        let what = match kind {
            Some(AttributeKind::Number) => return Ok(()),
            Some(_) => "the attribute by which items expire is no number, so none ever would",
            None => "nothing makes the attribute by which items expire",
        };
        Err(Error::config(what)
            .with("rule", &self.rule)
            .with("ttl_attribute", attribute)
            .with("source", &self.source)
            .remedy("map it as a scalar of the sub-type number: seconds since 1970, in UTC"))
    }

    /// Whether rules make the column: templates read it as they read columns.
    fn adds(&self, column: &str) -> bool {
        let added = &self.transformations.added;
        let has_expression = added.iter().any(|added| added.expression.is_some());
        added.iter().any(|added| added.name == column)
            || (has_expression && header_columns().iter().any(|header| header.name == column))
    }

    fn no_column(&self, named: &NamedColumn, schema: &TableSchema) -> Error {
        let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &named.column.to_lowercase());
        let names = schema.columns.iter().map(|column| column.name.as_str());
        let best = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > LIKENESS);
        let remedy = match best {
            Some(best) => format!("write `{best}`, or take it out of the rule"),
            None => "name a column of the table, or take it out of the rule".to_owned(),
        };
        Error::config("a rule of the table mapping names a column that the table doesn't have")
            .with("rule", &named.rule)
            .with("column", &named.column)
            .with("source", &self.source)
            .remedy(remedy)
    }

    /// Something makes each attribute of the key, and both are made of the same columns.
    fn ensure_key(&self, schema: &TableSchema) -> Result<()> {
        for name in self.key_names().filter(|name| !self.attributes.contains_key(*name)) {
            let column = self.transformations.column_called(name).unwrap_or(name);
            if schema.index_of(column).is_none() {
                return Err(self.nothing_makes(name));
            }
        }
        if let Some(name) = self.unusable_key(schema) {
            return Err(Error::config("a key is text, a number or bytes, and this one is not")
                .with("rule", &self.rule)
                .with("attribute", name)
                .with("source", &self.source)
                .remedy("map it as a scalar of the sub-type string in attribute-mappings"));
        }
        let of_table: BTreeSet<String> = schema.key.iter().map(|&i| schema.columns[i].name.clone()).collect();
        let of_items = self.key_columns();
        let is_there = of_items.iter().all(|column| schema.index_of(column).is_some());
        // of a column that isn't there it has been said
        if !is_there || of_table == of_items {
            return Ok(());
        }
        let joined = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(",");
        Err(Error::config("the items' key isn't made of the table's key")
            .with("rule", &self.rule)
            .with("source", &self.source)
            .with("table_key", joined(of_table))
            .with("item_key", joined(of_items))
            .remedy("map the table's key, or set `key` in the table's [[table]] to the columns of the items' key"))
    }

    /// Nothing makes an attribute of the key: the table has no such column.
    fn nothing_makes(&self, name: &str) -> Error {
        Error::config("nothing makes the attribute that is the items' key: the table has no column of this name")
            .with("rule", &self.rule)
            .with("attribute", name)
            .with("source", &self.source)
            .remedy("add it to the rule's attribute-mappings, or name a column of the table's key")
    }

    /// The same where nothing is known of the table but that it lacks a column of the items' key.
    pub fn lacks_key(&self) -> Error {
        let made_of_itself = self.key_names().find(|name| !self.attributes.contains_key(*name));
        match made_of_itself {
            Some(name) => self.nothing_makes(name),
            None => Error::config("the items' key is made of a column that the table doesn't have")
                .with("rule", &self.rule)
                .with("item_key", self.key_columns().into_iter().collect::<Vec<_>>().join(","))
                .with("source", &self.source)
                .remedy("correct the columns' names in the rule's attribute-mappings"),
        }
    }
}
