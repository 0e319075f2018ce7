//! Partition columns: computed from the source's, and numbered by the path that they make.

use super::rule::{PartitionField, PartitionFunction};
use super::shape::{arrow_error, data};
use crate::error::Result;
use crate::table::partition_path_at;
use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::{DatePart, date_part};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use std::collections::HashMap;
use std::fmt::Write;

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// The lake type of a partition column over a source column of `data_type`.
pub(super) fn lake_type(field: &PartitionField, data_type: &DataType) -> Result<DataType> {
    let wrong = |what: &'static str| {
        Err(data(what)
            .with("column", &field.column)
            .with("type", data_type)
            .remedy("correct `partition_by` in the table's [[table]]"))
    };
    match (field.function, data_type) {
        (None, DataType::Float32 | DataType::Float64 | DataType::Binary | DataType::List(_)) => {
            wrong("a table can't be partitioned by a column of this type")
        }
        (None, plain) => Ok(plain.clone()),
        (Some(PartitionFunction::Hour), DataType::Date32) => wrong("a date has no hour to partition by"),
        (Some(function), DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)) => Ok(match function {
            PartitionFunction::Year => DataType::Int32,
            PartitionFunction::Month | PartitionFunction::Day | PartitionFunction::Hour => DataType::Utf8,
        }),
        (Some(_), _) => wrong("the partition function needs a date or time column"),
    }
}

/// The partition column's values for the values of its source column; NULL stays NULL.
pub(super) fn evaluate(field: &PartitionField, column: &ArrayRef) -> Result<ArrayRef> {
    let Some(function) = field.function else { return Ok(column.clone()) };
    if function == PartitionFunction::Year {
        return date_part(column, DatePart::Year).map_err(arrow_error);
    }
    let unit = if function == PartitionFunction::Hour { MICROS_PER_HOUR } else { MICROS_PER_DAY };
    let micros: Box<dyn Iterator<Item = Option<i64>> + '_> = match column.data_type() {
        DataType::Date32 => Box::new(column.as_primitive::<Date32Type>().iter().map(|day| Some(i64::from(day?) * MICROS_PER_DAY))),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Box::new(column.as_primitive::<TimestampMicrosecondType>().iter()),
        other => return Err(data("the partition function needs a date or time column").with("type", other)),
    };
    let mut names = StringBuilder::with_capacity(column.len(), column.len() * 10);
    let mut text = String::new();
    let mut shown = None;
    for micros in micros {
        let Some(micros) = micros else {
            names.append_null();
            continue;
        };
        let start = micros.div_euclid(unit) * unit;
        if shown != Some(start) {
            text.clear();
            write_start(&mut text, function, start)
                .map_err(|_| data("a time is out of the calendar").with("column", &field.column))?;
            shown = Some(start);
        }
        names.append_value(&text);
    }
    Ok(std::sync::Arc::new(names.finish()))
}

fn write_start(text: &mut String, function: PartitionFunction, micros: i64) -> std::fmt::Result {
    let time = chrono::DateTime::from_timestamp_micros(micros).ok_or(std::fmt::Error)?;
    match function {
        PartitionFunction::Year => write!(text, "{}", time.format("%Y")),
        PartitionFunction::Month => write!(text, "{}", time.format("%Y-%m")),
        PartitionFunction::Day => write!(text, "{}", time.format("%Y-%m-%d")),
        PartitionFunction::Hour => write!(text, "{}", time.format("%Y-%m-%d-%H")),
    }
}

/// Numbers for partition paths, in the order of their first sight, so that rows carry four bytes instead of a path.
#[derive(Debug, Default, Clone)]
pub(super) struct PartitionNames {
    paths: Vec<String>,
    by_values: HashMap<Box<[u8]>, u32>,
    /// Different values may have one path: NULL and the empty text.
    by_path: HashMap<String, u32>,
}

impl PartitionNames {
    /// Each row's number. `columns` are the partition columns' values, called `names`.
    pub(super) fn numbers(&mut self, names: &[String], columns: &[ArrayRef]) -> Result<Vec<u32>> {
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(columns)).map_err(arrow_error)?;
        let mut numbers = Vec::with_capacity(rows.num_rows());
        let mut previous: Option<(usize, u32)> = None;
        for (i, row) in rows.iter().enumerate() {
            let number = match previous {
                Some((before, number)) if rows.row(before) == row => number,
                _ => match self.by_values.get(row.as_ref()) {
                    Some(number) => *number,
                    None => {
                        let number = self.number_of(partition_path_at(names, columns, i)?)?;
                        self.by_values.insert(row.as_ref().into(), number);
                        number
                    }
                },
            };
            previous = Some((i, number));
            numbers.push(number);
        }
        Ok(numbers)
    }

    fn number_of(&mut self, path: String) -> Result<u32> {
        if let Some(known) = self.by_path.get(&path) {
            return Ok(*known);
        }
        let number = u32::try_from(self.paths.len()).map_err(|_| data("the table has too many partitions"))?;
        self.paths.push(path.clone());
        self.by_path.insert(path, number);
        Ok(number)
    }

    /// Each number's rank in the order of the paths as text.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.paths.len() as u32).collect();
        order.sort_by(|a, b| self.paths[*a as usize].cmp(&self.paths[*b as usize]));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::PartitionBy;
    use super::*;
    use arrow::array::{Date32Array, Int32Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn field(text: &str) -> PartitionField {
        text.parse::<PartitionBy>().unwrap().fields.remove(0)
    }

    #[test]
    fn functions_of_times() {
        // 1969-12-31T23:30:00, 2026-11-21T14:12:30
        let times: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from(vec![Some(-1_800_000_000), None, Some(1_795_270_350_000_000)]).with_timezone("UTC"),
        );
        let years = evaluate(&field("year(t)"), &times).unwrap();
        assert_eq!(years.as_ref(), &Int32Array::from(vec![Some(1969), None, Some(2026)]) as &dyn Array);
        let text = |function: &str| evaluate(&field(function), &times).unwrap();
        let expect = |a, b| StringArray::from(vec![Some(a), None, Some(b)]);
        assert_eq!(text("month(t)").as_string::<i32>(), &expect("1969-12", "2026-11"));
        assert_eq!(text("day(t)").as_string::<i32>(), &expect("1969-12-31", "2026-11-21"));
        assert_eq!(text("hour(t)").as_string::<i32>(), &expect("1969-12-31-23", "2026-11-21-14"));
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(-1), None]));
        let shown = evaluate(&field("day(d)"), &days).unwrap();
        assert_eq!(shown.as_string::<i32>(), &StringArray::from(vec![Some("1969-12-31"), None]));
    }

    #[test]
    fn numbers_rank_as_their_paths_do_as_text() {
        let mut names = PartitionNames::default();
        let years: ArrayRef = Arc::new(Int32Array::from(vec![Some(9), Some(9), Some(10), None, Some(9)]));
        assert_eq!(names.numbers(&["y".into()], &[years]).unwrap(), [0, 0, 1, 2, 0]);
        // y=10 < y=9 < y=__HIVE_DEFAULT_PARTITION__
        assert_eq!(names.ranks(), [1, 0, 2]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), Some("a"), Some(""), None]));
        let mut names = PartitionNames::default();
        assert_eq!(names.numbers(&["t".into()], &[texts]).unwrap(), [0, 0, 1, 0, 0], "NULL and the empty text share a partition");
    }
}
