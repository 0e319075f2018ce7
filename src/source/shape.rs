//! A table map against the shape that the capture knows: the same, a change that can be followed, or one that stops the table.

use super::binlog::table_map::TableMap;
use super::decode::{ColumnDecoder, mapped_source_type};
use super::tracked::stops_table;
use crate::error::Result;
use crate::event::{Column, SourceType, TableSchema};

/// The remedy for every change that can't be followed.
pub(crate) const BACKFILL: &str = "run `binlake backfill --table` for it to take a new snapshot";

/// The same for a table of this name that is no more, unless it is made again, …
pub(crate) const DROPPED: &str = "take it out of the rules (`binlake apply`), or make it again and run `binlake backfill --table` for it; the lake keeps its rows";
/// … and for one that is called otherwise now.
pub(crate) const RENAMED: &str =
    "write its new name into its rule (`binlake apply`), or give it back this one and run `binlake backfill --table` for it";

/// How one type becomes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeChange {
    /// What the lake has stays as it is.
    None,
    /// The lake's values become wider, with the same meaning.
    Wider,
    /// Values may change their meaning or their text.
    Other,
}

/// What happens to the lake's values when a column of type `old` becomes `new`.
pub(crate) fn type_change(old: &SourceType, new: &SourceType) -> TypeChange {
    use SourceType as T;
    let same_lake = old.lake_type() == new.lake_type();
    let if_same = |keeps: bool| if keeps { TypeChange::None } else { TypeChange::Other };
    match (old, new) {
        _ if old == new => TypeChange::None,
        (T::Bool, T::TinyInt { .. }) | (T::TinyInt { .. }, T::Bool) => TypeChange::None,
        (old, new) if is_integer(old) && is_integer(new) => match (integer_rank(old), integer_rank(new)) {
            (old, new) if old == new => TypeChange::None,
            (old, new) if old < new => TypeChange::Wider,
            _ => TypeChange::Other,
        },
        (T::Float, T::Double) => TypeChange::Wider,
        (T::Decimal { precision: p, scale: s }, T::Decimal { precision: p2, scale: s2 }) => {
            if *p > 38 && *p2 > 38 {
                // text with all digits of the scale
                if_same(s == s2 && p <= p2)
            } else if *p2 <= 38 && s2 >= s && p2.saturating_sub(*s2) >= p.saturating_sub(*s) {
                TypeChange::Wider
            } else {
                TypeChange::Other
            }
        }
        (T::Text { .. }, T::Text { .. }) | (T::Enum { .. }, T::Enum { .. }) | (T::Set { .. }, T::Set { .. }) => TypeChange::None,
        (T::Enum { .. } | T::Set { .. }, T::Text { .. }) => TypeChange::None,
        (T::Binary { fixed_bytes: 0 }, T::Binary { fixed_bytes: 0 }) => TypeChange::None,
        (T::Binary { .. }, T::Binary { fixed_bytes: 0 }) => TypeChange::None,
        (T::Bit { bits }, T::Bit { bits: more }) => if_same(same_lake && bits <= more && bits.div_ceil(8) == more.div_ceil(8)),
        (T::DateTime { fsp }, T::DateTime { fsp: more }) | (T::Timestamp { fsp }, T::Timestamp { fsp: more }) => {
            if_same(fsp <= more)
        }
        // MariaDB's JSON is text; MySQL's is written anew when a text becomes one
        (T::Json, T::Text { .. }) => TypeChange::None,
        _ => TypeChange::Other,
    }
}

/// Whether values of type `old` may not fit `new`: a session that isn't strict alters them, and the binlog doesn't say so.
pub(crate) fn may_not_fit(old: &SourceType, new: &SourceType) -> bool {
    use SourceType as T;
    let lacks = |old: &[String], new: &[String]| old.iter().any(|member| !new.contains(member));
    match (old, new) {
        (T::Enum { members: old }, T::Enum { members: new }) | (T::Set { members: old }, T::Set { members: new }) => {
            lacks(old, new)
        }
        (old, new) => match (integer_range(old), integer_range(new)) {
            (Some(old), Some(new)) => old.0 < new.0 || old.1 > new.1,
            _ => false,
        },
    }
}

/// The least and the greatest number of an integer type.
fn integer_range(kind: &SourceType) -> Option<(i128, i128)> {
    use SourceType as T;
    let (bits, unsigned) = match kind {
        // it is a TINYINT at the source
        T::Bool => (8, false),
        T::TinyInt { unsigned } => (8, *unsigned),
        T::SmallInt { unsigned } => (16, *unsigned),
        T::MediumInt { unsigned } => (24, *unsigned),
        T::Int { unsigned } => (32, *unsigned),
        T::BigInt { unsigned } => (64, *unsigned),
        _ => return None,
    };
    Some(if unsigned { (0, (1 << bits) - 1) } else { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) })
}

/// Whether a key's values, wider now, are the same bytes as before: else a key's rows would change their lane and overtake each other.
pub(crate) fn keeps_key_bytes(old: &SourceType, new: &SourceType) -> bool {
    is_integer(old) && is_integer(new) && integer_rank(new) < 3
}

fn is_integer(kind: &SourceType) -> bool {
    matches!(
        kind,
        SourceType::Bool
            | SourceType::TinyInt { .. }
            | SourceType::SmallInt { .. }
            | SourceType::MediumInt { .. }
            | SourceType::Int { .. }
            | SourceType::BigInt { .. }
    )
}

/// By the lake's type: int, bigint, decimal(20).
fn integer_rank(kind: &SourceType) -> u8 {
    match kind {
        SourceType::BigInt { unsigned: true } => 3,
        SourceType::BigInt { unsigned: false } | SourceType::Int { unsigned: true } => 2,
        _ => 1,
    }
}

/// A table map that was compared with the known shape.
#[derive(Debug)]
pub(crate) enum Fit {
    /// It is the known shape.
    Same(Vec<ColumnDecoder>),
    /// It is another one that can be followed: types are wider, columns moved.
    Changed(TableSchema),
}

/// Compares. An error stops the table.
pub(crate) fn fit(map: &TableMap, known: &TableSchema) -> Result<Fit> {
    if !map.is_full {
        return Err(stops_table("the table's events don't name its columns")
            .remedy("set binlog_row_metadata = FULL on the server, then run `binlake backfill --table` for it"));
    }
    let mut columns = Vec::with_capacity(map.columns.len());
    let mut is_same = map.columns.len() == known.columns.len();
    for (i, mapped) in map.columns.iter().enumerate() {
        let source_type = mapped_source_type(mapped).map_err(|error| error.with("column", &mapped.name))?;
        let at = known.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&mapped.name));
        let is_key = at.is_some_and(|at| known.key.contains(&at));
        let before = at.and_then(|at| known.columns.get(at));
        is_same &= known.columns.get(i).is_some_and(|column| column.name.eq_ignore_ascii_case(&mapped.name));
        let source_type = match before {
            Some(before) => match type_change(&before.source_type, &source_type) {
                TypeChange::None => before.source_type.clone(),
                TypeChange::Wider if !is_key || keeps_key_bytes(&before.source_type, &source_type) => {
                    is_same = false;
                    source_type
                }
                TypeChange::Wider | TypeChange::Other => {
                    return Err(stops_table("a column has another type than before").with("column", &mapped.name).remedy(BACKFILL));
                }
            },
            None => {
                return Err(stops_table("a column was added, and the binlog doesn't say what the existing rows have in it")
                    .with("column", &mapped.name)
                    .remedy(BACKFILL));
            }
        };
        columns.push(Column { name: before.map_or(&mapped.name, |b| &b.name).clone(), source_type, nullable: mapped.is_nullable });
    }
    if is_same {
        let decoder = |(mapped, column): (_, &Column)| ColumnDecoder::new(mapped, column.source_type == SourceType::Bool);
        return Ok(Fit::Same(map.columns.iter().zip(&known.columns).map(decoder).collect::<Result<_>>()?));
    }
    let schema = TableSchema { table: known.table.clone(), key: Vec::new(), columns };
    Ok(Fit::Changed(with_key_of(schema, known)?))
}

/// The new shape with the key of the old one; all old columns must still be there.
pub(crate) fn with_key_of(mut schema: TableSchema, known: &TableSchema) -> Result<TableSchema> {
    if let Some(lost) = known.columns.iter().find(|column| schema.index_of(&column.name).is_none()) {
        return Err(stops_table("a column was dropped or renamed").with("column", &lost.name).remedy(BACKFILL));
    }
    let names = known.key.iter().filter_map(|i| known.columns.get(*i));
    schema.key = names.filter_map(|column| schema.index_of(&column.name)).collect();
    Ok(schema)
}

/// The shape of a table that was unknown so far, from its first table map; `key`: the rule's, else the primary key.
pub(crate) fn shape_of(map: &TableMap, table: crate::event::TableId, key: &[String]) -> Result<TableSchema> {
    let columns: Vec<Column> = map
        .columns
        .iter()
        .map(|column| {
            let source_type = mapped_source_type(column).map_err(|error| error.with("column", &column.name))?;
            Ok(Column { name: column.name.clone(), source_type, nullable: column.is_nullable })
        })
        .collect::<Result<_>>()?;
    let mut schema = TableSchema { table, columns, key: Vec::new() };
    schema.key = if key.is_empty() {
        map.primary_key.clone()
    } else {
        let find = |name: &String| schema.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        key.iter()
            .map(|name| {
                find(name)
                    .ok_or_else(|| stops_table("the declared key has a column that the table doesn't have").with("column", name))
            })
            .collect::<Result<_>>()?
    };
    if schema.key.is_empty() {
        return Err(stops_table("the table has no primary key")
            .remedy("declare `key` in the table's rule, or give the table a primary key"));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_types_can_follow_which() {
        use SourceType as T;
        use TypeChange::{None, Other, Wider};
        let int = |unsigned| T::Int { unsigned };
        let decimal = |precision, scale| T::Decimal { precision, scale };
        let text = || T::Text { charset: "utf8mb4".into(), max_bytes: 0 };
        let cases = [
            (T::TinyInt { unsigned: true }, T::MediumInt { unsigned: false }, None),
            (int(false), T::BigInt { unsigned: false }, Wider),
            (int(false), int(true), Wider),
            (T::BigInt { unsigned: false }, int(false), Other),
            (T::BigInt { unsigned: false }, T::BigInt { unsigned: true }, Wider),
            (decimal(10, 2), decimal(12, 2), Wider),
            (decimal(10, 2), decimal(12, 4), Wider),
            (decimal(10, 2), decimal(11, 4), Other),
            (decimal(40, 2), decimal(41, 2), None),
            (decimal(38, 2), decimal(39, 2), Other),
            (T::Float, T::Double, Wider),
            (T::Double, T::Float, Other),
            (T::Time { fsp: 0 }, T::Time { fsp: 3 }, Other),
            (T::DateTime { fsp: 0 }, T::DateTime { fsp: 6 }, None),
            (T::DateTime { fsp: 0 }, T::Timestamp { fsp: 0 }, Other),
            (T::Binary { fixed_bytes: 4 }, T::Binary { fixed_bytes: 8 }, Other),
            (T::Bit { bits: 1 }, T::Bit { bits: 2 }, Other),
            (T::Year, int(false), Other),
            (text(), T::Json, Other),
            (T::Json, text(), None),
        ];
        for (old, new, expected) in cases {
            assert_eq!(type_change(&old, &new), expected, "{old:?} -> {new:?}");
        }
        let members = |all: &[&str]| all.iter().map(|member| (*member).to_owned()).collect::<Vec<_>>();
        let (all, few) = (T::Enum { members: members(&["a", "b"]) }, T::Enum { members: members(&["b"]) });
        assert!(may_not_fit(&all, &few) && !may_not_fit(&few, &all));
        assert!(may_not_fit(&int(false), &int(true)) && may_not_fit(&int(false), &T::TinyInt { unsigned: false }));
        assert!(!may_not_fit(&int(true), &T::BigInt { unsigned: false }) && !may_not_fit(&T::Bool, &int(false)));
        assert!(keeps_key_bytes(&int(false), &T::BigInt { unsigned: false }));
        assert!(!keeps_key_bytes(&int(true), &T::BigInt { unsigned: true }));
        assert!(!keeps_key_bytes(&decimal(10, 2), &decimal(12, 4)));
    }
}
