//! `binlake query`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Answers SQL over the lake
#[derive(Debug, Args)]
pub(super) struct Query {
    /// The statement
    sql: String,
}

impl Query {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake query` is not in this version yet").remedy("wait for it"))
    }
}
