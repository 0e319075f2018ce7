//! Whether the lake follows the source.

use crate::pipeline::{CaptureState, StatusView, TableStage};
use crate::time::Timestamp;
use std::time::Duration;

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The source is connected, all tables are past their snapshot, and what was read last is recent; or there is no source.
    Ready,
    /// One line of why not.
    NotReady(String),
}

/// Judges a status at the time `now`. Stopped tables don't make the service unready: the others go on, and a metric tells.
pub fn readiness(view: &StatusView, now: Timestamp, allowed_lag: Duration) -> Readiness {
    let not = |reason: String| Readiness::NotReady(reason);
    match &view.capture {
        CaptureState::Connecting { reason: Some(reason) } => return not(format!("not connected to the source: {reason}")),
        CaptureState::Connecting { reason: None } => return not("connecting to the source".into()),
        CaptureState::Stopping => return not("stopping".into()),
        CaptureState::NoSource => return Readiness::Ready,
        CaptureState::Streaming | CaptureState::Elsewhere => {}
    }
    let snapshot = view.tables.iter().find_map(|(table, status)| match status.stage {
        TableStage::Snapshot { rows_read } => Some((table, rows_read)),
        _ => None,
    });
    if let Some((table, rows)) = snapshot {
        return not(format!("snapshot of {table} under way, {rows} rows read"));
    }
    match view.source_commit_time {
        None => not("nothing was read from the source yet".into()),
        Some(time) if now.since(time) > allowed_lag => not(format!("{} s behind the source", now.since(time).as_secs())),
        Some(_) => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Status;

    #[test]
    fn each_reason_in_its_order() {
        let status = Status::new();
        let table = "shop.orders".parse().unwrap();
        let judge = |status: &Status| match readiness(&status.view(), Timestamp::from_micros(100_000_000), Duration::from_secs(30))
        {
            Readiness::Ready => "ready".to_owned(),
            Readiness::NotReady(reason) => reason,
        };
        assert_eq!(judge(&status), "connecting to the source");
        status.capture(CaptureState::Connecting { reason: Some("refused".into()) });
        assert_eq!(judge(&status), "not connected to the source: refused");
        status.capture(CaptureState::Streaming);
        assert_eq!(judge(&status), "nothing was read from the source yet");
        status.table(&table, TableStage::Snapshot { rows_read: 7 });
        assert_eq!(judge(&status), "snapshot of shop.orders under way, 7 rows read");
        status.table(&table, TableStage::Stopped { reason: "a dropped column".into() });
        status.cut("p".into(), Timestamp::from_micros(1_000_000));
        assert_eq!(judge(&status), "99 s behind the source");
        status.cut("p".into(), Timestamp::from_micros(99_000_000));
        assert_eq!(judge(&status), "ready");
        let fed = Status::new();
        fed.capture(CaptureState::NoSource);
        assert_eq!(judge(&fed), "ready");
        fed.capture(CaptureState::Stopping);
        assert_eq!(judge(&fed), "stopping");
    }
}
