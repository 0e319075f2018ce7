//! A column chunk with some pages made anew, by the indices into its dictionary.

use super::super::base_file::{ColumnEncoder, EncodedColumn, parquet_error};
use super::super::rewrite::Op;
use super::assemble::{ChunkParts, PageBytes};
use super::chunk::offset_index;
use super::dictionary::{Dictionary, NULL, read_indices};
use super::pages::PageSplice;
use super::statistics::Ranks;
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type};
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::Arc;

impl PageSplice<'_> {
    /// The chunk of the layout's column `leaf` without decoding a value, where the old pages are indices into a dictionary: indices are merged.
    /// `None` where they are not. `new` are the column's rows of all changes.
    pub(in super::super) fn by_indices(
        &self,
        leaf: usize,
        new: &ArrayRef,
        encoder: &ColumnEncoder,
    ) -> Result<Option<EncodedColumn>> {
        self.indices(leaf, new, encoder).map_err(|error| parquet_error(error, &self.file.path))
    }

    fn indices(&self, leaf: usize, new: &ArrayRef, encoder: &ColumnEncoder) -> Result<Option<EncodedColumn>, ParquetError> {
        let target = encoder.layout().parquet.column(leaf);
        let nullable = target.max_def_level() > 0;
        let Some(source) = self.copy.source(leaf) else { return Ok(None) };
        let old = self.file.metadata.row_group(self.row_group).column(source);
        let Some(width) =
            dictionary_width(new.data_type(), target.type_length()).filter(|_| old.dictionary_page_offset().is_some())
        else {
            return Ok(None);
        };
        let locations =
            offset_index(self.file, self.row_group, source).map(|index| index.page_locations().clone()).unwrap_or_default();
        let rows = self.file.row_group_rows(self.row_group);
        let mut pages = SerializedPageReader::new(Arc::new(self.bytes.clone()), old, rows, Some(locations.clone()))?;
        let Some(mut dictionary) = Dictionary::read(&mut pages, rows, width)? else { return Ok(None) };
        let upserted = self.plan.ops.iter().filter_map(|op| op.new).map(|row| row as usize);
        let Some(new) = look_up(&mut dictionary, new, upserted, width) else { return Ok(None) };

        // the touched pages' indices after the merge, page by page; `None`: as before
        let mut merged: Vec<Option<Vec<u32>>> = Vec::with_capacity(self.touched.len());
        let mut new = new.as_slice();
        let mut next = 0;
        let mut before = Vec::new();
        for touched in &self.touched {
            while next < touched.page {
                pages.skip_next_page()?;
                next += 1;
            }
            next += 1;
            let Some(page) = pages.get_next_page()? else { return Ok(None) };
            before.clear();
            if !read_indices(&page, nullable, &mut before)? || before.len() != touched.old.len() {
                return Ok(None);
            }
            let ops = &self.plan.ops[touched.ops.clone()];
            let (here, rest) = new.split_at(ops.iter().filter(|op| op.new.is_some()).count());
            new = rest;
            let row = |op: &Op| op.at as usize - touched.old.start;
            if touched.only_updates && ops.iter().zip(here).all(|(op, index)| before[row(op)] == *index) {
                merged.push(None);
                continue;
            }
            let mut after = Vec::with_capacity(touched.new.len());
            let (mut done, mut here) = (0, here.iter());
            for op in ops {
                after.extend_from_slice(&before[done..row(op)]);
                if op.new.is_some() {
                    after.extend(here.next());
                }
                done = row(op) + usize::from(op.removes);
            }
            after.extend_from_slice(&before[done..]);
            merged.push(Some(after));
        }
        let Some(ranks) = Ranks::new(&dictionary, target.physical_type(), width.is_none()) else { return Ok(None) };
        let mut out = Vec::with_capacity(locations.len());
        let mut touched = self.touched.iter().zip(&merged).peekable();
        for (page, location) in locations.iter().enumerate() {
            match touched.next_if(|(touched, _)| touched.page == page) {
                Some((touched, Some(indices))) => {
                    for rows in self.cut(touched) {
                        let indices = &indices[rows.start - touched.new.start..rows.end - touched.new.start];
                        let statistics = ranks.of(&dictionary, indices);
                        let (bytes, uncompressed) = dictionary.data_page(indices, nullable)?;
                        out.push(PageBytes { bytes, rows: indices.len(), uncompressed, statistics });
                    }
                }
                _ => out.push(self.raw(source, location, page)?),
            }
        }
        let first = if dictionary.grown { Some(dictionary.page()?) } else { self.raw_dictionary(source)? };
        let parts = ChunkParts {
            dictionary: first,
            pages: out,
            encodings: old.encodings().collect(),
            codec: old.compression_codec(),
            ascending: false,
        };
        parts.assemble(&target).map(Some)
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
