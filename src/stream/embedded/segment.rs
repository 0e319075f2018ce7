//! The bytes of a segment file.
//!
//! A segment starts with a header of 64 bytes (integers are little-endian): `BLSG`, the format version (1), three zero bytes, the stream's UUID (16), the
//! segment's number (8), when it was begun (8, microseconds since 1970), the place of the last cut at that moment (segment 8, offset 8; 0: none),
//! CRC-32 of these 56 bytes (4), four zero bytes. Then records, each under a frame of 12 bytes: the length of its bytes (4), its lane (2), two zero bytes,
//! CRC-32 (4) over the other eight bytes of the frame and the record's.

use super::Place;
use crate::event::Lane;
use crate::time::Timestamp;
use uuid::Uuid;

const MAGIC: [u8; 4] = *b"BLSG";
const VERSION: u8 = 1;

/// No record is larger, whatever a damaged frame says.
const MOST_RECORD_BYTES: u32 = 64 << 20;

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: u64 = 64;

/// Bytes before each record.
pub(super) const FRAME_BYTES: usize = 12;

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) stream: Uuid,
    pub(super) number: u64,
    pub(super) begun: Timestamp,
    /// From where on the last cut was to be found when the segment was begun.
    pub(super) last_cut: Option<Place>,
}

impl SegmentHeader {
    pub(super) fn write(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let last_cut = self.last_cut.unwrap_or_default();
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[8..24].copy_from_slice(self.stream.as_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.begun.as_micros().to_le_bytes());
        bytes[40..48].copy_from_slice(&last_cut.segment.to_le_bytes());
        bytes[48..56].copy_from_slice(&last_cut.offset.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..56]);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `Err`: what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.get(..HEADER_BYTES as usize) else {
            return Err("it is shorter than its header");
        };
        if bytes[..4] != MAGIC {
            return Err("it does not start as a segment does");
        }
        if bytes[4] != VERSION {
            return Err("its format version is not known to this version of binlake");
        }
        let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if crc32fast::hash(&bytes[..56]).to_le_bytes() != bytes[56..60] {
            return Err("its header's checksum is wrong");
        }
        let last_cut = Place { segment: number(40), offset: number(48) };
        Ok(Self {
            stream: Uuid::from_slice(&bytes[8..24]).unwrap_or_default(),
            number: number(24),
            begun: Timestamp::from_micros(number(32) as i64),
            last_cut: (last_cut.segment > 0).then_some(last_cut),
        })
    }
}

/// Appends a record under its frame.
pub(super) fn put_record(out: &mut Vec<u8>, lane: Lane, record: &[u8]) {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame[4..6].copy_from_slice(&lane.0.to_le_bytes());
    let crc = frame_crc(&frame, record);
    frame[8..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&frame);
    out.extend_from_slice(record);
}

fn frame_crc(frame: &[u8], record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..8]);
    crc.update(record);
    crc.finalize()
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole record of this lane and length.
    Record { lane: Lane, len: usize },
    /// The bytes end before the record does, which needs this many, frame included.
    Incomplete { needs: usize },
    /// The bytes aren't a record.
    Damaged,
}

/// Looks at the frame at the start of `bytes`.
pub(super) fn read_frame(bytes: &[u8]) -> Frame {
    let Some(frame) = bytes.get(..FRAME_BYTES) else {
        return Frame::Incomplete { needs: FRAME_BYTES };
    };
    let len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
    if len > MOST_RECORD_BYTES || frame[6..8] != [0, 0] {
        return Frame::Damaged;
    }
    let len = len as usize;
    let Some(record) = bytes.get(FRAME_BYTES..FRAME_BYTES + len) else {
        return Frame::Incomplete { needs: FRAME_BYTES + len };
    };
    if frame_crc(frame, record).to_le_bytes() != frame[8..] {
        return Frame::Damaged;
    }
    Frame::Record { lane: Lane(u16::from_le_bytes([frame[4], frame[5]])), len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_damage_is_noticed() {
        let header = SegmentHeader {
            stream: Uuid::from_u128(5),
            number: 77,
            begun: Timestamp::from_micros(-9),
            last_cut: Some(Place { segment: 76, offset: 64 }),
        };
        let bytes = header.write();
        assert_eq!(SegmentHeader::read(&bytes), Ok(header));
        for bit in 0..56 * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::read(&damaged).is_err() || (40..64).contains(&bit), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_whole_incomplete_or_damaged() {
        let mut bytes = Vec::new();
        put_record(&mut bytes, Lane(3), b"hello");
        assert_eq!(read_frame(&bytes), Frame::Record { lane: Lane(3), len: 5 });
        assert_eq!(read_frame(&bytes[..7]), Frame::Incomplete { needs: 12 });
        assert_eq!(read_frame(&bytes[..16]), Frame::Incomplete { needs: 17 });
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read_frame(&damaged), Frame::Record { .. }), "bit {bit}");
        }
        assert_eq!(read_frame(&[0; 64]), Frame::Damaged);
    }
}
