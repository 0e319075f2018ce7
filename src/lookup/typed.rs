//! Rows that come with types, from Parquet or a table of the lake, in a lookup's columns: the declared ones, or those that they have.

use super::content::Content;
use crate::error::{Area, Error, Kind, Result};
use crate::format::{CellColumns, PlainColumn};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use serde_json::Value;
use std::sync::Arc;

/// The rows in the lake's types; where columns are declared, in these.
pub(super) fn typed(lookup: &str, declared: Option<&[PlainColumn]>, rows: &RecordBatch) -> Result<Content> {
    let schema = rows.schema();
    let columns: Vec<(Field, ArrayRef)> = match declared {
        Some(declared) => declared.iter().map(|column| of_declared(lookup, column, declared, rows)).collect::<Result<_>>()?,
        None => {
            let known = schema.fields().iter().zip(rows.columns());
            let known = known.filter_map(|(field, found)| Some((field.name(), lake_type(found.data_type())?, found)));
            let taken = |(name, wanted, found): (&String, DataType, &ArrayRef)| match as_type(found, &wanted) {
                Ok(column) => Ok((Field::new(name, wanted, true), column)),
                Err(why) => Err(unfit(lookup, name, &wanted, &why)),
            };
            known.map(taken).collect::<Result<_>>()?
        }
    };
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
    Ok(Content::new(rows.map_err(|error| Error::bug("a lookup's rows don't fit").caused_by(error))?, None))
}

fn of_declared(lookup: &str, column: &PlainColumn, declared: &[PlainColumn], rows: &RecordBatch) -> Result<(Field, ArrayRef)> {
    let (name, wanted) = (column.path.join("."), column.kind.source_type().lake_type());
    let named = rows.column_by_name(&name).or_else(|| rows.column_by_name(&column.name));
    let found = named.ok_or_else(|| unfit(lookup, &name, &wanted, "there is no such column"))?;
    let field = Field::new(&column.name, wanted.clone(), true);
    let found = match found.data_type() {
        DataType::Dictionary(_, values) => &as_type(found, values).map_err(|why| unfit(lookup, &name, &wanted, &why))?,
        _ => found,
    };
    // what can be written as JSON is read as if it were: nothing is rounded or cut off, and `format` counts
    if lake_type(found.data_type()).as_ref() == Some(&wanted) || !is_text_or_number(found.data_type()) {
        let taken = as_type(found, &wanted).map_err(|why| unfit(lookup, &name, &wanted, &why))?;
        return Ok((field, taken));
    }
    let mut cells = CellColumns::new(Arc::new(Schema::new(vec![field.clone()])));
    for row in 0..rows.num_rows() {
        let cell = column.kind.cell(&value(found, row));
        cells.push(vec![cell.map_err(|why| {
            // what doesn't fit isn't shown
            let key = declared.iter().filter(|other| other.name != column.name).find_map(|other| {
                let found = rows.column_by_name(&other.path.join(".")).filter(|found| found.is_valid(row))?;
                Some(format!("{}:{}", other.path.join("."), array_value_to_string(found, row).ok()?))
            });
            unfit(lookup, &name, &wanted, why).with("item", key.unwrap_or_else(|| format!("number {}", row + 1)))
        })?]);
    }
    Ok((field, cells.finish()?.column(0).clone()))
}

fn is_text_or_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn value(column: &ArrayRef, row: usize) -> Value {
    let text = match column.is_valid(row) {
        true => array_value_to_string(column, row).unwrap_or_default(),
        false => return Value::Null,
    };
    match column.data_type().is_numeric().then(|| text.parse::<serde_json::Number>()) {
        Some(Ok(number)) => Value::Number(number),
        _ => Value::String(text),
    }
}

fn as_type(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, wanted, &strict).map_err(|_| format!("it has {}", column.data_type()))
}

fn unfit(lookup: &str, name: &str, wanted: &DataType, why: &str) -> Error {
    Error::new(Area::Lake, Kind::Data, "a lookup's column doesn't have its type")
        .caused_by(std::io::Error::other(why.to_owned()))
        .with("lookup", lookup)
        .with("attribute", name)
        .with("type", wanted)
        .remedy("declare the column with another type in [lookup] columns, or leave it out of them")
}

/// The lake's type for values of an Arrow type; `None`: there is none.
pub fn lake_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        // what the lake has no type for keeps its digits
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Decimal256(..) | DataType::Time32(_) | DataType::Time64(_) => {
            DataType::Utf8
        }
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => return lake_type(values),
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => data_type.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray, Time32SecondArray};

    fn rows() -> RecordBatch {
        let columns = [
            ("code", Arc::new(StringArray::from(vec!["IN", "US"])) as ArrayRef),
            ("day", Arc::new(StringArray::from(vec!["2/15/11", "3/1/11"]))),
            ("at", Arc::new(Int64Array::from(vec![Some(86_400), None]))),
            ("rate", Arc::new(Float64Array::from(vec![2.0, 1.5]))),
            ("opens", Arc::new(Time32SecondArray::from(vec![3600, 0]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn declared(columns: &str) -> Result<Content> {
        let config: crate::lookup::LookupConfig =
            toml::from_str(&format!("url = 'file:a.parquet'\ncolumns = {{ {columns} }}")).unwrap();
        typed("l", config.columns.as_deref(), &rows())
    }

    #[test]
    fn values_fit_their_declared_columns_or_are_named() {
        let fits = "name = { type = 'string', path = 'code' }, day = { type = 'date', format = 'M/d/yy' }, \
                    at = { type = 'timestamp', format = 'epoch_s' }, rate = 'decimal(3,1)'";
        let shown = arrow::util::pretty::pretty_format_batches(&[declared(fits).unwrap().rows().clone()]).unwrap().to_string();
        assert!(shown.contains("| IN   | 2011-02-15 | 1970-01-02T00:00:00Z | 2.0  |"), "{shown}");
        for (columns, said) in [
            ("code = 'string', rate = 'int'", "it is no int lookup=l attribute=rate type=Int32 item=code:US"),
            ("code = 'string', rate = 'decimal(3,0)'", "it doesn't fit the decimal"),
            ("code = 'int'", "it is no int"),
            ("day = 'date'", "it is no date"),
            ("cod = 'string'", "there is no such column lookup=l attribute=cod"),
        ] {
            let error = declared(columns).unwrap_err().to_string();
            assert!(error.contains(said), "{columns}: {error}");
        }
    }

    #[test]
    fn what_the_lake_has_no_type_for_is_text() {
        let content = typed("l", None, &rows()).unwrap();
        let opens = content.rows().column_by_name("opens").unwrap();
        assert_eq!((opens.data_type(), array_value_to_string(opens, 0).unwrap().as_str()), (&DataType::Utf8, "01:00:00"));
    }
}
