//! Lanes: the fixed number of ordered queues of which a stream consists.

use super::TableId;
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One of a stream's lanes, counted from 0. All changes of one primary key travel on one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(pub u16);

impl Lane {
    /// The seed with which `table`'s keys are hashed: computed once per table.
    pub fn seed(table: &TableId) -> u64 {
        xxh3_64_with_seed(table.name().as_bytes(), xxh3_64_with_seed(table.database().as_bytes(), 0))
    }

    /// The lane of a row: `key` is the concatenation of its primary key's values in the encoding of the module that decodes them,
    /// which must be the same from the snapshot and from the binlog.
    pub fn of(seed: u64, key: &[u8], lanes: u16) -> Self {
        let hash = xxh3_64_with_seed(key, seed);
        Self(u16::try_from((u128::from(hash) * u128::from(lanes)) >> 64).unwrap_or(0))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a producer's tenure: each new producer of a stream takes the next one, by compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A record's place on its lane within one epoch: 0, 1, 2, … without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkIndex(pub u64);

impl ChunkIndex {
    /// The next index.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
