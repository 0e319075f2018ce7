//! What a commit carries beside its rows: how far stream and source are in the table.

use super::Committed;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{BinlogCoordinates, CutNumber, CutPoint, Epoch, GtidSet, SourcePosition, TableSchema};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key in `extraMetadata` of the [`Checkpoint`]'s JSON.
pub const CHECKPOINT_KEY: &str = "binlake.checkpoint";
/// The key in `extraMetadata` of the source's position as text, for people.
pub const POSITION_KEY: &str = "binlake.position";
/// The key in `extraMetadata` that says that the rows are what a transform made of the source's: who writes the table beside Binlake can't make them.
pub const TRANSFORMED_KEY: &str = "binlake.transformed";

/// The key in `extraMetadata` of what marks the expressions by which a table is partitioned, where it is by computed columns.
pub const PARTITIONED_KEY: &str = "binlake.partitioned";

/// The key in `extraMetadata` of a history that says since which system time it has every change.
pub const HISTORY_START_KEY: &str = "binlake.history_start";

/// The key in `extraMetadata` of a child table that says whose child it is: [`ChildClaim`](super::ChildClaim).
pub const CHILD_KEY: &str = "binlake.child";

const VERSION: u32 = 1;

/// How far a table is. A sample of each version is in `tests/data/state/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    /// The stream that the rest is about.
    pub stream_id: String,
    /// The epoch of the cut at which the commit was made: the table has all of the stream up to it.
    pub epoch: Epoch,
    /// The cut's number.
    pub cut: CutNumber,
    /// Where to read on; `None`: from the stream's beginning.
    pub resume: Option<Resume>,
    /// The source's position at the cut.
    pub position: SourcePosition,
    /// When the source committed the last transaction before the cut.
    pub source_commit_time: Timestamp,
    /// The source's shape of the table.
    pub source_schema: TableSchema,
    /// `complete`: all rows of the source's table up to `position` are in the table.
    pub snapshot: SnapshotStage,
    /// Of a table with a history: the system time of the last transaction that both have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_time: Option<Timestamp>,
    /// Of a table with children that are at the same commit: a checksum of what was declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<u32>,
    /// Of the lookups whose changed items change rows that are there already: the marks of the items that all rows have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lookups: BTreeMap<String, String>,
    /// Commits since that brought nothing new of the stream.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub amended: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// From here on the stream has all that the pipeline's tables lacked when the checkpoint was written, those without a commit, too:
/// a cut that is the table's own or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The cut's epoch.
    pub epoch: Epoch,
    /// The cut's number.
    pub cut: CutNumber,
    /// The log's position behind it.
    pub log_position: String,
}

impl Resume {
    /// The cut.
    pub fn point(&self) -> CutPoint {
        CutPoint { epoch: self.epoch, number: self.cut }
    }
}

/// Whether a table has all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStage {
    /// All.
    Complete,
}

impl Checkpoint {
    /// The checkpoint of a commit at a cut.
    pub fn new(
        stream_id: impl Into<String>,
        at: CutPoint,
        resume: Option<Resume>,
        position: SourcePosition,
        source_commit_time: Timestamp,
        source_schema: TableSchema,
    ) -> Self {
        Self {
            version: VERSION,
            stream_id: stream_id.into(),
            epoch: at.epoch,
            cut: at.number,
            resume,
            position,
            source_commit_time,
            source_schema,
            snapshot: SnapshotStage::Complete,
            system_time: None,
            children: None,
            lookups: BTreeMap::new(),
            amended: 0,
        }
    }

    /// The same after a commit that brought nothing new of the stream, whose rows have the lookups' items with these marks: what follows the table lacks it.
    #[must_use]
    pub fn amended(&self, lookups: BTreeMap<String, String>) -> Self {
        Self { lookups, amended: self.amended + 1, system_time: None, children: None, ..self.clone() }
    }

    /// The cut at which the commit was made.
    pub fn at(&self) -> CutPoint {
        CutPoint { epoch: self.epoch, number: self.cut }
    }

    /// What the table has, for who reads the stream `stream_id`.
    pub fn committed(&self, stream_id: &str) -> Committed {
        Committed {
            at: (self.stream_id == stream_id).then(|| self.at()),
            position: self.position.clone(),
            schema: Arc::new(self.source_schema.clone()),
        }
    }

    /// The source's position for people: the GTID set, else file:offset.
    pub fn position_text(&self) -> String {
        self.position.position_text()
    }

    /// Whether all of `position` is in the table: a GTID, a GTID set, or file:offset (which is believed to be of the same server).
    /// `None`: the text is no position, or of another kind than the table's.
    pub fn covers(&self, position: &str) -> Option<bool> {
        if let Some(committed) = &self.position.gtid_set {
            let asked: GtidSet = position.parse().ok()?;
            return (!asked.is_empty()).then(|| asked.is_subset(committed));
        }
        let (file, offset) = position.rsplit_once(':')?;
        let asked = BinlogCoordinates { file: file.into(), offset: offset.parse().ok()? };
        // a row's position is its transaction's start, a commit's the first byte not read
        (asked.file_number() > 0).then(|| asked < self.position.coordinates)
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("a checkpoint can't be written").caused_by(error))
    }

    /// From JSON.
    ///
    /// # Errors
    /// `Refused` for a version that this program doesn't know, `Corrupt` for what is no checkpoint.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let corrupt = |error: serde_json::Error| {
            Error::new(Area::Lake, Kind::Corrupt, "the checkpoint in the table's last commit can't be read").caused_by(error)
        };
        let Versioned { version } = serde_json::from_str(text).map_err(corrupt)?;
        if version != VERSION {
            return Err(Error::new(
                Area::Lake,
                Kind::Refused,
                "the checkpoint in the table's last commit is of a version that is not known",
            )
            .with("version", version)
            .remedy("run the version of binlake that wrote it, or a newer one"));
        }
        serde_json::from_str(text).map_err(corrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_version_1_is_read_and_written_alike() {
        let sample = include_str!("../../tests/data/state/checkpoint-v1.json");
        let checkpoint = Checkpoint::from_json(sample).unwrap();
        assert_eq!(checkpoint.at(), CutPoint { epoch: Epoch(2), number: CutNumber(1234) });
        assert_eq!(checkpoint.to_json().unwrap(), sample.trim());
    }

    #[test]
    fn a_position_is_covered_or_not_or_no_position() {
        let sample = include_str!("../../tests/data/state/checkpoint-v1.json");
        let mut checkpoint = Checkpoint::from_json(sample).unwrap();
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        checkpoint.position.gtid_set = Some(format!("{uuid}:1-77").parse().unwrap());
        assert_eq!(checkpoint.covers(&format!("{uuid}:77")), Some(true));
        assert_eq!(checkpoint.covers(&format!("{uuid}:70-78")), Some(false));
        assert_eq!(checkpoint.covers("yesterday"), None);
        assert_eq!(checkpoint.covers(""), None);
        checkpoint.position.gtid_set = None;
        checkpoint.position.coordinates = BinlogCoordinates { file: "binlog.000007".into(), offset: 157 };
        assert_eq!(checkpoint.covers("binlog.000007:4"), Some(true));
        assert_eq!(checkpoint.covers("binlog.000007:157"), Some(false));
        assert_eq!(checkpoint.covers("2026:1"), None);
    }

    #[test]
    fn an_unknown_version_is_refused_and_damage_is_corrupt() {
        assert_eq!(Checkpoint::from_json(r#"{"version":9}"#).unwrap_err().kind(), Kind::Refused);
        assert_eq!(Checkpoint::from_json(r#"{"version":1}"#).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(Checkpoint::from_json("").unwrap_err().kind(), Kind::Corrupt);
    }
}
