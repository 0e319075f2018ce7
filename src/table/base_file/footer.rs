//! What our footers say about keys: `binlake.key_ranges`.
//!
//! The value is `1:` and the hexadecimal form of an Arrow IPC stream with one batch: the key columns, typed, two rows a row group, its first and its last
//! key. It also says that the file is sorted by key and has at most one row a key; a file without it is another writer's.

use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::fmt::Write;

/// The footer's key under which [`KeyRanges`] are kept.
pub(in super::super) const KEY_RANGES: &str = "binlake.key_ranges";

/// The version of the value.
const VERSION: &str = "1:";

/// First and last key of each row group: two rows a row group.
#[derive(Debug, Clone)]
pub(in super::super) struct KeyRanges(pub(in super::super) RecordBatch);

impl KeyRanges {
    /// The footer's text.
    pub(in super::super) fn to_text(&self) -> Result<String> {
        let unexpected = |error| Error::bug("key ranges can't be encoded").caused_by(error);
        let mut writer = StreamWriter::try_new(Vec::new(), self.0.schema_ref()).map_err(unexpected)?;
        writer.write(&self.0).map_err(unexpected)?;
        let bytes = writer.into_inner().map_err(unexpected)?;
        let mut text = String::with_capacity(VERSION.len() + 2 * bytes.len());
        text.push_str(VERSION);
        for byte in bytes {
            _ = write!(text, "{byte:02x}");
        }
        Ok(text)
    }

    /// Reads the footer's text; `None` if it is no version that we know, or doesn't fit `row_groups`.
    pub(in super::super) fn parse(text: &str, row_groups: usize) -> Option<Self> {
        let hex = text.strip_prefix(VERSION)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes =
            hex.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect::<Option<Vec<u8>>>()?;
        let keys = StreamReader::try_new(bytes.as_slice(), None).ok()?.next()?.ok()?;
        (keys.num_rows() == 2 * row_groups).then_some(Self(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn ranges_and_back() {
        let keys = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![1, 5, 6, i64::MAX])) as _),
            ("b", Arc::new(StringArray::from(vec!["", "ü", "x", "y"])) as _),
        ])
        .unwrap();
        let text = KeyRanges(keys.clone()).to_text().unwrap();
        assert_eq!(KeyRanges::parse(&text, 2).unwrap().0, keys);
        assert!(KeyRanges::parse(&text, 3).is_none());
        for damaged in ["", "1:", "2:00", "1:zz", &text[..text.len() - 9]] {
            assert!(KeyRanges::parse(damaged, 2).is_none_or(|ranges| ranges.0 == keys), "{damaged}");
        }
    }
}
