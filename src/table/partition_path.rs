//! Partition paths, hive style: `sport_type=baseball/event_day=2024-01-05`.
//!
//! NULL and the empty string are `__HIVE_DEFAULT_PARTITION__`. Characters that a path can't hold (`/`, `=`, `%`, control characters and the rest of
//! Hive's list) are escaped as `%2F`, which is what Hudi does with `hoodie.datasource.write.partitionpath.urlencode=true`:
//! without it a slash in a value would open another folder level, which no reader of the partition finds.

use super::record_key::ValueText;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use std::fmt::Write;
use std::ops::Range;

/// Hive's name of the partition of NULL.
pub(super) const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// The path of the partition that has `values` (as text; `None` for NULL) in the columns `names`; empty without columns.
pub(super) fn partition_path<'a>(names: &[String], values: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let mut path = String::new();
    for (name, value) in names.iter().zip(values) {
        if !path.is_empty() {
            path.push('/');
        }
        escape(name, &mut path);
        path.push('=');
        match value {
            None | Some("") => path.push_str(NULL_PARTITION),
            Some(value) => escape(value, &mut path),
        }
    }
    path
}

/// The path of the partition of row `row`, whose partition columns, called `names`, are `columns`. Changes are sorted by it.
pub fn partition_path_at(names: &[String], columns: &[ArrayRef], row: usize) -> Result<String> {
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let mut value = Vec::new();
        let present = ValueText::of(column)?.append(row, &mut value);
        values.push(present.then(|| String::from_utf8_lossy(&value).into_owned()));
    }
    Ok(partition_path(names, values.iter().map(Option::as_deref)))
}

/// Hive's `FileUtils.escapePathName`, which Hudi has as `PartitionPathEncodeUtils`.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        let special = matches!(
            character,
            '\u{1}'
                ..='\u{1f}'
                    | '\u{7f}'
                    | '"'
                    | '#'
                    | '%'
                    | '\''
                    | '*'
                    | '/'
                    | ':'
                    | '='
                    | '?'
                    | '\\'
                    | '{'
                    | '['
                    | ']'
                    | '^'
                    | '\u{0}'
        );
        if special {
            _ = write!(out, "%{:02X}", u32::from(character));
        } else {
            out.push(character);
        }
    }
}

/// The rows of a batch that lie in one partition after the other, with the partition's path.
pub(super) fn partition_runs(names: &[String], rows: &RecordBatch) -> Result<Vec<(Range<usize>, String)>> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    if names.is_empty() {
        return Ok(vec![(0..rows.num_rows(), String::new())]);
    }
    let columns = names
        .iter()
        .map(|name| {
            rows.column_by_name(name).cloned().ok_or_else(|| Error::bug("changes lack a partition column").with("column", name))
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let runs =
        arrow::compute::partition(&columns).map_err(|error| Error::bug("partition columns can't be compared").caused_by(error))?;
    let mut paths: Vec<(Range<usize>, String)> = Vec::new();
    for range in runs.ranges() {
        let path = partition_path_at(names, &columns, range.start)?;
        // NULL and the empty string share a partition, and so may two runs
        match paths.last_mut() {
            Some((last, known)) if *known == path => last.end = range.end,
            _ => paths.push((range, path)),
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn paths_are_hive_style_and_escaped() {
        let names = vec!["sport".to_owned(), "day".to_owned()];
        assert_eq!(partition_path(&names, [Some("baseball"), Some("2024-01-05")]), "sport=baseball/day=2024-01-05");
        assert_eq!(partition_path(&names, [None, Some("")]), format!("sport={NULL_PARTITION}/day={NULL_PARTITION}"));
        assert_eq!(partition_path(&names, [Some("a/b=c"), Some("10:00 ü")]), "sport=a%2Fb%3Dc/day=10%3A00 ü");
        assert_eq!(partition_path(&[], []), "");
    }

    #[test]
    fn runs_of_one_partition() {
        let schema = Schema::new(vec![Field::new("id", DataType::Int32, false), Field::new("p", DataType::Utf8, true)]);
        let texts = StringArray::from(vec![None, Some(""), Some("a"), Some("a"), Some("b")]);
        let rows =
            RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5])), Arc::new(texts)]).unwrap();
        let runs = partition_runs(&["p".to_owned()], &rows).unwrap();
        assert_eq!(runs, vec![(0..2, format!("p={NULL_PARTITION}")), (2..4, "p=a".to_owned()), (4..5, "p=b".to_owned())]);
        assert_eq!(partition_runs(&[], &rows).unwrap(), vec![(0..5, String::new())]);
    }
}
