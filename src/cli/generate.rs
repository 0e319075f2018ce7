//! `binlake generate`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Makes load: writes a workload's rows into the source at a steady rate
#[derive(Debug, Args)]
pub(super) struct Generate {}

impl Generate {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake generate` is not in this version yet").remedy("wait for it"))
    }
}
