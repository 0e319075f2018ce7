//! `binlake clean`: a table's old file versions go.

use super::maintain::table_options;
use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::merge::COMMIT_TS;
use crate::query::find_table;
use crate::table::{Lake, Table, TableOptions, TableSpec, TableView};
use clap::Args;

/// Removes a table's old file versions beyond the retained commits
///
/// The service does it by itself every few commits; this is for a table whose
/// service is stopped. Queries as of the retained commits stay possible.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  binlake clean shop.orders --retain 1")]
pub(super) struct Clean {
    /// The table: database.table, or table alone where only one database has it
    table: String,
    /// Commits that can still be queried [default: lake.retained_commits]
    #[arg(long, value_name = "N")]
    retain: Option<usize>,
}

impl Clean {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.lake_config()?;
        let lake = Lake::open(&config.lake.url)?;
        let (database, name) = find_table(&lake.tables().await?, &self.table)?;
        let base = lake.table_path(&database, &name);
        let view = TableView::open(lake.store().clone(), base.clone()).await?;
        let spec = TableSpec {
            columns: view.latest_columns(),
            record_key: view.record_key(),
            sort_prefix: view.sort_prefix(),
            ordering_field: COMMIT_TS.into(),
            partition_columns: view.partition_columns(),
            database,
            name,
        };
        let retained = self.retain.unwrap_or(config.lake.retained_commits).max(1);
        let options = TableOptions { retained_commits: retained, ..table_options(&config, "clean") };
        let stop_it = |error: Error| error.remedy("stop the service that writes the table; it cleans by itself");
        let mut table = Table::open(lake.store().clone(), base, &spec, options).await.map_err(stop_it)?;
        let files = table.clean(retained).await?;
        println!("{}.{}: {files} files deleted; the last {retained} commits can be queried", spec.database, spec.name);
        Ok(Answer::Done)
    }
}
