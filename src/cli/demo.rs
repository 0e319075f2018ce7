//! `binlake demo`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::Args;

/// Shows it all on this machine: a private MySQL, load, the service, a chart
#[derive(Debug, Args)]
pub(super) struct Demo {}

impl Demo {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        Err(Error::config("`binlake demo` is not in this version yet").remedy("wait for it"))
    }
}
