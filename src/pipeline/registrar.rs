//! Keeps the catalog's entries beside the views: after a commit that changed a table's columns or partitions, and for all tables at the start.
//!
//! A task of its own: a slow catalog holds up neither commits nor views. What fails is tried again; the table is read anew each time, so that the entry says
//! what is there then.

use super::apply::Contents;
use super::rules::RulesBook;
use crate::config::Config;
use crate::error::Result;
use crate::event::TableId;
use crate::merge::HISTORY_SUFFIX;
use crate::publish::{CatalogConfig, CatalogEntry, Described, GlueCatalog};
use crate::source::{Comments, read_comments};
use crate::table::{InstantTime, Lake, TableView};
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
#[derive(Debug)]
pub(super) struct TableShape {
    table: TableId,
    columns: SchemaRef,
    /// Paths of the partitions that hold files.
    partitions: BTreeSet<String>,
    /// See [`Contents::instants`].
    instants: Vec<InstantTime>,
}

impl TableShape {
    pub(super) fn new(table: TableId, contents: &Contents) -> Self {
        let partitions = contents.slices.iter().map(|slice| slice.partition_path.clone()).collect();
        Self { table, columns: contents.columns.clone(), partitions, instants: contents.instants.clone() }
    }

    /// Whether nobody else has written the table since `before`.
    fn follows(&self, before: &Self) -> bool {
        before.instants.last().is_some_and(|last| self.instants.contains(last))
    }
}

/// Registers tables until nobody is left who commits.
pub(super) async fn follow_shapes(
    lake: Lake,
    book: RulesBook,
    catalog: CatalogConfig,
    mut shapes: mpsc::UnboundedReceiver<TableShape>,
) {
    let mut registrar = Registrar { lake, book, catalog_config: catalog, catalog: None, due: Due::default(), is_started: false };
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
        next.into_iter().for_each(|shape| registrar.due.note(shape));
        while let Ok(shape) = shapes.try_recv() {
            registrar.due.note(shape);
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
    due: Due,
    is_started: bool,
}

/// What is to be registered.
#[derive(Debug, Default)]
struct Due {
    tables: BTreeSet<TableId>,
    /// Tables that others may have registered since we did.
    foreign: BTreeSet<TableId>,
    seen: BTreeMap<TableId, TableShape>,
}

impl Due {
    /// Takes note of a commit.
    fn note(&mut self, shape: TableShape) {
        let before = self.seen.get(&shape.table).filter(|before| shape.follows(before));
        if before.is_none() {
            self.foreign.insert(shape.table.clone());
        }
        if before.is_none_or(|before| before.columns != shape.columns || before.partitions != shape.partitions) {
            self.tables.insert(shape.table.clone());
        }
        self.seen.insert(shape.table.clone(), shape);
    }
}

impl Registrar {
    /// Registers what is due. One table's failure doesn't hold up the others; the first is the answer.
    async fn register(&mut self) -> Result<()> {
        if !self.is_started {
            let tables = self.lake.tables().await?;
            self.due.tables.extend(tables.iter().map(|(database, table)| TableId::new(database, table)));
            self.is_started = true;
        }
        if self.due.tables.is_empty() {
            return Ok(());
        }
        let catalog = match &mut self.catalog {
            Some(catalog) => catalog,
            none => none.insert(GlueCatalog::open(&self.catalog_config).await?),
        };
        let config = self.book.config_of(self.book.newest())?;
        let mut first_error = None;
        for table in std::mem::take(&mut self.due.tables) {
            let is_foreign = self.due.foreign.contains(&table);
            let Err(error) = register_table(&self.lake, &config, catalog, &table, is_foreign).await else {
                self.due.foreign.remove(&table);
                continue;
            };
            if error.is_transient() {
                first_error.get_or_insert(error.with("table", &table));
                self.due.tables.insert(table);
            } else {
                // it comes again with the next change of the table, or the next start
                tracing::error!(%table, %error, "the table isn't registered in the catalog");
                metrics::counter!(crate::metrics::CATALOG_ERRORS).increment(1);
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

async fn register_table(lake: &Lake, config: &Config, catalog: &mut GlueCatalog, table: &TableId, is_foreign: bool) -> Result<()> {
    let Some(described) = describe_table(lake, config, table).await? else { return Ok(()) };
    if is_foreign {
        catalog.forget(&described);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    /// The catalog is asked where columns or partitions are others, and where another worker may have registered the table meanwhile.
    #[test]
    fn a_table_that_another_had_meanwhile_is_looked_at_anew() {
        let columns = Arc::new(Schema::empty());
        let table: TableId = "shop.orders".parse().unwrap();
        let mut due = Due::default();
        let mut commit = |before: Option<u8>, instant: u8, partitions: &[&str]| {
            let instants = before
                .iter()
                .chain([&instant])
                .map(|number| InstantTime::parse(&format!("2026010100000000{number}")).unwrap())
                .collect();
            let partitions = partitions.iter().map(|path| (*path).to_owned()).collect();
            due.note(TableShape { table: table.clone(), columns: columns.clone(), partitions, instants });
            (due.tables.remove(&table), due.foreign.remove(&table))
        };
        assert_eq!(commit(None, 1, &["a"]), (true, true), "who knows what was before");
        assert_eq!(commit(Some(1), 2, &["a"]), (false, false));
        assert_eq!(commit(Some(2), 3, &["a", "b"]), (true, false));
        assert_eq!(commit(Some(2), 3, &["a", "b"]), (false, false), "the same again");
        // the partition went by another's commit, and comes again by ours
        assert_eq!(commit(Some(4), 5, &["a", "b"]), (true, true));
        assert_eq!(commit(Some(5), 6, &["a", "b"]), (false, false));
    }
}
