//! What a running service is asked for from outside: noted in the state store by the admin interface, taken up by the capture at its next cut.
//!
//! Who was answered "accepted" can rely on it: a request is durable before the answer, and it is removed when the first cut with its snapshot is durable, which
//! then goes on by itself after a crash. A crash between the two does it twice, which costs time and changes nothing. It lies in the
//! store as a lease that nobody has: `<stream>/request/<time>-<number>`, what is asked for as its checkpoint.

use super::capture::BackfillRequest;
use crate::error::{Error, Result};
use crate::state::{Lease, LeaseKey, StateStore};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that wait; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    inner: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    backfills: VecDeque<(LeaseKey, BackfillRequest)>,
    /// Those whose snapshots have begun, or can't begin: to be removed from the store.
    begun: Vec<LeaseKey>,
    /// Whether other rules are asked for; they lie in the state store.
    rules: bool,
    /// Where they are kept; `None`: no capture runs in this process.
    kept: Option<Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    state: StateStore,
    prefix: String,
}

impl Requests {
    /// Asks for a backfill; false where no capture runs that could do it. When this returns true, the request outlives a crash.
    ///
    /// # Errors
    /// If the state store can't take it.
    pub async fn backfill(&self, request: BackfillRequest) -> Result<bool> {
        let Some(kept) = self.lock().kept.clone() else { return Ok(false) };
        let text = serde_json::to_string(&request).map_err(|error| Error::bug("a request can't be written").caused_by(error))?;
        let number = uuid::Uuid::new_v4().simple();
        let mut lease = Lease::new(LeaseKey(format!("{}{:016}-{number}", kept.prefix, Timestamp::now().as_micros())));
        lease.checkpoint = text;
        kept.state.create_lease(&lease).await?;
        self.lock().backfills.push_back((lease.key, request));
        Ok(true)
    }

    /// A capture runs, and takes requests: also those that were left by one that is gone.
    pub(super) async fn listen(&self, state: &StateStore, stream_id: &str) -> Result<()> {
        let kept = Kept { state: state.clone(), prefix: format!("{stream_id}/request/") };
        let left = state.leases(&kept.prefix).await?;
        let mut waiting = self.lock();
        for lease in left {
            let is_known = waiting.begun.contains(&lease.key) || waiting.backfills.iter().any(|(key, _)| *key == lease.key);
            match serde_json::from_str::<BackfillRequest>(&lease.checkpoint) {
                Ok(request) if !is_known => {
                    tracing::info!(tables = ?request.tables, "a backfill that was asked for before waits");
                    waiting.backfills.push_back((lease.key, request));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(key = %lease.key, %error, "a request in the state store can't be read"),
            }
        }
        waiting.kept = Some(kept);
        Ok(())
    }

    /// No capture runs any more in this process: what waits is the next one's, wherever that is.
    pub(super) fn close(&self) {
        *self.lock() = Waiting::default();
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        let waiting = self.lock();
        waiting.rules || !waiting.backfills.is_empty()
    }

    /// Other rules wait in the state store.
    pub(super) fn ask_for_rules(&self) {
        self.lock().rules = true;
    }

    /// The rules that wait are looked at.
    pub(super) fn rules_are_read(&self) {
        self.lock().rules = false;
    }

    /// The first that waits; it waits until it is [done](Self::done).
    pub(super) fn first(&self) -> Option<BackfillRequest> {
        self.lock().backfills.front().map(|(_, request)| request.clone())
    }

    /// The first that waited is begun, or can't be.
    pub(super) fn done(&self) {
        let mut waiting = self.lock();
        if let Some((key, _)) = waiting.backfills.pop_front() {
            waiting.begun.push(key);
        }
    }

    /// Whether [`forget`](Self::forget) has something to do.
    pub(super) fn has_begun(&self) -> bool {
        !self.lock().begun.is_empty()
    }

    /// What was begun goes on by itself from now on.
    pub(super) async fn forget(&self) {
        let (begun, kept) = {
            let mut waiting = self.lock();
            (std::mem::take(&mut waiting.begun), waiting.kept.clone())
        };
        let Some(kept) = kept else { return };
        for key in begun {
            // nobody renews it
            if let Err(error) = kept.state.delete_lease(&key, 0).await {
                tracing::warn!(%error, "a request that is begun can't be removed; the next start does it once more");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{StateConfig, StateUrl};

    #[tokio::test]
    async fn a_request_waits_until_it_is_begun_also_through_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let config = StateConfig { url: StateUrl::Sqlite(folder.path().join("state.db")), ..Default::default() };
        let state = StateStore::open(&config).await.unwrap();
        let requests = Requests::default();
        assert!(!requests.backfill(BackfillRequest::default()).await.unwrap(), "nobody listens");
        requests.listen(&state, "s").await.unwrap();
        let request = |filter: &str| BackfillRequest { filter: Some(filter.into()), ..Default::default() };
        assert!(requests.clone().backfill(request("id > 1")).await.unwrap());
        assert!(requests.clone().backfill(request("id > 2")).await.unwrap());

        let after_a_crash = Requests::default();
        after_a_crash.listen(&state, "another").await.unwrap();
        assert!(!after_a_crash.is_waiting(), "of another stream");
        after_a_crash.listen(&state, "s").await.unwrap();
        assert_eq!(after_a_crash.first(), Some(request("id > 1")));
        after_a_crash.done();
        // begun, and the process dies before the first cut is durable: it is done again
        requests.listen(&state, "s").await.unwrap();
        assert_eq!(requests.first(), Some(request("id > 1")));
        after_a_crash.forget().await;
        let last = Requests::default();
        last.listen(&state, "s").await.unwrap();
        assert_eq!(last.first(), Some(request("id > 2")));
        last.done();
        assert!(last.has_begun() && !last.is_waiting());
        last.forget().await;
        assert!(!last.has_begun() && state.leases("s/").await.unwrap().is_empty());
    }
}
