//! A row's change as the formats see it, and what a record says.

use super::cell::Cell;
use super::chunk_record::ChunkRecord;
use super::mark::Mark;
use crate::event::{Operation, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use serde_json::{Map, Value};

/// A row: a cell a column.
pub(super) type Row<'a> = Vec<Cell<'a>>;

/// A change of one row, to be written.
#[derive(Debug)]
pub struct Change<'a> {
    /// The table's shape.
    pub schema: &'a TableSchema,
    /// What happened.
    pub operation: Operation,
    /// In which transaction.
    pub stamp: &'a TransactionStamp,
    /// The row before: of deletes, and of updates where it is known.
    pub before: Option<Row<'a>>,
    /// The row after: of all but deletes.
    pub after: Option<Row<'a>>,
    /// The record's place.
    pub mark: Mark,
    /// The number of the row among those of its transaction on its lane, from 1.
    pub number: u64,
    /// The number among those of its table in the transaction on its lane, from 1.
    pub number_of_table: u64,
    /// The transaction before on the lane, and its rows there.
    pub previous: Option<(&'a TransactionStamp, u64)>,
    /// When the record is made.
    pub made_at: Timestamp,
}

/// A row as a record has it: values by column name.
pub type RowImage = Map<String, Value>;

/// What one record says.
#[derive(Debug)]
pub enum DecodedRecord {
    /// A row has changed.
    Row {
        /// The place that Binlake gave it; `None`: another system wrote it.
        mark: Option<Mark>,
        /// The table.
        table: TableId,
        /// What happened.
        operation: Operation,
        /// In which transaction, as far as the record says.
        stamp: TransactionStamp,
        /// The row before, or the columns of it that the format gives.
        before: Option<RowImage>,
        /// The row after; of a delete what the format gives of the row.
        after: Option<RowImage>,
    },
    /// All rows of the table are gone.
    Truncate {
        /// The place that Binlake gave it.
        mark: Option<Mark>,
        /// The table.
        table: TableId,
        /// In which transaction.
        stamp: TransactionStamp,
    },
    /// The table has another shape.
    Shape {
        /// The place that Binlake gave it.
        mark: Option<Mark>,
        /// The shape as Binlake knows it; `None`: another system's words were not understood.
        schema: Option<TableSchema>,
        /// What existing rows have in new columns, as DMS writes values.
        fill: Option<RowImage>,
        /// In which transaction.
        stamp: TransactionStamp,
    },
    /// All of these, one after the other.
    Several(Vec<DecodedRecord>),
    /// The end of a chunk of Binlake's.
    Chunk(Box<ChunkRecord>),
    /// Nothing about a row: a tombstone, a transaction's begin or end, a heartbeat.
    Nothing,
}
