//! Other systems' change records, put to use: which tables are wanted, what is known of their shapes, and what each record says of them.
//!
//! A table's shape comes from where it is said: the configuration; a statement about the table (DMS's control records, Debezium's schema changes); the schema
//! that a Debezium record has beside it. Columns come and become wider; one that goes stays in the lake, and is NULL from then on.

use super::assembly::image_row;
use super::cell::Cell;
use super::debezium::connect::{ConnectField, row_fields};
use super::evolve::{Word, key_names, key_of, merged};
use super::foreign::Batch;
use super::row::{DecodedRecord, RowImage};
use super::{Dialect, debezium, dms};
use crate::error::Error;
use crate::event::{Column, Operation, Section, TableId, TableSchema, TransactionStamp};
use crate::time::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of a table that is wanted.
#[derive(Debug, Clone, Default)]
pub struct ChangeTable {
    /// Its shape.
    pub schema: Option<Arc<TableSchema>>,
    /// Whether the configuration declares the shape: the stream's own words don't change it.
    pub is_declared: bool,
    /// The key's columns that the configuration names; empty: what the stream says.
    pub key: Vec<String>,
}

/// Another system's change records, of some tables.
#[derive(Debug, Clone)]
pub struct ChangeTables {
    dialect: Dialect,
    tables: BTreeMap<TableId, ChangeTable>,
    /// Where a record goes that names no table.
    unnamed: TableId,
    /// The schema that a table's last record had, and what it means: most records have the same.
    last_schemas: BTreeMap<TableId, (Value, Arc<Vec<ConnectField>>)>,
}

/// Why a change record has no effect.
pub(super) enum Failed {
    /// It is a dead letter, of this table.
    Letter(Option<TableId>, String),
    /// A fault of ours.
    Fault(Error),
}

/// A row's record, as far as it concerns its row.
struct RowRecord {
    operation: Operation,
    stamp: TransactionStamp,
    before: Option<RowImage>,
    after: Option<RowImage>,
}

impl ChangeTables {
    /// Records of `dialect`; those of other tables are passed over, and the dead letters of records that name no table go with `unnamed`.
    pub fn new(dialect: Dialect, tables: BTreeMap<TableId, ChangeTable>, unnamed: TableId) -> Self {
        Self { dialect, tables, unnamed, last_schemas: BTreeMap::new() }
    }

    pub(super) fn unnamed(&self) -> &TableId {
        &self.unnamed
    }

    pub(super) fn shapes(&self) -> BTreeMap<TableId, Arc<TableSchema>> {
        let known = self.tables.iter().filter_map(|(table, known)| Some((table.clone(), Arc::clone(known.schema.as_ref()?))));
        known.collect()
    }

    /// Takes a record that stands at `at` and has the partition key `key`.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        key: Option<&str>,
        arrived_at: Timestamp,
        at: &TransactionStamp,
        batch: &mut Batch,
    ) -> Result<(), Failed> {
        let letter = |why: String| Failed::Letter(None, why);
        let record: Value = serde_json::from_slice(bytes).map_err(|error| letter(format!("it is not JSON: {error}")))?;
        let ours = record.get("binlake");
        if ours.is_some_and(|ours| ours.get("part").is_some() || ours.get("claim_check").is_some()) {
            // there is nobody here to put it together
            return Err(letter("it stands for a row that is larger than a record of the stream".into()));
        }
        let decoded = match self.dialect {
            Dialect::Dms => dms::decode(&record, arrived_at),
            Dialect::Debezium(_) => debezium::decode(&record, arrived_at),
        };
        self.apply(decoded.map_err(|error| letter(detail(&error)))?, &record, key, at, batch)
    }

    fn apply(
        &mut self,
        decoded: DecodedRecord,
        record: &Value,
        key: Option<&str>,
        at: &TransactionStamp,
        batch: &mut Batch,
    ) -> Result<(), Failed> {
        // the place is the stream's, the time the source's
        let stamped = |stamp: TransactionStamp| TransactionStamp { source_commit_time: stamp.source_commit_time, ..at.clone() };
        match decoded {
            DecodedRecord::Nothing | DecodedRecord::Chunk(_) => Ok(()),
            DecodedRecord::Several(all) => all.into_iter().try_for_each(|one| self.apply(one, record, key, at, batch)),
            DecodedRecord::Truncate { table, stamp, .. } => {
                if self.tables.get(&table).is_some_and(|known| known.schema.is_some()) {
                    batch.section(Section::Truncate { table, stamp: stamped(stamp) }).map_err(Failed::Fault)?;
                }
                Ok(())
            }
            DecodedRecord::Shape { schema, stamp, .. } => match schema {
                Some(schema) => self.learn(schema, Word::Statement, &stamped(stamp), batch),
                None => Ok(()),
            },
            DecodedRecord::Row { table, operation, stamp, before, after, .. } => {
                if !self.tables.contains_key(&table) {
                    return Ok(());
                }
                let stamp = stamped(stamp);
                let fields = self.fields(&table, record);
                if let Some(fields) = &fields {
                    let columns = fields.iter().map(|field| field.column.clone()).collect();
                    self.learn_from_row(&table, columns, key, &stamp, batch)?;
                }
                let row = RowRecord { operation, stamp, before, after };
                self.row(&table, row, fields.as_deref().map(Vec::as_slice), batch).map_err(|failed| match failed {
                    Failed::Letter(None, why) => Failed::Letter(Some(table.clone()), why),
                    other => other,
                })
            }
        }
    }

    /// What the schema beside a record says of its row.
    fn fields(&mut self, table: &TableId, record: &Value) -> Option<Arc<Vec<ConnectField>>> {
        let schema = record.get("payload").and(record.get("schema")).filter(|schema| schema.is_object())?;
        if let Some((_, fields)) = self.last_schemas.get(table).filter(|(known, _)| known == schema) {
            return Some(Arc::clone(fields));
        }
        let fields = Arc::new(row_fields(schema)?);
        self.last_schemas.insert(table.clone(), (schema.clone(), Arc::clone(&fields)));
        Some(fields)
    }

    /// The columns of a row's own schema; the key is the configuration's, the partition key's, or the known one.
    fn learn_from_row(
        &mut self,
        table: &TableId,
        columns: Vec<Column>,
        key: Option<&str>,
        stamp: &TransactionStamp,
        batch: &mut Batch,
    ) -> Result<(), Failed> {
        let known = self.tables.get(table).and_then(|known| known.schema.as_ref());
        let has_all = |known: &Arc<TableSchema>| {
            let is_there =
                |new: &Column| known.columns.iter().any(|old| old.name == new.name && old.source_type == new.source_type);
            columns.iter().all(is_there)
        };
        if known.is_some_and(has_all) {
            return Ok(());
        }
        let key = match known {
            Some(known) => key_names(known),
            None => key.map(key_columns).unwrap_or_default(),
        };
        let key = key_of(&columns, &key).unwrap_or_default();
        self.learn(TableSchema { table: table.clone(), columns, key }, Word::Record, stamp, batch)
    }

    /// Takes note of a shape.
    fn learn(&mut self, seen: TableSchema, word: Word, stamp: &TransactionStamp, batch: &mut Batch) -> Result<(), Failed> {
        let Some(table) = self.tables.get_mut(&seen.table).filter(|table| !table.is_declared) else { return Ok(()) };
        let letter = |why: String| Failed::Letter(Some(seen.table.clone()), why);
        let known = table.schema.as_deref();
        let columns = merged(known.map_or(&[], |known| &known.columns), &seen.columns, word)
            .map_err(|column| letter(format!("the column `{column}` has another type now; declare `columns` in its [[table]]")))?;
        let key = match (table.key.is_empty(), seen.key.is_empty(), known) {
            (false, ..) => table.key.clone(),
            (true, false, _) => key_names(&seen),
            (true, true, known) => known.map(key_names).unwrap_or_default(),
        };
        let key = key_of(&columns, &key).ok_or_else(|| letter("the table has no key; declare `key` in its [[table]]".into()))?;
        let schema = TableSchema { table: seen.table, columns, key };
        if known == Some(&schema) {
            return Ok(());
        }
        let schema = Arc::new(schema);
        table.schema = Some(Arc::clone(&schema));
        batch.section(Section::NewShape { schema, fill: None, stamp: stamp.clone() }).map_err(Failed::Fault)
    }

    fn row(&self, table: &TableId, record: RowRecord, fields: Option<&[ConnectField]>, batch: &mut Batch) -> Result<(), Failed> {
        let letter = |why: String| Failed::Letter(None, why);
        let RowRecord { operation, stamp, before, after } = record;
        let schema = self.tables.get(table).and_then(|known| known.schema.clone());
        let schema = schema.ok_or_else(|| letter("the table's columns aren't known; declare `columns` in its [[table]]".into()))?;
        let row = |image: &RowImage| self.cells(&schema, image, fields).map_err(|error| letter(detail(&error)));
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

    fn cells(&self, schema: &TableSchema, image: &RowImage, fields: Option<&[ConnectField]>) -> Result<Vec<Cell<'static>>, Error> {
        let default = match self.dialect {
            Dialect::Dms => dms::value::decode,
            Dialect::Debezium(_) => debezium::value::decode,
        };
        image_row(schema, image, |column, value| {
            let field = fields.and_then(|fields| fields.iter().find(|field| field.column.name == column.name));
            field.map_or_else(|| default(column, value), |field| field.cell(column, value))
        })
    }
}

/// The columns that a record's key names, where the partition key is the key as JSON.
fn key_columns(key: &str) -> Vec<String> {
    let Ok(Value::Object(key)) = serde_json::from_str::<Value>(key) else { return Vec::new() };
    let payload = key.get("payload").filter(|_| key.contains_key("schema")).and_then(Value::as_object);
    payload.unwrap_or(&key).keys().cloned().collect()
}

/// What is wrong with a record, in a few words.
fn detail(error: &Error) -> String {
    let text = error.to_string();
    let detail = text.split(" detail=").nth(1).unwrap_or(&text);
    detail.split("; ").next().unwrap_or(detail).to_owned()
}
