//! `binlake dead-letter`: records that couldn't be read, listed and tried again.

use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::format::DEAD_LETTERS;
use crate::pipeline::retry_lot;
use crate::query::{Engine, OutputFormat, QueryOptions, write_rows};
use crate::table::Lake;
use crate::time::Timestamp;
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of a record that the list shows.
const SHOWN_BYTES: usize = 200;

/// Records of streams that couldn't be read
///
/// They lie below `_dead_letter/` in the lake, a table of Parquet files for each table: position, reason, arrival, the record's bytes.
#[derive(Debug, Args)]
pub(super) struct DeadLetter {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    List(List),
    Retry(Retry),
}

/// Lists them: position, reason, arrival, record
#[derive(Debug, Args)]
struct List {
    /// Only this table's, as database.table
    #[arg(long, value_name = "TABLE")]
    table: Option<TableId>,
    /// Not more than N
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
    /// table, csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
}

/// Reads them once more, with the configuration as it is now
///
/// The running service does it, or the next one that is started: those that can be read become rows and are no dead letters any more.
#[derive(Debug, Args)]
struct Retry {
    /// The table, as database.table
    #[arg(long, value_name = "TABLE")]
    table: TableId,
    /// Only the one at this position, as the list shows it (may be given more than once)
    #[arg(long, value_name = "POSITION")]
    position: Vec<String>,
}

/// A dead letter.
struct Letter {
    position: String,
    reason: String,
    arrived_at: Timestamp,
    raw: Vec<u8>,
}

impl DeadLetter {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let lake = Lake::open(&global.lake_config()?.lake.url)?;
        match self.command {
            DeadLetterCommand::List(list) => list.run(&lake).await,
            DeadLetterCommand::Retry(retry) => retry.run(&lake).await,
        }
    }
}

async fn tables(lake: &Lake) -> Result<Vec<TableId>> {
    let found = lake.dead_letter_tables().await?;
    Ok(found.into_iter().map(|(database, name)| TableId::new(database, name)).collect())
}

async fn letters(lake: &Lake, table: &TableId) -> Result<Vec<Letter>> {
    let engine = Engine::new(lake.clone(), QueryOptions::default());
    let (_, batches) = engine.table(&format!("{DEAD_LETTERS}{}", table.database()), table.name()).await?;
    let batches: Vec<RecordBatch> = batches.try_collect().await?;
    let mut letters = Vec::new();
    for batch in &batches {
        let column = |name: &str, data_type: &DataType| {
            let column = batch.column_by_name(name).ok_or_else(|| Error::bug("a table of dead letters lacks a column"))?;
            cast(column, data_type).map_err(|error| Error::bug("a dead letter can't be read").caused_by(error))
        };
        let (position, reason) = (column("position", &DataType::Utf8)?, column("reason", &DataType::Utf8)?);
        let raw = column("raw", &DataType::Binary)?;
        let arrived_at = column("arrived_at", &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        for row in 0..batch.num_rows() {
            letters.push(Letter {
                position: position.as_string::<i32>().value(row).to_owned(),
                reason: reason.as_string::<i32>().value(row).to_owned(),
                arrived_at: Timestamp::from_micros(arrived_at.as_primitive::<TimestampMicrosecondType>().value(row)),
                raw: raw.as_binary::<i32>().value(row).to_vec(),
            });
        }
    }
    letters.sort_by(|a, b| (a.arrived_at, &a.position).cmp(&(b.arrived_at, &b.position)));
    Ok(letters)
}

impl List {
    async fn run(self, lake: &Lake) -> Result<Answer> {
        let mut lines: Vec<(TableId, Letter)> = Vec::new();
        for table in tables(lake).await? {
            if self.table.as_ref().is_none_or(|wanted| *wanted == table) {
                lines.extend(letters(lake, &table).await?.into_iter().map(|letter| (table.clone(), letter)));
            }
        }
        lines.truncate(self.limit);
        let text = |value: &dyn Fn(&(TableId, Letter)) -> String| {
            Arc::new(lines.iter().map(|line| Some(value(line))).collect::<StringArray>()) as ArrayRef
        };
        let batch = RecordBatch::try_from_iter([
            ("table", text(&|(table, _)| table.to_string())),
            ("position", text(&|(_, letter)| letter.position.clone())),
            ("reason", text(&|(_, letter)| letter.reason.clone())),
            ("arrived_at", text(&|(_, letter)| letter.arrived_at.to_string())),
            ("record", text(&|(_, letter)| String::from_utf8_lossy(&letter.raw[..letter.raw.len().min(SHOWN_BYTES)]).into_owned())),
        ])
        .map_err(|error| Error::bug("the list can't be made").caused_by(error))?;
        write_rows(batch.schema(), futures::stream::iter([Ok(batch)]), self.format, &mut std::io::stdout()).await?;
        Ok(Answer::Done)
    }
}

impl Retry {
    async fn run(self, lake: &Lake) -> Result<Answer> {
        let wanted: BTreeSet<&String> = self.position.iter().collect();
        let found = if tables(lake).await?.contains(&self.table) { letters(lake, &self.table).await? } else { Vec::new() };
        let chosen: Vec<(String, Timestamp, Vec<u8>)> = found
            .into_iter()
            .filter(|letter| wanted.is_empty() || wanted.contains(&letter.position))
            .map(|letter| (letter.position, letter.arrived_at, letter.raw))
            .collect();
        if let Some(missing) = wanted.iter().find(|position| !chosen.iter().any(|(known, ..)| known == **position)) {
            return Err(Error::config("there is no dead letter at this position")
                .with("table", &self.table)
                .with("position", missing)
                .remedy("`binlake dead-letter list` shows those that there are"));
        }
        if chosen.is_empty() {
            println!("{} has no dead letters", self.table);
            return Ok(Answer::Done);
        }
        retry_lot(lake, &self.table, &chosen).await?;
        println!(
            "{} records of {} are read once more by the running service, or the next one that is started",
            chosen.len(),
            self.table
        );
        Ok(Answer::Done)
    }
}
