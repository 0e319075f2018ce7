//! From records back to chunks: of a stream that Binlake wrote in another format.
//!
//! Within a lane the records of a chunk are numbered, and its own record comes last. The others may come in any order, as a log that keeps that of each key
//! alone gives them. One that was there already is dropped; one that is missing at the end is damage; one of an older producer than the lane's is void. Where reading begins in the middle of a chunk, the chunk comes out as one whose beginning is
//! missing, as a chunk of several parts does: [`crate::stream::LaneProtocol`] knows what to do with it.

use super::cell::{Cell, CellColumns};
use super::chunk_record::ChunkRecord;
use super::kpl::{deaggregate, is_aggregated};
use super::large::{ClaimCheck, Part};
use super::mark::Mark;
use super::row::{DecodedRecord, RowImage};
use super::sections::{Sections, changed_bits};
use super::{Dialect, RecordFormat, damaged, debezium, dms};
use crate::error::Result;
use crate::event::{
    ChunkHeader, ChunkIndex, ChunkPayload, Column, Epoch, Lane, Operation, Section, TableId, TableSchema, TransactionStamp,
};
use crate::time::Timestamp;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Puts the chunks of all lanes together.
#[derive(Debug)]
pub struct RecordAssembly {
    format: RecordFormat,
    lanes: BTreeMap<Lane, LaneAssembly>,
    batch: u64,
}

#[derive(Debug, Default)]
struct LaneAssembly {
    /// The last chunk that came out.
    done: Option<(Epoch, ChunkIndex)>,
    current: Option<Assembling>,
}

/// A chunk whose records are coming: those of one partition key in their order, others in any.
#[derive(Debug)]
struct Assembling {
    place: (Epoch, ChunkIndex),
    records: BTreeMap<u64, Coming>,
    /// The batch in which it began.
    batch: u64,
}

/// A record of a chunk.
#[derive(Debug)]
enum Coming {
    Whole(Bytes),
    /// So many parts of it came, and this is what they say.
    Parts(u32, String),
}

impl Assembling {
    /// Takes a record, or a part of it; what was there already is dropped. A part whose first ones were before the start of reading means nothing.
    fn add(&mut self, number: u64, record: Bytes, part: Option<Part>) {
        let Some(part) = part else {
            self.records.entry(number).or_insert(Coming::Whole(record));
            return;
        };
        let coming = self.records.entry(number).or_insert_with(|| Coming::Parts(0, String::new()));
        if let Coming::Parts(next, text) = coming
            && part.number == *next
        {
            *next += 1;
            *text += &part.text;
            if part.is_last() {
                *coming = Coming::Whole(std::mem::take(text).into());
            }
        }
    }

    /// All records in the order of their numbers; `None`: not all of them came.
    fn finish(mut self, records: u64) -> Option<Vec<Bytes>> {
        let whole = |number| match self.records.remove(&number) {
            Some(Coming::Whole(record)) => Some(record),
            Some(Coming::Parts(..)) | None => None,
        };
        (0..records).map(whole).collect()
    }
}

impl RecordAssembly {
    /// For a stream of `format`.
    pub fn new(format: RecordFormat) -> Self {
        Self { format, lanes: BTreeMap::new(), batch: 0 }
    }

    /// Says that the next records are of the batch `batch`: batches are numbered upwards.
    pub fn begin_batch(&mut self, batch: u64) {
        self.batch = batch;
    }

    /// The first batch that has records of a chunk that didn't come out yet.
    pub fn first_unfinished_batch(&self) -> Option<u64> {
        self.lanes.values().filter_map(|lane| lane.current.as_ref().map(|current| current.batch)).min()
    }

    /// Takes the log's next record; gives the chunks that it completes, each as one of Binlake's own records.
    ///
    /// # Errors
    /// `Corrupt` if records are damaged or missing.
    pub fn accept(&mut self, record: &Bytes) -> Result<Vec<(Lane, Bytes)>> {
        let inner = if is_aggregated(record) { deaggregate(record) } else { None };
        let mut chunks = Vec::new();
        match inner {
            Some(records) => {
                for record in records {
                    chunks.extend(self.take(record.bytes)?);
                }
            }
            None => chunks.extend(self.take(record.clone())?),
        }
        Ok(chunks)
    }

    fn take(&mut self, record: Bytes) -> Result<Option<(Lane, Bytes)>> {
        if record.is_empty() {
            return Ok(None);
        }
        if let Some((mark, part)) = Part::read(&record)? {
            self.one(mark, record, Some(part))?;
            return Ok(None);
        }
        if ClaimCheck::read(&record)?.is_some() {
            return Err(damaged("a claim check was not fetched").remedy("set stream.claim_check = true, as who wrote it has"));
        }
        if ChunkRecord::is_one(&record) {
            return self.finish(ChunkRecord::read(&record)?);
        }
        if let Some(mark) = self.mark(&record)? {
            self.one(mark, record, None)?;
        }
        Ok(None)
    }

    /// The record with this mark has come, or a part of it.
    fn one(&mut self, mark: Mark, record: Bytes, part: Option<Part>) -> Result<()> {
        let batch = self.batch;
        let lane = self.lanes.entry(mark.lane).or_default();
        let place = (mark.epoch, mark.chunk);
        let newest = lane.done.max(lane.current.as_ref().map(|current| current.place));
        if lane.done >= Some(place) || newest > Some(place) {
            return Ok(());
        }
        let is_known = lane.current.as_ref().is_some_and(|current| current.place == place);
        if !is_known && lane.current.as_ref().is_some_and(|current| current.place.0 == place.0) {
            // the chunk before has no end
            return Err(missing(mark));
        }
        if !is_known {
            lane.current = Some(Assembling { place, records: BTreeMap::new(), batch });
        }
        if let Some(current) = &mut lane.current {
            current.add(mark.number, record, part);
        }
        Ok(())
    }

    /// The record's mark; `None`: it has none, and no meaning here.
    pub(super) fn mark(&self, record: &[u8]) -> Result<Option<Mark>> {
        #[derive(Deserialize)]
        struct Dms<'a> {
            #[serde(borrow)]
            metadata: Option<Metadata<'a>>,
        }
        #[derive(Deserialize)]
        struct Metadata<'a> {
            binlake: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        struct Debezium<'a> {
            #[serde(borrow)]
            source: Option<Source<'a>>,
            #[serde(borrow)]
            payload: Option<Payload<'a>>,
        }
        #[derive(Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            source: Option<Source<'a>>,
        }
        #[derive(Deserialize)]
        struct Source<'a> {
            sequence: Option<Cow<'a, str>>,
        }
        let wrong = |error: serde_json::Error| damaged("it is not JSON of the stream's format").caused_by(error);
        let mark = match &self.format.dialect {
            Dialect::Dms => {
                serde_json::from_slice::<Dms<'_>>(record).map_err(wrong)?.metadata.and_then(|metadata| metadata.binlake)
            }
            Dialect::Debezium(_) => {
                let record: Debezium<'_> = serde_json::from_slice(record).map_err(wrong)?;
                record.source.or_else(|| record.payload?.source).and_then(|source| source.sequence)
            }
        };
        Ok(mark.and_then(|mark| mark.parse().ok()))
    }

    /// The chunk's own record has come.
    fn finish(&mut self, chunk: ChunkRecord) -> Result<Option<(Lane, Bytes)>> {
        let (lane_of, place) = (chunk.lane, chunk.place());
        let lane = self.lanes.entry(lane_of).or_default();
        let newest = lane.done.max(lane.current.as_ref().map(|current| current.place));
        if lane.done >= Some(place) || newest > Some(place) {
            return Ok(None);
        }
        let at = |error: crate::error::Error| error.with("lane", lane_of).with("epoch", place.0).with("index", place.1);
        let current = lane.current.take().filter(|current| current.place == place);
        let records = match current {
            Some(current) => current.finish(chunk.records),
            None => (chunk.records == 0).then(Vec::new),
        };
        let Some(records) = records else {
            if lane.done.is_some() {
                return Err(at(damaged("records of a chunk are missing")));
            }
            lane.done = Some(place);
            // some of it was before the start of reading: the end of a chunk of two parts
            let header = ChunkHeader { part_start: 1, ..chunk.header(2, 0) };
            return Ok(Some((lane_of, header.record(b"."))));
        };
        lane.done = Some(place);
        let mut crc = crc32fast::Hasher::new();
        records.iter().for_each(|record| crc.update(record));
        if chunk.records > 0 && crc.finalize() != chunk.crc {
            return Err(at(damaged("a chunk's records are not those that were written")));
        }
        let sections = self.sections(&chunk, &records).map_err(at)?;
        let payload = ChunkPayload::encode(&sections, chunk.cut().map_err(at)?.as_ref())?;
        let header = chunk.header(payload.bytes.len() as u64, payload.control_bytes);
        Ok(Some((lane_of, header.record(&payload.bytes))))
    }

    fn sections(&self, chunk: &ChunkRecord, records: &[Bytes]) -> Result<Vec<Section>> {
        let mut sections = Sections::default();
        let mut shapes: BTreeMap<TableId, Arc<TableSchema>> = BTreeMap::new();
        let mut next_shape = 0;
        for (number, record) in (0..).zip(records) {
            while let Some((from, shape)) = chunk.shapes.get(next_shape)
                && *from <= number
            {
                shapes.insert(shape.table.clone(), Arc::new(shape.clone()));
                next_shape += 1;
            }
            let record: Value = serde_json::from_slice(record).map_err(|error| damaged("it is not JSON").caused_by(error))?;
            let decoded = match &self.format.dialect {
                Dialect::Dms => dms::decode(&record, Timestamp::default())?,
                Dialect::Debezium(_) => debezium::decode(&record, Timestamp::default())?,
            };
            match decoded {
                DecodedRecord::Row { table, operation, stamp, before, after, .. } => {
                    let schema = shapes.get(&table).ok_or_else(|| damaged("a row's table has no shape"))?;
                    self.row(&mut sections, schema, operation, stamp, before, after)
                        .map_err(|error| error.with("table", &table))?;
                }
                DecodedRecord::Truncate { table, stamp, .. } => sections.push(Section::Truncate { table, stamp })?,
                DecodedRecord::Shape { schema: Some(schema), fill, stamp, .. } => {
                    let fill = fill.map(|fill| fill_batch(&schema, &fill)).transpose()?;
                    sections.push(Section::NewShape { schema: Arc::new(schema), fill, stamp })?;
                }
                DecodedRecord::Shape { .. } | DecodedRecord::Several(_) | DecodedRecord::Chunk(_) | DecodedRecord::Nothing => {
                    return Err(damaged("a record with a mark says nothing"));
                }
            }
        }
        sections.finish()
    }

    fn row(
        &self,
        sections: &mut Sections,
        schema: &Arc<TableSchema>,
        operation: Operation,
        stamp: TransactionStamp,
        before: Option<RowImage>,
        after: Option<RowImage>,
    ) -> Result<()> {
        let decode: fn(&Column, &Value) -> Result<Cell<'static>, &'static str> = match &self.format.dialect {
            Dialect::Dms => dms::value::decode,
            Dialect::Debezium(_) => debezium::value::decode,
        };
        let row = |image: &RowImage| image_row(schema, image, decode);
        let is_delete = operation == Operation::Delete;
        // a row that was deleted is `before` of Debezium's events and `data` of DMS's
        let image = if is_delete { before.as_ref().or(after.as_ref()) } else { after.as_ref() };
        let image = row(image.ok_or_else(|| damaged("a row is missing"))?)?;
        let changed = match (operation, before.as_ref().filter(|_| !is_delete)) {
            (Operation::Update, Some(before)) => Some(changed_bits(&row(before)?, &image)),
            _ => None,
        };
        sections.row(schema, operation, stamp, image, changed)
    }
}

fn missing(mark: Mark) -> crate::error::Error {
    damaged("records are missing").with("lane", mark.lane).with("epoch", mark.epoch).with("index", mark.chunk)
}

/// A row's cells; columns that the image lacks are NULL.
pub(super) fn image_row(
    schema: &TableSchema,
    image: &RowImage,
    decode: impl Fn(&Column, &Value) -> Result<Cell<'static>, &'static str>,
) -> Result<Vec<Cell<'static>>> {
    let cell = |column: &Column| match image.get(&column.name) {
        Some(value) => decode(column, value).map_err(|what| damaged(what).with("column", &column.name)),
        None => Ok(Cell::Null),
    };
    schema.columns.iter().map(cell).collect()
}

fn fill_batch(schema: &TableSchema, fill: &RowImage) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut row = Vec::new();
    for (name, value) in fill {
        let column = schema.index_of(name).and_then(|i| schema.columns.get(i));
        let column = column.ok_or_else(|| damaged("a shape fills a column that it lacks"))?;
        fields.push(Field::new(name, column.source_type.lake_type(), true));
        row.push(dms::value::decode(column, value).map_err(damaged)?);
    }
    let mut columns = CellColumns::new(Arc::new(Schema::new(fields)));
    columns.push(row);
    columns.finish()
}
