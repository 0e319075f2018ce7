//! What a commit says about each file that it wrote.

use super::{FileId, InstantTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One written file, with the names that Hudi's commit JSON has (`HoodieWriteStat`).
///
/// Read leniently: other writers leave out, or set to null, what does not apply.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteStat {
    /// The file group.
    pub file_id: Option<FileId>,
    /// The file's path below the table.
    pub path: Option<String>,
    /// Hudi's change data capture: never used by us.
    pub cdc_stats: Option<serde_json::Value>,
    /// The instant of the file that this one replaces; `None` (stored as the text `null`) for a new file group.
    #[serde(serialize_with = "write_prev_commit", deserialize_with = "read_prev_commit")]
    pub prev_commit: Option<InstantTime>,
    /// Rows in the new file.
    pub num_writes: u64,
    /// Rows that were deleted.
    pub num_deletes: u64,
    /// Rows that were updated.
    pub num_update_writes: u64,
    /// Rows that were inserted.
    pub num_inserts: u64,
    /// Bytes written.
    pub total_write_bytes: u64,
    /// Rows that could not be written: ours are always 0.
    pub total_write_errors: u64,
    /// Where the file was written first: never used by us.
    pub temp_path: Option<String>,
    /// The partition's path.
    #[serde(deserialize_with = "null_as_default")]
    pub partition_path: String,
    /// Of merge-on-read tables: 0.
    pub total_log_records: u64,
    /// Of merge-on-read tables: 0.
    pub total_log_files_compacted: u64,
    /// Of merge-on-read tables: 0.
    pub total_log_size_compacted: u64,
    /// Of merge-on-read tables: 0.
    pub total_updated_records_compacted: u64,
    /// Of merge-on-read tables: 0.
    pub total_log_blocks: u64,
    /// Of merge-on-read tables: 0.
    pub total_corrupt_log_block: u64,
    /// Of merge-on-read tables: 0.
    pub total_rollback_blocks: u64,
    /// The file's size in bytes.
    pub file_size_in_bytes: u64,
    /// Never used by us.
    pub min_event_time: Option<i64>,
    /// Never used by us.
    pub max_event_time: Option<i64>,
    /// How long it took.
    pub runtime_stats: Option<RuntimeStats>,
}

/// How long the writing of a file took, in milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeStats {
    /// Reading logs: 0.
    pub total_scan_time: u64,
    /// Rewriting an existing file.
    pub total_upsert_time: u64,
    /// Writing a new file.
    pub total_create_time: u64,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Hudi writes the text `null` where there is no earlier file.
fn write_prev_commit<S: Serializer>(prev: &Option<InstantTime>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(prev.as_ref().map_or("null", InstantTime::as_str))
}

fn read_prev_commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InstantTime>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(InstantTime::parse))
}
