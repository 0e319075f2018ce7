//! `binlake erase`: a person's rows go.

use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::merge::history_of;
use crate::pipeline::{ERASE_STEPS, Erased, erase};
use crate::query::find_table;
use crate::state::{CommitCount, RunLabel, RunStatus, StateStore};
use crate::table::{Lake, TableOptions};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

/// Removes keys from a table, its history, and every retained file
///
/// The rows of these keys are deleted from the table and from its history; all
/// files that held them are written anew or deleted, so queries as of earlier
/// commits are no longer possible. Dead letters go in which a key's text
/// occurs. The commit says how much was erased, and so does the audit.
///
/// The service must be stopped. Delete the rows at the source as well, first:
/// what the source still has comes back with the next backfill. The stream
/// keeps its copy until its retention ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake erase shop.customers 4711
  binlake erase shop.seats A,17 A,18        a key of two columns")]
pub(super) struct Erase {
    /// The table: database.table, or table alone where only one database has it
    table: String,
    /// The keys: for each the values of the key's columns, joined by commas
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

impl Erase {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.lake_config()?;
        let lake = Lake::open(&config.lake.url)?;
        let (database, name) = find_table(&lake.tables().await?, &self.table)?;
        let table = TableId::new(database, name);
        let options = TableOptions {
            target_file_bytes: config.lake.target_file_size.0,
            retained_commits: config.lake.retained_commits,
            rewrite_threads: config.lake.rewrite_threads(),
            memory_bytes: config.lake.memory.0,
            writer_name: format!("binlake erase, process {}", std::process::id()),
        };
        let state = StateStore::open(&config.state).await?;
        let label = RunLabel::begin(&table.to_string(), "erase");
        let bar = ProgressBar::new(ERASE_STEPS);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} steps") {
            bar.set_style(style);
        }
        let done = erase(&lake, &options, &table, &self.keys, || bar.inc(1)).await;
        bar.finish_and_clear();
        let erased = done?;
        noted(&state, &label, &table, &erased)
            .await
            .map_err(|error: Error| error.remedy("the rows are erased, but the audit doesn't say so"))?;
        println!(
            "{table}: erased {} rows, {} versions of its history and {} dead letters; {} files of before are deleted",
            erased.rows, erased.versions, erased.letters, erased.files
        );
        Ok(Answer::Done)
    }
}

/// Writes down how much was erased, never which rows.
async fn noted(state: &StateStore, label: &RunLabel, table: &TableId, erased: &Erased) -> Result<()> {
    let count = |deleted| CommitCount {
        inserted: 0,
        updated: 0,
        deleted,
        position: erased.position.clone(),
        source_commit_time: erased.source_commit_time,
        instant: erased.instant.clone(),
    };
    state.count_commit(label, table, &count(erased.rows)).await?;
    if erased.versions > 0 {
        state.count_commit(label, &history_of(table), &count(erased.versions)).await?;
    }
    state.end_run(label, RunStatus::Complete, None).await
}
