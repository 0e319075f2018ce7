//! ① What travels from the source to the lake: changes in columns, the shape of their table, and where they come from.
//!
//! Nothing here does I/O or reads a clock.
//!
//! - [`TableId`], [`TableSchema`], [`Column`]: a source table and its shape at one moment.
//! - [`Gtid`], [`GtidSet`], [`BinlogCoordinates`], [`SourcePosition`]: where in the source's history.
//! - [`ChangeBatch`]: changes of one table as Arrow columns; [`TransactionStamp`] says which transaction each row belongs to.
//! - [`ValuePolicies`]: what becomes of values that the lake can't hold.
//! - [`Lane`], [`Cut`], [`Section`], [`ChunkContent`]: what a record on the stream carries; `chunk` has its bytes.

mod change;
mod chunk;
mod cut;
mod gtid;
mod lane;
mod policy;
mod position;
mod row_json;
#[cfg(test)]
pub(crate) mod sample;
mod schema;
mod table_id;

pub use change::{ChangeBatch, ChangedColumns, Operation};
pub use chunk::{ChunkContent, ChunkHeader, ChunkPayload, MAX_CHUNK_BYTES, Section};
pub use cut::{Cut, CutNumber, CutPoint, CutRules, KeyRange, SnapshotProgress, TableState};
pub use gtid::{Gtid, GtidSet};
pub use lane::{ChunkIndex, Epoch, Lane};
pub use policy::{InvalidText, ValuePolicies, ZeroDates};
pub use position::{BinlogCoordinates, Lineage, SourcePosition, TransactionStamp};
pub use row_json::row_values;
pub use schema::{Column, SourceType, TableSchema};
pub use table_id::TableId;
