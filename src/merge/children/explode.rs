//! The rows of the elements of some parents' lists.

use super::shape::ChildShape;
use crate::error::{Error, Result};
use crate::format::{Cell, CellColumns, ChildTable, Element};
use crate::merge::shape::{arrow_error, data};
use crate::metrics::BAD_VALUES;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema};
use serde_json::Value;
use std::sync::Arc;

impl ChildShape {
    /// The rows of the elements of these rows of `parents`, which has the parent's columns; in their order. An element that can't be read is an error of
    /// kind `Data`.
    pub(super) fn explode(&self, parents: &RecordBatch, rows: impl Iterator<Item = usize>) -> Result<RecordBatch> {
        let root = self.root();
        let lists = parents.column_by_name(root.column()).and_then(|column| column.as_string_opt::<i32>());
        let lists = lists.ok_or_else(|| Error::bug("a child's parent lacks its list"))?;
        let mut out = Exploded { shape: self, of: Vec::new(), cells: CellColumns::new(self.cells().clone()), keys: Vec::new() };
        let mut nulls = 0;
        for row in rows.filter(|row| lists.is_valid(*row)) {
            let wrong = |what: String| {
                data("an element of a list can't be a row of the child table")
                    .with("table", self.table())
                    .with("detail", what)
                    .remedy("correct the child's `columns` in the [[table]], or set bad_values = \"null\" there")
            };
            let list: Value = serde_json::from_str(lists.value(row)).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
            let (elements, bad) = root.elements(Some(&list)).map_err(wrong)?;
            nulls += bad;
            out.take(u32::try_from(row).unwrap_or(u32::MAX), root, elements, self.trail())?;
        }
        if nulls > 0 {
            metrics::counter!(BAD_VALUES, "table" => self.table().to_string()).increment(nulls);
        }
        out.finish(parents)
    }
}

/// Rows as they are made.
struct Exploded<'a> {
    shape: &'a ChildShape,
    /// The parent's row of each.
    of: Vec<u32>,
    cells: CellColumns,
    /// What identifies the objects that the elements lie in.
    keys: Vec<Cell<'static>>,
}

impl Exploded<'_> {
    fn take(&mut self, parent: u32, list: &ChildTable, elements: Vec<Element>, trail: &[usize]) -> Result<()> {
        for mut element in elements {
            let index = Cell::Int(element.index);
            let Some((next, rest)) = trail.split_first() else {
                let own = list.is_indexed().then_some(index);
                self.cells.push(self.keys.iter().cloned().chain(own).chain(element.row).collect());
                self.of.push(parent);
                continue;
            };
            let before = self.keys.len();
            if list.is_indexed() {
                self.keys.push(index);
            }
            self.keys.extend(list.key_cells(&element.row).cloned());
            let inner = list.children().get(*next).ok_or_else(|| Error::bug("a child of a child is missing"))?;
            let elements = element.children.get_mut(*next).map(std::mem::take).unwrap_or_default();
            self.take(parent, inner, elements, rest)?;
            self.keys.truncate(before);
        }
        Ok(())
    }

    fn finish(self, parents: &RecordBatch) -> Result<RecordBatch> {
        let of = UInt32Array::from(self.of);
        let own = self.cells.finish()?;
        let columns = self.shape.columns().fields().iter().map(|field| match own.column_by_name(field.name()) {
            Some(column) => Ok(column.clone()),
            None => {
                let column =
                    parents.column_by_name(field.name()).ok_or_else(|| Error::bug("a parent lacks a column of its child's"))?;
                take(column, &of, None).map_err(arrow_error)
            }
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        RecordBatch::try_new(self.shape.columns().clone(), columns).map_err(arrow_error)
    }
}

/// The columns called `names`, in their order.
pub(in crate::merge) fn chosen(rows: &RecordBatch, names: &[String]) -> Result<Vec<ArrayRef>> {
    let column = |name: &String| rows.column_by_name(name).cloned().ok_or_else(|| Error::bug("a column of a key is missing"));
    names.iter().map(column).collect()
}

/// Those of `columns` that are called so, as a schema.
pub(in crate::merge) fn narrowed(columns: &Schema, names: &[&str]) -> Schema {
    let fields: Vec<Arc<Field>> = columns.fields().iter().filter(|field| names.contains(&field.name().as_str())).cloned().collect();
    Schema::new(fields)
}
