//! `binlake runs`: the audit.

use super::list::print_list;
use super::tables::shortened_position;
use super::{Answer, Global};
use crate::admin::grouped;
use crate::error::{Error, Result};
use crate::pipeline::{AuditedRuns, audited_runs};
use crate::query::OutputFormat;
use crate::state::RunRow;
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use clap::Args;
use std::sync::Arc;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Lists what each run of the pipeline did: the audit
///
/// A run is the life of a process: `run`, `capture`, `merge`, `backfill`; or work
/// on a table: `erase`, `restore` (`rollback`), `savepoint`, `cluster`. Newest
/// first; each with the tables that it committed to, the rows that were
/// inserted, updated and deleted, and the source's position of the last commit.
/// Running also means: killed, and not noticed yet by a later `binlake run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake runs
  binlake runs --last 3 --table shop.orders
  binlake runs --format csv > audit.csv")]
pub(super) struct Runs {
    /// Only the latest N runs
    #[arg(long, short = 'n', value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    last: u16,
    /// Only runs that committed to this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// table (positions are shortened), csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
}

impl Runs {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.config()?;
        let AuditedRuns { pipeline, rows } = audited_runs(&config, self.last.into(), self.table.as_deref()).await?;
        print_list(self.format, || shown(&pipeline, &rows), batch(&rows)).await
    }
}

fn batch(rows: &[RunRow]) -> Result<RecordBatch> {
    let texts = |value: fn(&RunRow) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let counts = |value: fn(&RunRow) -> u64| Arc::new(rows.iter().map(value).collect::<UInt64Array>()) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([
        ("pipeline", texts(|row| Some(&row.pipeline)), false),
        ("run", texts(|row| Some(&row.run_id)), false),
        ("command", texts(|row| Some(&row.command)), false),
        ("table", texts(|row| Some(row.table.as_str()).filter(|table| !table.is_empty())), true),
        ("started", texts(|row| Some(&row.started_at)), false),
        ("ended", texts(|row| row.ended_at.as_deref()), true),
        ("status", texts(|row| Some(&row.status)), false),
        ("inserted", counts(|row| row.rows_inserted), false),
        ("updated", counts(|row| row.rows_updated), false),
        ("deleted", counts(|row| row.rows_deleted), false),
        ("commits", counts(|row| row.commits), false),
        ("position", texts(|row| row.position.as_deref()), true),
        ("error", texts(|row| row.error.as_deref()), true),
    ])
    .map_err(|error| Error::bug("the list can't be made").caused_by(error))
}

/// For people, in 80 columns: a run, and below it its tables.
fn shown(pipeline: &str, rows: &[RunRow]) -> String {
    if rows.is_empty() {
        return "no run yet\n".into();
    }
    let mut out = format!("pipeline {}\n", clipped(pipeline, WIDTH - 9));
    out += &format!("  {:22} {:>13} {:>11} {:>8}  {}\n", "TABLE", "INSERTED", "UPDATED", "DELETED", "POSITION");
    let mut run = None;
    for row in rows {
        if run != Some(&row.run_id) {
            run = Some(&row.run_id);
            let ended = row.ended_at.as_deref().map_or("now", |time| clipped(time, 19));
            out += &format!("{:9} {} -> {ended:19}  {}\n", row.command, clipped(&row.started_at, 19), row.status);
            if let Some(error) = &row.error {
                out += &clipped_line(&format!("  {error}"));
            }
        }
        if !row.table.is_empty() {
            let [inserted, updated, deleted] = [row.rows_inserted, row.rows_updated, row.rows_deleted].map(grouped);
            let position = row.position.as_deref().map_or("-".into(), |position| shortened_position(position, 18));
            let table = if row.table.chars().count() > 22 { format!("{}…", clipped(&row.table, 21)) } else { row.table.clone() };
            out += &format!("  {table:22} {inserted:>13} {updated:>11} {deleted:>8}  {position}\n");
            // the run's own is said above
            let own = rows.iter().find(|own| own.run_id == row.run_id && own.table.is_empty());
            if let Some(error) = row.error.as_ref().filter(|_| own.is_none_or(|own| own.error != row.error)) {
                out += &clipped_line(&format!("    stopped: {error}"));
            }
        }
    }
    out
}

fn clipped_line(line: &str) -> String {
    if line.chars().count() > WIDTH { format!("{}…\n", clipped(line, WIDTH - 1)) } else { format!("{line}\n") }
}

/// The first characters of a text.
fn clipped(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run: &str, table: &str, error: Option<&str>) -> RunRow {
        RunRow {
            run_id: run.into(),
            pipeline: "kinesis:tickets-cdc@1763751234567".into(),
            table: table.into(),
            command: if run == "2" { "backfill" } else { "merge" }.into(),
            started_at: "2026-11-21T14:12:30.721211Z".into(),
            ended_at: (run == "1").then(|| "2026-11-21T18:00:01.000001Z".into()),
            status: if run == "1" { "Failed" } else { "Running" }.into(),
            rows_inserted: 1_234_567_890,
            rows_updated: 12_345_678,
            rows_deleted: 3,
            commits: 17,
            position: (!table.is_empty()).then(|| "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-123456789".into()),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn the_list_fits_80_columns() {
        let long = "a partition column of the table is not among its columns table=shop.orders column=müde; correct `partition_by`";
        let rows = [
            row("2", "", None),
            row("2", "shop.orders", None),
            row("1", "", Some(long)),
            row("1", "sports.a_table_with_quite_a_long_name", Some(long)),
            row("1", "sports.stopped", Some("the valid time can't be read table=sports.stopped; correct the row")),
            row("0", "", None),
        ];
        let text = shown(&rows[0].pipeline, &rows);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
        assert_eq!(batch(&rows).unwrap().num_rows(), 6);
        assert_eq!(shown("p", &[]), "no run yet\n");
    }
}
