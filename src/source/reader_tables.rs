//! The reader's tables: table maps, the shapes that they tell, and rows.

use super::binlog::rows_event::{parse_rows, rows_kind};
use super::binlog::table_map::{parse_table_map, table_name, table_number};
use super::decode::ColumnDecoder;
use super::lanes::LaneBuffers;
use super::reader::{BinlogReader, Progress};
use super::rows::push_rows;
use super::shape::{Fit, fit, shape_of};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{TableId, TableSchema, TableState};
use std::sync::Arc;

/// More table maps than this are not kept.
const MAX_TABLE_MAPS: usize = 4096;

/// A table map that rows events refer to.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The table map's bytes, to notice that the next one is the same.
    body: Vec<u8>,
    /// The table's number and decoders; `None`: its rows are not wanted.
    target: Option<Target>,
}

/// A table's number, and the shape and decoders of its rows.
type Target = (usize, Arc<TableSchema>, Vec<ColumnDecoder>);

impl BinlogReader {
    pub(super) fn table_map(&mut self, body: &[u8], lanes: &mut LaneBuffers) -> Result<Progress> {
        let (number, rest) = table_number(body)?;
        if let Some(mapped) = self.maps.get(&number)
            && mapped.body == rest
        {
            let is_current = match &mapped.target {
                Some((table, schema, _)) => Arc::ptr_eq(schema, &self.tables.get(*table)?.schema),
                None => true,
            };
            if is_current {
                return Ok(Progress::Onward);
            }
        }
        let (database, table) = table_name(rest)?;
        let table = TableId::new(database, table);
        let is_covered = self.tables.number(&table).is_some_and(|number| self.is_covered(number));
        let target = if is_covered { None } else { self.target(table, rest, lanes)? };
        if self.maps.len() >= MAX_TABLE_MAPS {
            self.maps.clear();
        }
        // looked at anew when the table's events begin to count
        let body = if is_covered { Vec::new() } else { rest.to_vec() };
        self.maps.insert(number, Mapped { body, target });
        Ok(Progress::Onward)
    }

    /// Whether the open transaction means nothing to a table, because its rows have it already.
    pub(super) fn is_covered(&self, number: usize) -> bool {
        let Some(transaction) = &self.transaction else { return false };
        transaction.is_repeated || self.tables.get(number).is_ok_and(|tracked| tracked.covers(&transaction.current.stamp))
    }

    /// The table that a new table map is for, with its decoders.
    fn target(&mut self, table: TableId, rest: &[u8], lanes: &mut LaneBuffers) -> Result<Option<Target>> {
        let number = match self.tables.number(&table) {
            Some(number) if !self.tables.get(number)?.is_followed() => return Ok(None),
            Some(number) => number,
            None => match self.tables.rule(&table) {
                Some(rule) => {
                    let state = self.tables.first_state(&table, &self.position);
                    let map = parse_table_map(rest, self.is_mariadb)?;
                    match shape_of(&map, table.clone(), &rule.key) {
                        Ok(schema) => self.tables.put_with(Arc::new(schema), rule, state),
                        Err(error) => {
                            let schema = TableSchema { table: table.clone(), columns: Vec::new(), key: Vec::new() };
                            let number = self.tables.put_with(Arc::new(schema), rule, TableState::Live);
                            self.tables.stop(number, &self.position, &error.with("table", &table))?;
                            return Ok(None);
                        }
                    }
                }
                None => return Ok(None),
            },
        };
        match self.decoders(number, rest, lanes) {
            Ok(decoders) => Ok(Some((number, Arc::clone(&self.tables.get(number)?.schema), decoders))),
            Err(error) if error.kind() == Kind::Data => {
                self.tables.stop(number, &self.position, &error.with("table", &table))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn decoders(&mut self, number: usize, rest: &[u8], lanes: &mut LaneBuffers) -> Result<Vec<ColumnDecoder>> {
        let map = parse_table_map(rest, self.is_mariadb)?;
        let known = Arc::clone(&self.tables.get(number)?.schema);
        match fit(&map, &known)? {
            Fit::Same(decoders) => Ok(decoders),
            Fit::Changed(schema) => {
                self.new_shape(number, schema, None, lanes)?;
                match fit(&map, &Arc::clone(&self.tables.get(number)?.schema))? {
                    Fit::Same(decoders) => Ok(decoders),
                    Fit::Changed(_) => Err(Error::bug("a new shape doesn't fit its own table map")),
                }
            }
        }
    }

    pub(super) fn rows(&mut self, event_kind: u8, body: &[u8], lanes: &mut LaneBuffers) -> Result<Progress> {
        let Some(rows_kind) = rows_kind(event_kind) else { return Err(Error::bug("not a rows event")) };
        let event = parse_rows(event_kind, rows_kind, body)?;
        // the server ends a statement with an event without rows for the table number 2^24 - 1 where it has nothing else to say
        let Some(mapped) = self.maps.get(&event.table_number) else {
            return if event.rows.is_empty() { Ok(Progress::Onward) } else { Err(unmapped()) };
        };
        let Some((table, _, decoders)) = &mapped.target else { return Ok(Progress::Onward) };
        let (table, transaction) = (*table, self.transaction.as_mut().ok_or_else(outside)?);
        let tracked = self.tables.get_mut(table)?;
        if transaction.is_repeated || !tracked.is_followed() {
            return Ok(Progress::Onward);
        }
        if !transaction.touched.contains(&table) {
            transaction.touched.push(table);
        }
        match push_rows(&event, table, tracked, decoders, lanes, &transaction.current) {
            Err(error) if error.kind() == Kind::Data => {
                let error = error.with("table", &tracked.schema.table);
                self.tables.stop(table, &self.position, &error)?;
            }
            other => other?,
        }
        Ok(Progress::Onward)
    }

    /// Stops the table of a table map, if it is one of ours.
    pub(super) fn stop_mapped(&mut self, body: &[u8], error: impl Fn() -> Error) -> Result<()> {
        let (database, table) = table_name(table_number(body)?.1)?;
        match self.tables.number(&TableId::new(database, table)) {
            Some(number) => self.stop(number, error()),
            None => Ok(()),
        }
    }

    /// Stops all tables.
    pub(super) fn stop_all(&mut self, error: impl Fn() -> Error) -> Result<()> {
        let numbers: Vec<usize> =
            self.tables.iter().filter(|(_, tracked)| tracked.is_followed()).map(|(number, _)| number).collect();
        numbers.into_iter().try_for_each(|number| self.stop(number, error()))
    }
}

fn unmapped() -> Error {
    Error::new(Area::Source, Kind::Data, "rows in the binlog have no table map before them")
}

fn outside() -> Error {
    Error::new(Area::Source, Kind::Data, "rows in the binlog are in no transaction")
}
