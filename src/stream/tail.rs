//! Where a new producer resumes: the last cut that is on all lanes.

use super::{Consumer, EventLog, LaneEvent, LaneProtocol, StartAt};
use crate::error::Result;
use crate::event::{Cut, CutPoint, Epoch};
use std::sync::Arc;

/// What a new producer finds on a stream.
#[derive(Debug, Clone, Default)]
pub struct LastCut {
    /// The highest epoch seen on the stream; the new producer takes a higher one.
    pub epoch: Option<Epoch>,
    /// The last cut that is on all lanes and not void: the new producer resumes from it. `None`: there is none.
    pub cut: Option<(CutPoint, Arc<Cut>)>,
}

/// Looks for the last cut that is on all lanes, from the log's end backwards.
///
/// # Errors
/// Those of reading; `Corrupt` if the records contradict each other.
pub async fn find_last_cut(log: &dyn EventLog) -> Result<LastCut> {
    let mut reach = 0;
    loop {
        let position = log.recent(reach).await?;
        let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Anywhere).without_rows();
        let mut consumer = Consumer::open(log, position.as_ref(), protocol).await?;
        let mut found = LastCut::default();
        while let Some(event) = consumer.next_if_any().await? {
            if let LaneEvent::CutReached(reached) = event {
                found.cut = Some((reached.point, reached.cut));
            }
        }
        found.epoch = consumer.protocol().highest_epoch();
        if position.is_none() || found.cut.is_some() {
            return Ok(found);
        }
        reach += 1;
    }
}
