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
    async fn a_stop_ends_the_waiting() {
        let (sender, stop) = watch::channel(false);
        sender.send(true).unwrap();
        let outcome = keep_running("apply", stop, || async { Err(error(Area::Lake, Kind::Transient)) });
        assert!(outcome.await.is_err());
    }
}
