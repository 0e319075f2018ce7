//! Parquet's hybrid of runs and bit-packed groups: how definition levels and dictionary indices are written.

use parquet::errors::ParquetError;

fn damaged() -> ParquetError {
    ParquetError::EOF("runs of levels or indices end early".to_owned())
}

/// Parquet's hybrid of runs and bit-packed groups of eight: values of `width` bits.
pub(super) fn hybrid(values: &[u32], width: u32, out: &mut Vec<u8>) {
    let mut at = 0;
    let mut literal = 0;
    while at < values.len() {
        let mut run = 1;
        while at + run < values.len() && values[at + run] == values[at] {
            run += 1;
        }
        // groups before the end must be whole: a run gives what the open group lacks
        let lacks = (8 - (at - literal) % 8) % 8;
        if run >= lacks + 8 {
            at += lacks;
            pack(&values[literal..at], width, out);
            run -= lacks;
            varint(run << 1, out);
            out.extend_from_slice(&values[at].to_le_bytes()[..width.div_ceil(8) as usize]);
            at += run;
            literal = at;
        } else {
            at += run;
        }
    }
    pack(&values[literal..], width, out);
}

fn pack(values: &[u32], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint(groups << 1 | 1, out);
    let (mut bits, mut count) = (0_u64, 0);
    let end = out.len() + groups * width as usize;
    for value in values {
        bits |= u64::from(*value) << count;
        count += width;
        if count >= 32 {
            out.extend_from_slice(&bits.to_le_bytes()[..4]);
            bits >>= 32;
            count -= 32;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..count.div_ceil(8) as usize]);
    out.resize(end, 0);
}

pub(super) fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Reads `count` values of the hybrid.
pub(super) fn unhybrid(bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) -> Result<(), ParquetError> {
    if width == 0 {
        out.resize(out.len() + count, 0);
        return Ok(());
    }
    let mut at = 0;
    let mut left = count;
    while left > 0 {
        let (mut header, mut shift) = (0_usize, 0);
        loop {
            let byte = *bytes.get(at).ok_or_else(damaged)?;
            at += 1;
            header |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            if shift > 28 {
                return Err(damaged());
            }
        }
        if header & 1 == 0 {
            let size = width.div_ceil(8) as usize;
            let mut value = [0; 4];
            value[..size].copy_from_slice(bytes.get(at..at + size).ok_or_else(damaged)?);
            at += size;
            let run = (header >> 1).min(left);
            out.resize(out.len() + run, u32::from_le_bytes(value));
            left -= run;
            if run == 0 {
                return Err(damaged());
            }
        } else {
            let size = (header >> 1) * width as usize;
            let packed = bytes.get(at..(at + size).min(bytes.len())).ok_or_else(damaged)?;
            at += size;
            let run = ((header >> 1) * 8).min(left);
            if run == 0 || packed.len() * 8 < run * width as usize {
                return Err(damaged());
            }
            unpack(packed, width, run, out);
            left -= run;
        }
    }
    Ok(())
}

fn unpack(packed: &[u8], width: u32, count: usize, out: &mut Vec<u32>) {
    let mask = if width == 32 { u64::MAX >> 32 } else { (1 << width) - 1 };
    let mut bit = 0;
    for _ in 0..count {
        let byte = bit / 8;
        let word = match packed.get(byte..byte + 8).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => u64::from_le_bytes(bytes),
            None => {
                let mut last = [0; 8];
                let rest = &packed[byte..];
                last[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(last)
            }
        };
        let value = word >> (bit % 8) & mask;
        out.push(u32::from_le_bytes([
            value.to_le_bytes()[0],
            value.to_le_bytes()[1],
            value.to_le_bytes()[2],
            value.to_le_bytes()[3],
        ]));
        bit += width as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the hybrid, after the specification.
    fn read(mut bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let (mut header, mut shift) = (0_usize, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                header |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            if header & 1 == 0 {
                let size = width.div_ceil(8) as usize;
                let mut value = [0; 4];
                value[..size].copy_from_slice(&bytes[..size]);
                bytes = &bytes[size..];
                values.extend(std::iter::repeat_n(u32::from_le_bytes(value), header >> 1));
            } else {
                for i in 0..(header >> 1) * 8 {
                    let mut value = 0;
                    for bit in 0..width as usize {
                        let place = i * width as usize + bit;
                        value |= u32::from(bytes[place / 8] >> (place % 8) & 1) << bit;
                    }
                    values.push(value);
                }
                bytes = &bytes[(header >> 1) * width as usize..];
            }
        }
        values.truncate(count);
        values
    }

    #[test]
    fn runs_and_groups_are_read_back() {
        let mut state = 7_u32;
        for width in [1, 2, 3, 7, 8, 9, 17, 24] {
            for length in [0, 1, 7, 8, 9, 100, 1000] {
                let values: Vec<u32> = (0..length)
                    .map(|i| {
                        if i % 37 > 20 {
                            return 1;
                        }
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 4) & ((1 << width) - 1)
                    })
                    .collect();
                let mut bytes = Vec::new();
                hybrid(&values, width, &mut bytes);
                let mut again = Vec::new();
                unhybrid(&bytes, width, values.len(), &mut again).unwrap();
                assert_eq!(again, values, "{width} {length}");
                assert_eq!(read(&bytes, width, values.len()), values, "{width} {length}");
            }
        }
    }
}
