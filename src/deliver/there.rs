//! The items that are there, by their keys: on disk, since they may be as many as the table has rows.

use super::item::{Attribute, ItemKey, KeyKinds};
use super::store::ItemStore;
use crate::cloud::DynamoNumber;
use crate::error::{Area, Error, Kind, Result};
use futures::TryStreamExt;
use rusqlite::{Connection, params};
use std::path::Path;

/// Keys by the text that is the same for the same key. Nothing of it outlives its process.
const MADE: &str = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; BEGIN; \
                    CREATE TABLE there (same TEXT PRIMARY KEY, partition BLOB NOT NULL, sort BLOB) WITHOUT ROWID";

/// The keys of a target's items, in a file of their own.
#[derive(Debug)]
pub struct ItemsThere {
    file: Connection,
}

fn refused(folder: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Area::Lake, Kind::Refused, "the keys of the items that are there can't be kept on disk")
        .caused_by(error)
        .with("path", folder.display())
        .remedy("free space there, or set `lake.spill_dir` to another folder")
}

fn failed(error: rusqlite::Error) -> Error {
    Error::new(Area::Lake, Kind::Refused, "the keys of the items that are there can't be read from disk").caused_by(error)
}

/// The same text for the same key, however a store writes its numbers.
fn same(key: &ItemKey) -> String {
    let one = |attribute: &Attribute| match attribute {
        Attribute::Number(digits) => DynamoNumber::parse(digits).map_or_else(|| digits.clone(), |number| number.to_string()),
        other => format!("{other:?}"),
    };
    format!("{} {}", one(&key.partition), key.sort.as_ref().map(one).unwrap_or_default())
}

/// A key's attribute as bytes, the first of which says what it is.
fn stored(attribute: &Attribute) -> Vec<u8> {
    let (tag, bytes) = match attribute {
        Attribute::Number(digits) => (b'n', digits.as_bytes()),
        Attribute::Bytes(bytes) => (b'b', &bytes[..]),
        Attribute::Text(text) => (b't', text.as_bytes()),
        // no key is one of these
        Attribute::Boolean(_) | Attribute::Map(_) | Attribute::List(_) => (b't', &[][..]),
    };
    [&[tag], bytes].concat()
}

fn read(stored: &[u8]) -> Attribute {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match stored.split_first() {
        Some((b'n', digits)) => Attribute::Number(text(digits)),
        Some((b'b', bytes)) => Attribute::Bytes(bytes.to_vec()),
        Some((_, rest)) => Attribute::Text(text(rest)),
        None => Attribute::Text(String::new()),
    }
}

impl ItemsThere {
    /// Those of `target`, written down in `folder`.
    ///
    /// # Errors
    /// If they can't be listed; `Refused` if the folder can't be written.
    pub async fn of(store: &dyn ItemStore, target: &str, key: &KeyKinds, folder: &Path) -> Result<Self> {
        let there = Self::empty(folder)?;
        let mut pages = store.keys(target, key);
        while let Some(keys) = pages.try_next().await? {
            there.add(&keys).map_err(|error| refused(folder, error))?;
        }
        Ok(there)
    }

    fn empty(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
        // its name goes as soon as it is open, so it vanishes with the process however that ends
        let named = tempfile::NamedTempFile::new_in(folder).map_err(|error| refused(folder, error))?;
        let opened = Connection::open(named.path()).and_then(|file| file.execute_batch(MADE).map(|()| file));
        Ok(Self { file: opened.map_err(|error| refused(folder, error))? })
    }

    fn add(&self, keys: &[ItemKey]) -> rusqlite::Result<()> {
        let mut insert = self.file.prepare("INSERT OR REPLACE INTO there VALUES (?1, ?2, ?3)")?;
        for key in keys {
            insert.execute(params![same(key), stored(&key.partition), key.sort.as_ref().map(stored)])?;
        }
        Ok(())
    }

    /// Whether there is such an item.
    ///
    /// # Errors
    /// `Refused` if the file can't be read.
    pub fn has(&self, key: &ItemKey) -> Result<bool> {
        let found = self.file.prepare("SELECT 1 FROM there WHERE same = ?1").and_then(|mut found| found.exists([same(key)]));
        found.map_err(failed)
    }

    /// Leaves these out, as far as they are there.
    ///
    /// # Errors
    /// `Refused` if the file can't be read; those of `keys`.
    pub fn leave_out(&self, keys: impl Iterator<Item = Result<ItemKey>>) -> Result<()> {
        let mut leave_out = self.file.prepare("DELETE FROM there WHERE same = ?1").map_err(failed)?;
        for key in keys {
            leave_out.execute([same(&key?)]).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes up to `most` of those that are left.
    ///
    /// # Errors
    /// `Refused` if the file can't be read.
    pub fn take(&self, most: usize) -> Result<Vec<ItemKey>> {
        let sql = "DELETE FROM there WHERE same IN (SELECT same FROM there LIMIT ?1) RETURNING partition, sort";
        let taken = self.file.prepare(sql).and_then(|mut taken| {
            let keys = taken.query_map([most as i64], |row| {
                let (partition, sort): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
                Ok(ItemKey { partition: read(&partition), sort: sort.as_deref().map(read) })
            })?;
            keys.collect()
        });
        taken.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_their_numbers_are_written_and_come_out_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let key = |partition, sort| ItemKey { partition, sort };
        let all = [
            key(Attribute::Number("1.50".into()), None),
            key(Attribute::Text("1.50".into()), Some(Attribute::Bytes(vec![0, 255]))),
            key(Attribute::Text(String::new()), Some(Attribute::Number("-7".into()))),
        ];
        let there = ItemsThere::empty(&folder.path().join("spill")).unwrap();
        there.add(&all).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0, "the file has no name");
        assert!(there.has(&key(Attribute::Number("1.5".into()), None)).unwrap());
        assert!(!there.has(&key(Attribute::Text("1.5".into()), None)).unwrap());
        let come = ["1.500", "9"].map(|digits| Ok(key(Attribute::Number(digits.into()), None)));
        there.leave_out(come.into_iter()).unwrap();
        let (mut one, mut rest) = (there.take(1).unwrap(), there.take(10).unwrap());
        assert_eq!((one.len(), rest.len(), there.take(10).unwrap()), (1, 1, Vec::new()));
        one.append(&mut rest);
        assert!(all[1..].iter().all(|key| one.contains(key)), "{one:?}");
    }
}
