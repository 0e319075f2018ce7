//! `binlake verify`: source and lake, compared row by row.
//!
//! The lake is always some transactions behind a source that is written to, and its commits are not at the snapshot's point. So a difference counts when
//! the table is past the point of the snapshot that shows it, or else when it stays the same over the rounds until the limit: rows that are
//! written to meanwhile come to agree, or keep changing, and are no difference.

mod compare;
mod rows;

use super::{Answer, Global, Ruled};
use crate::admin::grouped;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{SourcePosition, TableId, TableSchema};
use crate::merge::{Checkpoint, LakeShape, RowLetter, TableRule};
use crate::pipeline::read_lookups;
use crate::setting::parse_duration;
use crate::source::CatalogTable;
use crate::table::Lake;
use crate::transform::BoundTransform;
use arrow::datatypes::Schema;
use clap::Args;
use compare::{Bucket, Difference, Exact, Shape, Sums};
use rows::{Source, lake_table, letter_keys, read_lake};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Compares source and lake row by row; exits 1 and lists the differing keys
///
/// The source is read by a snapshot at one position, the lake as it stands;
/// rows are compared by checksums over all columns, in bounded memory. The
/// service may run, and the source may be written to: what differs is looked at
/// again until it agrees, or --wait is over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake verify
  binlake verify --table shop.orders --wait 0s")]
pub(super) struct Verify {
    /// Only this table, as database.table; may be given more than once
    #[arg(long, value_name = "TABLE")]
    table: Vec<TableId>,
    /// How long a lake that is behind may take to catch up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
    /// Keys that are listed at most, a table
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
}

/// One table's comparison.
#[derive(Debug)]
struct Compared {
    table: CatalogTable,
    /// The lake's shape, where the table has a transform.
    transformed: Option<LakeShape>,
    shape: Shape,
    outcome: Outcome,
    rows: (u64, u64),
    /// The keys that differed in the last round, with what they were.
    before: BTreeMap<String, (Difference, u64)>,
}

#[derive(Debug)]
enum Outcome {
    /// To be read, in these buckets (`None`: all, as sums).
    Open(Option<BTreeSet<Bucket>>),
    Equal,
    /// These keys differ.
    Differs(BTreeMap<String, Difference>),
    /// It can't be compared at all.
    Incomparable(String),
}

impl Verify {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let Ruled { config, lake } = global.ruled().await?;
        ensure_comparable(&config, &self.table)?;
        let lake = lake?;
        let (source, catalog) = Source::open(&config).await?;
        read_lookups(&config, &lake).await?;
        let mut tables = self.select(&config, catalog)?;
        let until = Instant::now() + self.wait;
        loop {
            let position = round(&config, &source, &lake, &mut tables, Instant::now() >= until).await?;
            if !tables.iter().any(|table| matches!(table.outcome, Outcome::Open(_))) {
                tables.iter().for_each(|table| print!("{}", report(table, &position, self.limit)));
                break;
            }
            tokio::time::sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
        }
        let equal = tables.iter().all(|table| matches!(table.outcome, Outcome::Equal));
        Ok(if equal { Answer::Done } else { Answer::No })
    }

    fn select(&self, config: &Config, catalog: crate::source::Catalog) -> Result<Vec<Compared>> {
        let unknown = |table: &TableId| {
            Error::config("the configuration doesn't replicate the table, or the source doesn't have it")
                .with("table", table)
                .remedy("correct --table, or the `source` of a [[table]] section")
        };
        if let Some((table, error)) = catalog.refused.iter().find(|(table, _)| self.table.contains(table)) {
            return Err(Error::config(error.what().to_owned()).with("table", table).remedy(error.advice().to_owned()));
        }
        if let Some(table) = self.table.iter().chain(config.tables.exact_tables()).find(|table| {
            let is_there = catalog.tables.contains_key(table) || catalog.refused.iter().any(|(refused, _)| refused == *table);
            !is_there
        }) {
            return Err(unknown(table));
        }
        let chosen = catalog.tables.into_values().filter(|table| self.table.is_empty() || self.table.contains(&table.schema.table));
        let compared = chosen.map(|table| {
            let treatment = config.tables.rule_for(&table.schema.table).map(TableRule::treatment).unwrap_or_default();
            let transformed = match treatment.transform {
                Some(_) => Some(LakeShape::treated(Arc::new(table.schema.clone()), &treatment).map_err(Error::into_config)?),
                None => None,
            };
            let shape = match transformed.as_ref().and_then(LakeShape::transform) {
                Some(transform) => compared_columns(transform, &table.schema),
                None => Shape { columns: table.schema.arrow(), key: table.schema.key.clone() },
            };
            let outcome = match transformed.as_ref().and_then(LakeShape::transform) {
                Some(transform) if !transform.filter_is_of_row() => {
                    Outcome::Incomparable("lookups decide which of its rows are in the lake".into())
                }
                _ => Outcome::Open(None),
            };
            Ok(Compared { shape, transformed, table, outcome, rows: (0, 0), before: BTreeMap::new() })
        });
        compared.collect()
    }
}

/// Of a transformed table, the columns that are computed of the source's rows alone.
fn compared_columns(transform: &BoundTransform, schema: &TableSchema) -> Shape {
    let of_row: Vec<_> = transform.columns().filter(|column| column.is_of_row).map(|column| column.field.clone()).collect();
    let key = schema.key.iter().filter_map(|&i| of_row.iter().position(|field| *field.name() == schema.columns[i].name)).collect();
    Shape { columns: Arc::new(Schema::new(of_row)), key }
}

/// What isn't compared of a table, and why.
fn left_out(compared: &Compared) -> String {
    let Some(transform) = compared.transformed.as_ref().and_then(LakeShape::transform) else { return String::new() };
    let left: Vec<&str> =
        transform.columns().filter(|column| !column.is_of_row).map(|column| column.field.name().as_str()).collect();
    match left.as_slice() {
        [] => ", as its transform has them".into(),
        left => format!(", as its transform has them, without {} (not of the source's row alone)", left.join(", ")),
    }
}

/// Tables that are fed by streams have no other side.
fn ensure_comparable(config: &Config, tables: &[TableId]) -> Result<()> {
    const REMEDY: &str =
        "verify compares tables of a [source]; `binlake query` shows what the lake has, `binlake dead-letter list` what it refused";
    config.ensure_source("there is nothing to compare: all tables are fed by streams that others write", REMEDY)?;
    match tables.iter().find(|table| config.fed.iter().any(|fed| fed.table == **table)) {
        Some(table) => Err(Error::config("the table is fed by a stream, so there is nothing to compare it with")
            .with("table", table)
            .remedy(REMEDY)),
        None => Ok(()),
    }
}

/// Reads both sides of what is still open once more, and judges.
async fn round(config: &Config, source: &Source, lake: &Lake, tables: &mut [Compared], is_last: bool) -> Result<SourcePosition> {
    let open: Vec<CatalogTable> =
        tables.iter().filter(|table| matches!(table.outcome, Outcome::Open(_))).map(|table| table.table.clone()).collect();
    let index: BTreeMap<TableId, usize> =
        tables.iter().enumerate().map(|(i, table)| (table.table.schema.table.clone(), i)).collect();
    let mut letters = BTreeMap::new();
    for table in &open {
        letters.insert(table.schema.table.clone(), letter_keys(lake, &table.schema.table).await?);
    }
    let mut sums: BTreeMap<usize, Sums> = BTreeMap::new();
    let mut exact: BTreeMap<usize, Exact> = BTreeMap::new();
    let (position, failed) = source
        .read(config, open, |table, batch| {
            let Some(&i) = index.get(table) else { return Ok(()) };
            let others = match letters.get(table).filter(|keys| !keys.is_empty()) {
                Some(keys) => Some(RowLetter::without(keys, &tables[i].table.schema, batch)?),
                None => None,
            };
            let batch = others.as_ref().unwrap_or(batch);
            let transformed = match tables[i].transformed.as_ref().and_then(LakeShape::transform) {
                Some(transform) => transform.source_rows(batch)?,
                None => None,
            };
            let batch = transformed.as_ref().unwrap_or(batch);
            match &tables[i].outcome {
                Outcome::Open(Some(buckets)) => exact.entry(i).or_default().add(&tables[i].shape, batch, buckets),
                _ => sums.entry(i).or_insert_with(Sums::new).add(&tables[i].shape, batch),
            }
        })
        .await?;
    for (i, compared) in tables.iter_mut().enumerate() {
        let Outcome::Open(buckets) = &compared.outcome else { continue };
        let id = compared.table.schema.table.clone();
        if let Some(error) = failed.get(&id) {
            compared.outcome = Outcome::Incomparable(error.to_string());
            continue;
        }
        let Some((known, checkpoint)) = lake_table(lake, &id).await.map_err(|error| error.with("table", &id))? else {
            if is_last {
                compared.outcome =
                    Outcome::Incomparable("the lake doesn't have it; run `binlake run` or `binlake backfill`".into());
            }
            continue;
        };
        if let Some(missing) = compared.shape.columns.fields().iter().find(|field| !known.contains(field.name())) {
            if is_last {
                compared.outcome = Outcome::Incomparable(format!("the lake lacks the column {}", missing.name()));
            }
            continue;
        }
        let shape = compared.shape.clone();
        let names = shape.columns.fields().iter().map(|field| field.name().as_str());
        let is_past = checkpoint.as_ref().is_some_and(|checkpoint| is_past(checkpoint, &position));
        match buckets {
            None => {
                let mut theirs = Sums::new();
                read_lake(lake, &id, names, |batch| theirs.add(&shape, batch)).await?;
                let ours = sums.remove(&i).unwrap_or_else(Sums::new);
                compared.rows = (ours.rows, theirs.rows);
                let differing = ours.differing(&theirs);
                compared.outcome = if differing.is_empty() { Outcome::Equal } else { Outcome::Open(Some(differing)) };
            }
            Some(wanted) => {
                let mut theirs = Exact::default();
                read_lake(lake, &id, names, |batch| theirs.add(&shape, batch, wanted)).await?;
                let ours = exact.remove(&i).unwrap_or_default();
                judge(compared, ours.differences(&theirs, &shape), is_past, is_last);
            }
        }
    }
    Ok(position)
}

/// Whether the table has all that the snapshot saw.
fn is_past(checkpoint: &Checkpoint, position: &SourcePosition) -> bool {
    let by_gtid = position.gtid_set.as_ref().and_then(|set| checkpoint.covers(&set.to_string()));
    by_gtid.unwrap_or(false) || checkpoint.position.has_passed(position)
}

fn judge(compared: &mut Compared, found: BTreeMap<String, (Difference, u64)>, is_past: bool, is_last: bool) {
    let stayed = |(key, (difference, hash)): (&String, &(Difference, u64))| {
        let same = compared.before.get(key).is_some_and(|(_, before)| before == hash);
        same.then(|| (key.clone(), difference.clone()))
    };
    if found.is_empty() {
        compared.outcome = Outcome::Equal;
        return;
    }
    let lasting: BTreeMap<String, Difference> = found.iter().filter_map(stayed).collect();
    // past the point, what is as it was a round ago was not only on its way
    if (is_past || is_last) && (lasting.len() == found.len() || (is_last && !compared.before.is_empty())) {
        compared.outcome = if lasting.is_empty() { Outcome::Equal } else { Outcome::Differs(lasting) };
    }
    compared.before = found;
}

fn report(compared: &Compared, position: &SourcePosition, limit: usize) -> String {
    let table = &compared.table.schema.table;
    let at = position.position_text().replace('\n', "");
    let (source, lake) = compared.rows;
    match &compared.outcome {
        Outcome::Equal if source == lake => {
            format!("{table}: equal, {} rows, at {at}{}\n", grouped(source), left_out(compared))
        }
        Outcome::Equal | Outcome::Open(_) => format!("{table}: equal, {} rows and changing, at {at}\n", grouped(source)),
        Outcome::Incomparable(reason) => format!("{table}: can't be compared: {reason}\n"),
        Outcome::Differs(keys) => {
            let mut text = format!(
                "{table}: {} keys differ, {} rows in the source, {} in the lake, at {at}\n",
                grouped(keys.len() as u64),
                grouped(source),
                grouped(lake)
            );
            for (key, difference) in keys.iter().take(limit) {
                let how = match difference {
                    Difference::MissingInLake => "missing in the lake".to_owned(),
                    Difference::OnlyInLake => "only in the lake".to_owned(),
                    Difference::Twice => "twice in the lake".to_owned(),
                    Difference::Columns(columns) => format!("differs in {}", columns.join(", ")),
                };
                text.push_str(&format!("  {key}  {how}\n"));
            }
            if keys.len() > limit {
                text.push_str(&format!("  … and {} more (--limit)\n", grouped((keys.len() - limit) as u64)));
            }
            text
        }
    }
}
