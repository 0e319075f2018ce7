//! A log whose records are in another format than Binlake's own.
//!
//! The producer asks the log for its format and makes such records; reading, they are put together to chunks again before anybody sees them. So the
//! lane protocol, the merge and all commands know chunks alone.

use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::Result;
use crate::format::{RecordAssembly, RecordFormat};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A log of records in another format.
#[derive(Debug)]
pub struct FormattedLog {
    log: Arc<dyn EventLog>,
    format: RecordFormat,
}

impl FormattedLog {
    /// `log` with records of `format`; `None`: with chunks, as it is.
    pub fn over(log: Arc<dyn EventLog>, format: Option<RecordFormat>) -> Arc<dyn EventLog> {
        match format {
            Some(format) => Arc::new(Self { log, format }),
            None => log,
        }
    }
}

#[async_trait]
impl EventLog for FormattedLog {
    fn identity(&self) -> &LogIdentity {
        self.log.identity()
    }

    async fn append(&self, records: Vec<LaneRecord>) -> Result<()> {
        self.log.append(records).await
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let inner = self.log.read(after).await?;
        let assembly = RecordAssembly::new(self.format.clone());
        Ok(Box::new(FormattedReader { inner, assembly, batches: BTreeMap::new(), next_batch: 0 }))
    }

    async fn release(&self, position: &LogPosition) -> Result<()> {
        self.log.release(position).await
    }

    fn register_reader(&self, name: &str) -> Result<()> {
        self.log.register_reader(name)
    }

    fn forget_reader(&self, name: &str) -> Result<()> {
        self.log.forget_reader(name)
    }

    async fn leave(&self) -> Result<()> {
        self.log.leave().await
    }

    async fn shards(&self) -> Result<Option<u32>> {
        self.log.shards().await
    }

    async fn set_shards(&self, shards: u32) -> Result<()> {
        self.log.set_shards(shards).await
    }

    fn format(&self) -> Option<&RecordFormat> {
        Some(&self.format)
    }

    fn records_at_once(&self) -> usize {
        self.log.records_at_once()
    }

    fn orders_by_key(&self) -> bool {
        self.log.orders_by_key()
    }

    fn most_record_bytes(&self) -> usize {
        self.log.most_record_bytes()
    }

    fn retention(&self) -> Option<Duration> {
        self.log.retention()
    }

    async fn recent(&self, reach: u32) -> Result<Option<LogPosition>> {
        self.log.recent(reach).await
    }
}

#[derive(Debug)]
struct FormattedReader {
    inner: Box<dyn LogReader>,
    assembly: RecordAssembly,
    /// The positions before batches that unfinished chunks began in.
    batches: BTreeMap<u64, LogPosition>,
    next_batch: u64,
}

#[async_trait]
impl LogReader for FormattedReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        loop {
            let before = self.inner.position();
            let records = self.inner.next().await?;
            if records.is_empty() {
                return Ok(Vec::new());
            }
            self.batches.insert(self.next_batch, before);
            self.assembly.begin_batch(self.next_batch);
            self.next_batch += 1;
            let mut chunks = Vec::new();
            for record in records {
                let completed = self.assembly.accept(&record.bytes).map_err(|error| error.with("lane", record.lane))?;
                chunks.extend(completed.into_iter().map(|(lane, bytes)| LaneRecord { lane, bytes, partition_key: None }));
            }
            let needed_from = self.assembly.first_unfinished_batch().unwrap_or(self.next_batch);
            self.batches = self.batches.split_off(&needed_from);
            // records that complete nothing are no end of the log
            if !chunks.is_empty() {
                return Ok(chunks);
            }
        }
    }

    fn position(&self) -> LogPosition {
        match self.batches.first_key_value() {
            Some((_, before)) => before.clone(),
            None => self.inner.position(),
        }
    }
}
