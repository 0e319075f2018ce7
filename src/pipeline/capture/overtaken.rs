//! Noticing that another producer has taken the stream over: what this one sends then counts no more, so it must not go on as if it did.
//!
//! Where all share a state store, it knows the newest epoch. Where they don't, the merge of the same process meets the other's records.

use super::Context;
use crate::error::{Area, Error, Kind};
use crate::event::Epoch;
use std::time::Duration;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);

/// Returns when a producer with a higher epoch than `own` is known. A conflict: the capture begins anew, and takes the stream back, unless it is told to stop.
pub(super) async fn overtaken(context: &Context, own: Epoch) -> Error {
    let stream_id = &context.log.identity().stream_id;
    loop {
        tokio::time::sleep(INTERVAL).await;
        // a state store that can't be read now can be read later
        let taken = context.state.known_epoch(stream_id).await.ok().flatten();
        let met = context.status.newest_epoch();
        if let Some(newer) = taken.max(met).filter(|newest| *newest > own) {
            return Error::new(Area::Stream, Kind::Conflict, "another capture has taken the stream over")
                .with("epoch", own)
                .with("its_epoch", newer)
                .remedy("run one capture for a stream; several share the work by a state store that all of them use");
        }
    }
}
