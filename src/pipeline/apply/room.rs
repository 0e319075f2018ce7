//! Room in memory: what waits is committed where it may be, else it goes to disk.

use super::Apply;
use crate::error::Result;
use crate::event::TableId;

impl Apply {
    /// Keeps the rows that wait within their memory: by commits where that is allowed, else by moving sorted runs to disk.
    pub(super) fn make_room(&mut self, is_last: bool) -> Result<()> {
        if is_last || self.waiting_bytes() <= self.config.memory_bytes || !self.running.is_empty() {
            return Ok(());
        }
        let mut by_size: Vec<(usize, TableId)> =
            self.tables.iter().map(|(table, applied)| (applied.pending.bytes(), table.clone())).collect();
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let mut freed = 0;
        if let Some(cut) = self.last_cut.clone() {
            for (_, table) in &by_size {
                let Some(applied) = self.tables.get(table) else { continue };
                let bytes = applied.pending.bytes_up_to(cut.point);
                if freed < self.config.memory_bytes / 2 && bytes > self.config.memory_bytes / 16 && applied.has_news(&cut) {
                    freed += bytes;
                    self.start_commit(table, &cut)?;
                }
            }
        }
        let reached = self.last_cut.as_ref().map(|cut| cut.point);
        for (_, table) in by_size {
            if freed >= self.config.memory_bytes / 2 {
                break;
            }
            let Some(applied) = self.tables.get_mut(&table) else { continue };
            let spilled = may_block(|| applied.pending.spill(&self.config.spill, reached));
            match spilled {
                Ok(bytes) => {
                    metrics::counter!(crate::metrics::SPILLED_BYTES).increment(bytes as u64);
                    freed += bytes;
                }
                Err(error) => self.fail(&table, error)?,
            }
        }
        Ok(())
    }
}

/// Runs what takes long without holding up the other tasks, where the runtime has other threads.
fn may_block<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(tokio::runtime::RuntimeFlavor::MultiThread)) { tokio::task::block_in_place(work) } else { work() }
}
