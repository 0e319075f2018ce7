//! From a chunk to its records in another format.

use super::cell::{Cell, row_of};
use super::chunk_record::ChunkRecord;
use super::kpl::{UserRecord, aggregate};
use super::mark::Mark;
use super::row::Change;
use super::{Dialect, RecordFormat, debezium, dms};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{ChangeBatch, ChunkContent, ChunkHeader, Lane, Operation, Section, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most bytes of an aggregated record, where the log would take more: KCL and others hold many of them at once.
const AGGREGATE_BYTES: usize = 1 << 20;
/// Most bytes of a partition key.
const MOST_KEY_BYTES: usize = 256;
/// What a record takes in an aggregated one beside its own bytes, at most.
const AGGREGATED_EXTRA_BYTES: usize = 32;

/// One lane's way from chunks to records. Counts the rows of the lane's transactions from chunk to chunk.
#[derive(Debug)]
pub struct ChunkTranslator {
    format: RecordFormat,
    most_record_bytes: usize,
    /// All records of the lane have it, so that one shard has them.
    hash_key: String,
    current: Option<Transaction>,
    previous: Option<(TransactionStamp, u64)>,
}

/// A transaction whose rows are passing.
#[derive(Debug)]
struct Transaction {
    stamp: TransactionStamp,
    rows: u64,
    tables: BTreeMap<TableId, u64>,
}

/// The records of a chunk as they are made.
struct Output<'a> {
    header: &'a ChunkHeader,
    made_at: Timestamp,
    /// What may be put at once, one after the other.
    groups: Vec<Vec<UserRecord>>,
    marked: u64,
    crc: crc32fast::Hasher,
    shapes: Vec<(u64, TableSchema)>,
}

impl Output<'_> {
    /// A record that comes behind those of its key.
    fn push(&mut self, record: UserRecord) {
        match self.groups.last_mut() {
            Some(group) => group.push(record),
            None => self.groups.push(vec![record]),
        }
    }

    /// What comes next comes behind all that came before, whatever its key.
    fn barrier(&mut self) {
        self.groups.push(Vec::new());
    }

    fn mark(&self) -> Mark {
        Mark { lane: self.header.lane, epoch: self.header.epoch, chunk: self.header.index, number: self.marked }
    }
}

impl ChunkTranslator {
    /// For `lane` of `lanes`, on a log that takes records of `most_record_bytes`.
    pub fn new(format: RecordFormat, lane: Lane, lanes: u16, most_record_bytes: usize) -> Self {
        Self { format, most_record_bytes, hash_key: hash_key(lane, lanes), current: None, previous: None }
    }

    /// The records of the chunk with `header`, in their order; the last is the chunk's own. `made_at` is the clock's time. In groups: within one, only records
    /// of one partition key need to keep their order.
    ///
    /// # Errors
    /// `Refused` if the chunk's own record, which has its cut, is larger than the log's records may be.
    pub fn records(
        &mut self,
        header: &ChunkHeader,
        content: &ChunkContent,
        carries_cut: bool,
        made_at: Timestamp,
    ) -> Result<Vec<Vec<UserRecord>>> {
        let crc = crc32fast::Hasher::new();
        let mut out = Output { header, made_at, groups: Vec::new(), marked: 0, crc, shapes: Vec::new() };
        for section in &content.sections {
            match section {
                Section::Rows(batch) => self.rows(batch, &mut out)?,
                Section::Truncate { table, stamp } => {
                    let mark = out.mark();
                    let record = match &self.format.dialect {
                        Dialect::Dms => dms::truncate(table, stamp, mark, made_at),
                        Dialect::Debezium(options) => debezium::truncate(options, table, stamp, mark, made_at),
                    };
                    out.barrier();
                    self.marked(&mut out, table.to_string(), &record)?;
                    out.barrier();
                }
                Section::NewShape { schema, fill, stamp } => {
                    let mark = out.mark();
                    let fill = fill.as_ref().map(|fill| fill_image(schema, fill));
                    let record = match &self.format.dialect {
                        Dialect::Dms => dms::shape(schema, fill, stamp, mark, made_at)?,
                        Dialect::Debezium(options) => debezium::shape(options, schema, fill, stamp, mark, made_at)?,
                    };
                    out.barrier();
                    self.marked(&mut out, schema.table.to_string(), &record)?;
                    out.barrier();
                }
            }
        }
        if content.cut.is_some() {
            // a cut stands at a transaction's boundary
            self.end_transaction(&mut out);
        }
        let cut = content.cut.as_deref().filter(|_| carries_cut);
        let own = ChunkRecord::new(header, out.marked, out.crc.clone().finalize(), std::mem::take(&mut out.shapes), cut)?;
        let own = own.write(self.format.beside_chunk(made_at))?;
        self.check_size(own.len())?;
        let mut groups = out.groups;
        groups.retain(|group| !group.is_empty());
        if self.format.is_aggregated {
            // each holds many keys
            groups = self.aggregated(groups.into_iter().flatten()).into_iter().map(|record| vec![record]).collect();
        }
        groups.push(vec![self.user_record(own_key(header.lane), own)]);
        Ok(groups)
    }

    fn rows(&mut self, batch: &ChangeBatch, out: &mut Output<'_>) -> Result<()> {
        let known = out.shapes.iter().rev().find(|(_, shape)| shape.table == batch.schema.table);
        if known.is_none_or(|(_, shape)| *shape != *batch.schema) {
            out.shapes.push((out.marked, TableSchema::clone(&batch.schema)));
        }
        let mut updates = 0;
        for row in 0..batch.len() {
            let operation = Operation::from_code(batch.operations.value(row)).ok_or_else(|| Error::bug("an unknown operation"))?;
            let stamp = batch.transactions.get(batch.stamps.value(row) as usize);
            let stamp = stamp.ok_or_else(|| Error::bug("a row without a transaction"))?;
            self.enter(stamp, &batch.schema.table, out);
            let image = row_of(&batch.rows, row);
            let (before, after) = match operation {
                Operation::Delete => (Some(image), None),
                Operation::Update => {
                    let before = batch.before.as_ref().filter(|before| updates < before.num_rows());
                    (before.map(|before| row_of(before, updates)), Some(image))
                }
                Operation::Create | Operation::Read => (None, Some(image)),
            };
            updates += usize::from(operation == Operation::Update);
            let (number, number_of_table) = match &self.current {
                Some(current) => (current.rows, current.tables.get(&batch.schema.table).copied().unwrap_or(1)),
                None => (1, 1),
            };
            let previous = self.previous.as_ref().map(|(stamp, rows)| (stamp, *rows));
            let change = Change {
                schema: &batch.schema,
                operation,
                stamp,
                before,
                after,
                mark: out.mark(),
                number,
                number_of_table,
                previous,
                made_at: out.made_at,
            };
            let (key, record) = match &self.format.dialect {
                Dialect::Dms => (dms::partition_key(&change), dms::row(&change)),
                Dialect::Debezium(options) => (debezium::partition_key(options, &change), debezium::row(options, &change)),
            };
            let is_delete = change.operation == Operation::Delete;
            drop(change);
            self.marked(out, key.clone(), &record).map_err(|error| error.with("table", &batch.schema.table))?;
            if let (true, Dialect::Debezium(options)) = (is_delete, &self.format.dialect)
                && options.tombstones
            {
                out.push(self.user_record(key, Vec::new()));
            }
        }
        Ok(())
    }

    /// Counts a row in its transaction; tells of the transaction before it and of its own begin.
    fn enter(&mut self, stamp: &TransactionStamp, table: &TableId, out: &mut Output<'_>) {
        let is_same = |known: &TransactionStamp| known.gtid == stamp.gtid && known.coordinates == stamp.coordinates;
        if stamp.is_snapshot {
            return self.end_transaction(out);
        }
        if !self.current.as_ref().is_some_and(|current| is_same(&current.stamp)) {
            self.end_transaction(out);
            if let Some(options) = self.transaction_metadata() {
                let record = debezium::begin(options, stamp).to_string().into_bytes();
                out.push(self.user_record(options.topic_prefix.clone(), record));
            }
            self.current = Some(Transaction { stamp: stamp.clone(), rows: 0, tables: BTreeMap::new() });
        }
        if let Some(current) = &mut self.current {
            current.rows += 1;
            *current.tables.entry(table.clone()).or_default() += 1;
        }
    }

    fn end_transaction(&mut self, out: &mut Output<'_>) {
        let Some(ended) = self.current.take() else { return };
        if let Some(options) = self.transaction_metadata() {
            let rows = ended.tables.iter().map(|(table, rows)| (table, *rows));
            let record = debezium::end(options, &ended.stamp, rows).to_string().into_bytes();
            out.push(self.user_record(options.topic_prefix.clone(), record));
        }
        self.previous = Some((ended.stamp, ended.rows));
    }

    fn transaction_metadata(&self) -> Option<&super::DebeziumOptions> {
        match &self.format.dialect {
            Dialect::Debezium(options) if options.transaction_metadata => Some(options),
            _ => None,
        }
    }

    fn marked(&self, out: &mut Output<'_>, key: String, record: &Value) -> Result<()> {
        let text = record.to_string();
        out.crc.update(text.as_bytes());
        if self.fits(text.len(), key.len()) {
            out.push(self.user_record(key, text.into_bytes()));
        } else {
            let most = self.most_record_bytes - self.extra(key.len());
            let parts = self.format.parts(out.mark(), &key, &text, most, out.made_at)?;
            parts.into_iter().for_each(|part| out.push(self.user_record(key.clone(), part)));
        }
        out.marked += 1;
        Ok(())
    }

    fn user_record(&self, mut partition_key: String, bytes: Vec<u8>) -> UserRecord {
        // Kinesis takes no longer ones
        if partition_key.len() > MOST_KEY_BYTES {
            let end = (0..=MOST_KEY_BYTES).rev().find(|end| partition_key.is_char_boundary(*end));
            partition_key.truncate(end.unwrap_or(0));
        }
        UserRecord { partition_key, explicit_hash_key: Some(self.hash_key.clone()), bytes: bytes.into() }
    }

    /// What an aggregated record has beside the bytes and the key of the one in it.
    fn extra(&self, key_bytes: usize) -> usize {
        if self.format.is_aggregated { 256 + key_bytes } else { 0 }
    }

    fn fits(&self, bytes: usize, key_bytes: usize) -> bool {
        bytes + self.extra(key_bytes) <= self.most_record_bytes
    }

    fn check_size(&self, bytes: usize) -> Result<()> {
        if self.fits(bytes, 0) {
            return Ok(());
        }
        Err(Error::new(Area::Stream, Kind::Refused, "a cut is larger than a record of the stream may be in this format")
            .with("bytes", bytes)
            .with("most", self.most_record_bytes)
            .remedy("raise the stream's record size, set stream.claim_check = true, or use stream.format = \"binlake\""))
    }

    /// Packs records, in their order, into as few as may be.
    fn aggregated(&self, records: impl Iterator<Item = UserRecord>) -> Vec<UserRecord> {
        let most = self.most_record_bytes.min(AGGREGATE_BYTES.max(1));
        let (mut packed, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
        let pack = |group: &mut Vec<UserRecord>, packed: &mut Vec<UserRecord>| {
            if let Some(first) = group.first() {
                let partition_key = first.partition_key.clone();
                packed.push(UserRecord { partition_key, explicit_hash_key: Some(self.hash_key.clone()), bytes: aggregate(group) });
                group.clear();
            }
        };
        for record in records {
            let more = record.bytes.len() + record.partition_key.len() + AGGREGATED_EXTRA_BYTES;
            if bytes + more + 128 > most {
                pack(&mut group, &mut packed);
                bytes = 0;
            }
            if more + 128 > most {
                // every reader takes a plain record among aggregated ones
                packed.push(record);
                continue;
            }
            bytes += more;
            group.push(record);
        }
        pack(&mut group, &mut packed);
        packed
    }
}

impl RecordFormat {
    /// The record that opens an epoch on a lane.
    ///
    /// # Errors
    /// `Bug` if it can't be written.
    pub fn opening(&self, header: &ChunkHeader, made_at: Timestamp) -> Result<UserRecord> {
        let own = ChunkRecord::new(header, 0, 0, Vec::new(), None)?.write(self.beside_chunk(made_at))?;
        Ok(UserRecord { partition_key: own_key(header.lane), explicit_hash_key: None, bytes: own.into() })
    }

    pub(super) fn beside_chunk(&self, made_at: Timestamp) -> Value {
        match &self.dialect {
            Dialect::Dms => dms::beside_chunk(made_at),
            Dialect::Debezium(_) => debezium::beside_chunk(made_at),
        }
    }
}

/// The partition key of Binlake's own records.
fn own_key(lane: Lane) -> String {
    format!("binlake.{lane}")
}

/// What existing rows have in new columns, by name, as DMS writes values.
fn fill_image(schema: &TableSchema, fill: &RecordBatch) -> Value {
    let fields = fill.schema();
    let cells = fields.fields().iter().zip(fill.columns()).filter_map(|(field, array)| {
        let column = schema.columns.get(schema.index_of(field.name())?)?.clone();
        Some((column, Cell::of(array.as_ref(), 0).into_owned()))
    });
    dms::fill_image(cells).into()
}

/// A lane's explicit hash key: the middle of its share of all hash keys, in decimal.
pub(crate) fn hash_key(lane: Lane, lanes: u16) -> String {
    let half = (1_u128 << 127) / u128::from(lanes.max(1));
    (half * (2 * u128::from(lane.0) + 1)).to_string()
}

/// For who has no use for keys.
impl From<UserRecord> for Bytes {
    fn from(record: UserRecord) -> Self {
        record.bytes
    }
}
