//! Whether others work on a pipeline: a lease that has an owner and moves.

use crate::error::Result;
use crate::state::{Lease, LeaseKey, StateStore, WorkerId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// Whether somebody works by a lease whose key begins so and that `counts`: `None` at once where none has an owner, else when none has been renewed for
/// `duration`.
pub(in crate::pipeline) async fn at_work(
    state: &StateStore,
    prefixes: &[String],
    duration: Duration,
    counts: impl Fn(&Lease) -> bool,
) -> Result<Option<WorkerId>> {
    let mut known: BTreeMap<LeaseKey, u64> = BTreeMap::new();
    let began = Instant::now();
    let mut is_first = true;
    loop {
        let mut is_owned = false;
        for prefix in prefixes {
            for lease in state.leases(prefix).await?.into_iter().filter(|lease| counts(lease)) {
                let Some(owner) = lease.owner.filter(|owner| !is_gone(owner)) else { continue };
                is_owned = true;
                if !is_first && known.get(&lease.key) != Some(&lease.counter) {
                    return Ok(Some(owner));
                }
                known.insert(lease.key, lease.counter);
            }
        }
        if !is_owned || began.elapsed() > duration {
            return Ok(None);
        }
        is_first = false;
        tokio::time::sleep((duration / 4).min(LONGEST_LOOK)).await;
    }
}

/// Whether a worker was a process of this machine that is no more; of others nothing is known.
fn is_gone(worker: &WorkerId) -> bool {
    let mut parts = worker.0.rsplitn(3, ':').skip(1);
    let (Some(process), Some(host)) = (parts.next().and_then(|number| number.parse::<u32>().ok()), parts.next()) else {
        return false;
    };
    // in a container each life of a service may have the same number
    let is_ours = process == std::process::id();
    host == super::host() && (is_ours || !std::path::Path::new(&format!("/proc/{process}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{StateConfig, StateUrl};

    #[tokio::test(start_paused = true)]
    async fn who_renews_is_at_work_and_who_is_gone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = StateConfig { url: StateUrl::Sqlite(folder.path().join("state.db")), ..Default::default() };
        let state = StateStore::open(&config).await.unwrap();
        let duration = Duration::from_secs(10);
        let look = async || at_work(&state, &["p/".into()], duration, |_| true).await.unwrap();
        assert_eq!(look().await, None);
        let other = WorkerId("elsewhere:1:0".into());
        let mut lease = Lease::new(LeaseKey("p/table/s.t".into())).taken_by(&other);
        state.create_lease(&lease).await.unwrap();
        assert_eq!(look().await, None, "it stands still");
        let renewing = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let renewed = lease.clone().renewed();
                assert!(state.update_lease(&renewed, lease.counter).await.unwrap());
                lease = renewed;
            }
        };
        let found = tokio::select! { found = look() => found, () = renewing => unreachable!() };
        assert_eq!(found, Some(other));
        // a former life of ours, and a process that can't be: nobody waits for these
        for process in [std::process::id(), u32::MAX] {
            assert!(is_gone(&WorkerId(format!("{}:{process}:ab", super::super::host()))));
            assert!(!is_gone(&WorkerId(format!("elsewhere:{process}:ab"))));
        }
        assert!(!is_gone(&WorkerId(format!("{}:1:ab", super::super::host()))));
    }
}
