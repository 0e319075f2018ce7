//! `[state]`: the state store.

use crate::cloud::AwsUrl;
use crate::setting::{duration, local_path};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// Where it is: `sqlite:./data/state.db` for one machine, `dynamodb://binlake-state?region=…` for several.
    pub url: StateUrl,
    /// How long a process that shares its work by leases may be silent until another takes over what it has.
    #[serde(deserialize_with = "duration")]
    pub lease_duration: Duration,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { url: StateUrl::Sqlite("./data/state.db".into()), lease_duration: Duration::from_secs(10) }
    }
}

/// Where a state store is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StateUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A table of DynamoDB, and another beside it for the audit (`<name>-runs`).
    DynamoDb(AwsUrl),
}

impl std::fmt::Display for StateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StateUrl::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            StateUrl::DynamoDb(url) => url.fmt(f),
        }
    }
}

impl TryFrom<String> for StateUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("dynamodb:") {
            let url = AwsUrl::parse(&text, "dynamodb")?;
            url.no_other_options(&[])?;
            if url.name.len() < 3 {
                return Err(format!("`{}` is too short for a table of DynamoDB; write at least three letters", url.name));
            }
            return Ok(StateUrl::DynamoDb(url));
        }
        local_path(&text, "sqlite").map(StateUrl::Sqlite).ok_or_else(|| {
            format!("`{text}` is not a state store's URL; write sqlite:./data/state.db or dynamodb://binlake-state?region=…")
        })
    }
}
