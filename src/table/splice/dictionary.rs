//! The dictionary of a column chunk, and pages of indices into it.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{CompressedPage, Page, PageReader, PageWriter};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// A dictionary isn't extended beyond this many bytes.
const MAX_BYTES: usize = 4 << 20;

/// The index of NULL.
pub(super) const NULL: u32 = u32::MAX;

/// A chunk's dictionary, to look values up in and to add to.
pub(super) struct Dictionary {
    /// The values in PLAIN encoding.
    plain: Vec<u8>,
    /// Where each value is in `plain`.
    places: Vec<(u32, u32)>,
    by_hash: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// The values' length; `None`: each is preceded by its own.
    width: Option<usize>,
    /// Whether a value was added.
    pub(super) grown: bool,
    most: usize,
}

/// Takes a hash for a hash.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Dictionary {
    /// Reads a chunk's dictionary, its first page. `width` is the length of a value in bytes, `None` for byte arrays.
    pub(super) fn read(pages: &mut dyn PageReader, rows: usize, width: Option<usize>) -> Result<Option<Self>, ParquetError> {
        let Some(Page::DictionaryPage { buf, num_values, encoding, .. }) = pages.get_next_page()? else { return Ok(None) };
        if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
            return Ok(None);
        }
        let mut dictionary = Self {
            plain: buf.to_vec(),
            places: Vec::with_capacity(num_values as usize),
            by_hash: HashMap::with_capacity_and_hasher(num_values as usize, BuildHasherDefault::default()),
            width,
            grown: false,
            most: (rows / 2).max(64),
        };
        let mut at = 0;
        for _ in 0..num_values {
            let (start, length) = match width {
                Some(width) => (at, width),
                None => {
                    let length = buf.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
                    (at + 4, length.ok_or_else(damaged)? as usize)
                }
            };
            let value = buf.get(start..start + length).ok_or_else(damaged)?;
            let number = u32::try_from(dictionary.places.len())?;
            dictionary.by_hash.insert(xxh3_64(value), number);
            dictionary.places.push((u32::try_from(start)?, u32::try_from(length)?));
            at = start + length;
        }
        Ok(Some(dictionary))
    }

    /// The index of `value`, which is added if it is new; `None` if there is no room for it.
    pub(super) fn index_of(&mut self, value: &[u8]) -> Option<u32> {
        let hash = xxh3_64(value);
        if let Some(known) = self.by_hash.get(&hash) {
            let (start, length) = self.places[*known as usize];
            return (self.plain[start as usize..(start + length) as usize] == *value).then_some(*known);
        }
        if self.plain.len() + value.len() > MAX_BYTES || self.places.len() >= self.most {
            return None;
        }
        if self.width.is_none() {
            self.plain.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
        }
        let number = u32::try_from(self.places.len()).ok()?;
        self.places.push((u32::try_from(self.plain.len()).ok()?, u32::try_from(value.len()).ok()?));
        self.plain.extend_from_slice(value);
        self.by_hash.insert(hash, number);
        self.grown = true;
        Some(number)
    }

    /// The dictionary's page, and its size before compression.
    pub(super) fn page(&self) -> Result<(Bytes, usize), ParquetError> {
        let buf = compress(&self.plain)?;
        let num_values = u32::try_from(self.places.len())?;
        let page = Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        serialize(page, self.plain.len())
    }

    /// The value of an index.
    pub(super) fn value(&self, index: u32) -> Option<&[u8]> {
        let (start, length) = *self.places.get(index as usize)?;
        self.plain.get(start as usize..(start + length) as usize)
    }

    /// Values.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// A data page with the rows whose indices are `indices`, [`NULL`] for NULL; and its size before compression.
    pub(super) fn data_page(&self, indices: &[u32], nullable: bool) -> Result<(Bytes, usize), ParquetError> {
        let mut data = Vec::with_capacity(indices.len() * 2 + 16);
        let nulls = indices.contains(&NULL);
        if nullable {
            data.extend_from_slice(&[0; 4]);
            if nulls {
                let present: Vec<u32> = indices.iter().map(|index| u32::from(*index != NULL)).collect();
                hybrid(&present, 1, &mut data);
            } else {
                varint(indices.len() << 1, &mut data);
                data.push(1);
            }
            let length = u32::try_from(data.len() - 4)?;
            data[..4].copy_from_slice(&length.to_le_bytes());
        }
        let width = (32 - u32::try_from(self.places.len())?.saturating_sub(1).leading_zeros()).max(1);
        data.push(u8::try_from(width)?);
        if nulls {
            let present: Vec<u32> = indices.iter().copied().filter(|index| *index != NULL).collect();
            hybrid(&present, width, &mut data);
        } else {
            hybrid(indices, width, &mut data);
        }
        let page = Page::DataPage {
            buf: compress(&data)?,
            num_values: u32::try_from(indices.len())?,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        serialize(page, data.len())
    }
}

/// Appends the indices of a data page, [`NULL`] for NULL; `false` if the page has no indices.
pub(super) fn read_indices(page: &Page, nullable: bool, out: &mut Vec<u32>) -> Result<bool, ParquetError> {
    let Page::DataPage { buf, num_values, encoding, .. } = page else { return Ok(false) };
    if !matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
        return Ok(false);
    }
    let rows = *num_values as usize;
    let mut data = &buf[..];
    let mut levels = Vec::new();
    let mut present = rows;
    if nullable {
        let length = data.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes).ok_or_else(damaged)? as usize;
        unhybrid(data.get(4..4 + length).ok_or_else(damaged)?, 1, rows, &mut levels)?;
        present = levels.iter().filter(|level| **level == 1).count();
        data = &data[4 + length..];
    }
    let width = u32::from(*data.first().ok_or_else(damaged)?);
    if width > 32 {
        return Err(damaged());
    }
    if present == rows {
        unhybrid(&data[1..], width, rows, out)?;
    } else {
        let mut values = Vec::with_capacity(present);
        unhybrid(&data[1..], width, present, &mut values)?;
        let mut values = values.into_iter();
        out.extend(levels.iter().map(|level| if *level == 1 { values.next().unwrap_or(NULL) } else { NULL }));
    }
    Ok(true)
}

/// Reads `count` values of the hybrid.
fn unhybrid(bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) -> Result<(), ParquetError> {
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

fn damaged() -> ParquetError {
    ParquetError::EOF("a dictionary ends early".to_owned())
}

fn compress(bytes: &[u8]) -> Result<Bytes, ParquetError> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(zstd::bulk::Compressor::new(1)?),
        };
        Ok(Bytes::from(compressor.compress(bytes)?))
    })
}

/// A page with its header, and the size of both before compression.
fn serialize(page: Page, uncompressed: usize) -> Result<(Bytes, usize), ParquetError> {
    let mut sink = TrackedWrite::new(Vec::new());
    let spec = SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, uncompressed))?;
    Ok((Bytes::from(sink.into_inner()?), spec.uncompressed_size))
}

/// Parquet's hybrid of runs and bit-packed groups of eight: values of `width` bits.
fn hybrid(values: &[u32], width: u32, out: &mut Vec<u8>) {
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

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
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
