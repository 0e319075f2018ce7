//! What a running service is asked to do to a table beside its changes: requests in the state store, which whoever has the table takes up.
//!
//! A request lies in the store as a lease that nobody has, `<lake>/asked/<time>-<number>`, what is asked for and what became of it as its checkpoint. It outlives both
//! who asked and who does it: one that was begun by a process that is gone is done again by the table's next owner, which changes nothing where it was done. Who
//! asked removes it once it is answered; what nobody fetches is removed after an hour. Keys that are to be erased are in the store until that is done.

use super::erase::Erased;
use super::maintenance::{Maintained, Maintenance};
use super::share::worker_id;
use super::status::Status;
use crate::error::{Area, Error, Result};
use crate::event::TableId;
use crate::state::{LeaseKey, RunLabel, StateStore};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often a service looks whether it is asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer waits for whoever asked.
const ANSWER_KEPT: Duration = Duration::from_secs(3600);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Keys are to be erased.
    Erase {
        /// The keys, as they were written; none once it is answered.
        keys: Vec<String>,
        /// How many there are.
        key_count: usize,
    },
    /// Anything else.
    Maintain {
        /// What.
        maintenance: Maintenance,
    },
}

impl Work {
    /// Keys are to be erased.
    pub fn erase(keys: &[String]) -> Self {
        Self::Erase { keys: keys.to_vec(), key_count: keys.len() }
    }

    /// Keys that must not stay where it is written down.
    fn without_keys(&self) -> Self {
        match self {
            Self::Erase { key_count, .. } => Self::Erase { keys: Vec::new(), key_count: *key_count },
            other @ Self::Maintain { .. } => other.clone(),
        }
    }

    /// How many steps it has.
    pub fn steps(&self) -> u64 {
        match self {
            Self::Erase { .. } => super::ERASE_STEPS,
            Self::Maintain { .. } => 1,
        }
    }
}

/// Work on a table that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRequest {
    /// The table.
    pub table: TableId,
    /// What.
    pub work: Work,
    /// When it was asked for: what the source had committed by then goes before an erasure.
    pub asked_at: Timestamp,
    /// What became of it.
    pub progress: RequestProgress,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// Keys were erased.
    Erased(Erased),
    /// Anything else.
    Maintained(Maintained),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RequestProgress {
    /// Nobody has seen it.
    Waiting,
    /// This process has the table, and does it.
    Taken {
        /// The process.
        by: String,
        /// Steps that are done, of [`Work::steps`].
        steps: u64,
        /// What it waits for; `None`: for nothing, or not for long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
    /// It is done, and written down in the audit.
    Done {
        /// What was done.
        done: Done,
    },
    /// It can't be done.
    Failed {
        /// Where that lies.
        #[serde(default)]
        area: Area,
        /// Why.
        reason: String,
    },
}

impl RequestProgress {
    fn is_over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}

/// A request as `/status` shows it: never which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// The table.
    pub table: TableId,
    /// What, without keys.
    pub work: Work,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// What became of it.
    pub progress: RequestProgress,
}

pub(super) fn prefix(lake_url: &str) -> String {
    format!("{}/asked/", lake_url.trim_end_matches('/'))
}

pub(super) fn encoded(request: &TableRequest) -> Result<String> {
    serde_json::to_string(request).map_err(|error| Error::bug("a request can't be written").caused_by(error))
}

/// The requests that a service sees. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct TableRequests {
    state: StateStore,
    open: watch::Receiver<Arc<Vec<OpenRequest>>>,
    /// Those that this process has answered: the others' list is a second old.
    answered: Arc<Mutex<BTreeSet<LeaseKey>>>,
    /// This process.
    me: Arc<str>,
    /// The pipeline's name in the audit.
    audited_as: Arc<str>,
}

/// A request that isn't answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenRequest {
    pub(super) key: LeaseKey,
    pub(super) request: TableRequest,
}

impl TableRequests {
    /// Looks for requests to the lake at `lake_url`, until the handle is aborted; `status` shows them.
    pub(super) fn look(state: &StateStore, lake_url: &str, audited_as: &str, status: &Status) -> (Self, JoinHandle<()>) {
        let (sender, open) = watch::channel(Arc::default());
        let (looked, prefix, status) = (state.clone(), prefix(lake_url), status.clone());
        let looking = tokio::spawn(async move {
            loop {
                match open_requests(&looked, &prefix).await {
                    Ok((found, seen)) => {
                        status.asked(seen);
                        sender.send_if_modified(|known| {
                            let is_new = **known != found;
                            if is_new {
                                *known = Arc::new(found);
                            }
                            is_new
                        });
                    }
                    Err(error) => tracing::warn!(%error, "requests can't be looked for"),
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
        (
            Self { state: state.clone(), open, answered: Arc::default(), me: worker_id().0.into(), audited_as: audited_as.into() },
            looking,
        )
    }

    /// Those that are open.
    pub(super) fn open(&self) -> Vec<OpenRequest> {
        let open = self.open.borrow().clone();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.retain(|key| open.iter().any(|one| one.key == *key));
        open.iter().filter(|one| !answered.contains(&one.key)).cloned().collect()
    }

    /// Resolves when there are others.
    pub(super) async fn changed(&mut self) {
        if self.open.changed().await.is_err() {
            // nobody looks any more
            std::future::pending::<()>().await;
        }
    }

    /// This process does it, and has done so many steps.
    pub(super) async fn taken(&self, open: &OpenRequest, steps: u64) {
        self.note(open, RequestProgress::Taken { by: self.me.to_string(), steps, waits: None }).await;
    }

    /// This process will do it, and waits for something.
    pub(super) async fn waits(&self, open: &OpenRequest, waits: String) {
        self.note(open, RequestProgress::Taken { by: self.me.to_string(), steps: 0, waits: Some(waits) }).await;
    }

    /// It is answered.
    pub(super) async fn answered(&self, open: &OpenRequest, progress: RequestProgress) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(open.key.clone());
        self.note(open, progress).await;
    }

    pub(super) fn state(&self) -> &StateStore {
        &self.state
    }

    /// A run of the pipeline in the audit that does what is asked for.
    pub(super) fn run(&self, command: &'static str) -> RunLabel {
        RunLabel::begin(&self.audited_as, command)
    }

    async fn note(&self, open: &OpenRequest, progress: RequestProgress) {
        let noted = async {
            let Some(lease) = self.state.leases(&open.key.0).await?.into_iter().find(|lease| lease.key == open.key) else {
                // whoever asked has withdrawn it
                return Ok(());
            };
            let expected = lease.counter;
            let mut lease = lease.renewed();
            let known = serde_json::from_str::<TableRequest>(&lease.checkpoint);
            if known.is_ok_and(|known| known.progress.is_over()) {
                return Ok(());
            }
            let is_over = progress.is_over();
            let work = if is_over { open.request.work.without_keys() } else { open.request.work.clone() };
            lease.checkpoint = encoded(&TableRequest { progress, work, ..open.request.clone() })?;
            self.state.update_lease(&lease, expected).await?;
            // the keys don't stay
            if is_over { self.state.forget_removed().await } else { Ok(()) }
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "what became of a request can't be written down");
        }
    }
}

/// Those that are open, and all that there are.
async fn open_requests(state: &StateStore, prefix: &str) -> Result<(Vec<OpenRequest>, Vec<SeenRequest>)> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for lease in state.leases(prefix).await? {
        let request: TableRequest = match serde_json::from_str(&lease.checkpoint) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(key = %lease.key, %error, "a request in the state store can't be read");
                continue;
            }
        };
        seen.push(SeenRequest {
            table: request.table.clone(),
            work: request.work.without_keys(),
            asked_at: request.asked_at,
            progress: request.progress.clone(),
        });
        match request.progress {
            RequestProgress::Waiting | RequestProgress::Taken { .. } => {
                // what was taken since is not news
                let request = TableRequest { progress: RequestProgress::Waiting, ..request };
                open.push(OpenRequest { key: lease.key, request });
            }
            RequestProgress::Done { .. } | RequestProgress::Failed { .. } => {
                if Timestamp::now().since(request.asked_at) > ANSWER_KEPT {
                    state.delete_lease(&lease.key, lease.counter).await?;
                }
            }
        }
    }
    Ok((open, seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Asked;
    use crate::state::{StateConfig, StateUrl};

    async fn state(folder: &tempfile::TempDir) -> StateStore {
        let config = StateConfig { url: StateUrl::Sqlite(folder.path().join("state.db")), ..Default::default() };
        StateStore::open(&config).await.unwrap()
    }

    fn table() -> TableId {
        "shop.people".parse().unwrap()
    }

    #[tokio::test]
    async fn a_request_is_taken_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(&folder).await;
        let asked = Asked::ask(&state, "file:/lake/", &table(), Work::erase(&["a person".to_owned()])).await.unwrap();
        let status = Status::new();
        let (mut erasures, looking) = TableRequests::look(&state, "file:/lake", "the stream", &status);
        while erasures.open().is_empty() {
            erasures.changed().await;
        }
        let open = erasures.open()[0].clone();
        assert_eq!((&open.request.table, &open.request.work), (&table(), &Work::erase(&["a person".to_owned()])));
        erasures.taken(&open, 0).await;
        assert!(asked.is_taken_within(Duration::ZERO).await.unwrap());
        let done = Done::Erased(Erased { rows: 3, ..Erased::default() });
        erasures.answered(&open, RequestProgress::Done { done: done.clone() }).await;
        erasures.waits(&open, "for what was on its way when it was done".into()).await;
        let (open, seen) = open_requests(&state, &prefix("file:/lake")).await.unwrap();
        let said = RequestProgress::Done { done: done.clone() };
        let without = Work::Erase { keys: Vec::new(), key_count: 1 };
        assert_eq!((open.len(), &seen[0].work, &seen[0].progress), (0, &without, &said));
        assert!(!state.leases("").await.unwrap()[0].checkpoint.contains("a person"), "the keys aren't kept");
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|bytes| bytes == b"a person"), "{} has it still", path.display());
        }
        assert_eq!(asked.answer(|_, _| {}).await.unwrap(), done);
        assert!(state.leases("").await.unwrap().is_empty(), "nothing of it stays");
        looking.abort();
    }

    #[tokio::test]
    async fn one_that_nobody_takes_is_withdrawn_and_a_failure_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(&folder).await;
        let asked = Asked::ask(&state, "file:/lake", &table(), Work::erase(&[])).await.unwrap();
        assert!(!asked.is_taken_within(Duration::ZERO).await.unwrap());
        assert!(state.leases("").await.unwrap().is_empty());
        let asked = Asked::ask(&state, "file:/lake", &table(), Work::erase(&[])).await.unwrap();
        let open = open_requests(&state, &prefix("file:/lake")).await.unwrap().0.remove(0);
        assert!(open_requests(&state, &prefix("file:/another")).await.unwrap().1.is_empty());
        let (erasures, looking) = TableRequests::look(&state, "file:/lake", "the stream", &Status::new());
        erasures.answered(&open, RequestProgress::Failed { area: Area::Config, reason: "`x` is no key".into() }).await;
        let error = asked.answer(|_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("`x` is no key") && error.exit_code() == 2, "{error}");
        looking.abort();
    }
}
