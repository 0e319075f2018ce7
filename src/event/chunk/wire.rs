//! Little pieces of a chunk's bytes: variable-length integers and counted strings.
//!
//! The reader is checked everywhere: bytes from outside never make it panic or allocate more than they are worth.

use super::damaged;
use crate::error::Result;

/// Writes an unsigned integer, seven bits a byte, lowest first.
pub(super) fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a signed integer as an unsigned one: 0, -1, 1, -2, … become 0, 1, 2, 3, …
pub(super) fn put_int(out: &mut Vec<u8>, value: i64) {
    put_uint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Writes a length or count.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_uint(out, len as u64);
}

/// Writes bytes after their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { all: bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.all.len() - self.at
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let byte = *self.all.get(self.at).ok_or_else(|| damaged("it ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.all.len()).ok_or_else(|| damaged("it ends early"))?;
        let bytes = &self.all[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn uint(&mut self) -> Result<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("an integer is too long"))
    }

    pub(super) fn int(&mut self) -> Result<i64> {
        let value = self.uint()?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    /// A length in bytes; whether they are there, `take` checks.
    pub(super) fn len(&mut self) -> Result<usize> {
        usize::try_from(self.uint()?).map_err(|_| damaged("a length is out of range"))
    }

    /// A count of things that take at least one byte each.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.len()?;
        if count > self.remaining() {
            return Err(damaged("a count is out of range"));
        }
        Ok(count)
    }

    /// An index into a list of `count` things.
    pub(super) fn index(&mut self, count: usize) -> Result<usize> {
        let index = self.len()?;
        if index >= count {
            return Err(damaged("an index is out of range"));
        }
        Ok(index)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("a name is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        let mut out = Vec::new();
        let unsigned = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let signed = [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN];
        unsigned.iter().for_each(|value| put_uint(&mut out, *value));
        signed.iter().for_each(|value| put_int(&mut out, *value));
        let mut wire = Wire::new(&out);
        unsigned.iter().for_each(|value| assert_eq!(wire.uint().unwrap(), *value));
        signed.iter().for_each(|value| assert_eq!(wire.int().unwrap(), *value));
        assert_eq!(wire.remaining(), 0);
        assert!(wire.byte().is_err());
    }

    #[test]
    fn an_endless_integer_is_damage() {
        assert!(Wire::new(&[0xff; 11]).uint().is_err());
        assert!(Wire::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).uint().is_err());
        assert!(Wire::new(&[0x05, 1, 2]).bytes().is_err());
    }
}
