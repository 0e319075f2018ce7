//! What a record on the stream carries, and its bytes.
//!
//! A chunk's bytes are a *payload*, cut into parts of at most a record's size, each part under a [`ChunkHeader`]. The payload is a
//! *control frame* (the cut, as JSON; only where there is one) and a *body frame* (the sections; only where there are some), each a
//! zstd frame of its own, so that who looks for cuts doesn't unpack rows.
//!
//! A body is, unpacked:
//!
//! 1. four bytes: the directory's length;
//! 2. the directory: the lengths of each batch's Arrow message and Arrow body and what was done to its integers (`chunk/filter.rs`), the shapes of all tables in the chunk (JSON of [`TableSchema`]), the transactions that rows refer to
//!    (`chunk/transactions.rs`), and the sections with, for rows, operations, transactions and changed columns;
//! 3. from the next multiple of 64 on, for each batch of the sections: its Arrow IPC `RecordBatch` message (flatbuffer) and body, each padded
//!    to 64 bytes. The Arrow schema isn't there: it is [`TableSchema::arrow`] of the shape.

mod batch;
mod directory;
mod filter;
mod header;
mod payload;
mod transactions;
mod wire;

pub use header::ChunkHeader;
pub use payload::{ChunkPayload, MAX_CHUNK_BYTES};

use super::{ChangeBatch, Cut, TableId, TableSchema, TransactionStamp};
use crate::error::{Area, Error, Kind};
use arrow::array::RecordBatch;
use std::sync::Arc;

/// What one chunk says: sections in the order of the source, and perhaps a cut at its end.
#[derive(Debug, Clone, Default)]
pub struct ChunkContent {
    /// Rows and what happened to whole tables, in the order of the source.
    pub sections: Vec<Section>,
    /// The cut that ends the chunk.
    pub cut: Option<Arc<Cut>>,
}

/// A piece of a chunk. All but `Rows` are put on every lane.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "rows are the rule, and a section lives in a list of few")]
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

impl Section {
    /// The table that it is about.
    pub fn table(&self) -> &TableId {
        match self {
            Self::Rows(batch) => &batch.schema.table,
            Self::Truncate { table, .. } => table,
            Self::NewShape { schema, .. } => &schema.table,
        }
    }
}

/// The error of all damage to a chunk; who knows the lane, index and position adds them.
fn damaged(detail: &'static str) -> Error {
    Error::new(Area::Stream, Kind::Corrupt, "a chunk on the stream is damaged").with("detail", detail)
}
