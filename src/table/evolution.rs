//! Which columns a table may have, and what they may become.

use crate::error::{Area, Error, Kind, Result};
use arrow::datatypes::{DataType, Field, Schema};
use std::collections::BTreeSet;

/// What helps where a table can't become what is wanted.
pub(super) const WRITE_ANEW: &str = "run `binlake backfill --table` for the table: it is then written anew";

/// The key's columns are there, and the partition columns come last.
pub(super) fn ensure_columns(columns: &Schema, record_key: &[String], partition_columns: &[String]) -> Result<()> {
    if let Some(missing) = record_key.iter().find(|name| columns.index_of(name).is_err()) {
        return Err(Error::new(Area::Lake, Kind::Data, "the table lacks a column of its key").with("column", missing));
    }
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        return Err(Error::new(Area::Lake, Kind::Data, "two columns of the table have one name").with("columns", names.join(",")));
    }
    if !names.ends_with(&partition_columns.iter().map(String::as_str).collect::<Vec<_>>()) {
        return Err(Error::bug("the partition columns are not the table's last").with("columns", names.join(",")));
    }
    Ok(())
}

/// The key stays while there are rows: their files are sorted by it.
pub(super) fn ensure_key(previous: &[String], record_key: &[String]) -> Result<()> {
    if previous == record_key {
        return Ok(());
    }
    Err(Error::new(Area::Lake, Kind::Data, "the table has another record key")
        .with("found", previous.join(","))
        .with("wanted", record_key.join(","))
        .remedy(WRITE_ANEW))
}

/// Columns may come, and types may become wider; nothing else while there are rows.
///
/// # Errors
/// `Data`, with the column.
pub fn ensure_evolves(previous: Option<&Schema>, columns: &Schema) -> Result<()> {
    for before in previous.into_iter().flat_map(|previous| previous.fields().iter()) {
        let refused = |what: &'static str| Error::new(Area::Lake, Kind::Data, what).with("column", before.name());
        let Ok(after) = columns.field_with_name(before.name()) else {
            return Err(refused("a column of the lake's table can't be dropped"));
        };
        if !widens(before.data_type(), after.data_type()) {
            return Err(refused("a column of the lake's table can't get that type")
                .with("from", before.data_type())
                .with("to", after.data_type()));
        }
    }
    Ok(())
}

/// The columns that went, or whose values of before can't be read as the new type: one of that name is another column from now on.
pub(super) fn replaced_columns(previous: Option<&Schema>, columns: &Schema) -> Vec<String> {
    let before = previous.into_iter().flat_map(|previous| previous.fields().iter());
    let stays = |field: &Field| columns.field_with_name(field.name()).is_ok_and(|now| widens(field.data_type(), now.data_type()));
    before.filter(|field| !stays(field)).map(|field| field.name().clone()).collect()
}

fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Decimal128, Float32, Float64, Int32, Int64, List};
    match (from, to) {
        (from, to) if from == to => true,
        (Boolean, Int32 | Int64) | (Int32, Int64 | Float64) | (Float32, Float64) => true,
        (Int32, Decimal128(digits, scale)) => i16::from(*digits) - i16::from(*scale) >= 10,
        (Int64, Decimal128(digits, scale)) => i16::from(*digits) - i16::from(*scale) >= 19,
        (Decimal128(digits, scale), Decimal128(more_digits, more_scale)) => {
            more_scale >= scale && i16::from(*more_digits) - i16::from(*more_scale) >= i16::from(*digits) - i16::from(*scale)
        }
        (List(from), List(to)) => widens(from.data_type(), to.data_type()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn columns_may_come_and_widen_alone() {
        let before = columns(&[("id", DataType::Int32), ("p", DataType::Decimal128(10, 2))]);
        for (after, good) in [
            (columns(&[("id", DataType::Int64), ("new", DataType::Utf8), ("p", DataType::Decimal128(12, 3))]), true),
            (columns(&[("id", DataType::Int32)]), false),
            (columns(&[("id", DataType::Utf8), ("p", DataType::Decimal128(10, 2))]), false),
            (columns(&[("id", DataType::Int32), ("p", DataType::Decimal128(10, 4))]), false),
        ] {
            assert_eq!(ensure_evolves(Some(&before), &after).is_ok(), good, "{after}");
            assert_eq!(replaced_columns(Some(&before), &after).is_empty(), good, "{after}");
        }
        assert_eq!(replaced_columns(Some(&before), &columns(&[("id", DataType::Utf8)])), ["id", "p"]);
    }

    #[test]
    fn keys_are_there_and_partition_columns_come_last() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let schema = columns(&[("id", DataType::Int32), ("day", DataType::Utf8)]);
        ensure_columns(&schema, &names(&["id"]), &names(&["day"])).unwrap();
        assert_eq!(ensure_columns(&schema, &names(&["key"]), &[]).unwrap_err().kind(), Kind::Data);
        assert_eq!(ensure_columns(&schema, &names(&["id"]), &names(&["id"])).unwrap_err().kind(), Kind::Bug);
    }
}
