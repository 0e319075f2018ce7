//! What a running service is asked for from outside: handed over by the admin interface, taken up by the capture at its next cut.

use super::capture::BackfillRequest;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that wait; clones share them. They are not durable: a snapshot that was begun goes on after a crash, one that wasn't is asked for again.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    inner: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    backfills: VecDeque<BackfillRequest>,
    /// Whether a capture runs in this process.
    has_capture: bool,
}

impl Requests {
    /// Asks for a backfill; false where no capture runs that could do it.
    pub fn backfill(&self, request: BackfillRequest) -> bool {
        let mut waiting = self.lock();
        if waiting.has_capture {
            waiting.backfills.push_back(request);
        }
        waiting.has_capture
    }

    /// A capture runs, and takes requests.
    pub(super) fn listen(&self) {
        self.lock().has_capture = true;
    }

    /// Whether one waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.lock().backfills.is_empty()
    }

    /// The first that waits; it waits until it is [done](Self::done).
    pub(super) fn first(&self) -> Option<BackfillRequest> {
        self.lock().backfills.front().cloned()
    }

    /// The first that waited is begun, or can't be.
    pub(super) fn done(&self) {
        self.lock().backfills.pop_front();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_until_it_is_begun() {
        let requests = Requests::default();
        assert!(!requests.backfill(BackfillRequest::default()), "nobody listens");
        requests.listen();
        assert!(requests.clone().backfill(BackfillRequest { filter: Some("id > 1".into()), ..Default::default() }));
        assert!(requests.is_waiting());
        assert_eq!(requests.first().and_then(|request| request.filter), Some("id > 1".into()));
        assert!(requests.is_waiting());
        requests.done();
        assert!(!requests.is_waiting() && requests.first().is_none());
    }
}
