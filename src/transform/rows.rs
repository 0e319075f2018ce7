//! One batch of rows through a transform.

use super::bind::{BoundTransform, OutputColumn};
use super::fault::{Failing, reason, value_of};
use super::join::{Index, engine_bug};
use super::statement::OnError;
use crate::error::{Area, Error, Kind, Result};
use crate::lookup::Content;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, Schema};
use datafusion::physical_expr::PhysicalExpr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The lookups' items as of one moment: all batches of one commit see the same.
#[derive(Debug, Clone)]
pub struct Frozen(pub(super) Vec<Option<Arc<Index>>>);

/// What a batch became.
#[derive(Debug)]
pub struct Transformed {
    /// A row a row that came, in the same order; of deleted rows the columns that pass unchanged alone.
    pub columns: Vec<ArrayRef>,
    /// Which rows are deletes: those that were, those that `WHERE` dropped, and those that failed.
    pub is_delete: BooleanArray,
    /// Rows that `WHERE` dropped.
    pub dropped: usize,
    /// Rows that can't be transformed, where that makes dead letters; rising.
    pub failed: Vec<Failure>,
}

/// A row that can't be transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its number among the rows that came.
    pub row: usize,
    /// The column that can't be computed; of a row without its item, the lookup's that it is joined by.
    pub column: String,
    /// Why, without the value.
    pub reason: String,
}

/// Rows on their way through a transform.
struct Under {
    /// The input's columns, then the lookups' so far.
    wide: RecordBatch,
    /// Which of the rows that came each is.
    at: Vec<u32>,
    failed: Vec<Failure>,
}

impl Under {
    fn keep(&mut self, mask: &BooleanArray) -> Result<()> {
        self.wide = filter_record_batch(&self.wide, mask).map_err(engine_bug)?;
        let mut row = 0;
        self.at.retain(|_| {
            row += 1;
            mask.value(row - 1)
        });
        Ok(())
    }

    /// Takes the rows out that fail.
    fn fail(&mut self, failing: Vec<Failing>, column: &str) -> Result<()> {
        let mut kept = vec![true; self.at.len()];
        for failing in failing {
            kept[failing.row] = false;
            let row = self.at[failing.row] as usize;
            self.failed.push(Failure { row, column: column.to_owned(), reason: failing.reason });
        }
        self.keep(&BooleanArray::from(kept))
    }
}

impl BoundTransform {
    /// The lookups' items as they are now.
    ///
    /// # Errors
    /// `Transient` if a lookup has not been read yet; `Data` if two of its items have one join key.
    pub fn freeze(&self) -> Result<Frozen> {
        self.freeze_with(&BTreeMap::new())
    }

    /// The same; of the lookups named in `given` those items.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn freeze_with(&self, given: &BTreeMap<String, Arc<Content>>) -> Result<Frozen> {
        let index = |join: &super::join::Join| join.index(given.get(join.lookup.name()));
        self.joins.iter().map(index).collect::<Result<_>>().map(Frozen)
    }

    /// Runs it on `rows`, which have the input's columns by name, among others.
    ///
    /// # Errors
    /// `Data` if a row's expression fails and that makes no dead letter, with the column, and the row's key and position where `rows` has them.
    pub fn run(&self, rows: &RecordBatch, is_delete: &BooleanArray, lookups: &Frozen) -> Result<Transformed> {
        let input = self.input_of(rows)?;
        let live = BooleanArray::new(!is_delete.values(), None);
        let at = (0..).zip(live.values()).filter(|(_, is_live)| *is_live).map(|(row, _)| row).collect();
        let mut under = Under { wide: filtered(&input, &live)?, at, failed: Vec::new() };
        self.join(&mut under, lookups)?;
        let before = under.at.len() + under.failed.len();
        if let Some(filter) = &self.filter {
            let passing = self.or_letters(&mut under, "WHERE", filter, &DataType::Boolean, |wide| self.passing(filter, wide))?;
            under.keep(&passing)?;
        }
        let computed = self.computed(&mut under)?;
        // where each row's result is; none for deletes
        let mut places: Vec<Option<u32>> = vec![None; rows.num_rows()];
        for (place, row) in (0..).zip(&under.at) {
            places[*row as usize] = Some(place);
        }
        let dropped = before - under.at.len() - under.failed.len();
        let is_whole = under.at.len() == rows.num_rows();
        let places = UInt32Array::from(places);
        let mut columns = Vec::with_capacity(self.outputs.len());
        for ((column, _), values) in self.outputs.iter().zip(computed) {
            columns.push(match (&column.passes, values) {
                // of deletes, too: the key, the ordering and the partition columns are read of them
                (Some(name), _) => {
                    input.column_by_name(name).cloned().ok_or_else(|| Error::bug("a column of the input is missing"))?
                }
                (None, Some(values)) if is_whole => values,
                (None, Some(values)) => spread(&values, &places)?,
                (None, None) => return Err(Error::bug("a column was not computed")),
            });
        }
        let is_delete = BooleanArray::new(BooleanBuffer::collect_bool(rows.num_rows(), |i| places.is_null(i)), None);
        let mut failed = under.failed;
        failed.sort_by_key(|failure| failure.row);
        Ok(Transformed { columns, is_delete, dropped, failed })
    }

    /// Appends the lookups' columns.
    fn join(&self, under: &mut Under, lookups: &Frozen) -> Result<()> {
        for (join, index) in self.joins.iter().zip(&lookups.0) {
            let joined = match join.append(&under.wide, index.as_ref(), &self.wide) {
                Err(error) if error.kind() == Kind::Data && self.on_error == OnError::DeadLetter => {
                    under.fail(join.failing(&under.wide), &join.column())?;
                    join.append(&under.wide, index.as_ref(), &self.wide)?
                }
                joined => joined?,
            };
            under.wide = joined.rows;
            if !joined.missing.is_empty() {
                under.fail(joined.missing, &join.column())?;
            }
        }
        Ok(())
    }

    /// The columns that don't pass; `None` for those that do.
    fn computed(&self, under: &mut Under) -> Result<Vec<Option<ArrayRef>>> {
        'again: loop {
            let mut computed = Vec::with_capacity(self.outputs.len());
            for (column, expr) in &self.outputs {
                if column.passes.is_some() {
                    computed.push(None);
                    continue;
                }
                let (name, wanted, failed) = (column.field.name(), column.field.data_type(), under.failed.len());
                let values = self.or_letters(under, name, expr, wanted, |wide| self.evaluate(expr, wide, name, wanted))?;
                if under.failed.len() > failed {
                    // what was computed before has rows that are gone
                    continue 'again;
                }
                computed.push(Some(values));
            }
            return Ok(computed);
        }
    }

    /// What `evaluate` gives; where it fails and dead letters are made, that of the rows that don't fail.
    fn or_letters<T>(
        &self,
        under: &mut Under,
        column: &str,
        expr: &Arc<dyn PhysicalExpr>,
        wanted: &DataType,
        evaluate: impl Fn(&RecordBatch) -> Result<T>,
    ) -> Result<T> {
        match evaluate(&under.wide) {
            Err(error) if error.kind() == Kind::Data && self.on_error == OnError::DeadLetter => {
                under.fail(Failing::of(expr, &under.wide, wanted), column)?;
                evaluate(&under.wide)
            }
            done => done,
        }
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
        let of_row = |(column, _): &&(OutputColumn, Arc<dyn PhysicalExpr>)| column.is_of_row;
        if self.on_error == OnError::DeadLetter {
            // rows that fail are dead letters
            let tried = self.filter.iter().map(|filter| (filter, &DataType::Boolean));
            for (expr, wanted) in
                tried.chain(self.outputs.iter().filter(of_row).map(|(column, expr)| (expr, column.field.data_type())))
            {
                let failing = Failing::of(expr, &rows, wanted);
                let kept: BooleanArray = (0..rows.num_rows())
                    .map(|row| Some(failing.binary_search_by_key(&row, |failing| failing.row).is_err()))
                    .collect();
                rows = filtered(&rows, &kept)?;
            }
        }
        if let Some(filter) = &self.filter {
            let passing = self.passing(filter, &rows)?;
            rows = filter_record_batch(&rows, &passing).map_err(engine_bug)?;
        }
        let computed = self.outputs.iter().filter(of_row).map(|(column, expr)| {
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

    pub(super) fn evaluate(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        rows: &RecordBatch,
        name: &str,
        wanted: &DataType,
    ) -> Result<ArrayRef> {
        if rows.num_rows() == 0 {
            return Ok(new_empty_array(wanted));
        }
        value_of(expr, rows, wanted).map_err(|_| self.fault(expr, rows, name, wanted))
    }

    /// The error of the first row for which an expression fails.
    fn fault(&self, expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, name: &str, wanted: &DataType) -> Error {
        let (first, why) = Failing::first(expr, rows, wanted);
        let error = Error::new(Area::Lake, Kind::Data, "a row's transform fails");
        let error = match why.and_then(|error| reason(&error)) {
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
        error.remedy(
            "correct the value at the source or the table's `transform` (TRY_CAST gives NULL), then run `binlake backfill --table` for it; or set \
             `on_error = \"dead_letter\"`",
        )
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
