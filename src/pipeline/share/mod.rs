//! Sharing a pipeline's tables among several `binlake merge`, and the capture's lead among several `binlake capture`: by leases in the state store.
//!
//! **Each table has a lease.** Who holds it applies the table; all workers read the whole stream and pass over what isn't theirs. The lease
//! only keeps workers from doing the same twice: what the table has is in its commits, and its fence log decides who may commit. A worker that was
//! paused for long, or was cut off from the store, goes on until the fence turns it away; then it lets go of that table alone.
//!
//! **What a lease says about the stream.** `checkpoint` is the table's need: all that its last commit lacks comes after it. A commit's own
//! `resume` is the lowest of all needs in the pipeline, as far as its writer knows them, and a need only rises: so from the lowest `resume` in the lake
//! everything can be read again that any table lacks, also if the state store is lost. `committedCheckpoint` is that `resume`; the lowest
//! of them is what the stream may release.
//!
//! **A table that has no lease yet** is noticed by whoever reads past its first section. The reader stands still until the lease is there, with the
//! last cut before that section as its need, and commits nothing meanwhile. So no worker's need can pass a table that nobody knows.
//!
//! **Tables that join each other** ([`together`]) go to one worker: the first of them is shared out, the others follow it.
//!
//! **Handing over.** A worker that has fewer than its part asks for a table: it becomes the owner at once, the one before it (`checkpointOwner`)
//! commits what waits, and says so. If it doesn't within [`keeper`]'s patience, the new owner begins all the same.

mod alone;
mod keeper;
mod lead;
mod need;
mod together;

pub(super) use alone::at_work;
pub(super) use keeper::{Keeper, NamedTables, ShareRules, is_seat, seat_key};
pub(super) use lead::Lead;
pub(super) use need::Need;

use crate::event::TableId;
use crate::merge::Resume;
use crate::state::WorkerId;
use crate::stream::EventLog;
use crate::table::Lake;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, watch};

/// What one worker is to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Assignment {
    /// Whether the leases have been read at all.
    pub(super) is_read: bool,
    /// Tables to apply, and where the stream must be read from for each.
    pub(super) apply: BTreeMap<TableId, Need>,
    /// Tables to commit and let go of: another waits for them.
    pub(super) leave: BTreeSet<TableId>,
    /// All tables that have leases.
    pub(super) known: BTreeSet<TableId>,
    /// The lowest need of the tables that aren't this worker's; `None`: there are none.
    pub(super) others: Option<Need>,
    /// What all tables' last commits have behind them; `None`: nothing may be released.
    pub(super) releasable: Option<Resume>,
}

/// What the apply loop tells the keeper of the leases.
#[derive(Debug)]
pub(super) enum Note {
    /// A table that has no lease, as far as is known, and its need.
    Seen { table: TableId, need: Need, is_ours: bool },
    /// A table's commit is durable.
    Committed { table: TableId, need: Need, committed: Need },
    /// A table that was to be left is committed.
    Left(TableId),
    /// Another writer has the table.
    Lost(TableId),
    /// The table went by other rules, and has all up to that cut: nobody needs a lease for it.
    Ended(TableId),
    /// The worker ends: all is given back.
    Close,
}

/// The apply loop's hold on the leases.
#[derive(Debug, Clone)]
pub(super) struct Share {
    assignment: watch::Receiver<Assignment>,
    notes: mpsc::UnboundedSender<Note>,
}

impl Share {
    /// The assignment as it is now; it counts as seen.
    pub(super) fn assignment(&mut self) -> Assignment {
        self.assignment.borrow_and_update().clone()
    }

    /// Resolves when the assignment has changed since it was last seen. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.assignment.changed().await.is_err() {
            // the keeper ends after the apply loop, or by a panic, which its task tells
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn note(&self, note: Note) {
        // without a keeper nothing changes any more
        let _ = self.notes.send(note);
    }
}

/// What the keys of a pipeline's leases begin with: leases are for one stream and one lake.
pub(super) fn pipeline_name(log: &dyn EventLog, lake: &Lake) -> String {
    format!("{}>{}", log.identity().stream_id, lake.url())
}

/// This process, as the leases name it.
pub(super) fn worker_id() -> WorkerId {
    let (unique, ..) = uuid::Uuid::new_v4().as_fields();
    WorkerId(format!("{}:{}:{unique:08x}", host(), std::process::id()))
}

/// This machine's name.
pub(super) fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if host.trim().is_empty() { "unknown".to_owned() } else { host.trim().to_owned() }
}
