//! Which pages of a row group the changes touch.

use super::super::base_file::{BaseFile, FileLayout, MetaColumn, RowGroupBytes};
use super::super::rewrite::{MergePlan, Op};
use super::assemble::{PageBytes, uncompressed_bytes};
use super::chunk::{CopyMap, chunk_start, column_index, offset_index};
use super::statistics::of_page;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::page_index::offset_index::PageLocation;
use std::ops::Range;

/// From this share of touched pages on (in percent), a row group is better made anew as a whole.
const TOO_MANY: usize = 80;

/// A page that changes touch.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) page: usize,
    /// Its rows among the old rows of all touched pages.
    pub(super) old: Range<usize>,
    /// The rows that take its place, among those of all touched pages.
    pub(super) new: Range<usize>,
    /// Its changes, in `plan`.
    pub(super) ops: Range<usize>,
    /// Whether each old row has its place in the new rows.
    pub(super) only_updates: bool,
}

/// The splice of one row group.
#[derive(Debug)]
pub(in super::super) struct PageSplice<'a> {
    pub(super) file: &'a BaseFile,
    pub(super) bytes: &'a RowGroupBytes,
    pub(super) row_group: usize,
    pub(super) copy: &'a CopyMap,
    /// First rows of the pages, and the end.
    pub(super) starts: Vec<usize>,
    pub(super) touched: Vec<Touched>,
    /// The changes among the old rows of the touched pages alone.
    pub(super) plan: MergePlan,
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

    /// The rows that replace a page, cut into pages.
    pub(super) fn cut(&self, touched: &Touched) -> Vec<Range<usize>> {
        let rows = touched.new.len();
        let pieces = if 2 * rows > 3 * self.page_rows { rows.div_ceil(self.page_rows) } else { usize::from(rows > 0) };
        (0..pieces).map(|i| touched.new.start + i * rows / pieces..touched.new.start + (i + 1) * rows / pieces).collect()
    }

    pub(super) fn raw(&self, source: usize, location: &PageLocation, page: usize) -> Result<PageBytes, ParquetError> {
        let bytes = self.bytes.slice(u64::try_from(location.offset)?, usize::try_from(location.compressed_page_size)?)?;
        Ok(PageBytes {
            uncompressed: uncompressed_bytes(&bytes)?,
            bytes,
            rows: self.starts[page + 1] - self.starts[page],
            statistics: column_index(self.file, self.row_group, source).and_then(|index| of_page(index, page)),
        })
    }

    pub(super) fn raw_dictionary(&self, source: usize) -> Result<Option<(bytes::Bytes, usize)>, ParquetError> {
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
