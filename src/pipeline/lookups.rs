//! The lookups of a running service: each is kept fresh by a task of its own.

use super::status::Status;
use crate::config::{Config, Delivered};
use crate::deliver::{DeliverUrl, open_items};
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::lookup::{Items, Lookup, LookupUrl, Missing, keep_fresh, leads_to};
use crate::merge::TableRules;
use crate::query::{Engine, QueryOptions};
use crate::table::{Lake, Table};
use crate::transform::Transform;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use futures::TryStreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The lookups that transforms join.
fn joined(config: &Config) -> Vec<Arc<Lookup>> {
    let rules = config.tables.rules().iter().chain(config.fed.iter().map(|fed| &fed.rule));
    let joined: Vec<&String> = rules.filter_map(|rule| rule.transform.as_ref()).flat_map(|sql| sql.lookups().keys()).collect();
    config.lookups.iter().filter(|(name, _)| joined.contains(name)).map(|(_, lookup)| lookup.clone()).collect()
}

/// Reads the lookups that transforms join once.
///
/// # Errors
/// If one can't be read.
pub async fn read_lookups(config: &Config, lake: &Lake) -> Result<()> {
    for lookup in joined(config) {
        read(&lookup, lake).await?;
    }
    Ok(())
}

/// Reads once what a copy doesn't fill itself, so that what can't be read is said before anything is copied. Tables may be yet to come.
///
/// # Errors
/// If one can't be read, or is filled by a delivery that hasn't begun.
pub(super) async fn read_others(config: &Config, lake: &Lake) -> Result<()> {
    for lookup in joined(config) {
        if let Some(delivered) = filled_by(config, &lookup) {
            let unfilled = ensure_filled(&delivered).await;
            unfilled.map_err(|error| {
                error.with("lookup", lookup.name()).remedy("start `binlake run`: it delivers, and a copy doesn't")
            })?;
        }
        if !matches!(lookup.config().url, LookupUrl::Table(_)) {
            read(&lookup, lake).await?;
        }
    }
    Ok(())
}

/// Keeps the lookups that transforms join fresh until the set is dropped.
pub(super) fn keep_lookups(config: &Config, lake: &Lake, status: &Status) -> JoinSet<()> {
    let used = joined(config);
    status.lookups(used.clone());
    let mut tasks = JoinSet::new();
    for lookup in used {
        let (lake, filled_by) = (lake.clone(), filled_by(config, &lookup));
        tasks.spawn(async move {
            keep_fresh(lookup.clone(), || async {
                match &filled_by {
                    Some(delivered) if lookup.content().is_none() => ensure_filled(delivered).await?,
                    _ => {}
                }
                read(&lookup, &lake).await
            })
            .await;
        });
    }
    tasks
}

/// The delivery of this very pipeline that writes the lookup's items.
fn filled_by(config: &Config, lookup: &Lookup) -> Option<Delivered> {
    let is_same = |delivered: &&Delivered| match (&delivered.config.to, &lookup.config().url) {
        (DeliverUrl::Sqlite(file), LookupUrl::Sqlite(path, table)) => file == path && delivered.mapping.target == *table,
        (DeliverUrl::DynamoDb(to), LookupUrl::DynamoDb(from)) => {
            delivered.mapping.target == from.name && to.region == from.region && to.endpoint == from.endpoint
        }
        _ => false,
    };
    config.deliver.iter().find(is_same).cloned()
}

/// A table that is being filled for the first time would be read as one that lacks what isn't there yet.
async fn ensure_filled(delivered: &Delivered) -> Result<()> {
    let target = &delivered.mapping.target;
    match open_items(&delivered.config).await?.checkpoint(target).await? {
        Some(_) => Ok(()),
        None => {
            Err(Error::new(Area::Lake, Kind::Transient, "the delivery that fills the lookup has not come to its first checkpoint")
                .with("target", target))
        }
    }
}

async fn read(lookup: &Lookup, lake: &Lake) -> Result<()> {
    match &lookup.config().url {
        LookupUrl::Table(table) if Table::exists(lake.store(), &lake.table_path(table.database(), table.name())).await? => {
            lookup.take(Items::Typed(table_rows(table, lake).await?))
        }
        LookupUrl::Table(table) => {
            let early = Error::new(Area::Lake, Kind::Transient, "the lookup's table has no commit yet").with("table", table);
            Err(early.remedy("it is read as soon as it has one; if none comes, correct the lookup's `url`, or replicate the table"))
        }
        _ => lookup.read().await,
    }
}

/// The tables that a transform joins as of each cut.
pub(super) fn joined_tables(transform: &Transform) -> impl Iterator<Item = (Arc<Lookup>, TableId)> + '_ {
    tables_of(transform).filter(|(lookup, _)| lookup.missing() != Missing::Hold)
}

/// The lookups by which a table joins tables of its own ring: it begins without their items.
pub(super) fn ring_lookups(rules: &TableRules, table: &TableId) -> BTreeSet<String> {
    let joins = |table: &TableId| {
        let transform = rules.rule_for(table).and_then(|rule| rule.transform.as_ref());
        let joined = transform.into_iter().flat_map(joined_tables).filter(|(_, other)| other != table);
        joined.map(|(lookup, other)| (lookup.name().to_owned(), other)).collect::<Vec<_>>()
    };
    let others = |table: &TableId| joins(table).into_iter().map(|(_, other)| other).collect();
    joins(table).into_iter().filter(|(_, other)| leads_to(other, table, others)).map(|(name, _)| name).collect()
}

/// Those that it joins as they are: rows wait there until they have their item.
pub(super) fn waiting_tables(transform: &Transform) -> impl Iterator<Item = (Arc<Lookup>, TableId)> + '_ {
    tables_of(transform).filter(|(lookup, _)| lookup.missing() == Missing::Hold)
}

fn tables_of(transform: &Transform) -> impl Iterator<Item = (Arc<Lookup>, TableId)> + '_ {
    transform.lookups().values().filter_map(|lookup| match &lookup.config().url {
        LookupUrl::Table(table) => Some((lookup.clone(), table.clone())),
        _ => None,
    })
}

/// What a table's last commit is called, and all of its rows, without columns if that commit `is_known`; `None`: it has no commit yet.
pub(super) async fn latest_rows(
    table: &TableId,
    lake: &Lake,
    is_known: impl Fn(&str) -> bool,
) -> Result<Option<(String, RecordBatch)>> {
    let base = lake.table_path(table.database(), table.name());
    if !Table::exists(lake.store(), &base).await? {
        return Ok(None);
    }
    // a commit that is seen only when the rows are read makes them newer than they are called: they are read again
    let view = Table::settled_view(lake.store().clone(), base).await?;
    let Some(version) = view.instants().last().map(|last| last.instant.to_string()) else { return Ok(None) };
    let rows = if is_known(&version) { RecordBatch::new_empty(Arc::new(Schema::empty())) } else { table_rows(table, lake).await? };
    Ok(Some((version, rows)))
}

/// All rows of a table of the lake, as of its last commit.
pub(super) async fn table_rows(table: &TableId, lake: &Lake) -> Result<RecordBatch> {
    let (schema, rows) = Engine::new(lake.clone(), QueryOptions::default()).table(table.database(), table.name()).await?;
    let batches: Vec<_> = rows.try_collect().await?;
    concat_batches(&schema, &batches).map_err(|error| {
        Error::new(Area::Lake, Kind::Refused, "a lookup's table can't be read").caused_by(error).with("table", table)
    })
}
