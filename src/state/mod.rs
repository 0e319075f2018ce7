//! The state store: a cache of what the stream and the lake know, and the audit of runs.
//!
//! Nothing in it is needed to go on: the epoch is on the stream, the positions are in the lake's commits. If it is lost, a new one is made,
//! and only the audit of earlier runs is gone.

mod audit;
mod config;
mod migrations;

pub use audit::{CommitCount, RunRow, RunStatus};
pub use config::{StateConfig, StateUrl};

use crate::error::{Area, Error, Kind, Result};
use crate::event::Epoch;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a call waits for another process's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state store of one or more pipelines, in a SQLite file. Clones share it. Calls take microseconds to milliseconds and block.
#[derive(Debug, Clone)]
pub struct StateStore {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
}

impl StateStore {
    /// Opens the store that `config` names, and makes it if it isn't there.
    ///
    /// # Errors
    /// `Refused` if it can't be read and written, or a newer version made it; `Corrupt` if it is no SQLite database.
    pub fn open(config: &StateConfig) -> Result<Self> {
        let StateUrl::Sqlite(path) = &config.url;
        Self::open_file(path)
    }

    /// Opens the store in the file `path`, and makes it if it isn't there.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub fn open_file(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| store_error(path, error);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| cannot_be_written(path).caused_by(error))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
        // a cache: a power cut may cost the last entries, never the file
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256;")
            .map_err(failed)?;
        migrations::migrate(&mut connection).map_err(|error| match error {
            migrations::MigrationError::Newer(version) => {
                Error::new(Area::Config, Kind::Refused, "the state store was made by a newer version of binlake")
                    .with("version", version)
                    .with("path", path.display())
                    .remedy("run that version, or remove the file: all but the audit of earlier runs is made anew")
            }
            migrations::MigrationError::Sqlite(error) => failed(error),
        })?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: path.to_owned() })
    }

    /// The last epoch that was taken for a stream, as far as this store knows.
    pub fn known_epoch(&self, stream_id: &str) -> Result<Option<Epoch>> {
        let found = self.lock().query_row("SELECT epoch FROM epochs WHERE stream_id = ?1", [stream_id], |row| row.get::<_, i64>(0));
        let found = found.optional().map_err(|error| store_error(&self.path, error))?;
        Ok(found.map(|epoch| Epoch(u64::try_from(epoch).unwrap_or(0))))
    }

    /// Takes the next epoch of a stream, higher than `seen` (the highest on the stream) and than any that was taken here: no two calls
    /// of whatever processes get the same.
    pub fn take_epoch(&self, stream_id: &str, seen: Option<Epoch>) -> Result<Epoch> {
        let seen = i64::try_from(seen.unwrap_or_default().0).map_err(|_| Error::bug("an epoch is out of range"))?;
        // one statement is one transaction: the compare-and-swap
        let taken = self.lock().query_row(
            "INSERT INTO epochs (stream_id, epoch) VALUES (?1, ?2 + 1)
             ON CONFLICT (stream_id) DO UPDATE SET epoch = max(epoch, ?2) + 1 RETURNING epoch",
            params![stream_id, seen],
            |row| row.get::<_, i64>(0),
        );
        let taken = taken.map_err(|error| store_error(&self.path, error))?;
        Ok(Epoch(u64::try_from(taken).unwrap_or(0)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // SQLite rolls back what a panic left
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cannot_be_written(path: &Path) -> Error {
    Error::new(Area::Config, Kind::Refused, "the state store can't be opened for writing")
        .with("path", path.display())
        .remedy("give the user write permission on the file and its folder, or set `state.url`")
}

fn store_error(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::new(Area::Config, Kind::Corrupt, "the state store is damaged")
                .with("path", path.display())
                .remedy("remove the file: all but the audit of earlier runs is made anew")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(Area::Config, Kind::Transient, "the state store is locked by another process").with("path", path.display())
        }
        Some(ErrorCode::DiskFull) => {
            Error::new(Area::Config, Kind::Refused, "the state store's disk is full").with("path", path.display())
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure) => {
            cannot_be_written(path)
        }
        _ => Error::new(Area::Config, Kind::Bug, "the state store refused a statement").with("path", path.display()),
    }
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_whatever_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state.db");
        let store = StateStore::open_file(&path).unwrap();
        assert_eq!(store.known_epoch("s").unwrap(), None);
        assert_eq!(store.take_epoch("s", None).unwrap(), Epoch(1));
        assert_eq!(store.take_epoch("s", Some(Epoch(1))).unwrap(), Epoch(2));
        assert_eq!(store.take_epoch("s", Some(Epoch(7))).unwrap(), Epoch(8));
        assert_eq!(store.take_epoch("other", None).unwrap(), Epoch(1));
        drop(store);
        let again = StateStore::open_file(&path).unwrap();
        assert_eq!(again.known_epoch("s").unwrap(), Some(Epoch(8)));
        drop(again);
        std::fs::remove_file(&path).unwrap();
        // lost: the stream says which epochs there were
        assert_eq!(StateStore::open_file(&path).unwrap().take_epoch("s", Some(Epoch(8))).unwrap(), Epoch(9));
    }

    #[test]
    fn two_processes_never_take_the_same_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let stores: Vec<_> = (0..2).map(|_| StateStore::open_file(&path).unwrap()).collect();
        let taken: std::collections::HashSet<_> = (0..20).map(|i| stores[i % 2].take_epoch("s", Some(Epoch(3))).unwrap()).collect();
        assert_eq!(taken.len(), 20);
    }

    #[test]
    fn what_cannot_be_a_store_is_said_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(
            &path,
            "this is not a database, but text of more than a hundred bytes, so that SQLite reads a header: no, no, no, no.",
        )
        .unwrap();
        let error = StateStore::open_file(&path).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Corrupt, 2));
        assert!(error.to_string().contains("remove the file"), "{error}");
        let error = StateStore::open_file(&path.join("below")).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}
