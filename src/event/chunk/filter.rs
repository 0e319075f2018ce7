//! What is done to columns of integers before zstd sees them, because it can't find it itself, and undone in place after: differences where the values rise
//! (offsets of strings always do), whole seconds instead of microseconds, and then the values' first bytes, their second bytes, and so on.
//! On ticket rows this halves a chunk and makes zstd faster (`docs/decisions.md` has the figures).

use super::damaged;
use super::wire::{Wire, put_len};
use crate::error::Result;
use arrow::datatypes::{DataType, Schema};
use arrow::ipc::{Buffer, RecordBatch as Layout};

const WIDE: u8 = 1;
const DIFFERENCES: u8 = 2;
const SECONDS: u8 = 4;

const MICROS: i64 = 1_000_000;

/// A range of a batch's body that was filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filtered {
    /// Where it starts in the body.
    start: usize,
    /// How many integers it has.
    count: usize,
    form: u8,
}

/// What the integers of a buffer are.
#[derive(Debug, Clone, Copy)]
enum Integers {
    Offsets,
    Narrow,
    Wide,
    Times,
}

/// Filters a batch's body in place, as its Arrow message lays it out.
pub(super) fn filter(schema: &Schema, layout: &Layout<'_>, body: &mut [u8]) -> Vec<Filtered> {
    let mut filtered = Vec::new();
    let Some(buffers) = layout.buffers() else { return filtered };
    let mut buffers = buffers.iter();
    let mut scratch = Vec::new();
    for field in schema.fields() {
        filter_array(field.data_type(), &mut buffers, body, &mut filtered, &mut scratch);
    }
    filtered
}

fn filter_array<'a>(
    data_type: &DataType,
    buffers: &mut impl Iterator<Item = &'a Buffer>,
    body: &mut [u8],
    filtered: &mut Vec<Filtered>,
    scratch: &mut Vec<i64>,
) {
    let (Some(_), Some(second)) = (buffers.next(), buffers.next()) else { return };
    let integers = match data_type {
        DataType::Utf8 | DataType::Binary | DataType::List(_) => Some(Integers::Offsets),
        DataType::Int32 | DataType::Date32 => Some(Integers::Narrow),
        DataType::Int64 => Some(Integers::Wide),
        DataType::Timestamp(..) => Some(Integers::Times),
        _ => None,
    };
    if let Some(integers) = integers {
        filtered.extend(filter_buffer(integers, second, body, scratch));
    }
    match data_type {
        DataType::Utf8 | DataType::Binary => drop(buffers.next()),
        DataType::List(child) => filter_array(child.data_type(), buffers, body, filtered, scratch),
        _ => {}
    }
}

fn filter_buffer(integers: Integers, buffer: &Buffer, body: &mut [u8], values: &mut Vec<i64>) -> Option<Filtered> {
    let (start, len) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
    let bytes = body.get_mut(start..start.checked_add(len)?)?;
    let mut form = match integers {
        Integers::Offsets | Integers::Narrow => 0,
        Integers::Wide | Integers::Times => WIDE,
    };
    values.clear();
    if form & WIDE == 0 {
        values.extend(bytes.chunks_exact(4).map(|four| i64::from(i32::from_le_bytes([four[0], four[1], four[2], four[3]]))));
    } else {
        values.extend(bytes.chunks_exact(8).map(eight));
    }
    if values.len() < 4 {
        return None;
    }
    if matches!(integers, Integers::Times) && values.iter().all(|value| value % MICROS == 0) {
        form |= SECONDS;
        values.iter_mut().for_each(|value| *value /= MICROS);
    }
    if matches!(integers, Integers::Offsets) || values.is_sorted() {
        form |= DIFFERENCES;
        let mut last = 0;
        for value in values.iter_mut() {
            last = std::mem::replace(value, value.wrapping_sub(last));
        }
    }
    let count = values.len();
    for (plane, bytes) in bytes.chunks_exact_mut(count).enumerate() {
        for (byte, value) in bytes.iter_mut().zip(values.iter()) {
            *byte = (*value >> (8 * plane)) as u8;
        }
    }
    Some(Filtered { start, count, form })
}

fn eight(bytes: &[u8]) -> i64 {
    i64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// Undoes what was filtered.
pub(super) fn restore(filtered: &[Filtered], body: &mut [u8]) -> Result<()> {
    let mut planes = Vec::new();
    for Filtered { start, count, form } in filtered {
        let width = if form & WIDE == 0 { 4 } else { 8 };
        let end = count.checked_mul(width).and_then(|len| len.checked_add(*start));
        let bytes = end.and_then(|end| body.get_mut(*start..end)).ok_or_else(|| damaged("filtered bytes are not there"))?;
        planes.clear();
        planes.extend_from_slice(bytes);
        if width == 4 {
            restore_narrow(&planes, *count, *form, bytes);
        } else {
            restore_wide(&planes, *count, *form, bytes);
        }
    }
    Ok(())
}

fn restore_narrow(planes: &[u8], count: usize, form: u8, out: &mut [u8]) {
    let (a, rest) = planes.split_at(count);
    let (b, rest) = rest.split_at(count);
    let (c, d) = rest.split_at(count);
    let mut last = 0_i32;
    for ((((out, a), b), c), d) in out.chunks_exact_mut(4).zip(a).zip(b).zip(c).zip(d) {
        let mut value = i32::from_le_bytes([*a, *b, *c, *d]);
        if form & DIFFERENCES != 0 {
            value = value.wrapping_add(last);
            last = value;
        }
        out.copy_from_slice(&value.to_le_bytes());
    }
}

fn restore_wide(planes: &[u8], count: usize, form: u8, out: &mut [u8]) {
    let scale = if form & SECONDS == 0 { 1 } else { MICROS };
    let mut last = 0_i64;
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let mut bytes = [0; 8];
        for (plane, byte) in bytes.iter_mut().enumerate() {
            *byte = planes[plane * count + i];
        }
        let mut value = i64::from_le_bytes(bytes);
        if form & DIFFERENCES != 0 {
            value = value.wrapping_add(last);
            last = value;
        }
        out.copy_from_slice(&value.wrapping_mul(scale).to_le_bytes());
    }
}

/// Writes which ranges were filtered: they are in order and don't overlap.
pub(super) fn put_filtered(out: &mut Vec<u8>, filtered: &[Filtered]) {
    put_len(out, filtered.len());
    let mut at = 0;
    for range in filtered {
        put_len(out, range.start - at);
        put_len(out, range.count);
        out.push(range.form);
        at = range.start + range.count * if range.form & WIDE == 0 { 4 } else { 8 };
    }
}

/// Reads what [`put_filtered`] wrote.
pub(super) fn read_filtered(wire: &mut Wire<'_>) -> Result<Vec<Filtered>> {
    let mut at = 0_usize;
    (0..wire.count()?)
        .map(|_| {
            let (gap, count, form) = (wire.len()?, wire.len()?, wire.byte()?);
            let width = if form & WIDE == 0 { 4 } else { 8 };
            let start = at.checked_add(gap).ok_or_else(|| damaged("a length is out of range"))?;
            let end = count.checked_mul(width).and_then(|len| len.checked_add(start));
            at = end.ok_or_else(|| damaged("a length is out of range"))?;
            Ok(Filtered { start, count, form })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(integers: Integers, bytes: Vec<u8>) -> Option<u8> {
        let mut body = vec![9; 8];
        body.extend(&bytes);
        body.extend([7; 5]);
        let before = body.clone();
        let filtered = filter_buffer(integers, &Buffer::new(8, bytes.len() as i64), &mut body, &mut Vec::new());
        let all: Vec<_> = filtered.into_iter().collect();
        let mut wire = Vec::new();
        put_filtered(&mut wire, &all);
        assert_eq!(read_filtered(&mut Wire::new(&wire)).unwrap(), all);
        restore(&all, &mut body).unwrap();
        assert_eq!(body, before);
        filtered.map(|range| range.form)
    }

    #[test]
    fn integers_of_all_forms_come_back() {
        let narrow = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let wide = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(there_and_back(Integers::Offsets, narrow(&[0, 3, 3, 300, i32::MAX])), Some(DIFFERENCES));
        assert_eq!(there_and_back(Integers::Narrow, narrow(&[5, -1, i32::MIN, i32::MAX, 0])), Some(0));
        assert_eq!(there_and_back(Integers::Narrow, narrow(&[i32::MIN, -1, 0, i32::MAX])), Some(DIFFERENCES));
        assert_eq!(there_and_back(Integers::Wide, wide(&[i64::MIN, 0, i64::MAX, i64::MAX])), Some(WIDE | DIFFERENCES));
        assert_eq!(there_and_back(Integers::Wide, wide(&[3, 2, 1, i64::MIN])), Some(WIDE));
        assert_eq!(there_and_back(Integers::Times, wide(&[3, -2, 1, 7_000_000])), Some(WIDE));
        assert_eq!(there_and_back(Integers::Times, wide(&[9, -2, 1, 7].map(|time| time * MICROS))), Some(WIDE | SECONDS));
        assert_eq!(there_and_back(Integers::Times, wide(&[1, 2, 5, 7].map(|t| t * MICROS))), Some(WIDE | SECONDS | DIFFERENCES));
        assert_eq!(there_and_back(Integers::Wide, wide(&[3, 2])), None);
        assert_eq!(there_and_back(Integers::Narrow, Vec::new()), None);
    }

    #[test]
    fn ranges_outside_of_the_body_are_damage() {
        for (start, count) in [(0, 3), (8, 1), (usize::MAX, 1), (0, usize::MAX), (1, usize::MAX / 4)] {
            assert!(restore(&[Filtered { start, count, form: 0 }], &mut [0; 8]).is_err());
        }
    }
}
