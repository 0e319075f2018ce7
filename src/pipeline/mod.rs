//! Running it: the capture loop, the apply loop, backfill, supervision.

mod apply;
mod status;
mod supervise;

pub use apply::{AppliedCommit, Apply, ApplyConfig, Cadence, LakeWriter};
pub use status::{CaptureState, CommittedRows, LastCommit, Status, StatusView, TableStage, TableStatus};
