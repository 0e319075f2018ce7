//! Dead letters that are committed while their table is not yet: what was read is a dead letter, and by other rules it must not become a row beside it.

use crate::error::{Error, Result};
use crate::event::{Gtid, GtidSet, TableId};
use crate::format::dead_letter_table;
use crate::merge::Checkpoint;
use crate::query::{Engine, QueryOptions};
use crate::table::Lake;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// The positions of a table's dead letters that lie behind the table's own last commit.
///
/// # Errors
/// If the lake can't be read.
pub(super) async fn letters_ahead(
    lake: &Lake,
    table: &TableId,
    checkpoints: &BTreeMap<TableId, Checkpoint>,
) -> Result<BTreeSet<String>> {
    let letters = dead_letter_table(table);
    let nothing = GtidSet::default();
    let read = |table: &TableId| checkpoints.get(table).and_then(|checkpoint| checkpoint.position.gtid_set.as_ref());
    let (by_table, by_letters) = (read(table).unwrap_or(&nothing), read(&letters).unwrap_or(&nothing));
    if by_letters.is_subset(by_table) {
        return Ok(BTreeSet::new());
    }
    let engine = Engine::new(lake.clone(), QueryOptions::default());
    let (_, mut batches) = engine.table(letters.database(), letters.name()).await?;
    let mut ahead = BTreeSet::new();
    while let Some(batch) = batches.try_next().await? {
        ahead.extend(positions(&batch)?.into_iter().filter(|position| is_behind(by_table, position)));
    }
    Ok(ahead)
}

fn is_behind(read: &GtidSet, position: &str) -> bool {
    position.parse::<Gtid>().is_ok_and(|record| !read.contains(&record))
}

fn positions(batch: &RecordBatch) -> Result<Vec<String>> {
    let column = batch.column_by_name("position").ok_or_else(|| Error::bug("a table of dead letters lacks a column"))?;
    let column = cast(column, &DataType::Utf8).map_err(|error| Error::bug("a dead letter can't be read").caused_by(error))?;
    Ok(column.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
}
