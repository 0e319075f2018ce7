//! DataFusion as transforms use it: its session, and its errors in our words.

use super::calendar::calendar_functions;
use super::function;
use super::times::in_microseconds;
use crate::error::{Area, Error, Kind};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::tokenizer::Location;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The functions and the rules of planning, the same for all transforms.
pub(super) fn session() -> &'static SessionState {
    static SESSION: LazyLock<SessionState> = LazyLock::new(|| {
        let mut config = SessionConfig::new();
        let options = config.options_mut();
        options.sql_parser.map_string_types_to_utf8view = false;
        options.execution.time_zone = Some("+00:00".into());
        let mut state = in_microseconds(SessionStateBuilder::new().with_config(config).with_default_features());
        for own in function::all().into_iter().chain(calendar_functions().map(Arc::new)) {
            // an own function takes the place of one of the same name
            let _ = datafusion::execution::FunctionRegistry::register_udf(&mut state, own);
        }
        state
    });
    &SESSION
}

/// A place in the SQL: `line:column`, both from 1.
pub(super) fn place(at: Location) -> String {
    format!("{}:{}", at.line, at.column)
}

/// `1, Column: 8`.
fn parse_place(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

/// What is wrong with a statement, and where.
#[derive(Debug)]
pub(super) struct Fault {
    what: Cow<'static, str>,
    at: Option<Location>,
    remedy: Option<Cow<'static, str>>,
}

impl Fault {
    pub(super) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), at: None, remedy: None }
    }

    pub(super) fn at(what: impl Into<Cow<'static, str>>, at: Location) -> Self {
        Self::new(what).at_place(at)
    }

    pub(super) fn at_place(mut self, at: Location) -> Self {
        // a place that the parser doesn't know is 0:0
        if at.line > 0 {
            self.at.get_or_insert(at);
        }
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy.get_or_insert(remedy.into());
        self
    }

    /// Whether two columns seem to have one name.
    pub(super) fn is_about_names(&self) -> bool {
        self.what.contains("could be of several tables")
            || self.what.contains("unique expression names")
            || self.what.contains("duplicate")
    }

    /// An error of DataFusion's about the statement.
    pub(super) fn of_engine(error: &DataFusionError) -> Self {
        let at = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| span.start);
        let fault = match error.find_root() {
            DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
                SchemaError::FieldNotFound { field, .. } => Self::new(format!("there is no column `{}`", field.name)),
                SchemaError::AmbiguousReference { field } => {
                    Self::new(format!("the column `{}` could be of several tables", field.name))
                        .remedy("write the table's alias before it")
                }
                other => Self::new(one_line(&other.to_string())),
            },
            root => {
                // the parser says the place in its text
                let text = one_line(&root.strip_backtrace());
                match text.split_once(" at Line: ") {
                    Some((what, at)) => Self { at: parse_place(at), ..Self::new(what.to_owned()) },
                    None => Self::new(text),
                }
            }
        };
        match at {
            Some(at) => fault.at_place(Location { line: at.line, column: at.column }),
            None => fault,
        }
    }

    pub(super) fn into_error(self) -> Error {
        let error = Error::new(Area::Lake, Kind::Data, self.what);
        let error = match self.at {
            Some(at) => error.with("sql", place(at)),
            None => error,
        };
        error.remedy(self.remedy.unwrap_or(Cow::Borrowed("correct the table's `transform`")))
    }
}

/// As serde's errors are read: `what; remedy`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(at) = self.at {
            write!(f, " sql={}", place(at))?;
        }
        write!(f, "; {}", self.remedy.as_deref().unwrap_or("correct the SQL"))
    }
}

/// DataFusion's message in one line, without the names of its own types and without `; `, which divides our own messages.
fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let line = ["SQL error: ", "Schema error: ", "Error during planning: ", "Execution error: ", "type_coercion caused by "]
        .iter()
        .fold(line.as_str(), |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    let line = match line.strip_prefix("ParserError(\"").or_else(|| line.strip_prefix("TokenizerError(\"")) {
        Some(inner) => inner.trim_end_matches("\")"),
        None => line,
    };
    line.trim_end_matches('.').replace("; ", ", ")
}
