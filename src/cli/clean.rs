//! `binlake clean`: a table's old file versions go.

use super::maintain::table_options;
use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::pipeline::TableServices;
use crate::query::find_table;
use crate::table::{Lake, TableOptions};
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
        let table = TableId::new(database, name);
        let retained = self.retain.unwrap_or(config.lake.retained_commits).max(1);
        let options = TableOptions { retained_commits: retained, ..table_options(&config, "clean") };
        let stop_it = |error: Error| error.remedy("stop the service that writes the table; it cleans by itself");
        let mut open = TableServices::new(lake, options).open(&table).await.map_err(stop_it)?;
        let files = open.clean(retained).await?;
        println!("{table}: {files} files deleted; the last {retained} commits can be queried");
        Ok(Answer::Done)
    }
}
