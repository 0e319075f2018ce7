//! MariaDB's own events: rows and statements compressed with zlib (`log_bin_compress`).

use super::rows_event::{RowsKind, parse_rows};
use crate::error::{Area, Error, Kind, Result};

fn compressed() -> Error {
    Error::new(Area::Source, Kind::Refused, "the binlog has events that MariaDB compressed")
        .remedy("set log_bin_compress = OFF on the server; events from before need a new snapshot (`binlake backfill`)")
}

/// The body of an uncompressed rows event.
pub(crate) fn decompress_rows(event_kind: u8, rows_kind: RowsKind, body: &[u8]) -> Result<Vec<u8>> {
    parse_rows(event_kind, rows_kind, body)?;
    Err(compressed())
}

/// The body of an uncompressed QUERY event.
pub(crate) fn decompress_query(_body: &[u8]) -> Result<Vec<u8>> {
    Err(compressed())
}
