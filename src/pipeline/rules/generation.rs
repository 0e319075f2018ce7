//! One revision at work in a process: its configuration, and its lookups, kept fresh for as long as a loop goes by it.

use crate::config::Config;
use crate::merge::TableRules;
use std::sync::Arc;
use tokio::task::JoinSet;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::pipeline) struct Generation {
    /// The revision's number; 0: the file's rules, as long as there are no revisions.
    pub(in crate::pipeline) revision: u64,
    /// The configuration with its rules.
    pub(in crate::pipeline) config: Arc<Config>,
    /// The rules of the source's tables in the lake.
    pub(in crate::pipeline) tables: Arc<TableRules>,
    /// Stops when the last loop has gone over to other rules.
    pub(super) _lookups: JoinSet<()>,
}
