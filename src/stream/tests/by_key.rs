//! A log that keeps the order of each partition key alone, as calls of Kinesis do.

use crate::error::Result;
use crate::event::sample::{cut, ticket_changes};
use crate::event::{Epoch, Lane, Section};
use crate::format::{Dialect, RecordFormat};
use crate::stream::formatted::FormattedLog;
use crate::stream::*;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Of each call, the records of the last key come first.
#[derive(Debug)]
struct ByKey {
    log: MemoryLog,
    calls: Mutex<Vec<Vec<LaneRecord>>>,
}

#[async_trait]
impl EventLog for ByKey {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        self.calls.lock().unwrap().push(records.clone());
        let mut by_key: BTreeMap<Option<String>, Vec<LaneRecord>> = BTreeMap::new();
        for record in records {
            by_key.entry(record.partition_key.clone()).or_default().push(record);
        }
        self.log.append(by_key.into_values().rev().flatten().collect()).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        self.log.read(after).await
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.log.release(position).await
    }

    fn orders_by_key(&self) -> bool {
        true
    }
}

async fn deliver(log: Arc<dyn EventLog>) -> Vec<String> {
    let mut producer = take_over(log.clone(), async |_| Ok(Epoch(1))).await.unwrap().producer;
    let rows = |first| Section::Rows(ticket_changes(first, 40, 3));
    let Section::Rows(batch) = rows(0) else { unreachable!() };
    let truncate = Section::Truncate { table: batch.schema.table.clone(), stamp: batch.transactions[0].clone() };
    producer.send(Lane(0), vec![rows(0), truncate, rows(5)]).await.unwrap();
    producer.cut(vec![vec![rows(50)]], cut(1)).await.unwrap();
    producer.flush().await.unwrap();
    let mut consumer = Consumer::resume(log.as_ref(), None).await.unwrap();
    let mut said = Vec::new();
    while let Some(event) = consumer.next_if_any().await.unwrap() {
        said.push(format!("{event:?}"));
    }
    said
}

#[tokio::test(start_paused = true)]
async fn rows_of_many_keys_go_at_once_and_come_back_in_their_order() {
    let format = |is_aggregated| Some(RecordFormat { dialect: Dialect::Dms, is_aggregated });
    for is_aggregated in [false, true] {
        let by_key = Arc::new(ByKey { log: MemoryLog::new(1), calls: Mutex::default() });
        let said = deliver(FormattedLog::over(by_key.clone(), format(is_aggregated))).await;
        assert_eq!(said.len(), 3, "two chunks and a cut");
        let in_order = deliver(FormattedLog::over(Arc::new(MemoryLog::new(1)), format(is_aggregated))).await;
        let sections =
            |said: &[String]| said[..2].iter().map(|line| line.split_once("sections").unwrap().1.to_owned()).collect::<Vec<_>>();
        assert_eq!(sections(&said), sections(&in_order));
        // the opening; rows, TRUNCATE, rows, the chunk's own; rows, the chunk's own
        let calls: Vec<usize> = by_key.calls.lock().unwrap().iter().map(Vec::len).collect();
        let expected: &[usize] = if is_aggregated { &[1, 1, 1, 1, 1] } else { &[1, 40, 1, 40, 1, 40, 1] };
        assert_eq!(calls, expected);
    }
}
