//! What is put next: the pure core of [`super::Putter`], without I/O.
//!
//! Records stand in *lines*; of a line at most one is under way, and the next one follows when it was taken. `PutRecords` may refuse any record of a
//! call and take those behind it, so a call never holds two of a line; that alone keeps their order. A refused record stays the first of
//! its line, and goes again byte for byte. Each shard has its own [`Pace`], so one that throttles holds up only its own lines.

use super::pace::Pace;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Records in a call, at most.
const MOST_RECORDS: usize = 500;
/// Bytes in a call, at most, unless one record alone has more: what all servers take (Amazon's own take 10 MiB).
const MOST_BYTES: usize = 5 << 20;
/// How long a call waits for other lines' records, so that lines that were filled together go together.
const LINGER: Duration = Duration::from_millis(2);
/// A call with so many bytes waits for no other.
const LARGE: usize = 1 << 20;
/// The pauses after a call without answer grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A record that is to be put on the stream.
#[derive(Debug, Clone)]
pub struct PutRecord {
    /// Records with the same number are put one after the other, in the order in which they were handed over.
    pub line: u32,
    /// At most 256 characters.
    pub partition_key: Arc<str>,
    /// Where it lies among the shards; `None`: by the partition key.
    pub explicit_hash_key: Option<u128>,
    /// What it says.
    pub data: Bytes,
}

impl PutRecord {
    /// What counts against the limits.
    fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// A record on its way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) record: PutRecord,
    pub(super) attempts: u32,
    since: Instant,
}

/// What became of one record of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is on this shard.
    Accepted(Arc<str>),
    /// Its shard (or the stream) wants less.
    Throttled,
    /// It isn't known whether it was taken, or it was refused for no reason of its own.
    Unknown,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    /// This call.
    Call(Vec<Entry>),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing before something is handed over or answered.
    Idle,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Entry>,
    is_under_way: bool,
    /// Where its last record went.
    shard: Option<Arc<str>>,
    paused_until: Option<Instant>,
}

/// All lines.
#[derive(Debug)]
pub(super) struct PutQueue {
    lines: BTreeMap<u32, Line>,
    paces: HashMap<Arc<str>, Pace>,
    last_id: u64,
    /// Where the next call begins to choose, so that all lines have their turn.
    turn: u32,
    noise: u64,
}

impl PutQueue {
    /// With a seed for the pauses' jitter.
    pub(super) fn new(seed: u64) -> Self {
        Self { lines: BTreeMap::new(), paces: HashMap::new(), last_id: 0, turn: 0, noise: seed | 1 }
    }

    /// Puts a record at its line's end; gives its number.
    pub(super) fn push(&mut self, record: PutRecord, now: Instant) -> u64 {
        self.last_id += 1;
        let line = self.lines.entry(record.line).or_default();
        line.waiting.push_back(Entry { id: self.last_id, record, attempts: 0, since: now });
        self.last_id
    }

    /// Chooses the next call: the first records of all lines that are ready.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let mut chosen: Vec<u32> = Vec::new();
        let (mut bytes, mut oldest, mut may_grow) = (0, now, false);
        let mut wait: Option<Instant> = None;
        let (before, from): (Vec<u32>, Vec<u32>) = self.lines.keys().partition(|number| **number < self.turn);
        for number in from.into_iter().chain(before) {
            let Some(line) = self.lines.get(&number) else { continue };
            let Some(first) = line.waiting.front().filter(|_| !line.is_under_way) else {
                // it may soon have something
                may_grow = true;
                continue;
            };
            let mut ready = line.paused_until.unwrap_or(now);
            if let Some(pace) = line.shard.as_ref().and_then(|shard| self.paces.get_mut(shard)) {
                ready = ready.max(pace.ready_at(now));
            }
            if ready > now {
                wait = Some(wait.map_or(ready, |wait| wait.min(ready)));
                continue;
            }
            if chosen.len() == MOST_RECORDS || (!chosen.is_empty() && bytes + first.record.bytes() > MOST_BYTES) {
                may_grow = false;
                self.turn = number;
                break;
            }
            bytes += first.record.bytes();
            oldest = oldest.min(first.since);
            chosen.push(number);
        }
        if chosen.is_empty() {
            return wait.map_or(Next::Idle, Next::Wait);
        }
        if may_grow && bytes < LARGE && now < oldest + LINGER {
            return Next::Wait(oldest + LINGER);
        }
        let take = |number: u32| {
            let line = self.lines.get_mut(&number)?;
            let entry = line.waiting.pop_front()?;
            line.is_under_way = true;
            // a little more than the credit may go at once: then the next call waits so much longer
            if let Some(pace) = line.shard.as_ref().and_then(|shard| self.paces.get_mut(shard)) {
                pace.sent(entry.record.bytes());
            }
            Some(entry)
        };
        Next::Call(chosen.into_iter().filter_map(take).collect())
    }

    /// Notes what became of a call's records; gives the numbers of those that are on the stream, and how long they took.
    pub(super) fn answered(&mut self, answers: Vec<(Entry, Fate)>, now: Instant) -> Vec<(u64, Duration)> {
        let mut done = Vec::new();
        let mut refusing: Vec<Arc<str>> = Vec::new();
        for (mut entry, fate) in answers {
            let Some(line) = self.lines.get_mut(&entry.record.line) else { continue };
            line.is_under_way = false;
            line.paused_until = None;
            match fate {
                Fate::Accepted(shard) => {
                    let pace = self.paces.entry(shard.clone()).or_insert_with(|| Pace::new(now));
                    pace.accepted(entry.record.bytes(), now);
                    line.shard = Some(shard);
                    done.push((entry.id, now.saturating_duration_since(entry.since)));
                    if line.waiting.is_empty() && self.lines.len() > MOST_RECORDS {
                        self.lines.remove(&entry.record.line);
                    }
                    continue;
                }
                Fate::Throttled => match &line.shard {
                    Some(shard) => {
                        if !refusing.contains(shard) {
                            refusing.push(shard.clone());
                        }
                    }
                    None => line.paused_until = Some(now + pause(entry.attempts, &mut self.noise)),
                },
                Fate::Unknown => line.paused_until = Some(now + pause(entry.attempts, &mut self.noise)),
            }
            entry.attempts += 1;
            line.waiting.push_front(entry);
        }
        for shard in refusing {
            let jitter = jitter(&mut self.noise);
            self.paces.entry(shard).or_insert_with(|| Pace::new(now)).refused(now, jitter);
        }
        done
    }

    /// Gives up what was under way, and what stands behind it in its lines; gives the numbers of all.
    pub(super) fn give_up(&mut self, under_way: Vec<Entry>) -> Vec<u64> {
        let mut given_up = Vec::new();
        for entry in under_way {
            given_up.push(entry.id);
            if let Some(line) = self.lines.remove(&entry.record.line) {
                given_up.extend(line.waiting.iter().map(|entry| entry.id));
            }
        }
        given_up
    }
}

/// A number between 0 and 1.
fn jitter(noise: &mut u64) -> f64 {
    *noise ^= *noise << 13;
    *noise ^= *noise >> 7;
    *noise ^= *noise << 17;
    (*noise >> 11) as f64 / (1_u64 << 53) as f64
}

fn pause(attempts: u32, noise: &mut u64) -> Duration {
    let pause = (FIRST_PAUSE * 2_u32.saturating_pow(attempts.min(10))).min(LONGEST_PAUSE);
    pause.mul_f64(0.5 + jitter(noise) / 2.0)
}

#[cfg(test)]
#[path = "put_queue_tests.rs"]
mod tests;
