//! Dates and times: from the binlog's packed bytes to days and microseconds.
//!
//! Source: MySQL `my_time.cc` (`my_time_packed_from_binary`, `my_datetime_packed_from_binary`, `my_timestamp_from_binary`).

use crate::error::Result;
use crate::source::bytes::{Reader, malformed};

/// A date's year, month, day, and the microseconds of its day; maybe one that doesn't exist.
pub(super) type WallClock = (u32, u32, u32, i64);

/// DATE: day, month, year in 5, 4, 15 bits.
#[inline]
pub(super) fn date(reader: &mut Reader<'_>) -> Result<(u32, u32, u32)> {
    let packed = reader.uint(3)? as u32;
    Ok((packed >> 9, packed >> 5 & 15, packed & 31))
}

fn micros_of_day(hour: u64, minute: u64, second: u64, micros: u32) -> i64 {
    ((hour * 3600 + minute * 60 + second) * 1_000_000) as i64 + i64::from(micros)
}

/// The fraction of a second in microseconds: `fsp` digits in `(fsp + 1) / 2` bytes.
#[inline]
fn fraction(reader: &mut Reader<'_>, fsp: u8) -> Result<u32> {
    let unit = match fsp {
        0 => return Ok(0),
        1 | 2 => 10_000,
        3 | 4 => 100,
        _ => 1,
    };
    Ok(reader.uint_be(usize::from(fsp.min(6)).div_ceil(2))? as u32 * unit)
}

/// DATETIME(fsp).
#[inline]
pub(super) fn datetime2(reader: &mut Reader<'_>, fsp: u8) -> Result<WallClock> {
    const SIGN: u64 = 1 << 39;
    let packed = reader.uint_be(5)?;
    let micros = fraction(reader, fsp)?;
    let packed = packed.saturating_sub(SIGN);
    let (months, day) = (packed >> 22, packed >> 17 & 31);
    let clock = micros_of_day(packed >> 12 & 31, packed >> 6 & 63, packed & 63, micros);
    Ok(((months / 13) as u32, (months % 13) as u32, day as u32, clock))
}

/// TIMESTAMP(fsp). Second 0 is the zero date.
#[inline]
pub(super) fn timestamp2(reader: &mut Reader<'_>, fsp: u8) -> Result<Option<i64>> {
    let seconds = reader.uint_be(4)?;
    let micros = fraction(reader, fsp)?;
    Ok((seconds != 0 || micros != 0).then_some(seconds as i64 * 1_000_000 + i64::from(micros)))
}

/// TIME(fsp): signed microseconds.
pub(super) fn time2(reader: &mut Reader<'_>, fsp: u8) -> Result<i64> {
    // seconds and fraction as one number around a middle that stands for zero
    let bytes = 3 + usize::from(fsp.min(6)).div_ceil(2);
    let fraction_bits = (bytes - 3) * 8;
    let packed = reader.uint_be(bytes)? as i64 - (0x80_0000 << fraction_bits);
    let (magnitude, sign) = (packed.unsigned_abs(), packed.signum());
    let (clock, fraction) = (magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1));
    let unit = match fsp {
        1 | 2 => 10_000,
        3 | 4 => 100,
        _ => 1,
    };
    let (hours, minutes, seconds) = (clock >> 12 & 1023, clock >> 6 & 63, clock & 63);
    let micros = (hours * 3600 + minutes * 60 + seconds) * 1_000_000 + fraction * unit;
    i64::try_from(micros).map(|micros| micros * sign).map_err(|_| malformed("a TIME is out of range"))
}

/// TIME before MySQL 5.6: ±HHMMSS as a number.
pub(super) fn old_time(reader: &mut Reader<'_>) -> Result<i64> {
    let raw = reader.uint(3)? as i64;
    let number = if raw & 0x80_0000 != 0 { raw - 0x100_0000 } else { raw };
    let magnitude = number.abs();
    Ok((magnitude / 10_000 * 3600 + magnitude / 100 % 100 * 60 + magnitude % 100) * 1_000_000 * number.signum())
}

/// DATETIME before MySQL 5.6: YYYYMMDDHHMMSS as a number.
pub(super) fn old_datetime(reader: &mut Reader<'_>) -> Result<WallClock> {
    let number = reader.u64()?;
    let (date, time) = (number / 1_000_000, number % 1_000_000);
    let year = u32::try_from(date / 10_000).unwrap_or(u32::MAX);
    let clock = micros_of_day(time / 10_000, time / 100 % 100, time % 100, 0);
    Ok((year, (date / 100 % 100) as u32, (date % 100) as u32, clock))
}

/// TIMESTAMP before MySQL 5.6: seconds.
pub(super) fn old_timestamp(reader: &mut Reader<'_>) -> Result<Option<i64>> {
    let seconds = i64::from(reader.u32()?);
    Ok((seconds != 0).then_some(seconds * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::write_time;

    fn time(bytes: &[u8], fsp: u8) -> String {
        let mut text = String::new();
        write_time(&mut text, time2(&mut Reader::new(bytes), fsp).unwrap(), fsp).unwrap();
        text
    }

    #[test]
    fn negative_times_with_fractions() {
        // as MySQL 9.7 wrote them into its binlog
        assert_eq!(time(&[0x7f, 0x37, 0x48], 0), "-12:34:56");
        assert_eq!(time(&[0x80, 0xc8, 0xb8], 0), "12:34:56");
        assert_eq!(time(&[0x7f, 0x37, 0x47, 0xb2], 2), "-12:34:56.78");
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xce], 2), "-00:00:00.50");
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xff, 0xff], 4), "-00:00:00.0001");
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], 6), "-00:00:00.000001");
        assert!(time2(&mut Reader::new(&[0x80, 0]), 0).is_err());
    }

    #[test]
    fn dates_are_taken_apart() {
        assert_eq!(datetime2(&mut Reader::new(&[0x80, 0, 0, 0, 0]), 0).unwrap(), (0, 0, 0, 0));
        assert_eq!(timestamp2(&mut Reader::new(&[0, 0, 0, 0]), 0).unwrap(), None);
        assert_eq!(date(&mut Reader::new(&[0x75, 0xd5, 0x0f])).unwrap(), (2026, 11, 21));
        let old = old_datetime(&mut Reader::new(&20_261_121_101_112_u64.to_le_bytes())).unwrap();
        assert_eq!(old, (2026, 11, 21, 36_672_000_000));
        // 2026-11-21 10:11:12.123456 as DATETIME(6)
        let packed = (1_u64 << 39 | (2026 * 13 + 11) << 22 | 21 << 17 | 10 << 12 | 11 << 6 | 12).to_be_bytes();
        let bytes = [&packed[3..], &[0x01, 0xe2, 0x40]].concat();
        assert_eq!(datetime2(&mut Reader::new(&bytes), 6).unwrap(), (2026, 11, 21, 36_672_123_456));
    }
}
