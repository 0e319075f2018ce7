//! The column chunks of a job: copied, spliced or made anew, and made once where another table of the commit has the same.

use super::super::base_file::{BaseFile, EncodedColumn, MAX_ROW_GROUP_ROWS, MetaColumn, RowGroupBytes};
use super::super::file_group::Key;
use super::super::splice::{CopyMap, PageSplice, chunk_bytes, copy_chunk, equal_values};
use super::job::{EncodedRowGroup, KEPT, Source, Work, unexpected};
use super::merge::MergePlan;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::Arc;

/// How a chunk is made.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As a whole.
    Whole = 0,
    /// Of old pages and new ones.
    Spliced = 1,
}

/// What makes all chunks of a row group.
struct Making<'a> {
    plan: &'a MergePlan,
    /// The key's columns before and after.
    old_key: &'a [ArrayRef],
    key: &'a [ArrayRef],
    page_rows: usize,
    /// Where row groups begin, and the end.
    bounds: &'a [usize],
    /// Where all rows keep their places and pages are regular, a column may keep its pages, or have them made from indices, beside new ones.
    in_place: Option<(&'a CopyMap, PageSplice<'a>)>,
}

impl Work<'_> {
    /// The row group with only the pages made anew that the changes touch.
    pub(super) fn spliced(
        &self,
        file: &BaseFile,
        row_group: usize,
        bytes: &RowGroupBytes,
        splice: &PageSplice<'_>,
        plan: &MergePlan,
        key: &[ArrayRef],
    ) -> Result<EncodedRowGroup> {
        let (layout, encoder, page_rows) = (&self.context.layout, &self.context.encoder, self.page_rows());
        let ranges = splice.old_ranges();
        let mut columns = Vec::with_capacity(KEPT.len() + layout.columns.fields().len());
        for meta in KEPT {
            let old = || file.read_rows(bytes, row_group, meta.name(), &DataType::Utf8, &ranges);
            let new = cast(&self.new_meta(meta, plan)?, &DataType::BinaryView).map_err(unexpected)?;
            let make = || splice.column(meta as usize, old, &new, encoder);
            columns.push(self.shared(Way::Spliced, meta as usize, &new, plan, page_rows, make)?);
        }
        for (i, field) in layout.columns.fields().iter().enumerate() {
            let old = || file.read_rows(bytes, row_group, field.name(), field.data_type(), &ranges);
            let (leaf, new) = (i + MetaColumn::ALL.len(), self.changed(i)?);
            let make = || splice.column(leaf, old, &new, encoder);
            columns.push(self.shared(Way::Spliced, leaf, &new, plan, page_rows, make)?);
        }
        let (range, keys) = self.range(key, 0, plan.rows())?;
        Ok(EncodedRowGroup { columns, rows: plan.rows(), range, keys })
    }

    /// The row group as it is.
    pub(super) fn copied(
        &self,
        file: &BaseFile,
        row_group: usize,
        bytes: &RowGroupBytes,
        copy: &CopyMap,
        (range, keys): (RecordBatch, (Key, Key)),
    ) -> Result<EncodedRowGroup> {
        let layout = &self.context.layout;
        let rows = file.row_group_rows(row_group);
        let mut columns = Vec::with_capacity(KEPT.len() + layout.columns.fields().len());
        let own = (0..layout.columns.fields().len()).map(|i| i + MetaColumn::ALL.len());
        for leaf in KEPT.iter().map(|meta| *meta as usize).chain(own) {
            columns.push(match copy.source(leaf) {
                Some(source) => copy_chunk(file, bytes, row_group, source, &layout.parquet.column(leaf))?,
                None => {
                    let field = layout.columns.field(leaf - MetaColumn::ALL.len());
                    let missing = self.old(field.name(), field.data_type())?;
                    self.context.encoder.encode(leaf - MetaColumn::ALL.len(), &missing, self.page_rows())?
                }
            });
        }
        Ok(EncodedRowGroup { columns, rows, range, keys })
    }

    /// All columns decoded, merged and encoded, in as many row groups as it takes.
    pub(super) fn encoded(
        &self,
        plan: &MergePlan,
        old_key: &[ArrayRef],
        key: &[ArrayRef],
        page_rows: usize,
    ) -> Result<Vec<EncodedRowGroup>> {
        let layout = &self.context.layout;
        let rows = plan.rows();
        let cuts = if 2 * rows > 3 * MAX_ROW_GROUP_ROWS { rows.div_ceil(MAX_ROW_GROUP_ROWS) } else { 1 };
        let bounds: Vec<usize> = (0..=cuts).map(|cut| cut * rows / cuts).collect();
        let mut row_groups = Vec::with_capacity(cuts);
        for bounds in bounds.windows(2) {
            let (range, keys) = self.range(key, bounds[0], bounds[1])?;
            row_groups.push(EncodedRowGroup { columns: Vec::new(), rows: bounds[1] - bounds[0], range, keys });
        }
        let in_place = match &self.source {
            Source::File { file, row_group, bytes, copy: Some(copy) }
                if cuts == 1 && plan.keeps_places() && PageSplice::is_regular(file, *row_group, copy, layout, page_rows) =>
            {
                PageSplice::new(file, bytes, *row_group, copy, layout, plan, page_rows).map(|splice| (*copy, splice))
            }
            _ => None,
        };
        let making = Making { plan, old_key, key, page_rows, bounds: &bounds, in_place };
        for meta in KEPT {
            let new = self.new_meta(meta, plan)?;
            let make = || self.meta_chunks(meta, &new, &making);
            self.append(&mut row_groups, meta as usize, &new, &making, make)?;
        }
        for i in 0..layout.columns.fields().len() {
            let new = self.changed(i)?;
            let make = || self.own_chunks(i, &new, &making);
            self.append(&mut row_groups, i + MetaColumn::ALL.len(), &new, &making, make)?;
        }
        Ok(row_groups)
    }

    /// Adds a column's chunks to the row groups.
    fn append(
        &self,
        row_groups: &mut [EncodedRowGroup],
        leaf: usize,
        new: &ArrayRef,
        making: &Making<'_>,
        make: impl FnOnce() -> Result<Vec<EncodedColumn>>,
    ) -> Result<()> {
        if let [row_group] = row_groups {
            let one = || make()?.pop().ok_or_else(|| Error::bug("a column without a chunk"));
            row_group.columns.push(self.shared(Way::Whole, leaf, new, making.plan, making.page_rows, one)?);
            return Ok(());
        }
        row_groups.iter_mut().zip(make()?).for_each(|(row_group, chunk)| row_group.columns.push(chunk));
        Ok(())
    }

    /// The chunks of one of Hudi's columns.
    fn meta_chunks(&self, meta: MetaColumn, new: &ArrayRef, making: &Making<'_>) -> Result<Vec<EncodedColumn>> {
        if let (Some((_, splice)), MetaColumn::CommitTime) = (&making.in_place, meta)
            && let Some(chunk) = splice.by_indices(meta as usize, new, &self.context.encoder)?
        {
            return Ok(vec![chunk]);
        }
        let merged = match self.source {
            Source::None => self.only_upserts(new, making.plan)?,
            _ => {
                let new = cast(new, &DataType::BinaryView).map_err(unexpected)?;
                self.merged(&self.old(meta.name(), &DataType::Utf8)?, &new, making.plan)?
            }
        };
        let parts = making.bounds.windows(2).map(|bounds| merged.slice(bounds[0], bounds[1] - bounds[0]));
        parts.map(|part| self.context.encoder.encode_meta(meta, &part, making.page_rows)).collect()
    }

    /// The chunks of the table's column `i`.
    fn own_chunks(&self, i: usize, new: &ArrayRef, making: &Making<'_>) -> Result<Vec<EncodedColumn>> {
        let layout = &self.context.layout;
        let (leaf, field) = (i + MetaColumn::ALL.len(), layout.columns.field(i));
        let in_key = layout.key.iter().position(|k| *k == i);
        if let (Some((_, splice)), None) = (&making.in_place, in_key)
            && let Some(chunk) = splice.by_indices(leaf, new, &self.context.encoder)?
        {
            return Ok(vec![chunk]);
        }
        let old = match (in_key, &self.source) {
            (Some(position), _) => Some(Arc::clone(&making.old_key[position])),
            (None, Source::None) => None,
            (None, _) => Some(self.old(field.name(), field.data_type())?),
        };
        if let (Some((copy, _)), Source::File { file, row_group, bytes, .. }, Some(old)) = (&making.in_place, &self.source, &old)
            && let Some(source) = copy.source(leaf)
            && leaves(old, new, making.plan)
        {
            return Ok(vec![copy_chunk(file, bytes, *row_group, source, &layout.parquet.column(leaf))?]);
        }
        let merged = match (in_key, &old) {
            (Some(position), _) => Arc::clone(&making.key[position]),
            (None, Some(old)) => self.merged(old, new, making.plan)?,
            (None, None) => self.only_upserts(new, making.plan)?,
        };
        let parts = making.bounds.windows(2).map(|bounds| merged.slice(bounds[0], bounds[1] - bounds[0]));
        parts.map(|part| self.context.encoder.encode(i, &part, making.page_rows)).collect()
    }

    /// The chunk of the layout's column `leaf`: the other table's, if that is made from the same, else what `make` makes. `new` is the column of all changes.
    fn shared(
        &self,
        way: Way,
        leaf: usize,
        new: &ArrayRef,
        plan: &MergePlan,
        page_rows: usize,
        make: impl FnOnce() -> Result<EncodedColumn>,
    ) -> Result<EncodedColumn> {
        let Some(shared) = self.context.shared.as_ref().filter(|shared| shared.is_worthwhile()) else { return make() };
        // record keys differ with the key
        if leaf == MetaColumn::RecordKey as usize {
            return make();
        }
        let target = self.context.layout.parquet.column(leaf);
        let mut digest = shared.digest();
        let is_key = leaf.checked_sub(MetaColumn::ALL.len()).is_some_and(|own| self.context.layout.key.contains(&own));
        digest.number(way as u64).number(leaf.min(MetaColumn::ALL.len()) as u64).number(u64::from(is_key));
        digest.number(page_rows as u64).bytes(format!("{}{:?}", target.physical_type(), new.data_type()).as_bytes());
        digest.number(u64::from(target.max_def_level().unsigned_abs())).number(u64::from(target.type_length().unsigned_abs()));
        match &self.source {
            Source::None => _ = digest.number(0),
            Source::File { file, row_group, bytes, copy: Some(copy) } => {
                let Some(source) = copy.source(leaf) else { return make() };
                let codec = file.metadata.row_group(*row_group).column(source).compression();
                digest.bytes(format!("{codec:?}").as_bytes()).bytes(&chunk_bytes(file, bytes, *row_group, source)?);
            }
            _ => return make(),
        }
        digest.number(plan.ops.len() as u64).number(plan.old_rows as u64);
        if !matches!(self.source, Source::None) {
            for op in &plan.ops {
                digest.number(u64::from(op.at) << 2 | u64::from(op.removes) << 1 | u64::from(op.new.is_some()));
            }
        }
        if digest.values(&self.only_upserts(new, plan)?) { shared.get(&digest, &target, make) } else { make() }
    }
}

/// Whether all changes, which are updates, leave a column as it was.
fn leaves(old: &ArrayRef, new: &ArrayRef, plan: &MergePlan) -> bool {
    let equal = equal_values(old, new);
    plan.ops.iter().all(|op| op.new.is_some_and(|row| equal(op.at as usize, row as usize)))
}
