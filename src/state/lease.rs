//! A lease: who works on what, as the store has it.
//!
//! Names and meaning are those of the Kinesis Client Library's lease table (2.x; `checkpointOwner` as in 3.x), so that who knows one can
//! read the other. What is ours: the key names a table or a role instead of a shard, and `committedCheckpoint`.

use std::fmt;

/// What a lease is about: `<pipeline>/table/shop.orders`, `<stream>/capture`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(pub String);

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process that takes leases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From the stream's beginning, as the library calls it.
pub const TRIM_HORIZON: &str = "TRIM_HORIZON";

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// `leaseKey`.
    pub key: LeaseKey,
    /// `leaseOwner`; `None`: nobody, it is free.
    pub owner: Option<WorkerId>,
    /// `leaseCounter`: rises with every write. One that doesn't move for the lease's duration, by the observer's own clock, is free.
    pub counter: u64,
    /// `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: u64,
    /// `checkpoint`: from where on the stream is needed for it, or [`TRIM_HORIZON`].
    pub checkpoint: String,
    /// `committedCheckpoint`: from where on the stream must be kept should this store be lost; `None`: as `checkpoint`.
    pub committed_checkpoint: Option<String>,
    /// `checkpointOwner`: who had it before and still finishes; the owner begins when it is gone.
    pub checkpoint_owner: Option<WorkerId>,
}

impl Lease {
    /// A lease that nobody has had.
    pub fn new(key: LeaseKey) -> Self {
        Self {
            key,
            owner: None,
            counter: 0,
            owner_switches: 0,
            checkpoint: TRIM_HORIZON.to_owned(),
            committed_checkpoint: None,
            checkpoint_owner: None,
        }
    }

    /// Whether `worker` has it and may work on it.
    pub fn is_worked_by(&self, worker: &WorkerId) -> bool {
        self.owner.as_ref() == Some(worker) && self.checkpoint_owner.is_none()
    }

    /// The same, renewed: the counter has moved.
    #[must_use]
    pub fn renewed(mut self) -> Self {
        self.counter += 1;
        self
    }

    /// The same, taken by `worker` from nobody or from one that is gone.
    #[must_use]
    pub fn taken_by(mut self, worker: &WorkerId) -> Self {
        if self.owner.as_ref() != Some(worker) {
            self.owner_switches += 1;
        }
        self.owner = Some(worker.clone());
        // who still finishes may do so
        self.checkpoint_owner = self.checkpoint_owner.filter(|before| before != worker);
        self.renewed()
    }

    /// The same, asked of its owner by `worker`, who becomes the owner at once and begins when the other has finished.
    #[must_use]
    pub fn asked_by(mut self, worker: &WorkerId) -> Self {
        let before = self.owner.take();
        self = self.taken_by(worker);
        self.checkpoint_owner = before;
        self
    }

    /// The same, given back.
    #[must_use]
    pub fn given_back(mut self) -> Self {
        self.owner = None;
        self.checkpoint_owner = None;
        self.renewed()
    }

    /// The same after `checkpointOwner` has finished.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.checkpoint_owner = None;
        self.renewed()
    }
}
