//! `[lake]`: where the tables are and how they are written.

use crate::setting::{ByteSize, local_path, optional_duration};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// `[lake]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LakeConfig {
    /// Where it is: `file:./data/lake` or `s3://bucket/prefix?region=…&endpoint=…`.
    pub url: LakeUrl,
    /// How often a table with changes gets a commit. Default: 10 s for a folder, 60 s for S3.
    #[serde(deserialize_with = "optional_duration")]
    pub commit_interval: Option<Duration>,
    /// The size at which a base file is split.
    pub target_file_size: ByteSize,
    /// How many commits a reader can travel back, at least.
    pub retained_commits: usize,
    /// Bytes that the merge holds in memory before it spills sorted runs to `spill_dir`.
    pub memory: ByteSize,
    /// Where sorted runs are spilled.
    pub spill_dir: PathBuf,
    /// File groups that are rewritten at once. Default: the number of cores.
    pub rewrite_threads: Option<usize>,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            url: LakeUrl::File("./data/lake".into()),
            commit_interval: None,
            target_file_size: ByteSize(64 << 20),
            retained_commits: 20,
            memory: ByteSize(256 << 20),
            spill_dir: "./data/spill".into(),
            rewrite_threads: None,
        }
    }
}

impl LakeConfig {
    /// How often a table with changes gets a commit.
    pub fn commit_interval(&self) -> Duration {
        self.commit_interval.unwrap_or(match self.url {
            LakeUrl::File(_) => Duration::from_secs(10),
            LakeUrl::S3 { .. } => Duration::from_secs(60),
        })
    }

    /// File groups that are rewritten at once.
    pub fn rewrite_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.rewrite_threads.unwrap_or_else(cores).max(1)
    }
}

/// Where a lake is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LakeUrl {
    /// A folder.
    File(PathBuf),
    /// A prefix in a bucket of S3 or of a service that speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// The path below it, without slashes at its ends; may be empty.
        prefix: String,
        /// `region`, `endpoint`, `sse`, `role_arn`, …: what the URL says after `?`.
        options: BTreeMap<String, String>,
    },
}

impl std::fmt::Display for LakeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LakeUrl::File(path) => write!(f, "file:{}", path.display()),
            LakeUrl::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl TryFrom<String> for LakeUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = local_path(&text, "file") {
            return Ok(LakeUrl::File(path));
        }
        let wrong = || format!("`{text}` is not a lake's URL; write file:./data/lake or s3://bucket/prefix?region=…");
        let url = Url::parse(&text).map_err(|_| wrong())?;
        if url.scheme() != "s3" {
            return Err(wrong());
        }
        let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        let options: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        super::s3::check(&options)?;
        Ok(LakeUrl::S3 { bucket, prefix: url.path().trim_matches('/').to_owned(), options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = LakeUrl::try_from("s3://b/p/q/?region=eu-west-1&endpoint=http://127.0.0.1:9000".to_owned()).unwrap();
        let LakeUrl::S3 { bucket, prefix, options } = url else { panic!("not S3") };
        assert_eq!((bucket.as_str(), prefix.as_str()), ("b", "p/q"));
        assert_eq!(options["endpoint"], "http://127.0.0.1:9000");
        assert_eq!(LakeUrl::try_from("file:/lake".to_owned()), Ok(LakeUrl::File("/lake".into())));
        for wrong in ["lake", "s3:", "gs://b/p", "s3://b/p?regoin=x"] {
            assert!(LakeUrl::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
