//! The tables of a lake, for work that isn't changes: erasing (`erase`), going back, savepoints, clustering (`maintenance`).

use crate::error::Result;
use crate::event::TableId;
use crate::merge::{CHILD_KEY, COMMIT_TS, ChildClaim, history_of};
use crate::publish::Publisher;
use crate::table::{Lake, Table, TableOptions, TableSpec, TableView};

/// Works on the tables of a lake.
#[derive(Debug, Clone)]
pub struct TableServices {
    lake: Lake,
    options: TableOptions,
    /// Whether tables are taken from whoever has them, as a worker with leases does.
    is_taking: bool,
}

impl TableServices {
    /// Of `lake`. They give way to a service of this machine that writes a table.
    pub fn new(lake: Lake, options: TableOptions) -> Self {
        Self { lake, options, is_taking: false }
    }

    /// The same for the service itself, which has the tables.
    #[must_use]
    pub(super) fn taking(self, is_taking: bool) -> Self {
        Self { is_taking, ..self }
    }

    pub(super) fn lake(&self) -> &Lake {
        &self.lake
    }

    /// A table as it is now; `None`: there is none.
    ///
    /// # Errors
    /// If the lake can't be read.
    pub async fn view(&self, table: &TableId) -> Result<Option<TableView>> {
        let base = self.lake.table_path(table.database(), table.name());
        if !Table::exists(self.lake.store(), &base).await? {
            return Ok(None);
        }
        TableView::open(self.lake.store().clone(), base).await.map(Some).map_err(|error| error.with("table", table))
    }

    /// The tables that hold the elements of lists in the table's rows, and in the versions of its history.
    pub(super) async fn children_of(&self, table: &TableId) -> Result<Vec<TableId>> {
        let (history, mut children) = (history_of(table), Vec::new());
        for (database, name) in self.lake.tables().await? {
            let other = TableId::new(database, name);
            let Some(view) = self.view(&other).await? else { continue };
            let claim = view.extra_metadata(CHILD_KEY).and_then(ChildClaim::from_json);
            if claim.is_some_and(|claim| claim.of == *table || claim.of == history) {
                children.push(other);
            }
        }
        Ok(children)
    }

    /// Makes the views anew: the files that they named are gone.
    ///
    /// # Errors
    /// If the lake can't be read or written.
    pub async fn publish(&self) -> Result<()> {
        let mut publisher = Publisher::open(self.lake.clone());
        publisher.refresh().await?;
        publisher.write().await.map(drop)
    }

    /// Opens a table as it is for writing.
    ///
    /// # Errors
    /// `Conflict` if a service has it.
    pub async fn open(&self, table: &TableId) -> Result<Table> {
        let base = self.lake.table_path(table.database(), table.name());
        let view = TableView::open(self.lake.store().clone(), base.clone()).await.map_err(|error| error.with("table", table))?;
        let spec = TableSpec {
            database: table.database().to_owned(),
            name: table.name().to_owned(),
            columns: view.latest_columns(),
            record_key: view.record_key(),
            sort_prefix: view.sort_prefix(),
            ordering_field: COMMIT_TS.to_owned(),
            partition_columns: view.partition_columns(),
        };
        let (store, options) = (self.lake.store().clone(), self.options.clone());
        match self.is_taking {
            true => Table::take(store, base, &spec, options).await,
            false => Table::open(store, base, &spec, options).await,
        }
    }
}
