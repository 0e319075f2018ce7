//! `binlake dead-letter`: records that couldn't be read, listed and tried again.

use super::list::print_list;
use super::tables::shortened_position;
use super::{Answer, Global, Ruled};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{GtidSet, TableId};
use crate::format::dead_letter_table;
use crate::merge::{CHECKPOINT_KEY, Checkpoint, ROW_LETTERS_SUFFIX};
use crate::pipeline::{ask_row_retry, retry_lot, row_letters_of, waiting_letters};
use crate::query::{Engine, OutputFormat, QueryOptions};
use crate::table::{Lake, TableView};
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
/// The width of the list for people.
const COLUMNS: usize = 80;

/// Records that couldn't be read, and rows that couldn't be transformed, or have no valid time
///
/// They lie below `_dead_letter/` in the lake, a table of Parquet files for each table (and one, `TABLE.rows`, for its rows): position, reason, arrival, the
/// record's bytes, or the row as JSON.
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
        let Ruled { config, lake } = global.ruled_lake().await?;
        let lake = lake?;
        match self.command {
            DeadLetterCommand::List(list) => list.run(&config, &lake).await,
            DeadLetterCommand::Retry(retry) => retry.run(&config, &lake).await,
        }
    }
}

/// A table's dead letters are read by the stream that feeds it.
fn is_fed(config: &Config, table: &TableId) -> bool {
    config.fed.iter().any(|fed| fed.table == *table)
}

/// Whether rows of the table become dead letters.
fn has_rows(config: &Config, table: &TableId) -> bool {
    let fed = config.fed.iter().filter(|fed| fed.table == *table).map(|fed| &fed.rule);
    let mut rules = config.tables.rule_for(table).into_iter().chain(fed);
    rules.any(|rule| rule.treatment().has_dead_letters())
}

/// Dead letters of one kind of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letters {
    /// The table.
    of: TableId,
    /// Where they are.
    at: TableId,
}

impl Letters {
    fn records(of: &TableId) -> Self {
        Self { of: of.clone(), at: dead_letter_table(of) }
    }

    fn rows(of: &TableId) -> Self {
        Self { of: of.clone(), at: row_letters_of(of) }
    }
}

/// All that there are.
async fn all_letters(lake: &Lake) -> Result<Vec<Letters>> {
    let letters = |(database, name): (String, String)| match name.strip_suffix(ROW_LETTERS_SUFFIX) {
        Some(name) => Letters::rows(&TableId::new(database, name)),
        None => Letters::records(&TableId::new(database, name)),
    };
    Ok(lake.dead_letter_tables().await?.into_iter().map(letters).collect())
}

async fn read(lake: &Lake, letters: &Letters) -> Result<Vec<Letter>> {
    let engine = Engine::new(lake.clone(), QueryOptions::default());
    let (_, batches) = engine.table(letters.at.database(), letters.at.name()).await?;
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
    async fn run(self, config: &Config, lake: &Lake) -> Result<Answer> {
        let all = all_letters(lake).await?;
        let is_known =
            |table: &TableId| all.iter().any(|letters| letters.of == *table) || is_fed(config, table) || has_rows(config, table);
        if let Some(unknown) = self.table.as_ref().filter(|table| !is_known(table)) {
            return Err(Error::config("no stream feeds a table of this name, and none is transformed with dead letters")
                .with("table", unknown)
                .remedy("correct --table, or leave it out for all tables"));
        }
        let mut lines: Vec<(TableId, Letter)> = Vec::new();
        for letters in all {
            if self.table.as_ref().is_none_or(|wanted| *wanted == letters.of) {
                lines.extend(read(lake, &letters).await?.into_iter().map(|letter| (letters.of.clone(), letter)));
            }
        }
        let left_out = lines.len().saturating_sub(self.limit);
        lines.truncate(self.limit);
        print_list(self.format, || text(&lines, left_out), batch(&lines)).await
    }
}

fn batch(lines: &[(TableId, Letter)]) -> Result<RecordBatch> {
    let text = |value: &dyn Fn(&(TableId, Letter)) -> String| {
        Arc::new(lines.iter().map(|line| Some(value(line))).collect::<StringArray>()) as ArrayRef
    };
    RecordBatch::try_from_iter([
        ("table", text(&|(table, _)| table.to_string())),
        ("position", text(&|(_, letter)| letter.position.clone())),
        ("reason", text(&|(_, letter)| letter.reason.clone())),
        ("arrived_at", text(&|(_, letter)| letter.arrived_at.to_string())),
        ("record", text(&|(_, letter)| String::from_utf8_lossy(&letter.raw[..letter.raw.len().min(SHOWN_BYTES)]).into_owned())),
    ])
    .map_err(|error| Error::bug("the list can't be made").caused_by(error))
}

/// For people, in 80 columns: a line with table, arrival and position, one with the reason, one with the record's beginning.
fn text(lines: &[(TableId, Letter)], left_out: usize) -> String {
    if lines.is_empty() && left_out == 0 {
        return "there are no dead letters\n".into();
    }
    let mut out = String::new();
    for (table, letter) in lines {
        let head = format!("{}  {}  ", clipped(&table.to_string(), 38), letter.arrived_at);
        let left = COLUMNS.saturating_sub(head.chars().count()).max(8);
        let record = String::from_utf8_lossy(&letter.raw[..letter.raw.len().min(SHOWN_BYTES)]);
        out += &format!("{head}{}\n", shortened_position(&letter.position, left));
        out += &format!("  {}\n  {}\n", clipped(&letter.reason, COLUMNS - 2), clipped(&record, COLUMNS - 2));
    }
    if left_out > 0 {
        out += &format!("… and {left_out} more (--limit)\n");
    }
    out
}

/// The beginning of a text, on one line, without what a terminal would take for its own.
fn clipped(text: &str, most: usize) -> String {
    let printable = |character: char| if character.is_control() { '·' } else { character };
    match text.chars().count() <= most {
        true => text.chars().map(printable).collect(),
        false => text.chars().map(printable).take(most - 1).chain(['…']).collect(),
    }
}

/// The records that a table of dead letters has.
async fn has_read(lake: &Lake, table: &TableId) -> Result<GtidSet> {
    let letters = dead_letter_table(table);
    let view = TableView::open(lake.store().clone(), lake.table_path(letters.database(), letters.name())).await?;
    let checkpoint = view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose()?;
    Ok(checkpoint.and_then(|checkpoint| checkpoint.position.gtid_set).unwrap_or_default())
}

impl Retry {
    async fn run(self, config: &Config, lake: &Lake) -> Result<Answer> {
        let all = all_letters(lake).await?;
        if !is_fed(config, &self.table) && !has_rows(config, &self.table) && !all.contains(&Letters::rows(&self.table)) {
            return Err(Error::config("no stream feeds a table of this name, so nobody would read its records")
                .with("table", &self.table)
                .remedy(
                    "correct --table, or add its [[table]] with `stream`, or with `transform` and `on_error = \"dead_letter\"`, or with `history` and `on_invalid_valid_time = \"dead_letter\"`",
                ));
        }
        let wanted: BTreeSet<&String> = self.position.iter().collect();
        let chosen = async |letters: Letters| -> Result<Vec<Letter>> {
            let found = if all.contains(&letters) { read(lake, &letters).await? } else { Vec::new() };
            Ok(found.into_iter().filter(|letter| wanted.is_empty() || wanted.contains(&letter.position)).collect())
        };
        let (records, rows) = (chosen(Letters::records(&self.table)).await?, chosen(Letters::rows(&self.table)).await?);
        let has = |position: &String| records.iter().chain(&rows).any(|letter| letter.position == *position);
        if let Some(missing) = wanted.iter().find(|position| !has(position)) {
            return Err(Error::config("there is no dead letter at this position")
                .with("table", &self.table)
                .with("position", missing)
                .remedy("`binlake dead-letter list --format csv` shows those that there are, in full"));
        }
        if records.is_empty() && rows.is_empty() {
            println!("{} has no dead letters", self.table);
            return Ok(Answer::Done);
        }
        if !rows.is_empty() {
            let positions = rows.iter().map(|letter| letter.position.clone()).collect();
            ask_row_retry(lake, &self.table, &positions).await?;
            println!("{} rows of {} are tried once more", rows.len(), self.table);
        }
        if !records.is_empty() {
            self.retry_records(lake, records).await?;
        }
        println!("The running service does it, or the next one that is started.");
        Ok(Answer::Done)
    }

    async fn retry_records(&self, lake: &Lake, mut chosen: Vec<Letter>) -> Result<()> {
        // asked for twice, and read once
        let waiting = waiting_letters(lake, &self.table, &has_read(lake, &self.table).await?).await?;
        let all = chosen.len();
        chosen.retain(|letter| !waiting.contains(&letter.position));
        if chosen.len() < all {
            println!("{} records of {} wait already", all - chosen.len(), self.table);
        }
        if !chosen.is_empty() {
            let count = chosen.len();
            let letters: Vec<_> = chosen.into_iter().map(|letter| (letter.position, letter.arrived_at, letter.raw)).collect();
            retry_lot(lake, &self.table, &letters).await?;
            println!("{count} records of {} are read once more", self.table);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_fits_80_columns_whatever_the_records_are() {
        let letter = |position: &str, reason: &str, raw: &[u8]| {
            let arrived_at = Timestamp::from_micros(1_790_000_000_123_456);
            (
                TableId::new("mydev", "impressions"),
                Letter { position: position.into(), reason: reason.into(), arrived_at, raw: raw.to_vec() },
            )
        };
        let long = "x".repeat(300);
        let lines = [
            letter("a.jsonl#17", "it is not JSON: expected value at line 1 column 1", b"\x1b[31mred\x1b[0m\nnext\xff"),
            letter("shardId-000000000003#49590338271490256608559692538361571095921575989136588898", &long, long.as_bytes()),
            letter("", "", b""),
        ];
        let text = text(&lines, 3);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\u{1b}') && text.lines().count() == 10, "{text}");
        insta::assert_snapshot!(text);
        assert_eq!(batch(&lines).unwrap().num_rows(), 3);
        assert_eq!(super::text(&[], 0), "there are no dead letters\n");
    }
}
