//! One value of one row, as the lake has it: read from a column, and put into columns again.

use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};
use std::borrow::Cow;
use std::sync::Arc;

/// A value; each lake type has one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `int`, `bigint`.
    Int(i64),
    /// `decimal`: without its point; the scale is the column's.
    Decimal(i128),
    /// `float`.
    Float(f32),
    /// `double`.
    Double(f64),
    /// `string`.
    Text(Cow<'a, str>),
    /// `binary`.
    Bytes(Cow<'a, [u8]>),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `timestamp`: microseconds since 1970-01-01T00:00:00Z.
    Micros(i64),
    /// `array<float>`.
    Vector(Vec<f32>),
    /// An array of any other type.
    List(Vec<Cell<'a>>),
}

impl<'a> Cell<'a> {
    /// Row `row` of `array`, which has one of the lake's types.
    pub fn of(array: &'a dyn Array, row: usize) -> Self {
        if array.is_null(row) {
            return Cell::Null;
        }
        match array.data_type() {
            DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
            DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Decimal128(..) => Cell::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
            DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).into()),
            DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).into()),
            DataType::Date32 => Cell::Date(array.as_primitive::<Date32Type>().value(row)),
            DataType::Timestamp(..) => Cell::Micros(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            DataType::List(item) => {
                let items = array.as_list::<i32>().value(row);
                match item.data_type() {
                    DataType::Float32 => {
                        Cell::Vector(items.as_primitive::<Float32Type>().iter().map(Option::unwrap_or_default).collect())
                    }
                    _ => Cell::List((0..items.len()).map(|item| Cell::of(items.as_ref(), item).into_owned()).collect()),
                }
            }
            _ => Cell::Null,
        }
    }

    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Cell<'static> {
        match self {
            Cell::Null => Cell::Null,
            Cell::Bool(value) => Cell::Bool(value),
            Cell::Int(value) => Cell::Int(value),
            Cell::Decimal(value) => Cell::Decimal(value),
            Cell::Float(value) => Cell::Float(value),
            Cell::Double(value) => Cell::Double(value),
            Cell::Text(value) => Cell::Text(value.into_owned().into()),
            Cell::Bytes(value) => Cell::Bytes(value.into_owned().into()),
            Cell::Date(value) => Cell::Date(value),
            Cell::Micros(value) => Cell::Micros(value),
            Cell::Vector(value) => Cell::Vector(value),
            Cell::List(items) => Cell::List(items.into_iter().map(Cell::into_owned).collect()),
        }
    }
}

/// Row `row` of a batch.
pub fn row_of(rows: &RecordBatch, row: usize) -> Vec<Cell<'_>> {
    rows.columns().iter().map(|column| Cell::of(column.as_ref(), row)).collect()
}

/// Rows that become columns again.
#[derive(Debug)]
pub struct CellColumns {
    schema: SchemaRef,
    columns: Vec<Vec<Cell<'static>>>,
    rows: usize,
}

impl CellColumns {
    /// No rows yet of a schema of lake types.
    pub fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|_| Vec::new()).collect();
        Self { schema, columns, rows: 0 }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends a row: a cell a column.
    pub fn push(&mut self, row: Vec<Cell<'static>>) {
        for (column, cell) in self.columns.iter_mut().zip(row) {
            column.push(cell);
        }
        self.rows += 1;
    }

    /// The batch of all rows.
    ///
    /// # Errors
    /// `Bug` if a cell isn't of its column's kind, or NULL stands in a column without NULLs.
    pub fn finish(self) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter();
        let arrays =
            fields.zip(&self.columns).map(|(field, cells)| column(field.data_type(), cells)).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema, arrays)
            .map_err(|error| Error::bug("decoded rows don't fit their columns").caused_by(error))
    }
}

fn column(data_type: &DataType, cells: &[Cell<'static>]) -> Result<ArrayRef> {
    /// The values of one kind; NULL where a cell is of another.
    macro_rules! values {
        ($kind:ident) => {
            cells.iter().map(|cell| match cell {
                Cell::$kind(value) => Some(value.clone()),
                _ => None,
            })
        };
    }
    let array: ArrayRef = match data_type {
        DataType::Boolean => Arc::new(values!(Bool).collect::<BooleanArray>()),
        DataType::Int32 => {
            Arc::new(values!(Int).map(|value| value.and_then(|value| i32::try_from(value).ok())).collect::<Int32Array>())
        }
        DataType::Int64 => Arc::new(values!(Int).collect::<Int64Array>()),
        DataType::Decimal128(..) => Arc::new(values!(Decimal).collect::<Decimal128Array>().with_data_type(data_type.clone())),
        DataType::Float32 => Arc::new(values!(Float).collect::<Float32Array>()),
        DataType::Float64 => Arc::new(values!(Double).collect::<Float64Array>()),
        DataType::Utf8 => Arc::new(values!(Text).collect::<StringArray>()),
        DataType::Binary => Arc::new(values!(Bytes).collect::<BinaryArray>()),
        DataType::Date32 => Arc::new(values!(Date).collect::<Date32Array>()),
        DataType::Timestamp(..) => {
            Arc::new(values!(Micros).collect::<TimestampMicrosecondArray>().with_data_type(data_type.clone()))
        }
        DataType::List(field) => {
            let (mut items, mut lengths, mut is_there) = (Vec::new(), Vec::new(), Vec::new());
            for cell in cells {
                let before = items.len();
                match cell {
                    Cell::Vector(values) => items.extend(values.iter().map(|value| Cell::Float(*value))),
                    Cell::List(values) => items.extend(values.iter().cloned()),
                    _ => {}
                }
                lengths.push(items.len() - before);
                is_there.push(matches!(cell, Cell::Vector(_) | Cell::List(_)));
            }
            let items = column(field.data_type(), &items)?;
            let lists = ListArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), items, Some(is_there.into()));
            Arc::new(lists.map_err(|error| Error::bug("decoded lists don't fit their column").caused_by(error))?)
        }
        other => return Err(Error::bug(format!("no column is made of {other}"))),
    };
    if array.null_count() != cells.iter().filter(|cell| **cell == Cell::Null).count() {
        return Err(Error::bug("a decoded value is of another kind than its column").with("type", data_type));
    }
    Ok(array)
}
