//! Producer, log and consumer, by example.

use crate::event::sample::{cut, ticket_changes};
use crate::event::{CutNumber, CutPoint, Epoch, Lane, Section};
use crate::stream::*;
use std::sync::Arc;

async fn events(log: &MemoryLog, checkpoint: Option<(CutPoint, &LogPosition)>) -> Vec<LaneEvent> {
    let mut consumer = Consumer::resume(log, checkpoint).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        events.push(event);
    }
    events
}

fn text(events: &[LaneEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            LaneEvent::Sections { epoch, window, lane, sections, .. } => format!("e{epoch} w{window} l{lane}: {}", sections.len()),
            LaneEvent::CutReached(reached) => format!("cut {}", reached.point),
            LaneEvent::Void { epoch, after_cut } => {
                format!("void by e{epoch} after {}", after_cut.map_or("nothing".into(), |cut| cut.to_string()))
            }
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn rows_arrive_with_their_window_and_idle_lanes_hold_nothing_back() {
    let log = Arc::new(MemoryLog::new(3));
    let mut producer = Producer::new(log.clone(), Epoch(1), None);
    producer.send(Lane(1), vec![Section::Rows(ticket_changes(0, 10, 2))]).await.unwrap();
    producer.cut(vec![], cut(1)).await.unwrap();
    producer.cut(vec![vec![Section::Rows(ticket_changes(5, 10, 2))]], cut(2)).await.unwrap();
    producer.flush().await.unwrap();
    let events = events(&log, None).await;
    let mut said = text(&events);
    assert_eq!(said.pop().unwrap(), "cut 1/2");
    said.retain(|line| line != "cut 1/1");
    said.sort();
    assert_eq!(said, ["e1 w1 l1: 1", "e1 w2 l0: 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_producer_makes_void_what_lies_behind_its_cut() {
    let log = Arc::new(MemoryLog::new(2));
    let mut first = Producer::new(log.clone(), Epoch(1), None);
    first.cut(vec![], cut(1)).await.unwrap();
    first.send(Lane(0), vec![Section::Rows(ticket_changes(0, 10, 2))]).await.unwrap();
    first.flush().await.unwrap();
    let found = find_last_cut(log.as_ref()).await.unwrap();
    let (point, at) = found.cut.unwrap();
    assert_eq!((found.epoch, point.number, at.as_ref()), (Some(Epoch(1)), CutNumber(1), &cut(1)));
    let mut second = Producer::new(log.clone(), Epoch(2), Some(point));
    second.send(Lane(1), vec![Section::Rows(ticket_changes(5, 10, 2))]).await.unwrap();
    second.flush().await.unwrap();
    // the first doesn't know yet
    first.cut(vec![], cut(2)).await.unwrap();
    first.flush().await.unwrap();
    second.cut(vec![], cut(2)).await.unwrap();
    second.flush().await.unwrap();
    let events = events(&log, None).await;
    assert_eq!(text(&events), ["cut 1/1", "e1 w2 l0: 1", "void by e2 after 1/1", "e2 w2 l1: 1", "cut 2/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_gives_back_what_its_cut_does_not_cover() {
    let log = Arc::new(MemoryLog::new(2).with_most_record_bytes(400));
    let mut producer = Producer::new(log.clone(), Epoch(1), None);
    for number in 1..=3 {
        producer.send(Lane(0), vec![Section::Rows(ticket_changes(0, 40, 2))]).await.unwrap();
        producer.cut(vec![vec![], vec![Section::Rows(ticket_changes(0, 40, 2))]], cut(number)).await.unwrap();
        producer.flush().await.unwrap();
    }
    for event in events(&log, None).await {
        let LaneEvent::CutReached(reached) = event else { continue };
        let again = text(&events(&log, Some((reached.point, &reached.position))).await);
        let expected: usize = 3 - usize::try_from(reached.point.number.0).unwrap();
        assert_eq!(again.iter().filter(|line| line.starts_with("cut")).count(), expected, "{again:?}");
        assert_eq!(again.len(), expected * 3, "{again:?}");
        log.release(&reached.position).await.unwrap();
    }
}
