//! Commands that the contract has and this version doesn't: known, so that they aren't mistaken for a typing error.

use super::Answer;
use crate::error::{Error, Result};
use clap::Args;

/// Not in this version yet: undo a table's commits back to INSTANT
#[derive(Debug, Args)]
pub(super) struct Rollback {
    table: String,
    instant: String,
}

/// Not in this version yet: keep a table's state at INSTANT from being cleaned
#[derive(Debug, Args)]
pub(super) struct Savepoint {
    table: String,
    instant: Option<String>,
}

/// Not in this version yet: make a table as it was at a savepoint
#[derive(Debug, Args)]
pub(super) struct Restore {
    table: String,
    instant: String,
}

/// Not in this version yet: rewrite small files into large ones
#[derive(Debug, Args)]
pub(super) struct Cluster {
    table: String,
}

/// Says that `command` comes later, and what does instead today.
pub(super) fn refuse(command: &str, instead: &'static str) -> Result<Answer> {
    Err(Error::config(format!("`binlake {command}` is not in this version yet")).remedy(instead))
}
