//! File groups and the files in them: `<file id>_<write token>_<instant>.parquet`.

use super::InstantTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The name of a file group: unique in its partition, and never used again once its group is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(String);

impl FileId {
    /// The id of a file group that is made by the first commit after `after` (`None`: the table's first commit) and starts with `first_key`
    /// (its encoding in the order of the group's keys).
    ///
    /// A commit that is tried again after a crash finds the same `after`, and so gives the same groups the same ids. That is a second line of
    /// defence only (what a crash leaves is deleted before the next commit): a left-over file that should come alive then lies *under*
    /// a newer slice of its own group instead of beside it. `after` keeps the ids of groups apart that begin with one key at different
    /// times: a replaced group's id must never come back, since readers leave out all files of a replaced id.
    pub fn derive(table: &str, partition_path: &str, after: Option<&InstantTime>, first_key: &[u8]) -> Self {
        let after = after.map_or("", InstantTime::as_str);
        let mut name = Vec::with_capacity(table.len() + partition_path.len() + after.len() + first_key.len() + 24);
        for part in [table.as_bytes(), partition_path.as_bytes(), after.as_bytes(), first_key] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part);
        }
        // the `-0` at the end is Hudi's counter of files a task
        Self(format!("{}-0", Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)))
    }

    /// An id that was read from the timeline or from a file's name: any text, since other writers choose their own.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One base file: the state of a file group since an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSlice {
    /// The partition's path below the table, without slashes at its ends; empty in an unpartitioned table.
    pub partition_path: String,
    /// The file group.
    pub file_id: FileId,
    /// The instant that wrote the file.
    pub instant: InstantTime,
    /// The file's name.
    pub file_name: String,
    /// The file's size in bytes.
    pub file_bytes: u64,
}

impl FileSlice {
    /// The name of a base file. `write_token` is three numbers joined by `-`, as `0-0-0`.
    pub fn name(file_id: &FileId, write_token: &str, instant: &InstantTime) -> String {
        format!("{file_id}_{write_token}_{instant}.parquet")
    }

    /// Reads a base file's name; `None` for any other file.
    pub fn parse(partition_path: &str, file_name: &str, file_bytes: u64) -> Option<Self> {
        let mut parts = file_name.strip_suffix(".parquet")?.rsplitn(3, '_');
        let instant = InstantTime::parse(parts.next()?)?;
        let _write_token = parts.next()?;
        let file_id = parts.next().filter(|id| !id.is_empty() && !id.starts_with('.'))?;
        Some(Self {
            partition_path: partition_path.to_owned(),
            file_id: FileId::from_stored(file_id),
            instant,
            file_name: file_name.to_owned(),
            file_bytes,
        })
    }

    /// The file's path below the table.
    pub fn path(&self) -> String {
        path_in_table(&self.partition_path, &self.file_name)
    }
}

/// `<partition path>/<name>`, or the name alone in an unpartitioned table.
pub fn path_in_table(partition_path: &str, name: &str) -> String {
    if partition_path.is_empty() { name.to_owned() } else { format!("{partition_path}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_derives_the_same_id_and_a_later_group_another() {
        let first = InstantTime::parse("20260101000000000").unwrap();
        let id = FileId::derive("shop.orders", "", Some(&first), b"k");
        assert_eq!(id, FileId::derive("shop.orders", "", Some(&first), b"k"));
        assert_ne!(id, FileId::derive("shop.orders", "", None, b"k"));
        assert_ne!(id, FileId::derive("shop.orders", "", Some(&first), b"l"));
        assert_ne!(FileId::derive("ab", "c", None, b""), FileId::derive("a", "bc", None, b""));
        assert_eq!(id.as_str().len(), 38);
    }

    #[test]
    fn names_of_base_files_and_back() {
        let name = "00000003-99a7-46fd-8bfa-f9ed80c85034-0_3-653-1527_20261121141620314.parquet";
        let slice = FileSlice::parse("day=1", name, 7).unwrap();
        assert_eq!(slice.file_id.as_str(), "00000003-99a7-46fd-8bfa-f9ed80c85034-0");
        assert_eq!(slice.instant.as_str(), "20261121141620314");
        assert_eq!(slice.path(), format!("day=1/{name}"));
        assert_eq!(FileSlice::name(&slice.file_id, "3-653-1527", &slice.instant), name);
        for other in [".hoodie_partition_metadata", "a.parquet", "a_b_c.parquet", "_0-0-0_20261121141620314.parquet"] {
            assert_eq!(FileSlice::parse("", other, 0), None, "{other}");
        }
    }
}
