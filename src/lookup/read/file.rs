//! A file of items: CSV with a header, JSON, or Parquet.

use super::Items;
use crate::error::{Area, Error, Kind, Result};
use crate::lookup::Item;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

fn unread(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Area::Lake, Kind::Refused, "a lookup's file can't be read")
        .caused_by(error)
        .with("path", path.display())
        .remedy("correct the file or the lookup's `url`; what was read before stays in use")
}

/// Reads the file as its ending says.
pub(super) fn read(path: &Path) -> Result<Items> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    match ending.as_str() {
        "parquet" => parquet(path).map(Items::Typed),
        "csv" => csv(path).map(Items::Plain),
        _ => json(path).map(Items::Plain),
    }
}

fn parquet(path: &Path) -> Result<RecordBatch> {
    let file = File::open(path).map_err(|error| unread(path, error))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
    let reader = reader.map_err(|error| unread(path, error))?;
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| unread(path, error))?;
    concat_batches(&schema, &batches).map_err(|error| unread(path, error))
}

/// An empty field is NULL; all others are text, unless the columns are declared.
fn csv(path: &Path) -> Result<Vec<Item>> {
    let failed = |error: arrow::error::ArrowError| unread(path, error);
    let mut file = File::open(path).map_err(|error| unread(path, error))?;
    let (header, _) = Format::default().with_header(true).infer_schema(&mut file, Some(0)).map_err(failed)?;
    file.rewind().map_err(|error| unread(path, error))?;
    let fields = header.fields().iter().map(|field| Field::new(field.name().trim(), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = ReaderBuilder::new(schema.clone()).with_header(true).build(BufReader::new(file)).map_err(failed)?;
    let mut items = Vec::new();
    for batch in reader {
        let batch = batch.map_err(failed)?;
        for row in 0..batch.num_rows() {
            let value = |(field, column): (&Arc<Field>, &arrow::array::ArrayRef)| {
                let value = if column.is_null(row) { Value::Null } else { column.as_string::<i32>().value(row).into() };
                (field.name().clone(), value)
            };
            items.push(schema.fields().iter().zip(batch.columns()).map(value).collect());
        }
    }
    Ok(items)
}

/// A list of objects, or objects one after the other.
fn json(path: &Path) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).map_err(|error| unread(path, error))?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).map_err(|error| unread(path, error));
    }
    serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().map_err(|error| unread(path, error))
}
