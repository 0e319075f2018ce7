//! Keeping lookups fresh while a service runs.

use super::Lookup;
use super::read::{Stamp, pause, stamp};
use crate::error::Result;
use crate::metrics as names;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The pause before something is read again that could not be read.
const AGAIN: Duration = Duration::from_secs(2);

/// Reads the lookup now and whenever it changes, or each `refresh` where that can't be told; never ends. `read` reads it.
///
/// What can't be read stays as it was, and is tried again soon.
pub async fn keep_fresh<F: Future<Output = Result<()>>>(lookup: Arc<Lookup>, read: impl Fn() -> F) {
    let mut seen = None;
    let mut said = None;
    loop {
        let now = stamp(&lookup.config().url);
        if now.is_some() && now == seen {
            lookup.is_fresh();
            tokio::time::sleep(pause(lookup.config())).await;
            continue;
        }
        match read().await {
            Ok(()) => {
                seen = now.filter(Stamp::is_settled);
                said = None;
                let items = lookup.content().map_or(0, |content| content.rows().num_rows());
                metrics::gauge!(names::LOOKUP_ITEMS, "lookup" => lookup.name().to_owned()).set(items as f64);
                tokio::time::sleep(pause(lookup.config())).await;
            }
            Err(error) => {
                metrics::counter!(names::LOOKUP_ERRORS, "lookup" => lookup.name().to_owned()).increment(1);
                let text = error.to_string();
                // once, not every two seconds
                if said.as_ref() != Some(&text) {
                    tracing::warn!(lookup = lookup.name(), %error, "a lookup can't be read; what was read before stays in use");
                }
                lookup.failed(text.clone());
                said = Some(text);
                tokio::time::sleep(AGAIN.min(lookup.config().refresh)).await;
            }
        }
    }
}
