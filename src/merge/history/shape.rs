//! What a history table's columns are: the rows' own, the two periods, and where a version lies.
//!
//! Three kinds of partition, told apart by [`PLACE`]:
//!
//! - `_open`: true as far as is known, until further notice: one row a key, sorted by key, as in the table itself;
//! - `bounded`: true as far as is known, until a certain time: sorted by that time;
//! - `closed-2026-11`: known no longer, since that month: sorted by that moment.
//!
//! One sort key serves all three: the end in system time, the end in valid time, the row's key, both beginnings. In `_open` both ends
//! are the open end, so the key decides. In the others what comes new is greater than what is there, or nearly, so it goes to the last file: a commit's
//! cost follows its changes, however long the history is.

use crate::error::{Error, Result};
use crate::event::TableId;
use crate::merge::shape::data;
use crate::table::TableSpec;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Datelike};
use std::sync::Arc;

/// Since when a version is true.
pub const VALID_FROM: &str = "_valid_from";
/// Until when, exclusive.
pub const VALID_TO: &str = "_valid_to";
/// Since when that is known.
pub const SYSTEM_FROM: &str = "_system_from";
/// Until when, exclusive.
pub const SYSTEM_TO: &str = "_system_to";
/// The partition column.
pub const PLACE: &str = "_place";
/// The end of a history table's name.
pub const HISTORY_SUFFIX: &str = "_history";

/// The value of [`PLACE`] for what is true until further notice.
pub(super) const OPEN: &str = "_open";
/// The value of [`PLACE`] for what is true, as far as is known, until a certain time.
pub(super) const BOUNDED: &str = "bounded";

/// The columns that a history has besides the rows', in their order.
pub(super) const OWN_COLUMNS: [&str; 5] = [VALID_FROM, VALID_TO, SYSTEM_FROM, SYSTEM_TO, PLACE];

/// The type of the periods' ends.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The name of a table's history.
pub fn history_of(table: &TableId) -> TableId {
    TableId::new(table.database(), format!("{}{HISTORY_SUFFIX}", table.name()))
}

/// Whether a table with these columns is a history.
pub fn is_history(columns: &Schema) -> bool {
    OWN_COLUMNS.iter().all(|name| columns.index_of(name).is_ok())
}

/// The value of [`PLACE`] of a version that ended then in system time.
pub(super) fn closed_place(system_to: i64) -> String {
    let month = DateTime::from_timestamp_micros(system_to).map(|time| (time.year(), time.month()));
    let (year, month) = month.unwrap_or((9999, 12));
    format!("closed-{year:04}-{month:02}")
}

/// The path of a partition.
pub(super) fn partition_of(place: &str) -> String {
    format!("{PLACE}={place}")
}

/// A history table's columns.
#[derive(Debug, Clone)]
pub struct HistoryShape {
    table: TableId,
    key: Vec<String>,
    columns: SchemaRef,
    /// How many columns the rows have now.
    rows: usize,
}

impl HistoryShape {
    /// For rows of `table` with these columns and this key. `previous`: the columns that the history has; what is gone from the rows stays in it.
    ///
    /// # Errors
    /// `Data` if a column is called as one of the history's own.
    pub fn new(table: &TableId, rows: &Schema, key: &[String], previous: Option<&Schema>) -> Result<Self> {
        let is_own = |name: &str| OWN_COLUMNS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if let Some(taken) = rows.fields().iter().find(|field| is_own(field.name())) {
            return Err(data("a column is called as one that the table's history has")
                .with("table", table)
                .with("column", taken.name())
                .remedy("rename the column at the source or in the table's transform, or set `history = false`"));
        }
        let mut fields: Vec<Field> =
            rows.fields().iter().map(|field| field.as_ref().clone().with_nullable(!key.contains(field.name()))).collect();
        let gone = previous.iter().flat_map(|previous| previous.fields().iter());
        let gone = gone.filter(|field| !is_own(field.name()) && rows.index_of(field.name()).is_err());
        fields.extend(gone.map(|field| field.as_ref().clone().with_nullable(true)));
        for name in OWN_COLUMNS {
            fields.push(if name == PLACE { Field::new(name, DataType::Utf8, true) } else { Field::new(name, time_type(), false) });
        }
        Ok(Self { table: history_of(table), key: key.to_vec(), columns: Arc::new(Schema::new(fields)), rows: rows.fields().len() })
    }

    /// The history's columns in the order of its files.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Names of the rows' key.
    pub(super) fn key(&self) -> &[String] {
        &self.key
    }

    /// The columns that the rows have, or had.
    pub(super) fn row_columns(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.columns.fields().iter().take(self.columns.fields().len() - OWN_COLUMNS.len())
    }

    /// Where the rows' columns of now are.
    pub(super) fn present(&self) -> usize {
        self.rows
    }

    /// What the history table is made as.
    pub fn spec(&self) -> TableSpec {
        TableSpec {
            database: self.table.database().to_owned(),
            name: self.table.name().to_owned(),
            columns: self.columns.clone(),
            record_key: self.record_key(),
            sort_prefix: [SYSTEM_TO, VALID_TO].map(str::to_owned).into_iter().chain(self.key.iter().cloned()).collect(),
            ordering_field: SYSTEM_FROM.to_owned(),
            partition_columns: vec![PLACE.to_owned()],
        }
    }

    /// Names of the record key's columns. The beginnings come first: they repeat from row to row in `_open`, and what a text shares with the one before it
    /// costs nothing in a file.
    pub fn record_key(&self) -> Vec<String> {
        [VALID_FROM, SYSTEM_FROM].map(str::to_owned).into_iter().chain(self.key.iter().cloned()).collect()
    }
}

/// A bug of the history's own.
pub(super) fn impossible(what: &'static str) -> Error {
    Error::bug(what)
}
