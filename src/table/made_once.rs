//! What two want and one makes: who comes first makes it, the other takes it.
//!
//! **Why nobody waits in vain.** Waiting is for what is being made at that moment only, and who makes something waits for nothing. What the other never asks
//! for is let go of when it exceeds the memory given, oldest first; where nothing is ever taken, nothing is kept any more.

use crate::error::Result;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Things that are let go of without one that was taken, from which on the two have nothing in common.
const IN_VAIN: u64 = 256;

/// What becomes of a thing.
enum Thing<V> {
    /// Somebody makes it.
    UnderWay,
    /// It waits for the other one.
    Made(V),
}

struct State<K, V> {
    things: HashMap<K, Thing<V>>,
    /// Those that wait, oldest first, with some that were taken.
    order: VecDeque<K>,
    /// Bytes of those that wait.
    bytes: usize,
    taken: u64,
    dropped: u64,
}

/// Things by what they are made from.
pub struct MadeOnce<K, V> {
    most_bytes: usize,
    weigh: fn(&V) -> usize,
    state: Mutex<State<K, V>>,
    changed: Condvar,
}

impl<K, V> fmt::Debug for MadeOnce<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MadeOnce").field("taken", &state.taken).field("dropped", &state.dropped).finish_non_exhaustive()
    }
}

impl<K, V> MadeOnce<K, V> {
    /// Nothing yet. `weigh` says how many bytes a thing has: those that wait have about `most_bytes` at most.
    pub fn new(most_bytes: usize, weigh: fn(&V) -> usize) -> Self {
        let state = State { things: HashMap::new(), order: VecDeque::new(), bytes: 0, taken: 0, dropped: 0 };
        Self { most_bytes, weigh, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Whether things may be taken, or kept for the other one.
    pub fn is_worthwhile(&self) -> bool {
        let state = self.lock();
        state.taken > 0 || state.dropped < IN_VAIN
    }

    /// How many things were made once for both.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash, V: Clone> MadeOnce<K, V> {
    /// What is made from `key`: what the other one has made, or what `make` makes.
    pub fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let mut state = self.lock();
        while let Some(Thing::UnderWay) = state.things.get(&key) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(Thing::Made(thing)) = state.things.remove(&key) {
            state.taken += 1;
            state.bytes -= (self.weigh)(&thing);
            return Ok(thing);
        }
        state.things.insert(key, Thing::UnderWay);
        drop(state);
        let _under_way = UnderWay { all: self, key };
        let made = make()?;
        let mut state = self.lock();
        state.bytes += (self.weigh)(&made);
        state.things.insert(key, Thing::Made(made.clone()));
        state.order.push_back(key);
        while state.bytes > self.most_bytes
            && let Some(oldest) = state.order.pop_front()
        {
            // what was taken, and is made again, stays for its later turn
            if let Some(Thing::Made(_)) = state.things.get(&oldest)
                && let Some(Thing::Made(thing)) = state.things.remove(&oldest)
            {
                state.bytes -= (self.weigh)(&thing);
                state.dropped += 1;
            }
        }
        drop(state);
        Ok(made)
    }
}

/// A thing that is being made: however that ends, who waits for it is told.
struct UnderWay<'a, K: Copy + Eq + Hash, V> {
    all: &'a MadeOnce<K, V>,
    key: K,
}

impl<K: Copy + Eq + Hash, V> Drop for UnderWay<'_, K, V> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        if let Some(Thing::UnderWay) = state.things.get(&self.key) {
            state.things.remove(&self.key);
        }
        drop(state);
        self.all.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::Arc;

    fn get(all: &MadeOnce<u64, String>, key: u64, made: &mut u64) -> String {
        let make = || {
            *made += 1;
            Ok(format!("number {key}"))
        };
        all.get(key, make).unwrap()
    }

    #[test]
    fn a_thing_is_made_once_and_taken_once() {
        let (all, mut made) = (MadeOnce::new(1 << 10, String::len), 0);
        assert_eq!((get(&all, 1, &mut made), get(&all, 1, &mut made)), ("number 1".to_owned(), "number 1".to_owned()));
        assert_eq!((made, all.taken()), (1, 1));
        get(&all, 1, &mut made);
        get(&all, 2, &mut made);
        assert_eq!((made, all.taken(), all.lock().bytes), (3, 1, 16));
    }

    #[test]
    fn what_nobody_takes_goes_first_and_in_the_end_nothing_is_kept() {
        let (all, mut made) = (MadeOnce::new(20, String::len), 0);
        for key in 0..3 {
            get(&all, key, &mut made);
        }
        get(&all, 2, &mut made);
        get(&all, 0, &mut made);
        assert_eq!((made, all.taken()), (4, 1));
        let none = MadeOnce::new(0, String::len);
        for key in 0..IN_VAIN {
            assert!(none.is_worthwhile());
            get(&none, key, &mut made);
        }
        assert!(!none.is_worthwhile());
        let state = none.lock();
        assert_eq!((state.bytes, state.things.len()), (0, 0));
    }

    #[test]
    fn who_fails_leaves_the_thing_to_who_waits() {
        let all = Arc::new(MadeOnce::new(1 << 10, String::len));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let other = {
            let all = all.clone();
            std::thread::spawn(move || {
                has_begun.recv().unwrap();
                let mut made = 0;
                get(&all, 1, &mut made);
                made
            })
        };
        let failed = all.get(1, || {
            begun.send(()).unwrap();
            Err(Error::bug("no"))
        });
        assert!(failed.is_err());
        assert_eq!(other.join().unwrap(), 1);
    }
}
