//! Where in the source's history something stands.

use super::{Gtid, GtidSet};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A place in a server's binlog: a file and the offset in bytes of an event's start.
///
/// Ordered by the number at the end of the file's name, then the offset; comparable only within one [`Lineage`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BinlogCoordinates {
    /// The file's name, as `binlog.000042`; shared, because every transaction of a file names it.
    #[serde(serialize_with = "write_shared", deserialize_with = "read_shared")]
    pub file: Arc<str>,
    /// Offset in bytes of the event's start in the file.
    pub offset: u64,
}

fn write_shared<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn read_shared<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    Ok(String::deserialize(deserializer)?.into())
}

impl BinlogCoordinates {
    /// The number at the end of the file's name; 0 where there is none.
    pub fn file_number(&self) -> u64 {
        self.file.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
    }
}

impl PartialOrd for BinlogCoordinates {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BinlogCoordinates {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.file_number(), self.offset, &self.file).cmp(&(other.file_number(), other.offset, &other.file))
    }
}

impl fmt::Display for BinlogCoordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// The server whose binlog coordinates are meant: MySQL's `server_uuid`; for MariaDB `server_id` as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub String);

/// How far the source has been read: everything before `coordinates`, which on the server `lineage` is `gtid_set`.
///
/// Always at a transaction's boundary. With GTIDs on, the set decides; else the coordinates, and only on the same server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// The server that the coordinates belong to.
    pub lineage: Lineage,
    /// The first byte not yet read.
    pub coordinates: BinlogCoordinates,
    /// All transactions read; `None` where the server has GTIDs off.
    pub gtid_set: Option<GtidSet>,
}

impl SourcePosition {
    /// For people, and for the lake's `binlake.position`: the GTID set, else file:offset.
    pub fn position_text(&self) -> String {
        match &self.gtid_set {
            Some(set) => set.to_string(),
            None => self.coordinates.to_string(),
        }
    }

    /// Whether all that lies before `other` lies before this position as well.
    pub fn has_passed(&self, other: &SourcePosition) -> bool {
        let gtids = match (&self.gtid_set, &other.gtid_set) {
            (Some(ours), Some(theirs)) => Some(theirs.is_subset(ours)),
            _ => None,
        };
        // coordinates count on the same server alone; a server may have written what its GTID set doesn't tell yet
        let is_same_server = self.lineage == other.lineage;
        match gtids {
            Some(passed) => passed && (!is_same_server || self.coordinates >= other.coordinates),
            None => is_same_server && self.coordinates >= other.coordinates,
        }
    }
}

/// The transaction that a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionStamp {
    /// Its GTID; `None` where the server has GTIDs off, and for rows of a snapshot.
    pub gtid: Option<Gtid>,
    /// Where the transaction starts in the binlog (its GTID event); for rows of a snapshot, the snapshot's point.
    pub coordinates: BinlogCoordinates,
    /// When the source committed it; for rows of a snapshot, when the snapshot was taken.
    pub source_commit_time: Timestamp,
    /// Whether the rows are a snapshot's (operation `r`).
    pub is_snapshot: bool,
}

impl TransactionStamp {
    /// The value of the lake's `_position`: the GTID, else file:offset.
    pub fn position_text(&self) -> String {
        match &self.gtid {
            Some(gtid) => gtid.to_string(),
            None => self.coordinates.to_string(),
        }
    }
}
