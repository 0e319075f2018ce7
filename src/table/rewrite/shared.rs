//! Column chunks that two tables of one commit have in common: who comes first makes one, the other takes it.
//!
//! **Why.** A history's open versions are the table's rows, in the table's order: most of what is encoded for one is what is encoded for the other.
//!
//! **Why it is right.** A chunk goes by a digest of all that it is made from: the old chunk's bytes, which rows go and come, the values of those that come,
//! and how they are written. Neither table knows of the other; where they differ in anything, each makes its own. The digest has 128 bits and a seed that
//! nobody knows, so no content can be made to collide.

use super::super::base_file::{EncodedColumn, RawColumn};
use super::super::made_once::MadeOnce;
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::DataType;
use parquet::schema::types::ColumnDescPtr;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// What a chunk is made from.
pub(super) struct Digest(Xxh3);

impl Digest {
    /// Adds bytes; what has a length of its own says it first.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    /// Adds a column's values; false for types that this doesn't know.
    pub(super) fn values(&mut self, array: &ArrayRef) -> bool {
        self.number(array.len() as u64);
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => _ = self.number(0),
            Some(nulls) => _ = self.bytes(&bits(nulls)),
        }
        match array.data_type() {
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                self.texts(array.value_offsets(), array.value_data());
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                self.texts(array.value_offsets(), array.value_data());
            }
            DataType::BinaryView => {
                for value in array.as_binary_view().iter().flatten() {
                    self.bytes(value);
                }
            }
            stored => {
                let Some(width) = stored.primitive_width() else { return false };
                let data = array.to_data();
                let values = data.buffers().first().map(Buffer::as_slice).unwrap_or_default();
                let Some(values) = values.get(data.offset() * width..(data.offset() + data.len()) * width) else { return false };
                self.bytes(values);
            }
        }
        true
    }

    fn texts(&mut self, ends: &[i32], bytes: &[u8]) {
        let lengths: Vec<i32> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        self.bytes(Buffer::from_vec(lengths).as_slice());
        let end = |end: Option<&i32>| end.and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        self.bytes(&bytes[end(ends.first())..end(ends.last())]);
    }

    fn end(&self) -> u128 {
        self.0.digest128()
    }
}

/// Which values there are, a bit each.
fn bits(nulls: &NullBuffer) -> Vec<u8> {
    let mut bits = vec![0_u8; nulls.len().div_ceil(8)];
    nulls.valid_indices().for_each(|row| bits[row / 8] |= 1 << (row % 8));
    bits
}

/// The chunks of one commit on two tables.
#[derive(Debug)]
pub(in super::super) struct SharedColumns {
    seed: u64,
    chunks: MadeOnce<u128, RawColumn>,
}

impl SharedColumns {
    /// None yet; of those that wait at most about `most_bytes`.
    pub(in super::super) fn new(most_bytes: usize) -> Self {
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        Self { seed, chunks: MadeOnce::new(most_bytes, |chunk| chunk.bytes.len()) }
    }

    /// Begins to say what a chunk is made from.
    pub(super) fn digest(&self) -> Digest {
        Digest(Xxh3::with_seed(self.seed))
    }

    /// Whether chunks may be taken, or kept for the other table.
    pub(super) fn is_worthwhile(&self) -> bool {
        self.chunks.is_worthwhile()
    }

    /// How many chunks were made once for both tables.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.chunks.taken()
    }

    /// The chunk that is made from what `digest` says, as the column `target` of a file: the other table's, or what `make` makes.
    pub(super) fn get(
        &self,
        digest: &Digest,
        target: &ColumnDescPtr,
        make: impl FnOnce() -> Result<EncodedColumn>,
    ) -> Result<EncodedColumn> {
        let chunk = self.chunks.get(digest.end(), || make()?.into_raw())?;
        chunk.into_column(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::base_file::constant_chunk;
    use arrow::array::{BinaryArray, BinaryViewArray, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray};
    use parquet::basic::{Repetition, Type as Physical};
    use parquet::schema::types::{ColumnDescriptor, ColumnPath, Type};
    use std::sync::Arc;

    fn column(name: &str, id: i32) -> ColumnDescPtr {
        let column =
            Type::primitive_type_builder(name, Physical::BYTE_ARRAY).with_repetition(Repetition::OPTIONAL).with_id(Some(id));
        Arc::new(ColumnDescriptor::new(Arc::new(column.build().unwrap()), 1, 0, ColumnPath::from(name)))
    }

    fn digest(shared: &SharedColumns, number: u64) -> Digest {
        let mut digest = shared.digest();
        digest.number(number);
        digest
    }

    #[test]
    fn a_chunk_is_taken_as_the_column_that_it_becomes() {
        let shared = SharedColumns::new(1 << 20);
        let get = |name, id| {
            let make = || constant_chunk(&column("one", 3), "a value", 10);
            shared.get(&digest(&shared, 1), &column(name, id), make).unwrap()
        };
        let (first, second) = (get("one", 3), get("other", 7));
        assert_eq!(shared.taken(), 1);
        assert_eq!(first.close().metadata.column_descr_ptr(), column("one", 3));
        assert_eq!(second.close().metadata.column_descr_ptr(), column("other", 7));
        assert_eq!(second.close().metadata.statistics(), first.close().metadata.statistics());
        assert_eq!(second.close().offset_index, first.close().offset_index);
    }

    #[test]
    fn equal_values_have_one_digest_wherever_they_lie_and_others_another() {
        let shared = SharedColumns::new(0);
        let of = |array: ArrayRef| {
            let mut digest = shared.digest();
            assert!(digest.values(&array));
            digest.end()
        };
        let texts = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let part = texts(vec![Some("x"), Some("ab"), None, Some("c"), Some("y")]).slice(1, 3);
        assert_eq!(of(part.clone()), of(texts(vec![Some("ab"), None, Some("c")])));
        for other in [vec![Some("a"), None, Some("bc")], vec![Some("ab"), Some(""), Some("c")], vec![Some("ab"), None], vec![]] {
            assert_ne!(of(part.clone()), of(texts(other)));
        }
        let longs = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        assert_eq!(of(longs(&[1, 2, 3]).slice(1, 2)), of(longs(&[2, 3])));
        assert_ne!(of(longs(&[2, 3])), of(longs(&[3, 2])));
        assert_ne!(of(longs(&[2])), of(longs(&[])));
        let bytes: [&[u8]; 2] = [b"a", b"bc"];
        assert_ne!(
            of(Arc::new(BinaryViewArray::from_iter_values(bytes))),
            of(Arc::new(BinaryViewArray::from_iter_values([b"ab", b"c_"])))
        );
        of(Arc::new(BinaryArray::from_iter_values(bytes)));
        of(Arc::new(TimestampMicrosecondArray::from(vec![1])));
        let unknown: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert!(!shared.digest().values(&unknown));
    }
}
