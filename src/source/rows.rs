//! Rows events into the lanes' builders.

use super::binlog::rows_event::{RowsEvent, RowsKind, is_whole};
use super::bytes::{Reader, bit, malformed};
use super::decode::ColumnDecoder;
use super::lanes::{CurrentTransaction, LaneBuffers};
use super::tracked::{TrackedTable, stops_table};
use super::value::Value;
use crate::error::{Error, Result};
use crate::event::Operation;

/// Decodes all rows of an event into `lanes`. An error of kind `Data` stops the table.
pub(super) fn push_rows(
    event: &RowsEvent<'_>,
    table: usize,
    tracked: &mut TrackedTable,
    decoders: &[ColumnDecoder],
    lanes: &mut LaneBuffers,
    transaction: &CurrentTransaction,
) -> Result<()> {
    if event.column_count != decoders.len() {
        return Err(malformed("a rows event has another number of columns than its table map"));
    }
    if !is_whole(event.present, event.column_count) || !is_whole(event.present_after, event.column_count) {
        return Err(stops_table("a row image has not all columns")
            .remedy("set binlog_row_image = FULL on the server and for all sessions, then run `binlake backfill --table` for it"));
    }
    let mut rows = Rows { table, tracked, decoders, lanes, transaction, values: Vec::with_capacity(decoders.len()) };
    let mut reader = Reader::new(event.rows);
    let (mut image, mut after) = (Vec::with_capacity(decoders.len()), Vec::new());
    while !reader.is_empty() {
        take_image(&mut reader, decoders, &mut image)?;
        match event.rows_kind {
            RowsKind::Insert => rows.push(&image, Operation::Create, None, None)?,
            RowsKind::Delete => rows.push(&image, Operation::Delete, None, None)?,
            RowsKind::Update if event.is_partial => {
                super::partial::take_partial_image(&mut reader, decoders, &image, &mut after)?;
                let after: Vec<Option<&[u8]>> = after.iter().map(|bytes| bytes.as_deref()).collect();
                rows.update(&image, &after)?;
            }
            RowsKind::Update => {
                let mut after = Vec::with_capacity(decoders.len());
                take_image(&mut reader, decoders, &mut after)?;
                rows.update(&image, &after)?;
            }
        }
    }
    Ok(())
}

/// Takes the bytes of each column; `None` is NULL.
#[inline]
fn take_image<'a>(reader: &mut Reader<'a>, decoders: &[ColumnDecoder], image: &mut Vec<Option<&'a [u8]>>) -> Result<()> {
    image.clear();
    let nulls = reader.take(decoders.len().div_ceil(8))?;
    for (i, decoder) in decoders.iter().enumerate() {
        image.push(if bit(nulls, i) { None } else { Some(decoder.take(reader)?) });
    }
    Ok(())
}

struct Rows<'a> {
    table: usize,
    tracked: &'a mut TrackedTable,
    decoders: &'a [ColumnDecoder],
    lanes: &'a mut LaneBuffers,
    transaction: &'a CurrentTransaction,
    /// Kept between rows for its memory alone.
    values: Vec<Value<'static>>,
}

impl Rows<'_> {
    /// Appends a row; `before`: of an update, where before images are kept.
    fn push(
        &mut self,
        image: &[Option<&[u8]>],
        operation: Operation,
        changed: Option<&[u8]>,
        before: Option<&[Option<&[u8]>]>,
    ) -> Result<()> {
        let mut values: Vec<Value<'_>> = std::mem::take(&mut self.values);
        for (i, (decoder, bytes)) in self.decoders.iter().zip(image).enumerate() {
            values.push(match bytes {
                None => Value::Null,
                Some(bytes) => decoder.decode(bytes, &mut self.tracked.values).map_err(|error| self.locate(error, i))?,
            });
        }
        let lane = self.tracked.router.lane(&values).map_err(|error| error.with("table", &self.tracked.schema.table))?;
        let mut old = Vec::new();
        for (i, (decoder, bytes)) in self.decoders.iter().zip(before.unwrap_or_default()).enumerate() {
            old.push(match bytes {
                None => Value::Null,
                Some(bytes) => decoder.decode(bytes, &mut self.tracked.values).map_err(|error| self.locate(error, i))?,
            });
        }
        let old = before.map(|_| old.as_slice());
        self.lanes.push(lane, self.table, &self.tracked.schema, &values, operation, changed, old, self.transaction)?;
        values.clear();
        self.values = values.into_iter().map(|_| Value::Null).collect();
        let counts = &mut self.tracked.counts;
        match operation {
            Operation::Create | Operation::Read => counts.created += 1,
            Operation::Update => counts.updated += 1,
            Operation::Delete => counts.deleted += 1,
        }
        Ok(())
    }

    /// An update; one that moves the row is a delete and a create.
    fn update(&mut self, before: &[Option<&[u8]>], after: &[Option<&[u8]>]) -> Result<()> {
        let mut changed = [0_u8; 512];
        let changed = changed
            .get_mut(..self.decoders.len().div_ceil(8))
            .ok_or_else(|| Error::bug("a table has more columns than MySQL allows"))?;
        let mut is_moved = false;
        for (i, (before, after)) in before.iter().zip(after).enumerate() {
            if before != after {
                if let Some(byte) = changed.get_mut(i / 8) {
                    *byte |= 1 << (i % 8);
                }
                is_moved |= self.tracked.moves.get(i).copied().unwrap_or(false);
            }
        }
        if is_moved {
            self.push(before, Operation::Delete, None, None)?;
            // where the key stays it is still one update to a history
            let key = &self.tracked.schema.key;
            let stays = !self.lanes.keeps_before_images() && key.iter().all(|i| before.get(*i) == after.get(*i));
            let (operation, changed) = if stays { (Operation::Update, Some(&*changed)) } else { (Operation::Create, None) };
            return self.push(after, operation, changed, None);
        }
        let before = self.lanes.keeps_before_images().then_some(before);
        self.push(after, Operation::Update, Some(changed), before)
    }

    fn locate(&self, error: Error, column: usize) -> Error {
        let name = self.tracked.schema.columns.get(column).map_or("?", |column| column.name.as_str());
        error.with("table", &self.tracked.schema.table).with("column", name)
    }
}
