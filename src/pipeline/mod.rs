//! Running it: the capture loop, the apply loop, backfill, supervision.

mod status;

pub use status::{CaptureState, CommittedRows, LastCommit, Status, StatusView, TableStage, TableStatus};
