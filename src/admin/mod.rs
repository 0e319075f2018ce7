//! Health, readiness, metrics and a status page over HTTP.
//!
//! `/healthz` 200 while the process lives · `/readyz` 200 when the lake follows the source, else 503 with the reason · `/metrics` for Prometheus ·
//! `/status` as JSON · `/` for people · `POST /backfill` has tables copied anew · `POST /erase` has keys erased · `/rules` shows the rules and
//! has others proposed. Only reads [`crate::pipeline::Status`] and leaves requests
//! there; a slow or broken client never holds the pipeline up.

mod asked;
mod config;
mod erase;
mod page;
mod prometheus;
mod readiness;
mod rules;
mod server;

pub use config::{AdminConfig, Listen};
pub use page::grouped;
pub use prometheus::MetricsPage;
pub use readiness::{Readiness, readiness};
pub use server::{Admin, bind};
