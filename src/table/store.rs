//! The object store under a table: each call retried where that can help, and each error said with path and remedy.
//!
//! **Creating.** A commit is decided by who creates an object first, so a lost answer must not look like a lost race: where the object turns out to
//! exist, it is read, and if it holds the very bytes that were to be written (they name writer and instant), it is ours.

use super::store_error::{lake_error, retried};
use crate::error::{Area, Error, Kind, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

/// Calls that are under way at once where several are independent.
const CONCURRENT_CALLS: usize = 16;

/// The store, and the table's place in it.
#[derive(Debug, Clone)]
pub(super) struct TableStore {
    store: Arc<dyn ObjectStore>,
    base: Path,
}

/// What became of creating an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Creation {
    /// It is there, with our bytes.
    Created,
    /// Somebody else's was there before.
    Taken(Bytes),
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path below the table.
    pub(super) path: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// When it was written, in milliseconds since 1970, and the store's tag of the version.
    pub(super) version: (i64, Option<String>),
}

/// What lies directly in a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    /// Objects.
    pub(super) entries: Vec<Entry>,
    /// Names of folders.
    pub(super) folders: Vec<String>,
}

impl TableStore {
    pub(super) fn new(store: Arc<dyn ObjectStore>, base: Path) -> Self {
        Self { store, base }
    }

    pub(super) fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The full path of what lies at `path` below the table. Partition paths are percent-encoded already (as Hive does), so nothing is encoded here.
    pub(super) fn location(&self, path: &str) -> Result<Path> {
        let full = match (self.base.as_ref(), path) {
            (base, "") => base.to_owned(),
            ("", path) => path.to_owned(),
            (base, path) => format!("{base}/{path}"),
        };
        Path::parse(&full).map_err(|error| {
            Error::new(Area::Lake, Kind::Data, "a path has characters that the lake can't hold").caused_by(error).with("path", full)
        })
    }

    /// The whole object; `None` where there is none.
    pub(super) async fn get_optional(&self, path: &str) -> Result<Option<Bytes>> {
        let location = self.location(path)?;
        let read = || async { self.store.get(&location).await?.bytes().await };
        match retried(read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(lake_error("a file of the lake can't be read", &location, error)),
        }
    }

    /// The whole object, which must be there.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes> {
        self.get_optional(path).await?.ok_or_else(|| {
            Error::new(Area::Lake, Kind::Corrupt, "a file of the table is missing").with("path", format!("{}/{path}", self.base))
        })
    }

    /// Writes the object, whatever was there.
    pub(super) async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let (location, bytes) = (self.location(path)?, bytes.into());
        let write = || async { self.store.put(&location, PutPayload::from_bytes(bytes.clone())).await };
        retried(write).await.map_err(|error| lake_error("a file of the lake can't be written", &location, error))?;
        self.sync(vec![path.to_owned()]).await
    }

    /// Writes an object that Spark may have written before: its checksum side file, which would make the new bytes unreadable to Spark, goes first.
    pub(super) async fn overwrite(&self, path: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.delete(&checksum_file(path)).await?;
        self.put(path, bytes).await
    }

    /// Writes the object if there is none: of all who try, exactly one creates it.
    pub(super) async fn create(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Creation> {
        let (location, bytes) = (self.location(path)?, bytes.into());
        let write =
            || async { self.store.put_opts(&location, PutPayload::from_bytes(bytes.clone()), PutMode::Create.into()).await };
        match retried(write).await {
            Ok(_) => {
                self.sync(vec![path.to_owned()]).await?;
                Ok(Creation::Created)
            }
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                let present = self.get(path).await?;
                Ok(if present == bytes { Creation::Created } else { Creation::Taken(present) })
            }
            Err(error) => Err(lake_error("a file of the lake can't be written", &location, error)),
        }
    }

    /// Deletes the object; it is no error if there is none.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        let location = self.location(path)?;
        match retried(|| async { self.store.delete(&location).await }).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(lake_error("a file of the lake can't be deleted", &location, error)),
        }
    }

    /// Deletes objects, in any order.
    pub(super) async fn delete_all(&self, paths: &[String]) -> Result<()> {
        // collected first: a closure within the stream would make the future less than `Send`
        let deletes: Vec<_> = paths.iter().map(|path| self.delete(path)).collect();
        futures::stream::iter(deletes).buffer_unordered(CONCURRENT_CALLS).try_collect().await
    }

    /// Deletes all objects below a folder; on a local disk the folder too, for Hudi asks whether it is there.
    pub(super) async fn delete_folder(&self, folder: &str) -> Result<()> {
        let paths: Vec<String> = self.list(folder).await?.into_iter().map(|entry| entry.path).collect();
        self.delete_all(&paths).await?;
        if let Some(local) = self.local_folder() {
            let local = local.join(folder);
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(local)).await;
            match removed.map_err(|error| Error::bug("deleting a folder panicked").caused_by(error))? {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::new(Area::Lake, Kind::Refused, "a folder of the lake can't be deleted")
                        .caused_by(error)
                        .with("path", format!("{}/{folder}", self.base)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads objects that must be there, and gives them in the order of `paths`.
    pub(super) async fn get_all(&self, paths: &[String]) -> Result<Vec<Bytes>> {
        let reads: Vec<_> = paths.iter().map(|path| self.get(path)).collect();
        futures::stream::iter(reads).buffered(CONCURRENT_CALLS).try_collect().await
    }

    /// All objects below a folder, at any depth.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let location = self.location(folder)?;
        let list = || async { self.store.list(Some(&location)).try_collect::<Vec<ObjectMeta>>().await };
        let objects = retried(list).await.map_err(|error| lake_error("a folder of the lake can't be listed", &location, error))?;
        Ok(objects.iter().filter_map(|object| self.entry(object)).collect())
    }

    /// The objects below a folder whose paths sort behind `after`.
    pub(super) async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<Entry>> {
        let (location, after) = (self.location(folder)?, self.location(after)?);
        let list = || async { self.store.list_with_offset(Some(&location), &after).try_collect::<Vec<ObjectMeta>>().await };
        let objects = retried(list).await.map_err(|error| lake_error("a folder of the lake can't be listed", &location, error))?;
        Ok(objects.iter().filter_map(|object| self.entry(object)).collect())
    }

    /// What lies directly in a folder.
    pub(super) async fn list_folder(&self, folder: &str) -> Result<Folder> {
        let location = self.location(folder)?;
        let list = || async { self.store.list_with_delimiter(Some(&location)).await };
        let found = retried(list).await.map_err(|error| lake_error("a folder of the lake can't be listed", &location, error))?;
        let folders = found.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)).collect();
        Ok(Folder { entries: found.objects.iter().filter_map(|object| self.entry(object)).collect(), folders })
    }

    /// Makes objects that were written survive a failure of the machine's power. Services do so themselves; a local disk is told to here.
    /// `put` and `create` do it for what they write.
    pub(super) async fn sync(&self, paths: Vec<String>) -> Result<()> {
        let Some(folder) = self.local_folder() else { return Ok(()) };
        let work = move || {
            let mut folders = BTreeSet::new();
            for path in &paths {
                let file = folder.join(path);
                std::fs::File::open(&file)?.sync_all()?;
                folders.extend(file.parent().map(PathBuf::from));
            }
            folders.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
        };
        let done =
            tokio::task::spawn_blocking(work).await.map_err(|error| Error::bug("writing to the disk panicked").caused_by(error))?;
        done.map_err(|error| {
            let failed = Error::new(Area::Lake, Kind::Refused, "files of the lake can't be written to the disk");
            failed.caused_by(error).with("path", &self.base)
        })
    }

    /// Deletes what uploads of base files that never ended left on a local disk: object_store writes `<name>#<number>` first,
    /// and shows it in no listing.
    pub(super) async fn delete_staged(&self) -> Result<()> {
        let Some(folder) = self.local_folder() else { return Ok(()) };
        let work = move || {
            let mut folders = vec![folder];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        if name != ".hoodie" {
                            folders.push(entry.path());
                        }
                    } else if name
                        .rsplit_once(".parquet#")
                        .is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
                    {
                        // what can't be deleted now is tried again by the next session
                        _ = std::fs::remove_file(entry.path());
                    }
                }
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::bug("deleting staged files panicked").caused_by(error))
    }

    /// The table's folder, where the store is a folder of this machine.
    fn local_folder(&self) -> Option<PathBuf> {
        let store = self.store.to_string();
        let url = store.strip_prefix("LocalFileSystem(")?.strip_suffix(')')?;
        Some(url::Url::parse(url).ok()?.to_file_path().ok()?.join(self.base.as_ref()))
    }

    fn entry(&self, object: &ObjectMeta) -> Option<Entry> {
        let path = object.location.as_ref();
        let path = match self.base.as_ref() {
            "" => path,
            base => path.strip_prefix(base)?.strip_prefix('/')?,
        };
        let version = (object.last_modified.timestamp_millis(), object.e_tag.clone());
        Some(Entry { path: path.to_owned(), bytes: object.size, version })
    }

    /// What Hadoop calls the place of `path`, as Hudi writes it into its plans: `file:/lake/t/x` or `s3://bucket/t/x`.
    pub(super) fn uri(&self, path: &str) -> String {
        let store = self.store.to_string();
        let place = store.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or("").trim_end_matches('/');
        let root = match place.strip_prefix("file://") {
            Some(folder) => format!("file:{folder}"),
            None if place.is_empty() => "memory:".to_owned(),
            None => format!("s3://{place}"),
        };
        format!("{root}/{}/{path}", self.base)
    }
}

/// The side file that Hadoop's local file system keeps beside a file that it wrote.
pub(super) fn checksum_file(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/.{name}.crc"),
        None => format!(".{path}.crc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn store() -> TableStore {
        TableStore::new(Arc::new(InMemory::new()), Path::from("lake/shop/orders"))
    }

    #[tokio::test]
    async fn creating_what_we_created_is_no_lost_race() {
        let store = store();
        assert_eq!(store.create("a/1", "mine").await.unwrap(), Creation::Created);
        assert_eq!(store.create("a/1", "mine").await.unwrap(), Creation::Created);
        assert_eq!(store.create("a/1", "theirs").await.unwrap(), Creation::Taken("mine".into()));
    }

    #[tokio::test]
    async fn listings_are_relative_to_the_table() {
        let store = store();
        for path in ["top", ".hoodie/a", ".hoodie/b/c", "p=a%2Fb ü/f"] {
            store.put(path, path.to_owned()).await.unwrap();
        }
        let folder = store.list_folder(".hoodie").await.unwrap();
        assert_eq!(folder.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), [".hoodie/a"]);
        assert_eq!(folder.folders, ["b"]);
        let mut all: Vec<String> = store.list("").await.unwrap().into_iter().map(|entry| entry.path).collect();
        all.sort();
        assert_eq!(all, [".hoodie/a", ".hoodie/b/c", "p=a%2Fb ü/f", "top"]);
        assert_eq!(store.list_after(".hoodie", ".hoodie/a").await.unwrap().len(), 1);
        store.delete("nothing there").await.unwrap();
        assert_eq!(store.uri("x"), "memory:/lake/shop/orders/x");
    }

    #[tokio::test]
    async fn folders_with_percent_signs_survive_a_local_disk() {
        let folder = tempfile::tempdir().unwrap();
        let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let store = TableStore::new(Arc::new(local), Path::from("shop/orders"));
        store.put("p=a%2Fb ü/f", "x").await.unwrap();
        assert!(folder.path().join("shop/orders/p=a%2Fb ü/f").exists());
        assert_eq!(store.list("").await.unwrap()[0].path, "p=a%2Fb ü/f");
        assert_eq!(store.get("p=a%2Fb ü/f").await.unwrap(), "x");
        assert!(store.uri("x").starts_with("file:/"), "{}", store.uri("x"));
        store.sync(vec!["p=a%2Fb ü/f".to_owned()]).await.unwrap();
        assert_eq!(store.sync(vec!["missing".to_owned()]).await.unwrap_err().kind(), Kind::Refused);
        let staged = folder.path().join("shop/orders/p=a%2Fb ü/x_0-0-0_20260101000000000.parquet#3");
        std::fs::write(&staged, "half").unwrap();
        store.delete_staged().await.unwrap();
        assert!(!staged.exists());
        assert_eq!(store.list("").await.unwrap().len(), 1);
    }

    #[test]
    fn checksum_files_lie_beside() {
        assert_eq!(checksum_file(".hoodie/hoodie.properties"), ".hoodie/.hoodie.properties.crc");
        assert_eq!(checksum_file("a.parquet"), ".a.parquet.crc");
    }
}
