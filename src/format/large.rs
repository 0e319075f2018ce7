//! Records that are larger than a record of the stream may be.
//!
//! Other consumers see records of Binlake's own in their place, which they pass over as they do a chunk's own record, or understand:
//!
//! - **Parts**: `{"binlake":{"part":{"mark", "number", "of", "key", "text"}}, …}`. The `text`s of the numbers 0 to `of` - 1, one after the other, are the record.
//! - **Claim checks**: `{"binlake":{"claim_check":{"url", "path", "bytes", "crc32", "key"}}, …}`. The record lies at `url`.
//!
//! `key` is the partition key of the record, which says whose row it is.

use super::mark::Mark;
use super::{RecordFormat, damaged};
use crate::error::{Error, Result};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How parts begin.
const PART_PREFIX: &[u8] = b"{\"binlake\":{\"part\":{";
/// How claim checks begin.
const CLAIM_CHECK_PREFIX: &[u8] = b"{\"binlake\":{\"claim_check\":{";
/// What a part takes beside its key and its text, at most.
const PART_EXTRA_BYTES: usize = 512;

/// One part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The record's place.
    mark: String,
    /// The part's number, from 0.
    pub(super) number: u32,
    /// How many there are.
    pub(super) of: u32,
    /// The record's partition key.
    key: String,
    /// A piece of the record.
    pub(super) text: String,
}

impl Part {
    /// Reads a part; `None`: the record is something else.
    ///
    /// # Errors
    /// `Corrupt` if it begins as one and isn't.
    pub(super) fn read(record: &[u8]) -> Result<Option<(Mark, Self)>> {
        #[derive(Deserialize)]
        struct Whole {
            binlake: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            part: Part,
        }
        if !record.starts_with(PART_PREFIX) {
            return Ok(None);
        }
        let whole: Whole =
            serde_json::from_slice(record).map_err(|error| damaged("a part of a record can't be read").caused_by(error))?;
        let part = whole.binlake.part;
        let mark = part.mark.parse().map_err(|()| damaged("a part of a record has no place"))?;
        if part.number >= part.of {
            return Err(damaged("a part of a record has a number that can't be"));
        }
        Ok(Some((mark, part)))
    }

    /// Whether it is the last.
    pub(super) fn is_last(&self) -> bool {
        self.number + 1 == self.of
    }
}

/// Where a record lies that is too large for the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCheck {
    /// The object, for others.
    pub url: String,
    /// Its path below the folder of claim checks.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
    /// The record's partition key.
    pub key: String,
}

impl ClaimCheck {
    /// Reads a claim check; `None`: the record is something else.
    ///
    /// # Errors
    /// `Corrupt` if it begins as one and isn't.
    pub fn read(record: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Whole {
            binlake: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            claim_check: ClaimCheck,
        }
        if !record.starts_with(CLAIM_CHECK_PREFIX) {
            return Ok(None);
        }
        let whole: Whole =
            serde_json::from_slice(record).map_err(|error| damaged("a claim check can't be read").caused_by(error))?;
        Ok(Some(whole.binlake.claim_check))
    }
}

impl RecordFormat {
    /// The parts of a record, none larger than `most_bytes`.
    ///
    /// # Errors
    /// `Bug` if they can't be written.
    pub(super) fn parts(&self, mark: Mark, key: &str, record: &str, most_bytes: usize, made_at: Timestamp) -> Result<Vec<Vec<u8>>> {
        let pieces = pieces(record, most_bytes.saturating_sub(PART_EXTRA_BYTES + 2 * key.len()).max(64));
        let of = u32::try_from(pieces.len()).map_err(|_| Error::bug("a record has too many parts"))?;
        let part = |(number, text): (u32, &str)| {
            let part = Part { mark: mark.to_string(), number, of, key: key.to_owned(), text: text.to_owned() };
            self.own_record("part", &part, made_at)
        };
        (0..of).zip(pieces).map(part).collect()
    }

    /// The record that stands for one that lies elsewhere.
    ///
    /// # Errors
    /// `Bug` if it can't be written.
    pub fn claim_check(&self, claim_check: &ClaimCheck, made_at: Timestamp) -> Result<Vec<u8>> {
        self.own_record("claim_check", claim_check, made_at)
    }

    fn own_record(&self, what: &str, content: &impl Serialize, made_at: Timestamp) -> Result<Vec<u8>> {
        let failed = |error: serde_json::Error| Error::bug("a record of our own can't be written").caused_by(error);
        let mut record = json!({"binlake": {what: serde_json::to_value(content).map_err(failed)?}});
        if let (Value::Object(fields), Value::Object(beside)) = (&mut record, self.beside_chunk(made_at)) {
            fields.extend(beside);
        }
        serde_json::to_vec(&record).map_err(failed)
    }
}

/// Pieces of a text, none with more than `most_bytes` as a JSON string.
fn pieces(text: &str, most_bytes: usize) -> Vec<&str> {
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    };
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        if bytes + escaped(c) > most_bytes && at > start {
            pieces.push(&text[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += escaped(c);
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ChunkIndex, Epoch, Lane};
    use crate::format::Dialect;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_the_text_and_small(text in "(\\PC|\"|\\\\|\n){0,200}", most in 6_usize..40) {
            let pieces = pieces(&text, most);
            prop_assert_eq!(pieces.concat(), text.clone());
            for piece in pieces {
                prop_assert!(serde_json::to_string(piece).unwrap().len() <= most + 2);
            }
        }
    }

    #[test]
    fn parts_and_claim_checks_come_back_and_damage_is_said() {
        let format = RecordFormat { dialect: Dialect::Dms, is_aggregated: false };
        let mark = Mark { lane: Lane(3), epoch: Epoch(2), chunk: ChunkIndex(17), number: 4 };
        let text = "größe \"x\"\\ ".repeat(500);
        let parts = format.parts(mark, "shop.orders.7", &text, 2000, Timestamp::from_micros(0)).unwrap();
        assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= 2000));
        let read: Vec<Part> = parts.iter().map(|part| Part::read(part).unwrap().unwrap().1).collect();
        assert_eq!(read.iter().map(|part| part.text.as_str()).collect::<String>(), text);
        assert!(read.last().unwrap().is_last());
        assert!(Part::read(b"{\"binlake\":{\"part\":{").is_err());
        let claim_check = ClaimCheck { url: "s3://b/x".into(), path: "x".into(), bytes: 7, crc32: 8, key: "shop.orders.7".into() };
        let record = format.claim_check(&claim_check, Timestamp::from_micros(0)).unwrap();
        assert_eq!(ClaimCheck::read(&record).unwrap(), Some(claim_check));
        assert_eq!((ClaimCheck::read(&parts[0]).unwrap(), Part::read(&record).unwrap()), (None, None));
    }
}
