//! The JSON of a completed commit (Hudi's `HoodieCommitMetadata` and `HoodieReplaceCommitMetadata`).

use super::{FileId, WriteStat};
use crate::error::{Area, Error, Kind, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The key of `extraMetadata` under which the table's Avro schema lies.
pub(super) const SCHEMA_KEY: &str = "schema";

/// What a commit says. Read leniently: other writers leave out what does not apply, and add keys of their own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CommitMetadata {
    /// The files written, by partition path.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) partition_to_write_stats: BTreeMap<String, Vec<WriteStat>>,
    /// Of merge-on-read tables: false.
    pub(super) compacted: bool,
    /// The Avro schema, and what writers want to remember.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) extra_metadata: BTreeMap<String, Option<String>>,
    /// As Hudi calls it: UPSERT, INSERT_OVERWRITE_TABLE, …
    pub(super) operation_type: Option<String>,
    /// The file groups that ended, by partition path; only in a replacecommit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition_to_replace_file_ids: Option<BTreeMap<String, Vec<FileId>>>,
}

impl CommitMetadata {
    /// What a commit says that wrote the files `stats`, and ended the file groups `replaced`, if it may end any.
    pub(super) fn of(
        stats: &[WriteStat],
        replaced: Option<BTreeMap<String, Vec<FileId>>>,
        operation: &str,
        extra: BTreeMap<String, String>,
    ) -> Self {
        let mut by_partition: BTreeMap<String, Vec<WriteStat>> = BTreeMap::new();
        for stat in stats {
            by_partition.entry(stat.partition_path.clone()).or_default().push(stat.clone());
        }
        Self {
            partition_to_write_stats: by_partition,
            compacted: false,
            extra_metadata: extra.into_iter().map(|(key, value)| (key, Some(value))).collect(),
            operation_type: Some(operation.to_owned()),
            partition_to_replace_file_ids: replaced,
        }
    }

    /// Reads a completed instant's file.
    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::new(Area::Lake, Kind::Corrupt, "a completed commit is empty")
                .with("path", path)
                .remedy("restore the file, or roll the commit back with Hudi's own tools"));
        }
        serde_json::from_slice(bytes).map_err(|error| {
            Error::new(Area::Lake, Kind::Corrupt, "a completed commit is no commit JSON").caused_by(error).with("path", path)
        })
    }

    /// The file's bytes.
    pub(super) fn render(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::bug("a commit can't be written as JSON").caused_by(error))
    }

    /// A value of `extraMetadata`.
    pub(super) fn extra(&self, key: &str) -> Option<&str> {
        self.extra_metadata.get(key)?.as_deref()
    }

    /// All stats, with their partition paths.
    pub(super) fn stats(&self) -> impl Iterator<Item = (&str, &WriteStat)> {
        self.partition_to_write_stats.iter().flat_map(|(partition, stats)| stats.iter().map(|stat| (partition.as_str(), stat)))
    }

    /// The file groups that ended, with their partition paths.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (&str, &FileId)> {
        let replaced = self.partition_to_replace_file_ids.iter().flatten();
        replaced.flat_map(|(partition, ids)| ids.iter().map(|id| (partition.as_str(), id)))
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{InstantTime, RuntimeStats};

    /// What Spark wrote (`ops.zip`), shortened to one file.
    const SPARKS: &str = r#"{
  "partitionToWriteStats" : {
    "sport_type=baseball" : [ {
      "fileId" : "00000003-bc53-43b0-90e7-79c2628d7b44-0",
      "path" : "sport_type=baseball/00000003-bc53-43b0-90e7-79c2628d7b44-0_3-54-189_20261121142007689.parquet",
      "cdcStats" : null, "prevCommit" : "20261121141909428", "numWrites" : 2, "numDeletes" : 0, "numUpdateWrites" : 0, "numInserts" : 2,
      "totalWriteBytes" : 437540, "totalWriteErrors" : 0, "tempPath" : null, "partitionPath" : "sport_type=baseball",
      "totalLogRecords" : 0, "totalLogFilesCompacted" : 0, "totalLogSizeCompacted" : 0, "totalUpdatedRecordsCompacted" : 0,
      "totalLogBlocks" : 0, "totalCorruptLogBlock" : 0, "totalRollbackBlocks" : 0, "fileSizeInBytes" : 437540,
      "minEventTime" : null, "maxEventTime" : null,
      "runtimeStats" : { "totalScanTime" : 0, "totalUpsertTime" : 0, "totalCreateTime" : 225 }
    } ]
  },
  "compacted" : false,
  "extraMetadata" : { "schema" : "{}" },
  "operationType" : "INSERT_OVERWRITE",
  "partitionToReplaceFileIds" : { "sport_type=baseball" : [ "a-0", "b-0" ] }
}"#;

    #[test]
    fn what_spark_wrote_and_back() {
        let commit = CommitMetadata::parse(SPARKS.as_bytes(), "x").unwrap();
        let (partition, stat) = commit.stats().next().unwrap();
        assert_eq!((partition, stat.num_writes), ("sport_type=baseball", 2));
        assert_eq!(stat.prev_commit, InstantTime::parse("20261121141909428"));
        assert_eq!(stat.runtime_stats, Some(RuntimeStats { total_create_time: 225, ..RuntimeStats::default() }));
        assert_eq!(commit.replaced().count(), 2);
        let ours: serde_json::Value = serde_json::from_slice(&commit.render().unwrap()).unwrap();
        let sparks: serde_json::Value = serde_json::from_str(SPARKS).unwrap();
        assert_eq!(ours, sparks);
    }

    #[test]
    fn a_new_file_group_has_the_text_null_as_its_earlier_commit() {
        let stat = WriteStat { file_id: Some(FileId::from_stored("a-0")), ..WriteStat::default() };
        let mut commit = CommitMetadata::default();
        commit.partition_to_write_stats.insert(String::new(), vec![stat]);
        let text = String::from_utf8(commit.render().unwrap()).unwrap();
        assert!(text.contains(r#""prevCommit": "null""#), "{text}");
        assert!(!text.contains("partitionToReplaceFileIds"));
        assert_eq!(CommitMetadata::parse(text.as_bytes(), "x").unwrap(), commit);
    }

    #[test]
    fn a_damaged_commit_is_corrupt() {
        for bytes in [&b""[..], b"{", b"7"] {
            assert_eq!(CommitMetadata::parse(bytes, ".hoodie/x.commit").unwrap_err().kind(), Kind::Corrupt);
        }
        assert_eq!(CommitMetadata::parse(b"{}", "x").unwrap(), CommitMetadata::default());
    }
}
