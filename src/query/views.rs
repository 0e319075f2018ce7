//! The tables that one statement sees: each is read once, so that all its names mean one state of it.

use crate::error::Result;
use crate::table::{Lake, TableView};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A database and a table.
pub(super) type Name = (String, String);

/// The tables of a lake, read when they are first needed.
#[derive(Debug)]
pub(super) struct Views {
    lake: Lake,
    known: Vec<Name>,
    read: Mutex<BTreeMap<Name, Arc<TableView>>>,
}

impl Views {
    pub(super) async fn new(lake: &Lake) -> Result<Self> {
        Ok(Self { lake: lake.clone(), known: lake.tables().await?, read: Mutex::default() })
    }

    /// All tables that there are.
    pub(super) fn known(&self) -> &[Name] {
        &self.known
    }

    pub(super) fn has(&self, database: &str, name: &str) -> bool {
        self.known.iter().any(|(d, n)| d == database && n == name)
    }

    /// A table.
    pub(super) async fn get(&self, database: &str, name: &str) -> Result<Arc<TableView>> {
        let key = (database.to_owned(), name.to_owned());
        let mut read = self.read.lock().await;
        if let Some(view) = read.get(&key) {
            return Ok(view.clone());
        }
        let view = TableView::open(self.lake.store().clone(), self.lake.table_path(database, name)).await;
        let view = Arc::new(view.map_err(|error| error.with("table", format!("{database}.{name}")))?);
        read.insert(key, view.clone());
        Ok(view)
    }
}
