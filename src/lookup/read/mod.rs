//! Reading a lookup's items from where they are.

mod dynamodb;
mod file;
mod sqlite;

use super::config::{LookupConfig, LookupUrl};
use super::{Item, Lookup};
use crate::error::{Area, Error, Kind, Result};
use crate::format::PlainColumn;
use crate::time::Timestamp;
use arrow::array::RecordBatch;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub use dynamodb::ItemValue;
pub(super) use dynamodb::item_of;

/// What was read.
#[derive(Debug)]
pub enum Items {
    /// Items without types.
    Plain(Vec<Item>),
    /// Rows with the types of their file or table.
    Typed(RecordBatch),
}

/// How often a file is looked at: whether it has changed costs next to nothing.
const FILE_LOOK: Duration = Duration::from_secs(1);

/// What shows that a file has changed: when it was changed last, and its length, of it and of what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(SystemTime, u64)>);

/// So long after a change a file is read again though it looks the same: who writes may not be done, and what is written may not be seen yet.
const SETTLING: Duration = Duration::from_secs(3);

impl Stamp {
    /// Whether the last change is a while ago.
    pub(super) fn is_settled(&self) -> bool {
        let is_old = |(changed, _): &(SystemTime, u64)| changed.elapsed().is_ok_and(|since| since >= SETTLING);
        self.0.iter().all(is_old)
    }

    fn of(paths: &[&Path]) -> Option<Self> {
        let one = |path: &&Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let all: Vec<_> = paths.iter().filter_map(one).collect();
        (!all.is_empty()).then_some(Self(all))
    }
}

/// Whether the items may have changed since `last`; `None`: that can't be told without reading them.
pub(super) fn stamp(url: &LookupUrl) -> Option<Stamp> {
    match url {
        LookupUrl::File(path) => Stamp::of(&[path]),
        LookupUrl::Sqlite(path, _) => {
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            Stamp::of(&[path, Path::new(&log)])
        }
        LookupUrl::DynamoDb(_) | LookupUrl::Table(_) => None,
    }
}

/// The pause before the items are looked at again.
pub(super) fn pause(config: &LookupConfig) -> Duration {
    match config.url {
        LookupUrl::File(_) | LookupUrl::Sqlite(..) => config.refresh.min(FILE_LOOK),
        LookupUrl::DynamoDb(_) | LookupUrl::Table(_) => config.refresh,
    }
}

impl Lookup {
    /// Reads all items now.
    ///
    /// # Errors
    /// What keeps them from being read; `Data` for an item whose attribute doesn't fit.
    pub async fn read(&self) -> Result<()> {
        if self.is_got() {
            return self.open_getter().await.map_err(|error| error.with("lookup", self.name()));
        }
        let (url, declared) = (self.config().url.clone(), self.config().columns.clone());
        let items = match url {
            LookupUrl::File(path) => blocking(move || file::read(&path, declared.as_deref())).await,
            LookupUrl::Sqlite(path, table) => {
                blocking(move || sqlite::read(&path, &table, declared.as_deref()).map(Items::Plain)).await
            }
            LookupUrl::DynamoDb(url) => dynamodb::scan(&url).await.map(Items::Plain),
            LookupUrl::Table(_) => Err(Error::bug("a lookup in the lake is read by the pipeline")),
        };
        self.take(items.map_err(|error| error.with("lookup", self.name()))?)
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// `Data` for an item whose attribute doesn't fit.
    pub fn take(&self, items: Items) -> Result<()> {
        let content = match items {
            Items::Plain(items) => self.content_of(&items)?,
            Items::Typed(rows) => self.content_of_rows(&rows)?,
        };
        self.replace(content, Timestamp::now());
        Ok(())
    }
}

/// Items that all have the same attributes have each once, and all that are declared: one that is misspelt would be NULL everywhere.
fn ensure_columns(found: &[String], declared: Option<&[PlainColumn]>) -> Result<()> {
    let wrong = |what, name: &str| Error::new(Area::Lake, Kind::Data, what).with("attribute", name);
    if let Some(twice) = found.iter().enumerate().find_map(|(at, name)| found[..at].contains(name).then_some(name)) {
        return Err(wrong("a lookup has two columns of one name", twice).remedy("give one of them another name"));
    }
    let is_there = |column: &&PlainColumn| found.contains(&column.path.join("."));
    match declared.unwrap_or_default().iter().find(|column| !is_there(column)) {
        None => Ok(()),
        Some(lacking) => Err(wrong("a lookup lacks a column that is declared", &lacking.path.join("."))
            .with("found", found.join(","))
            .remedy("correct `columns`, or the header")),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::bug("reading a lookup panicked").caused_by(error))?
}
