//! Cuts: the points, on all lanes at once, at which a merger may commit.

use super::{Epoch, SourcePosition, TableId, TableSchema};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A cut's number: 1, 2, 3, … over the life of a stream, across epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CutNumber(pub u64);

impl CutNumber {
    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for CutNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One cut among those of all producers: two producers may each have made a cut of one number, when the later one resumed before it.
///
/// Ordered as a consumer reaches them: a later producer's cuts come after all of an earlier one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct CutPoint {
    /// The producer that made it.
    pub epoch: Epoch,
    /// Its number.
    pub number: CutNumber,
}

impl std::str::FromStr for CutPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (epoch, number) = text.split_once('/')?;
            Some(Self { epoch: Epoch(epoch.parse().ok()?), number: CutNumber(number.parse().ok()?) })
        };
        parse().ok_or_else(|| format!("`{text}` is no cut"))
    }
}

impl fmt::Display for CutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.number)
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
    /// All that the source had committed by this time, of the capture's clock, is before the cut. `None`: nobody can know, as others write the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_until: Option<Timestamp>,
    /// The tables that the capture knows.
    pub tables: BTreeMap<TableId, TableState>,
    /// The tables' shapes at the cut: the events behind it are read with these, and a change is noticed by them.
    #[serde(default)]
    pub schemas: BTreeMap<TableId, TableSchema>,
    /// The rules in force behind this cut; `None`: those with which the pipeline began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<CutRules>,
}

/// A revision of a pipeline's rules, as the cuts name it from the one on at which it took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutRules {
    /// Its number among the pipeline's revisions.
    pub revision: u64,
    /// The cut at which it took effect: rows up to it are of the revision before, rows behind it of this one. `0/0`: the stream began with it.
    pub since: CutPoint,
    /// The lake of the pipeline: who brings the stream to another lake has rules of his own.
    pub lake: String,
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
    /// What remains to be read, in the order of the key; empty when all was read.
    pub remaining_chunks: Vec<KeyRange>,
    /// The rows that are wanted, as an SQL condition; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Rows read so far.
    pub rows_read: u64,
    /// The server's estimate of all rows, for showing progress.
    #[serde(default)]
    pub estimated_rows: u64,
}

/// A range of a table's rows in the order of the index that its snapshot is split by: a chunk, or what is still to be split into chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The index's leading columns. Empty: the range is the whole table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The range begins after this key: an SQL literal for each of `columns`, so that the server's collation decides; `None`: at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// The range ends with this key, inclusive; `None`: at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Vec<String>>,
    /// Whether it may hold more rows than a chunk and is split further before it is read.
    #[serde(default)]
    pub unsplit: bool,
}

impl KeyRange {
    /// All of a table.
    pub fn whole() -> Self {
        Self { columns: Vec::new(), after: None, through: None, unsplit: true }
    }
}
