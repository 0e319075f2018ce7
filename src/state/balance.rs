//! Sharing leases among workers: pure, by the rules of the Kinesis Client Library.
//!
//! Nobody's clock is compared with another's: a lease is free when its counter hasn't moved for the lease's duration *while this worker looked
//! on*. Each worker renews what it has, so a counter that stands still is a worker that is gone (or cut off, which is as good: what it
//! still writes is fenced by the table).
//!
//! Each worker takes up to its fair part, the number of leases over the number of workers, rounded up: free ones first; if there are none, it asks
//! the worker that has most for what that has too many. So the parts differ by one at most when all have come to rest, and
//! nothing moves to and fro.

use super::{Lease, LeaseKey, WorkerId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Since when each lease's counter stands.
#[derive(Debug, Default)]
pub struct Observer {
    seen: BTreeMap<LeaseKey, (u64, Instant)>,
}

impl Observer {
    /// Takes note of all leases as they are `now`.
    pub fn observe(&mut self, leases: &[Lease], now: Instant) {
        let mut seen = BTreeMap::new();
        for lease in leases {
            let since = match self.seen.get(&lease.key) {
                Some((counter, since)) if *counter == lease.counter => *since,
                _ => now,
            };
            seen.insert(lease.key.clone(), (lease.counter, since));
        }
        self.seen = seen;
    }

    /// Whether the lease has not been renewed for `duration`.
    pub fn is_silent(&self, lease: &Lease, now: Instant, duration: Duration) -> bool {
        self.seen
            .get(&lease.key)
            .is_some_and(|(counter, since)| *counter == lease.counter && now.duration_since(*since) >= duration)
    }

    /// Whether the lease may be taken.
    pub fn is_free(&self, lease: &Lease, now: Instant, duration: Duration) -> bool {
        lease.owner.is_none() || self.is_silent(lease, now, duration)
    }
}

/// What a worker does about a lease that it doesn't have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Nobody has it.
    Free(LeaseKey),
    /// Its owner has too many.
    Ask(LeaseKey),
}

/// What `me` should take of `leases`, which `observer` has observed.
fn plan(leases: &[Lease], me: &WorkerId, observer: &Observer, now: Instant, duration: Duration) -> Vec<Take> {
    let mut loads: BTreeMap<&WorkerId, usize> = BTreeMap::from([(me, 0)]);
    let mut free = Vec::new();
    for lease in leases {
        match &lease.owner {
            Some(owner) if owner == me || !observer.is_silent(lease, now, duration) => *loads.entry(owner).or_default() += 1,
            _ => free.push(lease),
        }
    }
    let fair = leases.len().div_ceil(loads.len());
    let wanted = fair.saturating_sub(loads.get(me).copied().unwrap_or(0));
    // each worker begins elsewhere, so that they don't all reach for the same one
    let in_my_order = |leases: &mut Vec<&Lease>| leases.sort_by_key(|lease| (rank(me, &lease.key), lease.key.clone()));
    if !free.is_empty() {
        in_my_order(&mut free);
        return free.into_iter().take(wanted).map(|lease| Take::Free(lease.key.clone())).collect();
    }
    let Some((richest, most)) = loads.iter().map(|(worker, load)| (*worker, *load)).max_by_key(|(_, load)| *load) else {
        return Vec::new();
    };
    let surplus = match most.saturating_sub(fair) {
        // no one has too many, but two have more than I: one of them does without
        0 if wanted > 1 && most == fair => 1,
        surplus => surplus,
    };
    // one that is being handed over already stays where it goes
    let mut theirs: Vec<&Lease> =
        leases.iter().filter(|lease| lease.owner.as_ref() == Some(richest) && lease.checkpoint_owner.is_none()).collect();
    in_my_order(&mut theirs);
    theirs.into_iter().take(wanted.min(surplus)).map(|lease| Take::Ask(lease.key.clone())).collect()
}

/// The same where some leases go together: `heads` has for each the number of the first one of those that it goes with, its own if that is itself.
///
/// The first ones are shared out; who has one of them takes those that go with it.
pub fn plan_together(
    leases: &[Lease],
    heads: &[usize],
    me: &WorkerId,
    observer: &Observer,
    now: Instant,
    duration: Duration,
) -> Vec<Take> {
    let alone: Vec<Lease> = leases
        .iter()
        .zip(heads)
        .enumerate()
        .filter(|(number, (_, head))| number == *head)
        .map(|(_, (lease, _))| lease.clone())
        .collect();
    let mut takes = plan(&alone, me, observer, now, duration);
    let followers = leases.iter().zip(heads).filter(|(lease, head)| {
        let head = &leases[**head];
        head.key != lease.key && head.owner.as_ref() == Some(me) && lease.owner.as_ref() != Some(me)
    });
    takes.extend(followers.filter_map(|(lease, _)| {
        if observer.is_free(lease, now, duration) {
            return Some(Take::Free(lease.key.clone()));
        }
        lease.checkpoint_owner.is_none().then(|| Take::Ask(lease.key.clone()))
    }));
    takes
}

fn rank(me: &WorkerId, key: &LeaseKey) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{me}\0{key}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DURATION: Duration = Duration::from_secs(10);

    fn worker(number: usize) -> WorkerId {
        WorkerId(format!("w{number}"))
    }

    fn key(number: usize) -> LeaseKey {
        LeaseKey(format!("t{number}"))
    }

    /// A table of leases and workers that act in turn, each with its own observer.
    struct World {
        leases: Vec<Lease>,
        observers: Vec<Observer>,
        now: Instant,
        /// Who works on which lease, by what each believes.
        works: Vec<Vec<bool>>,
        /// With which each lease goes.
        heads: Vec<usize>,
    }

    impl World {
        fn new(leases: usize, workers: usize) -> Self {
            Self {
                leases: (0..leases).map(|i| Lease::new(key(i))).collect(),
                observers: (0..workers).map(|_| Observer::default()).collect(),
                now: Instant::now(),
                works: vec![vec![false; leases]; workers],
                heads: (0..leases).collect(),
            }
        }

        /// One look of a worker: it renews, finishes what it is asked for, and takes.
        fn tick(&mut self, number: usize) {
            let me = worker(number);
            self.now += Duration::from_secs(1);
            for lease in &mut self.leases {
                if lease.owner.as_ref() == Some(&me) {
                    *lease = lease.clone().renewed();
                } else if lease.checkpoint_owner.as_ref() == Some(&me) {
                    *lease = lease.clone().finished();
                }
            }
            self.observers[number].observe(&self.leases, self.now);
            for take in plan_together(&self.leases, &self.heads, &me, &self.observers[number], self.now, DURATION) {
                let (Take::Free(wanted) | Take::Ask(wanted)) = &take;
                let lease = self.leases.iter_mut().find(|lease| lease.key == *wanted).unwrap();
                *lease = match take {
                    Take::Free(_) => lease.clone().taken_by(&me),
                    Take::Ask(_) => lease.clone().asked_by(&me),
                };
            }
            self.works[number] = self.leases.iter().map(|lease| lease.is_worked_by(&me)).collect();
        }

        fn loads(&self, workers: &[usize]) -> Vec<usize> {
            workers.iter().map(|number| self.works[*number].iter().filter(|works| **works).count()).collect()
        }
    }

    #[test]
    fn a_lease_is_free_when_its_counter_stood_for_the_duration_and_no_earlier() {
        let mut observer = Observer::default();
        let start = Instant::now();
        let lease = Lease::new(key(0)).taken_by(&worker(0));
        observer.observe(std::slice::from_ref(&lease), start);
        let almost = start + DURATION - Duration::from_millis(1);
        assert!(!observer.is_free(&lease, almost, DURATION));
        assert!(observer.is_free(&lease, start + DURATION, DURATION));
        let lease = lease.renewed();
        observer.observe(std::slice::from_ref(&lease), almost);
        assert!(!observer.is_free(&lease, start + DURATION, DURATION));
    }

    #[test]
    fn who_comes_first_takes_all_and_who_comes_later_gets_its_part() {
        let mut world = World::new(7, 3);
        world.tick(0);
        assert_eq!(world.loads(&[0]), [7]);
        for _ in 0..6 {
            (0..2).for_each(|number| world.tick(number));
        }
        let mut loads = world.loads(&[0, 1]);
        loads.sort_unstable();
        assert_eq!(loads, [3, 4]);
        for _ in 0..12 {
            (0..3).for_each(|number| world.tick(number));
        }
        let mut loads = world.loads(&[0, 1, 2]);
        loads.sort_unstable();
        assert_eq!(loads, [2, 2, 3]);
    }

    #[test]
    fn what_a_dead_worker_had_is_taken_over() {
        let mut world = World::new(6, 3);
        for _ in 0..12 {
            (0..3).for_each(|number| world.tick(number));
        }
        assert_eq!(world.loads(&[0, 1, 2]), [2, 2, 2]);
        // worker 0 is gone; each of the others looks every two seconds
        for _ in 0..8 {
            (1..3).for_each(|number| world.tick(number));
        }
        assert_eq!(world.loads(&[1, 2]), [3, 3]);
    }

    #[test]
    fn leases_that_go_together_come_to_one_worker() {
        let mut world = World::new(9, 3);
        // 0, 3 and 6 go together, and 1 and 8
        for (lease, head) in [(3, 0), (6, 0), (8, 1)] {
            world.heads[lease] = head;
        }
        // whoever had them before
        for lease in 0..9 {
            world.leases[lease] = world.leases[lease].clone().taken_by(&worker(lease % 2));
        }
        let together = |world: &World| {
            world
                .works
                .iter()
                .all(|works| [vec![0, 3, 6], vec![1, 8]].iter().all(|all| all.iter().all(|lease| works[*lease] == works[all[0]])))
        };
        for _ in 0..24 {
            (0..3).for_each(|number| world.tick(number));
        }
        assert!(together(&world), "{:?}", world.works);
        assert!((0..9).all(|lease| world.works.iter().filter(|works| works[lease]).count() == 1));
        assert!(
            (0..3).all(|number| (0..9).any(|lease| world.heads[lease] == lease && world.works[number][lease])),
            "each has its part"
        );
        // one is gone
        for _ in 0..24 {
            (1..3).for_each(|number| world.tick(number));
        }
        assert!(together(&world) && (1..3).map(|number| world.loads(&[number])[0]).sum::<usize>() == 9);
    }

    proptest! {
        /// Whatever the order in which workers look, come and go: at rest every lease is worked on by one worker, and the parts differ by one at most.
        #[test]
        fn parts_are_fair_at_rest(leases in 1_usize..24, workers in 1_usize..6, order in prop::collection::vec(0_usize..6, 0..60)) {
            let mut world = World::new(leases, workers);
            for number in order {
                world.tick(number % workers);
            }
            for _ in 0..6 * workers + 12 {
                (0..workers).for_each(|number| world.tick(number));
            }
            let all: Vec<usize> = (0..workers).collect();
            let loads = world.loads(&all);
            prop_assert_eq!(loads.iter().sum::<usize>(), leases);
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", loads);
            for lease in 0..leases {
                prop_assert_eq!(world.works.iter().filter(|works| works[lease]).count(), 1);
            }
            let before = world.leases.iter().map(|lease| lease.owner.clone()).collect::<Vec<_>>();
            (0..workers).for_each(|number| world.tick(number));
            let after = world.leases.iter().map(|lease| lease.owner.clone()).collect::<Vec<_>>();
            prop_assert_eq!(before, after, "nothing moves at rest");
        }
    }
}
