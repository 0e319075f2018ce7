//! WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS: which table, which columns, and the bytes of the rows.

use super::event::kind;
use crate::error::Result;
use crate::source::bytes::Reader;

/// What a rows event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsKind {
    Insert,
    Update,
    Delete,
}

/// A rows event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsEvent<'a> {
    pub(crate) table_number: u64,
    pub(crate) rows_kind: RowsKind,
    /// Whether after images may hold differences of JSON values.
    pub(crate) is_partial: bool,
    pub(crate) column_count: usize,
    /// Bit set of the columns in the first image (before, or the only one).
    pub(crate) present: &'a [u8],
    /// Bit set of the columns in an update's after image.
    pub(crate) present_after: &'a [u8],
    /// The rows.
    pub(crate) rows: &'a [u8],
}

/// What an event's type does, if it is a rows event (of MariaDB's compressed ones as well).
pub(crate) fn rows_kind(event_kind: u8) -> Option<RowsKind> {
    match event_kind {
        kind::WRITE_ROWS | kind::WRITE_ROWS_V1 | 166 | 169 => Some(RowsKind::Insert),
        kind::UPDATE_ROWS | kind::UPDATE_ROWS_V1 | kind::PARTIAL_UPDATE_ROWS | 167 | 170 => Some(RowsKind::Update),
        kind::DELETE_ROWS | kind::DELETE_ROWS_V1 | 168 | 171 => Some(RowsKind::Delete),
        _ => None,
    }
}

/// Reads a rows event's body up to its rows.
pub(crate) fn parse_rows(event_kind: u8, rows_kind: RowsKind, body: &[u8]) -> Result<RowsEvent<'_>> {
    let mut reader = Reader::new(body);
    let table_number = reader.uint(6)?;
    reader.u16()?; // flags
    let has_extra =
        matches!(event_kind, kind::WRITE_ROWS | kind::UPDATE_ROWS | kind::DELETE_ROWS | kind::PARTIAL_UPDATE_ROWS | 169..=171);
    if has_extra {
        let length = usize::from(reader.u16()?);
        reader.take(length.saturating_sub(2))?;
    }
    let column_count = reader.count()?;
    let present = reader.take(column_count.div_ceil(8))?;
    let present_after = if rows_kind == RowsKind::Update { reader.take(column_count.div_ceil(8))? } else { present };
    Ok(RowsEvent {
        table_number,
        rows_kind,
        is_partial: event_kind == kind::PARTIAL_UPDATE_ROWS,
        column_count,
        present,
        present_after,
        rows: reader.rest(),
    })
}

/// Whether all of `count` columns are in a bit set.
pub(crate) fn is_whole(present: &[u8], count: usize) -> bool {
    let (full, rest) = (count / 8, count % 8);
    present.get(..full).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0xff))
        && (rest == 0 || present.get(full).is_some_and(|byte| byte.trailing_ones() as usize >= rest))
}
