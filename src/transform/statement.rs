//! The statement itself: parsed, and refused where it isn't row-wise or wouldn't give the same rows again.

use super::engine::{Fault, place, session};
use crate::error::{Error, Result};
use crate::lookup::{Lookup, Missing, OnChange};
use datafusion::logical_expr::Volatility;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SetExpr, Spanned, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

/// What `FROM` names.
pub(super) const INPUT: &str = "input";

/// What becomes of a row whose expression fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Its table stops.
    #[default]
    Stop,
    /// It goes to the dead-letter area, and is not in the table.
    DeadLetter,
}

/// A table's `SELECT`, as the configuration has it.
#[derive(Clone)]
pub struct Transform {
    sql: Arc<str>,
    statement: Arc<Statement>,
    /// The lookups that it joins, by name; none of them is there before [`Transform::attach`].
    joined: Arc<[Ident]>,
    lookups: BTreeMap<String, Arc<Lookup>>,
    on_error: OnError,
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the text may hold a secret
        f.debug_struct("Transform").field("lookups", &self.lookups.keys()).finish_non_exhaustive()
    }
}

impl PartialEq for Transform {
    fn eq(&self, other: &Self) -> bool {
        self.sql == other.sql && self.on_error == other.on_error
    }
}

impl FromStr for Transform {
    type Err = String;

    fn from_str(sql: &str) -> Result<Self, String> {
        Self::parse(sql).map_err(|fault| fault.to_string())
    }
}

impl<'de> serde::Deserialize<'de> for Transform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Transform {
    fn parse(sql: &str) -> Result<Self, Fault> {
        let mut statements = DFParser::parse_sql(sql).map_err(|error| Fault::of_engine(&error))?;
        let statement = match (statements.pop_front(), statements.pop_front()) {
            (Some(statement), None) => statement,
            _ => return Err(Fault::new("a transform is one SELECT").remedy("write one statement")),
        };
        let joined = check(&statement)?.into();
        Ok(Self { sql: sql.into(), statement: Arc::new(statement), joined, lookups: BTreeMap::new(), on_error: OnError::default() })
    }

    /// The one that leaves all as it is.
    ///
    /// # Errors
    /// `Bug` if it can't be read.
    pub fn everything() -> Result<Self> {
        Self::parse("SELECT * FROM input").map_err(|fault| Error::bug(fault.to_string()))
    }

    /// The text.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The same; a row whose expression fails becomes what is said.
    #[must_use]
    pub fn with_on_error(self, on_error: OnError) -> Self {
        Self { on_error, ..self }
    }

    /// What becomes of a row whose expression fails.
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Whether rows may become dead letters: those that fail, or those that lack an item.
    pub fn has_dead_letters(&self) -> bool {
        self.on_error == OnError::DeadLetter || self.lookups.values().any(|lookup| lookup.missing() == Missing::DeadLetter)
    }

    /// Whether rows of the table are joined anew when a lookup's items change.
    pub fn reapplies(&self) -> bool {
        self.lookups.values().any(|lookup| lookup.on_change() == OnChange::Reapply)
    }

    /// What marks the items of the lookups that are applied anew, as they are now.
    pub fn marks(&self) -> BTreeMap<String, String> {
        let asked = self.lookups.values().filter(|lookup| lookup.on_change() == OnChange::Reapply);
        asked.filter_map(|lookup| Some((lookup.name().to_owned(), lookup.content()?.fingerprint().to_owned()))).collect()
    }

    /// Another statement of the same rows, without lookups.
    pub(super) fn of_input_alone(&self, statement: Statement) -> Self {
        Self { statement: Arc::new(statement), joined: Arc::default(), lookups: BTreeMap::new(), ..self.clone() }
    }

    pub(super) fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The lookups that it joins, by name.
    pub fn lookups(&self) -> &BTreeMap<String, Arc<Lookup>> {
        &self.lookups
    }

    /// Whether the columns of all of its lookups are known, so that it can be bound.
    pub fn is_known(&self) -> bool {
        self.lookups.values().all(|lookup| lookup.columns().is_some())
    }

    /// Whether all of its lookups but those that are `given` have been read, so that it can be run.
    pub fn is_ready_but_for(&self, given: &BTreeSet<String>) -> bool {
        self.lookups.values().all(|lookup| lookup.is_ready() || given.contains(lookup.name()))
    }

    /// Gives it the lookups that it names.
    ///
    /// # Errors
    /// `Config` if it names one that isn't in `known`.
    pub fn attach(&mut self, known: &BTreeMap<String, Arc<Lookup>>) -> Result<()> {
        for ident in self.joined.iter() {
            let named = |name: &&String| name.eq_ignore_ascii_case(&ident.value);
            let Some((name, lookup)) = known.get_key_value(&ident.value).or_else(|| known.iter().find(|(name, _)| named(name)))
            else {
                let error = Error::config(format!("the transform joins `{}`, which is no lookup", ident.value))
                    .with("sql", place(ident.span.start));
                return Err(error.remedy(match nearest(&ident.value, known.keys().map(String::as_str)) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("add [lookup.{}] with url = …", ident.value),
                }));
            };
            self.lookups.insert(name.clone(), lookup.clone());
        }
        Ok(())
    }
}

/// The known name that is most like `name`.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let alike = known.map(|other| (strsim::jaro_winkler(&name, &other.to_lowercase()), other));
    alike.filter(|(alike, _)| *alike > 0.75).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

/// Refuses what isn't row-wise or repeatable; the lookups that are joined.
fn check(statement: &Statement) -> Result<Vec<Ident>, Fault> {
    let Statement::Statement(sql) = statement else {
        return Err(Fault::new("a transform is one SELECT"));
    };
    let SqlStatement::Query(query) = sql.as_ref() else {
        return Err(Fault::new("a transform is one SELECT").remedy("write SELECT … FROM input"));
    };
    if let ControlFlow::Break(fault) = sql.visit(&mut RowWise { depth: 0 }) {
        return Err(*fault);
    }
    let select = check_query(query)?;
    check_clauses(select)?;
    for item in &select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        {
            return Err(Fault::at("a computed column has no name", item.span().start).remedy("add AS and a name to it"));
        }
    }
    let mut seen = HashSet::new();
    for name in select.projection.iter().filter_map(given_name) {
        if !seen.insert(name.value.to_lowercase()) {
            let fault = Fault::at(format!("two columns are called `{}` (case aside)", name.value), name.span.start);
            return Err(fault.remedy("give one another name with AS"));
        }
    }
    check_from(select)
}

/// What an item of the SELECT's list is called, where it says so.
pub(super) fn given_name(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    }
}

fn not_row_wise(what: &str, remedy: &'static str) -> Fault {
    Fault::new(format!("{what} is not row-wise: a transform sees one row at a time")).remedy(remedy)
}

fn check_query(query: &Query) -> Result<&Select, Fault> {
    if query.with.is_some() {
        return Err(Fault::new("a transform has no WITH").remedy("write the expressions in the SELECT itself"));
    }
    if query.order_by.is_some() {
        return Err(not_row_wise("ORDER BY", "remove it: rows are stored in the order of their key"));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(not_row_wise("LIMIT", "remove it, or use WHERE"));
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => Ok(select),
        SetExpr::SetOperation { op, .. } => Err(not_row_wise(&op.to_string(), "write one SELECT")),
        _ => Err(Fault::new("a transform is one SELECT").remedy("write SELECT … FROM input")),
    }
}

fn check_clauses(select: &Select) -> Result<(), Fault> {
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
        GroupByExpr::All(_) => true,
    };
    let refused = [
        (matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))), "DISTINCT"),
        (grouped, "GROUP BY"),
        (select.having.is_some(), "HAVING"),
        (select.qualify.is_some(), "QUALIFY"),
        (select.top.is_some(), "TOP"),
        (!select.sort_by.is_empty() || !select.cluster_by.is_empty() || !select.distribute_by.is_empty(), "SORT BY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (select.into.is_some(), "INTO"),
        (select.prewhere.is_some(), "PREWHERE"),
    ];
    match refused.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(not_row_wise(what, "remove it; use views over the lake for what needs many rows")),
        None => Ok(()),
    }
}

fn check_from(select: &Select) -> Result<Vec<Ident>, Fault> {
    let from_input = || Fault::new("a transform reads from `input`").remedy("write FROM input, and LEFT JOIN for lookups");
    let [from] = select.from.as_slice() else { return Err(from_input()) };
    if table_name(&from.relation).is_none_or(|name| !name.value.eq_ignore_ascii_case(INPUT)) {
        return Err(from_input());
    }
    let mut joined: Vec<Ident> = Vec::new();
    for join in &from.joins {
        let at = join.relation.span().start;
        let on = match &join.join_operator {
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => on,
            _ => {
                return Err(Fault::at("only LEFT JOIN is row-wise: another join would lose or multiply rows", at)
                    .remedy("write LEFT JOIN; drop rows without a match by WHERE … IS NOT NULL"));
            }
        };
        if !matches!(on, JoinConstraint::On(_)) {
            return Err(Fault::at("a join needs its condition", at).remedy("write LEFT JOIN … ON t.column = lookup.column"));
        }
        let Some(name) = table_name(&join.relation) else {
            return Err(Fault::at("only lookups can be joined", at).remedy("declare [lookup.NAME], and join it by its name"));
        };
        if name.value.eq_ignore_ascii_case(INPUT) {
            return Err(Fault::at("`input` can't be joined with itself: a transform sees one row at a time", at)
                .remedy("declare a [lookup.NAME] with url = 'table:DATABASE.TABLE', and LEFT JOIN it"));
        }
        joined.push(name.clone());
    }
    Ok(joined)
}

/// The name of a plain table.
fn table_name(relation: &TableFactor) -> Option<&Ident> {
    match relation {
        TableFactor::Table { name, args: None, .. } => match name.0.as_slice() {
            [part] => part.as_ident(),
            _ => None,
        },
        _ => None,
    }
}

/// Looks at each expression.
struct RowWise {
    /// Queries around.
    depth: usize,
}

fn function_name(name: &ObjectName) -> String {
    name.to_string().to_lowercase()
}

impl RowWise {
    fn function(function: &Function) -> Result<(), Fault> {
        let at = function.name.span().start;
        let name = function_name(&function.name);
        if function.over.is_some() {
            return Err(Fault::at(format!("the window function `{name}` is not row-wise: a transform sees one row at a time"), at)
                .remedy("remove it; use views over the lake for what needs many rows"));
        }
        let session = session();
        if let Some(known) = session.scalar_functions().get(&name) {
            return match known.signature().volatility {
                Volatility::Immutable => Ok(()),
                _ => Err(not_repeatable(&name).at_place(at)),
            };
        }
        if session.aggregate_functions().contains_key(&name) {
            return Err(Fault::at(format!("the aggregate `{name}` is not row-wise: a transform sees one row at a time"), at)
                .remedy("remove it; use views over the lake for what needs many rows"));
        }
        if name == "unnest" {
            return Err(Fault::at("`unnest` is not row-wise: it makes several rows of one", at).remedy("remove it"));
        }
        // of the grammar, with a syntax of its own
        if matches!(function.args, FunctionArguments::None) && session.scalar_functions().contains_key(&name) {
            return Ok(());
        }
        let fault = Fault::at(format!("there is no function `{name}`"), at);
        Err(match nearest(&name, session.scalar_functions().keys().map(String::as_str)) {
            Some(other) => fault.remedy(format!("did you mean `{other}`?")),
            None => fault.remedy("docs/transforms.md lists what there is"),
        })
    }
}

fn not_repeatable(name: &str) -> Fault {
    Fault::new(format!("`{name}` gives another value each time, and a replay must give the same rows"))
        .remedy("use the column _commit_ts for the time of the change")
}

impl Visitor for RowWise {
    type Break = Box<Fault>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        if self.depth > 1 {
            let fault = Fault::at("a subquery is not row-wise: a transform sees one row at a time", query.span().start);
            return ControlFlow::Break(Box::new(fault.remedy("declare a [lookup.NAME], and LEFT JOIN it")));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let checked = match expr {
            Expr::Function(function) => Self::function(function),
            _ => Ok(()),
        };
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(Box::new(fault)),
        }
    }
}
