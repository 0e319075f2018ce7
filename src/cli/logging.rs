//! Log lines on stderr: one line an event, fields rather than prose.

use super::Global;
use crate::error::{Error, Result};
use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Sends log lines to stderr from here on.
pub(super) fn start(global: &Global, default_level: &str) -> Result<()> {
    let level = global.log_level.as_deref().unwrap_or(default_level);
    let filter = EnvFilter::builder().parse(format!("{level},datafusion=warn,hyper=warn")).map_err(|_| {
        Error::config(format!("`{level}` is not a log level"))
            .with("option", "--log-level")
            .remedy("write error, warn, info, debug or trace")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // a second call in one process (tests) keeps the first
    let _ = match global.log_format {
        LogFormat::Text => registry.with(layer.with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
    };
    Ok(())
}

/// Prints the error with which the process ends: one line.
pub(super) fn print_error(format: LogFormat, error: &Error) {
    match format {
        LogFormat::Text => eprintln!("error: {error}"),
        LogFormat::Json => eprintln!(
            "{}",
            serde_json::json!({
                "timestamp": crate::time::Timestamp::now().to_string(),
                "level": "ERROR",
                "message": error.to_string(),
                "what": error.what(),
                "remedy": error.advice(),
                "exit_code": error.exit_code(),
            })
        ),
    }
}
