//! The state store in a SQLite file: for one machine.

mod leases;
mod migrations;
mod rules;
mod runs;

use crate::error::{Area, Error, Kind, Result};
use crate::event::Epoch;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a call waits for another process's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a file that another process is making is tried again.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// A store in a file. Each call runs on a thread for blocking work: microseconds to milliseconds, more while another process writes.
#[derive(Debug, Clone)]
pub(super) struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl SqliteStore {
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || Self::open_file(&path)).await
    }

    /// Several processes may make the file at the same moment. To give it its log SQLite waits for none of the others, so it is tried again.
    fn open_file(path: &Path) -> Result<Self> {
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            match Self::try_to_open(path) {
                Err(error) if error.is_transient() && Instant::now() < until => std::thread::sleep(OPEN_PAUSE),
                opened => return opened,
            }
        }
    }

    fn try_to_open(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| store_error(path, error);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| cannot_be_written(path).caused_by(error))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
        // a cache: a power cut may cost the last entries, never the file. What is removed is overwritten: keys of requests to erase are among it
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256; PRAGMA secure_delete = ON;",
            )
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
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: Arc::new(path.to_owned()) })
    }

    pub(super) async fn known_epoch(&self, stream_id: &str) -> Result<Option<Epoch>> {
        let stream_id = stream_id.to_owned();
        self.with(move |connection| {
            let found =
                connection.query_row("SELECT epoch FROM epochs WHERE stream_id = ?1", [stream_id], |row| row.get::<_, i64>(0));
            Ok(found.optional()?.map(|epoch| Epoch(u64::try_from(epoch).unwrap_or(0))))
        })
        .await
    }

    pub(super) async fn take_epoch(&self, stream_id: &str, seen: Option<Epoch>) -> Result<Epoch> {
        let stream_id = stream_id.to_owned();
        let seen = i64::try_from(seen.unwrap_or_default().0).map_err(|_| Error::bug("an epoch is out of range"))?;
        self.with(move |connection| {
            // one statement is one transaction: the compare-and-swap
            let taken = connection.query_row(
                "INSERT INTO epochs (stream_id, epoch) VALUES (?1, ?2 + 1)
                 ON CONFLICT (stream_id) DO UPDATE SET epoch = max(epoch, ?2) + 1 RETURNING epoch",
                params![stream_id, seen],
                |row| row.get::<_, i64>(0),
            )?;
            Ok(Epoch(u64::try_from(taken).unwrap_or(0)))
        })
        .await
    }

    /// Empties the log of what was written: the file itself is overwritten where something was removed.
    pub(super) async fn forget_removed(&self) -> Result<()> {
        // where another reads it, the log's next turn overwrites it
        self.with(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await
    }

    /// Runs statements with the connection, off the runtime's threads.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static) -> Result<T> {
        let store = self.clone();
        blocking(move || {
            // SQLite rolls back what a panic left
            let connection = store.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&connection).map_err(|error| store_error(&store.path, error))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| Error::bug("a call of the state store has died").caused_by(panic))?
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

    #[tokio::test]
    async fn epochs_rise_whatever_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state.db");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.take_epoch("s", Some(Epoch(7))).await.unwrap(), Epoch(8));
        drop(store);
        let again = SqliteStore::open(&path).await.unwrap();
        assert_eq!(again.known_epoch("s").await.unwrap(), Some(Epoch(8)));
        drop(again);
        std::fs::remove_file(&path).unwrap();
        // lost: the stream says which epochs there were
        let anew = SqliteStore::open(&path).await.unwrap();
        assert_eq!(anew.take_epoch("s", Some(Epoch(8))).await.unwrap(), Epoch(9));
    }

    #[test]
    fn several_may_make_the_file_at_the_same_moment() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..40 {
            let path = folder.path().join(format!("{round}.db"));
            let together = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                let open = || {
                    together.wait();
                    SqliteStore::open_file(&path).map(|_| ())
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                all.into_iter().for_each(|one| one.join().unwrap().unwrap());
            });
        }
    }

    #[tokio::test]
    async fn what_cannot_be_a_store_is_said_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(
            &path,
            "this is not a database, but text of more than a hundred bytes, so that SQLite reads a header: no, no, no, no.",
        )
        .unwrap();
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Corrupt, 2));
        assert!(error.to_string().contains("remove the file"), "{error}");
        let error = SqliteStore::open(&path.join("below")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}
