//! Hudi's record key: a row's primary key as text, by the rules of Hudi 0.15's key generators.
//!
//! One key column, and at most one partition column (`NonpartitionedKeyGenerator`, `SimpleKeyGenerator`): the bare value. Else
//! (`ComplexKeyGenerator`): `id:17,sport:football`, NULL as `__null__`, an empty value as `__empty__`, nothing escaped.

use crate::error::{Area, Error, Kind, Result};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use std::io::Write;

/// Which form a table's record keys have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKeyForm {
    /// The value of the only key column.
    Bare,
    /// `name:value` of each key column, joined by commas.
    Complex,
}

impl RecordKeyForm {
    /// The form that Hudi's key generator for so many columns uses.
    pub(super) fn of(key_columns: usize, partition_columns: usize) -> Self {
        if key_columns == 1 && partition_columns <= 1 { Self::Bare } else { Self::Complex }
    }
}

/// The record keys of the rows whose key columns are `columns`, called `names`.
pub(super) fn record_keys(form: RecordKeyForm, names: &[String], columns: &[ArrayRef]) -> Result<StringArray> {
    let rows = columns.first().map_or(0, |column| column.len());
    let texts = columns.iter().map(ValueText::of).collect::<Result<Vec<_>>>()?;
    let mut values = Vec::with_capacity(rows * 12 * columns.len());
    let mut ends: Vec<i32> = Vec::with_capacity(rows + 1);
    ends.push(0);
    for row in 0..rows {
        for (i, (name, text)) in names.iter().zip(&texts).enumerate() {
            if form == RecordKeyForm::Complex {
                if i > 0 {
                    values.push(b',');
                }
                values.extend_from_slice(name.as_bytes());
                values.push(b':');
            }
            let start = values.len();
            if !text.append(row, &mut values) {
                values.extend_from_slice(b"__null__");
            } else if values.len() == start {
                values.extend_from_slice(b"__empty__");
            }
        }
        ends.push(i32::try_from(values.len()).map_err(|_| Error::bug("more than 2 GiB of record keys in one batch"))?);
    }
    StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), values.into(), None)
        .map_err(|error| Error::bug("a record key is not UTF-8").caused_by(error))
}

/// A column whose values can be written as Hudi writes them into keys and partition paths.
pub(super) enum ValueText<'a> {
    Bool(&'a arrow::array::BooleanArray),
    Int(&'a arrow::array::Int32Array),
    Long(&'a arrow::array::Int64Array),
    Float(&'a arrow::array::Float32Array),
    Double(&'a arrow::array::Float64Array),
    Decimal(&'a arrow::array::Decimal128Array, i8),
    Date(&'a arrow::array::Date32Array),
    Micros(&'a arrow::array::TimestampMicrosecondArray),
    Text(&'a StringArray),
    TextView(&'a arrow::array::StringViewArray),
    Bytes(&'a arrow::array::BinaryArray),
    BytesView(&'a arrow::array::BinaryViewArray),
}

impl<'a> ValueText<'a> {
    /// Of a column of one of the lake's types but lists.
    pub(super) fn of(column: &'a ArrayRef) -> Result<Self> {
        Ok(match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int32 => Self::Int(column.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Long(column.as_primitive::<Int64Type>()),
            DataType::Float32 => Self::Float(column.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Double(column.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Self::Decimal(column.as_primitive::<Decimal128Type>(), *scale),
            DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Micros(column.as_primitive::<TimestampMicrosecondType>()),
            DataType::Utf8 => Self::Text(column.as_string::<i32>()),
            DataType::Utf8View => Self::TextView(column.as_string_view()),
            DataType::Binary => Self::Bytes(column.as_binary::<i32>()),
            DataType::BinaryView => Self::BytesView(column.as_binary_view()),
            other => {
                return Err(Error::new(Area::Lake, Kind::Refused, "a column of this type can't be a key or partition column")
                    .with("type", other)
                    .remedy("declare another key for the table"));
            }
        })
    }

    /// Appends the value at `row`; `false`, and nothing, for NULL.
    pub(super) fn append(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let null = match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Long(array) => array.is_null(row),
            Self::Float(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Micros(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::TextView(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::BytesView(array) => array.is_null(row),
        };
        if null {
            return false;
        }
        match self {
            Self::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Self::Int(array) => append_integer(i64::from(array.value(row)), out),
            Self::Long(array) => append_integer(array.value(row), out),
            Self::Micros(array) => append_integer(array.value(row), out),
            Self::Float(array) => append_java_float(
                f64::from(array.value(row)),
                &format!("{}", array.value(row)),
                &format!("{:e}", array.value(row)),
                out,
            ),
            Self::Double(array) => {
                append_java_float(array.value(row), &format!("{}", array.value(row)), &format!("{:e}", array.value(row)), out)
            }
            Self::Decimal(array, scale) => append_decimal(array.value(row), *scale, out),
            Self::Date(array) => match Date32Type::to_naive_date_opt(array.value(row)) {
                Some(date) => _ = write!(out, "{date}"),
                None => append_integer(i64::from(array.value(row)), out),
            },
            Self::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::TextView(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => append_hex(array.value(row), out),
            Self::BytesView(array) => append_hex(array.value(row), out),
        }
        true
    }
}

/// Appends a number's decimal digits: several times faster than `write!`.
pub(super) fn append_integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn append_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// `BigDecimal.toPlainString`: all digits of the scale, never an exponent.
fn append_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push(b'-');
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// `Double.toString`: decimal from 10⁻³ to 10⁷, else `1.0E20`. `plain` and `scientific` are Rust's shortest forms of the same number.
fn append_java_float(value: f64, plain: &str, scientific: &str, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        out.extend_from_slice(plain.as_bytes());
        if !plain.contains('.') {
            out.extend_from_slice(b".0");
        }
    } else {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
        out.extend_from_slice(mantissa.as_bytes());
        if !mantissa.contains('.') {
            out.extend_from_slice(b".0");
        }
        out.push(b'E');
        out.extend_from_slice(exponent.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, TimestampMicrosecondArray,
    };
    use std::sync::Arc;

    fn keys(form: RecordKeyForm, names: &[&str], columns: Vec<ArrayRef>) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        record_keys(form, &names, &columns).unwrap().iter().map(|key| key.unwrap().to_owned()).collect()
    }

    #[test]
    fn one_column_is_the_bare_value() {
        let int: ArrayRef = Arc::new(Int32Array::from(vec![0, 42, -5, i32::MAX, i32::MIN]));
        assert_eq!(keys(RecordKeyForm::Bare, &["id"], vec![int]), ["0", "42", "-5", "2147483647", "-2147483648"]);
        assert_eq!(RecordKeyForm::of(1, 1), RecordKeyForm::Bare);
        assert_eq!(RecordKeyForm::of(1, 2), RecordKeyForm::Complex);
        assert_eq!(RecordKeyForm::of(2, 0), RecordKeyForm::Complex);
    }

    #[test]
    fn several_columns_are_named_and_nothing_is_escaped() {
        let id: ArrayRef = Arc::new(Int32Array::from(vec![1, 3, 4, 6]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("x,y:z")]));
        assert_eq!(
            keys(RecordKeyForm::Complex, &["id", "s"], vec![id, text]),
            ["id:1,s:a", "id:3,s:__null__", "id:4,s:__empty__", "id:6,s:x,y:z"]
        );
    }

    #[test]
    fn values_are_written_as_java_does() {
        let one = |column: ArrayRef| keys(RecordKeyForm::Bare, &["c"], vec![column]);
        assert_eq!(one(Arc::new(Date32Array::from(vec![19724]))), ["2024-01-02"]);
        assert_eq!(one(Arc::new(TimestampMicrosecondArray::from(vec![1_704_164_645_678_901]))), ["1704164645678901"]);
        let decimal = Decimal128Array::from(vec![1230, -5, 0]).with_precision_and_scale(12, 2).unwrap();
        assert_eq!(one(Arc::new(decimal)), ["12.30", "-0.05", "0.00"]);
        let doubles = Float64Array::from(vec![1e20, 100.0, 0.001, 0.0001, 1.5e7, 9_999_999.5]);
        assert_eq!(one(Arc::new(doubles)), ["1.0E20", "100.0", "0.001", "1.0E-4", "1.5E7", "9999999.5"]);
        assert_eq!(one(Arc::new(BooleanArray::from(vec![true, false]))), ["true", "false"]);
        assert_eq!(one(Arc::new(BinaryArray::from(vec![&b"ab"[..]]))), ["6162"]);
    }
}
