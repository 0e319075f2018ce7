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

/// Looks for the last cut that is on all lanes, from the log's end backwards. `known_epoch` is the highest epoch known from elsewhere
/// (the state store), so that an older producer which still writes isn't taken for the latest.
///
/// # Errors
/// Those of reading; `Corrupt` if the records contradict each other.
pub async fn find_last_cut(log: &dyn EventLog, known_epoch: Option<Epoch>) -> Result<LastCut> {
    for reach in 0.. {
        let position = log.recent(reach).await?;
        let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Anywhere).without_rows();
        let mut consumer = Consumer::open(log, position.as_ref(), protocol).await?;
        let mut cuts: Vec<(CutPoint, Arc<Cut>)> = Vec::new();
        while let Some(event) = consumer.next_if_any().await? {
            match event {
                LaneEvent::CutReached(reached) => cuts.push((reached.point, reached.cut)),
                LaneEvent::Void { after_cut, .. } => cuts.retain(|(point, _)| Some(*point) <= after_cut),
                LaneEvent::Sections { .. } => {}
            }
            // the last two of each producer would do: keep the memory bounded
            if cuts.len() > 4096 {
                cuts.drain(..2048);
            }
        }
        let found = LastCut { epoch: consumer.protocol().highest_epoch(), cut: cuts.pop() };
        if position.is_none() || (found.cut.is_some() && found.epoch >= known_epoch) {
            return Ok(found);
        }
    }
    Ok(LastCut::default())
}
