//! TRANSACTION_PAYLOAD: the events of a transaction, compressed (`binlog_transaction_compression`).
//!
//! Decompressed as a stream, one event at a time in memory, so that memory is bounded by the largest event however well a transaction compresses.

use super::event::HEADER_BYTES;
use crate::error::{Area, Error, Kind, Result};
use crate::source::bytes::{Reader, malformed};
use bytes::{Buf, Bytes};
use std::fmt;
use std::io::Read;

/// No event is larger than the protocol's largest packet.
const MAX_EVENT_BYTES: usize = 1 << 30;

/// The events inside a payload. They have no checksums, and no positions of their own.
pub(crate) struct PayloadEvents {
    input: Box<dyn Read + Send + Sync>,
    event: Vec<u8>,
}

impl fmt::Debug for PayloadEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadEvents").finish_non_exhaustive()
    }
}

impl PayloadEvents {
    /// Opens a payload event's body.
    pub(crate) fn open(body: Bytes) -> Result<Self> {
        const END: u64 = 0;
        const SIZE: u64 = 1;
        const COMPRESSION: u64 = 2;
        const ZSTD: u64 = 0;
        const UNCOMPRESSED: u64 = 255;
        let mut reader = Reader::new(&body);
        let (mut size, mut compression) = (None, UNCOMPRESSED);
        loop {
            match reader.length()? {
                END => break,
                SIZE => size = Some(Reader::new(reader.sized()?).count()?),
                COMPRESSION => compression = Reader::new(reader.sized()?).length()?,
                _ => {
                    reader.sized()?;
                }
            }
        }
        let size = size.ok_or_else(|| malformed("a compressed transaction doesn't say its size"))?;
        let payload = body.slice_ref(reader.take(size)?).reader();
        let input: Box<dyn Read + Send + Sync> = match compression {
            ZSTD => Box::new(zstd::stream::read::Decoder::with_buffer(payload).map_err(broken)?),
            UNCOMPRESSED => Box::new(payload),
            other => {
                return Err(Error::new(Area::Source, Kind::Data, "a transaction is compressed in a way that binlake doesn't know")
                    .with("compression", other));
            }
        };
        Ok(Self { input, event: Vec::new() })
    }

    /// The next event, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        self.event.resize(HEADER_BYTES, 0);
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match self.input.read(self.event.get_mut(filled..).unwrap_or_default()).map_err(broken)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("a compressed transaction ends in the middle of an event")),
                read => filled += read,
            }
        }
        let size = Reader::new(self.event.get(9..13).unwrap_or_default()).u32()? as usize;
        if !(HEADER_BYTES..=MAX_EVENT_BYTES).contains(&size) {
            return Err(malformed("an event in a compressed transaction has an impossible size"));
        }
        // grows with what is really there, not with what the header claims
        let more = (size - HEADER_BYTES) as u64;
        let read = (&mut self.input).take(more).read_to_end(&mut self.event).map_err(broken)?;
        if read as u64 != more {
            return Err(malformed("a compressed transaction ends in the middle of an event"));
        }
        Ok(Some(&self.event))
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::new(Area::Source, Kind::Data, "a compressed transaction can't be decompressed").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[9..13].copy_from_slice(&u32::try_from(HEADER_BYTES + length).unwrap().to_le_bytes());
        bytes.extend(std::iter::repeat_n(5, length));
        bytes
    }

    fn payload(compressed: &[u8]) -> Bytes {
        let mut body = vec![2, 1, 0, 1, 5, 0xfe];
        body[4] = 9;
        body.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
        body.push(0);
        body.extend_from_slice(compressed);
        body.into()
    }

    #[test]
    fn events_come_out_one_by_one_and_damage_is_an_error() {
        let events = [event(3), event(100_000), event(0)];
        let compressed = zstd::encode_all(&events.concat()[..], 3).unwrap();
        let body = payload(&compressed);
        let mut opened = PayloadEvents::open(body.clone()).unwrap();
        for event in &events {
            assert_eq!(opened.next().unwrap().unwrap(), event);
        }
        assert!(opened.next().unwrap().is_none());
        let cut = payload(&compressed[..compressed.len() / 2]);
        let mut opened = PayloadEvents::open(cut).unwrap();
        let outcome = std::iter::from_fn(|| opened.next().map(|event| event.map(|_| ())).transpose()).collect::<Result<Vec<_>>>();
        assert!(outcome.is_err());
        assert!(PayloadEvents::open(body.slice(..10)).is_err());
    }
}
