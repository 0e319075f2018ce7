//! The lake's columns where a table has a transform, and sorted rows on their way into them.
//!
//! The transform stands behind the fold: it sees the last change of each key, in the lake's order, and leaves both as they are. That is possible because
//! the columns by which rows are found and sorted (the key, the ordering) pass unchanged, and those of the partition do, or are computed of the row alone, of
//! a before image as well; all others it may compute.

use super::late::{LateRows, only, without};
use super::letters::LetterSink;
use super::shape::{COMMIT_TS, LakeShape, Origin, POSITION, data};
use crate::error::{Error, Result};
use crate::table::SortedChanges;
use crate::transform::{BoundTransform, Frozen, OutputColumn};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a column of the lake comes from.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The transform's output with this index.
    Output(usize),
    /// The sorted row's column with this index: Binlake's own and the partition's.
    Carried(usize),
    /// A column that the transform gives no more.
    Null,
}

/// A transform, bound to a table's shape.
#[derive(Debug)]
pub(super) struct TransformedColumns {
    bound: BoundTransform,
    columns: SchemaRef,
    from: Vec<From>,
}

impl TransformedColumns {
    /// For the shape without its transform; `there` are the columns that the lake's table has.
    pub(super) fn new(shape: &LakeShape, bound: BoundTransform, there: Option<&Schema>) -> Result<Self> {
        let carried = shape.carried();
        let outputs: Vec<OutputColumn> = bound.columns().cloned().collect();
        let passes = |name: &str| outputs.iter().any(|o| o.field.name() == name && o.passes.as_deref() == Some(name));
        for field in shape.partition_by().iter().flat_map(|by| &by.fields) {
            if !passes(&field.column) && !shape.is_computed(&field.column) {
                return Err(data("`partition_by` names a column that the transform doesn't give")
                    .with("column", &field.column)
                    .remedy("add the column to the SELECT"));
            }
        }
        if let Some(ordering) = shape.ordering().filter(|ordering| !passes(ordering)) {
            return Err(data("`ordering` names a column that the transform doesn't pass unchanged")
                .with("column", ordering)
                .remedy("add the column to the SELECT as it is"));
        }
        // as without a transform: Binlake's own columns behind the table's, and the partition's last
        let is_partition = |name: &str| shape.partition_columns().iter().any(|column| column == name);
        let kept = outputs.iter().enumerate().filter(|(_, output)| !is_partition(output.field.name()));
        let mut from: Vec<From> = kept.map(|(i, _)| From::Output(i)).collect();
        let mut fields: Vec<Arc<Field>> = from
            .iter()
            .filter_map(|from| match from {
                From::Output(i) => Some(Arc::new(outputs[*i].field.clone())),
                From::Carried(_) | From::Null => None,
            })
            .collect();
        for field in there.into_iter().flat_map(|there| there.fields()) {
            let is_given = |fields: &[Arc<Field>]| fields.iter().any(|other| other.name().eq_ignore_ascii_case(field.name()));
            let is_own = field.name() == COMMIT_TS || field.name() == POSITION || field.name().starts_with("_hoodie_");
            if !is_given(&fields) && !is_own && !is_partition(field.name()) {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                from.push(From::Null);
            }
        }
        for (i, origin) in shape.origins().iter().enumerate() {
            let field = &carried.fields()[i];
            if matches!(origin, Origin::Source(_)) && !is_partition(field.name()) {
                continue;
            }
            if fields.iter().any(|other| other.name().eq_ignore_ascii_case(field.name())) {
                return Err(data("the transform gives a column that is called as one of Binlake's own or the partition's")
                    .with("column", field.name())
                    .remedy("give it another name with AS"));
            }
            fields.push(field.clone());
            from.push(From::Carried(i));
        }
        Ok(Self { bound, columns: Arc::new(Schema::new(fields)), from })
    }

    pub(super) fn bound(&self) -> &BoundTransform {
        &self.bound
    }

    pub(super) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// What existing rows have in new columns, as far as these pass unchanged.
    pub(super) fn fill(&self, fill: &RecordBatch) -> Option<RecordBatch> {
        let of_output = |output: &OutputColumn| {
            let column = fill.column_by_name(output.passes.as_deref()?)?;
            Some((output.field.name().clone(), column.clone()))
        };
        let columns: Vec<(String, ArrayRef)> = self.bound.columns().filter_map(of_output).collect();
        if columns.is_empty() { None } else { RecordBatch::try_from_iter(columns).ok() }
    }

    /// Sorted rows in the lake's columns. `is_anew`: nothing stays of what the table has, so deletes say nothing. `letters` is told of rows that fail; those
    /// that fail or are dropped, but are `late`, change nothing.
    pub(super) fn run(
        &self,
        shape: &LakeShape,
        changes: &SortedChanges,
        lookups: &Frozen,
        is_anew: bool,
        letters: Option<&LetterSink>,
        late: Option<&mut LateRows>,
    ) -> Result<SortedChanges> {
        let table = &shape.source().table;
        let mut made = self.bound.run(&changes.rows, &changes.is_delete, lookups).map_err(|error| error.with("table", table))?;
        if made.dropped > 0 {
            metrics::counter!(crate::metrics::DROPPED_ROWS, "table" => table.to_string()).increment(made.dropped as u64);
        }
        let too_late = match late {
            Some(late) => {
                let all = 0..changes.rows.num_rows();
                let unwritten: Vec<usize> =
                    all.filter(|row| made.is_delete.value(*row) && !changes.is_delete.value(*row)).collect();
                late.before_present(shape, changes, &unwritten)?
            }
            None => BTreeSet::new(),
        };
        made.failed.retain(|failure| !too_late.contains(&failure.row));
        match letters {
            Some(letters) => letters.note(shape, &changes.rows, &made.failed)?,
            None if made.failed.is_empty() => {}
            None => return Err(Error::bug("rows that fail have nowhere to go").with("table", table)),
        }
        let columns = self.from.iter().enumerate().map(|(at, from)| match *from {
            From::Null => Ok(new_null_array(self.columns.field(at).data_type(), changes.rows.num_rows())),
            From::Output(i) => made.columns.get(i).cloned().ok_or_else(|| Error::bug("a transform's column is missing")),
            From::Carried(i) => Ok(changes.rows.column(i).clone()),
        });
        let rows = RecordBatch::try_new(self.columns.clone(), columns.collect::<Result<_>>()?)
            .map_err(|error| data("a transformed row doesn't fit the table's columns").caused_by(error))?;
        let made = SortedChanges { rows, is_delete: made.is_delete };
        if !is_anew || made.is_delete.true_count() == 0 {
            return without(made, &too_late);
        }
        only(&made, &BooleanArray::new(!made.is_delete.values(), None))
    }
}
