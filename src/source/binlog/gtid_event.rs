//! The event that begins each transaction: its GTID and when it was committed.
//!
//! Sources: MySQL `control_events.h` (`Gtid_event`, and its tagged form in the "mysql serialization" format); MariaDB `log_event.h` (`Gtid_log_event`).

use crate::error::Result;
use crate::event::Gtid;
use crate::source::bytes::{Reader, malformed};
use crate::time::Timestamp;
use uuid::Uuid;

/// How a MariaDB transaction is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MariaDbFraming {
    /// It is one event that follows (DDL), without an end of its own.
    pub(crate) is_standalone: bool,
    /// It is the prepared part of an XA transaction.
    pub(crate) is_xa_prepare: bool,
    /// It commits or rolls back a prepared XA transaction.
    pub(crate) completes_xa: bool,
}

/// The beginning of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GtidEvent {
    /// `None` where the server has GTIDs off.
    pub(crate) gtid: Option<Gtid>,
    /// When the first server committed it; `None` where only the event's seconds tell.
    pub(crate) source_commit_time: Option<Timestamp>,
    /// MariaDB's only.
    pub(crate) framing: MariaDbFraming,
}

/// GTID and ANONYMOUS_GTID of MySQL.
pub(crate) fn parse_gtid(body: &[u8], is_anonymous: bool) -> Result<GtidEvent> {
    const LOGICAL_CLOCK: u8 = 2;
    const HAS_ORIGINAL: u64 = 1 << 55;
    let mut reader = Reader::new(body);
    reader.u8()?;
    let uuid = Uuid::from_bytes(reader.array()?);
    let number = reader.u64()?;
    let mut source_commit_time = None;
    // servers before 8.0 leave out what follows, step by step
    if reader.len() >= 17 && reader.u8()? == LOGICAL_CLOCK {
        reader.take(16)?;
        if reader.len() >= 7 {
            let immediate = reader.uint(7)?;
            let micros = if immediate & HAS_ORIGINAL != 0 { reader.uint(7)? } else { immediate };
            source_commit_time = commit_time(micros);
        }
    }
    let gtid = (!is_anonymous).then_some(Gtid::MySql { uuid, tag: String::new(), number });
    Ok(GtidEvent { gtid, source_commit_time, framing: MariaDbFraming::default() })
}

fn commit_time(micros: u64) -> Option<Timestamp> {
    i64::try_from(micros).ok().filter(|micros| *micros > 0).map(Timestamp::from_micros)
}

/// GTID_TAGGED_LOG of MySQL 8.3 and newer: fields, each with its number, in the order of the numbers.
pub(crate) fn parse_tagged_gtid(body: &[u8]) -> Result<GtidEvent> {
    let mut reader = Reader::new(body);
    if reader.u8()? != 2 {
        return Err(malformed("a tagged GTID event has an unknown version"));
    }
    variable_uint(&mut reader)?; // size of the message
    variable_uint(&mut reader)?; // last field that must be known
    let (mut uuid, mut tag, mut number) = ([0_u8; 16], String::new(), 0);
    let (mut immediate, mut original) = (0, None);
    while !reader.is_empty() {
        match variable_uint(&mut reader)? {
            1 => {
                for byte in &mut uuid {
                    *byte = u8::try_from(variable_uint(&mut reader)?).map_err(|_| malformed("a GTID's uuid is malformed"))?;
                }
            }
            2 => number = u64::try_from(variable_int(&mut reader)?).map_err(|_| malformed("a GTID's number is negative"))?,
            3 => {
                let length = usize::try_from(variable_uint(&mut reader)?).map_err(|_| malformed("a GTID's tag is too long"))?;
                tag = crate::source::bytes::name(reader.take(length)?)?.to_owned();
            }
            4 | 5 => {
                variable_int(&mut reader)?;
            }
            6 => immediate = variable_uint(&mut reader)?,
            7 => original = Some(variable_uint(&mut reader)?),
            0 | 8..=11 => {
                variable_uint(&mut reader)?;
            }
            // newer servers may add fields at the end that may be ignored
            _ => break,
        }
    }
    let gtid = Gtid::MySql { uuid: Uuid::from_bytes(uuid), tag, number };
    let source_commit_time = commit_time(original.unwrap_or(immediate));
    Ok(GtidEvent { gtid: Some(gtid), source_commit_time, framing: MariaDbFraming::default() })
}

/// The number of trailing ones in the first byte is the number of bytes that follow it.
fn variable_uint(reader: &mut Reader<'_>) -> Result<u64> {
    let first = reader.u8()?;
    let more = first.trailing_ones() as usize;
    let rest = reader.uint(more)?;
    Ok(match more {
        8 => rest,
        7 => rest,
        _ => u64::from(first) >> (more + 1) | rest << (7 - more),
    })
}

fn variable_int(reader: &mut Reader<'_>) -> Result<i64> {
    let zigzag = variable_uint(reader)?;
    let magnitude = (zigzag >> 1).cast_signed();
    Ok(if zigzag & 1 == 1 { !magnitude } else { magnitude })
}

/// GTID of MariaDB. `server_id` and `seconds` are the event header's.
pub(crate) fn parse_mariadb_gtid(body: &[u8], server_id: u32, seconds: u32) -> Result<GtidEvent> {
    const STANDALONE: u8 = 1;
    const PREPARED_XA: u8 = 64;
    const COMPLETED_XA: u8 = 128;
    let mut reader = Reader::new(body);
    let (sequence, domain, flags) = (reader.u64()?, reader.u32()?, reader.u8()?);
    Ok(GtidEvent {
        gtid: Some(Gtid::MariaDb { domain, server: server_id, sequence }),
        source_commit_time: Some(Timestamp::from_micros(i64::from(seconds) * 1_000_000)),
        framing: MariaDbFraming {
            is_standalone: flags & STANDALONE != 0,
            is_xa_prepare: flags & PREPARED_XA != 0,
            completes_xa: flags & COMPLETED_XA != 0,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_commit_time_wins() {
        let uuid = [7_u8; 16];
        let mut body = vec![1];
        body.extend_from_slice(&uuid);
        body.extend_from_slice(&42_u64.to_le_bytes());
        body.push(2);
        body.extend_from_slice(&[0; 16]);
        let immediate = 1_763_734_350_721_211_u64;
        let mut own = body.clone();
        own.extend_from_slice(&immediate.to_le_bytes()[..7]);
        let parsed = parse_gtid(&own, false).unwrap();
        assert_eq!(parsed.source_commit_time, Some(Timestamp::from_micros(1_763_734_350_721_211)));
        assert_eq!(parsed.gtid.unwrap().to_string(), format!("{}:42", Uuid::from_bytes(uuid)));
        let mut replicated = body.clone();
        replicated.extend_from_slice(&(immediate | 1 << 55).to_le_bytes()[..7]);
        replicated.extend_from_slice(&(immediate - 5).to_le_bytes()[..7]);
        assert_eq!(parse_gtid(&replicated, true).unwrap().source_commit_time, Some(Timestamp::from_micros(1_763_734_350_721_206)));
        for length in 0..25 {
            assert!(parse_gtid(&own[..length], false).is_err());
        }
    }

    #[test]
    fn variable_integers() {
        let read = |bytes: &[u8]| variable_uint(&mut Reader::new(bytes));
        assert_eq!(read(&[0b1111_1110]).unwrap(), 127);
        assert_eq!(read(&[0b0000_0001, 1]).unwrap(), 64);
        assert_eq!(read(&[0xff, 1, 0, 0, 0, 0, 0, 0, 1]).unwrap(), 1 | 1 << 56);
        assert_eq!(read(&[0x7f, 5, 0, 0, 0, 0, 0, 0]).unwrap(), 5);
        assert!(read(&[0xff, 1]).is_err());
        assert_eq!(variable_int(&mut Reader::new(&[0b1010])).unwrap(), -3);
    }
}
