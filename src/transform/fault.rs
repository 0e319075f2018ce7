//! Which rows of a batch an expression fails for, and why.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

/// A row for which an expression fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) row: usize,
    /// Why, without the value.
    pub(super) reason: String,
}

impl Failing {
    /// All rows for which it fails, rising. Halves are tried until what fails is one row: a few rows cost a few evaluations.
    pub(super) fn of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, wanted: &DataType) -> Vec<Self> {
        let mut failing = Vec::new();
        let mut parts = vec![(0, rows.num_rows())];
        while let Some((first, count)) = parts.pop() {
            if count == 0 {
                continue;
            }
            let Err(error) = value_of(expr, &rows.slice(first, count), wanted) else { continue };
            if count == 1 {
                failing.push(Self { row: first, reason: reason(&error).unwrap_or("it can't be computed").to_owned() });
            } else {
                let half = count / 2;
                // the earlier half is tried first
                parts.push((first + half, count - half));
                parts.push((first, half));
            }
        }
        failing
    }

    /// The first row for which it fails, and how.
    pub(super) fn first(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, wanted: &DataType) -> (usize, Option<DataFusionError>) {
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
        (first, fails(first, count))
    }
}

/// An expression's values, as the lake has them.
pub(super) fn value_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, wanted: &DataType) -> Result<ArrayRef, DataFusionError> {
    let mut values = expr.evaluate(rows)?.into_array(rows.num_rows())?;
    if values.data_type() != wanted {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        values = cast_with_options(&values, wanted, &strict)?;
    }
    // arithmetic only sees to it that it fits 128 bits
    if let DataType::Decimal128(precision, _) = wanted {
        values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
    }
    Ok(values)
}

/// Why an expression failed, without the value.
pub(super) fn reason(error: &DataFusionError) -> Option<&'static str> {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => Some("division by zero"),
            ArrowError::ArithmeticOverflow(_) => Some("a number is too large"),
            ArrowError::CastError(_) | ArrowError::ParseError(_) => Some("a value can't be cast to the type"),
            ArrowError::InvalidArgumentError(why) if why.contains("in a Decimal") => Some("a number is too large"),
            ArrowError::InvalidArgumentError(why) if why.starts_with("Encountered non") => Some("the bytes are no text in UTF-8"),
            _ => None,
        },
        _ => None,
    }
}
