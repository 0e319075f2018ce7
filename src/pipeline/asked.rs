//! A request for work on a table, as whoever made it sees it: see [`TableRequest`].

use super::table_requests::{Done, RequestProgress, TableRequest, Work, encoded, prefix};
use crate::error::{Area, Error, Kind, Result};
use crate::event::TableId;
use crate::state::{Lease, LeaseKey, StateStore};
use crate::time::Timestamp;
use std::time::Duration;

/// How often who asked looks for the answer.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);

/// Most bytes of a request: what a state store takes in one row.
const MOST_BYTES: usize = 300 << 10;

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
    pub async fn ask(state: &StateStore, lake_url: &str, table: &TableId, work: Work) -> Result<Self> {
        let asked_at = Timestamp::now();
        let request = TableRequest { table: table.clone(), work, asked_at, progress: RequestProgress::Waiting };
        let number = uuid::Uuid::new_v4().simple();
        let mut lease = Lease::new(LeaseKey(format!("{}{:016}-{number}", prefix(lake_url), asked_at.as_micros())));
        lease.checkpoint = encoded(&request)?;
        if lease.checkpoint.len() > MOST_BYTES {
            return Err(Error::config("these are too many keys for one request")
                .with("table", table)
                .remedy("ask for them in several requests"));
        }
        state.create_lease(&lease).await?;
        Ok(Self { state: state.clone(), key: lease.key })
    }

    async fn read(&self) -> Result<Option<(Lease, RequestProgress)>> {
        let found = self.state.leases(&self.key.0).await?.into_iter().find(|lease| lease.key == self.key);
        let Some(lease) = found else { return Ok(None) };
        let request: TableRequest = serde_json::from_str(&lease.checkpoint).map_err(|error| {
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
                Some((lease, RequestProgress::Waiting)) if tokio::time::Instant::now() >= until => {
                    // who takes it at this very moment wins
                    if self.state.delete_lease(&self.key, lease.counter).await? {
                        self.state.forget_removed().await?;
                        return Ok(false);
                    }
                }
                Some((_, RequestProgress::Waiting)) => tokio::time::sleep(ANSWER_INTERVAL).await,
                Some(_) => return Ok(true),
                None => return Ok(false),
            }
        }
    }

    /// Waits for the answer; tells `on_steps` how many steps are done, and what the next one waits for.
    ///
    /// # Errors
    /// `Refused` with what the service says, if it can't be done.
    pub async fn answer(self, on_steps: impl Fn(u64, Option<&str>)) -> Result<Done> {
        let gone = || Error::new(Area::Config, Kind::Refused, "the request is gone from the state store");
        loop {
            let (lease, progress) = self.read().await?.ok_or_else(gone)?;
            let outcome = match progress {
                RequestProgress::Waiting => Err((0, None)),
                RequestProgress::Taken { steps, waits, .. } => Err((steps, waits)),
                RequestProgress::Done { done } => Ok(Ok(done)),
                RequestProgress::Failed { area, reason } => {
                    Ok(Err(Error::new(area, Kind::Refused, "the service can't do it").caused_by(std::io::Error::other(reason))))
                }
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
