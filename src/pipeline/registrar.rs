//! Keeps the catalog's entries beside the views: after a commit that changed a table's columns or partitions, and for all tables at the start.
//!
//! A task of its own: a slow catalog holds up neither commits nor views. What fails is tried again; the table is read anew each time, so that the entry says
//! what is there then.

use super::rules::RulesBook;
use crate::config::Config;
use crate::error::Result;
use crate::event::TableId;
use crate::merge::HISTORY_SUFFIX;
use crate::publish::{CatalogConfig, CatalogEntry, Described, GlueCatalog};
use crate::source::{Comments, read_comments};
use crate::table::{Lake, TableView};
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// The pause before what failed is tried again, and the longest: it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// What the last attempt may take when the service ends.
const LAST_ATTEMPT: Duration = Duration::from_secs(15);

/// What a table is made of after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableShape {
    pub(super) table: TableId,
    pub(super) columns: SchemaRef,
    /// Paths of the partitions that hold files.
    pub(super) partitions: BTreeSet<String>,
}

/// Registers tables until nobody is left who commits.
pub(super) async fn follow_shapes(
    lake: Lake,
    book: RulesBook,
    catalog: CatalogConfig,
    mut shapes: mpsc::UnboundedReceiver<TableShape>,
) {
    let mut registrar = Registrar {
        lake,
        book,
        catalog_config: catalog,
        catalog: None,
        due: BTreeSet::new(),
        seen: BTreeMap::new(),
        is_started: false,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = registrar.register().await;
        let next = match &outcome {
            Ok(()) => {
                pause = FIRST_PAUSE;
                shapes.recv().await
            }
            Err(error) => {
                metrics::counter!(crate::metrics::CATALOG_ERRORS).increment(1);
                tracing::warn!(%error, "the catalog stays as it was; it is tried again");
                // commits meanwhile are collected below
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                shapes.try_recv().ok()
            }
        };
        let is_over = next.is_none() && shapes.is_closed();
        next.into_iter().for_each(|shape| registrar.note(shape));
        while let Ok(shape) = shapes.try_recv() {
            registrar.note(shape);
        }
        if is_over {
            if let Ok(Err(error)) = tokio::time::timeout(LAST_ATTEMPT, registrar.register()).await {
                tracing::warn!(%error, "the catalog stays as it was; the next start brings it up to date");
            }
            return;
        }
    }
}

struct Registrar {
    lake: Lake,
    /// A table that came while the service runs has its comments, too.
    book: RulesBook,
    catalog_config: CatalogConfig,
    catalog: Option<GlueCatalog>,
    due: BTreeSet<TableId>,
    seen: BTreeMap<TableId, TableShape>,
    is_started: bool,
}

impl Registrar {
    /// Takes note of a commit.
    fn note(&mut self, shape: TableShape) {
        if self.seen.get(&shape.table) != Some(&shape) {
            self.due.insert(shape.table.clone());
            self.seen.insert(shape.table.clone(), shape);
        }
    }

    /// Registers what is due. One table's failure doesn't hold up the others; the first is the answer.
    async fn register(&mut self) -> Result<()> {
        if !self.is_started {
            let tables = self.lake.tables().await?;
            self.due.extend(tables.iter().map(|(database, table)| TableId::new(database, table)));
            self.is_started = true;
        }
        if self.due.is_empty() {
            return Ok(());
        }
        let catalog = match &mut self.catalog {
            Some(catalog) => catalog,
            none => none.insert(GlueCatalog::open(&self.catalog_config).await?),
        };
        let config = self.book.config_of(self.book.newest())?;
        let mut first_error = None;
        for table in std::mem::take(&mut self.due) {
            let Err(error) = register_table(&self.lake, &config, catalog, &table).await else { continue };
            if error.is_transient() {
                first_error.get_or_insert(error.with("table", &table));
                self.due.insert(table);
            } else {
                // it comes again with the next change of the table, or the next start
                tracing::error!(%table, %error, "the table isn't registered in the catalog");
                metrics::counter!(crate::metrics::CATALOG_ERRORS).increment(1);
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

async fn register_table(lake: &Lake, config: &Config, catalog: &mut GlueCatalog, table: &TableId) -> Result<()> {
    let Some(described) = describe_table(lake, config, table).await? else { return Ok(()) };
    let registered = catalog.register(&described).await?;
    if registered.is_change() {
        metrics::counter!(crate::metrics::CATALOG_CHANGES).increment(1);
        tracing::info!(
            %table,
            entry = format!("{}.{}", described.database, described.name),
            created = registered.is_created,
            updated = registered.is_updated,
            partitions_added = registered.partitions_added,
            partitions_removed = registered.partitions_removed,
            "the catalog is up to date"
        );
    }
    Ok(())
}

/// How a catalog describes a table of the lake; `None`: it has no commit yet.
///
/// # Errors
/// The table can't be read, or can't be described.
pub async fn describe_table(lake: &Lake, config: &Config, table: &TableId) -> Result<Option<CatalogEntry>> {
    let view = TableView::open(lake.store().clone(), lake.table_path(table.database(), table.name())).await?;
    let columns = view.latest_columns();
    if columns.fields().is_empty() {
        return Ok(None);
    }
    let slices = view.slices(None)?;
    let partitions: BTreeSet<&str> = slices.iter().map(|slice| slice.partition_path.as_str()).collect();
    let catalog = config.catalog.as_ref();
    let database = catalog.map_or_else(|| table.database().to_lowercase(), |catalog| catalog.database.of(table.database()));
    let comments = comments(config, table).await;
    let none = BTreeMap::new();
    let described = Described {
        database: &database,
        name: table.name(),
        location: &lake.table_url(table.database(), table.name()),
        columns: &columns,
        partition_columns: &view.partition_columns(),
        comment: &comments.table,
        column_comments: &comments.columns,
        parameters: catalog.map_or(&none, |catalog| &catalog.parameters),
    };
    CatalogEntry::describe(&described, partitions).map(Some)
}

/// The source's comments, where this process may ask the source: a merge on another machine may not, and then the catalog keeps those that it has.
async fn comments(config: &Config, table: &TableId) -> Comments {
    // a history has the columns of its table
    let source = table.name().strip_suffix(HISTORY_SUFFIX).map(|name| TableId::new(table.database(), name));
    for named in [Some(table), source.as_ref()].into_iter().flatten().filter(|table| config.tables.rule_for(table).is_some()) {
        match read_comments(&config.source, named).await {
            Ok(comments) if comments == Comments::default() => {}
            Ok(comments) => return comments,
            Err(error) => {
                tracing::info!(%table, %error, "the source's comments aren't known here; the catalog keeps those that it has");
                break;
            }
        }
    }
    Comments::default()
}
