//! Questions to histories: the table functions, and tables as they were true, or known, at another time.
//!
//! A table function in a statement is replaced by the question that it stands for, over the history itself. `--as-of` and `--valid-at` make a table what
//! its history says of that time, in the table's own columns; a history that is named itself is filtered.

use super::as_of::AsOf;
use crate::error::{Error, Result};
use crate::merge::{CHECKPOINT_KEY, Checkpoint, HISTORY_START_KEY, HISTORY_SUFFIX, OPEN_END, Questions};
use crate::table::TableView;
use crate::time::Timestamp;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, SetExpr, Statement as Sql, TableAlias, TableFactor, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The schema under which histories are known to the questions themselves.
pub(super) const RAW: &str = "_binlake_history";

const FUNCTIONS: [&str; 4] = ["as_of", "history", "changes", "diff"];

/// A moment as DataFusion's SQL has it.
fn moment(time: Timestamp) -> String {
    format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", time.as_micros())
}

fn open_end() -> String {
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
    pub(super) fn versions(&self, database: &str, history: &str, columns: &Schema) -> String {
        let (system, valid) = (self.system.map(moment), self.valid.map(moment));
        match (&system, &valid) {
            // what is not asked for isn't left out of a history
            (None, Some(valid)) => {
                let all = format!("SELECT * FROM {} h", raw(database, history));
                format!("{all} WHERE h.\"_valid_from\" <= {valid} AND {valid} < h.\"_valid_to\"")
            }
            _ => Questions::new(raw(database, history), columns).as_of(system.as_deref(), valid.as_deref(), &open_end()),
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
    pub(super) fn rows(&self, database: &str, history: &str, columns: &Schema, names: &Schema) -> String {
        let system = self.system.map(moment);
        let valid = moment(self.valid.or(self.system).unwrap_or_else(Timestamp::now));
        let names = names.fields().iter().map(|field| field.name().as_str());
        let questions = Questions::new(raw(database, history), columns);
        questions.rows_as_of(names, system.as_deref(), Some(&valid), &open_end())
    }
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
    pub(super) columns: SchemaRef,
    /// What is known now, where that is another moment than the last commit's.
    pub(super) system: Option<Timestamp>,
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
    match inner_mut(statement).map(|statement| statement.visit(&mut Replace(found))) {
        Some(ControlFlow::Break(error)) => Err(error),
        _ => Ok(()),
    }
}

/// A call of one of the functions.
struct Call<'a> {
    function: &'static str,
    arguments: Vec<&'a Expr>,
    alias: Option<&'a TableAlias>,
}

impl<'a> Call<'a> {
    fn of(factor: &'a TableFactor) -> Option<Self> {
        let TableFactor::Table { name: ObjectName(parts), alias, args: Some(args), .. } = factor else { return None };
        let [part] = parts.as_slice() else { return None };
        let name = part.as_ident()?.value.to_lowercase();
        let function = FUNCTIONS.into_iter().find(|function| *function == name)?;
        let argument = |argument: &'a FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        };
        let arguments = args.args.iter().map(argument).collect::<Option<Vec<_>>>().unwrap_or_default();
        Some(Self { function, arguments, alias: alias.as_ref() })
    }

    /// The table's name, as it was written.
    fn table(&self) -> Option<String> {
        match self.arguments.first()? {
            Expr::Identifier(ident) => Some(ident.value.clone()),
            Expr::CompoundIdentifier(parts) => Some(parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")),
            expr => text(expr),
        }
    }

    fn wrong(&self, what: &'static str) -> Error {
        let form = match self.function {
            "as_of" => "as_of('table', system_time, valid_time): a time may be NULL, for now",
            "history" => "history('table', key): as many values as the table's key has columns",
            "changes" => "changes('table', first_system_time, last_system_time)",
            _ => "diff('table', valid_time, first_system_time, last_system_time)",
        };
        Error::config(what).with("function", self.function).remedy(format!("write {form}"))
    }

    /// The time in an argument; `None`: NULL, or left out.
    fn time(&self, number: usize) -> Result<Option<Timestamp>> {
        let Some(expr) = self.arguments.get(number) else { return Ok(None) };
        if matches!(expr, Expr::Value(value) if value.value == Value::Null) {
            return Ok(None);
        }
        match text(expr) {
            Some(text) if text.eq_ignore_ascii_case("now") => Ok(Some(Timestamp::now())),
            Some(text) => Timestamp::parse(&text).map(Some).ok_or_else(|| self.wrong("a function's time can't be read")),
            None => Err(self.wrong("a function takes times as text")),
        }
    }

    fn needed(&self, number: usize) -> Result<String> {
        self.time(number)?.map(moment).ok_or_else(|| self.wrong("a function lacks a time"))
    }

    fn question(&self, found: &BTreeMap<String, Found>) -> Result<TableFactor> {
        let table = self.table().ok_or_else(|| self.wrong("a function lacks its table"))?;
        let found = found.get(&table).ok_or_else(|| self.wrong("a function names a table without history"))?;
        let questions = Questions::new(raw(&found.database, &found.history), &found.columns);
        let most = match self.function {
            "as_of" | "changes" => 3,
            "diff" => 4,
            _ => questions.key().len() + 1,
        };
        if self.arguments.len() > most || (self.function == "history" && self.arguments.len() < most) {
            return Err(self.wrong("a function has the wrong number of arguments"));
        }
        let question = match self.function {
            "as_of" => {
                let (system, valid) = (self.time(1)?.or(found.system).map(moment), self.time(2)?.map(moment));
                questions.as_of(system.as_deref(), valid.as_deref(), &open_end())
            }
            "history" => {
                let key: Vec<String> = self.arguments[1..].iter().map(ToString::to_string).collect();
                questions.history(&key)
            }
            "changes" => questions.changes(&self.needed(1)?, &self.needed(2)?),
            _ => questions.diff(&self.needed(1)?, &self.needed(2)?, &self.needed(3)?),
        };
        derived(&question, self.alias.cloned())
    }
}

/// The text in an expression: `'…'` or `TIMESTAMP '…'`.
fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        Expr::TypedString(typed) => typed.value.value.clone().into_string(),
        _ => None,
    }
}

/// A query in brackets.
fn derived(sql: &str, alias: Option<TableAlias>) -> Result<TableFactor> {
    let broken = || Error::bug("a question to a history is no SQL").with("sql", sql);
    let parsed = DFParser::parse_sql(&format!("SELECT * FROM ({sql}) q")).map_err(|error| broken().caused_by(error))?;
    let Some(Statement::Statement(statement)) = parsed.into_iter().next() else { return Err(broken()) };
    let Sql::Query(query) = *statement else { return Err(broken()) };
    let SetExpr::Select(mut select) = *query.body else { return Err(broken()) };
    let mut factor = select.from.pop().ok_or_else(broken)?.relation;
    if let (TableFactor::Derived { alias: own, .. }, Some(alias)) = (&mut factor, alias) {
        *own = Some(alias);
    }
    Ok(factor)
}
