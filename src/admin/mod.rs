//! Health, readiness and metrics over HTTP.

mod config;

pub use config::{AdminConfig, Listen};
