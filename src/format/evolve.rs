//! What a table's shape becomes when records say more of it than is known: columns come, types become wider, nothing goes.

use super::cell::Cell;
use crate::event::{Column, SourceType, TableSchema};
use arrow::datatypes::DataType;

/// How a column is described anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// By a statement about the table: it counts.
    Statement,
    /// By a record's own values: what is known is as good, where the lake's type is the same.
    Record,
}

/// The known columns in their order, with the new ones behind them; `Err` names the column whose type can't become the other.
pub(super) fn merged(known: &[Column], seen: &[Column], word: Word) -> Result<Vec<Column>, String> {
    let mut columns = known.to_vec();
    for new in seen {
        let Some(old) = columns.iter_mut().find(|column| column.name == new.name) else {
            columns.push(Column { nullable: true, ..new.clone() });
            continue;
        };
        let is_same = old.source_type.lake_type() == new.source_type.lake_type();
        if is_same && word == Word::Statement {
            old.source_type = new.source_type.clone();
        } else if !is_same {
            old.source_type = wider(&old.source_type, &new.source_type).ok_or_else(|| new.name.clone())?;
        }
    }
    Ok(columns)
}

/// The type of the two that holds all values of the other, or one that holds both's.
pub(super) fn wider(a: &SourceType, b: &SourceType) -> Option<SourceType> {
    let digits = |lake: &DataType| match lake {
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::Decimal128(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        _ => None,
    };
    let (x, y) = (a.lake_type(), b.lake_type());
    match (&x, &y) {
        _ if x == y => Some(a.clone()),
        (DataType::Boolean, DataType::Int32 | DataType::Int64) => Some(b.clone()),
        (DataType::Int32, DataType::Int64 | DataType::Float64) | (DataType::Float32, DataType::Float64) => Some(b.clone()),
        (DataType::Int32 | DataType::Int64, DataType::Boolean) | (DataType::Int64 | DataType::Float64, DataType::Int32) => {
            Some(a.clone())
        }
        (DataType::Float64, DataType::Float32) => Some(a.clone()),
        _ => {
            let ((whole, scale), (other_whole, other_scale)) = (digits(&x)?, digits(&y)?);
            let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
            let precision = u8::try_from(whole + scale).ok().filter(|precision| *precision <= 38)?;
            Some(SourceType::Decimal { precision, scale: u8::try_from(scale).ok()? })
        }
    }
}

/// A value of one type as one of a type that is as wide; `Err` says what is wrong.
pub(super) fn fit(cell: Cell<'static>, from: &SourceType, to: &SourceType) -> Result<Cell<'static>, &'static str> {
    const OTHER: &str = "it is of another type than the column";
    let (from, to) = (from.lake_type(), to.lake_type());
    if from == to || cell == Cell::Null {
        return Ok(cell);
    }
    Ok(match (cell, &to) {
        (Cell::Bool(value), DataType::Int32 | DataType::Int64) => Cell::Int(value.into()),
        (Cell::Int(value), DataType::Int64) => Cell::Int(value),
        (Cell::Int(value), DataType::Int32) => Cell::Int(i32::try_from(value).map_err(|_| "it is no int")?.into()),
        (Cell::Int(value), DataType::Float64) => Cell::Double(i32::try_from(value).map_err(|_| OTHER)?.into()),
        (Cell::Float(value), DataType::Float64) => Cell::Double(value.into()),
        (Cell::Int(value), DataType::Decimal128(precision, scale)) => rescaled(value.into(), 0, *precision, *scale)?,
        (Cell::Decimal(value), DataType::Decimal128(precision, scale)) => {
            let DataType::Decimal128(_, before) = from else { return Err(OTHER) };
            rescaled(value, before, *precision, *scale)?
        }
        _ => return Err(OTHER),
    })
}

fn rescaled(value: i128, from: i8, precision: u8, to: i8) -> Result<Cell<'static>, &'static str> {
    const UNFIT: &str = "it doesn't fit the decimal";
    let power = |digits: i8| 10_i128.checked_pow(u32::try_from(digits).ok()?);
    let scaled = match i8::try_from(i16::from(to) - i16::from(from)).map_err(|_| UNFIT)? {
        up @ 0.. => power(up).and_then(|power| value.checked_mul(power)),
        down => power(-down).filter(|power| value % power == 0).map(|power| value / power),
    };
    let most = 10_i128.checked_pow(precision.into()).ok_or(UNFIT)?;
    scaled.filter(|value| value.abs() < most).map(Cell::Decimal).ok_or(UNFIT)
}

/// The indices of a key's columns; `None` if one isn't there, or the key is empty.
pub(super) fn key_of(columns: &[Column], key: &[String]) -> Option<Vec<usize>> {
    let at = |name: &String| columns.iter().position(|column| column.name == *name);
    (!key.is_empty()).then(|| key.iter().map(at).collect::<Option<Vec<usize>>>()).flatten()
}

/// A key's names.
pub(super) fn key_names(schema: &TableSchema) -> Vec<String> {
    schema.key.iter().filter_map(|i| schema.columns.get(*i)).map(|column| column.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: SourceType = SourceType::Int { unsigned: false };
    const BIGINT: SourceType = SourceType::BigInt { unsigned: false };

    fn decimal(precision: u8, scale: u8) -> SourceType {
        SourceType::Decimal { precision, scale }
    }

    fn column(name: &str, source_type: SourceType) -> Column {
        Column { name: name.into(), source_type, nullable: true }
    }

    #[test]
    fn types_become_wider_or_not_at_all() {
        for (a, b, both) in [
            (INT, BIGINT, Some(BIGINT)),
            (SourceType::Bool, INT, Some(INT)),
            (SourceType::Float, SourceType::Double, Some(SourceType::Double)),
            (BIGINT, decimal(10, 2), Some(decimal(21, 2))),
            (decimal(10, 2), decimal(12, 5), Some(decimal(13, 5))),
            (decimal(38, 0), decimal(10, 2), None),
            (BIGINT, SourceType::Double, None),
            (INT, SourceType::Json, None),
        ] {
            assert_eq!(wider(&a, &b), both, "{a:?} {b:?}");
            assert_eq!(wider(&b, &a), both, "{b:?} {a:?}");
        }
    }

    #[test]
    fn columns_come_behind_and_none_goes() {
        let known = [column("id", INT), column("gone", SourceType::Date), column("at", SourceType::DateTime { fsp: 3 })];
        let seen = [column("new", SourceType::Json), column("at", SourceType::DateTime { fsp: 6 }), column("id", BIGINT)];
        let by_statement = merged(&known, &seen, Word::Statement).unwrap();
        let names: Vec<&str> = by_statement.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "gone", "at", "new"]);
        assert_eq!((&by_statement[0].source_type, &by_statement[2].source_type), (&BIGINT, &SourceType::DateTime { fsp: 6 }));
        assert_eq!(merged(&known, &seen, Word::Record).unwrap()[2].source_type, SourceType::DateTime { fsp: 3 });
        assert_eq!(merged(&known, &[column("gone", INT)], Word::Statement), Err("gone".into()));
    }

    #[test]
    fn values_fit_exactly_or_not_at_all() {
        assert_eq!(fit(Cell::Int(7), &BIGINT, &decimal(21, 2)), Ok(Cell::Decimal(700)));
        assert_eq!(fit(Cell::Decimal(150), &decimal(10, 2), &decimal(10, 1)), Ok(Cell::Decimal(15)));
        assert!(fit(Cell::Decimal(155), &decimal(10, 2), &decimal(10, 1)).is_err());
        assert!(fit(Cell::Decimal(99), &decimal(2, 0), &decimal(3, 2)).is_err());
        assert_eq!(fit(Cell::Bool(true), &SourceType::Bool, &INT), Ok(Cell::Int(1)));
        assert!(fit(Cell::Int(1 << 40), &BIGINT, &INT).is_err());
        assert!(fit(Cell::Date(1), &SourceType::Date, &INT).is_err());
    }
}
