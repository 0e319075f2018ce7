//! `binlake backfill`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Copies tables from the source into the lake once, then exits; the next run goes on from there
#[derive(Debug, Args)]
pub(super) struct Backfill {
    /// Only these tables, as database.table; may be given more than once
    #[arg(long, value_name = "TABLE")]
    table: Vec<crate::event::TableId>,
}

impl Backfill {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake backfill` is not in this version yet").remedy("wait for it"))
    }
}
