//! A table in a SQLite file: one that a delivery writes (an item a row, as JSON), or any other (a column an attribute).

use super::ensure_columns;
use crate::error::{Area, Error, Kind, Result};
use crate::format::PlainColumn;
use crate::lookup::Item;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Number, Value};
use std::path::Path;

/// The columns of tables that a delivery writes: the last holds an item as JSON.
const DELIVERED: [&str; 3] = ["partition", "sort", "item"];

pub(super) fn read(path: &Path, table: &str, declared: Option<&[PlainColumn]>) -> Result<Vec<Item>> {
    let failed = |error: rusqlite::Error| {
        Error::new(Area::Lake, Kind::Refused, "a lookup's table can't be read")
            .caused_by(error)
            .with("path", path.display())
            .with("table", table)
            .remedy("correct the lookup's `url`, or wait until the delivery has made the table")
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    let quoted = table.replace('"', "\"\"");
    let mut statement = connection.prepare(&format!("SELECT * FROM \"{quoted}\"")).map_err(failed)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let item = (names == DELIVERED).then_some(DELIVERED.len() - 1);
    if item.is_none() {
        ensure_columns(&names, declared).map_err(|error| error.with("path", path.display()).with("table", table))?;
    }
    let mut rows = statement.query([]).map_err(failed)?;
    let mut items = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        if let Some(item) = item {
            let text: String = row.get(item).map_err(failed)?;
            let damaged = |error| {
                Error::new(Area::Lake, Kind::Corrupt, "an item of a lookup is no JSON").caused_by(error).with("table", table)
            };
            items.push(serde_json::from_str(&text).map_err(damaged)?);
            continue;
        }
        let mut item = Item::new();
        for (i, name) in names.iter().enumerate() {
            item.insert(name.clone(), value(row.get_ref(i).map_err(failed)?));
        }
        items.push(item);
    }
    Ok(items)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => STANDARD.encode(bytes).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_ones_own_may_have_a_column_called_item() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.db");
        let sql = "CREATE TABLE own (id INTEGER, item TEXT); INSERT INTO own VALUES (1, 'pear');
                   CREATE TABLE delivered (partition TEXT, sort TEXT, item TEXT); INSERT INTO delivered VALUES ('a', '', '{\"a\": 1.50}')";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let shown = |table: &str| serde_json::to_string(&super::read(&path, table, None).unwrap()).unwrap();
        assert_eq!((shown("own").as_str(), shown("delivered").as_str()), (r#"[{"id":1,"item":"pear"}]"#, r#"[{"a":1.50}]"#));
    }
}
