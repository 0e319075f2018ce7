//! `binlake run`, `binlake capture`, `binlake merge`: the service.

use super::service::{serve, stop_signal};
use super::{Answer, Global};
use crate::error::Result;
use crate::pipeline::{Halves, Status};
use clap::Args;

/// Captures and merges until it is stopped
///
/// The first start takes a snapshot of each table, later ones go on where the
/// lake stands. SIGTERM and Ctrl-C: what was captured is committed, then the
/// exit code is 0. Killed at any other moment, the next start loses nothing
/// and doubles nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, binlake.toml:
  [source]
  url = \"mysql://repl:${MYSQL_PASSWORD}@127.0.0.1:3306\"
  [[table]]
  source = \"shop.*\"")]
pub(super) struct Run {}

/// Reads the source into the stream; `binlake merge` does the rest
#[derive(Debug, Args)]
pub(super) struct Capture {}

/// Merges the stream into the lake; `binlake capture` fills the stream
#[derive(Debug, Args)]
pub(super) struct Merge {}

impl Run {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        start(global, Halves::Both).await
    }
}

impl Capture {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        start(global, Halves::Capture).await
    }
}

impl Merge {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        start(global, Halves::Merge).await
    }
}

async fn start(global: &Global, halves: Halves) -> Result<Answer> {
    let config = global.config()?;
    let stopped = stop_signal()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.file.display(), lake = %config.lake.url, "starting");
    Box::pin(serve(config, halves, Status::new(), stopped)).await?;
    tracing::info!("stopped; all that was captured is in the lake");
    Ok(Answer::Done)
}
