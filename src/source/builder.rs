//! Rows become columns: the builder of a [`ChangeBatch`], and the choice of a row's lane.
//!
//! The binlog decoder and the snapshot both push rows of [`Value`]s here; nothing else makes a `ChangeBatch` from MySQL.

use super::columns::ColumnBuilder;
use super::value::Value;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{ChangeBatch, Lane, Operation, TableId, TableSchema, TransactionStamp};
use arrow::array::{FixedSizeBinaryBuilder, RecordBatch, UInt8Array, UInt32Array};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// Builds the [`ChangeBatch`] of one table with one shape on one lane.
#[derive(Debug)]
pub struct BatchBuilder {
    schema: Arc<TableSchema>,
    arrow: SchemaRef,
    columns: Vec<ColumnBuilder>,
    operations: Vec<u8>,
    stamps: Vec<u32>,
    /// One entry a row, all of them, from the first update on whose columns are known.
    changed: Option<FixedSizeBinaryBuilder>,
    /// The before images of updates; `None`: they aren't kept.
    before: Option<Vec<ColumnBuilder>>,
    bytes: usize,
}

impl BatchBuilder {
    /// An empty builder for rows of `schema`.
    pub fn new(schema: Arc<TableSchema>) -> Result<Self> {
        let arrow = schema.arrow();
        let columns = arrow.fields().iter().map(|field| ColumnBuilder::new(field.data_type())).collect::<Result<Vec<_>>>()?;
        Ok(Self { schema, arrow, columns, operations: Vec::new(), stamps: Vec::new(), changed: None, before: None, bytes: 0 })
    }

    /// The same, and updates keep their before images.
    pub fn with_before_images(mut self) -> Result<Self> {
        let columns = self.arrow.fields().iter().map(|field| ColumnBuilder::new(field.data_type()));
        self.before = Some(columns.collect::<Result<_>>()?);
        Ok(self)
    }

    /// Bytes of the bit set that says which columns an update changed: `changed` of [`Self::push`].
    pub fn changed_width(columns: usize) -> usize {
        columns.div_ceil(8)
    }

    /// Appends a row: a value for each column of the schema, its operation, the index of its transaction in the list that [`Self::finish`] gets,
    /// and for an update the bit set of the columns that changed. After an error the row isn't there.
    pub fn push(&mut self, values: &[Value<'_>], operation: Operation, stamp: u32, changed: Option<&[u8]>) -> Result<()> {
        self.push_with_before(values, operation, stamp, changed, None)
    }

    /// As [`Self::push`], with the before image of an update, where the builder keeps these.
    pub fn push_with_before(
        &mut self,
        values: &[Value<'_>],
        operation: Operation,
        stamp: u32,
        changed: Option<&[u8]>,
        before: Option<&[Value<'_>]>,
    ) -> Result<()> {
        if values.len() != self.columns.len() {
            return Err(
                Error::bug("a row has another number of values than its table has columns").with("table", &self.schema.table)
            );
        }
        for (i, (builder, value)) in self.columns.iter().zip(values).enumerate() {
            builder.check(value).map_err(|error| self.locate(error, i))?;
        }
        if let Some(i) = self.schema.key.iter().find(|i| matches!(values.get(**i), Some(Value::Null))) {
            return Err(self.locate(null_key(), *i));
        }
        if let (Some(builders), Operation::Update) = (&mut self.before, operation) {
            let before = before.filter(|before| before.len() == builders.len()).unwrap_or(values);
            for (i, (builder, value)) in builders.iter().zip(before).enumerate() {
                builder.check(value).map_err(|error| locate(&self.schema, error, i))?;
            }
            builders.iter_mut().zip(before).for_each(|(builder, value)| builder.append(value));
            self.bytes += before.iter().map(Value::byte_len).sum::<usize>();
        }
        let mut bytes = 6;
        for (builder, value) in self.columns.iter_mut().zip(values) {
            builder.append(value);
            bytes += value.byte_len();
        }
        self.push_changed(changed)?;
        self.operations.push(operation.code());
        self.stamps.push(stamp);
        self.bytes += bytes;
        Ok(())
    }

    fn push_changed(&mut self, changed: Option<&[u8]>) -> Result<()> {
        let width = Self::changed_width(self.columns.len());
        if changed.is_some() && self.changed.is_none() {
            let width = i32::try_from(width).map_err(|_| Error::bug("a table has too many columns"))?;
            let mut builder = FixedSizeBinaryBuilder::new(width);
            (0..self.operations.len()).for_each(|_| builder.append_null());
            self.changed = Some(builder);
        }
        if let Some(builder) = &mut self.changed {
            match changed {
                Some(bits) if bits.len() == width => {
                    builder
                        .append_value(bits)
                        .map_err(|error| Error::bug("a bit set of changed columns has a wrong size").caused_by(error))?;
                }
                _ => builder.append_null(),
            }
        }
        Ok(())
    }

    fn locate(&self, error: Error, column: usize) -> Error {
        locate(&self.schema, error, column)
    }

    /// The shape of the rows.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes so far, about, before compression.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch of all rows pushed; the builder is empty afterwards. `transactions` is what the rows' stamps index.
    pub fn finish(&mut self, transactions: Arc<Vec<TransactionStamp>>) -> Result<ChangeBatch> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let rows = RecordBatch::try_new(Arc::clone(&self.arrow), arrays).map_err(|error| {
            Error::bug("the columns of a batch don't fit its schema").caused_by(error).with("table", &self.schema.table)
        })?;
        let before = match &mut self.before {
            Some(builders) => {
                let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
                Some(RecordBatch::try_new(Arc::clone(&self.arrow), arrays).map_err(|error| {
                    Error::bug("before images don't fit their schema").caused_by(error).with("table", &self.schema.table)
                })?)
            }
            None => None,
        };
        self.bytes = 0;
        Ok(ChangeBatch {
            schema: Arc::clone(&self.schema),
            rows,
            operations: UInt8Array::from(std::mem::take(&mut self.operations)),
            stamps: UInt32Array::from(std::mem::take(&mut self.stamps)),
            transactions,
            changed: self.changed.take().map(|mut builder| builder.finish()),
            before,
        })
    }
}

/// Chooses the lane of each row of one table.
#[derive(Debug, Clone)]
pub struct LaneRouter {
    seed: u64,
    lanes: u16,
    key: Vec<usize>,
    scratch: Vec<u8>,
}

impl LaneRouter {
    /// A router for rows of `table` whose key is the columns with the indices `key`.
    pub fn new(table: &TableId, key: &[usize], lanes: u16) -> Self {
        Self { seed: Lane::seed(table), lanes, key: key.to_vec(), scratch: Vec::with_capacity(64) }
    }

    /// The lane of a row with these values (of all columns).
    pub fn lane(&mut self, values: &[Value<'_>]) -> Result<Lane> {
        self.scratch.clear();
        for &i in &self.key {
            match values.get(i) {
                None | Some(Value::Null) => return Err(null_key()),
                Some(value) => value.append_key_bytes(&mut self.scratch),
            }
        }
        Ok(Lane::of(self.seed, &self.scratch, self.lanes))
    }
}

fn locate(schema: &TableSchema, error: Error, column: usize) -> Error {
    let name = schema.columns.get(column).map_or("?", |column| column.name.as_str());
    error.with("table", &schema.table).with("column", name)
}

fn null_key() -> Error {
    Error::new(Area::Source, Kind::Data, "a row has NULL in its key")
        .remedy("have the table's `key`, or the key of its delivery's items, made of columns that are never NULL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, SourceType};
    use arrow::array::{Array, AsArray};
    use std::borrow::Cow;

    fn schema() -> Arc<TableSchema> {
        let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
        Arc::new(TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![
                column("id", SourceType::Int { unsigned: true }),
                column("note", SourceType::Text { charset: "utf8mb4".into(), max_bytes: 0 }),
                column("took", SourceType::Time { fsp: 3 }),
                column("v", SourceType::Vector),
            ],
            key: vec![0],
        })
    }

    #[test]
    fn rows_become_a_batch_and_a_failed_row_leaves_nothing() {
        let mut builder = BatchBuilder::new(schema()).unwrap();
        let text = Value::Text(Cow::Borrowed("größe"));
        let vector = Value::Vector(Cow::Owned(1.5_f32.to_le_bytes().to_vec()));
        builder
            .push(&[Value::Int(1), text.clone(), Value::Time { micros: -1_500_000, fsp: 3 }, vector], Operation::Create, 0, None)
            .unwrap();
        let error = builder.push(&[Value::Null, text.clone(), Value::Null, Value::Null], Operation::Create, 0, None).unwrap_err();
        assert!(error.to_string().contains("NULL in its key table=shop.orders column=id"), "{error}");
        builder.push(&[Value::Int(1), Value::Bool(true), Value::Null, Value::Null], Operation::Create, 0, None).unwrap_err();
        builder.push(&[Value::Int(2), Value::Null, Value::Null, Value::Null], Operation::Update, 1, Some(&[0b10])).unwrap();
        let batch = builder.finish(Arc::new(Vec::new())).unwrap();
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.rows.column(2).as_string::<i32>().value(0), "-00:00:01.500");
        assert!(batch.rows.column(1).is_null(1) && batch.rows.column(3).is_null(1));
        let changed = batch.changed.unwrap();
        assert!(changed.is_null(0));
        assert_eq!(changed.value(1), [0b10]);
        assert!(builder.is_empty());
    }

    #[test]
    fn the_lane_depends_on_the_key_alone() {
        let mut router = LaneRouter::new(&TableId::new("shop", "orders"), &[0], 16);
        let lane = router.lane(&[Value::Int(7), Value::Null]).unwrap();
        assert_eq!(router.lane(&[Value::Int(7), Value::Bool(true)]).unwrap(), lane);
        assert!(router.lane(&[Value::Null, Value::Null]).is_err());
        let used: std::collections::BTreeSet<Lane> = (0..200).map(|i| router.lane(&[Value::Int(i)]).unwrap()).collect();
        assert_eq!(used.len(), 16);
    }
}
