//! Checked reading of MySQL's bytes: nothing from outside can make it panic.

use crate::error::{Area, Error, Kind, Result};

/// What is left to read of some bytes. Integers are little endian unless the name says otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// The bytes end too early, or say something impossible.
#[cold]
pub(super) fn malformed(what: &'static str) -> Error {
    Error::new(Area::Source, Kind::Data, what)
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(malformed("the event's bytes end too early")),
        }
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(malformed("the event's bytes end too early")),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An integer of `count` bytes, at most 8.
    #[inline]
    pub(super) fn uint(&mut self, count: usize) -> Result<u64> {
        let bytes = self.take(count)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A big-endian integer of `count` bytes, at most 8.
    #[inline]
    pub(super) fn uint_be(&mut self, count: usize) -> Result<u64> {
        let bytes = self.take(count)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length-encoded integer.
    pub(super) fn length(&mut self) -> Result<u64> {
        match self.u8()? {
            byte @ 0..=0xfa => Ok(u64::from(byte)),
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            _ => Err(malformed("a length in an event is malformed")),
        }
    }

    /// A length-encoded integer that counts bytes or things in memory.
    pub(super) fn count(&mut self) -> Result<usize> {
        usize::try_from(self.length()?).map_err(|_| malformed("a length in an event is too large"))
    }

    /// Bytes after their length-encoded length.
    pub(super) fn sized(&mut self) -> Result<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }
}

/// Bit `i` of a little-endian bit set.
#[inline]
pub(super) fn bit(bits: &[u8], i: usize) -> bool {
    bits.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
}

/// Text from the server that is a name: not valid UTF-8 is an error.
pub(super) fn name(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a name in an event is not UTF-8"))
}
