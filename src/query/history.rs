//! Questions to histories: the table functions, and tables as they were true, or known, at another time.
//!
//! A table function in a statement is replaced by the question that it stands for, over the history itself. `--as-of` and `--valid-at` make a table what
//! its history says of that time, in the table's own columns; a history that is named itself is filtered.

use super::as_of::AsOf;
use super::call::Call;
use crate::error::{Error, Result};
use crate::merge::{CHECKPOINT_KEY, Checkpoint, HISTORY_START_KEY, HISTORY_SUFFIX, OPEN_END, Questions};
use crate::table::TableView;
use crate::time::Timestamp;
use arrow::datatypes::Schema;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, SelectItem, SetExpr, Statement as Sql, TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The schema under which histories are known to the questions themselves.
pub(super) const RAW: &str = "_binlake_history";

pub(super) const FUNCTIONS: [&str; 4] = ["as_of", "history", "changes", "diff"];

/// A moment as DataFusion's SQL has it.
pub(super) fn moment(time: Timestamp) -> String {
    format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", time.as_micros())
}

pub(super) fn open_end() -> String {
    moment(Timestamp::from_micros(OPEN_END))
}

/// The name of a history in the questions.
fn raw(database: &str, history: &str) -> String {
    format!("\"{RAW}\".\"{}\"", format!("{database}.{history}").replace('"', "\"\""))
}

/// What `--as-of` and `--valid-at` ask of a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) system: Option<Timestamp>,
    pub(super) valid: Option<Timestamp>,
}

impl Asked {
    /// The rows of a history (named itself) that answer.
    pub(super) fn versions(&self, database: &str, history: &str, of: &TableView) -> String {
        let (system, valid) = (self.system.map(moment), self.valid.map(moment));
        match (&system, &valid) {
            // what is not asked for isn't left out of a history
            (None, Some(valid)) => {
                let all = format!("SELECT * FROM {} h", raw(database, history));
                format!("{all} WHERE h.\"_valid_from\" <= {valid} AND {valid} < h.\"_valid_to\"")
            }
            _ => questions(database, history, of).as_of(system.as_deref(), valid.as_deref(), &open_end()),
        }
    }

    /// When versions came or went between two system times (inclusive), and the position of whoever brought those that came.
    pub(super) fn transactions(database: &str, history: &str, lower: Timestamp, upper: Timestamp) -> String {
        let (from, lower, upper) = (raw(database, history), moment(lower), moment(upper));
        let part = |position: &str, time: &str| {
            format!(
                "SELECT arrow_cast({position}, 'Utf8') AS p, \"{time}\" AS t FROM {from} WHERE \"{time}\" BETWEEN {lower} AND {upper}"
            )
        };
        let parts = [part("\"_position\"", "_system_from"), part("NULL", "_system_to")];
        format!("SELECT DISTINCT p, t FROM ({}) u", parts.join(" UNION ALL "))
    }

    /// A table's rows, in its own columns: at one time of validity.
    pub(super) fn rows(&self, database: &str, history: &str, of: &TableView, names: &Schema) -> String {
        let system = self.system.map(moment);
        let valid = moment(self.valid.or(self.system).unwrap_or_else(Timestamp::now));
        let names = names.fields().iter().map(|field| field.name().as_str());
        questions(database, history, of).rows_as_of(names, system.as_deref(), Some(&valid), &open_end())
    }
}

pub(super) fn questions(database: &str, history: &str, of: &TableView) -> Questions {
    Questions::new(raw(database, history), &of.latest_columns(), &of.record_key())
}

/// Since when a history has every change.
pub(super) fn start_of(history: &TableView) -> Option<Timestamp> {
    history.extra_metadata(HISTORY_START_KEY).and_then(Timestamp::parse)
}

/// The system time that `as_of` means; `None`: it is one that the history doesn't go back to.
pub(super) async fn system_time(as_of: &AsOf, table: &TableView, history: &TableView) -> Result<Option<Timestamp>> {
    let time = match as_of.time() {
        Some(time) => time,
        None => {
            let instant = as_of.resolve(table).await?;
            let Some(commit) = table.instants().iter().find(|known| known.instant == instant) else { return Ok(None) };
            let extra = table.commit_extra_metadata(commit).await?;
            let checkpoint = extra.get(CHECKPOINT_KEY).map(|text| Checkpoint::from_json(text)).transpose()?;
            let Some(time) = checkpoint.and_then(|checkpoint| checkpoint.system_time) else { return Ok(None) };
            time
        }
    };
    Ok(start_of(history).filter(|start| *start <= time).map(|_| time))
}

/// The tables whose histories a statement's functions ask.
pub(super) fn asked_tables(statement: &Statement) -> Vec<String> {
    struct Tables(Vec<String>);
    impl Visitor for Tables {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let Some(call) = Call::of(factor) {
                self.0.extend(call.table());
            }
            ControlFlow::Continue(())
        }
    }
    let mut tables = Tables(Vec::new());
    if let Some(statement) = inner(statement) {
        let _ = statement.visit(&mut tables);
    }
    tables.0
}

fn inner(statement: &Statement) -> Option<&Sql> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => inner(&explain.statement),
        _ => None,
    }
}

fn inner_mut(statement: &mut Statement) -> Option<&mut Sql> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => inner_mut(&mut explain.statement),
        _ => None,
    }
}

/// A history that was found for a function's table.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) database: String,
    pub(super) history: String,
    pub(super) view: Arc<TableView>,
    /// What is known now, where that is another moment than the last commit's.
    pub(super) system: Option<Timestamp>,
    /// The last moment of which it knows, where it was switched off.
    pub(super) until: Option<Timestamp>,
}

/// The history's name for a table's.
pub(super) fn history_name(table: &str) -> String {
    if table.ends_with(HISTORY_SUFFIX) { table.to_owned() } else { format!("{table}{HISTORY_SUFFIX}") }
}

/// Replaces each function by the question that it stands for.
pub(super) fn replace_functions(statement: &mut Statement, found: &BTreeMap<String, Found>) -> Result<()> {
    struct Replace<'a>(&'a BTreeMap<String, Found>);
    impl VisitorMut for Replace<'_> {
        type Break = Error;

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
            let Some(call) = Call::of(factor) else { return ControlFlow::Continue(()) };
            match call.question(self.0) {
                Ok(replaced) => {
                    *factor = replaced;
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    let mut statement = inner_mut(statement);
    if let Some(statement) = &mut statement {
        in_order(statement);
    }
    match statement.map(|statement| statement.visit(&mut Replace(found))) {
        Some(ControlFlow::Break(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Rows that are nothing but a history's, or its changes, come in their order where the statement names none.
fn in_order(statement: &mut Sql) {
    let Sql::Query(query) = statement else { return };
    let (SetExpr::Select(select), None) = (query.body.as_ref(), &query.order_by) else { return };
    let [TableWithJoins { relation, joins }] = select.from.as_slice() else { return };
    let is_plain = |item: &SelectItem| match item {
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }
        _ => false,
    };
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let order = match Call::of(relation) {
        Some(call) if call.alias.is_some_and(|alias| !alias.columns.is_empty()) => return,
        Some(call) if call.function == "history" => "_system_from, _valid_from",
        Some(call) if call.function == "changes" => "_changed_at, _change DESC, _valid_from",
        _ => return,
    };
    if !joins.is_empty() || is_grouped || select.distinct.is_some() || !select.projection.iter().all(is_plain) {
        return;
    }
    let parsed = DFParser::parse_sql(&format!("SELECT 1 ORDER BY {order}")).ok().and_then(|mut parsed| parsed.pop_front());
    if let Some(Statement::Statement(ordered)) = parsed
        && let Sql::Query(ordered) = *ordered
    {
        query.order_by = ordered.order_by;
    }
}

/// The history begins later than that.
pub(super) fn before_start(database: &str, name: &str, start: Timestamp) -> Error {
    Error::config("the table's history doesn't go back so far")
        .with("table", format!("{database}.{name}"))
        .with("history_start", start)
        .remedy("ask as of a later time; the history itself, and history(…), show what there is of earlier ones")
}
