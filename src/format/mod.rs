//! Other systems' records: what AWS DMS and Debezium write, plain JSON, and the producer library's aggregates around them. No I/O and no clock.
//!
//! Sections become records and come back:
//!
//! - [`RecordFormat`]: which of them a stream has; [`ChunkTranslator`] makes a chunk's records, [`RecordAssembly`] puts chunks together again
//!   from what Binlake wrote, so that all that [`crate::stream`] promises holds for these formats too;
//! - [`ForeignDecoder`]: others' records, without marks and cuts of ours, become rows, or dead letters; `changes`: what change records say of their tables;
//!   `evolve`: what a table's shape becomes;
//! - `dms`, `debezium`, `plain`: the formats' own shapes; `cell`, `number`, `clock`: their values, exactly; `kpl`: aggregated records;
//!   `large`: records that are larger than the stream's may be.
//!
//! **Marks.** Each record of a chunk has a [`Mark`]: in `metadata.binlake` (DMS) or `source.sequence` (Debezium). Behind the last stands the chunk's own
//! record, which begins with `{"binlake":`: its header, the shapes of its tables, on lane 0 its cut, and a checksum over all its marked records.
//! Consumers of the format pass over that record: it has no table. A chunk counts when its own record is there: then the rows become sections.

mod assembly;
mod cell;
mod changes;
mod chunk_record;
mod clock;
mod debezium;
mod dms;
mod evolve;
mod foreign;
mod kpl;
mod large;
mod mark;
mod number;
mod plain;
mod row;
mod sections;
mod translate;

#[cfg(test)]
mod tests;

pub use assembly::RecordAssembly;
pub use cell::{Cell, CellColumns, row_of};
pub use changes::{ChangeTable, ChangeTables};
pub use chunk_record::ChunkRecord;
pub use debezium::DebeziumOptions;
pub use foreign::{
    DEAD_LETTERS, ForeignBatch, ForeignDecoder, ForeignFormat, ForeignRecord, KnownLetters, dead_letter_schema, dead_letter_table,
};
pub use kpl::{UserRecord, aggregate, deaggregate, is_aggregated};
pub use large::ClaimCheck;
pub use mark::Mark;
pub use plain::{
    BadValues, ChildSpec, ChildSpecs, ChildTable, ColumnSpec, DeclaredColumns, Element, INDEX, PlainColumn, PlainTable, PlainType,
    Unreadable, declare_lists, narrowest,
};
pub use row::{Change, DecodedRecord, RowImage};
pub use translate::ChunkTranslator;

use crate::error::{Area, Error, Kind};
use std::sync::Arc;

/// What the records of a stream are, other than Binlake's own chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFormat {
    /// Their JSON.
    pub dialect: Dialect,
    /// Whether the producer library's aggregated records hold them.
    pub is_aggregated: bool,
}

/// Whose JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// AWS DMS's for Kinesis.
    Dms,
    /// Debezium's for MySQL.
    Debezium(Arc<DebeziumOptions>),
}

/// The error of records that contradict themselves or each other.
fn damaged(detail: &'static str) -> Error {
    Error::new(Area::Stream, Kind::Corrupt, "a record on the stream is damaged").with("detail", detail)
}
