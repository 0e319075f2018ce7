//! What a commit on the parent changes in a child.
//!
//! For each parent whose row comes in or goes, the elements that the child has of it are looked up: they lie together, as the child's key begins with the
//! parent's. What the row's list has is upserted, what it has no longer is deleted.

use super::explode::{chosen, narrowed};
use super::outcome::Outcome;
use super::shape::ChildShape;
use crate::error::{Error, Result};
use crate::merge::shape::arrow_error;
use crate::table::{RowReader, SortedChanges, Table, partition_path_at};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave_record_batch, take};
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, Rows, SortField};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;

/// Sorted changes as a table takes them.
pub type Changes = Box<dyn Iterator<Item = Result<SortedChanges>> + Send>;

/// A child that a commit's changes go into as well.
#[derive(Debug)]
pub struct ChildInput<'a> {
    /// The child's shape from now on.
    pub shape: &'a ChildShape,
    /// The columns of the parent's changes.
    pub columns: &'a Schema,
    /// The parent as it is before the commit.
    pub parent: &'a Table,
    /// The child, as it is at the same commit; `None`: all that it has goes first.
    pub child: Option<&'a Table>,
}

impl ChildInput<'_> {
    /// What the commit's changes of the parent change in the child. To be made within the runtime, and read outside of its own threads.
    pub fn changes(self, of_parent: Changes) -> Result<Changes> {
        let Self { shape, columns, parent, child } = self;
        let mut join = Join::new(shape.clone())?;
        // of what goes first nothing is left that could be newer, or be deleted
        if let Some(child) = child {
            join.outcome = Outcome::of(shape, parent, columns)?;
            let names = [shape.sort_key(), shape.partition_columns().to_vec()].concat();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            join.present = Some(child.row_reader(&narrowed(shape.columns(), &names))?);
        }
        Ok(join.over(of_parent))
    }

    /// All rows of the child as the parent's rows are. To be made and read so as well.
    pub fn anew(self) -> Result<Changes> {
        let reader = self.parent.row_reader(self.columns)?;
        let mut partitions = reader.partitions().into_iter();
        let mut rows: Option<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> = None;
        let mut next = move || -> Result<Option<SortedChanges>> {
            loop {
                if let Some(rows) = rows.as_mut().and_then(Iterator::next) {
                    let rows = rows?;
                    let is_delete = BooleanArray::from(vec![false; rows.num_rows()]);
                    return Ok(Some(SortedChanges { rows, is_delete }));
                }
                let Some(partition) = partitions.next() else { return Ok(None) };
                rows = Some(Box::new(reader.clone().stream(&partition)?));
            }
        };
        Ok(Join::new(self.shape.clone())?.over(Box::new(std::iter::from_fn(move || next().transpose()))))
    }
}

/// The parent's changes against what the child has.
struct Join {
    shape: ChildShape,
    converter: RowConverter,
    outcome: Option<Outcome>,
    present: Option<RowReader>,
}

impl Join {
    fn new(shape: ChildShape) -> Result<Self> {
        let fields = shape.sort_key().into_iter().map(|name| {
            let field = shape.columns().field_with_name(&name).map_err(arrow_error)?;
            Ok(SortField::new(field.data_type().clone()))
        });
        let converter = RowConverter::new(fields.collect::<Result<_>>()?).map_err(arrow_error)?;
        Ok(Self { shape, converter, outcome: None, present: None })
    }

    fn over(mut self, mut parents: Changes) -> Changes {
        let mut waiting: VecDeque<SortedChanges> = VecDeque::new();
        let mut next = move || -> Result<Option<SortedChanges>> {
            loop {
                if let Some(changes) = waiting.pop_front() {
                    return Ok(Some(changes));
                }
                let Some(batch) = parents.next().transpose()? else { return Ok(None) };
                for (partition, rows) in self.partitions(&batch.rows)? {
                    let changes = SortedChanges {
                        rows: batch.rows.slice(rows.start, rows.len()),
                        is_delete: batch.is_delete.slice(rows.start, rows.len()),
                    };
                    let made = self.of_partition(&partition, &changes)?;
                    waiting.extend((made.rows.num_rows() > 0).then_some(made));
                }
            }
        };
        Box::new(std::iter::from_fn(move || next().transpose()).fuse())
    }

    /// The partitions that sorted rows lie in, one after the other.
    fn partitions(&self, rows: &RecordBatch) -> Result<Vec<(String, Range<usize>)>> {
        let names = self.shape.partition_columns();
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if names.is_empty() {
            return Ok(vec![(String::new(), 0..rows.num_rows())]);
        }
        let columns = chosen(rows, names)?;
        let mut found: Vec<(String, Range<usize>)> = Vec::new();
        for row in 0..rows.num_rows() {
            let path = partition_path_at(names, &columns, row)?;
            match found.last_mut() {
                Some((last, rows)) if *last == path => rows.end = row + 1,
                _ => found.push((path, row..row + 1)),
            }
        }
        Ok(found)
    }

    fn of_partition(&mut self, partition: &str, changes: &SortedChanges) -> Result<SortedChanges> {
        let come: Vec<usize> = match &mut self.outcome {
            Some(outcome) => outcome.rows(&self.shape, partition, changes)?,
            None => (0..changes.rows.num_rows()).collect(),
        };
        let after = self.shape.explode(&changes.rows, come.iter().copied().filter(|row| !changes.is_delete.value(*row)))?;
        let present = match &mut self.present {
            Some(reader) if !come.is_empty() => {
                let of = UInt32Array::from_iter_values(come.iter().filter_map(|row| u32::try_from(*row).ok()));
                let keys = chosen(&changes.rows, self.shape.parent_key())?;
                let keys = keys.iter().map(|column| take(column, &of, None).map_err(arrow_error));
                Some(reader.find(partition, &keys.collect::<Result<Vec<_>>>()?)?.rows)
            }
            _ => None,
        };
        self.against(after, present)
    }

    /// The rows of `after` as upserts, what else is `present` as deletes; sorted.
    fn against(&self, after: RecordBatch, present: Option<RecordBatch>) -> Result<SortedChanges> {
        let keys = self.keys(&after)?;
        let known: HashSet<&[u8]> = (0..keys.num_rows()).map(|row| keys.row(row).data()).collect();
        let gone = present.map(|present| self.widened(&present)).transpose()?;
        let gone_keys = gone.as_ref().map(|gone| self.keys(gone)).transpose()?;
        let mut lines: Vec<(&[u8], (usize, usize))> = (0..keys.num_rows()).map(|row| (keys.row(row).data(), (0, row))).collect();
        if let Some(keys) = &gone_keys {
            let all = (0..keys.num_rows()).map(|row| (keys.row(row).data(), (1, row)));
            lines.extend(all.filter(|(key, _)| !known.contains(key)));
        }
        lines.sort_unstable_by_key(|line| line.0);
        let indices: Vec<(usize, usize)> = lines.iter().map(|line| line.1).collect();
        let sources: Vec<&RecordBatch> = std::iter::once(&after).chain(&gone).collect();
        Ok(SortedChanges {
            rows: interleave_record_batch(&sources, &indices).map_err(arrow_error)?,
            is_delete: indices.iter().map(|(source, _)| Some(*source == 1)).collect(),
        })
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Rows> {
        self.converter.convert_columns(&chosen(rows, &self.shape.sort_key())?).map_err(arrow_error)
    }

    /// Rows that have the key and the partition's columns alone, in all columns.
    fn widened(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |name: &str, data_type| {
            rows.column_by_name(name).cloned().unwrap_or_else(|| new_null_array(data_type, rows.num_rows()))
        };
        let columns: Vec<ArrayRef> =
            self.shape.columns().fields().iter().map(|field| column(field.name(), field.data_type())).collect();
        RecordBatch::try_new(self.shape.columns().clone(), columns)
            .map_err(|error| Error::bug("a child's rows don't fit its columns").caused_by(error))
    }
}
