//! A producer: all lanes of one epoch, one chunk in flight on each.

use super::{ChunkRecords, EventLog, LaneRecord, LaneWriter, Tenure};
use crate::error::{Error, Result};
use crate::event::{ChunkContent, Cut, CutNumber, Epoch, Lane, Section};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The pauses between attempts grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Encodes chunks and appends them, each lane on its own task, with at most one chunk of a lane under way.
///
/// Transient failures are tried again with the same bytes, for ever; any other error comes out of the next call for that lane, and then
/// the producer is of no use any more. Dropping it gives up what is under way.
#[derive(Debug)]
pub struct Producer {
    log: Arc<dyn EventLog>,
    epoch: Epoch,
    lanes: Vec<LaneSlot>,
    next_cut: CutNumber,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a lane, and mostly idle")]
enum LaneSlot {
    Idle(LaneWriter),
    Busy(JoinHandle<Result<LaneWriter>>),
    Failed,
}

impl Producer {
    /// The producer whose time is `tenure`, on lanes that it has opened: see [`take_over`](super::take_over).
    pub(super) fn of(log: Arc<dyn EventLog>, tenure: Tenure) -> Self {
        let Tenure { epoch, resumed_from, .. } = tenure;
        let most = log.most_record_bytes();
        let count = log.identity().lanes;
        let writer = |lane| LaneWriter::new(Lane(lane), tenure, most).in_format(log.format(), count);
        let lanes = (0..count).map(|lane| LaneSlot::Idle(writer(lane))).collect();
        Self { log, epoch, lanes, next_cut: resumed_from.map_or(CutNumber(1), |cut| cut.number.next()) }
    }

    /// This producer's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number that the next cut must have.
    pub fn next_cut(&self) -> CutNumber {
        self.next_cut
    }

    /// Sends a chunk without a cut: returns as soon as the lane's previous chunk is durable.
    ///
    /// # Errors
    /// What kept an earlier chunk of the lane from being encoded or appended.
    pub async fn send(&mut self, lane: Lane, sections: Vec<Section>) -> Result<()> {
        self.put(lane, ChunkContent { sections, cut: None }).await
    }

    /// The lanes whose last chunk is durable: a chunk for one of these is under way at once.
    pub fn idle_lanes(&self) -> Vec<Lane> {
        let is_idle = |slot: &LaneSlot| match slot {
            LaneSlot::Idle(_) => true,
            LaneSlot::Busy(task) => task.is_finished(),
            LaneSlot::Failed => false,
        };
        (0..).map(Lane).zip(&self.lanes).filter_map(|(lane, slot)| is_idle(slot).then_some(lane)).collect()
    }

    /// Ends the window on all lanes: sends what each still has (`rest[lane]`; missing: nothing), and the cut behind it. Returns as soon as all
    /// lanes' previous chunks are durable; the cut itself is when [`Producer::flush`] returns.
    ///
    /// # Errors
    /// As [`Producer::send`]; `Bug` if the cut isn't the next one.
    pub async fn cut(&mut self, mut rest: Vec<Vec<Section>>, cut: Cut) -> Result<()> {
        if cut.number != self.next_cut {
            return Err(Error::bug("a cut is not the next one").with("cut", cut.number).with("next", self.next_cut));
        }
        let cut = Arc::new(cut);
        rest.resize_with(self.lanes.len(), Vec::new);
        for (lane, sections) in (0..).map(Lane).zip(rest) {
            self.put(lane, ChunkContent { sections, cut: Some(cut.clone()) }).await?;
        }
        self.next_cut = self.next_cut.next();
        metrics::counter!(crate::metrics::CUTS).increment(1);
        Ok(())
    }

    /// Returns when all that was sent is durable.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn flush(&mut self) -> Result<()> {
        for lane in 0..self.lanes.len() {
            let writer = self.idle(lane).await?;
            self.lanes[lane] = LaneSlot::Idle(writer);
        }
        Ok(())
    }

    async fn put(&mut self, lane: Lane, content: ChunkContent) -> Result<()> {
        let lane = usize::from(lane.0);
        let writer = self.idle(lane).await?;
        self.lanes[lane] = LaneSlot::Busy(tokio::spawn(deliver(self.log.clone(), writer, content)));
        Ok(())
    }

    /// Waits for the lane's chunk under way, and takes its writer. If the wait is cancelled, the chunk is still under way.
    async fn idle(&mut self, lane: usize) -> Result<LaneWriter> {
        let Some(slot) = self.lanes.get_mut(lane) else {
            return Err(Error::bug("a chunk for a lane that the stream does not have").with("lane", lane));
        };
        let delivered = match slot {
            LaneSlot::Busy(task) => Some(task.await),
            LaneSlot::Idle(_) | LaneSlot::Failed => None,
        };
        match (delivered, std::mem::replace(slot, LaneSlot::Failed)) {
            (Some(Ok(outcome)), _) => outcome,
            (Some(Err(panic)), _) => Err(Error::bug("a chunk's task has died").caused_by(panic)),
            (None, LaneSlot::Idle(writer)) => Ok(writer),
            (None, _) => Err(Error::bug("a lane was used after it has failed").with("lane", lane)),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        for slot in &self.lanes {
            if let LaneSlot::Busy(task) = slot {
                task.abort();
            }
        }
    }
}

/// Encodes one chunk, off the runtime's threads, and appends its records one after the other.
async fn deliver(log: Arc<dyn EventLog>, mut writer: LaneWriter, content: ChunkContent) -> Result<LaneWriter> {
    let encode = move || {
        let records = writer.encode(&content);
        records.map(|records| (writer, records))
    };
    let encoded: Result<(LaneWriter, ChunkRecords)> =
        tokio::task::spawn_blocking(encode).await.map_err(|panic| Error::bug("encoding a chunk has died").caused_by(panic))?;
    let (writer, mut records) = encoded?;
    metrics::counter!(crate::metrics::CHUNKS).increment(1);
    while let Some(call) = records.next_call(log.as_ref()) {
        let bytes: usize = call.iter().map(|record| record.bytes.len()).sum();
        append(log.as_ref(), call).await?;
        metrics::counter!(crate::metrics::CHUNK_BYTES).increment(bytes as u64);
    }
    Ok(writer)
}

/// Appends records again and again while the log's failures are transient.
pub(super) async fn append(log: &dyn EventLog, records: Vec<LaneRecord>) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = log.append(records.clone()).await {
        if !error.is_transient() {
            return Err(error);
        }
        let lane = records.first().map(|record| record.lane.0);
        tracing::warn!(lane, %error, "an append is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}
