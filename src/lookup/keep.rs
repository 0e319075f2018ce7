//! Keeping lookups fresh while a service runs.

use super::read::{Stamp, pause, stamp};
use super::{Lookup, LookupUrl};
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
    let mut settling = Settling::default();
    loop {
        let now = stamp(&lookup.config().url);
        if now.is_some() && now == seen {
            lookup.is_fresh();
            lookup.rest(pause(lookup.config())).await;
            continue;
        }
        if lookup.content().is_some() && settling.may_be_written(&lookup.config().url, now.as_ref()) {
            lookup.rest(pause(lookup.config())).await;
            continue;
        }
        match read().await {
            Ok(()) => {
                seen = now.filter(Stamp::is_settled);
                said = None;
                let items = lookup.content().map_or(0, |content| content.rows().num_rows());
                metrics::gauge!(names::LOOKUP_ITEMS, "lookup" => lookup.name().to_owned()).set(items as f64);
                lookup.rest(pause(lookup.config())).await;
            }
            Err(error) => {
                metrics::counter!(names::LOOKUP_ERRORS, "lookup" => lookup.name().to_owned()).increment(1);
                let text = error.to_string();
                // once, not every two seconds
                if said.as_ref() != Some(&text) {
                    let until_then =
                        if lookup.is_ready() { "what was read before stays in use" } else { "the tables that join it wait" };
                    tracing::warn!(lookup = lookup.name(), %error, "a lookup can't be read; {until_then}");
                }
                lookup.failed(text.clone());
                said = Some(text);
                lookup.rest(AGAIN.min(lookup.config().refresh)).await;
            }
        }
    }
}

/// A file that looks otherwise each time may be being written, and half of it is read without an error: it is read once it looks the same twice.
#[derive(Debug, Default)]
struct Settling {
    last: Option<Stamp>,
    looks: u32,
}

impl Settling {
    /// One that never comes to rest is read every so many looks.
    const MOST_LOOKS: u32 = 10;

    fn may_be_written(&mut self, url: &LookupUrl, now: Option<&Stamp>) -> bool {
        // a database shows whole transactions
        if !matches!(url, LookupUrl::File(_)) || now == self.last.as_ref() || self.looks == Self::MOST_LOOKS {
            (self.last, self.looks) = (now.cloned(), 0);
            return false;
        }
        (self.last, self.looks) = (now.cloned(), self.looks + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_file_that_is_being_written_is_left_alone_for_a_while() {
        let (folder, mut settling) = (tempfile::tempdir().unwrap(), Settling::default());
        let path = folder.path().join("a.csv");
        let url = LookupUrl::File(path.clone());
        let mut look = |path: &Path, text: &str| {
            std::fs::write(path, text).unwrap();
            settling.may_be_written(&url, stamp(&url).as_ref())
        };
        assert!(look(&path, "a"));
        assert!(look(&path, "a,b"));
        let now = stamp(&url);
        assert!(!settling.may_be_written(&url, now.as_ref()), "it looks the same");
        assert!(!settling.may_be_written(&url, now.as_ref()));
        let mut looks = (0..30).map(|i| {
            std::fs::write(&path, "x".repeat(10 + i)).unwrap();
            settling.may_be_written(&url, stamp(&url).as_ref())
        });
        assert_eq!(looks.position(|waits| !waits), Some(Settling::MOST_LOOKS as usize));
        let sqlite = LookupUrl::Sqlite(path.clone(), "t".into());
        assert!(!Settling::default().may_be_written(&sqlite, now.as_ref()));
    }
}
