//! A lookup's items as of one moment.

use super::items::ItemColumns;
use arrow::array::RecordBatch;
use serde_json::{Map, Value};

/// One item as its system has it: values by name. Numbers keep their digits.
pub type Item = Map<String, Value>;

/// All items of a lookup, in columns.
#[derive(Debug)]
pub struct Content {
    rows: RecordBatch,
    kinds: Option<ItemColumns>,
}

impl Content {
    pub(super) fn new(rows: RecordBatch, kinds: Option<ItemColumns>) -> Self {
        Self { rows, kinds }
    }

    /// The items.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Their columns; `None`: they came with types.
    pub fn kinds(&self) -> Option<&ItemColumns> {
        self.kinds.as_ref()
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
