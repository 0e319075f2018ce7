//! The lead of what one process of many does, while the others stand by: the capture of a source, the merge of a stream that others write.

use super::worker_id;
use crate::error::{Error, Result};
use crate::state::{Lease, LeaseKey, Observer, StateStore, TRIM_HORIZON, WorkerId};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The longest time between two looks at the lease.
const LONGEST_LOOK: Duration = Duration::from_secs(3);

/// What stands in the lease of a `binlake run`, where other leases have their checkpoint.
const RUN: &str = "run";

/// A lease on such a work.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Lead {
    state: StateStore,
    key: LeaseKey,
    /// What the leader does, for the log.
    what: &'static str,
    me: WorkerId,
    duration: Duration,
}

impl Lead {
    /// Of a capture. Nothing is taken yet. `stream` is the stream's name, the same for all who capture into it.
    pub(in crate::pipeline) fn new(state: StateStore, stream: &str, duration: Duration) -> Self {
        Self { state, key: LeaseKey(format!("{stream}/capture")), what: "captures", me: worker_id(), duration }
    }

    /// Of the merge of a stream that others write into one lake: other lakes have their own.
    pub(in crate::pipeline) fn of_feed(state: StateStore, stream: &str, lake: &str, duration: Duration) -> Self {
        Self { state, key: LeaseKey(format!("{stream}/merge/{lake}")), what: "merges", me: worker_id(), duration }
    }

    /// The lease's.
    pub(in crate::pipeline) fn key(&self) -> &LeaseKey {
        &self.key
    }

    /// Whether the lease is held by a `binlake run`.
    pub(in crate::pipeline) fn is_of_a_run(lease: &Lease) -> bool {
        lease.checkpoint == RUN
    }

    /// Takes the lead for a `binlake run`, from whoever has it: nobody who lives. Gives who was quicker; `None`: it is ours.
    pub(in crate::pipeline) async fn seize(&self) -> Result<Option<WorkerId>> {
        let found = self.read().await?;
        let mut lease = found.clone().unwrap_or_else(|| Lease::new(self.key.clone())).taken_by(&self.me);
        lease.checkpoint = RUN.to_owned();
        let is_ours = match found {
            None => self.state.create_lease(&lease).await?,
            Some(found) => self.state.update_lease(&lease, found.counter).await?,
        };
        let other = if is_ours { None } else { self.read().await?.and_then(|lease| lease.owner) };
        Ok(if is_ours { None } else { Some(other.unwrap_or_else(|| WorkerId("another".into()))) })
    }

    /// Does `work` once the lead is ours, and gives it back; where another takes it meanwhile, the work ends with what `lost` says.
    pub(in crate::pipeline) async fn work_in_turn(
        &self,
        mut stopped: watch::Receiver<bool>,
        work: impl Future<Output = Result<()>>,
        lost: impl FnOnce() -> Error,
    ) -> Result<()> {
        tokio::select! {
            taken = self.take() => taken?,
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        }
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = self.keep() => Err(lost()),
        };
        self.give_back().await;
        outcome
    }

    fn look(&self) -> Duration {
        (self.duration / 4).min(LONGEST_LOOK)
    }

    /// Waits until the lead is ours. Cancel safe: what was taken and isn't kept runs out.
    pub(in crate::pipeline) async fn take(&self) -> Result<()> {
        let mut observer = Observer::default();
        let mut known = None;
        loop {
            match self.try_take(&mut observer).await {
                Ok(None) => return Ok(()),
                Ok(Some(leader)) => {
                    if known.as_ref() != Some(&leader) {
                        tracing::info!(%leader, "standing by: another {}", self.what);
                        known = Some(leader);
                    }
                }
                Err(error) if error.is_transient() => tracing::warn!(%error, "the lead can't be looked at"),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(self.look()).await;
        }
    }

    async fn read(&self) -> Result<Option<Lease>> {
        Ok(self.state.leases(&self.key.0).await?.into_iter().find(|lease| lease.key == self.key))
    }

    /// `None`: it is ours; else who has it.
    async fn try_take(&self, observer: &mut Observer) -> Result<Option<WorkerId>> {
        let Some(lease) = self.read().await? else {
            let is_ours = self.state.create_lease(&Lease::new(self.key.clone()).taken_by(&self.me)).await?;
            return Ok((!is_ours).then(|| WorkerId("another".into())));
        };
        let now = Instant::now();
        observer.observe(std::slice::from_ref(&lease), now);
        let is_ours = lease.owner.as_ref() == Some(&self.me);
        let ours = Lease { checkpoint: TRIM_HORIZON.to_owned(), ..lease.clone().taken_by(&self.me) };
        if (is_ours || observer.is_free(&lease, now, self.duration)) && self.state.update_lease(&ours, lease.counter).await? {
            tracing::info!(from = lease.owner.as_ref().map_or("nobody", |owner| &owner.0), what = self.what, "the lead is ours");
            return Ok(None);
        }
        Ok(Some(lease.owner.unwrap_or_else(|| WorkerId("nobody".into()))))
    }

    /// Renews the lead until it is lost. While the store doesn't answer, the lead counts as ours: whoever takes it takes the next epoch.
    pub(in crate::pipeline) async fn keep(&self) {
        loop {
            tokio::time::sleep(self.look()).await;
            let kept = async {
                let Some(lease) = self.read().await? else { return Ok(false) };
                if lease.owner.as_ref() != Some(&self.me) {
                    return Ok(false);
                }
                // one that was changed meanwhile is looked at again
                self.state.update_lease(&lease.clone().renewed(), lease.counter).await.map(|_| true)
            };
            match kept.await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(what = self.what, "another has taken the lead");
                    return;
                }
                Err(error) => {
                    let error: crate::error::Error = error;
                    tracing::warn!(%error, what = self.what, "the lead can't be renewed; the work goes on");
                }
            }
        }
    }

    /// Gives the lead back: who stands by needn't wait until it runs out.
    pub(in crate::pipeline) async fn give_back(&self) {
        let given = async {
            if let Some(lease) = self.read().await?
                && lease.owner.as_ref() == Some(&self.me)
            {
                self.state.update_lease(&lease.clone().given_back(), lease.counter).await?;
            }
            Result::<()>::Ok(())
        };
        if let Err(error) = given.await {
            tracing::warn!(%error, "the lead can't be given back; who stands by takes it when it runs out");
        }
    }
}
