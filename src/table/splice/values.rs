//! The values of new pages: compared with the old ones, looked up in a dictionary, or encoded without one.

use super::super::base_file::{ColumnEncoder, MetaColumn};
use super::assemble::{PageBytes, uncompressed_bytes};
use super::dictionary::{Dictionary, NULL};
use super::statistics::{PageStatistics, of_page, of_values};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type};
use parquet::basic::Encoding;
use parquet::errors::ParquetError;

/// Compares a row of `old` with a row of `new`, of the same type; never equal where the type is a nested one.
pub(in super::super) fn equal_values<'a>(old: &'a ArrayRef, new: &'a ArrayRef) -> Box<dyn Fn(usize, usize) -> bool + 'a> {
    let nulls = |a: usize, b: usize| (old.is_null(a), new.is_null(b));
    match old.data_type() {
        DataType::BinaryView => {
            let (left, right) = (old.as_binary_view(), new.as_binary_view());
            Box::new(move |a, b| match nulls(a, b) {
                (false, false) => left.value(a) == right.value(b),
                (a, b) => a && b,
            })
        }
        DataType::Boolean => {
            let (left, right) = (old.as_boolean(), new.as_boolean());
            Box::new(move |a, b| match nulls(a, b) {
                (false, false) => left.value(a) == right.value(b),
                (a, b) => a && b,
            })
        }
        stored => match stored.primitive_width() {
            Some(width) => {
                let (left, right) = (old.to_data(), new.to_data());
                Box::new(move |a, b| match nulls(a, b) {
                    (false, false) => {
                        let (a, b) = ((left.offset() + a) * width, (right.offset() + b) * width);
                        left.buffers()[0].as_slice()[a..a + width] == right.buffers()[0].as_slice()[b..b + width]
                    }
                    (a, b) => a && b,
                })
            }
            None => Box::new(|_, _| false),
        },
    }
}

/// The encoding of new pages without a dictionary.
pub(super) fn plain_encoding(leaf: usize, stored: &DataType) -> Encoding {
    if leaf == MetaColumn::CommitSeqno as usize || leaf == MetaColumn::RecordKey as usize {
        return Encoding::DELTA_BYTE_ARRAY;
    }
    match stored {
        DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _) => Encoding::DELTA_BINARY_PACKED,
        _ => Encoding::PLAIN,
    }
}

/// How wide a dictionary's values are (`Some(None)`: byte arrays); `None` for types without one.
pub(super) fn dictionary_width(stored: &DataType, fixed: i32) -> Option<Option<usize>> {
    match stored {
        DataType::BinaryView => Some(None),
        DataType::Int32 | DataType::Date32 => Some(Some(4)),
        DataType::Int64 | DataType::Timestamp(_, _) => Some(Some(8)),
        DataType::Decimal128(_, _) => usize::try_from(fixed).ok().map(Some),
        _ => None,
    }
}

/// A page for each piece whose values the dictionary has or takes in.
pub(super) fn with_dictionary(
    dictionary: &mut Dictionary,
    pieces: &[(usize, ArrayRef)],
    nullable: bool,
    width: Option<usize>,
) -> Result<Vec<Option<PageBytes>>, ParquetError> {
    let mut found: Vec<Option<(Vec<u32>, PageStatistics)>> = Vec::with_capacity(pieces.len());
    for (_, values) in pieces {
        let indices = look_up(dictionary, values, 0..values.len(), width);
        found.push(indices.zip(of_values(values, width)));
    }
    // pages come after all look-ups: their indices are as wide as the dictionary is then
    found
        .into_iter()
        .map(|found| {
            let Some((indices, statistics)) = found else { return Ok(None) };
            let (bytes, uncompressed) = dictionary.data_page(&indices, nullable)?;
            Ok(Some(PageBytes { bytes, rows: indices.len(), uncompressed, statistics: Some(statistics) }))
        })
        .collect()
}

/// The indices of `rows` of `values`; `None` if the dictionary has no room for all.
pub(super) fn look_up(
    dictionary: &mut Dictionary,
    values: &ArrayRef,
    rows: impl Iterator<Item = usize>,
    width: Option<usize>,
) -> Option<Vec<u32>> {
    let mut indices = Vec::with_capacity(rows.size_hint().0);
    if let Some(views) = values.as_binary_view_opt() {
        for row in rows {
            indices.push(if views.is_null(row) { NULL } else { dictionary.index_of(views.value(row))? });
        }
    } else if let Some(decimals) = values.as_primitive_opt::<Decimal128Type>() {
        let skip = 16 - width?;
        for row in rows {
            let value = decimals.value(row).to_be_bytes();
            indices.push(if decimals.is_null(row) { NULL } else { dictionary.index_of(&value[skip..])? });
        }
    } else {
        let (data, width) = (values.to_data(), width?);
        let bytes = data.buffers().first()?.as_slice().get(data.offset() * width..)?;
        for row in rows {
            indices.push(if values.is_null(row) {
                NULL
            } else {
                dictionary.index_of(bytes.get(row * width..(row + 1) * width)?)?
            });
        }
    }
    Some(indices)
}

/// The pages of those `pieces` that are in `which`, without a dictionary: neighbours of one length in one go.
pub(super) fn encode_plain(
    encoder: &ColumnEncoder,
    leaf: usize,
    encoding: Encoding,
    pieces: &[(usize, ArrayRef)],
    which: &[usize],
) -> Result<Vec<PageBytes>> {
    let mut pages = Vec::with_capacity(which.len());
    for alike in which.chunk_by(|a, b| pieces[*a].1.len() == pieces[*b].1.len()) {
        let arrays: Vec<&ArrayRef> = alike.iter().map(|i| &pieces[*i].1).collect();
        for page in encoder.encode_pages(leaf, &arrays, encoding)? {
            pages.push(PageBytes {
                uncompressed: uncompressed_bytes(&page.bytes)
                    .map_err(|error| Error::bug("a new page has no header").caused_by(error))?,
                bytes: page.bytes,
                rows: page.rows,
                statistics: page.column_index.as_ref().and_then(|index| of_page(index, page.number)),
            });
        }
    }
    if pages.len() != which.len() {
        return Err(Error::bug("a page was cut in two"));
    }
    Ok(pages)
}
