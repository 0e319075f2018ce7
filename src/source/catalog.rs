//! The catalog: which tables the server has, their shapes and keys, from `information_schema`.
//!
//! Where the binlog carries FULL row metadata, its table maps are what rows are decoded by; the catalog says the shapes *before* the first row of the
//! binlog (for a snapshot, and for the lake's tables), and what a table map doesn't say: estimates, engines, the index that a snapshot splits by.

use super::catalog_type::{TypeRow, source_type};
use super::connect::source_error;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{Column, SourceType, TableId, TableSchema};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, from_row_opt};
use std::collections::BTreeMap;

/// What a rule wants of a table that it selects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Names of the key's columns; empty: the primary key.
    pub key: Vec<String>,
    /// Whether TINYINT(1) is a boolean.
    pub tinyint1_is_bool: bool,
}

/// The selected tables of a server at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The tables, by name.
    pub tables: BTreeMap<TableId, CatalogTable>,
    /// Tables that are selected and can't be replicated as they are, each with the reason.
    pub refused: Vec<(TableId, Error)>,
}

/// One table in the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogTable {
    /// Its columns and key.
    pub schema: TableSchema,
    /// The storage engine, as `InnoDB`.
    pub engine: String,
    /// The server's estimate of its rows.
    pub estimated_rows: u64,
    /// The server's estimate of a row's size in bytes.
    pub mean_row_bytes: u64,
    /// The leading columns of a unique index without NULLs by whose order a snapshot can be split; empty: there is none.
    pub split_key: Vec<SplitColumn>,
    /// What the rule wants of it.
    pub wanted: Wanted,
}

/// A column by whose order a snapshot can be split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub source_type: SourceType,
    /// The collation that orders it, for text.
    pub collation: Option<String>,
}

impl CatalogTable {
    /// Whether reads in one transaction all see one moment of it.
    pub fn is_transactional(&self) -> bool {
        ["innodb", "rocksdb", "tokudb", "ndbcluster"].iter().any(|engine| self.engine.eq_ignore_ascii_case(engine))
    }
}

/// Reads the catalog of all tables for which `select` gives an answer.
pub async fn load_catalog(conn: &mut Conn, select: impl Fn(&TableId) -> Option<Wanted>) -> Result<Catalog> {
    let mut catalog = Catalog::default();
    let mut databases: BTreeMap<String, Vec<(TableRow, Wanted)>> = BTreeMap::new();
    for table in read_tables(conn).await? {
        if let Some(wanted) = select(&table.id) {
            databases.entry(table.id.database().to_owned()).or_default().push((table, wanted));
        }
    }
    for (database, tables) in databases {
        let only = match tables.as_slice() {
            [(table, _)] => Some(table.id.name().to_owned()),
            _ => None,
        };
        let mut columns = read_columns(conn, &database, only.as_deref()).await?;
        let mut indexes = read_indexes(conn, &database, only.as_deref()).await?;
        for (table, wanted) in tables {
            let columns = columns.remove(table.id.name()).unwrap_or_default();
            let indexes = indexes.remove(table.id.name()).unwrap_or_default();
            let id = table.id.clone();
            match compose(table, &columns, &indexes, &wanted) {
                Ok(table) => drop(catalog.tables.insert(id, table)),
                Err(error) => catalog.refused.push((id.clone(), error.with("table", id))),
            }
        }
    }
    Ok(catalog)
}

/// Reads one table's entry; an error of kind `Data` where it doesn't exist or can't be replicated.
pub async fn load_table(conn: &mut Conn, table: &TableId, wanted: &Wanted) -> Result<CatalogTable> {
    let mut catalog = load_catalog(conn, |id| (id == table).then(|| wanted.clone())).await?;
    if let Some(found) = catalog.tables.remove(table) {
        return Ok(found);
    }
    Err(catalog.refused.pop().map_or_else(|| no_such_table(table), |(_, error)| error))
}

/// The first of `tables` that isn't any more what its entry says, or is gone.
pub(super) async fn find_changed(conn: &mut Conn, tables: &[&CatalogTable]) -> Result<Option<TableId>> {
    let entries: BTreeMap<&TableId, &CatalogTable> = tables.iter().map(|entry| (&entry.schema.table, *entry)).collect();
    let now = load_catalog(conn, |id| entries.get(id).map(|entry| entry.wanted.clone())).await?;
    let is_same = |(id, entry): &(&TableId, &CatalogTable)| now.tables.get(*id).is_some_and(|now| now.schema == entry.schema);
    Ok(entries.into_iter().find(|entry| !is_same(entry)).map(|(id, _)| id.clone()))
}

/// The error for a table that a rule names and the server doesn't have (or hides from this user).
pub fn no_such_table(table: &TableId) -> Error {
    Error::new(Area::Source, Kind::Refused, "the table doesn't exist, or the user may not see it")
        .with("table", table)
        .remedy("correct `source` in its rule, or grant SELECT on it")
}

struct TableRow {
    id: TableId,
    engine: String,
    rows: u64,
    row_bytes: u64,
}

struct ColumnRow {
    name: String,
    nullable: bool,
    collation: Option<String>,
    type_row: TypeRow,
}

/// One index: its parts in their order.
#[derive(Debug, Default, Clone)]
struct IndexRow {
    name: String,
    unique: bool,
    parts: Vec<IndexPart>,
}

#[derive(Debug, Default, Clone)]
struct IndexPart {
    /// `None`: an expression.
    column: Option<String>,
    ascending: bool,
    prefix_only: bool,
}

async fn read_tables(conn: &mut Conn) -> Result<Vec<TableRow>> {
    let rows: Vec<Row> = conn
        .query(
            "SELECT table_schema, table_name, engine, table_rows, avg_row_length FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') \
             ORDER BY table_schema, table_name",
        )
        .await
        .map_err(|error| source_error(error, "the server's list of tables can't be read"))?;
    rows.into_iter()
        .map(|row| {
            let (database, name, engine, rows, row_bytes) =
                from_row_opt::<(String, String, Option<String>, Option<u64>, Option<u64>)>(row)
                    .map_err(|_| unexpected("tables"))?;
            let engine = engine.unwrap_or_default();
            Ok(TableRow { id: TableId::new(database, name), engine, rows: rows.unwrap_or(0), row_bytes: row_bytes.unwrap_or(0) })
        })
        .collect()
}

type Facts = (String, String, String, String, String, Option<String>, Option<String>);
type Sizes = (Option<u64>, Option<u64>, Option<u64>, Option<u64>);

async fn read_columns(conn: &mut Conn, database: &str, table: Option<&str>) -> Result<BTreeMap<String, Vec<ColumnRow>>> {
    let sql = "SELECT table_name, column_name, is_nullable, data_type, column_type, character_set_name, collation_name, \
               character_octet_length, numeric_precision, numeric_scale, datetime_precision \
               FROM information_schema.columns WHERE table_schema = ? AND table_name LIKE ? ORDER BY table_name, ordinal_position";
    let rows: Vec<Row> = conn
        .exec(sql, (database, like(table)))
        .await
        .map_err(|error| source_error(error, "the server's list of columns can't be read"))?;
    let mut tables: BTreeMap<String, Vec<ColumnRow>> = BTreeMap::new();
    for mut row in rows {
        let wrong = || unexpected("columns");
        let sizes: Sizes = (take(&mut row, 7)?, take(&mut row, 8)?, take(&mut row, 9)?, take(&mut row, 10)?);
        let facts: Facts = (
            take(&mut row, 0)?.ok_or_else(wrong)?,
            take(&mut row, 1)?.ok_or_else(wrong)?,
            take(&mut row, 2)?.ok_or_else(wrong)?,
            take(&mut row, 3)?.ok_or_else(wrong)?,
            take(&mut row, 4)?.ok_or_else(wrong)?,
            take(&mut row, 5)?,
            take(&mut row, 6)?,
        );
        let (table, name, nullable, data_type, column_type, charset, collation) = facts;
        let (octets, precision, scale, fsp) = sizes;
        tables.entry(table).or_default().push(ColumnRow {
            name,
            nullable: nullable.eq_ignore_ascii_case("yes"),
            collation,
            type_row: TypeRow { data_type, column_type, charset, octets, precision, scale, fsp },
        });
    }
    Ok(tables)
}

async fn read_indexes(conn: &mut Conn, database: &str, table: Option<&str>) -> Result<BTreeMap<String, Vec<IndexRow>>> {
    let sql = "SELECT table_name, index_name, non_unique, column_name, collation, sub_part FROM information_schema.statistics \
               WHERE table_schema = ? AND table_name LIKE ? ORDER BY table_name, index_name, seq_in_index";
    let rows: Vec<Row> = conn
        .exec(sql, (database, like(table)))
        .await
        .map_err(|error| source_error(error, "the server's list of indexes can't be read"))?;
    let mut tables: BTreeMap<String, Vec<IndexRow>> = BTreeMap::new();
    for mut row in rows {
        let wrong = || unexpected("statistics");
        let table: String = take(&mut row, 0)?.ok_or_else(wrong)?;
        let name: String = take(&mut row, 1)?.ok_or_else(wrong)?;
        let unique = take::<u64>(&mut row, 2)? == Some(0);
        let direction: Option<String> = take(&mut row, 4)?;
        let part = IndexPart {
            column: take(&mut row, 3)?,
            ascending: direction.as_deref() == Some("A"),
            prefix_only: take::<u64>(&mut row, 5)?.is_some(),
        };
        let indexes = tables.entry(table).or_default();
        match indexes.last_mut() {
            Some(index) if index.name == name => index.parts.push(part),
            _ => indexes.push(IndexRow { name, unique, parts: vec![part] }),
        }
    }
    Ok(tables)
}

/// A `LIKE` pattern for exactly `table`, or for all.
fn like(table: Option<&str>) -> String {
    table.map_or_else(|| "%".to_owned(), |name| name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

fn take<T: mysql_async::prelude::FromValue>(row: &mut Row, index: usize) -> Result<Option<T>> {
    row.take_opt::<Option<T>, _>(index).ok_or_else(|| unexpected("row"))?.map_err(|_| unexpected("row"))
}

fn unexpected(view: &str) -> Error {
    Error::new(Area::Source, Kind::Refused, "the server's information_schema has an unexpected form").with("view", view)
}

/// Puts one table together. Pure.
fn compose(table: TableRow, columns: &[ColumnRow], indexes: &[IndexRow], wanted: &Wanted) -> Result<CatalogTable> {
    if columns.is_empty() {
        return Err(no_such_table(&table.id));
    }
    let mut typed = Vec::with_capacity(columns.len());
    for column in columns {
        let source_type =
            source_type(&column.type_row, wanted.tinyint1_is_bool).map_err(|error| error.with("column", column.name.as_str()))?;
        typed.push(Column { name: column.name.clone(), source_type, nullable: column.nullable });
    }
    let key = find_key(&typed, indexes, wanted)?;
    let split_key = find_split_key(&typed, columns, indexes);
    Ok(CatalogTable {
        schema: TableSchema { table: table.id, columns: typed, key },
        engine: table.engine,
        estimated_rows: table.rows,
        mean_row_bytes: table.row_bytes,
        split_key,
        wanted: wanted.clone(),
    })
}

fn find_key(columns: &[Column], indexes: &[IndexRow], wanted: &Wanted) -> Result<Vec<usize>> {
    let at = |name: &str| columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    if !wanted.key.is_empty() {
        return wanted.key.iter().map(|name| at(name).ok_or_else(|| no_key_column(name))).collect();
    }
    let primary = indexes.iter().find(|index| index.name == "PRIMARY").ok_or_else(|| {
        Error::new(Area::Source, Kind::Refused, "the table has no primary key")
            .remedy("declare `key = [\"column\", …]` in its rule, or give it a primary key")
    })?;
    primary
        .parts
        .iter()
        .map(|part| {
            part.column.as_deref().and_then(at).ok_or_else(|| no_key_column(part.column.as_deref().unwrap_or("(expression)")))
        })
        .collect()
}

/// What is said of a table that lacks a column of the key that its rule gives it.
pub const NO_KEY_COLUMN: &str = "the table has no column of its rule's `key`";

fn no_key_column(name: &str) -> Error {
    Error::config(NO_KEY_COLUMN).with("column", name).remedy("correct `key` in the table's rule")
}

/// The longest leading part of the primary key (else of a unique index without NULLs) whose order can be asked for with exact literals.
fn find_split_key(columns: &[Column], rows: &[ColumnRow], indexes: &[IndexRow]) -> Vec<SplitColumn> {
    let leading = |index: &IndexRow| -> Vec<SplitColumn> {
        let mut found = Vec::new();
        for part in &index.parts {
            let column = part.column.as_deref().and_then(|name| columns.iter().zip(rows).find(|(column, _)| column.name == name));
            match column {
                Some((column, row))
                    if part.ascending && !part.prefix_only && !column.nullable && splittable(&column.source_type) =>
                {
                    found.push(SplitColumn {
                        name: column.name.clone(),
                        source_type: column.source_type.clone(),
                        collation: row.collation.clone(),
                    });
                }
                _ => break,
            }
        }
        found
    };
    let primary = indexes.iter().filter(|index| index.name == "PRIMARY");
    let unique = indexes.iter().filter(|index| index.name != "PRIMARY" && index.unique);
    primary.chain(unique).map(leading).find(|columns| !columns.is_empty()).unwrap_or_default()
}

/// Whether a literal of the type compares in the index's order: not ENUM and SET (compared as text, ordered by number), nor floating point.
fn splittable(source_type: &SourceType) -> bool {
    !matches!(
        source_type,
        SourceType::Enum { .. }
            | SourceType::Set { .. }
            | SourceType::Float
            | SourceType::Double
            | SourceType::Json
            | SourceType::Geometry
            | SourceType::Vector
            | SourceType::Bool
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str, nullable: bool) -> ColumnRow {
        let type_row = TypeRow {
            data_type: data_type.into(),
            column_type: format!("{data_type}('x')"),
            charset: Some("utf8mb4".into()),
            ..TypeRow::default()
        };
        ColumnRow { name: name.into(), nullable, collation: Some("utf8mb4_bin".into()), type_row }
    }

    fn index(name: &str, unique: bool, columns: &[&str]) -> IndexRow {
        let part = |column: &&str| IndexPart { column: Some((*column).into()), ascending: true, prefix_only: false };
        IndexRow { name: name.into(), unique, parts: columns.iter().map(part).collect() }
    }

    fn table() -> TableRow {
        TableRow { id: TableId::new("shop", "orders"), engine: "InnoDB".into(), rows: 5, row_bytes: 100 }
    }

    fn split_names(table: &CatalogTable) -> Vec<&str> {
        table.split_key.iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn the_primary_key_is_the_key_and_splits_up_to_an_enum() {
        let columns = [column("a", "int", false), column("e", "enum", false), column("b", "varchar", false)];
        let indexes = [index("PRIMARY", true, &["b", "a", "e"])];
        let found = compose(table(), &columns, &indexes, &Wanted::default()).unwrap();
        assert_eq!(found.schema.key, [2, 0, 1]);
        assert_eq!(split_names(&found), ["b", "a"]);
        assert!(found.is_transactional());
    }

    #[test]
    fn a_table_without_a_primary_key_needs_a_declared_one() {
        let columns = [column("code", "varchar", true), column("n", "int", false)];
        let error = compose(table(), &columns, &[], &Wanted::default()).unwrap_err();
        assert!(error.to_string().contains("no primary key"), "{error}");
        let wanted = Wanted { key: vec!["code".into()], ..Wanted::default() };
        let found = compose(table(), &columns, &[index("u", true, &["n"]), index("i", false, &["code"])], &wanted).unwrap();
        assert_eq!(found.schema.key, [0]);
        assert_eq!(split_names(&found), ["n"]);
        let wanted = Wanted { key: vec!["nope".into()], ..Wanted::default() };
        let error = compose(table(), &columns, &[], &wanted).unwrap_err();
        assert!(error.to_string().contains("column=nope"), "{error}");
    }
}
