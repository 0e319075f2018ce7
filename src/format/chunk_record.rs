//! The record behind a chunk's rows: Binlake's own, in the clothes of a control record.

use super::damaged;
use crate::error::{Error, Result};
use crate::event::{ChunkHeader, ChunkIndex, Cut, CutNumber, CutPoint, Epoch, Lane, TableSchema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How such a record begins.
const PREFIX: &[u8] = b"{\"binlake\":{";
/// A cut that takes more is packed.
const LARGE_CUT_BYTES: usize = 64 << 10;
/// The largest cut that is unpacked.
const MOST_CUT_BYTES: usize = 256 << 20;

/// What it says. A sample is in `tests/data/format/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkRecord {
    version: u32,
    /// The lane.
    pub lane: Lane,
    epoch: Epoch,
    producer: u32,
    chunk: ChunkIndex,
    window: CutNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumed_from: Option<CutPoint>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    opens_epoch: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    starts_window: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ends_with_cut: bool,
    /// How many marked records came before it.
    pub records: u64,
    /// CRC-32 over their bytes, one after the other.
    pub crc: u32,
    /// The shapes of the rows: each from the record with this number on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<(u64, TableSchema)>,
    /// The cut, where it travels: as JSON, or as the base64 of a zstd frame of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut: Option<Value>,
}

impl ChunkRecord {
    /// The record of the chunk with `header`.
    ///
    /// # Errors
    /// `Bug` if the cut can't be written.
    pub fn new(header: &ChunkHeader, records: u64, crc: u32, shapes: Vec<(u64, TableSchema)>, cut: Option<&Cut>) -> Result<Self> {
        let failed = |error: serde_json::Error| Error::bug("a cut can't be written").caused_by(error);
        let cut = match cut {
            None => None,
            Some(cut) => {
                let text = serde_json::to_vec(cut).map_err(failed)?;
                Some(if text.len() < LARGE_CUT_BYTES {
                    serde_json::from_slice(&text).map_err(failed)?
                } else {
                    let packed =
                        zstd::bulk::compress(&text, 3).map_err(|error| Error::bug("a cut can't be packed").caused_by(error))?;
                    STANDARD.encode(packed).into()
                })
            }
        };
        Ok(Self {
            version: 1,
            lane: header.lane,
            epoch: header.epoch,
            producer: header.producer,
            chunk: header.index,
            window: header.window,
            resumed_from: header.resumed_from,
            opens_epoch: header.opens_epoch,
            starts_window: header.starts_window,
            ends_with_cut: header.ends_with_cut,
            records,
            crc,
            shapes,
            cut,
        })
    }

    /// Whether `record` is such a record, by its first bytes.
    pub fn is_one(record: &[u8]) -> bool {
        record.starts_with(PREFIX)
    }

    /// Reads a record that [is one](Self::is_one).
    ///
    /// # Errors
    /// `Corrupt` if it isn't.
    pub fn read(record: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Whole {
            binlake: ChunkRecord,
        }
        let Whole { binlake } =
            serde_json::from_slice(record).map_err(|error| damaged("a chunk's own record can't be read").caused_by(error))?;
        if binlake.version != 1 {
            return Err(damaged("a chunk's own record is of a newer version").with("version", binlake.version));
        }
        Ok(binlake)
    }

    /// The record's bytes, with what the format has beside.
    ///
    /// # Errors
    /// `Bug` if it can't be written.
    pub fn write(&self, beside: Value) -> Result<Vec<u8>> {
        let failed = |error: serde_json::Error| Error::bug("a chunk's own record can't be written").caused_by(error);
        let mut whole = serde_json::Map::new();
        whole.insert("binlake".into(), serde_json::to_value(self).map_err(failed)?);
        if let Value::Object(fields) = beside {
            whole.extend(fields);
        }
        serde_json::to_vec(&whole).map_err(failed)
    }

    /// Whose and which.
    pub fn place(&self) -> (Epoch, ChunkIndex) {
        (self.epoch, self.chunk)
    }

    /// The chunk's header, for a payload with a control frame of `control_bytes`.
    pub fn header(&self, payload_bytes: u64, control_bytes: u32) -> ChunkHeader {
        ChunkHeader {
            lane: self.lane,
            epoch: self.epoch,
            producer: self.producer,
            index: self.chunk,
            window: self.window,
            resumed_from: self.resumed_from,
            opens_epoch: self.opens_epoch,
            starts_window: self.starts_window,
            ends_with_cut: self.ends_with_cut,
            payload_bytes,
            part_start: 0,
            control_bytes,
        }
    }

    /// The cut, where this record carries it.
    ///
    /// # Errors
    /// `Corrupt` if it can't be read.
    pub fn cut(&self) -> Result<Option<Cut>> {
        let wrong = |error: serde_json::Error| damaged("a chunk's cut can't be read").caused_by(error);
        match &self.cut {
            None => Ok(None),
            Some(Value::String(packed)) => {
                let frame = STANDARD.decode(packed).map_err(|_| damaged("a chunk's cut is not base64"))?;
                let text = zstd::bulk::decompress(&frame, MOST_CUT_BYTES)
                    .map_err(|error| damaged("a chunk's cut can't be unpacked").caused_by(error))?;
                serde_json::from_slice(&text).map(Some).map_err(wrong)
            }
            Some(value) => Cut::deserialize(value).map(Some).map_err(wrong),
        }
    }
}
