//! Items in a SQLite file: a table a target, an item a row, as JSON.

use super::item::{Attribute, AttributeKind, ItemChange, ItemKey, KeyKinds};
use super::store::ItemStore;
use super::template::{scalar, text_of};
use crate::error::{Area, Error, Kind, Result};
use async_trait::async_trait;
use futures::stream::{BoxStream, try_unfold};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Who owns each target, and how far it is.
const CONTROL: &str =
    "CREATE TABLE IF NOT EXISTS _binlake_deliveries (target TEXT PRIMARY KEY, owner TEXT NOT NULL, checkpoint TEXT) STRICT";
/// A target's columns.
const COLUMNS: &str = "(partition TEXT NOT NULL, sort TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (partition, sort)) STRICT";
/// Keys that are read at once.
const PAGE_KEYS: usize = 10_000;
/// How long another process's transaction is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// A file of items.
#[derive(Debug, Clone)]
pub(super) struct SqliteItems {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl SqliteItems {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let what = "the file of items can't be opened";
        let failed =
            |error: rusqlite::Error| Error::new(Area::Lake, kind_of(&error), what).caused_by(error).with("path", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::new(Area::Lake, Kind::Refused, what).caused_by(error).with("path", path.display()))?;
        }
        let opened = Connection::open(path).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.execute_batch(CONTROL)?;
            Ok(connection)
        });
        let connection = opened.map_err(failed)?;
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// Keys of items behind the row `after`, and the last one's row.
    async fn page(&self, target: &str, key: &KeyKinds, after: i64) -> Result<(Vec<ItemKey>, i64)> {
        let sql =
            format!("SELECT partition, sort, rowid FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT {PAGE_KEYS}", quoted(target));
        let (target, kinds) = (target.to_owned(), key.clone());
        self.transaction(move |transaction| {
            let is_there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
            let (mut keys, mut last) = (Vec::new(), after);
            if transaction.query_row(is_there, [target], |_| Ok(())).optional()?.is_none() {
                return Ok((keys, last));
            }
            let mut statement = transaction.prepare(&sql)?;
            let mut rows = statement.query([after])?;
            while let Some(row) = rows.next()? {
                let (partition, sort): (String, String) = (row.get(0)?, row.get(1)?);
                keys.push(ItemKey {
                    partition: read_as(kinds.partition.1, partition),
                    sort: kinds.sort.as_ref().map(|(_, kind)| read_as(*kind, sort)),
                });
                last = row.get(2)?;
            }
            Ok((keys, last))
        })
        .await
    }

    /// Runs `work` in one transaction, on a thread that may wait.
    async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let made = work(&transaction)?;
            transaction.commit()?;
            Ok(made)
        });
        let done = task.await.map_err(|error| Error::bug("writing items panicked").caused_by(error))?;
        done.map_err(|error: rusqlite::Error| {
            Error::new(Area::Lake, kind_of(&error), "the file of items can't be written")
                .caused_by(error)
                .with("path", self.path.display())
        })
    }
}

/// A file that another connection is busy with will be free again.
fn kind_of(error: &rusqlite::Error) -> Kind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Transient,
        _ => Kind::Refused,
    }
}

/// A key's attribute as text; `""` for none.
fn key_text(attribute: Option<&Attribute>) -> String {
    attribute.map(|attribute| text_of(&attribute.to_json())).unwrap_or_default()
}

#[async_trait]
impl ItemStore for SqliteItems {
    async fn claim(&self, target: &str, owner: &str) -> Result<Option<String>> {
        let (target, owner) = (target.to_owned(), owner.to_owned());
        self.transaction(move |transaction| {
            let sql = "INSERT INTO _binlake_deliveries (target, owner) VALUES (?1, ?2) ON CONFLICT (target) DO UPDATE SET owner = ?2 \
                       RETURNING checkpoint";
            transaction.query_row(sql, params![target, owner], |row| row.get(0))
        })
        .await
    }

    async fn checkpoint(&self, target: &str) -> Result<Option<String>> {
        let target = target.to_owned();
        self.transaction(move |transaction| {
            let sql = "SELECT checkpoint FROM _binlake_deliveries WHERE target = ?1";
            transaction.query_row(sql, [target], |row| row.get(0)).optional().map(Option::flatten)
        })
        .await
    }

    /// The table is made with its first items, so that nobody sees it without them.
    async fn prepare(&self, _: &str, _: &KeyKinds) -> Result<()> {
        Ok(())
    }

    async fn write(&self, target: &str, owner: &str, _: &KeyKinds, changes: &[ItemChange], checkpoint: Option<&str>) -> Result<()> {
        let (table, changes) = (quoted(target), changes.to_vec());
        let (target, owner, checkpoint) = (target.to_owned(), owner.to_owned(), checkpoint.map(str::to_owned));
        let is_ours = self
            .transaction(move |transaction| {
                let sql = "SELECT owner FROM _binlake_deliveries WHERE target = ?1";
                let known: Option<String> = transaction.query_row(sql, [&target], |row| row.get(0)).optional()?;
                if known.as_ref() != Some(&owner) {
                    return Ok(false);
                }
                transaction.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {table} {COLUMNS}"))?;
                let mut put =
                    transaction.prepare(&format!("INSERT OR REPLACE INTO {table} (partition, sort, item) VALUES (?1, ?2, ?3)"))?;
                let mut delete = transaction.prepare(&format!("DELETE FROM {table} WHERE partition = ?1 AND sort = ?2"))?;
                for change in &changes {
                    let key = change.key();
                    let (partition, sort) = (key_text(Some(&key.partition)), key_text(key.sort.as_ref()));
                    match change {
                        ItemChange::Put(item) => {
                            put.execute(params![partition, sort, Value::Object(item.to_json()).to_string()])?
                        }
                        ItemChange::Delete(_) => delete.execute(params![partition, sort])?,
                    };
                }
                if let Some(checkpoint) = checkpoint {
                    let sql = "UPDATE _binlake_deliveries SET checkpoint = ?2 WHERE target = ?1";
                    transaction.execute(sql, params![target, checkpoint])?;
                }
                Ok(true)
            })
            .await?;
        if is_ours { Ok(()) } else { Err(overtaken()) }
    }

    fn keys<'a>(&'a self, target: &'a str, key: &'a KeyKinds) -> BoxStream<'a, Result<Vec<ItemKey>>> {
        Box::pin(try_unfold(0, move |after| async move {
            let (keys, last) = self.page(target, key, after).await?;
            Ok((!keys.is_empty()).then_some((keys, last)))
        }))
    }

    fn most_at_once(&self) -> (usize, usize) {
        (10_000, 8 << 20)
    }
}

/// A key's text as the attribute that it was.
fn read_as(kind: AttributeKind, text: String) -> Attribute {
    scalar(kind, text.clone()).unwrap_or(Attribute::Text(text))
}

/// The error of who isn't the owner any more.
pub(super) fn overtaken() -> Error {
    Error::new(Area::Lake, Kind::Conflict, "another process delivers these items now")
        .remedy("run one service for a delivery, or let this one take over after the other has stopped")
}
