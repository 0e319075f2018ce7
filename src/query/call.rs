//! A call of one of the table functions: its arguments, and the question that it stands for.

use super::history::{FUNCTIONS, Found, before_start, moment, open_end, questions, start_of};
use super::kept::not_kept;
use crate::error::{Error, Result};
use crate::table::{hex, key_column};
use crate::time::Timestamp;
use arrow::datatypes::Schema;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, SetExpr, Statement as Sql, TableAlias, TableFactor, UnaryOperator, Value,
};
use std::collections::BTreeMap;

/// A call of one of the functions.
pub(super) struct Call<'a> {
    pub(super) function: &'static str,
    /// `None`: they are not all plain expressions.
    arguments: Option<Vec<&'a Expr>>,
    pub(super) alias: Option<&'a TableAlias>,
}

impl<'a> Call<'a> {
    pub(super) fn of(factor: &'a TableFactor) -> Option<Self> {
        let TableFactor::Table { name: ObjectName(parts), alias, args: Some(args), .. } = factor else { return None };
        let [part] = parts.as_slice() else { return None };
        let name = part.as_ident()?.value.to_lowercase();
        let function = FUNCTIONS.into_iter().find(|function| *function == name)?;
        let argument = |argument: &'a FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        };
        Some(Self { function, arguments: args.args.iter().map(argument).collect(), alias: alias.as_ref() })
    }

    fn arguments(&self) -> &[&'a Expr] {
        self.arguments.as_deref().unwrap_or_default()
    }

    /// The table's name, as it was written; without quotes in small letters.
    pub(super) fn table(&self) -> Option<String> {
        let of = |ident: &Ident| if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
        match self.arguments().first()? {
            Expr::Identifier(ident) => Some(of(ident)),
            Expr::CompoundIdentifier(parts) => Some(parts.iter().map(of).collect::<Vec<_>>().join(".")),
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
        let Some(expr) = self.arguments().get(number) else { return Ok(None) };
        if matches!(expr, Expr::Value(value) if value.value == Value::Null) {
            return Ok(None);
        }
        match text(expr) {
            _ if is_now(expr) => Ok(Some(Timestamp::now())),
            Some(text) if text.eq_ignore_ascii_case("now") => Ok(Some(Timestamp::now())),
            Some(text) => Timestamp::parse(text.trim())
                .map(Some)
                .ok_or_else(|| self.wrong("a function's time can't be read").with("time", format!("'{text}'"))),
            None => Err(self.wrong("a function takes times as text")),
        }
    }

    fn needed(&self, number: usize) -> Result<Timestamp> {
        self.time(number)?.ok_or_else(|| self.wrong("a function lacks a time"))
    }

    /// A system time of which the history knows.
    fn known(&self, time: Timestamp, found: &Found) -> Result<String> {
        if let Some(start) = start_of(&found.view).filter(|start| time < *start) {
            return Err(before_start(&found.database, &found.history, start).with("asked", time));
        }
        match found.until.filter(|until| time > *until) {
            Some(until) => Err(not_kept(&found.database, &found.history, until).with("asked", time)),
            None => Ok(moment(time)),
        }
    }

    pub(super) fn question(&self, found: &BTreeMap<String, Found>) -> Result<TableFactor> {
        if self.arguments.is_none() {
            return Err(self.wrong("a function's arguments have no names"));
        }
        let table = self.table().ok_or_else(|| self.wrong("a function lacks its table"))?;
        let found = found.get(&table).ok_or_else(|| self.wrong("a function names a table without history"))?;
        let questions = questions(&found.database, &found.history, &found.view);
        let most = match self.function {
            "as_of" | "changes" => 3,
            "diff" => 4,
            _ => questions.key().len() + 1,
        };
        let count = self.arguments().len();
        if count > most || (self.function == "history" && count < most) {
            let what = "a function has the wrong number of arguments";
            return Err(match self.function {
                "history" => Error::config(what)
                    .with("function", self.function)
                    .remedy(format!("write history('{table}', {})", questions.key().join(", "))),
                _ => self.wrong(what),
            });
        }
        let question = match self.function {
            "as_of" => {
                let asked = self.time(1)?.map(|time| self.known(time, found)).transpose()?;
                // as known now, whatever the clock here says
                if let (None, None, Some(until)) = (&asked, found.system, found.until) {
                    return Err(not_kept(&found.database, &found.history, until));
                }
                let (system, valid) = (asked.or(found.system.map(moment)), self.time(2)?.map(moment));
                questions.as_of(system.as_deref(), valid.as_deref(), &open_end())
            }
            "history" => {
                let columns = found.view.latest_columns();
                let values = questions.key().iter().zip(&self.arguments()[1..]);
                let key = values.map(|(name, value)| self.key_value(name, value, &columns)).collect::<Result<Vec<_>>>()?;
                questions.history(&key)
            }
            "changes" => questions.changes(&moment(self.needed(1)?), &moment(self.needed(2)?)),
            _ => {
                let (first, last) = (self.known(self.needed(2)?, found)?, self.known(self.needed(3)?, found)?);
                questions.diff(&moment(self.needed(1)?), &first, &last)
            }
        };
        derived(&question, self.alias.cloned())
    }

    /// A value of the key's column `name`, as SQL. What is written as a text or a number must be one of the column's type.
    fn key_value(&self, name: &str, expr: &Expr, columns: &Schema) -> Result<String> {
        let number = |expr: &Expr| match expr {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Some(number.clone()),
                _ => None,
            },
            _ => None,
        };
        let written = match expr {
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|number| format!("-{number}")),
            expr => number(expr).or_else(|| text(expr).filter(|_| is_text(expr))),
        };
        let (Some(written), Ok(field)) = (written, columns.field_with_name(name)) else { return Ok(expr.to_string()) };
        key_column(&[&written], field.data_type()).map_err(|error| {
            Error::config("a key's value can't be read")
                .with("function", self.function)
                .with("column", name)
                .caused_by(error)
                .remedy("write the values in the order of the key's columns; bytes as X'…'")
        })?;
        match hex(&written).filter(|_| field.data_type().is_binary()) {
            Some(_) => Ok(format!("X'{}'", &written[2..])),
            None => Ok(expr.to_string()),
        }
    }
}

/// `now()`, `current_timestamp`.
fn is_now(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let name = function.name.to_string();
    ["now", "current_timestamp"].iter().any(|now| name.eq_ignore_ascii_case(now))
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if !matches!(value.value, Value::HexStringLiteral(_)))
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
