//! Records that other systems wrote: without marks and cuts of ours, each a transaction of its own.
//!
//! A record becomes rows, or what happens to a whole table, or a dead letter. Dead letters are rows of a table of their own, in the same windows as the
//! rows, so that they are written exactly once, by commits with checkpoints as all others. A record that is tried again takes its dead letter with it.

use super::cell::Cell;
use super::changes::{ChangeTables, Failed};
use super::kpl::{UserRecord, deaggregate, is_aggregated};
use super::plain::{PlainColumn, PlainTable, Unreadable};
use super::sections::Sections;
use crate::error::{Error, Result};
use crate::event::{
    BinlogCoordinates, Column, Gtid, GtidSet, Operation, Section, SourceType, TableId, TableSchema, TransactionStamp,
};
use crate::time::Timestamp;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the database of a table with dead letters begins with.
pub const DEAD_LETTERS: &str = "_dead_letter/";

/// What the records of a foreign stream are.
#[derive(Debug, Clone)]
pub enum ForeignFormat {
    /// Plain JSON: each record is a row of each of these tables, whose columns may be inferred.
    Plain(Vec<PlainTable>),
    /// Another system's change records.
    Changes(ChangeTables),
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
    /// Its partition key, where the stream has such.
    pub key: Option<Arc<str>>,
    /// What its producer wrote.
    pub bytes: Bytes,
}

/// A record, and what it says if it is plain JSON.
struct Given {
    record: ForeignRecord,
    fields: Result<Map<String, Value>, String>,
}

/// Numbers and decodes records.
#[derive(Debug)]
pub struct ForeignDecoder {
    format: ForeignFormat,
    /// Records read, by shard.
    counts: BTreeMap<Arc<str>, u64>,
    letters: KnownLetters,
}

/// Of tables the positions of records that are dead letters already.
pub type KnownLetters = BTreeMap<TableId, BTreeSet<String>>;

/// What a batch of records came to.
#[derive(Debug, Default)]
pub struct ForeignBatch {
    /// Rows and what happened to tables.
    pub sections: Vec<Section>,
    /// Dead letters by table.
    pub dead_letters: BTreeMap<TableId, u64>,
    /// Values that became NULL, by table.
    pub nulls: BTreeMap<TableId, u64>,
    /// Columns that were inferred, by table.
    pub inferred: BTreeMap<TableId, Vec<PlainColumn>>,
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
        Self { format, counts, letters: KnownLetters::new() }
    }

    /// Nothing is made of records that are dead letters already: only who asks for them to be read again makes rows of them.
    #[must_use]
    pub fn with_letters(self, letters: KnownLetters) -> Self {
        Self { letters, ..self }
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
                tables.iter().filter_map(|table| Some((table.table().clone(), Arc::clone(table.schema()?)))).collect()
            }
            ForeignFormat::Changes(tables) => tables.shapes(),
        }
    }

    /// Decodes records, in their order.
    ///
    /// # Errors
    /// `Bug` if what was decoded doesn't fit together; records that can't be read are dead letters.
    pub fn decode(&mut self, records: &[ForeignRecord]) -> Result<ForeignBatch> {
        let mut batch = Batch::default();
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let inner = if is_aggregated(&record.bytes) { deaggregate(&record.bytes) } else { None };
            let user =
                |user: UserRecord| ForeignRecord { key: Some(user.partition_key.into()), bytes: user.bytes, ..record.clone() };
            match inner {
                Some(records) => all.extend(records.into_iter().map(user)),
                None => all.push(record.clone()),
            }
        }
        let all: Vec<Given> = all.into_iter().map(|record| Given { fields: self.fields(&record.bytes), record }).collect();
        self.learn(&all, None, &mut batch)?;
        all.iter().try_for_each(|given| self.one(given, None, &mut batch))?;
        batch.finish()
    }

    /// What plain records say.
    fn fields(&self, bytes: &[u8]) -> Result<Map<String, Value>, String> {
        match &self.format {
            ForeignFormat::Changes(_) => Ok(Map::new()),
            // a file may begin with a mark of its byte order
            ForeignFormat::Plain(_) => match serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)) {
                Ok(Value::Object(fields)) => Ok(fields),
                Ok(_) => Err("it is not a JSON object".into()),
                Err(error) => Err(format!("it is not JSON: {error}")),
            },
        }
    }

    /// Infers columns of records that come next.
    fn learn(&mut self, records: &[Given], of: Option<&TableId>, batch: &mut Batch) -> Result<()> {
        let ForeignFormat::Plain(tables) = &mut self.format else { return Ok(()) };
        let stamp = TransactionStamp {
            // of no shard, so that no position covers it
            gtid: Some(Gtid::Record { shard: "".into(), number: 1 }),
            coordinates: BinlogCoordinates { file: "".into(), offset: 0 },
            source_commit_time: records.iter().map(|given| given.record.arrived_at).max().unwrap_or_default(),
            is_snapshot: false,
        };
        let fields: Vec<&Map<String, Value>> = records.iter().filter_map(|given| given.fields.as_ref().ok()).collect();
        for table in tables.iter_mut().filter(|table| of.is_none_or(|of| of == table.table())) {
            let learned = table.learn(&fields);
            if let (false, Some(schema)) = (learned.is_empty(), table.schema()) {
                batch.section(Section::NewShape { schema: Arc::clone(schema), fill: None, stamp: stamp.clone() })?;
                batch.done.inferred.extend(learned);
            }
        }
        Ok(())
    }

    /// Decodes dead letters once more: `(position of the dead letter, record)`; `of` is the table that they are of.
    ///
    /// # Errors
    /// As [`ForeignDecoder::decode`].
    pub fn retry(&mut self, of: &TableId, letters: &[(String, ForeignRecord)]) -> Result<ForeignBatch> {
        let mut batch = Batch::default();
        let given = |record: &ForeignRecord| Given { fields: self.fields(&record.bytes), record: record.clone() };
        let all: Vec<Given> = letters.iter().map(|(_, record)| given(record)).collect();
        self.learn(&all, Some(of), &mut batch)?;
        for (given, (position, _)) in all.iter().zip(letters) {
            self.one(given, Some((of, position)), &mut batch)?;
        }
        batch.finish()
    }

    fn one(&mut self, given: &Given, retried: Option<(&TableId, &str)>, batch: &mut Batch) -> Result<()> {
        let record = &given.record;
        let bytes = &record.bytes;
        batch.done.last_arrival = batch.done.last_arrival.max(Some(record.arrived_at));
        batch.done.last_place = Some(BinlogCoordinates { file: Arc::clone(&record.shard), offset: record.offset });
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
            batch.dead(table, Operation::Delete, &stamp, position, "", record.arrived_at, bytes)?;
            if bytes.is_empty() {
                // its record was erased
                return Ok(());
            }
        }
        let position = retried.map_or_else(|| stamp.position_text(), |(_, position)| position.to_owned());
        let is_letter =
            |table: &TableId| retried.is_none() && self.letters.get(table).is_some_and(|letters| letters.contains(&position));
        match &mut self.format {
            ForeignFormat::Plain(tables) => {
                for table in tables.iter() {
                    if is_letter(table.table()) || retried.is_some_and(|(of, _)| of != table.table()) {
                        continue;
                    }
                    let row = given.fields.as_ref().map_err(|why| Unreadable(why.clone())).and_then(|fields| table.row(fields));
                    match (row, table.schema()) {
                        (Ok((row, nulls)), Some(schema)) => {
                            batch.nulls(table.table(), nulls);
                            batch.row(schema, Operation::Create, stamp.clone(), row)?;
                        }
                        (Ok(_), None) => return Err(Error::bug("a row of a table without a shape")),
                        (Err(Unreadable(why)), _) => {
                            let of = table.table();
                            batch.dead(of, Operation::Create, &stamp, &position, &why, record.arrived_at, bytes)?;
                        }
                    }
                }
                Ok(())
            }
            ForeignFormat::Changes(tables) => {
                if bytes.is_empty() || self.letters.keys().any(is_letter) {
                    return Ok(());
                }
                match tables.take(bytes, record.key.as_deref(), record.arrived_at, &stamp, batch) {
                    Ok(()) => Ok(()),
                    Err(Failed::Letter(table, why)) => {
                        let of = table.as_ref().unwrap_or(tables.unnamed());
                        batch.dead(of, Operation::Create, &stamp, &position, &why, record.arrived_at, bytes)
                    }
                    Err(Failed::Fault(error)) => Err(error),
                }
            }
        }
    }
}

/// A batch as it is made: sections of the tables, and of dead letters, which would else cut them into pieces.
#[derive(Default)]
pub(super) struct Batch {
    sections: Sections,
    letters: BTreeMap<TableId, (Arc<TableSchema>, Sections)>,
    done: ForeignBatch,
}

impl Batch {
    pub(super) fn row(
        &mut self,
        schema: &Arc<TableSchema>,
        operation: Operation,
        stamp: TransactionStamp,
        row: Vec<Cell<'static>>,
    ) -> Result<()> {
        self.sections.row(schema, operation, stamp, row, None)
    }

    pub(super) fn section(&mut self, section: Section) -> Result<()> {
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
