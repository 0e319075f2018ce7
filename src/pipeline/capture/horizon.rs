//! What of the source is before a cut, by the clock: see [`Horizon`].
//!
//! From what the source sends alone, one that has more to send can't be told from one that has not, and its commits bear times of its own clock. So it is asked each
//! second where its binlog ends. Once the reader has passed that place, it has read all that was committed when the question was put.

use crate::error::{Area, Error, Kind, Result};
use crate::event::SourcePosition;
use crate::source::{DumpSettings, ServerInfo, connect};
use crate::time::Timestamp;
use mysql_async::{Conn, Opts};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the source is asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Ends that wait lie apart by this part of the time since the oldest: few are kept, however far behind the reader is.
const SPACING: i64 = 16;

/// Where the source's binlog ended.
#[derive(Debug, Clone)]
struct SourceEnd {
    /// When that was asked, by the capture's clock.
    asked_at: Timestamp,
    position: SourcePosition,
}

/// Up to when the reader has all that the source had committed.
#[derive(Debug)]
pub(super) struct Horizon {
    ends: watch::Receiver<Option<SourceEnd>>,
    asking: JoinHandle<()>,
    waiting: Waiting,
}

impl Horizon {
    /// Asks the source from now on, until it is dropped.
    pub(super) fn begin(options: Opts, settings: DumpSettings) -> Self {
        let (sender, ends) = watch::channel(None);
        let asking = tokio::spawn(async move {
            let mut is_quiet = false;
            loop {
                let Err(error) = ask(&options, &settings, &sender).await;
                // the connection for the binlog says what is wrong; a source that refuses this one alone is named once
                if !std::mem::replace(&mut is_quiet, true) {
                    tracing::info!(%error, "the source doesn't say where its binlog ends; it is asked again");
                }
                tokio::time::sleep(ASK_INTERVAL).await;
            }
        });
        Self { ends, asking, waiting: Waiting::default() }
    }

    /// Up to when a reader at `position` has all that the source had committed, by the capture's clock; 1970 until that is known.
    pub(super) fn complete_until(&mut self, position: &SourcePosition) -> Timestamp {
        if self.ends.has_changed().unwrap_or_default() {
            let end = self.ends.borrow_and_update().clone();
            end.into_iter().for_each(|end| self.waiting.put(end));
        }
        self.waiting.complete_until(position)
    }
}

impl Drop for Horizon {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

/// Asks until it fails.
async fn ask(
    options: &Opts,
    settings: &DumpSettings,
    sender: &watch::Sender<Option<SourceEnd>>,
) -> Result<std::convert::Infallible> {
    let mut conn = connect(options, settings.connect_timeout).await?;
    let info = ServerInfo::read(&mut conn).await?;
    loop {
        let end = tokio::time::timeout(settings.read_timeout, source_end(&info, &mut conn)).await;
        let late = |_| Error::new(Area::Source, Kind::Transient, "the source doesn't answer");
        sender.send_replace(Some(end.map_err(late)??));
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

async fn source_end(info: &ServerInfo, conn: &mut Conn) -> Result<SourceEnd> {
    let asked_at = Timestamp::now();
    let position = info.read_end(conn).await?;
    Ok(SourceEnd { asked_at, position })
}

/// Ends that the reader has not passed, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    ends: VecDeque<SourceEnd>,
    complete_until: Timestamp,
}

impl Waiting {
    fn put(&mut self, end: SourceEnd) {
        let is_apart = match (self.ends.front(), self.ends.back()) {
            (Some(first), Some(last)) => {
                let since = |before: &SourceEnd| end.asked_at.as_micros() - before.asked_at.as_micros();
                since(last) >= since(first) / SPACING
            }
            _ => true,
        };
        if is_apart {
            self.ends.push_back(end);
        }
    }

    fn complete_until(&mut self, position: &SourcePosition) -> Timestamp {
        while let Some(end) = self.ends.pop_front_if(|end| position.has_passed(&end.position)) {
            self.complete_until = self.complete_until.max(end.asked_at);
        }
        self.complete_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    /// As of second `second`, the source had made this many cuts' worth.
    fn end(second: i64, number: u64) -> SourceEnd {
        SourceEnd { asked_at: Timestamp::from_micros(second * 1_000_000), position: position(number) }
    }

    fn position(number: u64) -> SourcePosition {
        SourcePosition { gtid_set: None, ..sample::cut(number).position }
    }

    #[test]
    fn what_was_asked_before_the_reader_came_there_is_complete() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.complete_until(&position(9)), Timestamp::default());
        waiting.put(end(1, 10));
        waiting.put(end(2, 20));
        assert_eq!(waiting.complete_until(&position(9)), Timestamp::default());
        assert_eq!(waiting.complete_until(&position(10)), Timestamp::from_micros(1_000_000));
        assert_eq!(waiting.complete_until(&position(19)), Timestamp::from_micros(1_000_000));
        assert_eq!(waiting.complete_until(&position(25)), Timestamp::from_micros(2_000_000));
    }

    #[test]
    fn few_are_kept_however_far_behind_the_reader_is() {
        let mut waiting = Waiting::default();
        (1..100_000).for_each(|second| waiting.put(end(second, second as u64)));
        assert!((50..400).contains(&waiting.ends.len()), "{}", waiting.ends.len());
        // none lies further from the next than a sixteenth of what the reader was behind
        let until = waiting.complete_until(&position(50_000)).as_micros() / 1_000_000;
        assert!((50_000 - 50_000 / 15..=50_000).contains(&until), "{until}");
        assert!(waiting.complete_until(&position(100_000)).as_micros() / 1_000_000 > 90_000);
    }
}
