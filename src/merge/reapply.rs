//! Rows of the table that are joined anew, because the items of a lookup changed.
//!
//! First the few columns are read that the joins need, of all rows; then the rows that change, whole. Both a row group at a time, in the table's order: memory
//! doesn't grow with the table, nor with the number of rows that change.

use super::shape::{LakeShape, arrow_error};
use crate::error::{Error, Result};
use crate::table::{RowReader, SortedChanges, Table};
use crate::transform::Frozen;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Field, Schema};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rows of a table that its lookups' items change: see the module's documentation.
#[derive(Debug)]
pub struct ReapplyInput {
    shape: Arc<LakeShape>,
    lookups: Frozen,
    narrow: RowReader,
    whole: RowReader,
}

/// The rows of a partition.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

impl ReapplyInput {
    /// Of `table` as of its last commit, with the lookups' items of `lookups`. To be made within the runtime.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn new(shape: Arc<LakeShape>, lookups: Frozen, table: &Table) -> Result<Self> {
        let transform = shape.transform().ok_or_else(|| Error::bug("a table without a transform is joined anew"))?;
        let keys = shape.key_names();
        let wanted: BTreeSet<&str> = transform.reapply_reads().into_iter().chain(keys.iter().map(String::as_str)).collect();
        let fields = shape.columns().fields().iter().filter(|field| wanted.contains(field.name().as_str()));
        let narrow = Schema::new(fields.cloned().collect::<Vec<Arc<Field>>>());
        let (narrow, whole) = (table.row_reader(&narrow)?, table.row_reader(shape.columns())?);
        Ok(Self { shape, lookups, narrow, whole })
    }

    /// The changes, sorted by (partition path, key). Read outside of the runtime's own threads.
    pub fn changes(self) -> Box<dyn Iterator<Item = Result<SortedChanges>> + Send> {
        let mut partitions = self.narrow.partitions().into_iter();
        let mut input = self;
        let mut under: Option<(String, Batches)> = None;
        let mut next = move || -> Result<Option<SortedChanges>> {
            loop {
                let Some((partition, batches)) = &mut under else {
                    let Some(partition) = partitions.next() else { return Ok(None) };
                    let batches = input.narrow.clone().stream(&partition)?;
                    under = Some((partition, Box::new(batches)));
                    continue;
                };
                match batches.next().transpose()? {
                    None => under = None,
                    Some(rows) => {
                        let partition = partition.clone();
                        if let Some(changes) = input.changed(&partition, &rows)? {
                            return Ok(Some(changes));
                        }
                    }
                }
            }
        };
        Box::new(std::iter::from_fn(move || next().transpose()))
    }

    fn changed(&mut self, partition: &str, rows: &RecordBatch) -> Result<Option<SortedChanges>> {
        let transform = self.shape.transform().ok_or_else(|| Error::bug("a table without a transform is joined anew"))?;
        let made = transform.reapplied(rows, &self.lookups)?;
        if made.is_changed.true_count() == 0 {
            return Ok(None);
        }
        let kept = filter_record_batch(rows, &made.is_changed).map_err(arrow_error)?;
        let key = |name: &String| kept.column_by_name(name).cloned().ok_or_else(|| Error::bug("a row lacks its key"));
        let keys: Vec<ArrayRef> = self.shape.key_names().iter().map(key).collect::<Result<_>>()?;
        let whole = self.whole.find(partition, &keys)?.rows;
        if whole.num_rows() != kept.num_rows() {
            return Err(Error::bug("rows that are joined anew were found twice, or not at all"));
        }
        let schema = whole.schema();
        let columns = schema.fields().iter().zip(whole.columns()).map(|(field, column)| {
            match made.columns.iter().find(|(name, _)| name == field.name()) {
                Some((_, values)) => filter(values, &made.is_changed).map_err(arrow_error),
                None => Ok(column.clone()),
            }
        });
        let rows = RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?).map_err(arrow_error)?;
        let is_delete = BooleanArray::from(vec![false; rows.num_rows()]);
        Ok(Some(SortedChanges { rows, is_delete }))
    }
}
