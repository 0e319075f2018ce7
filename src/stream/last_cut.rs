//! Where in a log the last cut lies that all lanes have: followed while records are appended, so that nobody has to search for it.

use crate::event::{ChunkHeader, ChunkIndex, CutPoint, Epoch, Lane};
use crate::format::ChunkRecord;
use std::collections::BTreeMap;

/// Follows the records of a log by their headers. `P` is a place in that log, ordered as it is read.
#[derive(Debug, Clone)]
pub(super) struct LastCutTracker<P> {
    lanes: Vec<LaneEnd<P>>,
    pending: BTreeMap<CutPoint, (usize, P)>,
    /// The places of the last two: while a new producer looks for the last one, an old one may still complete another.
    whole: [Option<P>; 2],
}

#[derive(Debug, Clone, Default)]
struct LaneEnd<P> {
    last: Option<(Epoch, ChunkIndex)>,
    chunk_start: Option<P>,
}

impl<P: Copy + Ord> LastCutTracker<P> {
    pub(super) fn new(lanes: u16) -> Self {
        let lanes = (0..lanes).map(|_| LaneEnd { last: None, chunk_start: None }).collect();
        Self { lanes, pending: BTreeMap::new(), whole: [None, None] }
    }

    /// Takes the next record of the log, which lies at `place`. What isn't a chunk, or is a repeat, changes nothing.
    pub(super) fn observe(&mut self, place: P, lane: Lane, record: &[u8]) {
        let (header, is_last_part) = match ChunkHeader::peek(record) {
            Ok((header, _)) => {
                let is_last_part = header.part_start + (record.len() - ChunkHeader::BYTES) as u64 >= header.payload_bytes;
                (header, is_last_part)
            }
            // in other formats a chunk's own record comes last
            Err(_) if ChunkRecord::is_one(record) => match ChunkRecord::read(record) {
                // its rows, if it has any, were before it
                Ok(own) => (ChunkHeader { part_start: u64::from(own.records > 0), ..own.header(1, 0) }, true),
                Err(_) => return,
            },
            Err(_) => {
                if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
                    lane.chunk_start.get_or_insert(place);
                }
                return;
            }
        };
        let lane_count = self.lanes.len();
        let Some(lane) = self.lanes.get_mut(usize::from(header.lane.0)) else { return };
        let at = (header.epoch, header.index);
        if lane.last.is_some_and(|last| at <= last) {
            return;
        }
        lane.last = Some(at);
        if header.is_first_part() {
            lane.chunk_start = Some(place);
        }
        let start = lane.chunk_start;
        if is_last_part {
            lane.chunk_start = None;
        }
        let (true, true, Some(start)) = (header.ends_with_cut, is_last_part, start) else { return };
        let point = CutPoint { epoch: header.epoch, number: header.window };
        let (lanes, first) = self.pending.entry(point).or_insert((0, start));
        *lanes += 1;
        *first = start.min(*first);
        if *lanes == lane_count {
            let first = *first;
            self.pending = self.pending.split_off(&point);
            self.pending.remove(&point);
            self.whole = [self.whole[1], Some(first)];
        }
    }

    /// All that is needed to find the last cut lies from here on; `None`: no cut is on all lanes yet.
    pub(super) fn place(&self) -> Option<P> {
        self.whole[0].min(self.whole[1]).or(self.whole[1])
    }
}
