//! The store's versions: each file of `migrations/state/` brings it from one to the next.

use rusqlite::{Connection, TransactionBehavior};

/// In their order; the store's `user_version` says how many it has.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/state/0001_initial.sql"),
    include_str!("../../../migrations/state/0002_leases.sql"),
    include_str!("../../../migrations/state/0003_rules.sql"),
];

/// Why a store can't be brought to this program's version.
#[derive(Debug)]
pub(super) enum MigrationError {
    /// It has this version, of a newer program.
    Newer(i64),
    /// SQLite refuses.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Brings the store to this program's version, all or nothing.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), MigrationError> {
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let ours = MIGRATIONS.len() as i64;
    match version(connection)? {
        current if current == ours => return Ok(()),
        newer if newer > ours => return Err(MigrationError::Newer(newer)),
        _ => {}
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // another process may have done it meanwhile
    for migration in MIGRATIONS.iter().skip(usize::try_from(version(&transaction)?).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", ours)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_store_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut connection), Err(MigrationError::Newer(99))));
    }
}
