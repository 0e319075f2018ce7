//! Which pages of a row group the changes touch, and the chunks with those pages made anew.

use super::super::base_file::{BaseFile, ColumnEncoder, EncodedColumn, FileLayout, MetaColumn, RowGroupBytes, parquet_error};
use super::super::rewrite::{MergePlan, Op, merge_column};
use super::assemble::{ChunkParts, PageBytes, uncompressed_bytes};
use super::chunk::{CopyMap, chunk_start, column_index, offset_index};
use super::dictionary::{Dictionary, read_indices};
use super::statistics::{Ranks, of_page};
use super::values::{dictionary_width, encode_plain, equal_values, look_up, plain_encoding, with_dictionary};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef};
use parquet::basic::{Compression, Encoding};
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;
use std::ops::Range;
use std::sync::Arc;

/// From this share of touched pages on (in percent), a row group is better made anew as a whole.
const TOO_MANY: usize = 80;

/// A page that changes touch.
#[derive(Debug)]
struct Touched {
    page: usize,
    /// Its rows among the old rows of all touched pages.
    old: Range<usize>,
    /// The rows that take its place, among those of all touched pages.
    new: Range<usize>,
    /// Its changes, in `plan`.
    ops: Range<usize>,
    /// Whether each old row has its place in the new rows.
    only_updates: bool,
}

/// The splice of one row group.
#[derive(Debug)]
pub(in super::super) struct PageSplice<'a> {
    file: &'a BaseFile,
    bytes: &'a RowGroupBytes,
    row_group: usize,
    copy: &'a CopyMap,
    /// First rows of the pages, and the end.
    starts: Vec<usize>,
    touched: Vec<Touched>,
    /// The changes among the old rows of the touched pages alone.
    plan: MergePlan,
    page_rows: usize,
}

impl<'a> PageSplice<'a> {
    /// `None` if the columns break their pages at different rows.
    pub(in super::super) fn new(
        file: &'a BaseFile,
        bytes: &'a RowGroupBytes,
        row_group: usize,
        copy: &'a CopyMap,
        layout: &FileLayout,
        plan: &MergePlan,
        page_rows: usize,
    ) -> Option<Self> {
        let starts = common_starts(file, row_group, copy, layout)?;
        let (touched, plan) = touch(&starts, plan);
        Some(Self { file, bytes, row_group, copy, starts, touched, plan, page_rows })
    }

    /// Whether so few pages are touched that the splice is cheaper than making all anew.
    pub(in super::super) fn is_sparse(&self) -> bool {
        self.touched.len() * 100 <= (self.starts.len() - 1) * TOO_MANY
    }

    /// Rows of the first page, where all columns agree on it and it isn't the only one.
    pub(in super::super) fn first_page_rows(
        file: &BaseFile,
        row_group: usize,
        copy: &CopyMap,
        layout: &FileLayout,
    ) -> Option<usize> {
        common_starts(file, row_group, copy, layout).filter(|starts| starts.len() > 2).map(|starts| starts[1])
    }

    /// Whether all columns break their pages at each `page_rows`th row, as a column that is made anew does.
    pub(in super::super) fn is_regular(
        file: &BaseFile,
        row_group: usize,
        copy: &CopyMap,
        layout: &FileLayout,
        page_rows: usize,
    ) -> bool {
        let starts = common_starts(file, row_group, copy, layout);
        starts.is_some_and(|starts| starts[..starts.len() - 1].iter().enumerate().all(|(page, start)| *start == page * page_rows))
    }

    /// The old rows of the touched pages, as ranges in the row group.
    pub(in super::super) fn old_ranges(&self) -> Vec<Range<usize>> {
        self.touched.iter().map(|touched| self.starts[touched.page]..self.starts[touched.page + 1]).collect()
    }

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

    /// The same without decoding a value, where the old pages are indices into a dictionary: indices are merged. `None` where they are not.
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
        for (page, location) in locations.iter().enumerate().take(self.starts.len() - 1) {
            match touched.next_if(|(_, touched)| touched.page == page) {
                Some((i, _)) if !unchanged[i] => pages.append(&mut made[i]),
                _ => pages.push(self.raw(source, location, page).map_err(damaged)?),
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

    /// The rows that replace a page, cut into pages.
    fn cut(&self, touched: &Touched) -> Vec<Range<usize>> {
        let rows = touched.new.len();
        let pieces = if 2 * rows > 3 * self.page_rows { rows.div_ceil(self.page_rows) } else { usize::from(rows > 0) };
        (0..pieces).map(|i| touched.new.start + i * rows / pieces..touched.new.start + (i + 1) * rows / pieces).collect()
    }

    fn raw(&self, source: usize, location: &PageLocation, page: usize) -> Result<PageBytes, ParquetError> {
        let bytes = self.bytes.slice(u64::try_from(location.offset)?, usize::try_from(location.compressed_page_size)?)?;
        Ok(PageBytes {
            uncompressed: uncompressed_bytes(&bytes)?,
            bytes,
            rows: self.starts[page + 1] - self.starts[page],
            statistics: column_index(self.file, self.row_group, source).and_then(|index| of_page(index, page)),
        })
    }

    fn raw_dictionary(&self, source: usize) -> Result<Option<(bytes::Bytes, usize)>, ParquetError> {
        let old = self.file.metadata.row_group(self.row_group).column(source);
        if old.dictionary_page_offset().is_none() {
            return Ok(None);
        }
        let start = chunk_start(old);
        let bytes = self.bytes.slice(u64::try_from(start)?, usize::try_from(old.data_page_offset() - start)?)?;
        let uncompressed = uncompressed_bytes(&bytes)?;
        Ok(Some((bytes, uncompressed)))
    }
}

/// The first rows of all columns' pages, and the end; `None` if the columns don't agree.
fn common_starts(file: &BaseFile, row_group: usize, copy: &CopyMap, layout: &FileLayout) -> Option<Vec<usize>> {
    let remade = [MetaColumn::PartitionPath as usize, MetaColumn::FileName as usize];
    let mut common: Option<&[PageLocation]> = None;
    for (leaf, column) in layout.parquet.columns().iter().enumerate() {
        if remade.contains(&leaf) {
            continue;
        }
        let source = copy.source(leaf)?;
        let chunk = file.metadata.row_group(row_group).column(source);
        if column.max_rep_level() > 0 || !matches!(chunk.compression(), Compression::ZSTD(_)) {
            return None;
        }
        let locations = offset_index(file, row_group, source)?.page_locations();
        let agrees = |common: &[PageLocation]| {
            common.len() == locations.len() && common.iter().zip(locations).all(|(a, b)| a.first_row_index == b.first_row_index)
        };
        if !common.is_none_or(agrees) {
            return None;
        }
        common = Some(locations);
    }
    let mut starts = Vec::with_capacity(common?.len() + 1);
    for location in common? {
        starts.push(usize::try_from(location.first_row_index).ok()?);
    }
    starts.push(file.row_group_rows(row_group));
    starts.windows(2).all(|pair| pair[0] < pair[1]).then_some(starts).filter(|starts| starts.len() > 1 && starts[0] == 0)
}

/// The pages that `plan` touches, and the plan among their rows alone.
fn touch(starts: &[usize], plan: &MergePlan) -> (Vec<Touched>, MergePlan) {
    let last_page = starts.len() - 2;
    let mut touched: Vec<Touched> = Vec::new();
    let mut joined = MergePlan { inserted: plan.inserted, updated: plan.updated, deleted: plan.deleted, ..MergePlan::default() };
    joined.ops.reserve(plan.ops.len());
    let mut page = 0;
    for op in &plan.ops {
        let at = op.at as usize;
        while page < last_page && starts[page + 1] <= at {
            page += 1;
        }
        // a row that comes between two pages goes to the one before
        let page = if !op.removes && at == starts[page] && page > 0 { page - 1 } else { page };
        if touched.last().is_none_or(|last| last.page != page) {
            let rows = starts[page + 1] - starts[page];
            let old = joined.old_rows..joined.old_rows + rows;
            let new_start = touched.last().map_or(0, |last| last.new.end);
            joined.old_rows = old.end;
            touched.push(Touched {
                page,
                new: new_start..new_start + rows,
                old,
                ops: joined.ops.len()..joined.ops.len(),
                only_updates: true,
            });
        }
        let Some(last) = touched.last_mut() else { continue };
        let at = u32::try_from(last.old.start + at - starts[page]).unwrap_or(u32::MAX);
        joined.ops.push(Op { at, ..*op });
        last.ops.end += 1;
        last.only_updates &= op.removes && op.new.is_some();
        last.new.end = last.new.end + usize::from(op.new.is_some()) - usize::from(op.removes);
    }
    (touched, joined)
}
