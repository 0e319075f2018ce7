//! The lake: the object store that holds all tables, each at `<lake>/<database>/<table>/`.

use super::LakeUrl;
use super::store_error::lake_error;
use crate::error::{Area, Error, Kind, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// Tables that are looked for at once.
const CONCURRENT_CALLS: usize = 16;

/// What the database of a table of dead letters begins with.
const DEAD_LETTERS: &str = "_dead_letter/";

/// An opened lake.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    root: Path,
    url: String,
}

impl Lake {
    /// Opens the lake, and makes its folder if there is none.
    pub fn create(url: &LakeUrl) -> Result<Self> {
        if let LakeUrl::File(folder) = url {
            std::fs::create_dir_all(folder).map_err(|error| {
                Error::new(Area::Lake, Kind::Refused, "the lake's folder can't be made")
                    .caused_by(error)
                    .with("path", folder.display())
            })?;
        }
        Self::open(url)
    }

    /// Opens a lake that must be there already.
    pub fn open(url: &LakeUrl) -> Result<Self> {
        let refused = |what: &'static str| Error::new(Area::Lake, Kind::Refused, what).with("lake", url);
        match url {
            LakeUrl::File(folder) => {
                let absolute = std::fs::canonicalize(folder).map_err(|error| {
                    refused("there is no lake")
                        .caused_by(error)
                        .remedy("correct lake.url, or start `binlake run`, which makes the lake")
                })?;
                let store = LocalFileSystem::new_with_prefix(&absolute)
                    .map_err(|error| refused("the lake's folder can't be opened").caused_by(error))?;
                let url = absolute.to_string_lossy().trim_end_matches('/').to_owned();
                Ok(Self { store: Arc::new(store), root: Path::default(), url })
            }
            LakeUrl::S3 { bucket, prefix, options } => {
                let store = super::s3::open(bucket, options).map_err(|error| error.with("lake", url))?;
                let root = Path::parse(prefix)
                    .map_err(|error| Error::config("the lake's prefix can't be a path").caused_by(error).with("key", "lake.url"))?;
                let url = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
                Ok(Self { store: Arc::new(store), root, url })
            }
        }
    }

    /// A lake over any store, for tests: `url` is what its files' names begin with for other readers.
    pub fn over(store: Arc<dyn ObjectStore>, root: Path, url: impl Into<String>) -> Self {
        Self { store, root, url: url.into() }
    }

    /// The store that holds it.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The lake's own path in the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What other readers call the lake: an absolute path, or `s3://bucket/prefix`; without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The path of a table in the store. Tables of dead letters lie in a folder of their own: `_dead_letter/<database>/<table>`.
    pub fn table_path(&self, database: &str, table: &str) -> Path {
        match database.strip_prefix(DEAD_LETTERS) {
            Some(database) => Path::from_iter(self.root.parts().chain(["_dead_letter".into(), database.into(), table.into()])),
            None => Path::from_iter(self.root.parts().chain([database.into(), table.into()])),
        }
    }

    /// What other readers call the table's folder.
    pub fn table_url(&self, database: &str, table: &str) -> String {
        format!("{}/{}", self.url, Path::from_iter([database, table]))
    }

    /// Databases and names of all tables, sorted.
    pub async fn tables(&self) -> Result<Vec<(String, String)>> {
        let failed = |error| lake_error("the lake can't be listed", &self.root, error).with("lake", &self.url);
        self.tables_below(&self.root).await.map_err(failed)
    }

    /// Databases and names of all tables that have dead letters, sorted.
    pub async fn dead_letter_tables(&self) -> Result<Vec<(String, String)>> {
        let root = Path::from_iter(self.root.parts().chain(["_dead_letter".into()]));
        let failed = |error| lake_error("the lake can't be listed", &root, error).with("lake", &self.url);
        self.tables_below(&root).await.map_err(failed)
    }

    async fn tables_below(&self, root: &Path) -> Result<Vec<(String, String)>, object_store::Error> {
        let mut found = Vec::new();
        for database in self.store.list_with_delimiter(Some(root)).await?.common_prefixes {
            // `_dead_letter` and the like are no databases
            if database.filename().is_none_or(|name| name.starts_with(['_', '.'])) {
                continue;
            }
            let tables = self.store.list_with_delimiter(Some(&database)).await?.common_prefixes;
            // owned by each look, so that the whole can be sent between threads
            let looked = futures::stream::iter(tables).map(|table| {
                let store = self.store.clone();
                async move {
                    let properties = Path::from_iter(table.parts().chain([".hoodie".into(), "hoodie.properties".into()]));
                    match store.head(&properties).await {
                        Ok(_) => Ok(Some(table)),
                        Err(object_store::Error::NotFound { .. }) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            });
            let mut looked = looked.buffered(CONCURRENT_CALLS);
            while let Some(table) = looked.try_next().await? {
                found.extend(table.map(|table| (decoded(database.filename()), decoded(table.filename()))));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A part of a path as it was before `Path` encoded what can't stand in one.
fn decoded(part: Option<&str>) -> String {
    let part = part.unwrap_or_default();
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn tables_are_what_has_properties() {
        let lake = Lake::over(Arc::new(InMemory::new()), Path::from("a/lake"), "s3://b/a/lake");
        for (database, table) in [("shop", "orders"), ("odd db", "50%"), ("_dead_letter", "x")] {
            let path =
                Path::from_iter(lake.table_path(database, table).parts().chain([".hoodie".into(), "hoodie.properties".into()]));
            lake.store().put(&path, "x".into()).await.unwrap();
        }
        lake.store().put(&Path::from("a/lake/shop/not_a_table/file"), "x".into()).await.unwrap();
        let odd = ("odd db".to_owned(), "50%".to_owned());
        assert_eq!(lake.tables().await.unwrap(), [odd, ("shop".to_owned(), "orders".to_owned())]);
        assert_eq!(lake.table_url("shop", "orders"), "s3://b/a/lake/shop/orders");
    }

    #[test]
    fn a_lake_that_is_not_there_is_said() {
        let error = Lake::open(&LakeUrl::File("/does/not/exist".into())).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("lake=file:/does/not/exist"), "{error}");
    }
}
