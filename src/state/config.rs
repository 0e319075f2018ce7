//! `[state]`: the state store.

use crate::setting::local_path;
use serde::Deserialize;
use std::path::PathBuf;

/// `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// Where it is: `sqlite:./data/state.db`.
    pub url: StateUrl,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { url: StateUrl::Sqlite("./data/state.db".into()) }
    }
}

/// Where a state store is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StateUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl std::fmt::Display for StateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StateUrl::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
        }
    }
}

impl TryFrom<String> for StateUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("dynamodb:") {
            return Err("dynamodb: state is not in this version yet; write sqlite:./data/state.db".into());
        }
        local_path(&text, "sqlite")
            .map(StateUrl::Sqlite)
            .ok_or_else(|| format!("`{text}` is not a state store's URL; write sqlite:./data/state.db"))
    }
}
