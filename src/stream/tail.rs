//! The stream's tail: the last cut that is on all lanes, and how a new producer takes the stream over.

use super::producer::append;
use super::{Consumer, EventLog, LaneEvent, LaneProtocol, LaneRecord, Producer, StartAt, Tenure};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Cut, CutPoint, Epoch, Lane};
use std::sync::Arc;

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
    Ok(Tail::read(log).await?.found)
}

/// Takes a stream over from whoever produced before: opens an epoch on each lane, and only then looks for the cut from which to resume. Behind
/// those records nothing of an older producer counts, so that cut is the last for good. `take_epoch` is given the highest epoch that was seen, and gives a higher one.
///
/// # Errors
/// Those of the log and of `take_epoch`; `Conflict` if another producer takes the stream over at the same time: the caller tries again.
pub async fn take_over(log: Arc<dyn EventLog>, take_epoch: impl AsyncFnOnce(Option<Epoch>) -> Result<Epoch>) -> Result<TakenOver> {
    let mut tail = Tail::read(log.as_ref()).await?;
    let epoch = take_epoch(tail.found.epoch).await?;
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
}

impl Tail {
    /// Reads from a place before the last cut to the log's end.
    async fn read(log: &dyn EventLog) -> Result<Self> {
        let mut reach = 0;
        loop {
            let position = log.recent(reach).await?;
            let protocol = LaneProtocol::new(log.identity().lanes, StartAt::Anywhere).without_rows();
            let consumer = Consumer::open(log, position.as_ref(), protocol).await?;
            let mut tail = Self { consumer, found: LastCut::default() };
            tail.follow().await?;
            if position.is_none() || tail.found.cut.is_some() {
                return Ok(tail);
            }
            reach += 1;
        }
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
