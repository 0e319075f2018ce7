//! How much a shard is given: all that there is until it throttles, then as much as it took, a little more each second, and less at each refusal.
//!
//! A shard takes 1 MB or 1,000 records a second, and an on-demand stream's shards are others every few minutes; so the limit isn't
//! computed but felt: additive increase, multiplicative decrease.

use std::time::Duration;
use tokio::time::Instant;

/// The least that a shard is given, in bytes a second.
const FLOOR: f64 = 16.0 * 1024.0;
/// Above this there is no limit any more.
const CEILING: f64 = 8.0 * 1024.0 * 1024.0;
/// What a second without refusals adds, in bytes a second.
const STEP: f64 = 64.0 * 1024.0;
/// What a refusal leaves of the rate.
const LEFT: f64 = 0.7;
/// The pauses after refusals grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Over this time the rate that a shard took is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// One shard's pace.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; `None`: no limit is known.
    rate: Option<f64>,
    /// Bytes that may still be sent; below zero: what was sent too much.
    credit: f64,
    updated: Instant,
    paused_until: Instant,
    refusals_in_a_row: u32,
    /// Since when, and how many bytes were taken.
    taken: (Instant, f64),
    /// Bytes a second in the time before.
    taken_before: f64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            credit: 0.0,
            updated: now,
            paused_until: now,
            refusals_in_a_row: 0,
            taken: (now, 0.0),
            taken_before: 0.0,
        }
    }

    /// When the shard may be given something: now, or later; where that is far off, when it is to be asked again, since the rate grows meanwhile.
    pub(super) fn ready_at(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let credited = match self.rate {
            Some(rate) if self.credit < 0.0 => now + Duration::from_secs_f64((-self.credit / rate).min(1.0)),
            _ => now,
        };
        credited.max(self.paused_until)
    }

    /// So much was sent to it.
    pub(super) fn sent(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.credit -= bytes as f64;
        }
    }

    /// It took so much.
    pub(super) fn accepted(&mut self, bytes: usize, now: Instant) {
        self.refill(now);
        self.measure(now);
        self.taken.1 += bytes as f64;
        self.refusals_in_a_row = 0;
    }

    /// It refused; `jitter` is between 0 and 1.
    pub(super) fn refused(&mut self, now: Instant, jitter: f64) {
        self.refill(now);
        self.measure(now);
        let took = self.taken_before.max(self.taken.1);
        let before = self.rate.unwrap_or(CEILING);
        // of records that are a second's worth and more, nothing may have been taken for a while
        let took = took.max(before * 0.5);
        self.rate = Some((before.min(took) * LEFT).max(FLOOR));
        self.credit = self.credit.min(0.0);
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.refusals_in_a_row.min(10))).min(LONGEST_PAUSE);
        self.paused_until = now + pause.mul_f64(0.5 + jitter / 2.0);
        self.refusals_in_a_row += 1;
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let Some(rate) = self.rate else { return };
        self.credit = (self.credit + rate * passed).min(rate * 0.1);
        let rate = rate + STEP * passed.min(1.0);
        self.rate = (rate < CEILING).then_some(rate);
    }

    fn measure(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.taken.0);
        if passed >= MEASURED {
            self.taken_before = self.taken.1 / passed.as_secs_f64();
            self.taken = (now, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard that takes `limit` bytes in each second, and is offered records of `bytes` without end: what it takes in `seconds`.
    fn run(limit: usize, bytes: usize, seconds: u64) -> (usize, usize) {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::new(now);
        let (mut window, mut in_window) = (0, 0);
        let (mut accepted, mut refused) = (0, 0);
        while now < start + Duration::from_secs(seconds) {
            let ready = pace.ready_at(now);
            if ready > now {
                now = ready;
                continue;
            }
            pace.sent(bytes);
            now += Duration::from_millis(2);
            let second = (now - start).as_secs();
            if second != window {
                (window, in_window) = (second, 0);
            }
            if in_window + bytes <= limit {
                in_window += bytes;
                accepted += bytes;
                pace.accepted(bytes, now);
            } else {
                refused += 1;
                pace.refused(now, 0.5);
            }
        }
        (accepted, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_used_without_being_hammered() {
        let (accepted, refused) = run(1 << 20, 20_000, 60);
        assert!(accepted > 60 * (1 << 20) / 2, "{accepted} bytes in a minute, of {}", 60 << 20);
        // hammering would be refused once each two milliseconds
        assert!(refused < 600, "{refused} refusals");
    }

    #[tokio::test(start_paused = true)]
    async fn records_of_many_seconds_worth_get_through() {
        // a shard that saves up to 10 MiB, at 1 MiB a second
        let (most, each) = (10.0 * 1_048_576.0, 10_000_000.0);
        let start = Instant::now();
        let (mut now, mut pace) = (start, Pace::new(start));
        let (mut saved, mut at, mut accepted, mut refused) = (most, start, 0, 0);
        while now < start + Duration::from_secs(300) {
            let ready = pace.ready_at(now);
            if ready > now {
                now = ready;
                continue;
            }
            pace.sent(each as usize);
            now += Duration::from_millis(50);
            saved = (saved + (now - at).as_secs_f64() * 1_048_576.0).min(most);
            at = now;
            if saved >= each {
                saved -= each;
                accepted += 1;
                pace.accepted(each as usize, now);
            } else {
                refused += 1;
                pace.refused(now, 0.5);
            }
        }
        assert!(accepted >= 20, "{accepted} of about 31 in five minutes, {refused} refusals");
        assert!(refused < 300, "{refused} refusals");
    }

    #[tokio::test(start_paused = true)]
    async fn without_refusals_nothing_waits() {
        let (accepted, refused) = run(usize::MAX, 20_000, 2);
        assert_eq!((accepted, refused), (1000 * 20_000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_takes_nothing_is_asked_ever_less_often() {
        let (accepted, refused) = run(0, 20_000, 60);
        assert_eq!(accepted, 0);
        assert!(refused < 120, "{refused} refusals");
    }
}
