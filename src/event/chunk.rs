//! What a record on the stream carries, and its bytes.

use super::{ChangeBatch, Cut, CutNumber, TableId, TableSchema, TransactionStamp};
use arrow::array::RecordBatch;
use std::sync::Arc;

/// What one chunk says: sections in the order of the source, and perhaps a cut at its end.
#[derive(Debug, Clone, Default)]
pub struct ChunkContent {
    /// A new producer's first record on a lane: the cut from which it resumes. What earlier epochs put behind that cut is void.
    pub resumes_from: Option<CutNumber>,
    /// Rows and what happened to whole tables, in the order of the source.
    pub sections: Vec<Section>,
    /// The cut that ends the chunk.
    pub cut: Option<Cut>,
}

/// A piece of a chunk. All but `Rows` are put on every lane.
#[derive(Debug, Clone)]
pub enum Section {
    /// Changed rows of one table.
    Rows(ChangeBatch),
    /// All rows of the table that came before are gone: TRUNCATE, DROP, or a snapshot that begins anew.
    Truncate {
        /// The table.
        table: TableId,
        /// The transaction that did it.
        stamp: TransactionStamp,
    },
    /// The table has a new shape from here on.
    NewShape {
        /// The shape.
        schema: Arc<TableSchema>,
        /// One row: for each added column whose existing rows are not NULL, the value that they have.
        fill: Option<RecordBatch>,
        /// The transaction that did it.
        stamp: TransactionStamp,
    },
}
