//! The name of a source table.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A table's database and name, as the source spells them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableId {
    database: String,
    name: String,
}

impl TableId {
    /// A table called `name` in `database`.
    pub fn new(database: impl Into<String>, name: impl Into<String>) -> Self {
        Self { database: database.into(), name: name.into() }
    }

    /// The database (MySQL's schema).
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The table's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.name)
    }
}

impl FromStr for TableId {
    type Err = String;

    /// Reads `database.table`; the first dot separates.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((database, name)) if !database.is_empty() && !name.is_empty() => Ok(Self::new(database, name)),
            _ => Err(format!("`{text}` is not a table name of the form database.table")),
        }
    }
}

impl TryFrom<String> for TableId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TableId> for String {
    fn from(table: TableId) -> Self {
        table.to_string()
    }
}
