//! Binlog files on disk: archives, and what tests and benchmarks recorded.

use super::event::HEADER_BYTES;
use crate::error::{Area, Error, Kind, Result};
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];

/// The events of one binlog file, in their order.
#[derive(Debug)]
pub struct BinlogFile {
    path: PathBuf,
    input: BufReader<File>,
}

impl BinlogFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(Area::Source, Kind::Refused, "a binlog file can't be read").caused_by(error).with("path", path.display())
        };
        let mut input = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(failed)?;
        if magic != MAGIC {
            return Err(
                Error::new(Area::Source, Kind::Refused, "the file is no binlog (or an encrypted one)").with("path", path.display())
            );
        }
        Ok(Self { path: path.to_owned(), input })
    }

    fn read_event(&mut self) -> Result<Option<Bytes>> {
        let mut event = Vec::with_capacity(HEADER_BYTES);
        (&mut self.input).take(HEADER_BYTES as u64).read_to_end(&mut event).map_err(|error| self.damaged().caused_by(error))?;
        if event.is_empty() {
            return Ok(None);
        }
        let size = event.get(9..13).and_then(|size| size.try_into().ok()).map_or(0, u32::from_le_bytes);
        let more = (size as usize).checked_sub(HEADER_BYTES).ok_or_else(|| self.damaged())? as u64;
        let read = (&mut self.input).take(more).read_to_end(&mut event).map_err(|error| self.damaged().caused_by(error))?;
        if read as u64 != more {
            return Err(self.damaged());
        }
        Ok(Some(event.into()))
    }

    fn damaged(&self) -> Error {
        Error::new(Area::Source, Kind::Corrupt, "a binlog file ends in the middle of an event")
            .with("path", self.path.display())
            .remedy("copy the file again after the server has closed it")
    }
}

impl Iterator for BinlogFile {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_event().transpose()
    }
}
