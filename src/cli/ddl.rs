//! `binlake ddl`: a table's registration as SQL.

use super::{Answer, Global};
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::pipeline::describe_table;
use crate::publish::{athena_statements, spark_statements, view_statement};
use crate::query::find_table;
use crate::table::{Lake, LakeUrl, TableView};
use clap::{Args, ValueEnum};

/// Prints the SQL that registers a table with another engine
///
/// With [catalog] in the configuration the service does it by itself, and keeps
/// it up to date. The DuckDB views of all tables are in the lake's views.sql.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake ddl --engine athena shop.orders
  binlake ddl --engine duckdb shop.orders | duckdb -c \".read /dev/stdin\"")]
pub(super) struct Ddl {
    /// The table: database.table, or table alone where only one database has it
    table: String,
    /// Whose SQL: athena, duckdb or spark
    #[arg(long, value_name = "ENGINE", hide_possible_values = true)]
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Athena,
    Duckdb,
    Spark,
}

impl Ddl {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        let config = global.lake_config()?;
        if self.engine == Engine::Athena && matches!(config.lake.url, LakeUrl::File(_)) {
            return Err(Error::config("Athena reads tables on S3, and the lake is a folder")
                .with("key", "lake.url")
                .remedy("use --engine duckdb or spark, or a lake on S3"));
        }
        let lake = Lake::open(&config.lake.url)?;
        let (database, name) = find_table(&lake.tables().await?, &self.table)?;
        let table = TableId::new(&database, &name);
        let described = describe_table(&lake, &config, &table).await?.ok_or_else(|| {
            Error::config(format!("`{table}` has no commit yet")).remedy("wait for its first one: see `binlake tables`")
        })?;
        match self.engine {
            Engine::Athena => print!("{}", athena_statements(&described)),
            Engine::Spark => print!("{}", spark_statements(&described)),
            Engine::Duckdb => {
                let view = TableView::open(lake.store().clone(), lake.table_path(&database, &name)).await?;
                let slices = view.slices(None)?;
                let files: Vec<String> = slices.iter().map(|slice| format!("{}/{}", described.location, slice.path())).collect();
                print!("{}", view_statement(&database, &name, &view.latest_columns(), files.iter().map(String::as_str)));
            }
        }
        Ok(Answer::Done)
    }
}
