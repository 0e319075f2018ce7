//! Records that other systems wrote: without marks and cuts of ours, each a transaction of its own.
//!
//! A record becomes rows, or what happens to a whole table, or a dead letter. Dead letters are rows of a table of their own, in the same windows as the
//! rows, so that they are written exactly once, by commits with checkpoints as all others. A record that is tried again takes its dead letter with it.

use super::assembly::{Sections, image_row};
use super::cell::Cell;
use super::kpl::{deaggregate, is_aggregated};
use super::plain::{PlainTable, Unreadable};
use super::row::{DecodedRecord, RowImage};
use super::{Dialect, debezium, dms};
use crate::error::{Error, Result};
use crate::event::{
    BinlogCoordinates, Column, Gtid, GtidSet, Operation, Section, SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::time::Timestamp;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the database of a table with dead letters begins with.
pub const DEAD_LETTERS: &str = "_dead_letter/";

/// What the records of a foreign stream are.
#[derive(Debug, Clone)]
pub enum ForeignFormat {
    /// Plain JSON: each record is a row of each of these tables.
    Plain(Vec<PlainTable>),
    /// Another system's change records, of the tables whose shapes are known, or declared in the stream; the dead letters of records
    /// that name no table go with the given one.
    Changes {
        /// Whose.
        dialect: Dialect,
        /// Shapes that are known.
        shapes: BTreeMap<TableId, Arc<TableSchema>>,
        /// Tables whose shape the configuration declares: the stream's own words don't change it.
        declared: Vec<TableId>,
        /// Where a record goes that names no table.
        unnamed: TableId,
    },
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct ForeignRecord {
    /// The shard, or the file.
    pub shard: Arc<str>,
    /// Where it begins in the shard, as far as that is a number.
    pub offset: u64,
    /// When the stream got it.
    pub arrived_at: Timestamp,
    /// What its producer wrote.
    pub bytes: Bytes,
}

/// Numbers and decodes records.
#[derive(Debug)]
pub struct ForeignDecoder {
    format: ForeignFormat,
    /// Records read, by shard.
    counts: BTreeMap<Arc<str>, u64>,
}

/// What a batch of records came to.
#[derive(Debug, Default)]
pub struct ForeignBatch {
    /// Rows and what happened to tables.
    pub sections: Vec<Section>,
    /// Dead letters by table.
    pub dead_letters: BTreeMap<TableId, u64>,
    /// Values that became NULL, by table.
    pub nulls: BTreeMap<TableId, u64>,
    /// When the last record arrived.
    pub last_arrival: Option<Timestamp>,
    /// The last record's place.
    pub last_place: Option<BinlogCoordinates>,
}

/// The table of a table's dead letters.
pub fn dead_letter_table(table: &TableId) -> TableId {
    TableId::new(format!("{DEAD_LETTERS}{}", table.database()), table.name())
}

/// The shape of all tables of dead letters: `position` is the key.
pub fn dead_letter_schema(table: &TableId) -> TableSchema {
    let text = || SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 };
    let column = |name: &str, source_type, nullable| Column { name: name.into(), source_type, nullable };
    TableSchema {
        table: dead_letter_table(table),
        columns: vec![
            column("position", text(), false),
            column("reason", text(), false),
            column("arrived_at", SourceType::Timestamp { fsp: 6 }, false),
            column("raw", SourceType::Binary { fixed_bytes: 0 }, false),
        ],
        key: vec![0],
    }
}

impl ForeignDecoder {
    /// A decoder that goes on behind so many records of each shard.
    pub fn new(format: ForeignFormat, counts: BTreeMap<Arc<str>, u64>) -> Self {
        Self { format, counts }
    }

    /// Records read, by shard.
    pub fn counts(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.counts
    }

    /// All records read so far, as a set.
    pub fn read_so_far(&self) -> GtidSet {
        let mut set = GtidSet::default();
        for (shard, number) in self.counts.iter().filter(|(_, number)| **number > 0) {
            set.add(&Gtid::Record { shard: Arc::clone(shard), number: *number });
        }
        set
    }

    /// The shapes that are known now.
    pub fn shapes(&self) -> BTreeMap<TableId, Arc<TableSchema>> {
        match &self.format {
            ForeignFormat::Plain(tables) => {
                tables.iter().map(|table| (table.schema().table.clone(), Arc::clone(table.schema()))).collect()
            }
            ForeignFormat::Changes { shapes, .. } => shapes.clone(),
        }
    }

    /// Decodes records, in their order.
    ///
    /// # Errors
    /// `Bug` if what was decoded doesn't fit together; records that can't be read are dead letters.
    pub fn decode(&mut self, records: &[ForeignRecord]) -> Result<ForeignBatch> {
        let mut batch = Batch::default();
        for record in records {
            let inner = if is_aggregated(&record.bytes) { deaggregate(&record.bytes) } else { None };
            match inner {
                Some(records) => records.into_iter().try_for_each(|user| self.one(record, user.bytes, None, &mut batch))?,
                None => self.one(record, record.bytes.clone(), None, &mut batch)?,
            }
            batch.done.last_arrival = batch.done.last_arrival.max(Some(record.arrived_at));
            batch.done.last_place = Some(BinlogCoordinates { file: Arc::clone(&record.shard), offset: record.offset });
        }
        batch.finish()
    }

    /// Decodes dead letters once more: `(position of the dead letter, record)`; `of` is the table that they are of.
    ///
    /// # Errors
    /// As [`ForeignDecoder::decode`].
    pub fn retry(&mut self, of: &TableId, letters: &[(String, ForeignRecord)]) -> Result<ForeignBatch> {
        let mut batch = Batch::default();
        for (position, record) in letters {
            self.one(record, record.bytes.clone(), Some((of, position)), &mut batch)?;
            batch.done.last_arrival = batch.done.last_arrival.max(Some(record.arrived_at));
            batch.done.last_place = Some(BinlogCoordinates { file: Arc::clone(&record.shard), offset: record.offset });
        }
        batch.finish()
    }

    fn one(&mut self, record: &ForeignRecord, bytes: Bytes, retried: Option<(&TableId, &str)>, batch: &mut Batch) -> Result<()> {
        let number = self.counts.entry(Arc::clone(&record.shard)).or_default();
        *number += 1;
        let stamp = TransactionStamp {
            gtid: Some(Gtid::Record { shard: Arc::clone(&record.shard), number: *number }),
            coordinates: BinlogCoordinates { file: Arc::clone(&record.shard), offset: record.offset },
            source_commit_time: record.arrived_at,
            is_snapshot: false,
        };
        if let Some((table, position)) = retried {
            // if it still can't be read, it comes again behind this
            batch.dead(table, Operation::Delete, &stamp, position, "", record.arrived_at, &bytes)?;
        }
        let position = retried.map_or_else(|| stamp.position_text(), |(_, position)| position.to_owned());
        match &mut self.format {
            ForeignFormat::Plain(tables) => {
                for table in tables.iter() {
                    if retried.is_some_and(|(of, _)| *of != table.schema().table) {
                        continue;
                    }
                    match table.row(&bytes) {
                        Ok((row, nulls)) => {
                            batch.nulls(&table.schema().table, nulls);
                            batch.row(table.schema(), Operation::Create, stamp.clone(), row)?;
                        }
                        Err(Unreadable(why)) => {
                            let of = &table.schema().table;
                            batch.dead(of, Operation::Create, &stamp, &position, &why, record.arrived_at, &bytes)?;
                        }
                    }
                }
                Ok(())
            }
            ForeignFormat::Changes { dialect, shapes, declared, unnamed } => {
                if bytes.is_empty() {
                    return Ok(());
                }
                let decoded = decode(dialect, &bytes, record.arrived_at);
                let applied = decoded.and_then(|decoded| apply(dialect, shapes, declared, decoded, &stamp, batch));
                match applied {
                    Ok(()) => Ok(()),
                    Err(Failed::Letter(table, why)) => {
                        let of = table.as_ref().unwrap_or(unnamed);
                        batch.dead(of, Operation::Create, &stamp, &position, &why, record.arrived_at, &bytes)
                    }
                    Err(Failed::Fault(error)) => Err(error),
                }
            }
        }
    }
}

/// Why a change record has no effect.
enum Failed {
    /// It is a dead letter, of this table.
    Letter(Option<TableId>, String),
    /// A fault of ours.
    Fault(Error),
}

fn decode(dialect: &Dialect, bytes: &[u8], arrived_at: Timestamp) -> Result<DecodedRecord, Failed> {
    let letter = |why: String| Failed::Letter(None, why);
    let record: Value = serde_json::from_slice(bytes).map_err(|error| letter(format!("it is not JSON: {error}")))?;
    let ours = record.get("binlake");
    if ours.is_some_and(|ours| ours.get("part").is_some() || ours.get("claim_check").is_some()) {
        // there is nobody here to put it together
        return Err(letter("it stands for a row that is larger than a record of the stream".into()));
    }
    let decoded = match dialect {
        Dialect::Dms => dms::decode(&record, arrived_at),
        Dialect::Debezium(_) => debezium::decode(&record, arrived_at),
    };
    decoded.map_err(|error| letter(detail(&error)))
}

/// What is wrong with a record, in a few words.
fn detail(error: &Error) -> String {
    let text = error.to_string();
    let detail = text.split(" detail=").nth(1).unwrap_or(&text);
    detail.split("; ").next().unwrap_or(detail).to_owned()
}

fn apply(
    dialect: &Dialect,
    shapes: &mut BTreeMap<TableId, Arc<TableSchema>>,
    declared: &[TableId],
    decoded: DecodedRecord,
    at: &TransactionStamp,
    batch: &mut Batch,
) -> Result<(), Failed> {
    // the place is the stream's, the time the source's
    let stamped = |stamp: TransactionStamp| TransactionStamp { source_commit_time: stamp.source_commit_time, ..at.clone() };
    match decoded {
        DecodedRecord::Nothing | DecodedRecord::Chunk(_) => Ok(()),
        DecodedRecord::Truncate { table, stamp, .. } => {
            if shapes.contains_key(&table) {
                batch.section(Section::Truncate { table, stamp: stamped(stamp) }).map_err(Failed::Fault)?;
            }
            Ok(())
        }
        DecodedRecord::Shape { schema, stamp, .. } => {
            let Some(mut schema) = schema.filter(|schema| !declared.contains(&schema.table)) else { return Ok(()) };
            if let Some(known) = shapes.get(&schema.table) {
                // columns that went stay in the lake
                let gone = known.columns.iter().filter(|column| schema.index_of(&column.name).is_none());
                let gone: Vec<Column> = gone.cloned().collect();
                schema.columns.extend(gone);
            }
            if schema.key.is_empty() {
                return Err(Failed::Letter(
                    Some(schema.table),
                    "the table has no key; declare `key` and `columns` in its [[table]]".into(),
                ));
            }
            let schema = Arc::new(schema);
            shapes.insert(schema.table.clone(), Arc::clone(&schema));
            batch.section(Section::NewShape { schema, fill: None, stamp: stamped(stamp) }).map_err(Failed::Fault)
        }
        DecodedRecord::Row { table, operation, stamp, before, after, .. } => {
            let stamp = stamped(stamp);
            let letter = |why: String| Failed::Letter(Some(table.clone()), why);
            let schema = shapes.get(&table).cloned();
            let schema =
                schema.ok_or_else(|| letter("the table's columns aren't known; declare `columns` in its [[table]]".into()))?;
            let decode: fn(&Column, &Value) -> Result<Cell<'static>, &'static str> = match dialect {
                Dialect::Dms => dms::value::decode,
                Dialect::Debezium(_) => debezium::value::decode,
            };
            let row = |image: &RowImage| image_row(&schema, image, decode).map_err(|error| letter(detail(&error)));
            let has_key = |row: &[Cell<'_>]| schema.key.iter().all(|i| row.get(*i).is_some_and(|cell| *cell != Cell::Null));
            let checked = |row: Vec<Cell<'static>>| if has_key(&row) { Ok(row) } else { Err(letter("its key is missing".into())) };
            if operation == Operation::Delete {
                let image = before.as_ref().or(after.as_ref()).ok_or_else(|| letter("it has no row".into()))?;
                let row = checked(row(image)?)?;
                return batch.row(&schema, Operation::Delete, stamp, row).map_err(Failed::Fault);
            }
            let image = after.as_ref().ok_or_else(|| letter("it has no row".into()))?;
            let new = checked(row(image)?)?;
            // a before image may have the changed columns alone
            let moved = before.as_ref().map(|before| {
                let mut old = image.clone();
                old.extend(before.iter().map(|(name, value)| (name.clone(), value.clone())));
                old
            });
            if let (Operation::Update, Some(old)) = (operation, moved) {
                let old = row(&old)?;
                if has_key(&old) && schema.key.iter().any(|i| old.get(*i) != new.get(*i)) {
                    batch.row(&schema, Operation::Delete, stamp.clone(), old).map_err(Failed::Fault)?;
                }
            }
            let operation = if operation == Operation::Update { Operation::Update } else { Operation::Create };
            batch.row(&schema, operation, stamp, new).map_err(Failed::Fault)
        }
    }
}

/// A batch as it is made: sections of the tables, and of dead letters, which would else cut them into pieces.
#[derive(Default)]
struct Batch {
    sections: Sections,
    letters: BTreeMap<TableId, (Arc<TableSchema>, Sections)>,
    done: ForeignBatch,
}

impl Batch {
    fn row(
        &mut self,
        schema: &Arc<TableSchema>,
        operation: Operation,
        stamp: TransactionStamp,
        row: Vec<Cell<'static>>,
    ) -> Result<()> {
        self.sections.row(schema, operation, stamp, row, None)
    }

    fn section(&mut self, section: Section) -> Result<()> {
        self.sections.push(section)
    }

    fn nulls(&mut self, table: &TableId, nulls: u64) {
        if nulls > 0 {
            *self.done.nulls.entry(table.clone()).or_default() += nulls;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a dead letter is all of these")]
    fn dead(
        &mut self,
        of: &TableId,
        operation: Operation,
        stamp: &TransactionStamp,
        position: &str,
        reason: &str,
        arrived_at: Timestamp,
        raw: &Bytes,
    ) -> Result<()> {
        if operation == Operation::Create {
            *self.done.dead_letters.entry(of.clone()).or_default() += 1;
        }
        let row = vec![
            Cell::Text(position.to_owned().into()),
            Cell::Text(reason.to_owned().into()),
            Cell::Micros(arrived_at.as_micros()),
            Cell::Bytes(raw.to_vec().into()),
        ];
        let (schema, sections) =
            self.letters.entry(of.clone()).or_insert_with(|| (Arc::new(dead_letter_schema(of)), Sections::default()));
        sections.row(schema, operation, stamp.clone(), row, None)
    }

    fn finish(mut self) -> Result<ForeignBatch> {
        self.done.sections = self.sections.finish()?;
        for (_, letters) in self.letters.into_values() {
            self.done.sections.extend(letters.finish()?);
        }
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests;
