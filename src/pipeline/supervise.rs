//! Keeping a half of the pipeline running: what passes is tried again, what doesn't ends the process with the right exit code.

use crate::error::{Area, Error, Kind, Result};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The pauses between starts grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long what a service begins with may be away, …
const START_PATIENCE: Duration = Duration::from_secs(30);
/// … and the longest pause between two looks at it.
const LONGEST_START_PAUSE: Duration = Duration::from_secs(2);
/// A half that ran for so long starts anew with the first pause.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Whether starting a half anew can help.
fn passes(error: &Error) -> bool {
    match error.kind() {
        Kind::Transient => true,
        // what was read of the stream no longer holds: it is read again. A lake's conflict is another service's, and that one has won
        Kind::Conflict => error.area() == Area::Stream,
        Kind::Data | Kind::Refused | Kind::Config | Kind::Corrupt | Kind::Bug => false,
    }
}

/// Opens what a service begins with. What passes is tried again for a while: a store may be throttled or away at the very moment of a restart.
pub(super) async fn patiently<T, F>(mut open: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match open().await {
            Err(error) if error.is_transient() && began.elapsed() + pause < START_PATIENCE => {
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "the start is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_START_PAUSE);
            }
            other => return other,
        }
    }
}

/// Runs `start` until it ends well or with an error that doesn't pass; starts it anew after one that does, unless `stop` is true by then.
pub(super) async fn keep_running<S, F>(half: &'static str, mut stop: watch::Receiver<bool>, mut start: S) -> Result<()>
where
    S: FnMut() -> F,
    F: Future<Output = Result<()>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        match start().await {
            Err(error) if passes(&error) => {
                metrics::counter!(crate::metrics::ERRORS, "table" => "", "kind" => format!("{:?}", error.kind())).increment(1);
                if started.elapsed() >= GOOD_RUN {
                    pause = FIRST_PAUSE;
                }
                tracing::warn!(half, %error, pause_ms = pause.as_millis() as u64, "it is started anew");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // an error that is about to be retried must not keep the process from ending
                    stopped = stop.wait_for(|stop| *stop) => {
                        drop(stopped);
                        return Err(error);
                    }
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn error(area: Area, kind: Kind) -> Error {
        Error::new(area, kind, "test")
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_what_does_not_ends_it() {
        let (_sender, stop) = watch::channel(false);
        let starts = Cell::new(0);
        let outcome = keep_running("capture", stop, || {
            starts.set(starts.get() + 1);
            let result = match starts.get() {
                1 => Err(error(Area::Source, Kind::Transient)),
                2 => Err(error(Area::Stream, Kind::Conflict)),
                _ => Err(error(Area::Lake, Kind::Conflict)),
            };
            async { result }
        });
        assert_eq!(outcome.await.unwrap_err().exit_code(), 5);
        assert_eq!(starts.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_what_passes_and_not_for_ever() {
        let tries = Cell::new(0);
        let opening = |fails: u32, kind| {
            tries.set(0);
            let tries = &tries;
            patiently(move || {
                tries.set(tries.get() + 1);
                let answer = if tries.get() > fails { Ok(7) } else { Err(error(Area::Config, kind)) };
                async { answer }
            })
        };
        assert_eq!(opening(5, Kind::Transient).await.unwrap(), 7);
        assert_eq!(opening(u32::MAX, Kind::Transient).await.unwrap_err().kind(), Kind::Transient);
        assert!((5..100).contains(&tries.get()), "{}", tries.get());
        assert_eq!(opening(5, Kind::Config).await.unwrap_err().kind(), Kind::Config);
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_waiting() {
        let (sender, stop) = watch::channel(false);
        sender.send(true).unwrap();
        let outcome = keep_running("apply", stop, || async { Err(error(Area::Lake, Kind::Transient)) });
        assert!(outcome.await.is_err());
    }
}
