//! `binlake stream …`.

use super::{Answer, Global};
use crate::error::{Error, Result};
use clap::{Args, Subcommand};

/// Looks into the stream
#[derive(Debug, Args)]
pub(super) struct Stream {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    /// Prints the events in the stream as JSON lines
    Tail,
}

impl Stream {
    #[expect(clippy::unused_async, reason = "not there yet")]
    pub(super) async fn run(self, _global: &Global) -> Result<Answer> {
        match self.command {
            StreamCommand::Tail => Err(Error::config("`binlake stream tail` is not in this version yet").remedy("wait for it")),
        }
    }
}
