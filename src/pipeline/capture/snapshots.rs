//! Snapshots under way: their events, and their end.

use crate::error::{Error, Result};
use crate::source::{Snapshot, SnapshotEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events that may wait.
const WAITING_EVENTS: usize = 8;

/// A snapshot whose readers run. Dropping it stops them.
#[derive(Debug)]
pub struct Snapshots {
    events: mpsc::Receiver<SnapshotEvent>,
    task: JoinHandle<Result<()>>,
}

impl Snapshots {
    /// Starts the readers of a snapshot whose point is taken.
    pub fn start(snapshot: Snapshot) -> Self {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        Self { events, task: tokio::spawn(snapshot.run(sender)) }
    }

    /// The next event; `None`: all was read. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<SnapshotEvent>> {
        if let Some(event) = self.events.recv().await {
            return Ok(Some(event));
        }
        (&mut self.task).await.map_err(|error| Error::bug("the snapshot ended unexpectedly").caused_by(error))??;
        Ok(None)
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.task.abort();
    }
}
