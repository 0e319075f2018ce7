//! The transactions of a chunk, column by column: differences from one to the next, so that zstd leaves a byte or two of each.

use super::damaged;
use super::wire::{Wire, put_bytes, put_int, put_len, put_uint};
use crate::error::Result;
use crate::event::{BinlogCoordinates, Gtid, TransactionStamp};
use crate::time::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// The part of a GTID that most transactions share.
#[derive(Debug, Clone, PartialEq)]
enum Origin {
    None,
    MySql { uuid: Uuid, tag: String },
    MariaDb { domain: u32, server: u32 },
    Record { shard: Arc<str> },
}

impl Origin {
    /// Whether `gtid` has this origin: then its number.
    fn number(&self, gtid: Option<&Gtid>) -> Option<u64> {
        match (self, gtid) {
            (Origin::None, None) => Some(0),
            (Origin::MySql { uuid, tag }, Some(Gtid::MySql { uuid: its, tag: its_tag, number }))
                if uuid.as_u128() == its.as_u128() && tag == its_tag =>
            {
                Some(*number)
            }
            (Origin::MariaDb { domain, server }, Some(Gtid::MariaDb { domain: its, server: its_server, sequence }))
                if domain == its && server == its_server =>
            {
                Some(*sequence)
            }
            (Origin::Record { shard }, Some(Gtid::Record { shard: its, number })) if shard == its => Some(*number),
            _ => None,
        }
    }

    fn of(gtid: Option<&Gtid>) -> (Self, u64) {
        match gtid {
            None => (Origin::None, 0),
            Some(Gtid::MySql { uuid, tag, number }) => (Origin::MySql { uuid: *uuid, tag: tag.clone() }, *number),
            Some(Gtid::MariaDb { domain, server, sequence }) => (Origin::MariaDb { domain: *domain, server: *server }, *sequence),
            Some(Gtid::Record { shard, number }) => (Origin::Record { shard: Arc::clone(shard) }, *number),
        }
    }

    fn gtid(&self, number: u64) -> Option<Gtid> {
        match self {
            Origin::None => None,
            Origin::MySql { uuid, tag } => Some(Gtid::MySql { uuid: *uuid, tag: tag.clone(), number }),
            Origin::MariaDb { domain, server } => Some(Gtid::MariaDb { domain: *domain, server: *server, sequence: number }),
            Origin::Record { shard } => Some(Gtid::Record { shard: Arc::clone(shard), number }),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Origin::None => out.push(0),
            Origin::MySql { uuid, tag } => {
                out.push(1);
                out.extend_from_slice(uuid.as_bytes());
                put_bytes(out, tag.as_bytes());
            }
            Origin::MariaDb { domain, server } => {
                out.push(2);
                put_uint(out, u64::from(*domain));
                put_uint(out, u64::from(*server));
            }
            Origin::Record { shard } => {
                out.push(3);
                put_bytes(out, shard.as_bytes());
            }
        }
    }

    fn read(wire: &mut Wire<'_>) -> Result<Self> {
        let number = |value: u64| u32::try_from(value).map_err(|_| damaged("a server number is out of range"));
        Ok(match wire.byte()? {
            0 => Origin::None,
            1 => Origin::MySql {
                uuid: Uuid::from_slice(wire.take(16)?).map_err(|_| damaged("a GTID is not one"))?,
                tag: wire.text()?.to_owned(),
            },
            2 => Origin::MariaDb { domain: number(wire.uint()?)?, server: number(wire.uint()?)? },
            3 => Origin::Record { shard: wire.text()?.into() },
            _ => return Err(damaged("a GTID of an unknown kind")),
        })
    }
}

/// Writes the transactions: how many, the origins and files that they name, then a column each of origin, number, file, offset, time, flag.
pub(super) fn put_transactions<'a>(out: &mut Vec<u8>, stamps: impl ExactSizeIterator<Item = &'a TransactionStamp>) {
    put_len(out, stamps.len());
    if stamps.len() == 0 {
        return;
    }
    let (mut origins, mut last_numbers, mut files): (Vec<Origin>, Vec<u64>, Vec<&Arc<str>>) = Default::default();
    let [mut origin_column, mut numbers, mut file_column, mut offsets, mut times, mut flags]: [Vec<u8>; 6] = Default::default();
    let (mut origin, mut file, mut last_offset, mut last_time) = (0, 0, 0_u64, 0_i64);
    for stamp in stamps {
        let gtid = stamp.gtid.as_ref();
        let number = match origins.get(origin).and_then(|known| known.number(gtid)) {
            Some(number) => number,
            None => match origins.iter().enumerate().find_map(|(i, known)| Some((i, known.number(gtid)?))) {
                Some((i, number)) => {
                    origin = i;
                    number
                }
                None => {
                    let (new, number) = Origin::of(gtid);
                    origin = origins.len();
                    origins.push(new);
                    last_numbers.push(0);
                    number
                }
            },
        };
        put_len(&mut origin_column, origin);
        put_int(&mut numbers, number.wrapping_sub(last_numbers[origin]) as i64);
        last_numbers[origin] = number;
        let name = &stamp.coordinates.file;
        if !files.get(file).is_some_and(|known| Arc::ptr_eq(known, name) || *known == name) {
            file = files.iter().position(|known| *known == name).unwrap_or_else(|| {
                files.push(name);
                files.len() - 1
            });
        }
        put_len(&mut file_column, file);
        put_int(&mut offsets, stamp.coordinates.offset.wrapping_sub(last_offset) as i64);
        last_offset = stamp.coordinates.offset;
        let time = stamp.source_commit_time.as_micros();
        put_int(&mut times, time.wrapping_sub(last_time));
        last_time = time;
        flags.push(u8::from(stamp.is_snapshot));
    }
    put_len(out, origins.len());
    origins.iter().for_each(|origin| origin.put(out));
    put_len(out, files.len());
    files.iter().for_each(|file| put_bytes(out, file.as_bytes()));
    if origins.len() > 1 {
        out.extend_from_slice(&origin_column);
    }
    out.extend_from_slice(&numbers);
    if files.len() > 1 {
        out.extend_from_slice(&file_column);
    }
    out.extend_from_slice(&offsets);
    out.extend_from_slice(&times);
    out.extend_from_slice(&flags);
}

/// Reads what [`put_transactions`] wrote.
pub(super) fn read_transactions(wire: &mut Wire<'_>) -> Result<Vec<TransactionStamp>> {
    let count = wire.count()?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let origins = (0..wire.count()?).map(|_| Origin::read(wire)).collect::<Result<Vec<_>>>()?;
    let files = (0..wire.count()?).map(|_| Ok(Arc::<str>::from(wire.text()?))).collect::<Result<Vec<_>>>()?;
    let (Some(first_origin), Some(first_file)) = (origins.first(), files.first()) else {
        return Err(damaged("transactions without an origin or a file"));
    };
    let mut stamps = Vec::with_capacity(count);
    for _ in 0..count {
        stamps.push(TransactionStamp {
            gtid: None,
            coordinates: BinlogCoordinates { file: first_file.clone(), offset: 0 },
            source_commit_time: Timestamp::default(),
            is_snapshot: false,
        });
    }
    let origin_of = match origins.len() {
        1 => Vec::new(),
        many => (0..count).map(|_| wire.index(many)).collect::<Result<Vec<_>>>()?,
    };
    let mut last_numbers = vec![0_u64; origins.len()];
    for (i, stamp) in stamps.iter_mut().enumerate() {
        let origin = origin_of.get(i).copied().unwrap_or(0);
        let number = last_numbers[origin].wrapping_add(wire.int()? as u64);
        last_numbers[origin] = number;
        stamp.gtid = if origin == 0 { first_origin.gtid(number) } else { origins[origin].gtid(number) };
    }
    if files.len() > 1 {
        for stamp in &mut stamps {
            stamp.coordinates.file = files[wire.index(files.len())?].clone();
        }
    }
    let (mut offset, mut time) = (0_u64, 0_i64);
    for stamp in &mut stamps {
        offset = offset.wrapping_add(wire.int()? as u64);
        stamp.coordinates.offset = offset;
    }
    for stamp in &mut stamps {
        time = time.wrapping_add(wire.int()?);
        stamp.source_commit_time = Timestamp::from_micros(time);
    }
    for (stamp, flag) in stamps.iter_mut().zip(wire.take(count)?) {
        stamp.is_snapshot = *flag != 0;
    }
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(gtid: Option<Gtid>, file: &str, offset: u64, micros: i64, is_snapshot: bool) -> TransactionStamp {
        let coordinates = BinlogCoordinates { file: file.into(), offset };
        TransactionStamp { gtid, coordinates, source_commit_time: Timestamp::from_micros(micros), is_snapshot }
    }

    #[test]
    fn transactions_of_all_kinds_come_back() {
        let mysql = |number, tag: &str| Some(Gtid::MySql { uuid: Uuid::from_u128(7), tag: tag.into(), number });
        let maria = |sequence| Some(Gtid::MariaDb { domain: 1, server: u32::MAX, sequence });
        let stamps = vec![
            stamp(mysql(1, ""), "binlog.000001", 4, -5, false),
            stamp(mysql(2, ""), "binlog.000001", 400, 1_000_000, false),
            stamp(mysql(1, "tag"), "binlog.000002", 4, 999_999, false),
            stamp(mysql(3, ""), "binlog.000002", u64::MAX, i64::MAX, false),
            stamp(maria(u64::MAX), "binlog.000001", 0, i64::MIN, true),
            stamp(None, "", 9, 0, true),
        ];
        let mut out = Vec::new();
        put_transactions(&mut out, stamps.iter());
        let mut wire = Wire::new(&out);
        assert_eq!(read_transactions(&mut wire).unwrap(), stamps);
        assert_eq!(wire.remaining(), 0);
        for cut in 0..out.len() {
            assert!(read_transactions(&mut Wire::new(&out[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_run_of_single_row_transactions_takes_few_bytes_each() {
        let uuid = Uuid::from_u128(7);
        let stamps: Vec<_> = (0..1000_u64)
            .map(|i| stamp(Some(Gtid::MySql { uuid, tag: String::new(), number: i + 1 }), "b.1", 4 + i * 380, i as i64 * 3, false))
            .collect();
        let mut out = Vec::new();
        put_transactions(&mut out, stamps.iter());
        assert!(out.len() < 5200, "{}", out.len());
    }
}
