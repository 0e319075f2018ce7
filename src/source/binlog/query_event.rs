//! QUERY: a statement that was logged as text (BEGIN, COMMIT, DDL, XA, and rows where the format isn't ROW).

use crate::error::Result;
use crate::source::bytes::{Reader, name};
use std::borrow::Cow;

/// A logged statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueryEvent<'a> {
    /// The session's default database; empty for none.
    pub(crate) database: &'a str,
    /// The statement.
    pub(crate) sql: Cow<'a, str>,
    /// Whether the session's `sql_mode` was strict: values that don't fit are refused, not altered.
    pub(crate) is_strict: bool,
}

/// Reads a QUERY event's body.
pub(crate) fn parse_query(body: &[u8]) -> Result<QueryEvent<'_>> {
    let mut reader = Reader::new(body);
    reader.take(8)?; // thread, seconds that it took
    let database_length = usize::from(reader.u8()?);
    reader.u16()?; // error code
    let status_length = usize::from(reader.u16()?);
    let is_strict = is_strict(reader.take(status_length)?);
    let database = name(reader.take(database_length)?)?;
    reader.u8()?; // a zero
    // a statement may hold literals in any character set; its keywords and names are read all the same
    Ok(QueryEvent { database, sql: String::from_utf8_lossy(reader.rest()), is_strict })
}

/// The status variables begin with flags and `sql_mode`, where the server writes them at all.
fn is_strict(status: &[u8]) -> bool {
    const FLAGS: u8 = 0;
    const SQL_MODE: u8 = 1;
    const STRICT_TRANS_OR_ALL_TABLES: u64 = 1 << 21 | 1 << 22;
    let mut reader = Reader::new(status);
    let mut mode = || {
        loop {
            match reader.u8()? {
                FLAGS => reader.u32().map(drop)?,
                SQL_MODE => return reader.u64(),
                _ => return Ok(0),
            }
        }
    };
    let mode: Result<u64> = mode();
    mode.unwrap_or(0) & STRICT_TRANS_OR_ALL_TABLES != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_and_statement() {
        let mut body = vec![0; 8];
        body.extend_from_slice(&[4, 0, 0, 3, 0, 9, 9, 9]);
        body.extend_from_slice(b"shop\0TRUNCATE orders");
        assert_eq!(parse_query(&body).unwrap(), QueryEvent { database: "shop", sql: "TRUNCATE orders".into(), is_strict: false });
        assert!(is_strict(&[0, 0, 0, 0, 0, 1, 0, 0, 32, 0, 0, 0, 0, 0, 6]));
        assert!(!is_strict(&[1, 0, 0, 0]));
        for length in 0..21 {
            assert!(parse_query(&body[..length]).is_err());
        }
    }
}
