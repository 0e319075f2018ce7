//! The processes, and what is done to them.

use crate::mysql::eventually;
use crate::random::Random;
use crate::service::{Pipeline, Service};
use std::collections::BTreeMap;

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// `kill -9`; another comes in its place.
    Kill,
    /// SIGTERM; another comes in its place.
    Stop,
    /// SIGSTOP, until its leases have run out.
    Pause,
}

/// Three workers and two captures.
pub(super) struct Troop {
    workers: Vec<Service>,
    captures: Vec<Service>,
    /// One that is paused, whether it is a capture, and the transactions at which it goes on.
    paused: Option<(bool, usize, u64)>,
    /// On a folder, a capture that is paused holds it.
    may_pause_captures: bool,
}

impl Troop {
    pub(super) fn new(pipeline: &Pipeline, first: Service, may_pause_captures: bool) -> Self {
        Self {
            workers: (0..3).map(|_| pipeline.start(&["merge"])).collect(),
            captures: vec![first, pipeline.start(&["capture"])],
            paused: None,
            may_pause_captures,
        }
    }

    /// Strikes one at random, and puts another in its place. Who is paused sleeps for `sleep` transactions.
    pub(super) fn strike(&mut self, random: &mut Random, pipeline: &Pipeline, now: u64, sleep: u64) -> String {
        let mut blow = [Blow::Kill, Blow::Kill, Blow::Stop, Blow::Pause][random.below(4) as usize];
        let is_capture = random.below(3) == 0;
        if blow == Blow::Pause && (self.paused.is_some() || (is_capture && !self.may_pause_captures)) {
            blow = Blow::Kill;
        }
        let (name, those) = if is_capture { ("capture", &mut self.captures) } else { ("merge", &mut self.workers) };
        let number = random.below(those.len() as u64) as usize;
        if self.paused.is_some_and(|(capture, paused, _)| (capture, paused) == (is_capture, number)) {
            return format!("{name} {number}: Sleeps");
        }
        if blow == Blow::Pause {
            pipeline.pause(&those[number]);
            self.paused = Some((is_capture, number, now + sleep));
        } else {
            let old = std::mem::replace(&mut those[number], pipeline.start(&[name]));
            match blow {
                Blow::Stop => assert!(old.terminate().success(), "{}", pipeline.log_tail()),
                Blow::Kill | Blow::Pause => old.kill(),
            }
        }
        format!("{name} {number}: {blow:?}")
    }

    /// Who is paused goes on, if it is time; without `now` it is.
    pub(super) fn wake(&mut self, now: Option<u64>) {
        if let Some((is_capture, number, at)) = self.paused
            && now.is_none_or(|now| now >= at)
        {
            let those = if is_capture { &self.captures } else { &self.workers };
            those[number].signal("CONT");
            self.paused = None;
        }
    }

    /// Waits until each table is the work of one of the workers that live.
    pub(super) async fn owns_all(&self, pipeline: &Pipeline, tables: usize) {
        let living: Vec<String> = self.workers.iter().map(|worker| format!(":{}:", worker.pid())).collect();
        eventually("each table has an owner that lives", async || {
            let said = pipeline.answer(&["scale"]);
            let owners: BTreeMap<&str, usize> = said
                .out
                .lines()
                .filter_map(|line| line.strip_prefix("  ")?.split_once(": "))
                .map(|(owner, tables)| (owner, tables.split(' ').count()))
                .collect();
            let is_living = |owner: &&str| living.iter().any(|pid| owner.contains(pid));
            owners.keys().all(is_living) && owners.values().sum::<usize>() == tables
        })
        .await;
    }

    /// All are told to stop; then nobody owns anything.
    pub(super) fn end(self, pipeline: &Pipeline) {
        for service in self.workers.into_iter().chain(self.captures) {
            assert!(service.terminate().success(), "{}", pipeline.log_tail());
        }
    }
}
