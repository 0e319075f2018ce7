//! The columns of a job: old, new and merged.

use super::super::base_file::{MetaColumn, memory_type, page_rows_for};
use super::super::file_group::Key;
use super::super::record_key::{append_integer, record_keys};
use super::super::splice::PageSplice;
use super::job::{Source, Work, unexpected};
use super::merge::{MergePlan, changed_column, merge_column};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BinaryViewArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Schema};
use std::sync::Arc;

impl Work<'_> {
    /// A column of the old rows in its memory type.
    pub(super) fn old(&self, name: &str, stored: &DataType) -> Result<ArrayRef> {
        let (found, rows) = match &self.source {
            Source::None => (None, 0),
            Source::Memory(rows) => (rows.column_by_name(name).cloned(), rows.num_rows()),
            Source::File { file, row_group, bytes, .. } => {
                (file.read_column(bytes, *row_group, name, stored)?, file.row_group_rows(*row_group))
            }
        };
        Ok(match (found, self.context.fill.get(name)) {
            (Some(column), _) => column,
            (None, Some(value)) => take(value, &UInt32Array::from(vec![0; rows]), None).map_err(unexpected)?,
            (None, None) => new_null_array(&memory_type(stored), rows),
        })
    }

    /// The table's column `i` of all changes, as it is merged.
    pub(super) fn changed(&self, i: usize) -> Result<ArrayRef> {
        let stored = self.context.layout.columns.field(i).data_type();
        match self.source {
            Source::None => changed_column(self.changes, i, stored),
            _ => changed_column(self.changes, i, &memory_type(stored)),
        }
    }

    /// A column after the merge.
    pub(super) fn merged(&self, old: &ArrayRef, new: &ArrayRef, plan: &MergePlan) -> Result<ArrayRef> {
        match self.source {
            Source::None => self.only_upserts(new, plan),
            _ if self.changes.is_empty() => Ok(Arc::clone(old)),
            _ => merge_column(old, new, plan),
        }
    }

    /// The rows of `new` that the plan takes, where there are no old ones.
    pub(super) fn only_upserts(&self, new: &ArrayRef, plan: &MergePlan) -> Result<ArrayRef> {
        if plan.ops.len() == new.len() {
            return Ok(Arc::clone(new));
        }
        let rows = UInt32Array::from_iter_values(plan.ops.iter().filter_map(|op| op.new));
        take(new, &rows, None).map_err(unexpected)
    }

    /// One of Hudi's columns for all changes of the job, of which `plan` says which are written.
    pub(super) fn new_meta(&self, meta: MetaColumn, plan: &MergePlan) -> Result<ArrayRef> {
        let rows: usize = self.changes.iter().map(|piece| piece.range.len()).sum();
        let instant = self.context.instant.as_str();
        Ok(match meta {
            MetaColumn::CommitTime => {
                let one = BinaryViewArray::from_iter_values([instant.as_bytes()]);
                take(&one, &UInt32Array::from(vec![0; rows]), None).map_err(unexpected)?
            }
            MetaColumn::CommitSeqno => {
                let mut values = Vec::with_capacity(rows * (instant.len() + 12));
                let mut ends: Vec<i32> = Vec::with_capacity(rows + 1);
                ends.push(0);
                let mut prefix = instant.as_bytes().to_vec();
                prefix.push(b'_');
                append_integer(i64::from(self.number), &mut prefix);
                prefix.push(b'_');
                // only what is written counts: a history's change of a row, which is a delete as well, has the number that the row's own has in its table,
                // where late ones may have lost
                let mut written = plan.ops.iter().filter_map(|op| op.new).map(|row| row as usize).peekable();
                let mut number = 0;
                for row in 0..rows {
                    values.extend_from_slice(&prefix);
                    append_integer(number, &mut values);
                    ends.push(i32::try_from(values.len()).map_err(|_| Error::bug("too many changes in one job"))?);
                    number += i64::from(written.next_if_eq(&row).is_some());
                }
                Arc::new(
                    StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), values.into(), None).map_err(unexpected)?,
                )
            }
            _ => {
                let layout = &self.context.layout;
                let column = |name: &String| {
                    let index = layout.columns.index_of(name).map_err(unexpected)?;
                    changed_column(self.changes, index, layout.columns.field(index).data_type())
                };
                let key = layout.record_key.iter().map(column).collect::<Result<Vec<_>>>()?;
                Arc::new(record_keys(layout.key_form, &layout.record_key, &key)?)
            }
        })
    }

    /// First and last key of the rows from `from` to `to`.
    pub(super) fn range(&self, key: &[ArrayRef], from: usize, to: usize) -> Result<(RecordBatch, (Key, Key))> {
        let layout = &self.context.layout;
        let ends = UInt32Array::from(vec![u32::try_from(from).unwrap_or(0), u32::try_from(to.max(1) - 1).unwrap_or(0)]);
        let mut columns = Vec::with_capacity(key.len());
        let mut fields = Vec::with_capacity(key.len());
        for (column, i) in key.iter().zip(&layout.key) {
            let field = layout.columns.field(*i);
            let two = take(column, &ends, None).map_err(unexpected)?;
            columns.push(cast(&two, field.data_type()).map_err(unexpected)?);
            fields.push(field.clone());
        }
        let rows = self.context.codec.encode(&columns)?;
        let keys = (Key::from(rows.row(0).data()), Key::from(rows.row(1).data()));
        Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unexpected)?, keys))
    }

    /// Rows of a new page: as the old pages have, so that columns can be copied beside new ones, unless they are far from right.
    pub(super) fn page_rows(&self) -> usize {
        let right = page_rows_for(self.widest());
        match &self.source {
            Source::File { file, row_group, copy: Some(copy), .. } => {
                let old = PageSplice::first_page_rows(file, *row_group, copy, &self.context.layout);
                old.filter(|old| *old <= 2 * right && right <= 2 * old).unwrap_or(right)
            }
            _ => right,
        }
    }

    /// Bytes a row of the widest column.
    pub(super) fn widest(&self) -> usize {
        let old = match &self.source {
            Source::File { file, row_group, .. } => {
                let rows = file.row_group_rows(*row_group).max(1);
                let columns = file.metadata.row_group(*row_group).columns().iter();
                columns.map(|column| usize::try_from(column.uncompressed_size()).unwrap_or(0) / rows).max().unwrap_or(0)
            }
            Source::Memory(batch) => {
                let rows = batch.num_rows().max(1);
                batch.columns().iter().map(|column| column.get_array_memory_size() / rows).max().unwrap_or(0)
            }
            Source::None => 0,
        };
        let mut new = 0;
        for piece in self.changes {
            let rows = piece.batch.rows.num_rows().max(1);
            let columns = piece.batch.rows.columns().iter();
            let widest = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) / rows).max().unwrap_or(0);
            new = new.max(widest);
        }
        old.max(new)
    }
}
