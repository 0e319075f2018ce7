//! The type of a column, from what `information_schema.columns` says about it. No I/O.

use super::charset::Charset;
use crate::error::{Area, Error, Kind, Result};
use crate::event::SourceType;

/// What `information_schema.columns` says about a column's type.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TypeRow {
    /// `DATA_TYPE`, as `varchar`.
    pub(super) data_type: String,
    /// `COLUMN_TYPE`, as `varchar(256)`.
    pub(super) column_type: String,
    /// `CHARACTER_SET_NAME`.
    pub(super) charset: Option<String>,
    /// `CHARACTER_OCTET_LENGTH`.
    pub(super) octets: Option<u64>,
    /// `NUMERIC_PRECISION`; the bits of a BIT.
    pub(super) precision: Option<u64>,
    /// `NUMERIC_SCALE`.
    pub(super) scale: Option<u64>,
    /// `DATETIME_PRECISION`.
    pub(super) fsp: Option<u64>,
}

/// The column's [`SourceType`]; TINYINT(1) is a boolean if `tinyint1_is_bool`.
pub(super) fn source_type(row: &TypeRow, tinyint1_is_bool: bool) -> Result<SourceType> {
    let column_type = row.column_type.to_ascii_lowercase();
    let unsigned = column_type.contains(" unsigned") || column_type.contains(" zerofill");
    let fsp = small(row.fsp);
    if column_type.contains("compressed*/") {
        return Err(unsupported(&format!("{} COMPRESSED", row.data_type)));
    }
    Ok(match row.data_type.to_ascii_lowercase().as_str() {
        "tinyint" if tinyint1_is_bool && column_type.starts_with("tinyint(1)") => SourceType::Bool,
        "tinyint" => SourceType::TinyInt { unsigned },
        "smallint" => SourceType::SmallInt { unsigned },
        "mediumint" => SourceType::MediumInt { unsigned },
        "int" | "integer" => SourceType::Int { unsigned },
        "bigint" => SourceType::BigInt { unsigned },
        "float" => SourceType::Float,
        "double" => SourceType::Double,
        "decimal" => SourceType::Decimal { precision: small(row.precision), scale: small(row.scale) },
        "bit" => SourceType::Bit { bits: small(row.precision) },
        "char" | "varchar" => SourceType::Text { charset: charset(row)?, max_bytes: wide(row.octets) },
        "tinytext" | "text" | "mediumtext" | "longtext" => SourceType::Text { charset: charset(row)?, max_bytes: 0 },
        "binary" => SourceType::Binary { fixed_bytes: wide(row.octets) },
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => SourceType::Binary { fixed_bytes: 0 },
        "enum" => SourceType::Enum { members: members(&row.column_type)? },
        "set" => SourceType::Set { members: members(&row.column_type)? },
        "json" => SourceType::Json,
        "date" => SourceType::Date,
        "datetime" => SourceType::DateTime { fsp },
        "timestamp" => SourceType::Timestamp { fsp },
        "time" => SourceType::Time { fsp },
        "year" => SourceType::Year,
        "vector" => SourceType::Vector,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => SourceType::Geometry,
        other => return Err(unsupported(other)),
    })
}

fn unsupported(name: &str) -> Error {
    Error::new(Area::Source, Kind::Data, format!("the column type {} isn't replicated", name.to_uppercase()))
        .remedy("exclude the table in its rule, or change the column's type")
}

fn small(number: Option<u64>) -> u8 {
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(0)
}

fn wide(number: Option<u64>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

fn charset(row: &TypeRow) -> Result<String> {
    match row.charset.as_deref() {
        // the name before MySQL 8.0.28 and in MariaDB
        Some("utf8") => Ok("utf8mb3".to_owned()),
        Some(name) if Charset::named(name).is_none() => Err(unsupported(&format!("{} in character set {name}", row.data_type))),
        Some(name) => Ok(name.to_owned()),
        None => Err(Error::new(Area::Source, Kind::Data, "the server doesn't name the column's character set")),
    }
}

/// The members of `enum('a','it''s')`. The server doubles `'` and writes `\\`, `\n`, `\r` and `\0` for those characters.
fn members(column_type: &str) -> Result<Vec<String>> {
    let damaged = || Error::new(Area::Source, Kind::Data, "the members of an ENUM or SET can't be read from its COLUMN_TYPE");
    let inner = column_type.split_once('(').ok_or_else(damaged)?.1;
    let mut chars = inner.chars().peekable();
    let mut found = Vec::new();
    loop {
        if chars.next() != Some('\'') {
            return Err(damaged());
        }
        let mut member = String::new();
        loop {
            match chars.next().ok_or_else(damaged)? {
                '\'' if chars.next_if_eq(&'\'').is_some() => member.push('\''),
                '\'' => break,
                '\\' => member.push(match chars.next().ok_or_else(damaged)? {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                other => member.push(other),
            }
        }
        found.push(member);
        match chars.next() {
            Some(',') => {}
            Some(')') => return Ok(found),
            _ => return Err(damaged()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: &str, column_type: &str) -> Result<SourceType> {
        let row = TypeRow {
            data_type: data_type.into(),
            column_type: column_type.into(),
            charset: Some("utf8".into()),
            octets: Some(12),
            precision: Some(65),
            scale: Some(30),
            fsp: Some(6),
        };
        source_type(&row, true)
    }

    #[test]
    fn types() {
        assert_eq!(of("tinyint", "tinyint(1)").unwrap(), SourceType::Bool);
        assert_eq!(of("tinyint", "tinyint unsigned").unwrap(), SourceType::TinyInt { unsigned: true });
        assert_eq!(of("bigint", "bigint(20) unsigned zerofill").unwrap(), SourceType::BigInt { unsigned: true });
        assert_eq!(of("decimal", "decimal(65,30)").unwrap(), SourceType::Decimal { precision: 65, scale: 30 });
        assert_eq!(of("varchar", "varchar(3)").unwrap(), SourceType::Text { charset: "utf8mb3".into(), max_bytes: 12 });
        assert_eq!(of("binary", "binary(12)").unwrap(), SourceType::Binary { fixed_bytes: 12 });
        assert_eq!(of("datetime", "datetime(6)").unwrap(), SourceType::DateTime { fsp: 6 });
        let error = of("inet6", "inet6").unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("INET6"), "{error}");
        assert!(of("blob", "blob /*M!100301 COMPRESSED*/").is_err());
    }

    #[test]
    fn odd_members() {
        let expected = ["", "it's", "a,b", "back\\slash", "new\nline", "(x)", "größe"].map(String::from).to_vec();
        let text = r"enum('','it''s','a,b','back\\slash','new\nline','(x)','größe')";
        assert_eq!(of("enum", text).unwrap(), SourceType::Enum { members: expected });
        for wrong in ["enum", "enum('a'", "enum('a',)", "enum(a)", "enum('a\\"] {
            assert!(of("enum", wrong).is_err(), "{wrong}");
        }
    }
}
