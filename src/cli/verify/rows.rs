//! The rows of both sides: the source's by a snapshot at one point, the lake's by a query.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{SourcePosition, TableId};
use crate::merge::{CHECKPOINT_KEY, Checkpoint, RowLetter, TableRules, TinyInt1};
use crate::pipeline::row_letters_of;
use crate::query::{Engine, QueryOptions};
use crate::source::{
    Catalog, CatalogTable, ServerInfo, Snapshot, SnapshotEvent, SnapshotPlan, TablePlan, Wanted, connect, connection_options,
    load_catalog,
};
use crate::table::{Lake, Table, TableView};
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use mysql_async::Opts;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the lock at the snapshot's point is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Batches that wait between the readers and the comparison.
const WAITING: usize = 8;

/// The source, known.
#[derive(Debug)]
pub(super) struct Source {
    options: Opts,
    info: ServerInfo,
}

impl Source {
    /// Connects and reads the catalog.
    pub(super) async fn open(config: &Config) -> Result<(Self, Catalog)> {
        let options = connection_options(config.source.url.expose())?;
        let mut conn = connect(&options, config.source.connect_timeout).await?;
        let info = ServerInfo::read(&mut conn).await?;
        let catalog = load_catalog(&mut conn, |table| wanted(&config.tables, table)).await?;
        // the connection is not used again: a failed good-bye means nothing
        let _ = conn.disconnect().await;
        Ok((Self { options, info }, catalog))
    }

    /// Reads all rows of `tables` as of one point and gives them to `sink`; tables that can't be read, with the reason.
    pub(super) async fn read(
        &self,
        config: &Config,
        tables: Vec<CatalogTable>,
        mut sink: impl FnMut(&TableId, &RecordBatch) -> Result<()>,
    ) -> Result<(SourcePosition, BTreeMap<TableId, Error>)> {
        let plans = tables.into_iter().map(|table| {
            let policies = config.tables.rule_for(&table.schema.table).map(|rule| rule.policies()).unwrap_or_default();
            TablePlan { table, policies, progress: None, filter: None }
        });
        let plan = SnapshotPlan {
            tables: plans.collect(),
            lanes: 1,
            connections: config.source.snapshot_connections,
            chunk_rows: config.source.snapshot_chunk_rows,
            batch_bytes: usize::try_from(config.stream.chunk_size.0).unwrap_or(1 << 20),
            connect_timeout: config.source.connect_timeout,
            lock_wait_timeout: LOCK_WAIT,
        };
        let snapshot = Snapshot::open(self.options.clone(), self.info.clone(), plan).await?;
        let position = snapshot.low_watermark().clone();
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let mut failed = BTreeMap::new();
        let consume = async {
            while let Some(event) = receiver.recv().await {
                match event {
                    SnapshotEvent::Rows { batch, .. } => sink(&batch.schema.table, &batch.rows)?,
                    SnapshotEvent::Progress { .. } => {}
                    SnapshotEvent::Failed { table, error } => {
                        failed.insert(table, error);
                    }
                }
            }
            Ok(())
        };
        tokio::try_join!(snapshot.run(sender), consume)?;
        Ok((position, failed))
    }
}

fn wanted(rules: &TableRules, table: &TableId) -> Option<Wanted> {
    rules.rule_for(table).map(|rule| Wanted { key: rule.key.clone(), tinyint1_is_bool: rule.tinyint1 == TinyInt1::Bool })
}

/// What the lake knows about a table: its columns' names and how far it is. `None`: it has no such table.
pub(super) async fn lake_table(lake: &Lake, table: &TableId) -> Result<Option<(Vec<String>, Option<Checkpoint>)>> {
    let base = lake.table_path(table.database(), table.name());
    if !Table::exists(lake.store(), &base).await? {
        return Ok(None);
    }
    let view = TableView::open(lake.store().clone(), base).await?;
    let checkpoint = view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
    Ok(Some((view.latest_columns().fields().iter().map(|field| field.name().clone()).collect(), checkpoint)))
}

/// Reads the columns of all rows of a lake table and gives them to `sink`.
pub(super) async fn read_lake(
    lake: &Lake,
    table: &TableId,
    columns: impl Iterator<Item = &str>,
    mut sink: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = columns.map(quoted).collect();
    let sql = format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(table.database()), quoted(table.name()));
    let (_, mut rows) = Engine::new(lake.clone(), QueryOptions::default()).query(&sql).await?;
    while let Some(batch) = rows.try_next().await? {
        sink(&batch)?;
    }
    Ok(())
}

/// The keys of a table's rows that are dead letters.
pub(super) async fn letter_keys(lake: &Lake, table: &TableId) -> Result<BTreeSet<String>> {
    let letters = row_letters_of(table);
    if lake_table(lake, &letters).await?.is_none() {
        return Ok(BTreeSet::new());
    }
    let engine = Engine::new(lake.clone(), QueryOptions::default());
    let (_, mut rows) = engine.table(letters.database(), letters.name()).await?;
    let mut keys = BTreeSet::new();
    while let Some(batch) = rows.try_next().await? {
        keys.extend(RowLetter::keys(&batch)?);
    }
    Ok(keys)
}
