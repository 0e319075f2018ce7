//! Tables that join other tables of the same loop (`url = "table:…"`): a commit at a cut sees the other table as of this very cut.
//!
//! The joined table is committed first, at the same cut; meanwhile nothing is read, so no later cut comes in between. While a table is committed that joins
//! it, it isn't committed again. So what its last commit has is its content at the cut. Where rows are held back until their item is there, this would wait
//! for ever: there the newest content counts, as for a table of another loop or of another worker.

use super::Apply;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::lookup::{Content, Lookup, LookupUrl, Missing};
use crate::pipeline::lookups::table_rows;
use crate::stream::CutReached;
use crate::table::Lake;
use std::sync::Arc;

/// A lookup whose items are to be those of a table's last commit.
#[derive(Debug, Clone)]
pub(super) struct JoinedTable {
    pub(super) lookup: Arc<Lookup>,
    table: TableId,
    /// Which commit that is.
    version: String,
}

impl JoinedTable {
    /// The items; read once a commit.
    pub(super) async fn content(&self, lake: &Lake) -> Result<Arc<Content>> {
        if let Some(content) = self.lookup.content_at(&self.version) {
            return Ok(content);
        }
        let rows = table_rows(&self.table, lake).await?;
        let content = self.lookup.content_of_rows(&rows).map_err(|error: Error| error.with("lookup", self.lookup.name()))?;
        Ok(self.lookup.keep_at(&self.version, content))
    }
}

impl Apply {
    /// The tables of this loop that `table` joins, as of each cut.
    fn joins(&self, table: &TableId) -> Vec<(Arc<Lookup>, TableId)> {
        let Some(transform) = self.tables.get(table).and_then(|applied| applied.pending.treatment().transform.as_ref()) else {
            return Vec::new();
        };
        let of_table = |lookup: &Arc<Lookup>| match &lookup.config().url {
            LookupUrl::Table(other) if lookup.missing() != Missing::Hold && other != table && self.tables.contains_key(other) => {
                Some((lookup.clone(), other.clone()))
            }
            _ => None,
        };
        transform.lookups().values().filter_map(of_table).collect()
    }

    /// Whether a commit is under way that sees `table` as it is.
    pub(super) fn is_seen(&self, table: &TableId) -> bool {
        let mut running = self.tables.iter().filter(|(_, applied)| applied.is_running);
        running.any(|(other, _)| self.joins(other).iter().any(|(_, joined)| joined == table))
    }

    /// The tables that `table` joins, once they are committed at `cut`; `None`: they are not yet, but will be.
    pub(super) fn joined_at(&mut self, table: &TableId, cut: &CutReached) -> Result<Option<Vec<JoinedTable>>> {
        let joins = self.joins(table);
        for (_, other) in &joins {
            let has_changes = |apply: &Self| {
                apply
                    .tables
                    .get(other)
                    .is_some_and(|other| other.is_running || (other.has_news(cut) && other.pending.has_changes(cut.point)))
            };
            // of two tables that join each other, one comes first
            if has_changes(self) && !self.joins(other).iter().any(|(_, back)| back == table) {
                if self.tables.get(other).is_some_and(|other| !other.is_running) {
                    self.start_commit(other, cut)?;
                }
                if self.is_seen(other) || self.tables.get(other).is_some_and(|other| other.is_running) {
                    self.awaits = true;
                    return Ok(None);
                }
            }
        }
        let at = |(lookup, other): (Arc<Lookup>, TableId)| {
            let version = self.tables.get(&other)?.checkpoint()?.to_json().ok()?;
            Some(JoinedTable { lookup, table: other, version })
        };
        Ok(Some(joins.into_iter().filter_map(at).collect()))
    }
}
