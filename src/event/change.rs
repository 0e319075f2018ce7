//! Changes of one table, in columns.

use super::{TableSchema, TransactionStamp};
use arrow::array::{FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt32Array};
use std::sync::Arc;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Inserted.
    Create = b'c',
    /// Updated; the key stayed. (An update that changes the key, or a column that the lake partitions by, is a delete and a create.)
    Update = b'u',
    /// Deleted; the row has the before image.
    Delete = b'd',
    /// Read by a snapshot.
    Read = b'r',
}

impl Operation {
    /// From its letter.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            b'c' => Some(Self::Create),
            b'u' => Some(Self::Update),
            b'd' => Some(Self::Delete),
            b'r' => Some(Self::Read),
            _ => None,
        }
    }

    /// Its letter: `c`, `u`, `d`, `r`.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Which columns an update changed: one bit a column (column i is bit `i % 8` of byte `i / 8`), null where the row is no update.
pub type ChangedColumns = FixedSizeBinaryArray;

/// Changes of one table with one shape, in the order of the source.
///
/// All arrays have one length. `rows` holds the after image, for a delete the before image.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The table's shape; `rows` has `schema.arrow()`.
    pub schema: Arc<TableSchema>,
    /// The source's columns.
    pub rows: RecordBatch,
    /// An [`Operation`]'s code a row.
    pub operations: UInt8Array,
    /// Index of the row's transaction in `transactions`; never falls from one row to the next.
    pub stamps: UInt32Array,
    /// The transactions, in the order of the source.
    pub transactions: Arc<Vec<TransactionStamp>>,
    /// Which columns each update changed; `None` if it isn't known for any row.
    pub changed: Option<ChangedColumns>,
    /// The before images of the updates alone, in their order; only where the stream's format wants them. Binlake's own chunks leave them out.
    pub before: Option<RecordBatch>,
}

impl ChangeBatch {
    /// Rows in the batch.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
