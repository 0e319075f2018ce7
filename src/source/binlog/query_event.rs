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
}

/// Reads a QUERY event's body.
pub(crate) fn parse_query(body: &[u8]) -> Result<QueryEvent<'_>> {
    let mut reader = Reader::new(body);
    reader.take(8)?; // thread, seconds that it took
    let database_length = usize::from(reader.u8()?);
    reader.u16()?; // error code
    let status_length = usize::from(reader.u16()?);
    reader.take(status_length)?;
    let database = name(reader.take(database_length)?)?;
    reader.u8()?; // a zero
    // a statement may hold literals in any character set; its keywords and names are read all the same
    Ok(QueryEvent { database, sql: String::from_utf8_lossy(reader.rest()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_and_statement() {
        let mut body = vec![0; 8];
        body.extend_from_slice(&[4, 0, 0, 3, 0, 9, 9, 9]);
        body.extend_from_slice(b"shop\0TRUNCATE orders");
        assert_eq!(parse_query(&body).unwrap(), QueryEvent { database: "shop", sql: "TRUNCATE orders".into() });
        for length in 0..21 {
            assert!(parse_query(&body[..length]).is_err());
        }
    }
}
