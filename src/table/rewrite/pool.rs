//! Runs jobs on several threads and hands out what they made in the order in which they were given.

use super::job::{Job, JobContext, JobOutput, run};
use super::output::Step;
use crate::error::{Area, Error, Kind, Result};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// What the planner sends, in order.
pub(super) enum Ordered {
    /// Something that needs no work.
    Step(Step),
    /// A job's output, when it is there, and the bytes known to come after it in its group.
    Job(Receiver<Result<JobOutput>>, u64),
}

/// Takes the planner's steps and jobs.
pub(super) struct Dispatcher {
    ordered: SyncSender<Ordered>,
    jobs: SyncSender<(Job, SyncSender<Result<JobOutput>>)>,
}

impl Dispatcher {
    /// Does `step` when all before it is done.
    pub(super) fn step(&self, step: Step) -> Result<()> {
        self.ordered.send(Ordered::Step(step)).map_err(|_| stopped())
    }

    /// Does `job`, then appends what it made; waits while too many jobs are under way.
    pub(super) fn job(&self, job: Job, rest_bytes: u64) -> Result<()> {
        let (sender, receiver) = sync_channel(1);
        self.ordered.send(Ordered::Job(receiver, rest_bytes)).map_err(|_| stopped())?;
        self.jobs.send((job, sender)).map_err(|_| stopped())
    }
}

/// The planner's error when the writer has failed: the writer's own is the one to report.
fn stopped() -> Error {
    Error::bug("the writer of base files stopped")
}

/// Does a job; a worker outlives a panic, or the planner would wait for ever. A decoder that panics has met bytes that make no sense.
fn run_caught(context: &JobContext, job: Job) -> Result<JobOutput> {
    let file = job.old.path();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(context, job))).unwrap_or_else(|_| {
        Err(match file {
            Some(path) => Error::new(Area::Lake, Kind::Corrupt, "a base file can't be decoded").with("path", path),
            None => Error::bug("a rewrite job panicked"),
        })
    })
}

/// Runs `plan` (which dispatches) and `write` (which receives in order), with `threads` workers between them and at most `ahead` jobs under way.
pub(super) fn pipeline<T: Send>(
    context: &JobContext,
    threads: usize,
    ahead: usize,
    plan: impl FnOnce(&Dispatcher) -> Result<()>,
    write: impl FnOnce(Receiver<Ordered>) -> Result<T> + Send,
) -> Result<T> {
    let (ordered, receive_ordered) = sync_channel(ahead);
    let (jobs, receive_jobs) = sync_channel::<(Job, SyncSender<Result<JobOutput>>)>(ahead);
    let receive_jobs = Mutex::new(receive_jobs);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = receive_jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((job, sender)) = next else { return };
                    // nobody waits for it if the writer has failed
                    _ = sender.send(run_caught(context, job));
                }
            });
        }
        let writer = scope.spawn(move || write(receive_ordered));
        let dispatcher = Dispatcher { ordered, jobs };
        let planned = plan(&dispatcher);
        if planned.is_err() {
            // the writer must not take the end of the steps for the end of the rewrite
            _ = dispatcher.step(Step::Abandon);
        }
        drop(dispatcher);
        let written = writer.join().unwrap_or_else(|_| Err(Error::bug("the writer of base files panicked")));
        match (planned, written) {
            (Ok(()), written) => written,
            (Err(planned), Err(written)) if planned.what() == stopped().what() => Err(written),
            (Err(planned), _) => Err(planned),
        }
    })
}
