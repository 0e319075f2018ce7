//! What the records of all lanes mean together: a pure state machine, without I/O or clock.
//!
//! **Within a lane** a producer's records have gapless indexes. The next index is taken, a lower one is a repeat and dropped, a higher one is a gap:
//! something is lost, and the answer is an error of kind `Corrupt`.
//!
//! **Producers** have epochs. A new one begins by opening its epoch on each lane: behind that record those of older ones are ignored, so on each lane the
//! epochs only rise. When all lanes are open, it is decided for ever which cut is the last one that all lanes have, and the new producer resumes from it.
//!
//! **Cuts** are reached when all lanes have them. Lanes that have nothing to say get cuts, too, so none holds the others back. Rows are handed
//! on as they come, with the number of the window that holds them; nothing is kept here but unfinished parts of chunks.
//!
//! **Void.** When a lane goes over to a new producer, what older ones put behind that lane's last cut will never be on all lanes: it is void, on every
//! lane. Which cuts are reached and what is void depends on the order within lanes alone, so all consumers agree, however the lanes interleave.
//! A cut that was reached is never taken back.
//!
//! **Positions.** When the first lane reaches a cut, all that comes after it on any lane is read from that batch or a later one. So the position
//! before that batch is where reading must start again to get all rows that the cut doesn't cover.

use super::{LaneRecord, LogPosition};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{ChunkHeader, ChunkIndex, ChunkPayload, Cut, CutNumber, CutPoint, Epoch, Lane, MAX_CHUNK_BYTES, Section};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where on the stream a consumer starts, and so what it must find there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the stream's first record. If that is gone, it is an error.
    Beginning,
    /// At the position that came with this cut. If a record after the cut is missing, it is an error. What the cut covers isn't handed on.
    AfterCut(CutPoint),
    /// Wherever the first records are: for who looks at the stream and doesn't need all of it.
    Anywhere,
}

impl StartAt {
    /// Whether a lane may begin with this record, which opens no epoch: nothing that is needed can have been before it.
    fn is_at(self, header: &ChunkHeader) -> bool {
        match self {
            StartAt::Beginning => false,
            StartAt::AfterCut(cut) => {
                let is_next = header.epoch == cut.epoch && header.window == cut.number.next() && header.starts_window;
                point(header) <= cut || (header.is_first_part() && is_next)
            }
            StartAt::Anywhere => true,
        }
    }
}

/// What a record brought about.
#[derive(Debug, Clone)]
pub enum LaneEvent {
    /// A chunk's sections.
    Sections {
        /// The producer.
        epoch: Epoch,
        /// The number of the cut that will cover them, if the producer comes to it.
        window: CutNumber,
        /// Their lane.
        lane: Lane,
        /// The index of the chunk's last record.
        index: ChunkIndex,
        /// The sections, in the order of the source.
        sections: Vec<Section>,
    },
    /// All lanes have this cut: its window is complete.
    CutReached(CutReached),
    /// What producers before `epoch` sent behind the cut `after_cut` will never be covered by a cut: it is void. A lane that comes later may lower
    /// `after_cut` further, but never below a cut that was reached.
    Void {
        /// The new producer.
        epoch: Epoch,
        /// The last cut that may still be reached; `None`: none.
        after_cut: Option<CutPoint>,
    },
}

/// A cut that all lanes have.
#[derive(Debug, Clone)]
pub struct CutReached {
    /// Which.
    pub point: CutPoint,
    /// What it says.
    pub cut: Arc<Cut>,
    /// From here on all can be read again that the cut doesn't cover: goes into the checkpoint, with `point`.
    pub position: LogPosition,
}

/// The state machine of one consumer.
#[derive(Debug)]
pub struct LaneProtocol {
    start: StartAt,
    skip_rows: bool,
    lanes: Vec<LaneState>,
    producers: BTreeMap<Epoch, Seen>,
    cuts: BTreeMap<CutPoint, PendingCut>,
    last_reached: Option<CutPoint>,
}

/// A producer that was seen.
#[derive(Debug)]
struct Seen {
    producer: u32,
    /// From which cut it goes on; the record that opens its epoch doesn't say that yet.
    resumed_from: Option<Option<CutPoint>>,
    /// What the last `Void` for its sake said.
    void_after: Option<Option<CutPoint>>,
}

#[derive(Debug, Default)]
struct LaneState {
    /// Whose record came last, and which is next; `None` before the first record.
    next: Option<(Epoch, ChunkIndex)>,
    /// The window of the next chunk, where it is known.
    window: Option<CutNumber>,
    last_cut: Option<CutPoint>,
    /// The producer that opened the lane last.
    opened_by: Option<(Epoch, u32)>,
    chunk: Joining,
}

impl LaneState {
    /// Notes a cut. A late one, of a producer before the start, doesn't count.
    fn passed(&mut self, cut: CutPoint) {
        self.last_cut = self.last_cut.max(Some(cut));
    }
}

/// A chunk whose parts are still coming.
#[derive(Debug, Default)]
enum Joining {
    /// None: the next record starts a chunk.
    #[default]
    No,
    /// Its first parts were before the start, or it isn't wanted.
    Skipped,
    /// These bytes of its payload have come.
    Yes(Vec<u8>),
}

#[derive(Debug)]
struct PendingCut {
    cut: Option<Cut>,
    lanes: usize,
    position: LogPosition,
}

impl LaneProtocol {
    /// A consumer of a stream with `lanes` lanes.
    pub fn new(lanes: u16, start: StartAt) -> Self {
        let last_cut = match start {
            StartAt::AfterCut(cut) => Some(cut),
            StartAt::Beginning | StartAt::Anywhere => None,
        };
        let lanes = (0..lanes).map(|_| LaneState { last_cut, ..LaneState::default() }).collect();
        Self { start, skip_rows: false, lanes, producers: BTreeMap::new(), cuts: BTreeMap::new(), last_reached: None }
    }

    /// The same, but rows aren't unpacked or handed on: only cuts and producers count.
    #[must_use]
    pub fn without_rows(mut self) -> Self {
        self.skip_rows = true;
        self
    }

    /// The highest epoch seen.
    pub fn highest_epoch(&self) -> Option<Epoch> {
        self.producers.keys().next_back().copied()
    }

    /// How many epochs were seen above one and below another.
    pub fn epochs_between(&self, above: Epoch, below: Epoch) -> usize {
        self.producers.keys().filter(|epoch| **epoch > above && **epoch < below).count()
    }

    /// The producer that opened a lane last: its epoch, and its number, drawn at random.
    pub fn opened_by(&self, lane: Lane) -> Option<(Epoch, u32)> {
        self.lanes.get(usize::from(lane.0)).and_then(|lane| lane.opened_by)
    }

    /// Takes the next record of a reader. `position` is the reader's position before it gave the record out (before the call of `next` that did).
    ///
    /// # Errors
    /// `Corrupt` if a record is damaged, or one is missing, or they contradict each other.
    pub fn accept(&mut self, position: &LogPosition, record: &LaneRecord) -> Result<Vec<LaneEvent>> {
        let mut events = Vec::new();
        match ChunkHeader::read(&record.bytes) {
            Ok((header, part)) => self
                .take(position, record.lane, &header, &part, &mut events)
                .map_err(|error| error.with("epoch", header.epoch).with("index", header.index).with("window", header.window)),
            Err(error) => Err(error),
        }
        .map_err(|error| error.with("lane", record.lane).with("log_position", &position.0))?;
        Ok(events)
    }

    fn take(
        &mut self,
        position: &LogPosition,
        lane: Lane,
        header: &ChunkHeader,
        part: &Bytes,
        events: &mut Vec<LaneEvent>,
    ) -> Result<()> {
        if header.lane != lane || usize::from(lane.0) >= self.lanes.len() {
            return Err(contradiction("a record lies on another lane than it names, or the stream has another number of lanes"));
        }
        if header.opens_epoch {
            self.open(header, events);
            return Ok(());
        }
        self.meet(header)?;
        if !self.advance(header, is_last_part(header, part))? || self.is_void(point(header)) {
            return Ok(());
        }
        let is_wanted = !matches!(self.start, StartAt::AfterCut(cut) if point(header) <= cut);
        let Some(payload) = self.join(header, part, is_wanted)? else { return Ok(()) };
        let has_rows = payload.len() > header.control_bytes as usize;
        if is_wanted && has_rows && !self.skip_rows {
            let sections = ChunkPayload::decode(&payload, header.control_bytes)?.sections;
            let (epoch, window, index) = (header.epoch, header.window, header.index);
            events.push(LaneEvent::Sections { epoch, window, lane, index, sections });
        }
        if header.ends_with_cut {
            self.lanes[usize::from(lane.0)].passed(point(header));
            if is_wanted {
                let cut = ChunkPayload::decode_cut(&payload, header.control_bytes)?;
                events.extend(self.reach(position, point(header), cut)?.map(LaneEvent::CutReached));
            }
        }
        Ok(())
    }

    /// A producer opens its epoch on a lane. What those before it put behind the lane's last cut is void.
    fn open(&mut self, header: &ChunkHeader, events: &mut Vec<LaneEvent>) {
        let lane = &mut self.lanes[usize::from(header.lane.0)];
        if lane.next.is_some_and(|(epoch, _)| epoch >= header.epoch) {
            return;
        }
        lane.next = Some((header.epoch, ChunkIndex(1)));
        lane.opened_by = Some((header.epoch, header.producer));
        lane.chunk = Joining::No;
        let after_cut = lane.last_cut;
        let has_older = self.producers.keys().next().is_some_and(|first| *first < header.epoch);
        let seen = self.producers.entry(header.epoch);
        let seen = seen.or_insert(Seen { producer: header.producer, resumed_from: None, void_after: None });
        if seen.void_after.is_none_or(|known| after_cut < known) {
            seen.void_after = Some(after_cut);
            if has_older {
                events.push(LaneEvent::Void { epoch: header.epoch, after_cut });
            }
        }
    }

    /// Notes the record's producer.
    fn meet(&mut self, header: &ChunkHeader) -> Result<()> {
        let (producer, resumed_from) = (header.producer, header.resumed_from);
        let seen = self.producers.entry(header.epoch).or_insert(Seen { producer, resumed_from: None, void_after: None });
        if seen.resumed_from.is_none() {
            // of those that opened lanes with one epoch, at most one goes on
            (seen.producer, seen.resumed_from) = (producer, Some(resumed_from));
        }
        if (seen.producer, seen.resumed_from) != (producer, Some(resumed_from)) {
            return Err(contradiction("two producers have one epoch"));
        }
        Ok(())
    }

    /// Whether a lane that went over to a later producer can't have the cut any more.
    fn is_void(&self, point: CutPoint) -> bool {
        let mut later = self.producers.iter().filter(|(epoch, _)| **epoch > point.epoch);
        later.any(|(_, seen)| seen.void_after.is_some_and(|after| Some(point) > after))
    }

    /// Whether the record is the lane's next one; if so, moves the lane past it.
    fn advance(&mut self, header: &ChunkHeader, is_last_part: bool) -> Result<bool> {
        let start = self.start;
        let lane = &mut self.lanes[usize::from(header.lane.0)];
        match lane.next {
            Some((epoch, _)) if header.epoch < epoch => return Ok(false),
            Some((epoch, next)) if header.epoch == epoch => {
                if header.index < next {
                    return Ok(false);
                }
                if header.index > next {
                    return Err(missing().with("expected_index", next));
                }
                if header.index == ChunkIndex(1) {
                    // it resumed from the last cut that all lanes had when it had opened them
                    let is_known = header.resumed_from <= lane.last_cut && header.resumed_from >= self.last_reached;
                    if start != StartAt::Anywhere && !is_known {
                        return Err(missing().with("resumed_from", format_args!("{:?}", header.resumed_from)));
                    }
                    lane.window = Some(header.resumed_from.map_or(CutNumber(1), |cut| cut.number.next()));
                }
            }
            // a late record of an older producer may have been the first
            Some(_) | None if start.is_at(header) => {
                lane.chunk = if header.is_first_part() { Joining::No } else { Joining::Skipped };
                lane.window = None;
            }
            Some(_) | None => return Err(missing()),
        }
        if lane.window.is_some_and(|window| window != header.window) {
            return Err(contradiction("a chunk is not of its lane's next window"));
        }
        lane.next = Some((header.epoch, header.index.next()));
        lane.window = Some(if is_last_part && header.ends_with_cut { header.window.next() } else { header.window });
        Ok(true)
    }

    /// Adds a part; gives the payload when it is whole and wanted.
    fn join(&mut self, header: &ChunkHeader, part: &Bytes, is_wanted: bool) -> Result<Option<Bytes>> {
        let lane = &mut self.lanes[usize::from(header.lane.0)];
        let is_last_part = is_last_part(header, part);
        if header.is_first_part() {
            if !matches!(lane.chunk, Joining::No) {
                return Err(contradiction("a chunk starts within another"));
            }
            if is_last_part {
                return Ok(Some(part.clone()));
            }
            if header.payload_bytes > MAX_CHUNK_BYTES {
                return Err(Error::new(Area::Stream, Kind::Corrupt, "a chunk on the stream is larger than can be read")
                    .with("bytes", header.payload_bytes)
                    .with("most", MAX_CHUNK_BYTES));
            }
            lane.chunk = Joining::Skipped;
            if is_wanted {
                let mut joined = Vec::new();
                let bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
                joined.try_reserve_exact(bytes).map_err(|error| {
                    Error::new(Area::Stream, Kind::Refused, "there is no memory for a large chunk")
                        .caused_by(error)
                        .with("bytes", bytes)
                })?;
                joined.extend_from_slice(part);
                lane.chunk = Joining::Yes(joined);
            }
            return Ok(None);
        }
        match &mut lane.chunk {
            Joining::No => return Err(contradiction("a chunk starts with a later part")),
            Joining::Skipped => {}
            Joining::Yes(joined) => {
                if joined.len() as u64 != header.part_start {
                    return Err(contradiction("the parts of a chunk don't follow each other"));
                }
                joined.extend_from_slice(part);
            }
        }
        if !is_last_part {
            return Ok(None);
        }
        match std::mem::take(&mut lane.chunk) {
            Joining::Yes(joined) => Ok(Some(joined.into())),
            // a cut before the start still counts as the lane's last one
            Joining::No | Joining::Skipped => {
                if header.ends_with_cut {
                    lane.passed(point(header));
                }
                Ok(None)
            }
        }
    }

    /// Notes that one more lane has a cut.
    fn reach(&mut self, position: &LogPosition, point: CutPoint, cut: Option<Cut>) -> Result<Option<CutReached>> {
        if cut.as_ref().is_some_and(|cut| cut.number != point.number) {
            return Err(contradiction("a cut has another number than its window"));
        }
        let pending = self.cuts.entry(point).or_insert_with(|| PendingCut { cut: None, lanes: 0, position: position.clone() });
        pending.lanes += 1;
        if cut.is_some() {
            pending.cut = cut;
        }
        if pending.lanes < self.lanes.len() {
            return Ok(None);
        }
        let later = self.cuts.split_off(&point);
        // cuts before it that not all lanes have are void, or were before the start
        self.cuts = later;
        let Some(PendingCut { cut, position, .. }) = self.cuts.remove(&point) else { return Ok(None) };
        self.last_reached = Some(point);
        let cut = cut.ok_or_else(|| contradiction("no lane has the cut itself"))?;
        let lowest = self.lanes.iter().filter_map(|lane| lane.next.map(|(epoch, _)| epoch)).min();
        self.producers.retain(|epoch, _| Some(*epoch) >= lowest);
        Ok(Some(CutReached { point, cut: Arc::new(cut), position }))
    }
}

fn is_last_part(header: &ChunkHeader, part: &Bytes) -> bool {
    header.part_start + part.len() as u64 == header.payload_bytes
}

/// The cut that will cover the record.
fn point(header: &ChunkHeader) -> CutPoint {
    CutPoint { epoch: header.epoch, number: header.window }
}

fn missing() -> Error {
    Error::new(Area::Stream, Kind::Corrupt, "records are missing on the stream").remedy(
        "if the stream's retention was too short, or the lake is another, take all tables anew with `binlake backfill`; else restore the stream's files",
    )
}

fn contradiction(what: &'static str) -> Error {
    Error::new(Area::Stream, Kind::Corrupt, what)
}
