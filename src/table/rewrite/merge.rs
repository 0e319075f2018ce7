//! Merging the changes into a row group's old rows: first the keys, which give a plan, then column by column.

use super::cursor::ChangePiece;
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, BooleanBufferBuilder, GenericByteViewArray, PrimitiveArray,
    downcast_primitive_array, new_empty_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{cast, concat, interleave};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};
use arrow::row::Rows;
use std::sync::Arc;

/// What one change does among the old rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Op {
    /// The old row before which the change stands; for an update or a delete, the row itself.
    pub(in super::super) at: u32,
    /// Whether the old row goes.
    pub(in super::super) removes: bool,
    /// The row of the changes that comes in its place.
    pub(in super::super) new: Option<u32>,
}

impl Op {
    /// Becomes one with `next` if of the two one takes a row away and the other puts one in its place.
    fn takes_in(&mut self, next: Self) -> bool {
        match (*self, next) {
            (Self { removes: true, new: None, at }, Self { removes: false, new, at: behind }) if behind == at + 1 => self.new = new,
            (Self { removes: false, new: Some(_), at }, Self { removes: true, new: None, at: same }) if same == at => {
                self.removes = true;
            }
            _ => return false,
        }
        true
    }
}

/// What the changes do to a row group.
#[derive(Debug, Default)]
pub(in super::super) struct MergePlan {
    /// In the order of keys; changes without effect are left out.
    pub(in super::super) ops: Vec<Op>,
    /// Old rows.
    pub(in super::super) old_rows: usize,
    /// Rows that are new.
    pub(in super::super) inserted: u64,
    /// Rows that are replaced.
    pub(in super::super) updated: u64,
    /// Rows that go.
    pub(in super::super) deleted: u64,
}

impl MergePlan {
    /// Looks up each change among the old rows' keys; both are sorted. The first `same` bytes are the same in all keys, and left out in `old`.
    pub(in super::super) fn new(old: Option<&Rows>, same: usize, changes: &[ChangePiece]) -> Self {
        let old_rows = old.map_or(0, Rows::num_rows);
        let mut plan = Self { old_rows, ..Self::default() };
        plan.ops.reserve(changes.iter().map(|piece| piece.range.len()).sum());
        let mut at = 0;
        let mut number = 0;
        for piece in changes {
            for row in piece.range.clone() {
                let mut found = false;
                if let Some(old) = old {
                    let key = &piece.batch.keys.row(row).data()[same..];
                    at = gallop(old, at, key);
                    found = at < old_rows && old.row(at).data() == key;
                }
                let new = (!piece.batch.is_delete.value(row)).then_some(number);
                number += 1;
                match (found, new) {
                    (true, Some(_)) => plan.updated += 1,
                    (true, None) => plan.deleted += 1,
                    (false, Some(_)) => plan.inserted += 1,
                    (false, None) => continue,
                }
                plan.ops.push(Op { at: u32::try_from(at).unwrap_or(u32::MAX), removes: found, new });
                at += usize::from(found);
            }
        }
        plan
    }

    /// Leaves out updates that lose, by old row and change; says how many.
    pub(in super::super) fn drop_updates(&mut self, loses: impl Fn(usize, usize) -> bool) -> u64 {
        let before = self.ops.len();
        self.ops.retain(|op| !matches!(op.new, Some(new) if op.removes && loses(op.at as usize, new as usize)));
        let dropped = (before - self.ops.len()) as u64;
        self.updated -= dropped;
        dropped
    }

    /// Takes a row that goes and one that comes in its place for an update, whatever their keys are: a history's change of a key is such a pair.
    pub(in super::super) fn join_pairs(&mut self) {
        self.ops.dedup_by(|next, last| last.takes_in(*next));
    }

    /// Whether each old row has its place among the new ones.
    pub(in super::super) fn keeps_places(&self) -> bool {
        self.ops.iter().all(|op| op.removes && op.new.is_some())
    }

    /// Rows after the merge.
    pub(in super::super) fn rows(&self) -> usize {
        self.old_rows + count(self.inserted) - count(self.deleted)
    }
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// The first row from `from` on whose key is not below `key`, found in steps that double: cheap for near rows and for far ones.
fn gallop(rows: &Rows, from: usize, key: &[u8]) -> usize {
    let (mut low, mut step) = (from, 1);
    while low + step <= rows.num_rows() && rows.row(low + step - 1).data() < key {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(rows.num_rows());
    super::cursor::lower_bound(rows, low..high, key)
}

/// A column of all changes of a job, in the type `wanted`.
pub(in super::super) fn changed_column(changes: &[ChangePiece], column: usize, wanted: &DataType) -> Result<ArrayRef> {
    let slices: Vec<ArrayRef> =
        changes.iter().map(|piece| piece.batch.rows.column(column).slice(piece.range.start, piece.range.len())).collect();
    let whole = match slices.as_slice() {
        [] => return Ok(new_empty_array(wanted)),
        [one] => Arc::clone(one),
        many => concat(&many.iter().map(|slice| slice.as_ref()).collect::<Vec<_>>()).map_err(unexpected)?,
    };
    if whole.data_type() == wanted { Ok(whole) } else { cast(&whole, wanted).map_err(unexpected) }
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::bug("a column can't be merged").caused_by(error)
}

/// The column after the merge: `old` and `new` (the column of the changes) have one type.
pub(in super::super) fn merge_column(old: &ArrayRef, new: &ArrayRef, plan: &MergePlan) -> Result<ArrayRef> {
    if plan.ops.is_empty() {
        return Ok(Arc::clone(old));
    }
    let merged: Option<ArrayRef> = match old.data_type() {
        DataType::Utf8View => Some(merge_views::<StringViewType>(old.as_byte_view(), new.as_byte_view(), plan)),
        DataType::BinaryView => Some(merge_views::<BinaryViewType>(old.as_byte_view(), new.as_byte_view(), plan)),
        DataType::Boolean => Some(Arc::new(merge_booleans(old.as_boolean(), new.as_boolean(), plan))),
        _ => {
            let array = old.as_ref();
            downcast_primitive_array!(array => Some(merge_primitive(array, new, plan)), _ => None)
        }
    };
    merged.map_or_else(|| merge_any(old, new, plan), Ok)
}

fn merge_primitive<T: ArrowPrimitiveType>(old: &PrimitiveArray<T>, new: &ArrayRef, plan: &MergePlan) -> ArrayRef {
    let new = new.as_primitive::<T>();
    let values = merge_values(old.values(), new.values(), plan);
    let nulls = merge_nulls(old.nulls(), new.nulls(), plan);
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(old.data_type().clone()))
}

fn merge_views<T: ByteViewType>(old: &GenericByteViewArray<T>, new: &GenericByteViewArray<T>, plan: &MergePlan) -> ArrayRef {
    // the new values' buffers come behind the old ones': a view of more than 12 bytes has its buffer's number in bits 64 to 95
    let shift = (old.data_buffers().len() as u128) << 64;
    let shifted: Vec<u128> = new.views().iter().map(|view| if view & 0xffff_ffff > 12 { view + shift } else { *view }).collect();
    let views = merge_values(old.views(), &shifted, plan);
    let nulls = merge_nulls(old.nulls(), new.nulls(), plan);
    let buffers: Vec<_> = old.data_buffers().iter().chain(new.data_buffers().iter()).cloned().collect();
    Arc::new(GenericByteViewArray::<T>::new(ScalarBuffer::from(views), buffers, nulls))
}

fn merge_booleans(old: &BooleanArray, new: &BooleanArray, plan: &MergePlan) -> BooleanArray {
    BooleanArray::new(merge_bits(old.values(), new.values(), plan), merge_nulls(old.nulls(), new.nulls(), plan))
}

fn merge_nulls(old: Option<&NullBuffer>, new: Option<&NullBuffer>, plan: &MergePlan) -> Option<NullBuffer> {
    if old.is_none_or(|nulls| nulls.null_count() == 0) && new.is_none_or(|nulls| nulls.null_count() == 0) {
        return None;
    }
    let news = plan.ops.iter().filter_map(|op| op.new).max().map_or(0, |last| last as usize + 1);
    let old = old.map_or_else(|| BooleanBuffer::new_set(plan.old_rows), |nulls| nulls.inner().clone());
    let new = new.map_or_else(|| BooleanBuffer::new_set(news), |nulls| nulls.inner().clone());
    Some(NullBuffer::new(merge_bits(&old, &new, plan)))
}

fn merge_bits(old: &BooleanBuffer, new: &BooleanBuffer, plan: &MergePlan) -> BooleanBuffer {
    let mut merged = BooleanBufferBuilder::new(plan.rows());
    let mut done = 0;
    for op in &plan.ops {
        let at = op.at as usize;
        if at > done {
            merged.append_buffer(&old.slice(done, at - done));
        }
        if let Some(row) = op.new {
            merged.append(new.value(row as usize));
        }
        done = at + usize::from(op.removes);
    }
    merged.append_buffer(&old.slice(done, plan.old_rows - done));
    merged.finish()
}

fn merge_values<V: Copy>(old: &[V], new: &[V], plan: &MergePlan) -> Vec<V> {
    let mut merged = Vec::with_capacity(plan.rows());
    let mut done = 0;
    for op in &plan.ops {
        let at = op.at as usize;
        merged.extend_from_slice(&old[done..at]);
        if let Some(row) = op.new {
            merged.push(new[row as usize]);
        }
        done = at + usize::from(op.removes);
    }
    merged.extend_from_slice(&old[done..]);
    merged
}

/// For the types that are rare: one index a row.
fn merge_any(old: &ArrayRef, new: &ArrayRef, plan: &MergePlan) -> Result<ArrayRef> {
    let mut indices = Vec::with_capacity(plan.rows());
    let mut done = 0;
    for op in &plan.ops {
        let at = op.at as usize;
        indices.extend((done..at).map(|row| (0, row)));
        indices.extend(op.new.map(|row| (1, row as usize)));
        done = at + usize::from(op.removes);
    }
    indices.extend((done..plan.old_rows).map(|row| (0, row)));
    interleave(&[old.as_ref(), new.as_ref()], &indices).map_err(unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, ListArray, StringViewArray};
    use arrow::datatypes::Float32Type;

    fn plan() -> MergePlan {
        // of rows 0 1 2 3: insert before 0, replace 1, delete 2, insert at the end
        let op = |at, removes, new| Op { at, removes, new };
        let ops = vec![op(0, false, Some(0)), op(1, true, Some(1)), op(2, true, None), op(4, false, Some(3))];
        MergePlan { ops, old_rows: 4, inserted: 2, updated: 1, deleted: 1 }
    }

    #[test]
    fn every_kind_of_column_is_merged_alike() {
        let merge = |old: ArrayRef, new: ArrayRef| merge_column(&old, &new, &plan()).unwrap();
        let ints = merge(Arc::new(Int32Array::from(vec![10, 11, 12, 13])), Arc::new(Int32Array::from(vec![1, 2, 3, 4])));
        assert_eq!(ints.as_primitive::<arrow::datatypes::Int32Type>().values(), &[1, 10, 2, 13, 4]);
        let nulls = merge(
            Arc::new(Int32Array::from(vec![None, Some(11), Some(12), Some(13)])),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(4)])),
        );
        assert_eq!(*nulls, Int32Array::from(vec![Some(1), None, None, Some(13), Some(4)]));
        let long = "a text that is longer than a view";
        let texts = merge(
            Arc::new(StringViewArray::from(vec![Some("old"), None, None, Some(&long[1..])])),
            Arc::new(StringViewArray::from(vec![Some(long), Some("x"), Some("y"), None])),
        );
        assert_eq!(*texts, StringViewArray::from(vec![Some(long), Some("old"), Some("x"), Some(&long[1..]), None]));
        let bools = merge(
            Arc::new(BooleanArray::from(vec![true, true, true, false])),
            Arc::new(BooleanArray::from(vec![Some(false), None, None, Some(true)])),
        );
        assert_eq!(*bools, BooleanArray::from(vec![Some(false), Some(true), None, Some(false), Some(true)]));
        let list = |values: &[f32]| {
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(values.iter().map(|value| Some(vec![Some(*value)]))))
                as ArrayRef
        };
        assert_eq!(*merge(list(&[10., 11., 12., 13.]), list(&[1., 2., 3., 4.])), *list(&[1., 10., 2., 13., 4.]));
    }
}
