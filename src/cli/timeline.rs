//! `binlake timeline`: a table's commits.

use super::list::print_list;
use super::tables::shortened_position;
use super::{Answer, Global};
use crate::admin::grouped;
use crate::error::{Error, Result};
use crate::merge::POSITION_KEY;
use crate::query::{OutputFormat, find_table};
use crate::table::{CommitSummary, Lake, TableView};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use clap::Args;
use std::sync::Arc;

/// Lists a table's commits: instant, rows, position
///
/// Oldest first, as far back as the table can be read. An instant can be given
/// to `binlake query --as-of`, `restore`, `rollback` and `savepoint`. Of commits
/// that were undone the action is `undone`; those that a savepoint keeps have a
/// star.
#[derive(Debug, Args)]
pub(super) struct Timeline {
    /// The table: database.table, or table alone where only one database has it
    table: String,
    /// Only the latest N
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    last: usize,
    /// table (positions are shortened), csv or json
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: OutputFormat,
}

/// One line of the list.
#[derive(Debug)]
struct Line {
    action: String,
    summary: CommitSummary,
    position: Option<String>,
    is_undone: bool,
    is_kept: bool,
}

impl Timeline {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let lake = Lake::open(&global.lake_config()?.lake.url)?;
        let (database, name) = find_table(&lake.tables().await?, &self.table)?;
        let view = TableView::open(lake.store().clone(), lake.table_path(&database, &name)).await?;
        let instants = view.instants();
        let mut lines = Vec::new();
        for instant in &instants[instants.len().saturating_sub(self.last)..] {
            let mut extra = view.commit_extra_metadata(instant).await?;
            let summary = view.commit_summary(instant).await?;
            let is_kept = view.savepoints().any(|kept| *kept == instant.instant);
            let (action, position) = (instant.action.to_owned(), extra.remove(POSITION_KEY));
            lines.push(Line { action, summary, position, is_undone: instant.is_undone, is_kept });
        }
        print_list(self.format, || text(&lines), batch(&lines)).await
    }
}

fn batch(lines: &[Line]) -> Result<RecordBatch> {
    let number = |value: fn(&Line) -> u64| Arc::new(lines.iter().map(value).collect::<UInt64Array>()) as ArrayRef;
    let flag =
        |value: fn(&Line) -> bool| Arc::new(lines.iter().map(|line| Some(value(line))).collect::<BooleanArray>()) as ArrayRef;
    let instants: StringArray = lines.iter().map(|line| Some(line.summary.instant.as_str())).collect();
    let actions: StringArray = lines.iter().map(|line| Some(line.action.as_str())).collect();
    let positions: StringArray = lines.iter().map(|line| line.position.as_deref()).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("instant", Arc::new(instants) as ArrayRef, false),
        ("action", Arc::new(actions), false),
        ("inserted", number(|line| line.summary.inserted), false),
        ("updated", number(|line| line.summary.updated), false),
        ("deleted", number(|line| line.summary.deleted), false),
        ("files", number(|line| line.summary.files_written), false),
        ("bytes", number(|line| line.summary.bytes_written), false),
        ("position", Arc::new(positions), true),
        ("undone", flag(|line| line.is_undone), false),
        ("savepoint", flag(|line| line.is_kept), false),
    ])
    .map_err(|error| Error::bug("the list can't be made").caused_by(error))
}

/// For people, in 80 columns.
fn text(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "the table has no commit yet\n".into();
    }
    let mut out = format!("{:17} {:14} {:>9} {:>8} {:>8}  {}\n", "INSTANT", "ACTION", "INSERTED", "UPDATED", "DELETED", "POSITION");
    for Line { action, summary, position, is_undone, is_kept } in lines {
        let action = format!("{}{}", if *is_undone { "undone" } else { action }, if *is_kept { "*" } else { "" });
        let [inserted, updated, deleted] = [summary.inserted, summary.updated, summary.deleted].map(grouped);
        let position = position.as_deref().map_or("-".into(), |position| shortened_position(position, 18));
        out.push_str(&format!("{:17} {action:14} {inserted:>9} {updated:>8} {deleted:>8}  {position}\n", summary.instant.as_str()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::InstantTime;

    #[test]
    fn the_list_fits_80_columns() {
        let line = |instant: &str, inserted, position: Option<&str>| Line {
            is_undone: inserted == 0,
            is_kept: inserted > 0,
            action: "commit".into(),
            summary: CommitSummary {
                instant: InstantTime::parse(instant).unwrap(),
                inserted,
                updated: 3,
                deleted: 0,
                files_written: 1,
                bytes_written: 5,
            },
            position: position.map(str::to_owned),
        };
        let lines = [
            line("20261121141230755", 1_234_567, Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-123456789")),
            line("20261121141240755", 0, None),
        ];
        let text = text(&lines);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
        assert_eq!(batch(&lines).unwrap().num_rows(), 2);
    }
}
