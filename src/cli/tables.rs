//! `binlake tables`: what the lake has.

use super::list::print_list;
use super::{Answer, Global, Ruled};
use crate::config::{Config, Delivered, FedTable};
use crate::error::{Error, Result};
use crate::event::{Column, TableId, TableState};
use crate::format::PlainType;
use crate::lookup::Lookup;
use crate::merge::{CHECKPOINT_KEY, Checkpoint, HISTORY_START_KEY, HISTORY_SUFFIX, POSITION_KEY};
use crate::pipeline::{delivered_checkpoint, delivery_name, open_stream_to_read, row_letters_of, stopped_tables};
use crate::query::{OutputFormat, known_until, left_behind_at, row_count};
use crate::stream::find_last_cut;
use crate::table::{Lake, Table, TableView};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use clap::Args;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lists the tables: rows, size, last commit, lag, state, position
///
/// `lag` is how long ago the source committed the last transaction that the
/// table is known to have; it grows while the service is stopped. `state` is
/// live, snapshot (not all rows are read yet) or stopped, with the reason.
/// Below a history stands since when it has every change; and until when, if
/// it was switched off.
#[derive(Debug, Args)]
pub(super) struct Tables {
    /// table (positions are shortened), csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
}

/// One line of the list.
#[derive(Debug, Default)]
struct Line {
    table: String,
    rows: u64,
    bytes: u64,
    files: u64,
    last_commit: Option<String>,
    position: Option<String>,
    lag_seconds: Option<f64>,
    state: Option<&'static str>,
    /// Why it is stopped.
    reason: Option<String>,
    /// Columns that were inferred, with their types.
    inferred: Option<String>,
    /// Of a history: since when it has every change.
    history_start: Option<String>,
    /// Of a history that was switched off: until when.
    history_end: Option<String>,
    /// What its rows go through: a transform, lookups, dead letters; of a delivery, where they come from.
    way: Option<String>,
    /// Whether its rows are items elsewhere.
    is_delivered: bool,
}

/// The columns of a table fed by plain records that nobody declared, with the types that were inferred; `None`: there are none.
pub(super) async fn inferred_columns(lake: &Lake, fed: &FedTable) -> Result<Option<String>> {
    let base = lake.table_path(fed.table.database(), fed.table.name());
    if !fed.is_inferred || !Table::exists(lake.store(), &base).await? {
        return Ok(None);
    }
    let view = TableView::open(lake.store().clone(), base).await?;
    let Some(checkpoint) = view.extra_metadata(CHECKPOINT_KEY).and_then(|json| Checkpoint::from_json(json).ok()) else {
        return Ok(None);
    };
    let is_declared = |column: &Column| fed.columns.iter().any(|declared| declared.name == column.name);
    let columns = checkpoint.source_schema.columns.into_iter().filter(|column| !is_declared(column));
    let columns: Vec<String> = columns.map(|column| format!("{} {}", column.name, PlainType::of(column.source_type))).collect();
    Ok((!columns.is_empty()).then(|| columns.join(", ")))
}

impl Tables {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let Ruled { config, lake } = global.ruled_lake().await?;
        let lake = lake?;
        let mut states = states(&config).await?;
        let stopped = stopped_tables(&config).await;
        let mut lines = Vec::new();
        for (database, name) in lake.tables().await? {
            let table = TableId::new(&database, &name);
            let mut line = line(&lake, &database, &name).await.map_err(|error| error.with("table", &table))?;
            (line.state, line.reason) = by_the_merge(states.remove(&table).unwrap_or_default(), stopped.get(&table));
            if let Some(fed) = config.fed_table(&table) {
                line.inferred = inferred_columns(&lake, fed).await.map_err(|error| error.with("table", &table))?;
            }
            line.way = way(&config, &lake, &table).await.map_err(|error| error.with("table", &table))?;
            lines.push(line);
        }
        for delivered in &config.deliver {
            if config.tables.rule_for(&delivered.mapping.source).is_none() {
                states.remove(&delivered.mapping.source);
            }
            let mut line = delivery(delivered).await;
            if line.reason.is_none() {
                (line.state, line.reason) = by_the_merge((line.state, None), stopped.get(&delivery_name(delivered)));
            }
            lines.push(line);
        }
        // known to the stream, and without a commit yet
        let waiting = states.into_iter().map(|(table, said)| {
            let (state, reason) = by_the_merge(said, stopped.get(&table));
            Line { table: table.to_string(), state, reason, ..Line::default() }
        });
        lines.extend(waiting);
        print_list(self.format, || text(&lines), batch(&lines)).await
    }
}

/// What a table's rows go through on their way.
async fn way(config: &Config, lake: &Lake, table: &TableId) -> Result<Option<String>> {
    let Some(transform) = config.rule_of(table).and_then(|rule| rule.transform.as_ref()) else {
        return Ok(None);
    };
    let mut way = "transformed".to_owned();
    if !transform.lookups().is_empty() {
        let lookup = |(name, lookup): (&String, &Arc<Lookup>)| format!("{name} ({})", lookup.config().url);
        way += &format!(", joins {}", transform.lookups().iter().map(lookup).collect::<Vec<_>>().join(", "));
    }
    let letters = row_letters_of(table);
    let base = lake.table_path(letters.database(), letters.name());
    if Table::exists(lake.store(), &base).await? {
        let slices = TableView::open(lake.store().clone(), base.clone()).await?.slices(None)?;
        way += &format!(", {} dead letters", row_count(lake, &base, &slices).await?);
    }
    Ok(Some(way))
}

/// A delivery; one whose store doesn't answer says so.
async fn delivery(delivered: &Delivered) -> Line {
    let (checkpoint, reason) = match delivered_checkpoint(delivered).await {
        Ok(checkpoint) => (checkpoint, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Line {
        table: delivery_name(delivered).to_string(),
        state: checkpoint.is_some().then_some("live"),
        reason,
        position: checkpoint.as_ref().map(Checkpoint::position_text),
        lag_seconds: checkpoint.map(|checkpoint| Timestamp::now().since(checkpoint.source_commit_time).as_secs_f64()),
        way: Some(format!("delivered: the items of {}", delivered.mapping.source)),
        is_delivered: true,
        ..Line::default()
    }
}

type State = (Option<&'static str>, Option<String>);

/// How a table stands; one that the source still feeds may have been stopped by the merge.
fn by_the_merge(state: State, stopped: Option<&String>) -> State {
    match (state, stopped) {
        ((None | Some("live"), _), Some(why)) => (Some("stopped"), Some(why.clone())),
        (state, _) => state,
    }
}

/// Where the tables stand at the last cut on the stream; nothing where there is no stream.
async fn states(config: &Config) -> Result<BTreeMap<TableId, State>> {
    let Some(log) = open_stream_to_read(config).await? else { return Ok(BTreeMap::new()) };
    let Some((_, cut)) = find_last_cut(log.as_ref()).await?.cut else { return Ok(BTreeMap::new()) };
    let state = |state: &TableState| match state {
        TableState::Live => (Some("live"), None),
        TableState::Snapshot(_) => (Some("snapshot"), None),
        TableState::Stopped { reason, .. } => (Some("stopped"), Some(reason.clone())),
    };
    Ok(cut.tables.iter().map(|(table, at)| (table.clone(), state(at))).collect())
}

async fn line(lake: &Lake, database: &str, name: &str) -> Result<Line> {
    let base = lake.table_path(database, name);
    let view = TableView::open(lake.store().clone(), base.clone()).await?;
    let slices = view.slices(None)?;
    // another writer's table has no checkpoint, and is listed all the same
    let checkpoint = view.extra_metadata(CHECKPOINT_KEY).and_then(|json| Checkpoint::from_json(json).ok());
    Ok(Line {
        table: format!("{database}.{name}"),
        rows: row_count(lake, &base, &slices).await?,
        bytes: slices.iter().map(|slice| slice.file_bytes).sum(),
        files: slices.len() as u64,
        last_commit: view.instants().last().map(|last| last.instant.to_string()),
        position: view.extra_metadata(POSITION_KEY).map(str::to_owned),
        lag_seconds: checkpoint.map(|checkpoint| Timestamp::now().since(checkpoint.source_commit_time).as_secs_f64()),
        state: None,
        reason: None,
        inferred: None,
        history_start: view.extra_metadata(HISTORY_START_KEY).map(str::to_owned),
        history_end: history_end(lake, database, name, &view).await?,
        way: None,
        is_delivered: false,
    })
}

/// Until when a history has every change; `None`: it still follows its table, or is none.
async fn history_end(lake: &Lake, database: &str, name: &str, view: &TableView) -> Result<Option<String>> {
    let Some(of) = name.strip_suffix(HISTORY_SUFFIX).filter(|_| view.extra_metadata(HISTORY_START_KEY).is_some()) else {
        return Ok(None);
    };
    let base = lake.table_path(database, of);
    if !Table::exists(lake.store(), &base).await? {
        return Ok(None);
    }
    let table = TableView::open(lake.store().clone(), base).await?;
    Ok(left_behind_at(&table, view).await?.map(|last| known_until(&last).to_string()))
}

fn batch(lines: &[Line]) -> Result<RecordBatch> {
    let text = |value: fn(&Line) -> Option<&str>| Arc::new(lines.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let number = |value: fn(&Line) -> u64| Arc::new(lines.iter().map(value).collect::<UInt64Array>()) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([
        ("table", text(|line| Some(&line.table)), false),
        ("rows", number(|line| line.rows), false),
        ("bytes", number(|line| line.bytes), false),
        ("files", number(|line| line.files), false),
        ("last_commit", text(|line| line.last_commit.as_deref()), true),
        ("lag_seconds", Arc::new(lines.iter().map(|line| line.lag_seconds).collect::<Float64Array>()), true),
        ("state", text(|line| line.state), true),
        ("reason", text(|line| line.reason.as_deref()), true),
        ("position", text(|line| line.position.as_deref()), true),
        ("inferred", text(|line| line.inferred.as_deref()), true),
        ("way", text(|line| line.way.as_deref()), true),
        ("history_start", text(|line| line.history_start.as_deref()), true),
        ("history_end", text(|line| line.history_end.as_deref()), true),
    ])
    .map_err(|error| Error::bug("the list can't be made").caused_by(error))
}

/// For people, in 80 columns where the tables' names allow it.
fn text(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "the lake has no table yet\n".into();
    }
    let width = lines.iter().map(|line| line.table.chars().count()).max().unwrap_or(0).max(5);
    // the position gets what is left of 80 columns
    let left = 80usize.saturating_sub(width + 58);
    let titles = ["TABLE", "ROWS", "SIZE", "LAST COMMIT", "LAG", "STATE"];
    let mut out =
        format!("{:width$} {:>11} {:>8}  {:17} {:>6}  {:8}", titles[0], titles[1], titles[2], titles[3], titles[4], titles[5]);
    out.push_str(if left >= 9 { " POSITION\n" } else { "\n" });
    for line in lines {
        let lag = line.lag_seconds.map_or("-".into(), shortened_seconds);
        let commit = line.last_commit.as_deref().unwrap_or("-");
        let (rows, size) = match line.is_delivered {
            true => ("-".into(), "-".into()),
            false => (crate::admin::grouped(line.rows), shortened_bytes(line.bytes)),
        };
        out.push_str(&format!("{:width$} {rows:>11} {size:>8}  {commit:17} {lag:>6}  {:8}", line.table, line.state.unwrap_or("-")));
        if let (Some(position), true) = (&line.position, left >= 9) {
            out.push_str(&format!(" {}", shortened_position(position, left)));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        if let Some(reason) = &line.reason {
            out.push_str(&format!("  {reason}\n"));
        }
        if let Some(inferred) = &line.inferred {
            out.push_str(&format!("  inferred: {inferred}\n"));
        }
        if let Some(start) = &line.history_start {
            let until = line.history_end.as_ref().map(|end| format!(" until {end}")).unwrap_or_default();
            out.push_str(&format!("  every change since {start}{until}\n"));
        }
        if let Some(way) = &line.way {
            out.push_str(&format!("  {way}\n"));
        }
    }
    out
}

/// `1536` → `1.5 KB`.
pub(super) fn shortened_bytes(bytes: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 || size >= 99.5 { format!("{size:.0} {}", units[unit]) } else { format!("{size:.1} {}", units[unit]) }
}

fn shortened_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.1}s"),
        s if s < 6_000.0 => format!("{:.0}m", s / 60.0),
        s if s < 360_000.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// The end of a long GTID set, where the news is.
pub(super) fn shortened_position(position: &str, most: usize) -> String {
    let (position, most) = (position.replace('\n', ""), most.max(8));
    let length = position.chars().count();
    match length <= most {
        true => position,
        false => format!("…{}", position.chars().skip(length - most + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_fits_80_columns() {
        let line = |table: &str, rows, bytes, lag| Line {
            table: table.into(),
            rows,
            bytes,
            files: 3,
            last_commit: Some("20261121141230755".into()),
            position: Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-123456789".into()),
            lag_seconds: lag,
            state: Some("live"),
            reason: None,
            ..Line::default()
        };
        let lines = [
            line("shop.orders", 1_234_567, 123_456_789, Some(1.26)),
            line("sports.ticket_activity", 45, 1_536, Some(86_400.0)),
            Line {
                table: "shop.empty".into(),
                state: Some("stopped"),
                reason: Some("the column price was dropped; run `binlake backfill --table shop.empty`".into()),
                ..Line::default()
            },
        ];
        let text = text(&lines);
        assert!(text.lines().take(2).all(|line| line.chars().count() <= 80), "{text}");
        let short = super::text(&lines[..1]);
        assert!(short.lines().all(|line| line.chars().count() <= 80), "{short}");
        insta::assert_snapshot!(format!("{text}\n{short}"));
        assert_eq!(batch(&lines).unwrap().num_rows(), 3);
    }
}
