//! The tables as the apply loop meets them: found, opened, made.

use super::delivery::Delivery;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::merge::{CHECKPOINT_KEY, CHILD_KEY, Checkpoint, HISTORY_START_KEY, TRANSFORMED_KEY};
use crate::pipeline::TableServices;
use crate::pipeline::table_requests::TableRequests;
use crate::table::{Lake, Table, TableOptions, TableSpec};
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use std::sync::Arc;

/// Where the tables are, and how they are written.
#[derive(Debug, Clone)]
pub struct LakeWriter {
    lake: Lake,
    options: TableOptions,
    /// Whether the tables are given out by leases.
    is_shared: bool,
    /// Where items are written in the place of lake tables.
    delivery: Option<Arc<Delivery>>,
    /// What is asked for of them.
    requests: Option<TableRequests>,
}

impl LakeWriter {
    /// Writes the tables of `lake`.
    pub fn new(lake: Lake, options: TableOptions) -> Self {
        Self { lake, options, is_shared: false, delivery: None, requests: None }
    }

    /// The same for a worker that is given tables by leases: it takes them from whoever has them, and gives way to whoever takes them.
    #[must_use]
    pub(in crate::pipeline) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// The same for a source table whose rows become items elsewhere.
    #[must_use]
    pub(in crate::pipeline) fn delivering(self, delivery: Arc<Delivery>) -> Self {
        Self { delivery: Some(delivery), ..self }
    }

    /// The same for a service that can be asked for work on its tables.
    #[must_use]
    pub(in crate::pipeline) fn asked(self, requests: TableRequests) -> Self {
        Self { requests: Some(requests), ..self }
    }

    /// What is asked for; of items that are delivered elsewhere nothing is.
    pub(super) fn requests(&self) -> Option<TableRequests> {
        self.requests.clone().filter(|_| self.delivery.is_none())
    }

    pub(in crate::pipeline) fn url(&self) -> &str {
        self.lake.url()
    }

    pub(in crate::pipeline) fn services(&self) -> TableServices {
        TableServices::new(self.lake.clone(), self.options.clone()).taking(self.is_shared)
    }

    pub(super) fn delivery(&self) -> Option<&Arc<Delivery>> {
        self.delivery.as_ref()
    }

    /// Bytes that a commit may hold of what waits to be sorted.
    pub(super) fn memory_bytes(&self) -> usize {
        usize::try_from(self.options.memory_bytes / 2).unwrap_or(usize::MAX)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The lake.
    pub(super) fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Whether there is such a table.
    pub(super) async fn has(&self, table: &TableId) -> Result<bool> {
        Table::exists(self.lake.store(), &self.base(table)).await.map_err(|error| error.with("table", table))
    }

    fn base(&self, table: &TableId) -> Path {
        self.lake.table_path(table.database(), table.name())
    }

    /// The tables that the lake has.
    pub async fn tables(&self) -> Result<Vec<TableId>> {
        if let Some(delivery) = &self.delivery {
            return Ok(vec![delivery.source().clone()]);
        }
        let found = self.lake.tables().await?;
        Ok(found.into_iter().map(|(database, name)| TableId::new(database, name)).collect())
    }

    /// The checkpoint of a table's last commit; `None` if there is no such table, or no commit of ours, or if it is a history or a child.
    pub async fn checkpoint(&self, table: &TableId) -> Result<Option<Checkpoint>> {
        if let Some(delivery) = &self.delivery {
            return delivery.claim().await;
        }
        let at = |error: Error| error.with("table", table);
        if !Table::exists(self.lake.store(), &self.base(table)).await.map_err(at)? {
            return Ok(None);
        }
        let view = Table::settled_view(self.lake.store().clone(), self.base(table)).await.map_err(at)?;
        // a history has its table's checkpoints, and so have children
        let is_own = [HISTORY_START_KEY, CHILD_KEY].iter().all(|key| view.extra_metadata(key).is_none());
        let own = view.extra_metadata(CHECKPOINT_KEY).filter(|_| is_own);
        own.map(Checkpoint::from_json).transpose().map_err(at)
    }

    /// The columns of a table whose rows a transform makes, or has made until now.
    pub(super) async fn columns_that_stay(&self, table: &TableId, is_transformed: bool) -> Result<Option<SchemaRef>> {
        if self.delivery.is_some() || !Table::exists(self.lake.store(), &self.base(table)).await? {
            return Ok(None);
        }
        let view = Table::settled_view(self.lake.store().clone(), self.base(table)).await?;
        let was_transformed = view.extra_metadata(TRANSFORMED_KEY).is_some();
        Ok((is_transformed || was_transformed).then(|| view.latest_columns()))
    }

    /// Opens a table for writing, and makes it first if it isn't there; `anew`: its next commit replaces all that it holds.
    pub(super) async fn open(&self, table: &TableId, spec: &TableSpec, anew: bool) -> Result<Table> {
        let (store, base, options) = (self.lake.store().clone(), self.base(table), self.options.clone());
        match (Table::exists(&store, &base).await?, self.is_shared) {
            (false, _) => Table::create(store, base, spec, options).await,
            (true, false) if anew => Table::open_to_replace(store, base, spec, options).await,
            (true, false) => Table::open(store, base, spec, options).await,
            (true, true) if anew => {
                let record_key = Table::settled_view(store.clone(), base.clone()).await?.record_key();
                Table::take(store, base, &TableSpec { record_key, ..spec.clone() }, options).await
            }
            (true, true) => Table::take(store, base, spec, options).await,
        }
    }
}
