//! Statements in the binlog: where transactions begin and end, and what DDL does to the tables.

use super::binlog::event::Event;
use super::binlog::query_event::parse_query;
use super::lanes::LaneBuffers;
use super::reader::{BinlogReader, Progress};
use super::tracked::stops_table;
use crate::error::Result;
use crate::source::shape::BACKFILL;

impl BinlogReader {
    /// A QUERY event.
    pub(super) fn query(&mut self, body: &[u8], event: &Event<'_>, start: u64, lanes: &mut LaneBuffers) -> Result<Progress> {
        let query = parse_query(body)?;
        let sql = query.sql.trim();
        let word = |n: usize| sql.split_ascii_whitespace().nth(n).unwrap_or_default();
        let is = |n: usize, expected: &str| word(n).trim_end_matches(';').eq_ignore_ascii_case(expected);
        if is(0, "BEGIN") || is(0, "XA") && (is(1, "START") || is(1, "BEGIN")) {
            if self.transaction.is_none() {
                self.open_without_gtid(event, start);
            }
            if let Some(transaction) = &mut self.transaction {
                transaction.is_standalone = false;
            }
            return Ok(Progress::Onward);
        }
        if is(0, "COMMIT") {
            return Ok(self.end());
        }
        if is(0, "ROLLBACK") {
            let is_whole = !is(1, "TO");
            self.stop_touched(|| {
                stops_table("a transaction was rolled back after its rows were logged (it also changed tables of another engine)")
                    .remedy(BACKFILL)
            })?;
            return Ok(if is_whole { self.end() } else { Progress::Onward });
        }
        if is(0, "SAVEPOINT") || is(0, "RELEASE") || is(0, "XA") && is(1, "END") {
            return Ok(Progress::Onward);
        }
        if self.transaction.is_none() {
            self.open_without_gtid(event, start);
            if let Some(transaction) = &mut self.transaction {
                transaction.is_standalone = true;
            }
        }
        let _ = (query.database, lanes);
        Ok(match &self.transaction {
            Some(transaction) if !transaction.is_standalone => Progress::Onward,
            _ => self.end(),
        })
    }
}
