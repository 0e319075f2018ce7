//! Rows that a table has already, joined anew because a lookup's items changed (`on_change = "reapply"`).
//!
//! A table holds what its transform made, not the source's rows. So this is possible only where all that the joins and the columns computed of lookups read is
//! in the table unchanged; what is computed of the row alone stays as it is. And `WHERE` must not read a lookup: rows that it dropped aren't there to come back.
//! What isn't so is refused when the statement is bound, with the columns that are missing.

use super::bind::{BoundTransform, OutputColumn};
use super::engine::Fault;
use super::join::engine_bug;
use super::rows::Frozen;
use super::statement::OnError;
use crate::error::{Error, Kind, Result};
use crate::lookup::OnChange;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How rows of the table are joined anew.
#[derive(Debug)]
pub(super) struct Reapply {
    /// The input's columns that are read, and what each is called in the table.
    reads: BTreeMap<String, String>,
    /// The outputs that are computed anew.
    outputs: Vec<usize>,
}

/// What rows become that change.
#[derive(Debug)]
pub struct Reapplied {
    /// Which rows change.
    pub is_changed: BooleanArray,
    /// The columns that were computed anew, by name, of all rows.
    pub columns: Vec<(String, ArrayRef)>,
}

/// The columns, by index, that an expression reads.
fn read_by(expr: &Arc<dyn PhysicalExpr>) -> BTreeSet<usize> {
    let own = expr.downcast_ref::<Column>().map(Column::index);
    own.into_iter().chain(expr.children().into_iter().flat_map(read_by)).collect()
}

impl Reapply {
    /// `None` where no lookup of the transform asks for it.
    pub(super) fn of(bound: &BoundTransform, own: &[&str]) -> Result<Option<Self>, Fault> {
        let Some(asks) = bound.joins.iter().find(|join| join.lookup.on_change() == OnChange::Reapply) else { return Ok(None) };
        let of_input = bound.input.fields().len();
        let reads_lookup = |reads: &BTreeSet<usize>| reads.iter().any(|i| *i >= of_input);
        let refused = |what: String| Fault::new(format!("the lookup `{}` can't be applied anew: {what}", asks.lookup.name()));
        if bound.filter.as_ref().is_some_and(|filter| reads_lookup(&read_by(filter))) {
            return Err(refused("WHERE reads a lookup, and rows that it dropped are not in the table".into())
                .remedy("compute the condition as a column and leave WHERE to who reads the table, or leave `on_change` out"));
        }
        let mut reads = BTreeSet::new();
        let mut outputs = Vec::new();
        for (i, (_, expr)) in bound.outputs.iter().enumerate() {
            let read = read_by(expr);
            if reads_lookup(&read) {
                outputs.push(i);
                reads.extend(read);
            }
        }
        reads.extend(bound.joins.iter().flat_map(|join| &join.left).flat_map(read_by));
        let named = |i: &usize| bound.input.field(*i).name().clone();
        let mut known = BTreeMap::new();
        for name in reads.iter().filter(|i| **i < of_input).map(named) {
            let passing = |(column, _): &&(OutputColumn, _)| column.passes.as_ref() == Some(&name);
            let called = match bound.outputs.iter().find(passing) {
                Some((column, _)) => column.field.name().clone(),
                None if own.contains(&name.as_str()) => name.clone(),
                None => {
                    return Err(refused(format!("it needs the column `{name}`, which the table doesn't have"))
                        .remedy(format!("add {name} to the SELECT as it is, or leave `on_change` out")));
                }
            };
            known.insert(name, called);
        }
        Ok(Some(Self { reads: known, outputs }))
    }
}

impl BoundTransform {
    /// Whether rows of the table are joined anew when a lookup's items change.
    pub fn reapplies(&self) -> bool {
        self.reapply.is_some()
    }

    /// What marks the items of the lookups that are applied anew: another mark, other items.
    pub fn marks(&self, lookups: &Frozen) -> BTreeMap<String, String> {
        let joins = self.joins.iter().zip(&lookups.0).filter(|(join, _)| join.lookup.on_change() == OnChange::Reapply);
        let mark = |(join, index): (&super::join::Join, &Option<Arc<super::join::Index>>)| {
            Some((join.lookup.name().to_owned(), index.as_ref()?.content().fingerprint().to_owned()))
        };
        joins.filter_map(mark).collect()
    }

    /// The table's columns that [`Self::reapplied`] reads.
    pub fn reapply_reads(&self) -> BTreeSet<&str> {
        let reapply = self.reapply.iter();
        reapply
            .flat_map(|reapply| {
                let computed = reapply.outputs.iter().map(|i| self.outputs[*i].0.field.name().as_str());
                reapply.reads.values().map(String::as_str).chain(computed)
            })
            .collect()
    }

    /// What rows of the table become with the lookups' items as they are now. `rows` has the columns of [`Self::reapply_reads`] by name.
    ///
    /// # Errors
    /// `Data` if an expression fails, and rows that fail stop their table. Where they become dead letters, they keep what they have.
    pub fn reapplied(&self, rows: &RecordBatch, lookups: &Frozen) -> Result<Reapplied> {
        let reapply = self.reapply.as_ref().ok_or_else(|| Error::bug("a transform isn't applied anew"))?;
        let mut wide = self.input_again(reapply, rows)?;
        let mut kept = vec![false; rows.num_rows()];
        for (join, index) in self.joins.iter().zip(&lookups.0) {
            let index = index.as_ref().ok_or_else(|| Error::bug("a lookup that is applied anew has no items"))?;
            let (joined, missing) = join.again(&wide, index, &self.wide)?;
            wide = joined;
            missing.into_iter().for_each(|row| kept[row] = true);
        }
        let mut is_changed = vec![false; rows.num_rows()];
        let mut columns = Vec::new();
        for (column, expr) in reapply.outputs.iter().map(|i| &self.outputs[*i]) {
            let (name, wanted) = (column.field.name(), column.field.data_type());
            let values = match self.evaluate(expr, &wide, name, wanted) {
                Err(error) if error.kind() == Kind::Data && self.on_error == OnError::DeadLetter => {
                    tracing::warn!(column = name, %error, "rows can't be joined anew, and keep what they have");
                    continue;
                }
                values => values?,
            };
            let before = rows.column_by_name(name).ok_or_else(|| Error::bug("a column of the table is missing"))?;
            let before = cast(before, wanted).map_err(engine_bug)?;
            let converter = RowConverter::new(vec![SortField::new(wanted.clone())]).map_err(engine_bug)?;
            let encoded = |array: &ArrayRef| converter.convert_columns(std::slice::from_ref(array)).map_err(engine_bug);
            let (old, new) = (encoded(&before)?, encoded(&values)?);
            for (row, is_changed) in is_changed.iter_mut().enumerate() {
                *is_changed |= old.row(row) != new.row(row);
            }
            columns.push((name.clone(), values));
        }
        let is_changed = is_changed.into_iter().zip(kept).map(|(is_changed, is_kept)| Some(is_changed && !is_kept)).collect();
        Ok(Reapplied { is_changed, columns })
    }

    /// The input as far as it is read; the rest is NULL.
    fn input_again(&self, reapply: &Reapply, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            let known = reapply.reads.get(field.name()).map(|name| rows.column_by_name(name));
            match known {
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
                Some(None) => Err(Error::bug("a column of the table is missing").with("column", field.name())),
                Some(Some(column)) => cast(column, field.data_type()).map_err(engine_bug),
            }
        };
        let columns = self.input.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let fields = self.input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns).map_err(engine_bug)
    }
}
