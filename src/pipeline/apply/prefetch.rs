//! Sorting and gathering rows on one thread while the table writes on another.

use crate::error::{Error, Result};
use crate::merge::Fold;
use crate::table::SortedChanges;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Batches that are made ahead.
const AHEAD: usize = 2;
/// A fold with fewer rows isn't worth a thread.
const WORTH_A_THREAD: usize = 100_000;

/// The fold's changes, made ahead on a thread of their own where there are many.
pub(super) fn prefetched(fold: &Fold) -> Box<dyn Iterator<Item = Result<SortedChanges>> + Send> {
    if fold.rows() < WORTH_A_THREAD {
        return fold.changes();
    }
    let (sender, receiver) = sync_channel(AHEAD);
    let changes = fold.changes();
    let work = move || {
        for batch in changes {
            // the reader has gone: nobody wants the rest
            if sender.send(batch).is_err() {
                break;
            }
        }
    };
    match std::thread::Builder::new().name("fold".into()).spawn(work) {
        Ok(thread) => Box::new(Prefetched { receiver, thread: Some(thread) }),
        Err(error) => Box::new(std::iter::once(Err(Error::bug("no thread can be started").caused_by(error)))),
    }
}

struct Prefetched {
    receiver: Receiver<Result<SortedChanges>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Prefetched {
    type Item = Result<SortedChanges>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.recv() {
            Ok(batch) => Some(batch),
            // a thread that panicked must not look like one that came to its end
            Err(_) => match self.thread.take()?.join() {
                Ok(()) => None,
                Err(_) => Some(Err(Error::bug("the thread that folds changes has died"))),
            },
        }
    }
}
