//! `binlake tables`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Lists the lake's tables: rows, size, last commit, position, state
#[derive(Debug, Args)]
pub(super) struct Tables {}

impl Tables {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake tables` is not in this version yet").remedy("wait for it"))
    }
}
