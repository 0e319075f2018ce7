//! A query's rows as a table for people, CSV or JSON.

use crate::error::{Area, Error, Kind, Result};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use futures::{Stream, StreamExt};
use std::io::{ErrorKind, Write};
use std::pin::pin;
use std::sync::Arc;

/// How a query's rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Boxes for people
    Table,
    /// CSV with a header; NULL is empty
    Csv,
    /// One JSON array, one object a line
    Json,
}

/// Writes all rows to `out` as they come (a table's widths are known only at the end).
pub async fn write_rows(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>>,
    format: OutputFormat,
    out: &mut (impl Write + Send),
) -> Result<()> {
    write_rows_within(None, schema, rows, format, out).await
}

/// The same for a terminal of so many columns: a table that is wider is written row by row, a value a line.
pub async fn write_rows_within(
    width: Option<usize>,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>>,
    format: OutputFormat,
    out: &mut (impl Write + Send),
) -> Result<()> {
    match write_all(width, schema, rows, format, out).await {
        // `binlake query … | head`: the reader has enough
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Output(error)) => {
            Err(Error::config("the result can't be written").caused_by(error).remedy("check where standard output goes"))
        }
        Err(Failure::Rows(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

enum Failure {
    Rows(Error),
    Output(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Rows(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Output(error)
    }
}

async fn write_all(
    width: Option<usize>,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>>,
    format: OutputFormat,
    out: &mut (impl Write + Send),
) -> Result<(), Failure> {
    let mut rows = pin!(rows);
    match format {
        OutputFormat::Table => {
            let mut batches = Vec::new();
            while let Some(batch) = rows.next().await {
                batches.push(batch?);
            }
            let text = pretty_format_batches_with_schema(schema, &batches).map_err(unprintable)?.to_string();
            let is_wide = |width| text.lines().next().is_some_and(|line| line.chars().count() > width);
            match width.is_some_and(is_wide) && batches.iter().any(|rows| rows.num_rows() > 0) {
                true => write_lines(&batches, out)?,
                false => writeln!(out, "{text}")?,
            }
        }
        OutputFormat::Csv => {
            // the header also stands above no rows
            write_csv(&header(&schema)?, out)?;
            while let Some(batch) = rows.next().await {
                write_csv(&flat(&batch?)?, out)?;
            }
        }
        OutputFormat::Json => {
            let mut separator = "[";
            while let Some(batch) = rows.next().await {
                for line in json_rows(&batch?)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    write!(out, "{separator}")?;
                    out.write_all(line)?;
                    separator = ",\n";
                }
            }
            writeln!(out, "{}]", if separator == "[" { "[" } else { "" })?;
        }
    }
    out.flush()?;
    Ok(())
}

/// A value a line.
fn write_lines(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), Failure> {
    let options = FormatOptions::default();
    let mut number = 0;
    for rows in batches {
        let schema = rows.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let width = names.clone().map(|name| name.chars().count()).max().unwrap_or(0);
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).map_err(unprintable));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        for row in 0..rows.num_rows() {
            number += 1;
            writeln!(out, "-- row {number}")?;
            for (name, column) in names.clone().zip(&columns) {
                writeln!(out, "{}", format!("{name:width$}  {}", column.value(row)).trim_end())?;
            }
        }
    }
    Ok(())
}

fn write_csv(batch: &RecordBatch, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = Vec::new();
    CsvBuilder::new().with_header(false).build(&mut text).write(batch).map_err(unprintable)?;
    out.write_all(&text)?;
    Ok(())
}

/// The columns' names as a row.
fn header(schema: &Schema) -> Result<RecordBatch> {
    let names = schema.fields().iter().map(|field| Arc::new(StringArray::from(vec![field.name().as_str()])) as ArrayRef).collect();
    let fields: Vec<Field> = schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, false)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), names).map_err(unprintable)
}

/// Lists as text: CSV has no nesting.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options).map_err(unprintable)?;
            let text: StringArray = (0..column.len()).map(|i| column.is_valid(i).then(|| formatter.value(i).to_string())).collect();
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(text));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unprintable)
}

/// One object a line.
fn json_rows(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch).map_err(unprintable)?;
    writer.finish().map_err(unprintable)?;
    Ok(writer.into_inner())
}

fn unprintable(error: arrow::error::ArrowError) -> Error {
    Error::new(Area::Lake, Kind::Data, "a value can't be printed").caused_by(error).remedy("cast the column to text in the query")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Decimal128Array, Float32Builder, Int64Array, ListBuilder, TimestampMicrosecondArray};

    fn batch() -> RecordBatch {
        let mut vector = ListBuilder::new(Float32Builder::new());
        vector.values().append_slice(&[1.0, 2.5]);
        vector.append(true);
        vector.append(false);
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![9_007_199_254_740_993, 2])) as ArrayRef, false),
            ("name", Arc::new(StringArray::from(vec![Some("a, \"b\""), None])) as ArrayRef, true),
            ("price", Arc::new(Decimal128Array::from(vec![1230, -5]).with_precision_and_scale(20, 2).unwrap()) as ArrayRef, true),
            ("bytes", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""])) as ArrayRef, true),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC")) as ArrayRef, true),
            ("vector", Arc::new(vector.finish()) as ArrayRef, true),
        ])
        .unwrap()
    }

    async fn written(format: OutputFormat, rows: Vec<RecordBatch>) -> String {
        let mut out = Vec::new();
        let schema = batch().schema();
        write_rows(schema, futures::stream::iter(rows.into_iter().map(Ok)), format, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn a_table_that_is_too_wide_is_written_by_lines() {
        let within = async |width: usize, rows: Vec<RecordBatch>| {
            let mut out = Vec::new();
            let rows = futures::stream::iter(rows.into_iter().map(Ok));
            write_rows_within(Some(width), batch().schema(), rows, OutputFormat::Table, &mut out).await.unwrap();
            String::from_utf8(out).unwrap()
        };
        let lines = within(79, vec![batch(), batch().slice(1, 1)]).await;
        assert!(lines.starts_with("-- row 1\nid      9007199254740993\nname    a, \"b\"\nprice   12.30\n"), "{lines}");
        assert!(lines.contains("-- row 2\nid      2\nname\n") && lines.contains("-- row 3\n"), "{lines}");
        let table = written(OutputFormat::Table, vec![batch()]).await;
        let width = table.lines().next().unwrap().chars().count();
        assert_eq!(within(width, vec![batch()]).await, table);
        assert!(within(10, vec![]).await.starts_with("+--"), "without rows there is the head");
    }

    #[tokio::test]
    async fn each_format_with_rows_and_without() {
        let mut shown = String::new();
        for format in [OutputFormat::Table, OutputFormat::Csv, OutputFormat::Json] {
            for rows in [vec![batch(), batch().slice(1, 1)], vec![]] {
                shown.push_str(&format!("{format:?}, {} batches:\n{}\n", rows.len(), written(format, rows).await));
            }
        }
        insta::assert_snapshot!(shown);
    }
}
