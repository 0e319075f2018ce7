//! One batch of rows through a transform.

use super::bind::BoundTransform;
use super::join::{Index, engine_bug};
use crate::error::{Area, Error, Kind, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, take};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

/// The lookups' items as of one moment: all batches of one commit see the same.
#[derive(Debug, Clone)]
pub struct Frozen(Vec<Option<Arc<Index>>>);

/// What a batch became.
#[derive(Debug)]
pub struct Transformed {
    /// A row a row that came, in the same order; of deleted rows the columns that pass unchanged alone.
    pub columns: Vec<ArrayRef>,
    /// Which rows are deletes: those that were, and those that `WHERE` dropped.
    pub is_delete: BooleanArray,
    /// Rows that `WHERE` dropped.
    pub dropped: usize,
}

impl BoundTransform {
    /// The lookups' items as they are now.
    ///
    /// # Errors
    /// `Transient` if a lookup has not been read yet; `Data` if two of its items have one join key.
    pub fn freeze(&self) -> Result<Frozen> {
        self.joins.iter().map(super::join::Join::index).collect::<Result<_>>().map(Frozen)
    }

    /// Runs it on `rows`, which have the input's columns by name, among others.
    ///
    /// # Errors
    /// `Data` if a row's expression fails, with the column, and the row's key and position where `rows` has them.
    pub fn run(&self, rows: &RecordBatch, is_delete: &BooleanArray, lookups: &Frozen) -> Result<Transformed> {
        let input = self.input_of(rows)?;
        let live = BooleanArray::new(!is_delete.values(), None);
        let mut wide = filtered(&input, &live)?;
        for (join, index) in self.joins.iter().zip(&lookups.0) {
            wide = join.append(&wide, index.as_ref(), &self.wide)?;
        }
        let passing = match &self.filter {
            None => None,
            Some(filter) => Some(self.passing(filter, &wide)?),
        };
        let kept = match &passing {
            Some(passing) => filter_record_batch(&wide, passing).map_err(engine_bug)?,
            None => wide,
        };
        // where each row's result is; none for deletes
        let mut places: Vec<Option<u32>> = Vec::with_capacity(rows.num_rows());
        let (mut at_live, mut at_kept) = (0, 0u32);
        for i in 0..rows.num_rows() {
            let mut place = None;
            if live.value(i) {
                if passing.as_ref().is_none_or(|passing| passing.value(at_live)) {
                    place = Some(at_kept);
                    at_kept += 1;
                }
                at_live += 1;
            }
            places.push(place);
        }
        let dropped = at_live - at_kept as usize;
        let is_whole = at_kept as usize == rows.num_rows();
        let places = UInt32Array::from(places);
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (column, expr) in &self.outputs {
            columns.push(match &column.passes {
                // of deletes, too: the key, the ordering and the partition columns are read of them
                Some(name) => input.column_by_name(name).cloned().ok_or_else(|| Error::bug("a column of the input is missing"))?,
                None => {
                    let values = self.evaluate(expr, &kept, column.field.name(), column.field.data_type())?;
                    if is_whole { values } else { spread(&values, &places)? }
                }
            });
        }
        let is_delete = BooleanArray::new(BooleanBuffer::collect_bool(rows.num_rows(), |i| places.is_null(i)), None);
        Ok(Transformed { columns, is_delete, dropped })
    }

    /// What rows of the source are in the lake, in the columns that are computed of them alone; `None` if lookups decide which rows there are.
    ///
    /// # Errors
    /// `Data` if a row's expression fails.
    pub fn source_rows(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
        if !self.filter_is_of_row {
            return Ok(None);
        }
        let columns = self.input.fields().iter().map(|field| {
            // what the stream adds isn't read
            rows.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
        });
        let fields = self.input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut rows = RecordBatch::try_new(schema, columns.collect()).map_err(engine_bug)?;
        if let Some(filter) = &self.filter {
            let passing = self.passing(filter, &rows)?;
            rows = filter_record_batch(&rows, &passing).map_err(engine_bug)?;
        }
        let computed = self.outputs.iter().filter(|(column, _)| column.is_of_row).map(|(column, expr)| {
            let name = column.field.name();
            Ok((name.clone(), self.evaluate(expr, &rows, name, column.field.data_type())?, true))
        });
        RecordBatch::try_from_iter_with_nullable(computed.collect::<Result<Vec<_>>>()?).map(Some).map_err(engine_bug)
    }

    fn input_of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            rows.column_by_name(field.name()).cloned().ok_or_else(|| Error::bug("a column of the input is missing"))
        };
        let columns = self.input.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.input.clone(), columns).map_err(engine_bug)
    }

    fn passing(&self, filter: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
        let passing = self.evaluate(filter, rows, "WHERE", &DataType::Boolean)?;
        let passing = BooleanArray::from(passing.to_data());
        // unknown isn't true
        let is_true = BooleanBuffer::collect_bool(passing.len(), |i| passing.is_valid(i) && passing.value(i));
        Ok(BooleanArray::new(is_true, None))
    }

    fn evaluate(&self, expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, name: &str, wanted: &DataType) -> Result<ArrayRef> {
        if rows.num_rows() == 0 {
            return Ok(new_empty_array(wanted));
        }
        value_of(expr, rows, wanted).map_err(|_| self.fault(expr, rows, name, wanted))
    }

    /// The error of the first row for which an expression fails.
    fn fault(&self, expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, name: &str, wanted: &DataType) -> Error {
        let fails = |first: usize, count: usize| value_of(expr, &rows.slice(first, count), wanted).err();
        let (mut first, mut count) = (0, rows.num_rows());
        while count > 1 {
            let half = count / 2;
            if fails(first, half).is_some() {
                count = half;
            } else {
                first += half;
                count -= half;
            }
        }
        let error = Error::new(Area::Lake, Kind::Data, "a row's transform fails");
        let error = match fails(first, count).and_then(|error| reason(&error)) {
            Some(why) => error.caused_by(std::io::Error::other(why)),
            None => error,
        };
        let error = error.with("column", name);
        let shown = |name: &str| {
            let column = rows.column_by_name(name)?;
            arrow::util::display::array_value_to_string(column, first).ok()
        };
        let key: Vec<String> = self.key.iter().filter_map(|name| Some(format!("{name}:{}", shown(name)?))).collect();
        let error = error.with("key", key.join(","));
        let error = match shown("_position") {
            Some(position) => error.with("position", position),
            None => error,
        };
        error.remedy("correct the value at the source or the table's `transform` (TRY_CAST gives NULL), then run `binlake backfill --table` for it")
    }
}

/// An expression's values, as the lake has them.
fn value_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, wanted: &DataType) -> Result<ArrayRef, DataFusionError> {
    let values = expr.evaluate(rows)?.into_array(rows.num_rows())?;
    if values.data_type() == wanted {
        return Ok(values);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(&values, wanted, &strict)?)
}

/// Why an expression failed, without the value.
fn reason(error: &DataFusionError) -> Option<&'static str> {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => Some("division by zero"),
            ArrowError::ArithmeticOverflow(_) => Some("a number is too large"),
            ArrowError::CastError(_) | ArrowError::ParseError(_) => Some("a value can't be cast to the type"),
            _ => None,
        },
        _ => None,
    }
}

fn filtered(rows: &RecordBatch, mask: &BooleanArray) -> Result<RecordBatch> {
    if mask.true_count() == rows.num_rows() {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, mask).map_err(engine_bug)
}

/// The values at their rows' places; NULL where there is none.
fn spread(values: &ArrayRef, places: &UInt32Array) -> Result<ArrayRef> {
    take(values, places, None).map_err(engine_bug)
}
