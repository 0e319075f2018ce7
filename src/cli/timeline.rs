//! `binlake timeline`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Lists a table's commits: instant, action, rows, position
#[derive(Debug, Args)]
pub(super) struct Timeline {
    /// The table, as database.table
    table: String,
}

impl Timeline {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake timeline` is not in this version yet").remedy("wait for it"))
    }
}
