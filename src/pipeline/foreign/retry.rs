//! Dead letters that are to be read once more: files in `_retry/` beside the table of dead letters, one a lot, read by the service and never changed.
//!
//! A lot is a shard of its own to the stream's reader, so its records are read exactly once, as all others are.

use crate::error::{Area, Error, Kind, Result};
use crate::event::{Gtid, GtidSet, TableId};
use crate::format::{ForeignRecord, dead_letter_table};
use crate::pipeline::apply::Edge;
use crate::stream::{RetryLot, RetryQueue};
use crate::table::Lake;
use crate::time::Timestamp;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The folder of the lots, in the folder of a table of dead letters.
pub const RETRY_FOLDER: &str = "_retry";
/// What a lot's name ends with.
const LOT: &str = ".jsonl";
/// How often lots are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A letter in a lot.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    position: String,
    arrived_at: Timestamp,
    raw: String,
}

/// The lots of a feed's tables.
#[derive(Debug)]
pub(super) struct LakeRetries {
    lake: Lake,
    tables: Vec<TableId>,
    /// By which rules the loop goes: who asks for dead letters to be read again has corrected them, so lots wait for the newest.
    edge: Option<Edge>,
    next_look: Mutex<Instant>,
}

impl LakeRetries {
    pub(super) fn new(lake: Lake, tables: Vec<TableId>, edge: Option<Edge>) -> Self {
        Self { lake, tables, edge, next_look: Mutex::new(Instant::now()) }
    }
}

fn folder(lake: &Lake, table: &TableId) -> Path {
    folder_of(lake, &dead_letter_table(table))
}

/// Where it is asked for that letters of this table of dead letters are tried again.
pub(in crate::pipeline) fn folder_of(lake: &Lake, letters: &TableId) -> Path {
    let base = lake.table_path(letters.database(), letters.name());
    Path::from_iter(base.parts().chain([RETRY_FOLDER.into()]))
}

fn refused(error: object_store::Error, path: &Path) -> Error {
    Error::new(Area::Lake, Kind::Transient, "dead letters that are to be read again can't be reached")
        .caused_by(error)
        .with("path", path)
}

#[async_trait]
impl RetryQueue for LakeRetries {
    async fn next(&self, is_done: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Result<Option<RetryLot>> {
        let is_early = Instant::now() < *self.next_look.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is_early {
            return Ok(None);
        }
        let lot = self.look(is_done).await?;
        if lot.is_none() {
            // only now: a look that was cancelled is none
            *self.next_look.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now() + LOOK_INTERVAL;
        }
        Ok(lot)
    }
}

impl LakeRetries {
    /// The first lot that wasn't read.
    async fn look(&self, is_done: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Result<Option<RetryLot>> {
        for table in &self.tables {
            let folder = folder(&self.lake, table);
            let listed = self.lake.store().list_with_delimiter(Some(&folder)).await.map_err(|error| refused(error, &folder))?;
            for object in listed.objects {
                let name = format!("retry/{}", object.location.filename().unwrap_or_default());
                if is_done(&name) {
                    continue;
                }
                if let Some(edge) = &self.edge
                    && !edge.is_surely_newest().await?
                {
                    return Ok(None);
                }
                let letters = lot(&self.lake, &object.location, &name).await?;
                return Ok(Some(RetryLot { name: name.as_str().into(), table: table.clone(), letters }));
            }
        }
        Ok(None)
    }
}

fn letter(lot: &str, line: &[u8]) -> Result<(String, ForeignRecord)> {
    let damaged = || Error::new(Area::Lake, Kind::Corrupt, "a lot of dead letters is damaged").with("lot", lot);
    let letter: Letter = serde_json::from_slice(line).map_err(|error| damaged().caused_by(error))?;
    let bytes = STANDARD.decode(&letter.raw).map_err(|error| damaged().caused_by(error))?;
    Ok((
        letter.position,
        ForeignRecord { shard: lot.into(), offset: 0, arrived_at: letter.arrived_at, key: None, bytes: bytes.into() },
    ))
}

/// The dead letters of `table` (by their positions) in lots that no service has read yet: `has_read` are the records that the table of dead letters has.
///
/// # Errors
/// If the lake can't be read.
pub async fn waiting_letters(lake: &Lake, table: &TableId, has_read: &GtidSet) -> Result<BTreeSet<String>> {
    let folder = folder(lake, table);
    let listed = lake.store().list_with_delimiter(Some(&folder)).await.map_err(|error| refused(error, &folder))?;
    let mut waiting = BTreeSet::new();
    for object in listed.objects {
        let name = format!("retry/{}", object.location.filename().unwrap_or_default());
        if !has_read.contains(&Gtid::Record { shard: name.as_str().into(), number: 1 }) {
            waiting.extend(lot(lake, &object.location, &name).await?.into_iter().map(|(position, _)| position));
        }
    }
    Ok(waiting)
}

/// The lots of a table of dead letters.
pub(in crate::pipeline) async fn lots_of(lake: &Lake, letters: &TableId) -> Result<Vec<Path>> {
    let folder = folder_of(lake, letters);
    let listed = lake.store().list_with_delimiter(Some(&folder)).await.map_err(|error| refused(error, &folder))?;
    let lots = listed.objects.into_iter().map(|object| object.location);
    Ok(lots.filter(|path| path.filename().is_some_and(|name| name.ends_with(LOT))).collect())
}

/// Empties the letters of a lot for whose bytes `is_meant` holds. They stay as letters without a record, which nothing is made of: a reader counts them.
pub(in crate::pipeline) async fn blank_letters(lake: &Lake, path: &Path, is_meant: impl Fn(&[u8]) -> bool) -> Result<()> {
    let mut letters = lot(lake, path, path.filename().unwrap_or_default()).await?;
    let mut has_meant = false;
    for (_, record) in letters.iter_mut().filter(|(_, record)| is_meant(&record.bytes)) {
        record.bytes = Bytes::new();
        has_meant = true;
    }
    if !has_meant {
        return Ok(());
    }
    let letters = letters.into_iter().map(|(position, record)| (position, record.arrived_at, record.bytes.to_vec()));
    lake.store().put(path, encoded(&letters.collect::<Vec<_>>())?.into()).await.map_err(|error| refused(error, path))?;
    Ok(())
}

async fn lot(lake: &Lake, path: &Path, name: &str) -> Result<Vec<(String, ForeignRecord)>> {
    let bytes = lake.store().get(path).await.map_err(|error| refused(error, path))?;
    let bytes = bytes.bytes().await.map_err(|error| refused(error, path))?;
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| letter(name, line)).collect()
}

fn encoded(letters: &[(String, Timestamp, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (position, arrived_at, raw) in letters {
        let letter = Letter { position: position.clone(), arrived_at: *arrived_at, raw: STANDARD.encode(raw) };
        let line = serde_json::to_vec(&letter).map_err(|error| Error::bug("a dead letter can't be written").caused_by(error))?;
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    Ok(text)
}

/// Puts dead letters of `table` (position, arrival, bytes) into a lot, which a running service reads.
///
/// # Errors
/// If the lake can't be written.
pub async fn retry_lot(lake: &Lake, table: &TableId, letters: &[(String, Timestamp, Vec<u8>)]) -> Result<()> {
    let text = encoded(letters)?;
    // named by time, so that lots are read in their order
    let name = format!("{:020}-{}{LOT}", Timestamp::now().as_micros(), uuid::Uuid::new_v4());
    let folder = folder(lake, table);
    let path = Path::from_iter(folder.parts().chain([name.as_str().into()]));
    lake.store().put(&path, text.into()).await.map_err(|error| refused(error, &path))?;
    Ok(())
}
