//! Whether rules can be used: what is looked at at a start, and what a running service can't do.

use crate::config::{Config, Delivered, FedTable};
use crate::error::{Error, Result};
use crate::event::{TableId, TableSchema};
use crate::merge::{ChildShape, LakeShape, TableRule, TableRules};
use crate::pipeline::capture::wanted;
use crate::source::{Catalog, NO_KEY_COLUMN, connect, connection_options, load_catalog, no_such_table};
use crate::table::{Lake, TableView, ensure_column_name, ensure_evolves};
use crate::transform::Transform;
use arrow::datatypes::Schema;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a running service can't do for a table that has rows.
const REBUILT: &str = "it changes what rows are and where they lie: stop the service, write it into the file, and run `binlake backfill --table` for the table";

/// The shape that a table gets in the lake; an error where it can't be one.
fn shape(schema: &TableSchema, rule: &TableRule) -> Result<LakeShape> {
    let mut treatment = rule.treatment();
    // where a lookup's columns aren't known, the merge says what is wrong
    let is_known = treatment.transform.as_ref().is_none_or(Transform::is_known);
    treatment.transform = treatment.transform.filter(Transform::is_known);
    let fits = |shape: LakeShape| {
        if is_known {
            rule.history.as_ref().map_or(Ok(()), |history| history.ensure_fits(&shape))?;
            ChildShape::all(&rule.children.0, &shape, None)?;
        }
        Ok(shape)
    };
    LakeShape::treated(Arc::new(schema.clone()), &treatment).and_then(fits).map_err(Error::into_config)
}

/// The tables that can't become lake tables as their rules have them: their transform, history, children or partitions don't fit their columns.
pub fn unfit(catalog: &Catalog, rules: &TableRules) -> Vec<(TableId, Error)> {
    let unfit = |(id, table): (&TableId, &crate::source::CatalogTable)| {
        shape(&table.schema, rules.rule_for(id)?).err().map(|error| (id.clone(), error))
    };
    catalog.tables.iter().filter_map(unfit).collect()
}

/// The tables of which a column in the lake has a name that readers can't read; the merge stops them.
pub fn unreadable(catalog: &Catalog, rules: &TableRules) -> Vec<(TableId, Error)> {
    let of = |(id, table): (&TableId, &crate::source::CatalogTable)| {
        let shape = shape(&table.schema, rules.rule_for(id)?).ok()?;
        let error = shape.columns().fields().iter().find_map(|field| ensure_column_name(field.name()).err())?;
        Some((id.clone(), error))
    };
    catalog.tables.iter().filter_map(of).collect()
}

/// What of a delivery's mapping doesn't fit its table at the source, an error for each.
pub fn misfits_of(delivered: &Delivered, config: &Config, catalog: &Catalog) -> Vec<Error> {
    let source = &delivered.mapping.source;
    let refused = catalog.refused.iter().find(|(table, _)| table == source).map(|(_, error)| error.what());
    let errors = match catalog.tables.get(source) {
        Some(table) => {
            let expiring = delivered.config.ttl_attribute.as_ref().map(|name| delivered.mapping.expires_by(name, &table.schema));
            delivered.mapping.misfits(&table.schema).into_iter().chain(expiring.and_then(Result::err)).collect()
        }
        // one that is only delivered has the key of its items
        None if refused == Some(NO_KEY_COLUMN) && config.tables.rule_for(source).is_none() => vec![delivered.mapping.lacks_key()],
        None => Vec::new(),
    };
    errors.into_iter().map(|error| error.with("mapping", delivered.config.mapping.display())).collect()
}

fn misfits<'a>(config: &'a Config, catalog: &'a Catalog) -> impl Iterator<Item = Error> + 'a {
    config.deliver.iter().flat_map(|delivered| misfits_of(delivered, config, catalog))
}

/// Mappings that don't fit the tables are refused where they are new: where those `before` did, and at the first start of all. Else a table was changed
/// since: that is said, and all goes on.
pub(in crate::pipeline) fn ensure_mappings_fit(
    config: &Config,
    before: Option<&Config>,
    catalog: &Catalog,
    is_first: bool,
) -> Result<()> {
    let were: BTreeSet<String> = before.iter().flat_map(|before| misfits(before, catalog)).map(|error| error.to_string()).collect();
    let is_refused = |error: &Error| is_first || (before.is_some() && !were.contains(&error.to_string()));
    for error in misfits(config, catalog) {
        if is_refused(&error) {
            return Err(error);
        }
        tracing::error!(%error, "a delivery's rules don't fit its table");
    }
    Ok(())
}

/// The mappings with which a pipeline begins, where the source can be asked; where it can't, the capture does when it can.
pub(super) async fn ensure_first_fits(config: &Config) -> Result<()> {
    if config.deliver.is_empty() {
        return Ok(());
    }
    let rules = config.captured();
    let asked = async {
        let options = connection_options(config.source.url.expose())?;
        let mut connection = connect(&options, config.source.connect_timeout).await?;
        let catalog = load_catalog(&mut connection, |table| wanted(&rules, table)).await?;
        // the connection is not used again: a failed good-bye means nothing
        let _ = connection.disconnect().await;
        Result::<Catalog>::Ok(catalog)
    };
    match asked.await {
        Ok(catalog) => ensure_mappings_fit(config, None, &catalog, true),
        Err(error) => {
            tracing::debug!(%error, "the tables can't be compared with the mappings yet");
            Ok(())
        }
    }
}

/// Whether a table that was captured already must be copied once more: the stream no longer has all of it for whoever reads it anew.
pub(in crate::pipeline) fn copied_anew(before: &Config, now: &Config, table: &TableId) -> bool {
    let into_lake = before.tables.rule_for(table).is_none() && now.tables.rule_for(table).is_some();
    let had = |to: &crate::config::Delivered| {
        before.deliver.iter().any(|other| other.config.to == to.config.to && other.mapping.target == to.mapping.target)
    };
    into_lake || now.deliver.iter().any(|delivery| delivery.mapping.source == *table && !had(delivery))
}

/// What no file alone shows: the tables are at the source, and their transforms fit them; `strictly`: nothing changes that a running service can't do.
pub(super) async fn check(before: &Config, now: &Config, lake: &Lake, strictly: bool) -> Result<()> {
    if before.has_source() != now.has_source() {
        return Err(Error::config("a running service can't begin or cease to have tables of a source")
            .remedy("stop the service and start it with the changed file"));
    }
    if strictly {
        check_feeds(before, now)?;
    }
    if !now.has_source() {
        return Ok(());
    }
    let rules = now.captured();
    let options = connection_options(now.source.url.expose())?;
    let mut connection = connect(&options, now.source.connect_timeout).await?;
    let was_captured = before.captured();
    let mut catalog = load_catalog(&mut connection, |table| wanted(&rules, table)).await?;
    let catalog_before = load_catalog(&mut connection, |table| wanted(&was_captured, table)).await?;
    // the connection is not used again: a failed good-bye means nothing
    let _ = connection.disconnect().await;
    ensure_mappings_fit(now, Some(before), &catalog, false)?;
    let is_new = |table: &TableId| was_captured.rule_for(table).is_none();
    for table in rules.exact_tables() {
        match catalog.refused.iter().position(|(refused, _)| refused == table) {
            Some(at) if is_new(table) => return Err(catalog.refused.swap_remove(at).1.into_config()),
            None if !catalog.tables.contains_key(table) && is_new(table) => {
                return Err(no_such_table(table).into_config());
            }
            _ => {}
        }
    }
    let was_unfit = unfit(&catalog, &was_captured);
    if let Some((_, error)) = unfit(&catalog, &rules).into_iter().find(|(table, _)| !was_unfit.iter().any(|(was, _)| was == table))
    {
        return Err(error);
    }
    if strictly {
        for (id, table) in &catalog.tables {
            if let (Some(was), Some(is)) = (was_captured.rule_for(id), rules.rule_for(id)) {
                // a key that is written out may be the primary key, which is the one where none is
                let has_same_key =
                    catalog_before.tables.get(id).is_some_and(|before| key_of(&before.schema) == key_of(&table.schema));
                refuse_rebuild(id, was, is, has_same_key)?;
            }
            if let Some(rule) = now.tables.rule_for(id) {
                check_columns(id, &table.schema, rule, lake).await?;
            }
        }
    }
    Ok(())
}

fn rebuild(table: &TableId, key: &str) -> Error {
    Error::config("that can't be changed while the service runs").with("table", table).with("key", key).remedy(REBUILT)
}

/// The names of a table's key, in its order.
fn key_of(schema: &TableSchema) -> Vec<&str> {
    schema.key.iter().map(|&i| schema.columns[i].name.as_str()).collect()
}

fn refuse_rebuild(table: &TableId, was: &TableRule, is: &TableRule, has_same_key: bool) -> Result<()> {
    let is_kept_alike = was.history.iter().zip(&is.history).all(|(was, is)| was.keeps_alike(is));
    let changed = [
        ("key", was.key != is.key && !has_same_key),
        ("partition_by", was.partition_by != is.partition_by),
        ("tinyint1", was.tinyint1 != is.tinyint1),
        ("ordering", was.ordering != is.ordering),
        ("history", !is_kept_alike),
    ];
    match changed.into_iter().find(|(_, has_changed)| *has_changed) {
        Some((key, _)) => Err(rebuild(table, key)),
        None => Ok(()),
    }
}

fn check_feeds(before: &Config, now: &Config) -> Result<()> {
    for is in &now.fed {
        let Some(was) = before.fed_table(&is.table) else { continue };
        refuse_rebuild(&is.table, &was.rule, &is.rule, false)?;
        if was.format != is.format {
            return Err(rebuild(&is.table, "format"));
        }
        if let Some(column) = replaced_column(was, is) {
            return Err(rebuild(&is.table, &format!("columns.{column}")));
        }
    }
    Ok(())
}

/// A declared column that has another type now, or is gone.
fn replaced_column<'a>(was: &'a FedTable, is: &FedTable) -> Option<&'a str> {
    let now: BTreeMap<&str, _> = is.columns.iter().map(|column| (column.name.as_str(), column.kind.source_type())).collect();
    let stays = |name: &str, kind| now.get(name).map_or(is.is_inferred, |now| *now == kind);
    was.columns.iter().find(|column| !stays(&column.name, column.kind.source_type())).map(|column| column.name.as_str())
}

/// The columns that the lake's table has keep their types; those that are given no more stay there, and are NULL from then on.
async fn check_columns(id: &TableId, schema: &TableSchema, rule: &TableRule, lake: &Lake) -> Result<()> {
    if rule.transform.as_ref().is_some_and(|transform| !transform.is_known()) {
        return Ok(());
    }
    let path = lake.table_path(id.database(), id.name());
    if !crate::table::Table::exists(lake.store(), &path).await? {
        return Ok(());
    }
    let there = TableView::open(lake.store().clone(), path).await?.latest_columns();
    let wanted = shape(schema, rule)?;
    let stays = there.fields().iter().filter(|field| wanted.columns().field_with_name(field.name()).is_ok());
    let stays = Schema::new(stays.cloned().collect::<Vec<_>>());
    ensure_evolves(Some(&stays), wanted.columns()).map_err(|error| {
        error
            .with("table", id)
            .into_config()
            .remedy("give the column another name with AS, or run `binlake backfill --table` after a restart")
    })
}
