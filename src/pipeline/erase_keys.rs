//! Keys that are to be erased, as they are written: the values of the key's columns, in the key's order, joined by commas.
//!
//! The only column of a key is written as it is. Of several, a value with commas, or with spaces around it, stands in double quotes, as in CSV. Nothing
//! is rounded: what is no value of the column's type is no key of the table.

use crate::error::{Error, Result};
use crate::table::key_column;
use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, SortField};

fn no_key(names: &[String], key: &str) -> Error {
    let remedy = match names.len() {
        1 => "write a value of the key's column; bytes as 0x…",
        _ => {
            "write a value for each column of the key, in this order, joined by commas; one that has commas in double quotes; bytes as 0x…"
        }
    };
    let names = if names.is_empty() { "unknown".to_owned() } else { names.join(",") };
    Error::config(format!("`{key}` is no key of the table")).with("key", names).remedy(remedy)
}

/// The parts of a key of several columns.
fn parts_of(key: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = key;
    loop {
        let (part, behind) = quoted(rest).unwrap_or_else(|| {
            let (part, behind) = rest.split_once(',').map_or((rest, None), |(part, behind)| (part, Some(behind)));
            (part.trim().to_owned(), behind)
        });
        parts.push(part);
        match behind {
            Some(behind) => rest = behind,
            None => return parts,
        }
    }
}

/// The part in double quotes at the beginning, and what is behind the comma that follows it.
fn quoted(text: &str) -> Option<(String, Option<&str>)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut part = String::new();
    loop {
        let (before, behind) = rest.split_once('"')?;
        part.push_str(before);
        match behind.strip_prefix('"') {
            Some(behind) => {
                part.push('"');
                rest = behind;
            }
            None => {
                let behind = behind.trim_start();
                return if behind.is_empty() { Some((part, None)) } else { Some((part, Some(behind.strip_prefix(',')?))) };
            }
        }
    }
}

/// A key of these values, as it is written.
pub fn joined_key(values: &[String]) -> String {
    if let [only] = values {
        return only.clone();
    }
    let part = |value: &String| match value.contains([',', '"']) || value.trim() != value {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.clone(),
    };
    values.iter().map(part).collect::<Vec<_>>().join(",")
}

/// The values of each key. Where the names of its columns aren't known, it is one value, or several that are joined by commas.
pub(super) fn split_keys(names: &[String], keys: &[String]) -> Result<Vec<Vec<String>>> {
    let mut asked = Vec::new();
    for key in keys {
        let parts = parts_of(key);
        match names.len() {
            0 if parts.len() > 1 => asked.extend([vec![key.clone()], parts]),
            // the only column of a key may have commas in its values
            0 | 1 => asked.push(vec![key.clone()]),
            count if count == parts.len() => asked.push(parts),
            _ => return Err(no_key(names, key)),
        }
    }
    Ok(asked)
}

/// The values of each key, and all keys as columns of the table's types, sorted, each once.
pub(super) fn key_columns(names: &[String], columns: &Schema, keys: &[String]) -> Result<(Vec<Vec<String>>, Vec<ArrayRef>)> {
    let asked = split_keys(names, keys)?;
    let mut typed: Vec<ArrayRef> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let field = columns.field_with_name(name).map_err(|error| Error::bug("a table lacks its key").caused_by(error))?;
        let texts: Vec<&str> = asked.iter().map(|key| key[i].as_str()).collect();
        typed.push(key_column(&texts, field.data_type()).map_err(|error| no_key(names, &keys.join(" ")).caused_by(error))?);
    }
    let unexpected = |error| Error::bug("keys can't be sorted").caused_by(error);
    let fields = typed.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&typed)).map_err(unexpected)?;
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by(|a, b| rows.row(*a).cmp(&rows.row(*b)));
    order.dedup_by(|a, b| rows.row(*a) == rows.row(*b));
    let order = UInt64Array::from_iter_values(order.into_iter().map(|row| row as u64));
    let sorted = typed.iter().map(|column| take(column, &order, None).map_err(unexpected)).collect::<Result<_>>()?;
    Ok((asked, sorted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("k{number}")).collect()
    }

    #[test]
    fn values_with_commas_stand_in_quotes() {
        for (key, wanted) in [
            ("A,17", vec!["A", "17"]),
            (" A , 17 ", vec!["A", "17"]),
            ("\"a,b\",17", vec!["a,b", "17"]),
            ("17, \" lead\" ", vec!["17", " lead"]),
            ("\"say \"\"hi\"\"\",", vec!["say \"hi\"", ""]),
            // no quotes around the whole of it
            ("it's \"q\",8", vec!["it's \"q\"", "8"]),
            ("\"a\"b,8", vec!["\"a\"b", "8"]),
            ("\"open,8", vec!["\"open", "8"]),
        ] {
            assert_eq!(split_keys(&names(2), &[key.to_owned()]).unwrap(), vec![wanted], "{key}");
        }
        for values in [["a,b", "17"], [" x ", "\"y\""], ["", "z"], ["plain", "8"]] {
            let values = values.map(str::to_owned).to_vec();
            assert_eq!(split_keys(&names(2), &[joined_key(&values)]).unwrap(), [values]);
        }
        let only = "a, \"b\"".to_owned();
        assert_eq!(joined_key(std::slice::from_ref(&only)), only);
        assert_eq!(split_keys(&names(1), std::slice::from_ref(&only)).unwrap(), [[only]]);
        let error = split_keys(&names(2), &["a,b,17".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("key=k0,k1") && error.advice().contains("double quotes"), "{error}");
    }

    #[test]
    fn keys_are_sorted_and_each_is_there_once() {
        let columns =
            Schema::new(vec![Field::new("k0", DataType::Int32, false), Field::new("k1", DataType::Decimal128(10, 2), false)]);
        let keys = ["9,1.5", "10,2", "9,1.50"].map(str::to_owned);
        let (_, typed) = key_columns(&names(2), &columns, &keys).unwrap();
        assert_eq!(typed[0].as_ref(), &arrow::array::Int32Array::from(vec![9, 10]));
        assert!(key_columns(&names(2), &columns, &["9,1.505".to_owned()]).is_err(), "it is rounded to another key");
    }
}
