//! When a table gets its next commit.
//!
//! A change that comes after a quiet time is committed at the next cut. While changes keep coming, commits are `interval` apart, further where a
//! commit costs so much that it would keep the machine busy, but never further than `longest`; and at once where the batch is large.

use std::time::Duration;

/// How often tables are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// The time between a table's commits.
    pub interval: Duration,
    /// The most time between them, whatever they cost.
    pub longest: Duration,
    /// A table with so many bytes waiting is committed at once.
    pub large_bytes: usize,
    /// A table to which nothing happens gets a commit that moves only its checkpoint, this often: else it would keep the stream from being released.
    pub checkpoint_interval: Duration,
}

/// How much longer a table waits than its last commit took.
const REST: u32 = 2;
/// How much less often the checkpoint moves if not even the source's position did.
const IDLE: u32 = 12;

impl Cadence {
    /// With commits `interval` apart, for a merge that may hold `memory_bytes`.
    pub fn new(interval: Duration, memory_bytes: usize) -> Self {
        Self {
            interval,
            longest: interval.max(Duration::from_secs(300)),
            large_bytes: memory_bytes / 4,
            checkpoint_interval: Duration::from_secs(300).max(interval * 5),
        }
    }

    /// How long after its last commit a table with `bytes` waiting is due; `last_cost` is what that commit took.
    pub(super) fn wait(&self, bytes: usize, last_cost: Duration) -> Duration {
        if bytes >= self.large_bytes {
            return Duration::ZERO;
        }
        self.interval.max(last_cost.saturating_mul(REST)).min(self.longest)
    }

    /// How long after its last commit a table with nothing waiting gets its checkpoint moved.
    pub(super) fn checkpoint_wait(&self, position_moved: bool) -> Duration {
        if position_moved { self.checkpoint_interval } else { self.checkpoint_interval.saturating_mul(IDLE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_commit_makes_the_next_wait_but_not_for_ever() {
        let cadence = Cadence::new(Duration::from_secs(10), 100 << 20);
        let seconds = Duration::from_secs;
        assert_eq!(cadence.wait(1, seconds(1)), seconds(10));
        assert_eq!(cadence.wait(1, seconds(20)), seconds(40));
        assert_eq!(cadence.wait(1, seconds(2000)), seconds(300));
        assert_eq!(cadence.wait(30 << 20, seconds(20)), seconds(0));
    }
}
