//! Stream, lake and state: can they be read and written?

use crate::config::Config;
use crate::error::Result;
use crate::event::SourcePosition;
use crate::pipeline::open_stream_to_read;
use crate::publish::{CatalogConfig, GlueCatalog};
use crate::source::Finding;
use crate::state::{StateConfig, StateStore, StateUrl};
use crate::stream::kinesis::{KinesisStream, KinesisUrl};
use crate::stream::{StreamUrl, find_last_cut};
use crate::table::{Lake, LakeUrl};
use object_store::path::Path as StorePath;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::path::Path;

/// The stream, and the position up to which the source was read.
pub(super) async fn check_stream(config: &Config) -> (Vec<Finding>, Option<SourcePosition>) {
    let mut findings = match &config.stream.url {
        StreamUrl::File(folder) => vec![ensure_writable(folder)],
        StreamUrl::Kinesis(url) => match describe_kinesis(url).await {
            Ok(described) => vec![described],
            // what follows would say the same
            Err(error) => return (vec![Finding::from_error("stream", &error)], None),
        },
    };
    let found = match open_stream_to_read(config).await {
        Ok(None) => {
            findings.push(Finding::ok("content", "none yet: the first run begins with a snapshot"));
            return (findings, None);
        }
        Ok(Some(log)) => find_last_cut(log.as_ref()).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => {
            let position = found.cut.map(|(_, cut)| cut.position.clone());
            let said = position
                .as_ref()
                .map_or_else(|| "no whole cut yet".to_owned(), |position| format!("read up to {}", position.coordinates));
            findings.push(Finding::ok("content", said));
            (findings, position)
        }
        Err(error) => {
            findings.push(Finding::from_error("content", &error));
            (findings, None)
        }
    }
}

/// A stream that can be reached, or that will be made.
pub(super) async fn describe_kinesis(url: &KinesisUrl) -> Result<Finding> {
    const SUBJECT: &str = "stream";
    const LEAST_RETENTION: std::time::Duration = std::time::Duration::from_secs(48 * 3600);
    let Some(stream) = KinesisStream::open(url, false).await? else {
        return Ok(match url.create {
            Some(_) => Finding::ok(SUBJECT, "doesn't exist yet, and will be made"),
            None => Finding::failure(
                SUBJECT,
                "doesn't exist",
                "make it, or add create=4 to the URL for four shards (create=on-demand: as many as it needs)",
            ),
        });
    };
    let hours = stream.retention().as_secs() / 3600;
    let kib = stream.most_record_bytes().div_ceil(1024);
    let said = format!("active, {} shards, keeps records for {hours} hours, records of up to {kib} KiB", stream.open_shards());
    if stream.retention() < LEAST_RETENTION {
        return Ok(Finding::warning(
            SUBJECT,
            said,
            "raise the retention above the longest time that merging may stand still: aws kinesis increase-stream-retention-period",
        ));
    }
    Ok(Finding::ok(SUBJECT, said))
}

/// The catalog: can its databases be read.
pub(super) async fn check_catalog(config: &CatalogConfig) -> Vec<Finding> {
    let checked = match GlueCatalog::open(config).await {
        Ok(catalog) => catalog.check().await,
        Err(error) => Err(error),
    };
    vec![match checked {
        Ok(()) => Finding::ok("access", "can be read; the right to write shows with the first table"),
        Err(error) => Finding::from_error("access", &error),
    }]
}

/// The state store.
pub(super) async fn check_state(config: &StateConfig) -> Vec<Finding> {
    match &config.url {
        StateUrl::Sqlite(file) => {
            vec![ensure_writable(file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))]
        }
        // looks at the tables, and makes them as the first run would
        StateUrl::DynamoDb(_) => match StateStore::open(config).await {
            Ok(_) => vec![Finding::ok("tables", "are there, with the right keys")],
            Err(error) => vec![Finding::from_error("tables", &error)],
        },
    }
}

/// The lake: an object is made, made again (which must be refused), read and removed.
pub(super) async fn check_lake(url: &LakeUrl) -> Vec<Finding> {
    if let LakeUrl::File(folder) = url {
        let writable = ensure_writable(folder);
        if !folder.exists() || writable.verdict == crate::source::Verdict::Failure {
            return vec![writable];
        }
    }
    match Lake::open(url) {
        Ok(lake) => vec![ensure_create_if_absent(&lake).await, count_tables(&lake).await],
        Err(error) => vec![Finding::from_error("access", &error)],
    }
}

async fn count_tables(lake: &Lake) -> Finding {
    match lake.tables().await {
        Ok(tables) => Finding::ok("tables", tables.len().to_string()),
        Err(error) => Finding::from_error("tables", &error),
    }
}

/// Commits rest on it: of two writers of one name, one is refused.
async fn ensure_create_if_absent(lake: &Lake) -> Finding {
    const SUBJECT: &str = "access";
    let name = format!("_binlake_doctor_{}", uuid::Uuid::new_v4());
    let path = StorePath::from_iter(lake.root().parts().chain([name.as_str().into()]));
    let create = || lake.store().put_opts(&path, PutPayload::from_static(b"x"), PutOptions::from(PutMode::Create));
    let outcome = async {
        create().await?;
        let again = create().await;
        lake.store().get(&path).await?.bytes().await?;
        lake.store().delete(&path).await?;
        Ok::<_, object_store::Error>(again)
    };
    match outcome.await {
        Ok(Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })) => {
            Finding::ok(SUBJECT, "can be read and written, create-if-absent works")
        }
        Ok(_) => Finding::failure(
            SUBJECT,
            "the store doesn't refuse to create what exists: two writers could overwrite each other",
            "use a store with conditional writes (If-None-Match), as S3 has",
        ),
        Err(error) => Finding::failure(
            SUBJECT,
            format!("an object can't be made, read and removed: {}", error.to_string().replace('\n', " ")),
            "check credentials, region, endpoint and the bucket's policy (PutObject, GetObject, DeleteObject, ListBucket)",
        ),
    }
}

/// A folder in which files can be made, or that can be made itself.
fn ensure_writable(folder: &Path) -> Finding {
    const SUBJECT: &str = "folder";
    let mut existing = folder;
    while !existing.exists() {
        existing = match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    match tempfile::tempfile_in(existing) {
        Ok(_) if existing == folder => Finding::ok(SUBJECT, "can be written"),
        Ok(_) => Finding::ok(SUBJECT, "doesn't exist yet, and can be made"),
        Err(error) => Finding::failure(
            SUBJECT,
            format!("no file can be made in {}: {error}", existing.display()),
            "give the user who runs binlake the right to write there, or name another folder",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Verdict;

    #[tokio::test]
    async fn a_lake_that_exists_and_one_that_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let findings = check_lake(&LakeUrl::File(folder.path().to_owned())).await;
        assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Verdict::Ok, Verdict::Ok], "{findings:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        let missing = folder.path().join("a/b");
        let findings = check_lake(&LakeUrl::File(missing.clone())).await;
        assert_eq!(findings, [Finding::ok("folder", "doesn't exist yet, and can be made")]);
        assert!(!missing.exists());
    }

    #[tokio::test]
    async fn a_file_where_a_folder_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let findings = check_lake(&LakeUrl::File(file)).await;
        assert_eq!(findings[0].verdict, Verdict::Failure, "{findings:?}");
    }
}
