//! What people wrote beside a table and its columns at the source: for catalogs, which show it. No other room needs it, so it doesn't travel with the rows.

use super::config::SourceConfig;
use super::connect::{connect, connection_options, source_error};
use crate::error::Result;
use crate::event::TableId;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;

/// The comments of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comments {
    /// The table's; may be empty.
    pub table: String,
    /// Those of the columns that have one, by the column's name.
    pub columns: BTreeMap<String, String>,
}

/// Reads a table's comments over a connection of its own; empty where the source has no such table.
///
/// # Errors
/// The source can't be reached or asked.
pub async fn read_comments(source: &SourceConfig, table: &TableId) -> Result<Comments> {
    let options = connection_options(source.url.expose())?;
    let mut conn = connect(&options, source.connect_timeout).await?;
    let failed = |error| source_error(error, "the source's comments can't be read").with("table", table);
    let named = (table.database(), table.name());
    let of_table = "SELECT table_comment FROM information_schema.tables WHERE table_schema = ? AND table_name = ?";
    let of_columns = "SELECT column_name, column_comment FROM information_schema.columns \
                      WHERE table_schema = ? AND table_name = ? AND column_comment <> ''";
    let said: Option<String> = conn.exec_first(of_table, named).await.map_err(failed)?;
    let columns: Vec<(String, String)> = conn.exec(of_columns, named).await.map_err(failed)?;
    // all was asked; how the connection ends doesn't matter
    let _ = conn.disconnect().await;
    Ok(Comments { table: said.unwrap_or_default(), columns: columns.into_iter().collect() })
}
