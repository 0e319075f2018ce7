//! The names of the lake's tables: each belongs to one, be it a table, a history or a child.

use super::Config;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::merge::{TableRule, history_of};
use std::collections::BTreeMap;

impl Config {
    /// What tables would be in the lake, as far as they are named here, have names of their own.
    pub(super) fn check_lake_names(&self) -> Result<()> {
        let mut known: BTreeMap<TableId, (TableId, bool)> = BTreeMap::new();
        let of_source = self.tables.exact_tables().filter_map(|table| Some((table, self.tables.rule_for(table)?)));
        for (table, rule) in of_source.chain(self.fed.iter().map(|fed| (&fed.table, &fed.rule))) {
            for (number, name) in names(table, rule).into_iter().enumerate() {
                let is_itself = number == 0;
                match known.insert(name.clone(), (table.clone(), is_itself)) {
                    // two sections of one table
                    None | Some((_, true)) if is_itself => {}
                    None => {}
                    Some((owner, _)) => {
                        return Err(Error::config("two tables of the lake would have one name")
                            .with("key", "table.children")
                            .with("name", name)
                            .with("of", if owner == *table { owner.to_string() } else { format!("{owner},{table}") })
                            .with("file", self.file.display())
                            .remedy("give the child another `name`, or the table another one in the lake"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The table's name, its history's, its children's.
fn names(table: &TableId, rule: &TableRule) -> Vec<TableId> {
    let history = rule.history.iter().map(|_| history_of(table));
    let children = rule.children.0.iter().flat_map(|child| {
        let tables = child.all_tables(table);
        let histories: Vec<TableId> = if child.keeps_histories() { tables.iter().map(history_of).collect() } else { Vec::new() };
        tables.into_iter().chain(histories)
    });
    std::iter::once(table.clone()).chain(history).chain(children).collect()
}
