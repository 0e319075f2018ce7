//! `binlake backfill`: a snapshot into the lake, once.

use super::service::stop_signal;
use super::{Answer, Global};
use crate::config::Config;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::pipeline::{BackfillRequest, Status, TableStage, backfill, rules_in_force};
use crate::table::Lake;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

/// How often progress is shown: on a terminal, and as log lines elsewhere.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Copies tables into the lake once, then exits with 0
///
/// All tables of the configuration, or those named. The next `binlake run` goes
/// on from there. It also brings back a table that is stopped: its rows are
/// read anew, in the shape that the source's table has now. A service that
/// runs does the same when its admin interface is asked: POST /backfill.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake backfill
  binlake backfill --table shop.orders --table shop.items")]
pub(super) struct Backfill {
    /// Only this table, as database.table; may be given more than once
    #[arg(long, value_name = "TABLE")]
    table: Vec<TableId>,
    /// Only rows that fulfil this SQL condition: the others go from the lake until they change
    #[arg(long = "where", value_name = "CONDITION", requires = "table")]
    filter: Option<String>,
}

impl Backfill {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.config()?;
        if let Err(error) = ensure_copyable(&config, &self.table) {
            // an edited file counts, and so do rules that were applied since
            let in_force = rules_in_force(config.clone(), Lake::open(&config.lake.url).ok().as_ref()).await?.config;
            ensure_copyable(&in_force, &self.table).map_err(|_| error)?;
        }
        let stopped = stop_signal()?;
        let address = config.admin.address();
        let status = Status::new();
        let progress = tokio::spawn(show(status.clone()));
        let (asked, filter) = (self.table.clone(), self.filter.clone());
        let request = BackfillRequest { tables: self.table, filter: self.filter };
        let outcome = Box::pin(backfill(config, request, status.clone(), stopped)).await;
        progress.abort();
        if !outcome.map_err(|error| beside_a_service(error, address, &asked, filter.as_deref()))? {
            tracing::warn!("stopped before all was copied; the same once more, or `binlake run`, goes on");
            return Ok(Answer::No);
        }
        let view = status.view();
        let committed: u64 = view.tables.values().map(|table| table.inserted + table.updated).sum();
        tracing::info!(tables = view.tables.len(), rows = committed, "backfill done");
        let is_asked = |table: &TableId| asked.is_empty() || asked.contains(table);
        let stopped =
            view.tables.iter().filter(|(table, status)| is_asked(table) && matches!(status.stage, TableStage::Stopped { .. }));
        match stopped.count() {
            0 => Ok(Answer::Done),
            count => {
                tracing::error!(tables = count, "tables were stopped, and are not copied: see above");
                Ok(Answer::No)
            }
        }
    }
}

/// Tables that are fed by streams are not copied: their streams are read.
fn ensure_copyable(config: &Config, tables: &[TableId]) -> Result<()> {
    const REMEDY: &str = "start `binlake run`, which reads the stream from its oldest record";
    config.ensure_source("there is nothing to copy: all tables are fed by streams that others write", REMEDY)?;
    match tables.iter().find(|table| config.fed.iter().any(|fed| fed.table == **table)) {
        Some(table) => {
            Err(Error::config("the table is fed by a stream, so there is nothing to copy").with("table", table).remedy(REMEDY))
        }
        None => Ok(()),
    }
}

/// A service that runs has the stream; it can be asked for the same.
fn beside_a_service(error: Error, address: Option<SocketAddr>, tables: &[TableId], filter: Option<&str>) -> Error {
    if (error.area(), error.kind()) != (Area::Stream, Kind::Conflict) {
        return error;
    }
    let Some(address) = address else {
        return error.advise("stop it first, or set admin.listen, so that it can be asked by POST /backfill");
    };
    let names: Vec<String> = tables.iter().map(TableId::to_string).collect();
    let mut asked = json!({ "tables": if names.is_empty() { vec!["database.table".to_owned()] } else { names } });
    if let Some(filter) = filter {
        asked["where"] = filter.into();
    }
    // as a shell takes it between single quotes
    let asked = asked.to_string().replace('\'', "'\\''");
    error.advise(format!(
        "stop it first, or let it copy the tables anew: curl -X POST http://{address}/backfill -H 'content-type: application/json' -d '{asked}'"
    ))
}

/// A spinner on a terminal, log lines elsewhere.
async fn show(status: Status) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}") {
        bar.set_style(style);
    }
    let mut timer = tokio::time::interval(if is_terminal { BAR_INTERVAL } else { LINE_INTERVAL });
    timer.tick().await;
    loop {
        timer.tick().await;
        let view = status.view();
        let reading = view.tables.iter().filter_map(|(table, status)| match status.stage {
            TableStage::Snapshot { rows_read } => Some((table, rows_read)),
            _ => None,
        });
        let (mut tables, mut rows, mut first) = (0, 0, None);
        for (table, read) in reading {
            tables += 1;
            rows += read;
            first.get_or_insert(table.clone());
        }
        let first = first.map(|table| table.to_string()).unwrap_or_default();
        if is_terminal {
            bar.set_message(format!("{rows} rows read, {tables} tables to go {first}"));
            bar.tick();
        } else if tables > 0 {
            tracing::info!(tables_left = tables, rows_read = rows, table = first, "backfill");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_service_the_line_says_how_to_ask_it_for_the_same() {
        let conflict =
            || Error::new(Area::Stream, Kind::Conflict, "another process works on this pipeline").remedy("stop one of the two");
        let address = Some(([127, 0, 0, 1], 8300).into());
        let said = beside_a_service(conflict(), address, &[TableId::new("shop", "orders")], Some("sort = 'a'")).to_string();
        let (what, body) = said.split_once(" -d ").unwrap();
        assert_eq!(
            what,
            "another process works on this pipeline; stop it first, or let it copy the tables anew: \
             curl -X POST http://127.0.0.1:8300/backfill -H 'content-type: application/json'"
        );
        assert_eq!(body, r#"'{"tables":["shop.orders"],"where":"sort = '\''a'\''"}'"#);
        let all = beside_a_service(conflict(), address, &[], None).to_string();
        assert!(all.ends_with(r#" -d '{"tables":["database.table"]}'"#), "{all}");
        assert!(beside_a_service(conflict(), None, &[], None).to_string().ends_with("asked by POST /backfill"));
        let other = beside_a_service(Error::config("x").remedy("y"), address, &[], None);
        assert_eq!(other.to_string(), "x; y");
    }
}
