//! How long records waited until the stream had them: counts by eighths of a doubling.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From 0.1 ms on, eight to a doubling, up to some three minutes.
const BUCKETS: usize = 168;
const LEAST_SECONDS: f64 = 1e-4;

/// A histogram of durations, filled by many at once.
#[derive(Debug)]
pub struct Latencies(Box<[AtomicU64]>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Latencies {
    /// Counts one.
    pub(super) fn add(&self, latency: Duration) {
        let bucket = ((latency.as_secs_f64() / LEAST_SECONDS).log2() * 8.0).ceil().max(0.0) as usize;
        if let Some(count) = self.0.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The time within which `share` (0 to 1) of all came, at most a twelfth too large; `None`: there were none.
    pub fn within(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut sum = 0;
        let bucket = counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        })?;
        Some(Duration::from_secs_f64(LEAST_SECONDS * 2_f64.powf(bucket as f64 / 8.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let latencies = Latencies::default();
        assert_eq!(latencies.within(0.5), None);
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.001, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latencies.within(share).unwrap().as_secs_f64() * 1000.0;
            assert!((millis..millis * 1.1).contains(&found), "{share}: {found} ms for {millis}");
        }
        latencies.add(Duration::ZERO);
        latencies.add(Duration::from_secs(3600));
        assert!(latencies.within(1.0).unwrap() > Duration::from_secs(100));
    }
}
