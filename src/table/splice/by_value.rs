//! A column chunk with some pages made anew, by its values.

use super::super::base_file::{ColumnEncoder, EncodedColumn, MetaColumn, parquet_error};
use super::super::rewrite::{Op, merge_column};
use super::assemble::{ChunkParts, PageBytes, uncompressed_bytes};
use super::by_index::{dictionary_width, look_up};
use super::chunk::offset_index;
use super::dictionary::Dictionary;
use super::pages::PageSplice;
use super::statistics::{PageStatistics, of_page, of_values};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::Arc;

impl PageSplice<'_> {
    /// The chunk of the layout's column `leaf`. `old` gives its rows in [`Self::old_ranges`], `new` are those of all changes.
    pub(in super::super) fn column(
        &self,
        leaf: usize,
        old: impl FnOnce() -> Result<ArrayRef>,
        new: &ArrayRef,
        encoder: &ColumnEncoder,
    ) -> Result<EncodedColumn> {
        if let Some(chunk) = self.by_indices(leaf, new, encoder)? {
            return Ok(chunk);
        }
        let Some(source) = self.copy.source(leaf) else { return Err(Error::bug("a page splice of a new column")) };
        let old = &old()?;
        let equal = equal_values(old, new);
        let unchanged: Vec<bool> = self
            .touched
            .iter()
            .map(|touched| {
                let same = |op: &Op| op.new.is_some_and(|row| equal(op.at as usize, row as usize));
                touched.only_updates && self.plan.ops[touched.ops.clone()].iter().all(same)
            })
            .collect();
        let merged = if unchanged.iter().all(|same| *same) { None } else { Some(merge_column(old, new, &self.plan)?) };
        self.chunk(leaf, source, &unchanged, merged.as_ref(), encoder)
    }

    fn chunk(
        &self,
        leaf: usize,
        source: usize,
        unchanged: &[bool],
        merged: Option<&ArrayRef>,
        encoder: &ColumnEncoder,
    ) -> Result<EncodedColumn> {
        let damaged = |error: ParquetError| parquet_error(error, &self.file.path);
        let target = encoder.layout().parquet.column(leaf);
        let old = self.file.metadata.row_group(self.row_group).column(source);
        let index = offset_index(self.file, self.row_group, source);
        let locations = index.map(|index| index.page_locations().as_slice()).unwrap_or_default();
        // the new pages of each touched page that has to be made
        let mut pieces: Vec<(usize, ArrayRef)> = Vec::new();
        for (i, touched) in self.touched.iter().enumerate() {
            if let Some(merged) = merged.filter(|_| !unchanged[i]) {
                pieces.extend(self.cut(touched).into_iter().map(|rows| (i, merged.slice(rows.start, rows.len()))));
            }
        }
        let mut made: Vec<Vec<PageBytes>> = vec![Vec::new(); self.touched.len()];
        let mut encodings: Vec<Encoding> = old.encodings().collect();
        let mut dictionary = None;
        if !pieces.is_empty() {
            let width = dictionary_width(pieces[0].1.data_type(), target.type_length());
            if let Some(width) = width.filter(|_| old.dictionary_page_offset().is_some()) {
                let rows = self.file.row_group_rows(self.row_group);
                let mut reader = SerializedPageReader::new(Arc::new(self.bytes.clone()), old, rows, None).map_err(damaged)?;
                dictionary = Dictionary::read(&mut reader, rows, width).map_err(damaged)?;
            }
            let new = match &mut dictionary {
                Some(dictionary) => {
                    with_dictionary(dictionary, &pieces, target.max_def_level() > 0, width.flatten()).map_err(damaged)?
                }
                None => pieces.iter().map(|_| None).collect(),
            };
            let plain: Vec<usize> = (0..pieces.len()).filter(|i| new[*i].is_none()).collect();
            let encoding = plain_encoding(leaf, pieces[0].1.data_type());
            let mut plain_pages = encode_plain(encoder, leaf, encoding, &pieces, &plain)?.into_iter();
            if !plain.is_empty() && !encodings.contains(&encoding) {
                encodings.push(encoding);
            }
            for ((i, _), page) in pieces.iter().zip(new) {
                if let Some(page) = page.or_else(|| plain_pages.next()) {
                    made[*i].push(page);
                }
            }
        }
        let mut pages = Vec::with_capacity(locations.len() + pieces.len());
        let mut touched = self.touched.iter().enumerate().peekable();
        for page in 0..self.starts.len() - 1 {
            match touched.next_if(|(_, touched)| touched.page == page) {
                Some((i, _)) if !unchanged[i] => pages.append(&mut made[i]),
                _ => pages.push(self.raw(source, &locations[page], page).map_err(damaged)?),
            }
        }
        let dictionary = match dictionary.filter(|dictionary| dictionary.grown) {
            Some(dictionary) => Some(dictionary.page().map_err(damaged)?),
            None => self.raw_dictionary(source).map_err(damaged)?,
        };
        let first_key = encoder.layout().key.first().map(|key| key + MetaColumn::ALL.len());
        let parts = ChunkParts { dictionary, pages, encodings, codec: old.compression_codec(), ascending: first_key == Some(leaf) };
        parts.assemble(&target).map_err(damaged)
    }
}

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
fn plain_encoding(leaf: usize, stored: &DataType) -> Encoding {
    if leaf == MetaColumn::CommitSeqno as usize || leaf == MetaColumn::RecordKey as usize {
        return Encoding::DELTA_BYTE_ARRAY;
    }
    match stored {
        DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _) => Encoding::DELTA_BINARY_PACKED,
        _ => Encoding::PLAIN,
    }
}

/// A page for each piece whose values the dictionary has or takes in.
fn with_dictionary(
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

/// The pages of those `pieces` that are in `which`, without a dictionary: neighbours of one length in one go.
fn encode_plain(
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
