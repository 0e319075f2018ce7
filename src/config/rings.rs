//! Tables that join each other in a ring (`url = "table:…"`): what keeps such a ring from ever beginning is said at the start.

use super::Config;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::lookup::{Lookup, LookupUrl, Missing, leads_to};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Config {
    /// Tables that join each other in a ring begin together, each at first without the others' rows (`pipeline::apply`, `joined`). So their lookups' columns must be known
    /// before they are read, no row may wait for an item of the ring, and one stream must feed all.
    pub(super) fn check_rings(&self) -> Result<()> {
        let joined: BTreeSet<TableId> = self.lookups.values().filter_map(|lookup| table_of(lookup)).collect();
        for table in &joined {
            for (lookup, other) in self.joins(table) {
                if !leads_to(&other, table, |table| self.joins(table).into_iter().map(|(_, other)| other).collect()) {
                    continue;
                }
                let wrong = |what: &'static str| {
                    Error::config(what)
                        .with("table", table)
                        .with("joined", &other)
                        .with("key", format!("lookup.{}", lookup.name()))
                        .with("file", self.file.display())
                };
                if lookup.missing() == Missing::Hold {
                    return Err(wrong(
                        "tables join each other in a ring, and one waits there for the other's rows: none would ever begin",
                    )
                    .remedy("set `missing = \"null\"` for the lookup"));
                }
                let is_letter =
                    |(lookup, other): (Arc<Lookup>, TableId)| (lookup.missing() == Missing::DeadLetter).then_some(other);
                let letters = |table: &TableId| self.joins(table).into_iter().filter_map(is_letter).collect();
                if lookup.missing() == Missing::DeadLetter && leads_to(&other, table, letters) {
                    return Err(wrong(
                        "tables join each other in a ring, and rows of each are dead letters until the other has its own: they would stay so for ever",
                    )
                    .remedy("set `missing = \"null\"` for one of the lookups"));
                }
                if lookup.config().declared().is_none() {
                    return Err(wrong(
                        "tables join each other in a ring, and the lookup's columns are not known before one has begun",
                    )
                    .remedy("declare the lookup's `columns`"));
                }
                if self.feed(table) != self.feed(&other) {
                    return Err(wrong(
                        "tables of different streams join each other in a ring: each would wait for the other's first commit",
                    )
                    .remedy("take one of the joins out; a query or a view can do it"));
                }
            }
        }
        Ok(())
    }

    /// The stream of others that feeds it; `None`: it is of the source.
    fn feed(&self, table: &TableId) -> Option<String> {
        self.fed_table(table).map(|fed| format!("{} {}", fed.stream, fed.format))
    }

    /// The tables that `table` joins, but itself.
    fn joins(&self, table: &TableId) -> Vec<(Arc<Lookup>, TableId)> {
        let lookups = self.rule_of(table).and_then(|rule| rule.transform.as_ref()).map(|transform| transform.lookups());
        let tables = lookups.into_iter().flat_map(|lookups| lookups.values());
        tables.filter_map(|lookup| Some((lookup.clone(), table_of(lookup)?))).filter(|(_, other)| other != table).collect()
    }
}

fn table_of(lookup: &Lookup) -> Option<TableId> {
    match &lookup.config().url {
        LookupUrl::Table(table) => Some(table.clone()),
        _ => None,
    }
}
