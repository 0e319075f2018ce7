//! Cuts: the points, on all lanes at once, at which a merger may commit.

use super::{SourcePosition, TableId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A cut's number: 1, 2, 3, … over the life of a stream, across epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CutNumber(pub u64);

impl fmt::Display for CutNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point at a transaction's boundary. The same cut is put on each lane, after all rows of the transactions that it covers,
/// and it holds all that a new producer needs to go on from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Its number.
    pub number: CutNumber,
    /// How far the source has been read.
    pub position: SourcePosition,
    /// When the source committed the last transaction before the cut (or sent the last heartbeat, if that is later).
    pub source_commit_time: Timestamp,
    /// The tables that the capture knows.
    pub tables: BTreeMap<TableId, TableState>,
}

/// Where a table stands at a cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TableState {
    /// Its rows up to the cut are all on the stream: a merger may commit.
    Live,
    /// Its snapshot is under way, or the binlog is not yet past the snapshot's last point: a merger collects, and commits nothing.
    Snapshot(SnapshotProgress),
    /// Stopped: events after `position` are not on the stream. Only a new snapshot (`binlake backfill --table`) brings it back.
    Stopped {
        /// The last position that the stream has whole.
        position: SourcePosition,
        /// Why, with the remedy: one line.
        reason: String,
    },
}

/// How far a table's snapshot is: enough to go on with it after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotProgress {
    /// The position at which the first chunk was read: from here the table's binlog events are needed.
    pub low_watermark: SourcePosition,
    /// The position at which the latest chunk was read: from here on the table is consistent.
    pub high_watermark: SourcePosition,
    /// The chunks: what remains to be read, as the snapshot module encodes them; empty when all were read.
    pub remaining_chunks: Vec<serde_json::Value>,
    /// Rows read so far.
    pub rows_read: u64,
}
