//! Times in microseconds, as the lake has them. DataFusion's own are nanoseconds, which end in 2262: an end that is open (9999-12-31) could be neither written
//! nor compared.

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Operator, cast};
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};
use std::sync::Arc;

/// A session in which `TIMESTAMP` and `now()` have microseconds, and texts and dates beside times are such times.
pub(crate) fn in_microseconds(builder: SessionStateBuilder) -> SessionState {
    let mut state = builder.with_type_planner(type_planner()).build();
    // it takes any number of them
    let _ = state.register_function_rewrite(Arc::new(Microseconds));
    state
}

/// What `TIMESTAMP` is.
pub(super) fn type_planner() -> Arc<dyn TypePlanner> {
    Arc::new(Microseconds)
}

#[derive(Debug)]
struct Microseconds;

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let SqlType::Timestamp(None, zone) = sql_type else { return Ok(None) };
        let has_zone = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
        let zone = has_zone.then(|| Arc::from("+00:00"));
        Ok(Some(Arc::new(Field::new("", DataType::Timestamp(TimeUnit::Microsecond, zone), true))))
    }
}

const COMPARISONS: [Operator; 8] = [
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
];

/// Functions whose arguments are of one type.
const OF_ONE_TYPE: [&str; 4] = ["coalesce", "greatest", "least", "nullif"];

fn is_time(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// `expr` as a time like `of`, if that is one in microseconds and it is a text or a date.
fn alike(expr: Expr, of: &DataType, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32) if is_time(of) => cast(expr, of.clone()),
        _ => expr,
    }
}

impl FunctionRewrite for Microseconds {
    fn name(&self) -> &'static str {
        "times_in_microseconds"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let kind = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if COMPARISONS.contains(&op) => {
                let (of_left, of_right) = (kind(&left), kind(&right));
                let (left, right) = (alike(*left, &of_right, schema), alike(*right, &of_left, schema));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let of = kind(&expr);
                let (low, high) = (alike(*low, &of, schema), alike(*high, &of, schema));
                Transformed::yes(Expr::Between(Between::new(expr, negated, Box::new(low), Box::new(high))))
            }
            Expr::InList(mut list) => {
                let of = kind(&list.expr);
                list.list = list.list.into_iter().map(|expr| alike(expr, &of, schema)).collect();
                Transformed::yes(Expr::InList(list))
            }
            Expr::ScalarFunction(ref call) if call.name() == "now" => match kind(&expr) {
                DataType::Timestamp(_, zone) => Transformed::yes(cast(expr, DataType::Timestamp(TimeUnit::Microsecond, zone))),
                _ => Transformed::no(expr),
            },
            Expr::ScalarFunction(mut call) if OF_ONE_TYPE.contains(&call.name()) => {
                if let Some(of) = call.args.iter().map(kind).find(is_time) {
                    call.args = call.args.into_iter().map(|expr| alike(expr, &of, schema)).collect();
                }
                Transformed::yes(Expr::ScalarFunction(call))
            }
            other => Transformed::no(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    /// An open end, the end of 2026's first day, and none.
    async fn count_where(condition: &str) -> usize {
        let ends = TimestampMicrosecondArray::from(vec![Some(253_402_300_799_999_999), Some(1_767_311_999_000_000), None]);
        let rows = RecordBatch::try_from_iter([("ends", Arc::new(ends.with_timezone("UTC")) as ArrayRef)]).unwrap();
        let context = SessionContext::new_with_state(in_microseconds(SessionStateBuilder::new().with_default_features()));
        context.register_batch("t", rows).unwrap();
        let found = context.sql(&format!("SELECT ends FROM t WHERE {condition}")).await.unwrap().collect().await;
        let found = found.unwrap_or_else(|error| panic!("{condition}: {error}"));
        assert!(pretty_format_batches(&found).is_ok());
        found.iter().map(RecordBatch::num_rows).sum()
    }

    #[tokio::test]
    async fn an_open_end_is_written_and_compared() {
        for (condition, count) in [
            ("ends = '9999-12-31 23:59:59.999999'", 1),
            ("'9999-12-31 23:59:59.999999' > ends", 1),
            ("ends = TIMESTAMP '9999-12-31 23:59:59.999999'", 1),
            ("ends >= DATE '9999-12-31'", 1),
            ("ends < TIMESTAMP '9999-01-01 00:00:00Z' OR ends IS NULL", 2),
            ("ends BETWEEN '2026-01-01' AND '9999-12-31'", 1),
            ("ends IN ('2026-01-01T23:59:59+00:00', '9999-12-31 23:59:59.999999')", 2),
            ("CAST(ends AS TIMESTAMP) > '2026-01-01 23:59:59'", 1),
            ("ends > now()", 1),
            ("ends < '2026-01-02'", 1),
            ("least(ends, now()) < '2100-01-01'", 3),
            ("nullif(ends, '9999-12-31 23:59:59.999999') IS NULL", 2),
            ("coalesce(ends, '9999-12-31') >= '9999-12-31'", 2),
        ] {
            assert_eq!(count_where(condition).await, count, "{condition}");
        }
    }
}
