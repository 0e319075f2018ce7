//! Where a running service is asked to erase: the admin interface's way to what `binlake erase` asks for.

use super::apply::LakeWriter;
use super::asked::Asked;
use super::rules::RulesBook;
use super::table_requests::Work;
use super::table_services::TableServices;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::state::StateStore;

/// Takes requests. Clones share it.
#[derive(Debug, Clone)]
pub struct EraseDesk {
    state: StateStore,
    lake_url: String,
    services: TableServices,
    book: RulesBook,
}

impl EraseDesk {
    /// For the tables of `lake` that the rules of `book` name.
    pub(super) fn new(state: &StateStore, lake: &LakeWriter, book: &RulesBook) -> Self {
        Self { state: state.clone(), lake_url: lake.url().to_owned(), services: lake.services(), book: book.clone() }
    }

    /// Whether the table is one that this pipeline's services have.
    ///
    /// # Errors
    /// If the rules in force can't be used here.
    pub fn has(&self, table: &TableId) -> Result<bool> {
        let config = self.book.config_of(self.book.newest())?;
        Ok(config.tables.rule_for(table).is_some() || config.fed.iter().any(|fed| fed.table == *table))
    }

    /// Asks whoever has the table to erase these keys. When this returns, the request outlives a crash; the keys that are written are those of the command.
    ///
    /// # Errors
    /// `Config` for keys that can't be the table's, or a table that isn't there yet, `Refused` for a savepoint in the way; else if the state store can't
    /// take it.
    pub async fn ask(&self, table: &TableId, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Err(Error::config("there is no key to erase").with("table", table).remedy("name at least one"));
        }
        let config = self.book.config_of(self.book.newest())?;
        self.services.ensure_erasable(table, keys, config.key_of(table)).await?;
        Asked::ask(&self.state, &self.lake_url, table, Work::erase(keys)).await.map(|_| ())
    }
}
