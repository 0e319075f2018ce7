//! The state store: a cache of what the stream and the lake know, and the audit of runs.

mod config;

pub use config::{StateConfig, StateUrl};
