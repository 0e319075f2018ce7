//! A lookup's items as of one moment.

use super::items::ItemColumns;
use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use serde_json::{Map, Value};
use std::sync::OnceLock;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// One item as its system has it: values by name. Numbers keep their digits.
pub type Item = Map<String, Value>;

/// All items of a lookup, in columns.
#[derive(Debug)]
pub struct Content {
    rows: RecordBatch,
    kinds: Option<ItemColumns>,
    fingerprint: OnceLock<String>,
}

impl Content {
    pub(super) fn new(rows: RecordBatch, kinds: Option<ItemColumns>) -> Self {
        Self { rows, kinds, fingerprint: OnceLock::new() }
    }

    /// The items.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Their columns; `None`: they came with types.
    pub fn kinds(&self) -> Option<&ItemColumns> {
        self.kinds.as_ref()
    }

    /// The same for the same items, in whatever order they were read.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let fields = self.rows.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
            let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(self.rows.columns()));
            // a type without an order: the text will do
            let mut hashes: Vec<u64> = match &rows {
                Ok(rows) => rows.iter().map(|row| xxh3_64(row.as_ref())).collect(),
                Err(_) => vec![xxh3_64(format!("{:?}", self.rows).as_bytes())],
            };
            hashes.sort_unstable();
            let mut all = Xxh3::new();
            self.rows.schema().fields().iter().for_each(|field| all.update(format!("{}\n", field.name()).as_bytes()));
            hashes.iter().for_each(|hash| all.update(&hash.to_le_bytes()));
            format!("{:016x}", all.digest())
        })
    }

    /// What an item goes by in messages: its first column and that one's value.
    pub fn item_key(&self, row: usize) -> String {
        let shown = self.rows.columns().first().and_then(|column| arrow::util::display::array_value_to_string(column, row).ok());
        match (self.rows.schema().fields().first(), shown) {
            (Some(field), Some(value)) => format!("{}:{value}", field.name()),
            _ => row.to_string(),
        }
    }
}
