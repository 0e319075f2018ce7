//! The stream's tail: the last cut that is on all lanes, and how a new producer takes the stream over.

use super::producer::append;
use super::{Consumer, EventLog, LaneEvent, LaneProtocol, LaneRecord, Producer, StartAt, Tenure};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Cut, CutPoint, Epoch, Lane};
use std::sync::Arc;

/// How far back epochs are looked for that were taken and not seen, as a reach of [`EventLog::recent`]: minutes. An older producer that hasn't noticed in all that
/// time that it was overtaken is ended by nothing but its own failure to read the state store.
const UNSEEN_REACH: u32 = 2;

/// What a new producer finds on a stream.
#[derive(Debug, Clone, Default)]
pub struct LastCut {
    /// The highest epoch seen on the stream; the new producer takes a higher one.
    pub epoch: Option<Epoch>,
    /// The last cut that is on all lanes and not void: the new producer resumes from it. `None`: there is none.
    pub cut: Option<(CutPoint, Arc<Cut>)>,
}

/// A stream that was taken over.
#[derive(Debug)]
pub struct TakenOver {
    /// Its producer from now on.
    pub producer: Producer,
    /// The cut from which it resumes; `None`: the stream has none.
    pub cut: Option<(CutPoint, Arc<Cut>)>,
}

/// Looks for the last cut that is on all lanes, from the log's end backwards.
///
/// # Errors
/// Those of reading; `Corrupt` if the records contradict each other.
pub async fn find_last_cut(log: &dyn EventLog) -> Result<LastCut> {
    Ok(Tail::read(log, 0).await?.found)
}

/// Takes a stream over from whoever produced before: opens an epoch on each lane, and only then looks for the cut from which to resume. Behind
/// those records nothing of an older producer counts, so that cut is the last for good. `take_epoch` is given the highest epoch that was seen, and gives a higher one.
///
/// # Errors
/// Those of the log and of `take_epoch`; `Conflict` if another producer takes the stream over at the same time: the caller tries again.
pub async fn take_over(log: Arc<dyn EventLog>, take_epoch: impl AsyncFnOnce(Option<Epoch>) -> Result<Epoch>) -> Result<TakenOver> {
    let mut tail = Tail::read(log.as_ref(), 0).await?;
    let epoch = take_epoch(tail.found.epoch).await?;
    // who took one of these may have opened it before the place from which was read: then what an older producer wrote since is void, its cuts among it
    while tail.misses_epochs_before(epoch) && tail.reach < UNSEEN_REACH && !tail.is_whole {
        tracing::info!(%epoch, "epochs were taken that weren't seen on the stream; they are looked for further back");
        tail = Tail::read(log.as_ref(), tail.reach + 1).await?;
    }
    let mut tenure = Tenure { epoch, producer: Tenure::random_producer(), resumed_from: None };
    let opening = |lane| tenure.opening_in(Lane(lane), log.format());
    let openings: Vec<LaneRecord> = (0..log.identity().lanes).map(opening).collect::<Result<_>>()?;
    append(log.as_ref(), openings).await?;
    while !has_opened_all(tail.consumer.protocol(), log.identity().lanes, (epoch, tenure.producer))? {
        tail.follow().await?;
    }
    tenure.resumed_from = tail.found.cut.as_ref().map(|(point, _)| *point);
    Ok(TakenOver { producer: Producer::of(log, tenure), cut: tail.found.cut })
}

/// Whether the producer `own` has opened all lanes, as far as they were read; it's an error if another one came before it.
fn has_opened_all(protocol: &LaneProtocol, lanes: u16, own: (Epoch, u32)) -> Result<bool> {
    let openers = || (0..lanes).map(|lane| protocol.opened_by(Lane(lane)));
    if let Some(other) = openers().flatten().find(|other| other.0 >= own.0 && *other != own) {
        return Err(Error::new(Area::Stream, Kind::Conflict, "another producer has taken the stream over")
            .with("epoch", own.0)
            .with("its_epoch", other.0)
            .remedy("run one capture for a stream; this one tries again"));
    }
    Ok(openers().all(|opener| opener == Some(own)))
}

/// A reader of the stream's tail.
struct Tail {
    consumer: Consumer,
    found: LastCut,
    /// How far back it was read.
    reach: u32,
    /// Whether that was from the oldest record.
    is_whole: bool,
}

impl Tail {
    /// Reads from a place before the last cut to the log's end, from so far back at least.
    async fn read(log: &dyn EventLog, mut reach: u32) -> Result<Self> {
        loop {
            let position = log.recent(reach).await?;
            let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Anywhere).without_rows();
            let consumer = Consumer::open(log, position.as_ref(), protocol).await?;
            let mut tail = Self { consumer, found: LastCut::default(), reach, is_whole: position.is_none() };
            tail.follow().await?;
            if tail.is_whole || tail.found.cut.is_some() {
                return Ok(tail);
            }
            reach += 1;
        }
    }

    /// Whether there was an epoch between the last cut's and `own` that wasn't seen.
    fn misses_epochs_before(&self, own: Epoch) -> bool {
        let cut = self.found.cut.as_ref().map_or(Epoch(0), |(point, _)| point.epoch);
        let seen = self.consumer.protocol().epochs_between(cut, own) as u64;
        seen + 1 < own.0.saturating_sub(cut.0)
    }

    /// Reads what there is at the moment.
    async fn follow(&mut self) -> Result<()> {
        while let Some(event) = self.consumer.next_if_any().await? {
            if let LaneEvent::CutReached(reached) = event {
                self.found.cut = Some((reached.point, reached.cut));
            }
        }
        self.found.epoch = self.consumer.protocol().highest_epoch();
        Ok(())
    }
}
