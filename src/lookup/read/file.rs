//! A file of items: CSV with a header, JSON, or Parquet.

use super::{Items, ensure_columns};
use crate::error::{Area, Error, Kind, Result};
use crate::format::PlainColumn;
use crate::lookup::Item;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn unread(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Area::Lake, Kind::Refused, "a lookup's file can't be read")
        .caused_by(error)
        .with("path", path.display())
        .remedy("correct the file or the lookup's `url`")
}

/// Reads the file as its ending says.
pub(super) fn read(path: &Path, declared: Option<&[PlainColumn]>) -> Result<Items> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    match ending.as_str() {
        "parquet" => parquet(path).map(Items::Typed),
        "csv" => csv(path, declared).map(Items::Plain),
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
fn csv(path: &Path, declared: Option<&[PlainColumn]>) -> Result<Vec<Item>> {
    let failed = |error: arrow::error::ArrowError| unread(path, error);
    let bytes = std::fs::read(path).map_err(|error| unread(path, error))?;
    // as spreadsheets write it
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let (header, _) = Format::default().with_header(true).infer_schema(bytes, Some(0)).map_err(failed)?;
    if header.fields().is_empty() {
        return Err(unread(path, "it has no header, and so may be being written"));
    }
    let names: Vec<String> = header.fields().iter().map(|field| field.name().trim().to_owned()).collect();
    ensure_columns(&names, declared).map_err(|error| error.with("path", path.display()))?;
    let fields = names.iter().map(|name| Field::new(name, DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = ReaderBuilder::new(schema.clone()).with_header(true).build(bytes).map_err(failed)?;
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
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is_of_lines = path.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("json"));
    if text.trim().is_empty() && !is_of_lines {
        return Err(unread(path, "it is empty, and so may be being written"));
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| unread(path, error));
    }
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().map_err(|error| unread(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, bytes: &[u8]) -> Result<Vec<Item>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        match read(&path, None)? {
            Items::Plain(items) => Ok(items),
            Items::Typed(_) => panic!("no items without types"),
        }
    }

    fn shown(name: &str, bytes: &[u8]) -> String {
        serde_json::to_string(&read_as(name, bytes).unwrap()).unwrap()
    }

    #[test]
    fn quotes_line_ends_and_marks_of_byte_order_are_understood() {
        let csv = b"\xef\xbb\xbfcode, name\r\nIN,\"India, \"\"Bharat\"\"\"\r\nTD,\"two\nlines\"\r\nXX,\r\n";
        let expected = r#"[{"code":"IN","name":"India, \"Bharat\""},{"code":"TD","name":"two\nlines"},{"code":"XX","name":null}]"#;
        assert_eq!(shown("a.csv", csv), expected);
        for (name, json) in
            [("a.json", r#"[{"a":1}, {"a":2}]"#), ("a.jsonl", "{\"a\":1}\n\n{\"a\":2}"), ("a.json", "{\"a\":1}{\"a\":2}")]
        {
            let marked = format!("\u{feff}{json}");
            assert_eq!(shown(name, marked.as_bytes()), r#"[{"a":1},{"a":2}]"#, "{name}");
        }
    }

    /// A column that is misspelt, there or in the header, would be NULL in all rows.
    #[test]
    fn a_header_has_each_column_once_and_all_that_are_declared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let declared: crate::lookup::LookupConfig =
            toml::from_str("url = 'file:a.csv'\ncolumns = { code = 'string', name = { type = 'string', path = 'geo.name' } }")
                .unwrap();
        for (text, said) in [
            ("code,geo.name\nIN,India\n", None),
            ("code,geo.nam\nIN,India\n", Some("a lookup lacks a column that is declared attribute=geo.name found=code,geo.nam")),
            ("code,geo.name,code\nIN,India,X\n", Some("a lookup has two columns of one name attribute=code")),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path, declared.columns.as_deref()).err().map(|error| error.to_string());
            assert!(error.as_deref().unwrap_or_default().starts_with(said.unwrap_or_default()), "{error:?}");
            assert_eq!(error.is_some(), said.is_some(), "{error:?}");
        }
    }

    /// A file that was emptied to be written is no lookup without items.
    #[test]
    fn what_is_half_written_is_an_error() {
        let half: [(&str, &str); 6] = [
            ("a.csv", ""),
            ("a.csv", "a,b\n1,2\n3"),
            ("a.json", " "),
            ("a.json", r#"[{"a":1},"#),
            ("a.jsonl", r#"{"a":"#),
            ("a.json", "[1]"),
        ];
        for (name, text) in half {
            let error = read_as(name, text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("a lookup's file can't be read: "), "{error}");
        }
        assert_eq!(
            (shown("a.csv", b"a,b\n"), shown("a.jsonl", b""), shown("a.json", b"[]")),
            ("[]".into(), "[]".into(), "[]".into())
        );
    }
}
