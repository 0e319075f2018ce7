//! `binlake run`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Captures and merges until it is stopped (SIGTERM: finishes, commits, exits 0)
#[derive(Debug, Args)]
pub(super) struct Run {}

impl Run {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake run` is not in this version yet").remedy("wait for it"))
    }
}
