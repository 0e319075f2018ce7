//! `binlake query`: one SQL statement over the lake.

use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::query::{AsOf, AtPosition, Engine, OutputFormat, QueryOptions, write_rows_within};
use crate::table::Lake;
use crate::time::Timestamp;
use clap::Args;
use terminal_size::terminal_size_of;

/// Answers SQL over the lake
///
/// Tables are named database.table, or table alone where only one database
/// has it. Names with capitals need no quotes. The service may run meanwhile:
/// the answer is as of one commit of each table.
///
/// --as-of takes an instant (17 digits, see `binlake timeline`) or a time
/// (2026-11-21T14:00:00Z; without a zone: UTC). A table is then seen as its
/// last commit at or before that left it, by the lake's clock: when binlake
/// began the commit. When the source committed a row is in _commit_ts.
/// A table with a history is seen by what the source had committed then, also
/// long after its commits are gone.
/// It also takes a position as _position has it (a GTID or a GTID set, or
/// file:offset): a table is then seen as of its first commit that has it.
///
/// --at-position shows all tables of the statement as the source had them at
/// one position: everything before it, and nothing behind. Tables without a
/// history can be seen at the positions of their commits that are retained
/// (`latest` is the newest that all of them share), those with one at any.
///
/// --valid-at shows what was true at that time, as is known now, or, beside
/// --as-of, as was known then. Histories can be asked by functions as well:
/// as_of('table', system, valid), history('table', key),
/// changes('table', first, last), diff('table', valid, first, last).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake query 'SELECT count(*) FROM shop.orders'
  binlake query --format csv 'SELECT * FROM orders' > orders.csv
  binlake query --as-of 2026-11-21T14:00:00Z \\
    'SELECT ticket_price FROM ticket_activity WHERE ticketactivity_id = 46'")]
pub(super) struct Query {
    /// The statement: SELECT, WITH, EXPLAIN
    sql: String,
    /// See the tables as they were then
    #[arg(long, value_name = "WHEN")]
    as_of: Option<String>,
    /// See what was true then: for tables with a history
    #[arg(long, value_name = "TIME")]
    valid_at: Option<String>,
    /// See all tables at one position of the source: a GTID set, a GTID,
    /// file:offset, or latest
    #[arg(long, value_name = "POSITION", conflicts_with = "as_of")]
    at_position: Option<String>,
    /// How the rows are written: table (on a terminal that is too narrow for it:
    /// a value a line), csv (NULL is empty) or json (an array)
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
    /// Show Hudi's own _hoodie_… columns too
    #[arg(long)]
    meta_columns: bool,
}

impl Query {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let valid_at = self.valid_at.as_deref().map(valid_time).transpose()?;
        let as_of = self.as_of.as_deref().map(str::parse::<AsOf>).transpose()?;
        let at_position = self.at_position.as_deref().map(str::parse::<AtPosition>).transpose()?;
        let lake = Lake::open(&global.lake_config()?.lake.url)?;
        let engine = Engine::new(lake, QueryOptions { as_of, at_position, valid_at, meta_columns: self.meta_columns });
        let (schema, rows) = engine.query(&self.sql).await?;
        // none where it goes into a file or a pipe
        let width = terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
        write_rows_within(width, schema, rows, self.format, &mut std::io::BufWriter::new(std::io::stdout())).await?;
        Ok(Answer::Done)
    }
}

fn valid_time(text: &str) -> Result<Timestamp> {
    let wrong = || {
        Error::config(format!("`{text}` is no time"))
            .with("option", "--valid-at")
            .remedy("write 2026-11-21, or 2026-11-21T14:00:00Z")
    };
    Timestamp::parse(text.trim()).ok_or_else(wrong)
}
