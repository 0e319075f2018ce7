//! ALTER TABLE on a table's shape. No I/O.

use super::columns::ColumnBuilder;
use super::ddl::Clause;
use super::ddl_column::{ColumnDefinition, Place};
use super::ddl_fill::existing_value;
use super::shape::{BACKFILL, RENAMED, TypeChange, keeps_key_bytes, may_not_fit, type_change};
use super::tracked::{CaptureRule, stops_table};
use super::value::Value;
use crate::error::{Error, Result};
use crate::event::{Column, TableSchema};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;

/// What an ALTER TABLE did.
#[derive(Debug)]
pub(super) enum Altered {
    /// Nothing that the lake sees.
    Same,
    /// The table has another shape.
    NewShape {
        schema: TableSchema,
        /// One row: what existing rows have in the added columns where that isn't NULL.
        fill: Option<RecordBatch>,
    },
}

/// Applies the clauses. An error of kind `Data` stops the table. `is_strict`: the session refused to alter values silently.
pub(super) fn alter(known: &TableSchema, rule: &CaptureRule, clauses: &[Clause], is_strict: bool) -> Result<Altered> {
    let mut columns = known.columns.clone();
    let mut fills: Vec<(Column, Value<'static>)> = Vec::new();
    let breaks = |what: &'static str| stops_table(what).remedy(BACKFILL);
    for clause in clauses {
        match clause {
            Clause::Breaks(what) => return Err(breaks(what)),
            Clause::Rename => return Err(stops_table("the table was renamed").remedy(RENAMED)),
            Clause::PrimaryKey if rule.key.is_empty() => return Err(breaks("the table's primary key was changed")),
            Clause::PrimaryKey => {}
            Clause::Add { column, place } => {
                // IF NOT EXISTS, or a statement that was seen already
                if index_of(&columns, &column.name).is_some() {
                    continue;
                }
                if column.is_primary_key && rule.key.is_empty() {
                    return Err(breaks("the table's primary key was changed"));
                }
                let source_type = column.source_type(rule.tinyint1_is_bool).map_err(|error| error.with("column", &column.name))?;
                let value = existing_value(column, &source_type, rule.policies)?;
                let added = Column { name: column.name.clone(), source_type, nullable: column.is_nullable };
                if value != Value::Null {
                    fills.push((added.clone(), value));
                }
                put(&mut columns, added, place)?;
            }
            Clause::Modify { column, place } => modify(&mut columns, known, rule, column, place, is_strict)?,
        }
    }
    let names = known.key.iter().filter_map(|i| known.columns.get(*i));
    let key = names.filter_map(|column| index_of(&columns, &column.name)).collect();
    let schema = TableSchema { table: known.table.clone(), columns, key };
    if schema == *known {
        return Ok(Altered::Same);
    }
    Ok(Altered::NewShape { schema, fill: fill_batch(&fills)? })
}

fn index_of(columns: &[Column], name: &str) -> Option<usize> {
    columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
}

fn put(columns: &mut Vec<Column>, column: Column, place: &Place) -> Result<()> {
    let at = match place {
        Place::Default => columns.len(),
        Place::First => 0,
        Place::After(before) => {
            index_of(columns, before).ok_or_else(|| {
                stops_table("a column was placed after one that isn't known").with("column", before).remedy(BACKFILL)
            })? + 1
        }
    };
    columns.insert(at, column);
    Ok(())
}

fn modify(
    columns: &mut Vec<Column>,
    known: &TableSchema,
    rule: &CaptureRule,
    definition: &ColumnDefinition,
    place: &Place,
    is_strict: bool,
) -> Result<()> {
    let fails = |what: &'static str| stops_table(what).with("column", &definition.name).remedy(BACKFILL);
    let Some(at) = index_of(columns, &definition.name) else { return Err(fails("a column was modified that isn't known")) };
    let Some(old) = columns.get(at).cloned() else { return Err(Error::bug("a column vanished")) };
    let source_type = definition.source_type(rule.tinyint1_is_bool).map_err(|error| error.with("column", &definition.name))?;
    let change = type_change(&old.source_type, &source_type);
    let is_key = known.key.iter().filter_map(|i| known.columns.get(*i)).any(|column| column.name == old.name);
    match change {
        TypeChange::None => {}
        TypeChange::Wider if !is_key || keeps_key_bytes(&old.source_type, &source_type) => {}
        TypeChange::Wider => return Err(fails("the key's type was changed")),
        TypeChange::Other => return Err(fails("a column's type was changed")),
    }
    if !is_strict && may_not_fit(&old.source_type, &source_type) {
        return Err(fails("a column's type was changed in a session that may have altered its values silently"));
    }
    let may_alter = old.source_type != source_type || old.nullable && !definition.is_nullable;
    if may_alter && change != TypeChange::Wider && !is_strict && old.nullable && !definition.is_nullable {
        return Err(fails("a column became NOT NULL in a session that may have altered its values silently"));
    }
    // the lake's type decides; a text's character set is the next table map's business
    let source_type = if change == TypeChange::None { old.source_type } else { source_type };
    let column = Column { name: old.name, source_type, nullable: definition.is_nullable };
    match place {
        Place::Default => {
            if let Some(slot) = columns.get_mut(at) {
                *slot = column;
            }
        }
        _ => {
            columns.remove(at);
            put(columns, column, place)?;
        }
    }
    Ok(())
}

fn fill_batch(fills: &[(Column, Value<'static>)]) -> Result<Option<RecordBatch>> {
    if fills.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (column, value) in fills {
        let lake_type = column.source_type.lake_type();
        let mut builder = ColumnBuilder::new(&lake_type)?;
        builder.check(value).map_err(|error| error.with("column", &column.name))?;
        builder.append(value);
        fields.push(Field::new(&column.name, lake_type, true));
        arrays.push(builder.finish());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map(Some)
        .map_err(|error| Error::bug("the values of added columns don't fit their types").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::super::ddl::{Effect, effects};
    use super::*;
    use crate::event::{SourceType, TableId};
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;

    fn orders() -> TableSchema {
        let column = |name: &str, source_type| Column { name: name.into(), source_type, nullable: true };
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![
                column("id", SourceType::Int { unsigned: false }),
                column("note", SourceType::Text { charset: "latin1".into(), max_bytes: 20 }),
                column("price", SourceType::Decimal { precision: 8, scale: 2 }),
            ],
            key: vec![0],
        }
    }

    fn altered(sql: &str) -> Result<Altered> {
        let Some(Effect::Alter { clauses, .. }) = effects(&format!("ALTER TABLE orders {sql}"), "shop").pop() else {
            panic!("{sql}")
        };
        alter(&orders(), &CaptureRule::default(), &clauses, true)
    }

    #[test]
    fn added_columns_stand_where_they_are_put_and_fill_existing_rows() {
        let Altered::NewShape { schema, fill } = altered("ADD a INT NOT NULL DEFAULT 7 FIRST, ADD b TEXT AFTER id").unwrap() else {
            panic!()
        };
        assert_eq!(schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["a", "id", "b", "note", "price"]);
        assert_eq!(schema.key, [1]);
        let fill = fill.unwrap();
        assert_eq!((fill.num_columns(), fill.column(0).as_primitive::<Int32Type>().value(0)), (1, 7));
    }

    #[test]
    fn a_session_that_alters_values_silently_stops_the_table_where_it_may_have() {
        let altered = |sql: &str, is_strict| {
            let Some(Effect::Alter { clauses, .. }) = effects(&format!("ALTER TABLE orders {sql}"), "shop").pop() else {
                panic!("{sql}")
            };
            let mut known = orders();
            known.columns.push(Column { name: "count".into(), source_type: SourceType::Int { unsigned: false }, nullable: true });
            alter(&known, &CaptureRule::default(), &clauses, is_strict)
        };
        for sql in ["MODIFY count INT UNSIGNED", "MODIFY count SMALLINT"] {
            altered(sql, true).unwrap();
            assert!(altered(sql, false).unwrap_err().to_string().contains("silently"), "{sql}");
        }
        altered("MODIFY count BIGINT", false).unwrap();
    }

    #[test]
    fn wider_types_follow_and_others_stop() {
        let Altered::NewShape { schema, fill: None } = altered("MODIFY price DECIMAL(12,4)").unwrap() else { panic!() };
        assert_eq!(schema.columns[2].source_type, SourceType::Decimal { precision: 12, scale: 4 });
        let Altered::NewShape { schema, .. } = altered("MODIFY id BIGINT").unwrap() else { panic!() };
        assert_eq!(schema.columns[0].source_type, SourceType::BigInt { unsigned: false });
        assert!(matches!(altered("MODIFY note VARCHAR(300)").unwrap(), Altered::Same));
        assert!(matches!(altered("ADD INDEX i (note)").unwrap(), Altered::Same));
        for breaking in [
            "MODIFY price INT",
            "MODIFY id BIGINT UNSIGNED",
            "DROP note",
            "RENAME TO b",
            "ADD PRIMARY KEY (note)",
            "CHANGE note n TEXT",
            "ADD x INT DEFAULT (1 + 1)",
        ] {
            let error = altered(breaking).unwrap_err();
            assert!(error.to_string().contains("backfill"), "{breaking}: {error}");
        }
    }
}
