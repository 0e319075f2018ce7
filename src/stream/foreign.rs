//! Streams that other systems write, read as if Binlake had written them.
//!
//! [`RecordSource`] is the seam: a folder of JSON lines and a Kinesis stream are such. [`ForeignLog`] puts decoding over it: the records become chunks
//! on one lane, and behind each batch of them a cut, so that apply loop, merge and checkpoint are the same as for streams of ours.
//!
//! **Why that is exact.** A record's identity is its shard and its number there ([`crate::event::Gtid::Record`]); a position is how many records of each shard were
//! read, and where the source goes on. Each reading is an epoch of its own, higher than all before: cuts of two readings are never taken for each other, and what a
//! table has is told by its position alone, which covers a record or doesn't, however the batches fall. A cut comes alone, behind the batch that it
//! covers, so the position in a checkpoint is exactly the cut's.

use super::{EventLog, LaneRecord, LogIdentity, LogPosition, LogReader};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{
    BinlogCoordinates, ChunkHeader, ChunkIndex, ChunkPayload, Cut, CutNumber, CutPoint, Epoch, Gtid, Lane, Lineage, Section,
    SourcePosition, TableId, TableState, TransactionStamp,
};
use crate::format::{ForeignBatch, ForeignDecoder, ForeignFormat, ForeignRecord, KnownLetters, dead_letter_table};
use crate::metrics::{BAD_VALUES, DEAD_LETTERS, FOREIGN_RECORDS};
use crate::time::Timestamp;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of records that others write, in shards with an order of their own.
#[async_trait]
pub trait RecordSource: Send + Sync + Debug {
    /// Names the very stream: positions of another one mean nothing here.
    fn stream_id(&self) -> String;

    /// Reads from `after` on; `None`: from the oldest record.
    async fn read(&self, after: Option<&str>) -> Result<Box<dyn RecordReader>>;

    /// Whether what was read up to `position` can still be what lies there: who reads from further back would take other records for those.
    ///
    /// # Errors
    /// `Corrupt` where it can't.
    async fn ensure_unchanged(&self, _position: &str) -> Result<()> {
        Ok(())
    }
}

/// A reader of a [`RecordSource`].
#[async_trait]
pub trait RecordReader: Send + Debug {
    /// The next records, those of a shard in their order and none twice; answers as [`LogReader::next`] does.
    async fn next(&mut self) -> Result<Vec<ForeignRecord>>;

    /// A position such that reading from it gives all records that `next` has not yet given out, and none that it has.
    fn position(&self) -> String;
}

/// Dead letters that somebody wants to be read once more.
#[async_trait]
pub trait RetryQueue: Send + Sync + Debug {
    /// The next lot that `is_done` doesn't know by its name.
    async fn next(&self, is_done: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Result<Option<RetryLot>>;
}

/// Dead letters of one table that are tried again together.
#[derive(Debug, Clone)]
pub struct RetryLot {
    /// Its name: the shard of its records.
    pub name: Arc<str>,
    /// The table.
    pub table: TableId,
    /// Position of the dead letter, and the record.
    pub letters: Vec<(String, ForeignRecord)>,
}

/// A stream of others', as a log with one lane. It is only read.
#[derive(Debug)]
pub struct ForeignLog {
    identity: LogIdentity,
    source: Arc<dyn RecordSource>,
    format: ForeignFormat,
    retries: Option<Arc<dyn RetryQueue>>,
    /// Tables that the lake has of this stream.
    tables: BTreeSet<TableId>,
    letters: KnownLetters,
    next_epoch: AtomicU64,
}

impl ForeignLog {
    /// The records of `source` in `format`; `tables` are those that the lake has of it, and `last_epoch` is the highest in their checkpoints.
    pub fn new(
        source: Arc<dyn RecordSource>,
        format: ForeignFormat,
        retries: Option<Arc<dyn RetryQueue>>,
        tables: BTreeSet<TableId>,
        last_epoch: Option<Epoch>,
    ) -> Self {
        let identity = LogIdentity { stream_id: source.stream_id(), lanes: 1 };
        let next_epoch = AtomicU64::new(last_epoch.map_or(1, |epoch| epoch.0 + 1));
        Self { identity, source, format, retries, tables, letters: KnownLetters::new(), next_epoch }
    }

    /// The same, for a position in a checkpoint.
    ///
    /// # Errors
    /// As [`RecordSource::ensure_unchanged`].
    pub async fn ensure_unchanged(&self, position: &LogPosition) -> Result<()> {
        match parse(position)?.source {
            Some(source) => self.source.ensure_unchanged(&source).await,
            None => Ok(()),
        }
    }

    /// Records that are dead letters already stay so.
    #[must_use]
    pub fn with_letters(self, letters: KnownLetters) -> Self {
        Self { letters, ..self }
    }
}

/// Where reading goes on: what a checkpoint has of such a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ForeignPosition {
    version: u32,
    /// The cut that covers all before.
    epoch: Epoch,
    cut: CutNumber,
    /// The source's position; `None`: the oldest record.
    source: Option<String>,
    /// Records read, by shard.
    counts: BTreeMap<Arc<str>, u64>,
}

#[async_trait]
impl EventLog for ForeignLog {
    fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    async fn append(&self, _: Vec<LaneRecord>) -> Result<()> {
        Err(Error::bug("a stream that others write was to be written"))
    }

    async fn read(&self, after: Option<&LogPosition>) -> Result<Box<dyn LogReader>> {
        let after = after.map(parse).transpose()?;
        let epoch = Epoch(self.next_epoch.fetch_add(1, Ordering::Relaxed));
        let resumed_from = after.as_ref().map(|after| CutPoint { epoch: after.epoch, number: after.cut });
        let after = after.unwrap_or_default();
        let source = self.source.read(after.source.as_deref()).await?;
        let decoder = ForeignDecoder::new(self.format.clone(), after.counts.clone()).with_letters(self.letters.clone());
        Ok(Box::new(ForeignReader {
            lineage: Lineage(self.identity.stream_id.clone()),
            covered: ForeignPosition { version: 1, ..after },
            source,
            retries: self.retries.clone(),
            epoch,
            resumed_from,
            index: ChunkIndex(0),
            window: resumed_from.map_or(CutNumber(1), |cut| cut.number.next()),
            starts_window: true,
            tables: decoder.shapes().into_keys().chain(self.tables.iter().cloned()).collect(),
            decoder,
            waiting: None,
            last_place: BinlogCoordinates { file: "".into(), offset: 0 },
            last_arrival: Timestamp::default(),
        }))
    }

    async fn release(&self, _: &LogPosition) -> Result<()> {
        // its own retention decides
        Ok(())
    }
}

fn parse(position: &LogPosition) -> Result<ForeignPosition> {
    let wrong = || {
        Error::new(Area::Stream, Kind::Corrupt, "a position on the stream is not one of a stream that others write")
            .with("position", &position.0)
    };
    let parsed: ForeignPosition = serde_json::from_str(&position.0).map_err(|error| wrong().caused_by(error))?;
    if parsed.version == 1 { Ok(parsed) } else { Err(wrong()) }
}

#[derive(Debug)]
struct ForeignReader {
    source: Box<dyn RecordReader>,
    retries: Option<Arc<dyn RetryQueue>>,
    decoder: ForeignDecoder,
    lineage: Lineage,
    /// Behind the last cut that was given out.
    covered: ForeignPosition,
    epoch: Epoch,
    resumed_from: Option<CutPoint>,
    index: ChunkIndex,
    window: CutNumber,
    starts_window: bool,
    /// All tables that this stream has had.
    tables: BTreeSet<TableId>,
    /// The cut behind what was given out last, and the position that it covers.
    waiting: Option<(Cut, ForeignPosition)>,
    last_place: BinlogCoordinates,
    last_arrival: Timestamp,
}

impl ForeignReader {
    fn chunk(&mut self, sections: &[Section], cut: Option<&Cut>) -> Result<LaneRecord> {
        let payload = ChunkPayload::encode(sections, cut)?;
        let header = ChunkHeader {
            lane: Lane(0),
            epoch: self.epoch,
            producer: 0,
            index: self.index,
            window: self.window,
            resumed_from: self.resumed_from,
            opens_epoch: false,
            starts_window: self.starts_window,
            ends_with_cut: cut.is_some(),
            payload_bytes: payload.bytes.len() as u64,
            part_start: 0,
            control_bytes: payload.control_bytes,
        };
        self.index = self.index.next();
        self.starts_window = cut.is_some();
        Ok(LaneRecord { lane: Lane(0), bytes: header.record(&payload.bytes), partition_key: None })
    }

    /// The chunk of a batch; its cut waits.
    fn take(&mut self, batch: ForeignBatch) -> Result<Vec<LaneRecord>> {
        for (table, count) in &batch.dead_letters {
            self.tables.insert(dead_letter_table(table));
            metrics::counter!(DEAD_LETTERS, "table" => table.to_string()).increment(*count);
            tracing::warn!(%table, count, "records can't be read: they are in the dead-letter area");
        }
        for (table, columns) in &batch.inferred {
            let columns: Vec<String> = columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
            tracing::info!(%table, columns = columns.join(", "), "columns are inferred; declare those that are to be otherwise");
        }
        for (table, count) in &batch.nulls {
            metrics::counter!(BAD_VALUES, "table" => table.to_string()).increment(*count);
        }
        self.tables.extend(self.decoder.shapes().into_keys());
        self.last_arrival = self.last_arrival.max(batch.last_arrival.unwrap_or_default());
        if let Some(place) = batch.last_place {
            self.last_place = place;
        }
        let position = ForeignPosition {
            version: 1,
            epoch: self.epoch,
            cut: self.window,
            source: Some(self.source.position()),
            counts: self.decoder.counts().clone(),
        };
        let cut = Cut {
            number: self.window,
            position: SourcePosition {
                lineage: self.lineage.clone(),
                coordinates: self.last_place.clone(),
                gtid_set: Some(self.decoder.read_so_far()),
            },
            source_commit_time: self.last_arrival,
            tables: self.tables.iter().map(|table| (table.clone(), TableState::Live)).collect(),
            schemas: BTreeMap::new(),
            rules: None,
            complete_until: None,
        };
        self.waiting = Some((cut, position));
        Ok(vec![self.chunk(&batch.sections, None)?])
    }

    /// What opens the epoch: the shapes that are known.
    fn opening(&mut self) -> Result<Vec<LaneRecord>> {
        let stamp = TransactionStamp {
            // of no shard, so that no position covers it
            gtid: Some(Gtid::Record { shard: "".into(), number: self.epoch.0 }),
            coordinates: self.last_place.clone(),
            source_commit_time: Timestamp::now(),
            is_snapshot: false,
        };
        let shapes = self.decoder.shapes().into_values();
        let sections = shapes.map(|schema| Section::NewShape { schema, fill: None, stamp: stamp.clone() }).collect();
        // what was read before this time says when the source was last heard of
        self.last_arrival = self.last_arrival.max(stamp.source_commit_time);
        self.index = ChunkIndex(1);
        let opening = ChunkHeader::opening(Lane(0), self.epoch, 0).record(&[]);
        let mut records = vec![LaneRecord { lane: Lane(0), bytes: opening, partition_key: None }];
        records.extend(self.take(ForeignBatch { sections, ..ForeignBatch::default() })?);
        Ok(records)
    }
}

#[async_trait]
impl LogReader for ForeignReader {
    async fn next(&mut self) -> Result<Vec<LaneRecord>> {
        if let Some((cut, position)) = self.waiting.take() {
            let record = self.chunk(&[], Some(&cut))?;
            self.window = self.window.next();
            self.covered = position;
            return Ok(vec![record]);
        }
        if self.index == ChunkIndex(0) {
            return self.opening();
        }
        if let Some(retries) = &self.retries {
            let counts = self.decoder.counts();
            let is_done = |name: &str| counts.contains_key(name);
            let lot = retries.next(&is_done).await?;
            if let Some(lot) = lot.filter(|lot| !lot.letters.is_empty()) {
                let batch = self.decoder.retry(&lot.table, &lot.letters)?;
                return self.take(batch);
            }
        }
        let records = self.source.next().await?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        metrics::counter!(FOREIGN_RECORDS, "stream" => self.lineage.0.clone()).increment(records.len() as u64);
        let batch = self.decoder.decode(&records)?;
        self.take(batch)
    }

    fn position(&self) -> LogPosition {
        // the cut that waits covers all that was given out
        let position = self.waiting.as_ref().map_or(&self.covered, |(_, position)| position);
        LogPosition(serde_json::to_string(position).unwrap_or_default())
    }
}
