//! A list that a command prints: for people as text, for programs as rows.

use super::Answer;
use crate::error::Result;
use crate::query::{OutputFormat, write_rows};
use arrow::array::RecordBatch;

/// Prints it as `format` asks.
pub(super) async fn print_list(format: OutputFormat, text: impl FnOnce() -> String, rows: Result<RecordBatch>) -> Result<Answer> {
    if format == OutputFormat::Table {
        print!("{}", text());
    } else {
        let rows = rows?;
        write_rows(rows.schema(), futures::stream::iter([Ok(rows)]), format, &mut std::io::stdout()).await?;
    }
    Ok(Answer::Done)
}
