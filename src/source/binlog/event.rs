//! The header that all events have, their checksum, and the events that say where in which file we are.
//!
//! Source: MySQL internals, `libs/mysql/binlog/event/binlog_event.h` and `control_events.h`.

use crate::error::{Area, Error, Kind, Result};
use crate::source::bytes::{Reader, malformed};

/// Event types, as MySQL and MariaDB number them.
pub(crate) mod kind {
    pub(crate) const QUERY: u8 = 2;
    pub(crate) const STOP: u8 = 3;
    pub(crate) const ROTATE: u8 = 4;
    pub(crate) const FORMAT_DESCRIPTION: u8 = 15;
    pub(crate) const XID: u8 = 16;
    pub(crate) const TABLE_MAP: u8 = 19;
    pub(crate) const WRITE_ROWS_V1: u8 = 23;
    pub(crate) const UPDATE_ROWS_V1: u8 = 24;
    pub(crate) const DELETE_ROWS_V1: u8 = 25;
    pub(crate) const INCIDENT: u8 = 26;
    pub(crate) const HEARTBEAT: u8 = 27;
    pub(crate) const ROWS_QUERY: u8 = 29;
    pub(crate) const WRITE_ROWS: u8 = 30;
    pub(crate) const UPDATE_ROWS: u8 = 31;
    pub(crate) const DELETE_ROWS: u8 = 32;
    pub(crate) const GTID: u8 = 33;
    pub(crate) const ANONYMOUS_GTID: u8 = 34;
    pub(crate) const PREVIOUS_GTIDS: u8 = 35;
    pub(crate) const XA_PREPARE: u8 = 38;
    pub(crate) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(crate) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(crate) const HEARTBEAT_V2: u8 = 41;
    pub(crate) const GTID_TAGGED: u8 = 42;
    pub(crate) const MARIADB_ANNOTATE_ROWS: u8 = 160;
    pub(crate) const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    pub(crate) const MARIADB_GTID: u8 = 162;
    pub(crate) const MARIADB_GTID_LIST: u8 = 163;
    pub(crate) const MARIADB_START_ENCRYPTION: u8 = 164;
    pub(crate) const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub(crate) const MARIADB_ROWS_COMPRESSED_FIRST: u8 = 166;
    pub(crate) const MARIADB_ROWS_COMPRESSED_LAST: u8 = 171;
}

/// Bytes of an event's header.
pub(crate) const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;
/// The event was made for this connection and isn't in the file (or its position means nothing).
const FLAG_ARTIFICIAL: u16 = 0x20;
/// The server will add events of unknown types that may be skipped.
const FLAG_IGNORABLE: u16 = 0x80;
const FLAG_BINLOG_IN_USE: u8 = 1;

/// One event: its header, and its body without the checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    /// When it was written, in seconds since 1970.
    pub(crate) seconds: u32,
    /// Its type: see [`kind`].
    pub(crate) kind: u8,
    /// The `server_id` of the server that wrote it first.
    pub(crate) server_id: u32,
    /// Bytes of the whole event.
    pub(crate) size: u32,
    /// The low 32 bits of the offset of the event's end in its file; 0 where it has none.
    pub(crate) end: u32,
    flags: u16,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl Event<'_> {
    /// Whether the event isn't in the binlog file.
    pub(crate) fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0
    }

    /// Whether an event of an unknown type may be skipped.
    pub(crate) fn is_ignorable(&self) -> bool {
        self.flags & FLAG_IGNORABLE != 0
    }
}

/// Whether events end with a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Checksum {
    /// No format description was seen yet: as the bytes tell.
    #[default]
    Unknown,
    /// None.
    None,
    /// CRC-32.
    Crc32,
}

/// Splits an event into header and body, and verifies its checksum.
pub(crate) fn parse_event(bytes: &[u8], checksum: Checksum) -> Result<Event<'_>> {
    let mut reader = Reader::new(bytes);
    let (seconds, kind, server_id) = (reader.u32()?, reader.u8()?, reader.u32()?);
    let (size, end, flags) = (reader.u32()?, reader.u32()?, reader.u16()?);
    if size as usize != bytes.len() {
        return Err(malformed("an event's size is not that of its bytes"));
    }
    let body = reader.rest();
    let body = match (kind, checksum) {
        // it always has room for one, and says itself whether it is used
        (kind::FORMAT_DESCRIPTION, _) | (_, Checksum::None) => body,
        (_, Checksum::Crc32) => match verified(bytes, kind) {
            Some(body) => body,
            None => return Err(damaged(kind)),
        },
        (_, Checksum::Unknown) => verified(bytes, kind).unwrap_or(body),
    };
    Ok(Event { seconds, kind, server_id, size, end, flags, body })
}

fn damaged(kind: u8) -> Error {
    Error::new(Area::Source, Kind::Transient, "an event's checksum is wrong")
        .with("event", kind)
        .remedy("it is read again; if it stays, the server's binlog file is damaged: check its disk, then take a new snapshot")
}

/// The body if the last four bytes are the checksum of what comes before.
fn verified(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    let (content, stored) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (header, body) = content.split_first_chunk::<HEADER_BYTES>()?;
    let mut hasher = crc32fast::Hasher::new();
    if kind == kind::FORMAT_DESCRIPTION {
        // the flag that the file is open is set without a new checksum
        let mut header = *header;
        header[17] &= !FLAG_BINLOG_IN_USE;
        hasher.update(&header);
        hasher.update(body);
    } else {
        hasher.update(content);
    }
    (hasher.finalize() == u32::from_le_bytes(*stored)).then_some(body)
}

/// What a format description says of the events that follow.
pub(crate) fn parse_format_description(bytes: &[u8]) -> Result<Checksum> {
    let mut reader = Reader::new(bytes);
    reader.take(HEADER_BYTES)?;
    let version = reader.u16()?;
    if version != 4 {
        return Err(
            Error::new(Area::Source, Kind::Refused, "the binlog has a version that binlake doesn't read").with("version", version)
        );
    }
    // server version (50), time of creation (4), header length (1)
    reader.take(55)?;
    let algorithm = bytes.len().checked_sub(CHECKSUM_BYTES + 1).and_then(|place| bytes.get(place));
    match algorithm {
        Some(0) => Ok(Checksum::None),
        Some(1) => match verified(bytes, kind::FORMAT_DESCRIPTION) {
            Some(_) => Ok(Checksum::Crc32),
            None => Err(damaged(kind::FORMAT_DESCRIPTION)),
        },
        _ => Err(Error::new(Area::Source, Kind::Refused, "the binlog's checksum algorithm is unknown")),
    }
}

/// Whether a format description comes from MariaDB: it names its server.
pub(crate) fn is_from_mariadb(bytes: &[u8]) -> bool {
    // after the header and the binlog's version
    let name = bytes.get(HEADER_BYTES + 2..HEADER_BYTES + 52).unwrap_or_default();
    name.windows(7).any(|window| window.eq_ignore_ascii_case(b"mariadb"))
}

/// ROTATE: the file that comes next, and the offset in it.
pub(crate) fn parse_rotate(body: &[u8]) -> Result<(String, u64)> {
    let mut reader = Reader::new(body);
    let offset = reader.u64()?;
    Ok((crate::source::bytes::name(reader.rest())?.to_owned(), offset))
}

/// HEARTBEAT_V2: the server stands at this file and offset. (A first heartbeat has the file as body, and the offset in its header.)
pub(crate) fn parse_heartbeat_v2(body: &[u8]) -> Result<(String, u64)> {
    const END: u64 = 0;
    const FILE: u64 = 1;
    const OFFSET: u64 = 2;
    let mut reader = Reader::new(body);
    let (mut file, mut offset) = (String::new(), 0);
    while !reader.is_empty() {
        match reader.length()? {
            END => break,
            FILE => file = crate::source::bytes::name(reader.sized()?)?.to_owned(),
            OFFSET => offset = Reader::new(reader.sized()?).length()?,
            _ => {
                reader.sized()?;
            }
        }
    }
    Ok((file, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER_BYTES + body.len() + 4).unwrap();
        let mut bytes =
            [&7_u32.to_le_bytes()[..], &[kind], &1_u32.to_le_bytes(), &size.to_le_bytes(), &500_u32.to_le_bytes(), &[0, 0], body]
                .concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn a_flipped_bit_is_noticed_anywhere() {
        let good = event(kind::XID, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(parse_event(&good, Checksum::Crc32).unwrap().body, [1, 2, 3, 4, 5, 6, 7, 8]);
        for place in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[place / 8] ^= 1 << (place % 8);
            // a flip in the type could make it a format description, which is verified apart
            if bad[4] != kind::FORMAT_DESCRIPTION {
                assert!(parse_event(&bad, Checksum::Crc32).is_err(), "bit {place}");
            }
        }
        for length in 0..good.len() {
            assert!(parse_event(&good[..length], Checksum::Crc32).is_err());
        }
    }

    #[test]
    fn before_the_format_description_the_bytes_tell_whether_there_is_a_checksum() {
        let with = event(kind::ROTATE, b"\x04\0\0\0\0\0\0\0binlog.000007");
        let rotate = parse_event(&with, Checksum::Unknown).unwrap();
        assert_eq!(parse_rotate(rotate.body).unwrap(), ("binlog.000007".to_owned(), 4));
        let mut without = with[..with.len() - 4].to_vec();
        let size = u32::try_from(without.len()).unwrap().to_le_bytes();
        without[9..13].copy_from_slice(&size);
        let rotate = parse_event(&without, Checksum::Unknown).unwrap();
        assert_eq!(parse_rotate(rotate.body).unwrap(), ("binlog.000007".to_owned(), 4));
    }

    #[test]
    fn heartbeats_of_the_second_kind_have_64_bit_offsets() {
        let mut body = vec![1, 13];
        body.extend_from_slice(b"binlog.000007");
        body.extend_from_slice(&[2, 9, 0xfe]);
        body.extend_from_slice(&5_000_000_000_u64.to_le_bytes());
        body.push(0);
        assert_eq!(parse_heartbeat_v2(&body).unwrap(), ("binlog.000007".to_owned(), 5_000_000_000));
    }
}
