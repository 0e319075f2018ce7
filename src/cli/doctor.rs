//! `binlake doctor`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Checks server, grants, tables, stream and lake, and says each remedy
#[derive(Debug, Args)]
pub(super) struct Doctor {}

impl Doctor {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake doctor` is not in this version yet").remedy("wait for it"))
    }
}
