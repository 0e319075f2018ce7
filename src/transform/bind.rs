//! The statement for one shape of a table: names resolved, types known, expressions compiled.

use super::engine::{Fault, session};
use super::function;
use super::join::Join;
use super::lake_type::lake_type;
use super::outputs::{check_outputs, doubled, item_start, place_of, two_columns};
use super::reapply::Reapply;
use super::spelling::Spelling;
use super::statement::{INPUT, OnError, Transform, nearest};
use super::times::type_planner;
use crate::error::Result;
use crate::lookup::Missing;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::tree_node::{Transformed as Rewritten, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, Result as EngineResult, ScalarValue, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, JoinType, LogicalPlan, Operator, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{SetExpr, Spanned, Statement as SqlStatement};
use std::sync::Arc;

/// A column that a transform gives.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputColumn {
    /// Its name and its type in the lake.
    pub field: Field,
    /// The input's column that it is, unchanged; `None`: it is computed, or a lookup's.
    pub passes: Option<String>,
    /// Whether it is computed of the source's row alone: of no lookup, and of nothing that the stream adds.
    pub is_of_row: bool,
}

/// A table's transform for one shape of the table.
#[derive(Debug)]
pub struct BoundTransform {
    /// The columns of `input`.
    pub(super) input: SchemaRef,
    pub(super) joins: Vec<Join>,
    /// The columns of `input`, then those of the joined lookups.
    pub(super) wide: SchemaRef,
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    pub(super) outputs: Vec<(OutputColumn, Arc<dyn PhysicalExpr>)>,
    pub(super) key: Vec<String>,
    /// Whether `filter` reads the source's row alone.
    pub(super) filter_is_of_row: bool,
    /// What becomes of a row whose expression fails.
    pub(super) on_error: OnError,
    /// How rows of the table are joined anew, where lookups ask for it.
    pub(super) reapply: Option<Reapply>,
}

impl BoundTransform {
    /// The columns that it gives, in their order; without those of `own`.
    pub fn columns(&self) -> impl Iterator<Item = &OutputColumn> {
        self.outputs.iter().map(|(column, _)| column)
    }

    /// Whether `WHERE`, if there is one, reads the source's row alone.
    pub fn filter_is_of_row(&self) -> bool {
        self.filter_is_of_row
    }

    /// Whether rows may become dead letters.
    pub fn has_dead_letters(&self) -> bool {
        self.on_error == OnError::DeadLetter || self.joins.iter().any(|join| join.lookup.missing() == Missing::DeadLetter)
    }

    /// Whether rows may be dropped by `WHERE`.
    pub fn filters(&self) -> bool {
        self.filter.is_some()
    }
}

impl Transform {
    /// Binds it to `input`, whose columns `key` must pass unchanged. Columns of `input` that are named in `own` are there for
    /// expressions, and are no output.
    ///
    /// # Errors
    /// `Data`, with the place in the SQL where it is known: the shape may come from the stream.
    pub fn bind(&self, input: &SchemaRef, key: &[String], own: &[&str]) -> Result<BoundTransform> {
        self.bound(input, key, own).map_err(Fault::into_error)
    }

    fn bound(&self, input: &SchemaRef, key: &[String], own: &[&str]) -> Result<BoundTransform, Fault> {
        let tables = Tables::new(self, input)?;
        let mut statement = self.statement().clone();
        tables.spelling().correct(&mut statement);
        let plan = plan(&tables, &statement).map_err(|error| located(&tables, &statement, &error))?;
        let parts = Parts::of(&plan)?;
        let compile = |expr: &Expr, schema: &DFSchema| compiled(expr, schema).map_err(|error| Fault::of_engine(&error));
        let wide = parts.from.schema();
        let mut joins = Vec::new();
        for (left, right, on) in &parts.joins {
            let lookup = tables.lookup_of(right)?;
            joins.push(Join::new(lookup, left.schema(), right.schema(), on, &compile)?);
        }
        let is_of_row = |expr: &Expr| {
            let of_row = |i: usize| i < input.fields().len() && !own.contains(&input.field(i).name().as_str());
            expr.column_refs().into_iter().all(|column| wide.index_of_column(column).is_ok_and(of_row))
        };
        let filter_is_of_row = parts.filter.is_none_or(is_of_row);
        let filter = parts.filter.map(|filter| compile(filter, wide)).transpose()?;
        let mut outputs = Vec::new();
        for (expr, field) in parts.outputs.iter().zip(plan.schema().fields()) {
            let plain = plain(expr);
            let passes = match &plain {
                Expr::Column(column) => wide.index_of_column(column).ok().filter(|i| *i < input.fields().len()),
                _ => None,
            };
            let passes = passes.map(|i| input.field(i).name().clone());
            if passes.as_deref() == Some(field.name()) && own.contains(&field.name().as_str()) {
                continue;
            }
            let located = |fault: Fault| match place_of(&statement, field.name()) {
                Some(at) => fault.at_place(at),
                None => fault,
            };
            let compiled = compile(&plain, wide).map_err(located)?;
            let given = compiled.data_type(wide.as_arrow()).map_err(|error| Fault::of_engine(&error))?;
            let data_type = lake_type(&given).map_err(|remedy| {
                located(
                    Fault::new(format!("the column `{}` has a type that the lake doesn't: {given}", field.name())).remedy(remedy),
                )
            })?;
            let passes = passes.filter(|_| given == data_type);
            let is_key = key.contains(field.name());
            let field = Field::new(field.name(), data_type, !is_key);
            outputs.push((OutputColumn { field, passes, is_of_row: is_of_row(&plain) }, compiled));
        }
        check_outputs(&outputs, key, own).map_err(|(column, fault)| match column.and_then(|name| place_of(&statement, &name)) {
            Some(at) => fault.at_place(at),
            None => fault,
        })?;
        let wide = Arc::new(wide.as_arrow().clone());
        let mut bound = BoundTransform {
            input: input.clone(),
            joins,
            wide,
            filter,
            outputs,
            key: key.to_vec(),
            filter_is_of_row,
            on_error: self.on_error(),
            reapply: None,
        };
        bound.reapply = Reapply::of(&bound, own)?;
        Ok(bound)
    }
}

/// Without the names that it goes by.
fn plain(expr: &Expr) -> Expr {
    let Rewritten { data, .. } = expr.clone().unalias_nested();
    data
}

/// An expression that can be evaluated. Some functions (COALESCE, NVL2, ARROW_CAST) are but other expressions, which only simplifying makes of them.
fn compiled(expr: &Expr, schema: &DFSchema) -> EngineResult<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone()));
    let context = context.with_config_options(Arc::clone(session().config_options())).build();
    let simplified = ExprSimplifier::new(context).simplify(expr.clone())?;
    checked(session().create_physical_expr(simplified, schema)?, schema)
}

/// An expression whose calls of our own functions have what these need, and whose sums, differences and products fail where they don't fit their type: SQL would have them begin again at the other end.
fn checked(expr: Arc<dyn PhysicalExpr>, schema: &DFSchema) -> EngineResult<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|expr| {
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
            let second = call.args().get(1).map(|arg| arg.downcast_ref::<Literal>().map(Literal::value));
            function::check(call.fun().name(), second)?;
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let of = negative.arg().data_type(schema.as_arrow())?;
            if of.is_signed_integer() {
                // the least number has no opposite
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&of)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(Rewritten::yes(Arc::new(minus.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>));
            }
        }
        Ok(match expr.downcast_ref::<BinaryExpr>() {
            Some(binary) => Rewritten::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>),
            None => Rewritten::no(expr),
        })
    })?;
    Ok(checked.data)
}

fn plan(tables: &Tables, statement: &Statement) -> EngineResult<LogicalPlan> {
    let plan = SqlToRel::new(tables).statement_to_plan(statement.clone())?;
    // casts where types differ
    session().analyzer().execute_and_check(plan, session().config_options(), |_, _| {})
}

/// The error with its place: the engine's own, else that of the first column that can't be planned alone.
fn located(tables: &Tables, statement: &Statement, error: &DataFusionError) -> Fault {
    let mut fault = Fault::of_engine(error);
    if let DataFusionError::SchemaError(inner, _) = error.find_root()
        && let datafusion::common::SchemaError::FieldNotFound { field, .. } = inner.as_ref()
        && let Some(known) = nearest(&field.name, tables.columns())
    {
        fault = fault.remedy(format!("did you mean `{known}`?"));
    }
    let Statement::Statement(sql) = statement else { return fault };
    let SqlStatement::Query(query) = sql.as_ref() else { return fault };
    let SetExpr::Select(select) = query.body.as_ref() else { return fault };
    if let Some(doubled) = doubled(select, tables.columns()).filter(|_| fault.is_about_names()) {
        return two_columns(&doubled.value).at_place(doubled.span.start);
    }
    for item in &select.projection {
        let mut alone = query.clone();
        if let SetExpr::Select(select) = alone.body.as_mut() {
            select.projection = vec![item.clone()];
            select.selection = None;
        }
        if plan(tables, &Statement::Statement(Box::new(SqlStatement::Query(alone)))).is_err() {
            return fault.at_place(item_start(item));
        }
    }
    match &select.selection {
        Some(filter) => fault.at_place(filter.span().start),
        None => fault,
    }
}

/// A plan taken apart: what it gives, what it drops, what it joins.
struct Parts<'a> {
    outputs: &'a [Expr],
    filter: Option<&'a Expr>,
    from: &'a LogicalPlan,
    /// From the first on: the left side, the lookup's side, the condition.
    joins: Vec<(&'a LogicalPlan, &'a LogicalPlan, Vec<Expr>)>,
}

impl<'a> Parts<'a> {
    fn of(plan: &'a LogicalPlan) -> Result<Self, Fault> {
        let strange =
            |plan: &LogicalPlan| Fault::new(format!("a transform sees one row at a time, and this needs more: {}", plan.display()));
        let LogicalPlan::Projection(projection) = plan else { return Err(strange(plan)) };
        let (filter, from) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => (Some(&filter.predicate), filter.input.as_ref()),
            other => (None, other),
        };
        let mut joins = Vec::new();
        let mut left = from;
        while let LogicalPlan::Join(join) = left {
            if join.join_type != JoinType::Left {
                return Err(strange(left));
            }
            let equal = join.on.iter().map(|(a, b)| a.clone().eq(b.clone()));
            let rest = join.filter.iter().flat_map(datafusion::logical_expr::utils::split_conjunction).cloned();
            joins.push((join.left.as_ref(), join.right.as_ref(), equal.chain(rest).collect()));
            left = join.left.as_ref();
        }
        if !is_scan(left) {
            return Err(strange(left));
        }
        joins.reverse();
        Ok(Self { outputs: &projection.expr, filter, from, joins })
    }
}

fn is_scan(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_scan(&alias.input),
        LogicalPlan::TableScan(_) => true,
        _ => false,
    }
}

/// The tables that a transform names, for the planner.
struct Tables<'a> {
    transform: &'a Transform,
    input: SchemaRef,
    /// The lookups' columns, in the order of the lookups.
    lookups: Vec<SchemaRef>,
}

impl<'a> Tables<'a> {
    fn new(transform: &'a Transform, input: &SchemaRef) -> Result<Self, Fault> {
        let columns = |(name, lookup): (&String, &Arc<crate::lookup::Lookup>)| {
            lookup.columns().ok_or_else(|| {
                Fault::new(format!("the columns of the lookup `{name}` are not known"))
                    .remedy(format!("declare them: [lookup.{name}] columns = {{ … }}"))
            })
        };
        let lookups = transform.lookups().iter().map(columns).collect::<Result<_, _>>()?;
        Ok(Self { transform, input: input.clone(), lookups })
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        let all = std::iter::once(&self.input).chain(&self.lookups);
        all.flat_map(|schema| schema.fields().iter().map(|field| field.name().as_str()))
    }

    fn spelling(&self) -> Spelling {
        let mut spelling = Spelling::default();
        self.columns().chain(self.transform.lookups().keys().map(String::as_str)).for_each(|name| spelling.add(name));
        spelling
    }

    fn named(&self, name: &str) -> Option<(&Arc<crate::lookup::Lookup>, &SchemaRef)> {
        let mut all = self.transform.lookups().iter().zip(&self.lookups);
        all.find(|((known, _), _)| known.eq_ignore_ascii_case(name)).map(|((_, lookup), columns)| (lookup, columns))
    }

    /// The lookup that a join's right side reads.
    fn lookup_of(&self, plan: &LogicalPlan) -> Result<Arc<crate::lookup::Lookup>, Fault> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.lookup_of(&alias.input),
            LogicalPlan::TableScan(scan) => match self.named(scan.table_name.table()) {
                Some((lookup, _)) => Ok(lookup.clone()),
                None => Err(Fault::new("only lookups can be joined")),
            },
            _ => Err(Fault::new("only lookups can be joined")),
        }
    }
}

fn table_of(columns: &SchemaRef) -> Arc<dyn TableSource> {
    provider_as_source(Arc::new(EmptyTable::new(columns.clone())))
}

impl ContextProvider for Tables<'_> {
    fn get_table_source(&self, name: TableReference) -> EngineResult<Arc<dyn TableSource>> {
        if name.table().eq_ignore_ascii_case(INPUT) {
            return Ok(table_of(&self.input));
        }
        match self.named(name.table()) {
            Some((_, columns)) => Ok(table_of(columns)),
            None => Err(DataFusionError::Plan(format!("there is no lookup `{}`", name.table()))),
        }
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(type_planner())
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        session().expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        session().scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn get_variable_field(&self, _: &[String]) -> Option<FieldRef> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        session().config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        session().scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Whether all columns of `expr` are `schema`'s.
pub(super) fn is_of(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().all(|column: &&Column| schema.has_column(column))
}
