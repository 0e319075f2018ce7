//! Expressions of added columns: SQLite's, in which `$NAME` is a column of the row. SQLite itself evaluates them.
//!
//! They stand as generated columns of a table in memory, whose one row is the row at hand: so SQLite refuses what isn't the same each time it is
//! computed (`random()`, `date('now')`), which a replay would give other values.

use crate::event::{Column, SourceType, TableSchema};
use arrow::datatypes::DataType;
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What DMS calls the time of a change's commit.
const COMMIT_TIME: &str = "AR_H_COMMIT_TIMESTAMP";
/// What DMS calls the place of a change in the source's log.
const STREAM_POSITION: &str = "AR_H_STREAM_POSITION";
/// What DMS calls the source's database.
const SCHEMA: &str = "AR_M_SOURCE_SCHEMA";
/// What DMS calls the source's table.
const TABLE: &str = "AR_M_SOURCE_TABLE_NAME";
const HEADERS: [&str; 4] = [COMMIT_TIME, STREAM_POSITION, SCHEMA, TABLE];
/// Names of the lake's own columns, in which a change's time and place are.
const OF_LAKE: [(&str, &str); 2] = [(COMMIT_TIME, "_commit_ts"), (STREAM_POSITION, "_position")];

/// An expression that SQLite can evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    /// With columns as SQLite names them.
    sql: String,
    /// The columns and headers that it reads.
    reads: BTreeSet<String>,
}

impl Expression {
    /// `$FIRST_NAME||'_'||$LAST_NAME`; `Err` is what is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let expression = Self::parts(text);
        for name in &expression.reads {
            let is_known = HEADERS.contains(&name.as_str());
            if (name.starts_with("AR_H_") || name.starts_with("AR_M_")) && !is_known {
                return Err(format!(
                    "the expression reads ${name}; of DMS's headers there are ${COMMIT_TIME}, ${STREAM_POSITION}, ${SCHEMA} and ${TABLE}"
                ));
            }
        }
        let connection = table_of(&[&expression], &expression.reads.iter().collect::<Vec<_>>());
        let tried = connection.and_then(|connection| {
            connection.execute("INSERT INTO at_hand DEFAULT VALUES", [])?;
            connection.query_row("SELECT e0 FROM at_hand", [], |_| Ok(()))
        });
        tried.map_err(|error| {
            let why = error.to_string().replace("generated columns", "expressions").replace("a generated column", "an expression");
            let why = why.split(" in CREATE TABLE").next().unwrap_or_default().to_owned();
            format!("the expression can't be evaluated: {why}; expressions are SQLite's, of columns alone")
        })?;
        Ok(expression)
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.reads.iter().map(String::as_str).filter(|name| !HEADERS.contains(name))
    }

    /// Columns are written `$NAME`; text between quotes is left alone.
    fn parts(text: &str) -> Self {
        let (mut sql, mut reads, mut quote) = (String::new(), BTreeSet::new(), None);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '\'' || c == '"' => quote = Some(c),
                None if c == '$' => {
                    let mut name = String::new();
                    while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                        name.push(next);
                    }
                    sql.push_str(&quoted(&name));
                    reads.insert(name);
                    continue;
                }
                _ => {}
            }
            sql.push(c);
        }
        Self { sql, reads }
    }
}

/// As no bare word can be written.
fn quoted(name: &str) -> String {
    format!("\"${name}\"")
}

fn table_of(expressions: &[&Expression], reads: &[&String]) -> rusqlite::Result<Connection> {
    let columns = reads.iter().map(|name| quoted(name)).chain(["\"$\"".to_owned()]);
    let computed = expressions.iter().enumerate().map(|(i, expression)| format!("e{i} AS ({})", expression.sql));
    let connection = Connection::open_in_memory()?;
    connection.execute(&format!("CREATE TABLE at_hand ({})", columns.chain(computed).collect::<Vec<_>>().join(", ")), [])?;
    Ok(connection)
}

/// The expressions of a mapping, for rows of one shape.
#[derive(Debug)]
pub(super) struct Evaluator {
    connection: Connection,
    reads: Vec<(String, Reads)>,
    count: usize,
}

/// How a column's value is read.
#[derive(Debug, Clone)]
enum Reads {
    Column(SourceType),
    Literal(String),
}

impl Reads {
    fn value(&self, name: &str, values: &Map<String, Value>) -> Result<Sql, &'static str> {
        match self {
            Self::Literal(text) => Ok(Sql::Text(text.clone())),
            Self::Column(source_type) => {
                let name = OF_LAKE.iter().find(|(header, _)| *header == name).map_or(name, |(_, column)| *column);
                bind(source_type, values.get(name))
            }
        }
    }
}

impl Evaluator {
    /// `Err` says which column isn't there.
    pub(super) fn new(expressions: &[&Expression], schema: &TableSchema) -> Result<Self, String> {
        let names: BTreeSet<&String> = expressions.iter().flat_map(|expression| &expression.reads).collect();
        let names: Vec<&String> = names.into_iter().collect();
        let connection = table_of(expressions, &names).map_err(|error| error.to_string())?;
        let reads = names.iter().map(|name| {
            let reads = match name.as_str() {
                SCHEMA => Reads::Literal(schema.table.database().to_owned()),
                TABLE => Reads::Literal(schema.table.name().to_owned()),
                STREAM_POSITION => Reads::Column(header_columns()[1].source_type.clone()),
                COMMIT_TIME => Reads::Column(header_columns()[0].source_type.clone()),
                name => {
                    let found = schema.index_of(name).ok_or_else(|| format!("there is no column `{name}`"))?;
                    let source_type = schema.columns[found].source_type.clone();
                    if matches!(source_type.lake_type(), DataType::Binary | DataType::List(_)) {
                        return Err(format!("expressions can't read the column `{name}`: it is neither number nor text"));
                    }
                    Reads::Column(source_type)
                }
            };
            Ok(((*name).clone(), reads))
        });
        Ok(Self { connection, reads: reads.collect::<Result<_, String>>()?, count: expressions.len() })
    }

    /// What the expressions are of each row, as text; NULL is `None`. `Err` says why one is nothing.
    pub(super) fn of<'a>(
        &self,
        rows: impl Iterator<Item = &'a Map<String, Value>>,
    ) -> Result<Vec<Vec<Option<String>>>, &'static str> {
        let mut bound = Vec::new();
        for values in rows {
            bound.push(self.reads.iter().map(|(name, reads)| reads.value(name, values)).collect::<Result<Vec<Sql>, _>>()?);
        }
        self.evaluate(bound).map_err(|_| "an expression can't be evaluated")
    }

    fn evaluate(&self, rows: Vec<Vec<Sql>>) -> rusqlite::Result<Vec<Vec<Option<String>>>> {
        let names: Vec<String> = self.reads.iter().map(|(name, _)| quoted(name)).chain(["\"$\"".to_owned()]).collect();
        let marks = vec!["?"; names.len()].join(", ");
        // one row after the other: one thing is prepared, and nothing grows
        let mut put =
            self.connection.prepare(&format!("REPLACE INTO at_hand (rowid, {}) VALUES (1, {marks})", names.join(", ")))?;
        let mut get = self.connection.prepare("SELECT * FROM at_hand")?;
        let all = rows.into_iter().map(|values| {
            put.execute(params_from_iter(values.into_iter().chain([Sql::Null])))?;
            get.query_row([], |row| (names.len()..names.len() + self.count).map(|i| text(row.get_ref(i)?)).collect())
        });
        all.collect()
    }
}

fn text(value: ValueRef<'_>) -> rusqlite::Result<Option<String>> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        // as SQLite writes it
        ValueRef::Real(number) => Some(format!("{number:?}")),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Some(std::str::from_utf8(text).map_err(|_| rusqlite::Error::InvalidQuery)?.to_owned())
        }
    })
}

/// A value as SQLite has it: numbers as numbers, the rest as text.
fn bind(source_type: &SourceType, value: Option<&Value>) -> Result<Sql, &'static str> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Sql::Null) };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let too_long = "a number has more digits than expressions keep";
    Ok(match source_type.lake_type() {
        DataType::Boolean => Sql::Integer(i64::from(text == "true")),
        DataType::Int32 | DataType::Int64 => Sql::Integer(text.parse().map_err(|_| too_long)?),
        DataType::Decimal128(..) => match text.parse() {
            Ok(whole) => Sql::Integer(whole),
            // SQLite's numbers have 15 digits that are sure
            Err(_) if text.bytes().filter(u8::is_ascii_digit).count() > 15 => return Err(too_long),
            Err(_) => Sql::Real(text.parse().map_err(|_| too_long)?),
        },
        DataType::Float32 | DataType::Float64 => Sql::Real(text.parse().map_err(|_| too_long)?),
        // as SQLite writes times
        DataType::Timestamp(..) => {
            let text = text.trim_end_matches('Z').replace('T', " ");
            let fsp = match source_type {
                SourceType::DateTime { fsp } | SourceType::Timestamp { fsp } => usize::from(*fsp),
                _ => 6,
            };
            let most = if fsp == 0 { 19 } else { 20 + fsp };
            Sql::Text(text.chars().take(most).collect())
        }
        _ => Sql::Text(text),
    })
}

/// The columns beside the source's that headers are read from.
pub(super) fn header_columns() -> [Column; 2] {
    let column = |name: &str, source_type| Column { name: name.to_owned(), source_type, nullable: true };
    [
        column("_commit_ts", SourceType::Timestamp { fsp: 6 }),
        column("_position", SourceType::Text { charset: "utf8mb4".to_owned(), max_bytes: 0 }),
    ]
}
