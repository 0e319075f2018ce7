//! Columns that are computed of the source's row alone: by such a table may be partitioned, because of a before image they say where the row was.

use super::bind::BoundTransform;
use super::fault::Failing;
use super::join::engine_bug;
use super::statement::Transform;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{Field, Schema};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, SelectItem, SetExpr, Statement as SqlStatement, Visit, Visitor, WildcardAdditionalOptions,
};
use std::ops::ControlFlow;
use std::sync::Arc;

impl Transform {
    /// The expression that gives a column; `None`: it passes as it is, or there is none.
    fn expression_of(&self, column: &str) -> Option<&Expr> {
        let Statement::Statement(sql) = self.statement() else { return None };
        let SqlStatement::Query(query) = sql.as_ref() else { return None };
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(column) => Some(expr),
            _ => None,
        })
    }

    /// The columns of the source that a column may be computed of: all that its expression names, and itself.
    pub fn sources_of(&self, column: &str) -> Vec<String> {
        struct Names(Vec<String>);
        impl Visitor for Names {
            type Break = ();

            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Identifier(name) => self.0.push(name.value.clone()),
                    Expr::CompoundIdentifier(names) => self.0.extend(names.last().map(|name| name.value.clone())),
                    _ => {}
                }
                ControlFlow::Continue(())
            }
        }
        let mut names = Names(vec![column.to_owned()]);
        if let Some(expr) = self.expression_of(column) {
            let _ = expr.visit(&mut names);
        }
        names.0
    }

    /// The columns of the input, and those of `names` that are computed, without lookups and `WHERE`: enough to say where rows lie, and known before any lookup is.
    /// `None`: none of them is computed.
    pub fn of_partitions(&self, names: &[&str]) -> Option<Self> {
        let is_computed = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                    && names.iter().any(|name| alias.value.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        let mut statement = self.statement().clone();
        let Statement::Statement(sql) = &mut statement else { return None };
        let SqlStatement::Query(query) = sql.as_mut() else { return None };
        let SetExpr::Select(select) = query.body.as_mut() else { return None };
        select.projection.retain(is_computed);
        if select.projection.is_empty() {
            return None;
        }
        select.projection.insert(0, SelectItem::Wildcard(WildcardAdditionalOptions::default()));
        select.selection = None;
        select.from.iter_mut().for_each(|from| from.joins.clear());
        Some(self.of_input_alone(statement))
    }

    /// The text of the expression that gives a column.
    pub fn text_of(&self, column: &str) -> Option<String> {
        self.expression_of(column).map(ToString::to_string)
    }
}

impl BoundTransform {
    /// A column's values for rows of the source, given by all of its columns; NULL where they can't be computed: such a row doesn't come to the table.
    ///
    /// # Errors
    /// `Bug` if there is no such column.
    pub fn of_row(&self, name: &str, source: &[ArrayRef]) -> Result<ArrayRef> {
        let output = self.outputs.iter().find(|(column, _)| column.field.name() == name && column.is_of_row);
        let (column, expr) =
            output.ok_or_else(|| Error::bug("a column isn't computed of the source's row").with("column", name))?;
        let count = source.first().map_or(0, |first| first.len());
        let arrays = self.input.fields().iter().enumerate().map(|(i, field)| match source.get(i) {
            Some(array) => array.clone(),
            // what the stream adds isn't read
            None => new_null_array(field.data_type(), count),
        });
        let fields = self.input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let rows = RecordBatch::try_new(schema, arrays.collect()).map_err(engine_bug)?;
        let wanted = column.field.data_type();
        let error = match self.evaluate(expr, &rows, name, wanted) {
            Ok(values) => return Ok(values),
            Err(error) => error,
        };
        let failing = Failing::of(expr, &rows, wanted);
        if failing.is_empty() {
            return Err(error);
        }
        let fails = |row: &usize| failing.binary_search_by_key(row, |failing| failing.row).is_ok();
        let kept: BooleanArray = (0..count).map(|row| Some(!fails(&row))).collect();
        let values = self.evaluate(expr, &filter_record_batch(&rows, &kept).map_err(engine_bug)?, name, wanted)?;
        let mut next = 0;
        let places: UInt32Array = (0..count)
            .map(|row| {
                (!fails(&row)).then(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        take(&values, &places, None).map_err(engine_bug)
    }
}
