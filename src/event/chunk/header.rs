//! The header of a record: which piece of which chunk of which producer it is, and a checksum over all of it.
//!
//! | offset | bytes | what (integers are little-endian) |
//! |---|---|---|
//! | 0 | 4 | `BLCK` |
//! | 4 | 1 | format version: 1 |
//! | 5 | 1 | flags: 1 opens an epoch (and is nothing else), 2 first chunk of its window, 4 a cut ends it |
//! | 6 | 2 | lane |
//! | 8 | 8 | epoch, from 1 |
//! | 16 | 8 | index of the record on its lane within the epoch; 0 opens it; the parts of a chunk have consecutive ones |
//! | 24 | 8 | window: the number of the cut that will close it |
//! | 32 | 8 | epoch of the cut from which the producer resumed, 0 for none |
//! | 40 | 8 | number of that cut |
//! | 48 | 8 | payload bytes of the whole chunk |
//! | 56 | 8 | where in the payload this record's part starts; a record whose part ends where the payload ends is the chunk's last |
//! | 64 | 4 | bytes of the control frame, with which the payload starts |
//! | 68 | 4 | the producer's own number, drawn at random, so that two producers with one epoch are noticed |
//! | 72 | 4 | CRC-32 (IEEE) over all bytes of the record but these four |
//! | 76 | … | a part of the payload |

use super::damaged;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{ChunkIndex, CutNumber, CutPoint, Epoch, Lane};
use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: [u8; 4] = *b"BLCK";
const VERSION: u8 = 1;
const OPENS_EPOCH: u8 = 1;
const STARTS_WINDOW: u8 = 2;
const ENDS_WITH_CUT: u8 = 4;

/// What stands before a record's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The record's lane.
    pub lane: Lane,
    /// The producer's epoch.
    pub epoch: Epoch,
    /// The producer's own number, drawn at random: two producers may not have one epoch.
    pub producer: u32,
    /// The record's place on its lane within the epoch.
    pub index: ChunkIndex,
    /// The number of the cut that closes the window to which the chunk belongs.
    pub window: CutNumber,
    /// Where the producer resumed; `None` for the first producer of a stream.
    pub resumed_from: Option<CutPoint>,
    /// Whether the record opens its epoch on its lane, and closes the lane to all earlier producers: it has index 0 and nothing else.
    pub opens_epoch: bool,
    /// Whether the chunk is the first of its window on its lane.
    pub starts_window: bool,
    /// Whether the chunk ends with the cut `window`. The cut itself travels on lane 0 only.
    pub ends_with_cut: bool,
    /// Bytes of the whole chunk's payload.
    pub payload_bytes: u64,
    /// Where in the payload this record's part starts, in bytes.
    pub part_start: u64,
    /// Bytes of the control frame at the payload's start.
    pub control_bytes: u32,
}

impl ChunkHeader {
    /// Bytes that a header takes.
    pub const BYTES: usize = 76;

    /// The header of the record that opens an epoch on a lane.
    pub fn opening(lane: Lane, epoch: Epoch, producer: u32) -> Self {
        Self {
            lane,
            epoch,
            producer,
            index: ChunkIndex(0),
            window: CutNumber::default(),
            resumed_from: None,
            opens_epoch: true,
            starts_window: false,
            ends_with_cut: false,
            payload_bytes: 0,
            part_start: 0,
            control_bytes: 0,
        }
    }

    /// Whether the record has its chunk's first part.
    pub fn is_first_part(&self) -> bool {
        self.part_start == 0
    }

    /// The record: this header and `part`.
    pub fn record(&self, part: &[u8]) -> Bytes {
        let mut record = BytesMut::with_capacity(Self::BYTES + part.len());
        record.put_slice(&MAGIC);
        record.put_u8(VERSION);
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        record.put_u8(
            flag(self.opens_epoch, OPENS_EPOCH) | flag(self.starts_window, STARTS_WINDOW) | flag(self.ends_with_cut, ENDS_WITH_CUT),
        );
        record.put_u16_le(self.lane.0);
        record.put_u64_le(self.epoch.0);
        record.put_u64_le(self.index.0);
        record.put_u64_le(self.window.0);
        record.put_u64_le(self.resumed_from.map_or(0, |cut| cut.epoch.0));
        record.put_u64_le(self.resumed_from.map_or(0, |cut| cut.number.0));
        record.put_u64_le(self.payload_bytes);
        record.put_u64_le(self.part_start);
        record.put_u32_le(self.control_bytes);
        record.put_u32_le(self.producer);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&record);
        crc.update(part);
        record.put_u32_le(crc.finalize());
        record.put_slice(part);
        record.freeze()
    }

    /// Reads a record: its header, and the part of the payload that it has. Verifies the checksum and that the numbers fit each other.
    pub fn read(record: &Bytes) -> Result<(Self, Bytes)> {
        let (header, stored) = Self::peek(record)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&record[..Self::BYTES - 4]);
        crc.update(&record[Self::BYTES..]);
        if crc.finalize() != stored {
            return Err(damaged("its checksum is wrong"));
        }
        let part = record.slice(Self::BYTES..);
        let part_end = header.part_start.checked_add(part.len() as u64);
        let fits = part_end.is_some_and(|end| end <= header.payload_bytes)
            && u64::from(header.control_bytes) <= header.payload_bytes
            && (!part.is_empty() || header.payload_bytes == 0)
            && header.opens_epoch == (header.index == ChunkIndex(0))
            && !(header.opens_epoch && header.payload_bytes > 0)
            && header.epoch.0 > 0;
        if fits { Ok((header, part)) } else { Err(damaged("its header contradicts itself")) }
    }

    /// Reads a record's header alone, without its checksum, which is returned: for who must know what passes but not what it says.
    pub fn peek(record: &[u8]) -> Result<(Self, u32)> {
        let Some(bytes) = record.get(..Self::BYTES) else {
            return Err(damaged("it is shorter than its header"));
        };
        if bytes[..4] != MAGIC {
            return Err(damaged("it does not start as a chunk does"));
        }
        if bytes[4] != VERSION {
            return Err(Error::new(
                Area::Stream,
                Kind::Refused,
                "a chunk on the stream has a format that this version does not know",
            )
            .with("format_version", bytes[4])
            .remedy("run the version of binlake that wrote it, or a newer one"));
        }
        let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let short = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let header = Self {
            lane: Lane(u16::from_le_bytes([bytes[6], bytes[7]])),
            epoch: Epoch(number(8)),
            index: ChunkIndex(number(16)),
            window: CutNumber(number(24)),
            resumed_from: match number(32) {
                0 => None,
                epoch => Some(CutPoint { epoch: Epoch(epoch), number: CutNumber(number(40)) }),
            },
            opens_epoch: bytes[5] & OPENS_EPOCH != 0,
            starts_window: bytes[5] & STARTS_WINDOW != 0,
            ends_with_cut: bytes[5] & ENDS_WITH_CUT != 0,
            payload_bytes: number(48),
            part_start: number(56),
            control_bytes: short(64),
            producer: short(68),
        };
        Ok((header, short(72)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let header = ChunkHeader {
            lane: Lane(513),
            epoch: Epoch(3),
            producer: 0xdead_beef,
            index: ChunkIndex(u64::MAX),
            window: CutNumber(77),
            resumed_from: Some(CutPoint { epoch: Epoch(1), number: CutNumber(70) }),
            opens_epoch: false,
            starts_window: true,
            ends_with_cut: false,
            payload_bytes: 10,
            part_start: 3,
            control_bytes: 2,
        };
        let record = header.record(b"abcdefg");
        let (back, part) = ChunkHeader::read(&record).unwrap();
        assert_eq!((back, &part[..]), (header, &b"abcdefg"[..]));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::read(&damaged.into()).is_err(), "bit {bit}");
        }
        for len in 0..record.len() {
            assert!(ChunkHeader::read(&record.slice(..len)).is_err(), "length {len}");
        }
    }
}
