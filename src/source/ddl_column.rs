//! A column's definition in DDL: its type, whether it may be NULL, and what rows that exist already have in it.

use super::catalog_type::{TypeRow, source_type};
use super::ddl::Tokens;
use crate::error::Result;
use crate::event::SourceType;
use sqlparser::tokenizer::Token;

/// Where a column stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At the end, or where it was.
    Default,
    /// FIRST.
    First,
    /// AFTER a column.
    After(String),
}

/// What rows that exist already have in a new column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DefaultValue {
    /// No DEFAULT: NULL, or the type's implicit value.
    None,
    /// A literal, as text.
    Literal(String),
    /// Bytes: `x'…'`, `b'…'`.
    Bytes(Vec<u8>),
    /// NULL.
    Null,
    /// Known to the server alone: an expression, a sequence, a generated column.
    Unknown,
}

/// A column's definition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ColumnDefinition {
    pub(super) name: String,
    type_row: TypeRow,
    pub(super) is_nullable: bool,
    pub(super) is_primary_key: bool,
    pub(super) default: DefaultValue,
}

impl ColumnDefinition {
    /// Its type. A text's character set is a guess where the statement doesn't say it: the next table map does.
    pub(super) fn source_type(&self, tinyint1_is_bool: bool) -> Result<SourceType> {
        source_type(&self.type_row, tinyint1_is_bool)
    }
}

/// Reads `name type options [FIRST | AFTER column]`; `None` if it is something else.
pub(super) fn column_definition(mut tokens: Tokens) -> Option<(ColumnDefinition, Place)> {
    let name = tokens.name()?;
    let mut row = data_type(&mut tokens)?;
    let mut column = ColumnDefinition {
        name,
        type_row: TypeRow::default(),
        is_nullable: true,
        is_primary_key: false,
        default: DefaultValue::None,
    };
    let mut place = Place::Default;
    while tokens.peek().is_some() {
        if tokens.take(&["NOT", "NULL"]) {
            column.is_nullable = false;
        } else if tokens.take(&["DEFAULT"]) {
            column.default = default(&mut tokens);
        } else if tokens.take_any(&["UNSIGNED", "ZEROFILL"]) {
            row.column_type.push_str(" unsigned");
        } else if tokens.take(&["CHARACTER", "SET"]) || tokens.take(&["CHARSET"]) {
            row.charset = tokens.name().map(|name| name.to_ascii_lowercase());
        } else if tokens.take(&["COLLATE"]) {
            let collation = tokens.name()?.to_ascii_lowercase();
            let charset = collation.split('_').next().unwrap_or_default().to_owned();
            row.charset = Some(if charset == "utf8" { "utf8mb3".to_owned() } else { charset });
        } else if tokens.take_any(&["AUTO_INCREMENT", "SERIAL", "AS", "GENERATED"]) {
            column.default = DefaultValue::Unknown;
            tokens.bracket();
        } else if tokens.take(&["PRIMARY", "KEY"]) || tokens.take(&["PRIMARY"]) {
            column.is_primary_key = true;
            column.is_nullable = false;
        } else if tokens.take(&["ON", "UPDATE"]) {
            tokens.next();
            tokens.bracket();
        } else if tokens.take(&["COMMENT"]) {
            tokens.next();
        } else if tokens.take(&["FIRST"]) {
            place = Place::First;
        } else if tokens.take(&["AFTER"]) {
            place = Place::After(tokens.name()?);
        } else {
            tokens.next();
        }
    }
    become_binary(&mut row);
    if row.charset.is_none() {
        row.charset = Some("utf8mb4".to_owned());
    }
    // DEFAULT NULL, or none at all
    if column.default == DefaultValue::Null && !column.is_nullable {
        column.default = DefaultValue::Unknown;
    }
    column.type_row = row;
    Some((column, place))
}

/// VARCHAR … CHARACTER SET binary is VARBINARY, and so on.
fn become_binary(row: &mut TypeRow) {
    if row.charset.as_deref() == Some("binary") {
        let binary = match row.data_type.as_str() {
            "char" => "binary",
            "varchar" => "varbinary",
            "tinytext" => "tinyblob",
            "text" => "blob",
            "mediumtext" => "mediumblob",
            "longtext" => "longblob",
            other => other,
        };
        row.data_type = binary.to_owned();
        row.charset = None;
    }
}

fn data_type(tokens: &mut Tokens) -> Option<TypeRow> {
    let mut word = tokens.name()?.to_ascii_lowercase();
    if word == "national" {
        word = tokens.name()?.to_ascii_lowercase();
    }
    if word == "long" {
        word = tokens.name().unwrap_or_default().to_ascii_lowercase();
        word = if word == "varbinary" { "mediumblob" } else { "mediumtext" }.to_owned();
    }
    if word == "double" {
        tokens.take(&["PRECISION"]);
    }
    if matches!(word.as_str(), "char" | "character") && tokens.take(&["VARYING"]) {
        word = "varchar".to_owned();
    }
    let arguments = tokens.bracket();
    let numbers: Vec<u64> = (arguments.iter().flatten())
        .filter_map(|token| match token {
            Token::Number(text, _) => text.parse().ok(),
            _ => None,
        })
        .collect();
    let (first, second) = (numbers.first().copied(), numbers.get(1).copied());
    let mut row = TypeRow::default();
    let name = match word.as_str() {
        "int1" | "bool" | "boolean" => "tinyint",
        "int2" => "smallint",
        "int3" | "middleint" => "mediumint",
        "int4" | "integer" => "int",
        "int8" | "serial" => "bigint",
        "float4" => "float",
        "float" if first.is_some_and(|bits| bits > 24) && second.is_none() => "double",
        "float8" | "real" => "double",
        "dec" | "numeric" | "fixed" => "decimal",
        "character" | "nchar" => "char",
        "nvarchar" => "varchar",
        other => other,
    };
    row.data_type = name.to_owned();
    row.column_type = match (word.as_str(), &arguments) {
        ("bool" | "boolean", _) => "tinyint(1)".to_owned(),
        ("serial", _) => "bigint unsigned".to_owned(),
        (_, Some(inner)) => format!("{name}({})", inner.iter().map(literal_text).collect::<Vec<_>>().join("")),
        (_, None) => name.to_owned(),
    };
    match name {
        "decimal" => (row.precision, row.scale) = (Some(first.unwrap_or(10)), Some(second.unwrap_or(0))),
        "bit" => row.precision = Some(first.unwrap_or(1)),
        "datetime" | "timestamp" | "time" => row.fsp = Some(first.unwrap_or(0)),
        "char" | "binary" => row.octets = Some(first.unwrap_or(1)),
        _ => row.octets = first,
    }
    Some(row)
}

/// A token as it stands in a type's brackets; members in single quotes, as information_schema writes them.
fn literal_text(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
            format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
        }
        other => other.to_string(),
    }
}

fn default(tokens: &mut Tokens) -> DefaultValue {
    if tokens.take(&["NULL"]) {
        return DefaultValue::Null;
    }
    if tokens.take(&["TRUE"]) {
        return DefaultValue::Literal("1".to_owned());
    }
    if tokens.take(&["FALSE"]) {
        return DefaultValue::Literal("0".to_owned());
    }
    let sign = if tokens.take_token(&Token::Minus) { "-" } else { "" };
    tokens.take_token(&Token::Plus);
    // _utf8mb4'text', DATE'…'
    if matches!(tokens.peek(), Some(Token::Word(word)) if word.value.starts_with('_')) {
        tokens.next();
    }
    tokens.take_any(&["DATE", "TIME", "TIMESTAMP"]);
    match tokens.next() {
        Some(Token::Number(text, _)) => DefaultValue::Literal(format!("{sign}{text}")),
        Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) | Token::NationalStringLiteral(text)) => {
            DefaultValue::Literal(text)
        }
        Some(Token::HexStringLiteral(text)) => hex(&text).map_or(DefaultValue::Unknown, DefaultValue::Bytes),
        Some(Token::SingleQuotedByteStringLiteral(text)) => bits(&text).map_or(DefaultValue::Unknown, DefaultValue::Bytes),
        Some(Token::LParen) => {
            let mut depth = 1;
            while depth > 0 {
                match tokens.next() {
                    Some(Token::LParen) => depth += 1,
                    Some(Token::RParen) => depth -= 1,
                    None => break,
                    _ => {}
                }
            }
            DefaultValue::Unknown
        }
        _ => {
            tokens.bracket();
            DefaultValue::Unknown
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let padded = if text.len() % 2 == 1 { format!("0{text}") } else { text.to_owned() };
    (0..padded.len()).step_by(2).map(|i| u8::from_str_radix(padded.get(i..i + 2)?, 16).ok()).collect()
}

fn bits(text: &str) -> Option<Vec<u8>> {
    let number = u64::from_str_radix(text, 2).ok()?;
    Some(number.to_be_bytes().get(8 - text.len().div_ceil(8)..)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (ColumnDefinition, Place) {
        column_definition(Tokens::read(text).unwrap()).unwrap()
    }

    fn kind(text: &str) -> SourceType {
        read(text).0.source_type(false).unwrap()
    }

    #[test]
    fn types() {
        assert_eq!(kind("a INT"), SourceType::Int { unsigned: false });
        assert_eq!(kind("a bigint(20) unsigned NOT NULL"), SourceType::BigInt { unsigned: true });
        assert_eq!(kind("a NUMERIC(30,2)"), SourceType::Decimal { precision: 30, scale: 2 });
        assert_eq!(kind("a DEC"), SourceType::Decimal { precision: 10, scale: 0 });
        assert_eq!(
            kind("a DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)"),
            SourceType::DateTime { fsp: 6 }
        );
        assert_eq!(kind("a BIT(12)"), SourceType::Bit { bits: 12 });
        assert_eq!(kind("a DOUBLE PRECISION"), SourceType::Double);
        assert_eq!(kind("a ENUM('x','it''s')"), SourceType::Enum { members: vec!["x".into(), "it's".into()] });
        assert_eq!(kind("a VARCHAR(20) CHARACTER SET binary"), SourceType::Binary { fixed_bytes: 0 });
        assert!(
            matches!(kind("a VARCHAR(20) CHARSET latin1 COLLATE latin1_bin"), SourceType::Text { charset, .. } if charset == "latin1")
        );
        assert_eq!(kind("a YEAR"), SourceType::Year);
        assert_eq!(kind("a POINT"), SourceType::Geometry);
        assert_eq!(kind("a VECTOR(3)"), SourceType::Vector);
        assert_eq!(read("a BOOL").0.source_type(true).unwrap(), SourceType::Bool);
    }

    #[test]
    fn defaults_and_places() {
        let default = |text: &str| read(text).0.default;
        assert_eq!(default("a INT DEFAULT -5"), DefaultValue::Literal("-5".into()));
        assert_eq!(default("a VARCHAR(9) DEFAULT 'it''s' NOT NULL"), DefaultValue::Literal("it's".into()));
        assert_eq!(default("a BIT(12) DEFAULT b'101010101010'"), DefaultValue::Bytes(vec![0x0a, 0xaa]));
        assert_eq!(default("a VARBINARY(9) DEFAULT x'00ff'"), DefaultValue::Bytes(vec![0, 255]));
        assert_eq!(default("a DATETIME DEFAULT CURRENT_TIMESTAMP"), DefaultValue::Unknown);
        assert_eq!(default("a JSON DEFAULT (json_array())"), DefaultValue::Unknown);
        assert_eq!(default("a INT AUTO_INCREMENT UNIQUE"), DefaultValue::Unknown);
        assert_eq!(default("a INT GENERATED ALWAYS AS (b + 1) STORED"), DefaultValue::Unknown);
        assert_eq!(default("a INT NULL DEFAULT NULL"), DefaultValue::Null);
        let (column, place) = read("`a` INT NOT NULL COMMENT 'DEFAULT 7' AFTER `b`");
        assert_eq!((column.default, column.is_nullable, place), (DefaultValue::None, false, Place::After("b".into())));
        assert_eq!(read("a INT FIRST").1, Place::First);
    }
}
