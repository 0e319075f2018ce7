//! Changes made one batch ahead: while a batch is being written the next one is made, on a thread of its own.
//!
//! **Why.** To make a batch can be as much work as to write it: a history looks up what its changes end, and sorts what lies elsewhere. The workers would wait
//! for it, each time. One batch more is in memory for that.

use super::super::SortedChanges;
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use tokio::runtime::Handle;

/// The changes of a commit.
type Changes = Box<dyn Iterator<Item = Result<SortedChanges>> + Send>;

/// The same as what it was made from, a batch ahead.
pub(super) struct Ahead {
    /// `None` once it is dropped.
    made: Option<Receiver<Result<SortedChanges>>>,
    /// `None` once it was seen to end.
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Begins with the first batch at once.
    pub(super) fn new(changes: Changes, runtime: Handle) -> Result<Self> {
        // nothing waits in the channel: the next batch waits where it was made
        let (sender, made) = sync_channel(0);
        let make = move || {
            let _runtime = runtime.enter();
            for batch in changes {
                // nothing counts behind an error
                let is_last = batch.is_err();
                if sender.send(batch).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("changes".to_owned()).spawn(make);
        let thread = thread.map_err(|error| Error::bug("a thread can't be started").caused_by(error))?;
        Ok(Self { made: Some(made), thread: Some(thread) })
    }
}

impl Iterator for Ahead {
    type Item = Result<SortedChanges>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.made.as_ref().and_then(|made| made.recv().ok()) {
            return Some(batch);
        }
        // the end, or a panic: what is missing then must not be taken for no changes
        let panicked = self.thread.take()?.join().is_err();
        panicked.then(|| Err(Error::bug("the changes of a commit panicked")))
    }
}

impl Drop for Ahead {
    /// Nothing is made any more when this returns.
    fn drop(&mut self) {
        self.made = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
    use arrow::datatypes::Schema;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn batch(rows: usize) -> SortedChanges {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        SortedChanges { is_delete: BooleanArray::from(vec![false; rows.num_rows()]), rows }
    }

    fn ahead(changes: impl Iterator<Item = Result<SortedChanges>> + Send + 'static) -> Ahead {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Ahead::new(Box::new(changes), runtime.handle().clone()).unwrap()
    }

    #[test]
    fn batches_come_in_their_order_up_to_an_error() {
        let changes = [Ok(batch(1)), Ok(batch(2)), Err(Error::bug("no")), Ok(batch(3))];
        let found: Vec<Option<usize>> =
            ahead(changes.into_iter()).map(|changes| changes.ok().map(|changes| changes.rows.num_rows())).collect();
        assert_eq!(found, [Some(1), Some(2), None]);
    }

    #[test]
    fn a_panic_is_an_error_and_not_the_end() {
        let mut changes = ahead((0..).map(|number| if number < 2 { Ok(batch(1)) } else { panic!("no") }));
        assert!(changes.next().unwrap().is_ok() && changes.next().unwrap().is_ok());
        assert!(changes.next().unwrap().is_err());
        assert!(changes.next().is_none());
    }

    #[test]
    fn who_stops_early_has_nothing_made_behind_his_back() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let mut changes = ahead(std::iter::repeat_with(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(batch(1))
        }));
        changes.next().unwrap().unwrap();
        drop(changes);
        // the one that was taken, and the one ahead, which nobody took
        assert!((1..=2).contains(&made.load(Ordering::SeqCst)));
        assert_eq!(Arc::strong_count(&made), 1);
    }
}
