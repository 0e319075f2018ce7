//! `binlake ddl`: a table's registration as SQL.

use super::{Answer, Global, Ruled};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::TableId;
use crate::merge::{HISTORY_SUFFIX, athena_questions, is_history};
use crate::pipeline::describe_table;
use crate::publish::{CatalogEntry, athena_statements, duckdb_statements, spark_statements};
use crate::query::find_table;
use crate::table::{Lake, LakeUrl, TableView};
use clap::{Args, ValueEnum};

/// Prints the SQL that registers a table with another engine
///
/// With [catalog] in the configuration the service does it by itself, and keeps
/// it up to date. The DuckDB views of all tables are in the lake's views.sql.
///
/// For a history, athena also prints a view of what is true now, and prepared
/// statements to ask as of other times (EXECUTE … USING '2026-02-10', …), and
/// duckdb the same as a view and macros.
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
        let Ruled { config, lake } = global.ruled_lake().await?;
        if self.engine == Engine::Athena && matches!(config.lake.url, LakeUrl::File(_)) {
            return Err(Error::config("Athena reads tables on S3, and the lake is a folder")
                .with("key", "lake.url")
                .remedy("use --engine duckdb or spark, or a lake on S3"));
        }
        let lake = lake?;
        let (database, name) = find_table(&lake.tables().await?, &self.table)?;
        let table = TableId::new(&database, &name);
        let text = match self.engine {
            Engine::Athena => {
                let entry = described(&lake, &config, &table).await?;
                let mut text = athena_statements(&entry);
                let view = TableView::open(lake.store().clone(), lake.table_path(&database, &name)).await?;
                let columns = view.latest_columns();
                // as the catalog calls them; the questions are named after the table that the history is of
                if let Some(of) = entry.name.strip_suffix(HISTORY_SUFFIX).filter(|_| is_history(&columns)) {
                    text += &athena_questions(&entry.database, of, &columns, &view.record_key());
                }
                text
            }
            Engine::Spark => described(&lake, &config, &table).await.map(|entry| spark_statements(&entry))?,
            Engine::Duckdb => {
                let view = TableView::open(lake.store().clone(), lake.table_path(&database, &name)).await?;
                let columns = view.latest_columns();
                if columns.fields().is_empty() {
                    return Err(no_commit(&table));
                }
                let (base, key) = (lake.table_url(&database, &name), view.record_key());
                duckdb_statements(&base, &database, &name, &columns, &key, &view.slices(None)?)
            }
        };
        print!("{text}");
        Ok(Answer::Done)
    }
}

async fn described(lake: &Lake, config: &Config, table: &TableId) -> Result<CatalogEntry> {
    describe_table(lake, config, table).await?.ok_or_else(|| no_commit(table))
}

fn no_commit(table: &TableId) -> Error {
    Error::config(format!("`{table}` has no commit yet")).remedy("wait for its first one: see `binlake tables`")
}
