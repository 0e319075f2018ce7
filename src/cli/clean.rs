//! `binlake clean`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Removes a table's old file versions beyond the retained commits
#[derive(Debug, Args)]
pub(super) struct Clean {
    /// The table, as database.table
    table: String,
}

impl Clean {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake clean` is not in this version yet").remedy("wait for it"))
    }
}
