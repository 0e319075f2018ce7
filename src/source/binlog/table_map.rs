//! TABLE_MAP: a table's columns as the rows events that follow have them.
//!
//! With `binlog_row_metadata=FULL` it holds all that is needed to decode: names, signs, character sets, ENUM and SET members, the primary key.
//! Source: MySQL `rows_event.h` (`Table_map_event`), MariaDB `log_event.h`.

use crate::error::Result;
use crate::source::bytes::{Reader, bit, malformed, name};
use mysql_common::collations::{Collation, CollationId};

/// Column types in the binlog.
pub(crate) mod column_type {
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const MEDIUM_BLOB: u8 = 250;
    pub(crate) const LONG_BLOB: u8 = 251;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
    pub(crate) const MARIADB_BLOB_COMPRESSED: u8 = 140;
    pub(crate) const MARIADB_VARCHAR_COMPRESSED: u8 = 141;
}
use column_type as ty;

/// One column of a table map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedColumn {
    /// Its name; empty with minimal metadata.
    pub(crate) name: String,
    /// Its type: see [`column_type`]; ENUM and SET have their own, not STRING.
    pub(crate) kind: u8,
    /// What the type says besides: length, precision and scale, digits of the fraction, bytes of the length.
    pub(crate) meta: (u8, u8),
    /// STRING: the length in bytes.
    pub(crate) string_bytes: u16,
    pub(crate) is_unsigned: bool,
    pub(crate) is_nullable: bool,
    /// The character set's name of text, ENUM and SET.
    pub(crate) charset: Option<String>,
    /// ENUM's and SET's members, in `charset`.
    pub(crate) members: Vec<Vec<u8>>,
}

/// A table map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMap {
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<MappedColumn>,
    /// Indices of the primary key's columns, in its order.
    pub(crate) primary_key: Vec<usize>,
    /// Whether the columns' names are there (`binlog_row_metadata=FULL`).
    pub(crate) is_full: bool,
}

/// The number that rows events refer to, and the rest of the body.
pub(crate) fn table_number(body: &[u8]) -> Result<(u64, &[u8])> {
    let mut reader = Reader::new(body);
    let number = reader.uint(6)?;
    reader.u16()?; // flags
    Ok((number, reader.rest()))
}

/// Database and table, without reading further. `rest` is what [`table_number`] left.
pub(crate) fn table_name(rest: &[u8]) -> Result<(&str, &str)> {
    names(&mut Reader::new(rest))
}

fn names<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str)> {
    let length = usize::from(reader.u8()?);
    let database = name(reader.take(length)?)?;
    reader.u8()?;
    let length = usize::from(reader.u8()?);
    let table = name(reader.take(length)?)?;
    reader.u8()?;
    Ok((database, table))
}

/// Reads all of a table map. `rest` is what [`table_number`] left.
pub(crate) fn parse_table_map(rest: &[u8], is_mariadb: bool) -> Result<TableMap> {
    let mut reader = Reader::new(rest);
    let (database, table) = names(&mut reader)?;
    let (database, table) = (database.to_owned(), table.to_owned());
    let count = reader.count()?;
    let kinds = reader.take(count)?;
    let mut metadata = Reader::new(reader.sized()?);
    let nullable = reader.take(count.div_ceil(8))?;
    let mut columns = Vec::with_capacity(count);
    for (i, kind) in kinds.iter().enumerate() {
        let mut column = column(*kind, &mut metadata)?;
        column.is_nullable = bit(nullable, i);
        columns.push(column);
    }
    let mut map = TableMap { database, table, columns, primary_key: Vec::new(), is_full: false };
    optional_metadata(&mut map, reader, is_mariadb)?;
    Ok(map)
}

fn column(kind: u8, metadata: &mut Reader<'_>) -> Result<MappedColumn> {
    let (mut kind, mut string_bytes) = (kind, 0);
    let meta = match kind {
        ty::FLOAT | ty::DOUBLE | ty::TIMESTAMP2 | ty::DATETIME2 | ty::TIME2 => (metadata.u8()?, 0),
        ty::TINY_BLOB | ty::MEDIUM_BLOB | ty::LONG_BLOB | ty::BLOB | ty::GEOMETRY | ty::JSON | ty::VECTOR => (metadata.u8()?, 0),
        ty::MARIADB_BLOB_COMPRESSED => (metadata.u8()?, 0),
        ty::VARCHAR | ty::MARIADB_VARCHAR_COMPRESSED | ty::NEWDECIMAL | ty::BIT => (metadata.u8()?, metadata.u8()?),
        ty::VAR_STRING | ty::STRING | ty::ENUM | ty::SET => {
            let (first, second) = (metadata.u8()?, metadata.u8()?);
            // bits 4 and 5 of the real type hold bits 8 and 9 of the length, inverted
            let real = first | 0x30;
            string_bytes = u16::from(second) | u16::from((first & 0x30) ^ 0x30) << 4;
            if matches!(real, ty::ENUM | ty::SET) {
                kind = real;
            }
            (first, second)
        }
        ty::TINY | ty::SHORT | ty::LONG | ty::LONGLONG | ty::INT24 | ty::YEAR => (0, 0),
        ty::TIMESTAMP | ty::DATE | ty::TIME | ty::DATETIME | ty::NEWDATE => (0, 0),
        _ => return Err(malformed("a table map has a column of an unknown type").with("type", kind)),
    };
    Ok(MappedColumn {
        name: String::new(),
        kind,
        meta,
        string_bytes,
        is_unsigned: false,
        is_nullable: false,
        charset: None,
        members: Vec::new(),
    })
}

/// Whether the list of signs has a bit for the column. Both servers count YEAR.
fn is_numeric(column: &MappedColumn) -> bool {
    matches!(
        column.kind,
        ty::TINY | ty::SHORT | ty::INT24 | ty::LONG | ty::LONGLONG | ty::NEWDECIMAL | ty::FLOAT | ty::DOUBLE | ty::YEAR
    )
}

/// Whether the lists of character sets have an entry for the column. MySQL counts VECTOR as one of its blobs, MariaDB GEOMETRY.
fn is_character(column: &MappedColumn, is_mariadb: bool) -> bool {
    let is_binary_kind = column.kind == if is_mariadb { ty::GEOMETRY } else { ty::VECTOR };
    is_binary_kind
        || matches!(
            column.kind,
            ty::STRING
                | ty::VAR_STRING
                | ty::VARCHAR
                | ty::BLOB
                | ty::TINY_BLOB
                | ty::MEDIUM_BLOB
                | ty::LONG_BLOB
                | ty::MARIADB_BLOB_COMPRESSED
                | ty::MARIADB_VARCHAR_COMPRESSED
        )
}

fn optional_metadata(map: &mut TableMap, mut reader: Reader<'_>, is_mariadb: bool) -> Result<()> {
    let is_character = |column: &MappedColumn| is_character(column, is_mariadb);
    while !reader.is_empty() {
        let field = reader.u8()?;
        let mut value = Reader::new(reader.sized()?);
        match field {
            1 => signs(map, value.rest()),
            2 => default_charset(map, value, is_character)?,
            3 => column_charsets(map, value, is_character)?,
            4 => {
                for column in &mut map.columns {
                    column.name = name(value.sized()?)?.to_owned();
                }
                map.is_full = true;
            }
            5 => members(map, value, ty::SET)?,
            6 => members(map, value, ty::ENUM)?,
            8 => {
                while !value.is_empty() {
                    map.primary_key.push(value.count()?);
                }
            }
            9 => {
                while !value.is_empty() {
                    map.primary_key.push(value.count()?);
                    value.length()?; // bytes of the prefix
                }
            }
            10 => default_charset(map, value, |column| matches!(column.kind, ty::ENUM | ty::SET))?,
            11 => column_charsets(map, value, |column| matches!(column.kind, ty::ENUM | ty::SET))?,
            // geometry types, visibility, dimensions of vectors, and what newer servers add
            _ => {}
        }
    }
    Ok(())
}

/// One bit a numeric column, from the highest bit of the first byte on.
fn signs(map: &mut TableMap, bits: &[u8]) {
    for (i, column) in map.columns.iter_mut().filter(|column| is_numeric(column)).enumerate() {
        column.is_unsigned = bits.get(i / 8).is_some_and(|byte| byte << (i % 8) & 0x80 != 0);
    }
}

fn default_charset(map: &mut TableMap, mut value: Reader<'_>, applies: impl Fn(&MappedColumn) -> bool) -> Result<()> {
    let default = charset_of(value.length()?)?;
    let mut columns: Vec<&mut MappedColumn> = map.columns.iter_mut().filter(|column| applies(column)).collect();
    columns.iter_mut().for_each(|column| column.charset = Some(default.clone()));
    while !value.is_empty() {
        let place = value.count()?;
        let charset = charset_of(value.length()?)?;
        let column = columns.get_mut(place).ok_or_else(|| malformed("a table map has a character set of no column"))?;
        column.charset = Some(charset);
    }
    Ok(())
}

fn column_charsets(map: &mut TableMap, mut value: Reader<'_>, applies: impl Fn(&MappedColumn) -> bool) -> Result<()> {
    for column in map.columns.iter_mut().filter(|column| applies(column)) {
        column.charset = Some(charset_of(value.length()?)?);
    }
    Ok(())
}

fn members(map: &mut TableMap, mut value: Reader<'_>, kind: u8) -> Result<()> {
    for column in map.columns.iter_mut().filter(|column| column.kind == kind) {
        let count = value.count()?;
        column.members = (0..count.min(value.len())).map(|_| value.sized().map(<[u8]>::to_vec)).collect::<Result<_>>()?;
    }
    Ok(())
}

/// The character set of a collation's number.
fn charset_of(collation: u64) -> Result<String> {
    let number = u16::try_from(collation).map_err(|_| malformed("a collation's number is too large"))?;
    // MariaDB's UCA 14.0.0 collations: 256 numbers a character set
    let unicode = match number >> 8 {
        8 => Some("utf8mb3"),
        9 => Some("utf8mb4"),
        10 => Some("ucs2"),
        11 => Some("utf16"),
        12 => Some("utf32"),
        _ => None,
    };
    if let Some(charset) = unicode {
        return Ok(charset.to_owned());
    }
    match Collation::resolve(CollationId::from(number)).charset() {
        "utf8" => Ok("utf8mb3".to_owned()),
        "" | "UNKNOWN" => Err(malformed("a column has an unknown collation").with("collation", number)),
        known => Ok(known.to_owned()),
    }
}
