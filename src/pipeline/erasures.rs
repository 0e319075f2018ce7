//! What a running service is asked to erase: requests in the state store, which whoever has the table takes up.
//!
//! A request lies in the store as a lease that nobody has, `<lake>/erase/<time>-<number>`, what is asked for and what became of it as its checkpoint. It outlives both
//! who asked and who does it: one that was begun by a process that is gone is done again by the table's next owner, which changes nothing where it was done. Who
//! asked removes it once it is answered; what nobody fetches is removed after an hour. The keys are in the store until it is done.

use super::erase::Erased;
use super::share::worker_id;
use super::status::Status;
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::state::{Lease, LeaseKey, StateStore};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often a service looks whether it is asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often who asked looks for the answer.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);
/// How long an answer waits for whoever asked.
const ANSWER_KEPT: Duration = Duration::from_secs(3600);

/// Keys to be erased from a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseRequest {
    /// The table.
    pub table: TableId,
    /// The keys, as they were written; none once it is answered.
    pub keys: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub key_count: usize,
    /// When it was asked for: what the source had committed by then goes first.
    pub asked_at: Timestamp,
    /// What became of it.
    pub progress: EraseProgress,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EraseProgress {
    /// Nobody has seen it.
    Waiting,
    /// This process has the table, and does it.
    Taken {
        /// The process.
        by: String,
        /// Steps that are done, of [`STEPS`](super::ERASE_STEPS).
        steps: u64,
        /// What it waits for; `None`: for nothing, or not for long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
    /// It is done, and written down in the audit.
    Done {
        /// What was erased.
        erased: Erased,
    },
    /// It can't be done.
    Failed {
        /// Why.
        reason: String,
    },
}

impl EraseProgress {
    fn is_over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}

/// A request as `/status` shows it: never which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenErasure {
    /// The table.
    pub table: TableId,
    /// How many keys.
    pub key_count: usize,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// What became of it.
    pub progress: EraseProgress,
}

/// Most bytes of a request: what a state store takes in one row.
const MOST_BYTES: usize = 300 << 10;

fn prefix(lake_url: &str) -> String {
    format!("{}/erase/", lake_url.trim_end_matches('/'))
}

fn encoded(request: &EraseRequest) -> Result<String> {
    serde_json::to_string(request).map_err(|error| Error::bug("a request can't be written").caused_by(error))
}

/// A request that was made, as whoever made it sees it.
#[derive(Debug)]
pub struct Asked {
    state: StateStore,
    key: LeaseKey,
}

impl Asked {
    /// Asks the services of the lake at `lake_url`.
    ///
    /// # Errors
    /// If the state store can't take it.
    pub async fn ask(state: &StateStore, lake_url: &str, table: &TableId, keys: &[String]) -> Result<Self> {
        let asked_at = Timestamp::now();
        let (keys, key_count) = (keys.to_vec(), keys.len());
        let request = EraseRequest { table: table.clone(), keys, key_count, asked_at, progress: EraseProgress::Waiting };
        let number = uuid::Uuid::new_v4().simple();
        let mut lease = Lease::new(LeaseKey(format!("{}{:016}-{number}", prefix(lake_url), asked_at.as_micros())));
        lease.checkpoint = encoded(&request)?;
        if lease.checkpoint.len() > MOST_BYTES {
            return Err(Error::config("these are too many keys for one request")
                .with("table", table)
                .with("keys", key_count)
                .remedy("ask for them in several requests"));
        }
        state.create_lease(&lease).await?;
        Ok(Self { state: state.clone(), key: lease.key })
    }

    async fn read(&self) -> Result<Option<(Lease, EraseProgress)>> {
        let found = self.state.leases(&self.key.0).await?.into_iter().find(|lease| lease.key == self.key);
        let Some(lease) = found else { return Ok(None) };
        let request: EraseRequest = serde_json::from_str(&lease.checkpoint).map_err(|error| {
            Error::new(Area::Config, Kind::Corrupt, "a request in the state store can't be read").caused_by(error)
        })?;
        Ok(Some((lease, request.progress)))
    }

    /// Waits until a service has taken it, or `patience` is over: then it is withdrawn. Says whether one has.
    ///
    /// # Errors
    /// If the state store can't be read.
    pub async fn is_taken_within(&self, patience: Duration) -> Result<bool> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            match self.read().await? {
                Some((lease, EraseProgress::Waiting)) if tokio::time::Instant::now() >= until => {
                    // who takes it at this very moment wins
                    if self.state.delete_lease(&self.key, lease.counter).await? {
                        self.state.forget_removed().await?;
                        return Ok(false);
                    }
                }
                Some((_, EraseProgress::Waiting)) => tokio::time::sleep(ANSWER_INTERVAL).await,
                Some(_) => return Ok(true),
                None => return Ok(false),
            }
        }
    }

    /// Waits for the answer; tells `on_steps` how many steps are done, and what the next one waits for.
    ///
    /// # Errors
    /// `Refused` with what the service says, if it can't be done.
    pub async fn answer(self, on_steps: impl Fn(u64, Option<&str>)) -> Result<Erased> {
        let gone = || Error::new(Area::Config, Kind::Refused, "the request is gone from the state store");
        loop {
            let (lease, progress) = self.read().await?.ok_or_else(gone)?;
            let outcome = match progress {
                EraseProgress::Waiting => Err((0, None)),
                EraseProgress::Taken { steps, waits, .. } => Err((steps, waits)),
                EraseProgress::Done { erased } => Ok(Ok(erased)),
                EraseProgress::Failed { reason } => Ok(Err(Error::new(Area::Lake, Kind::Refused, "the service can't erase it")
                    .caused_by(std::io::Error::other(reason))
                    .remedy("ask again then"))),
            };
            match outcome {
                Err((steps, waits)) => {
                    on_steps(steps, waits.as_deref());
                    tokio::time::sleep(ANSWER_INTERVAL).await;
                }
                Ok(outcome) => {
                    self.state.delete_lease(&self.key, lease.counter).await?;
                    return outcome;
                }
            }
        }
    }
}

/// The requests that a service sees. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Erasures {
    state: StateStore,
    open: watch::Receiver<Arc<Vec<OpenRequest>>>,
    /// This process.
    me: Arc<str>,
}

/// A request that isn't answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenRequest {
    pub(super) key: LeaseKey,
    pub(super) request: EraseRequest,
}

impl Erasures {
    /// Looks for requests to the lake at `lake_url`, until the handle is aborted; `status` shows them.
    pub(super) fn look(state: &StateStore, lake_url: &str, status: &Status) -> (Self, JoinHandle<()>) {
        let (sender, open) = watch::channel(Arc::default());
        let (looked, prefix, status) = (state.clone(), prefix(lake_url), status.clone());
        let looking = tokio::spawn(async move {
            loop {
                match open_requests(&looked, &prefix).await {
                    Ok((found, seen)) => {
                        status.erasures(seen);
                        sender.send_if_modified(|known| {
                            let is_new = **known != found;
                            if is_new {
                                *known = Arc::new(found);
                            }
                            is_new
                        });
                    }
                    Err(error) => tracing::warn!(%error, "requests to erase can't be looked for"),
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
        (Self { state: state.clone(), open, me: worker_id().0.into() }, looking)
    }

    /// Those that are open.
    pub(super) fn open(&self) -> Arc<Vec<OpenRequest>> {
        self.open.borrow().clone()
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
        self.note(open, EraseProgress::Taken { by: self.me.to_string(), steps, waits: None }).await;
    }

    /// This process will do it, and waits for something.
    pub(super) async fn waits(&self, open: &OpenRequest, waits: String) {
        self.note(open, EraseProgress::Taken { by: self.me.to_string(), steps: 0, waits: Some(waits) }).await;
    }

    /// It is answered.
    pub(super) async fn answered(&self, open: &OpenRequest, progress: EraseProgress) {
        self.note(open, progress).await;
    }

    pub(super) fn state(&self) -> &StateStore {
        &self.state
    }

    async fn note(&self, open: &OpenRequest, progress: EraseProgress) {
        let noted = async {
            let Some(lease) = self.state.leases(&open.key.0).await?.into_iter().find(|lease| lease.key == open.key) else {
                // whoever asked has withdrawn it
                return Ok(());
            };
            let expected = lease.counter;
            let mut lease = lease.renewed();
            let known = serde_json::from_str::<EraseRequest>(&lease.checkpoint);
            if known.is_ok_and(|known| known.progress.is_over()) {
                return Ok(());
            }
            let is_over = progress.is_over();
            let keys = if is_over { Vec::new() } else { open.request.keys.clone() };
            lease.checkpoint = encoded(&EraseRequest { progress, keys, ..open.request.clone() })?;
            self.state.update_lease(&lease, expected).await?;
            // the keys don't stay
            if is_over { self.state.forget_removed().await } else { Ok(()) }
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "what became of a request to erase can't be written down");
        }
    }
}

/// Those that are open, and all that there are.
async fn open_requests(state: &StateStore, prefix: &str) -> Result<(Vec<OpenRequest>, Vec<SeenErasure>)> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for lease in state.leases(prefix).await? {
        let request: EraseRequest = match serde_json::from_str(&lease.checkpoint) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(key = %lease.key, %error, "a request in the state store can't be read");
                continue;
            }
        };
        seen.push(SeenErasure {
            table: request.table.clone(),
            key_count: request.key_count,
            asked_at: request.asked_at,
            progress: request.progress.clone(),
        });
        match request.progress {
            EraseProgress::Waiting | EraseProgress::Taken { .. } => {
                // what was taken since is not news
                let request = EraseRequest { progress: EraseProgress::Waiting, ..request };
                open.push(OpenRequest { key: lease.key, request });
            }
            EraseProgress::Done { .. } | EraseProgress::Failed { .. } => {
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
        let asked = Asked::ask(&state, "file:/lake/", &table(), &["a person".to_owned()]).await.unwrap();
        let status = Status::new();
        let (mut erasures, looking) = Erasures::look(&state, "file:/lake", &status);
        while erasures.open().is_empty() {
            erasures.changed().await;
        }
        let open = erasures.open()[0].clone();
        assert_eq!((&open.request.table, open.request.keys.as_slice()), (&table(), &["a person".to_owned()][..]));
        erasures.taken(&open, 0).await;
        assert!(asked.is_taken_within(Duration::ZERO).await.unwrap());
        let erased = Erased { rows: 3, ..Erased::default() };
        erasures.answered(&open, EraseProgress::Done { erased: erased.clone() }).await;
        erasures.waits(&open, "for what was on its way when it was done".into()).await;
        let (open, seen) = open_requests(&state, &prefix("file:/lake")).await.unwrap();
        let done = EraseProgress::Done { erased: erased.clone() };
        assert_eq!((open.len(), seen[0].key_count, &seen[0].progress), (0, 1, &done));
        assert!(!state.leases("").await.unwrap()[0].checkpoint.contains("a person"), "the keys aren't kept");
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|bytes| bytes == b"a person"), "{} has it still", path.display());
        }
        assert_eq!(asked.answer(|_, _| {}).await.unwrap(), erased);
        assert!(state.leases("").await.unwrap().is_empty(), "nothing of it stays");
        looking.abort();
    }

    #[tokio::test]
    async fn one_that_nobody_takes_is_withdrawn_and_a_failure_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(&folder).await;
        let asked = Asked::ask(&state, "file:/lake", &table(), &[]).await.unwrap();
        assert!(!asked.is_taken_within(Duration::ZERO).await.unwrap());
        assert!(state.leases("").await.unwrap().is_empty());
        let asked = Asked::ask(&state, "file:/lake", &table(), &[]).await.unwrap();
        let open = open_requests(&state, &prefix("file:/lake")).await.unwrap().0.remove(0);
        assert!(open_requests(&state, &prefix("file:/another")).await.unwrap().1.is_empty());
        let (erasures, looking) = Erasures::look(&state, "file:/lake", &Status::new());
        erasures.answered(&open, EraseProgress::Failed { reason: "`x` is no key".into() }).await;
        let error = asked.answer(|_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("`x` is no key"), "{error}");
        looking.abort();
    }
}
