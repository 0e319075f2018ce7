//! XA transactions: their rows are in the binlog when they are prepared, and count when they are committed, which may be much later.
//!
//! The events are kept meanwhile. The position doesn't have the prepared transaction's GTID until it ends, so that after a restart the server sends it again.

use super::binlog::event::{Event, kind};
use super::binlog::rows_event::rows_kind;
use super::bytes::{Reader, malformed};
use super::lanes::LaneBuffers;
use super::reader::{BinlogReader, Progress};
use super::shape::BACKFILL;
use super::tracked::stops_table;
use crate::error::Result;
use crate::event::Gtid;
use std::collections::HashMap;
use std::fmt::Write;

/// All prepared transactions together may hold as much; what is beyond stops the tables that it is for.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// The events of one XA transaction: table maps and rows.
#[derive(Debug, Default)]
pub(super) struct XaEvents {
    events: Vec<(u8, Vec<u8>)>,
    bytes: usize,
}

/// Transactions that are prepared, by their XID as statements write it.
#[derive(Debug, Default)]
pub(super) struct PreparedTransactions {
    waiting: HashMap<String, (Option<Gtid>, XaEvents)>,
    bytes: usize,
}

impl PreparedTransactions {
    /// Whether a transaction is prepared and not ended.
    pub(super) fn waits(&self, gtid: &Gtid) -> bool {
        self.waiting.values().any(|(waiting, _)| waiting.as_ref() == Some(gtid))
    }
}

impl BinlogReader {
    /// Takes a table map or rows of an XA transaction that is not ended.
    pub(super) fn keeps_for_xa(&mut self, event: &Event<'_>) -> bool {
        let is_kept = event.kind == kind::TABLE_MAP || rows_kind(event.kind).is_some();
        match self.transaction.as_mut().and_then(|transaction| transaction.xa.as_mut()) {
            Some(xa) if is_kept => {
                xa.bytes += event.body.len();
                // beyond the limit the bodies are not needed: the tables are stopped by their maps
                let body = if self.prepared.bytes + xa.bytes <= MAX_KEPT_BYTES || event.kind == kind::TABLE_MAP {
                    event.body.to_vec()
                } else {
                    Vec::new()
                };
                xa.events.push((event.kind, body));
                true
            }
            _ => false,
        }
    }

    /// The end of the first phase; or of both, when they are one.
    pub(super) fn xa_prepare(&mut self, body: &[u8], lanes: &mut LaneBuffers) -> Result<Progress> {
        let mut reader = Reader::new(body);
        let is_one_phase = reader.u8()? != 0;
        let xid = xid(&mut reader)?;
        let Some(transaction) = &mut self.transaction else { return Err(malformed("an XA transaction has no beginning")) };
        let events = transaction.xa.take().unwrap_or_default();
        let gtid = transaction.current.stamp.gtid.clone();
        if is_one_phase {
            self.apply_kept(events, lanes)?;
        } else if !transaction.is_repeated {
            self.prepared.bytes += events.bytes;
            self.prepared.waiting.insert(xid, (gtid, events));
        }
        Ok(self.end())
    }

    /// `XA COMMIT` and `XA ROLLBACK`, a transaction of their own.
    pub(super) fn xa_end(&mut self, sql: &str, lanes: &mut LaneBuffers) -> Result<Progress> {
        let mut words = sql.splitn(3, |c: char| c.is_ascii_whitespace());
        let is_commit = words.nth(1).is_some_and(|word| word.eq_ignore_ascii_case("COMMIT"));
        let xid = words.next().unwrap_or_default().to_ascii_lowercase();
        let xid: String = xid.chars().filter(|c| !c.is_ascii_whitespace() && *c != ';').collect();
        match self.prepared.waiting.remove(&xid) {
            Some((gtid, events)) => {
                self.prepared.bytes = self.prepared.bytes.saturating_sub(events.bytes);
                if is_commit {
                    self.apply_kept(events, lanes)?;
                }
                if let (Some(gtid), Some(set)) = (gtid, &mut self.position.gtid_set) {
                    set.add(&gtid);
                }
            }
            None if is_commit && self.transaction.as_ref().is_some_and(|transaction| !transaction.is_repeated) => {
                self.stop_all(|| {
                    stops_table(
                        "an XA transaction was committed that had been prepared before the capture began: its rows are not known",
                    )
                    .remedy(BACKFILL)
                })?;
            }
            None => {}
        }
        Ok(self.end())
    }

    fn apply_kept(&mut self, kept: XaEvents, lanes: &mut LaneBuffers) -> Result<()> {
        let is_whole = self.prepared.bytes + kept.bytes <= MAX_KEPT_BYTES;
        for (event_kind, body) in &kept.events {
            match (*event_kind, is_whole) {
                (kind::TABLE_MAP, true) => drop(self.table_map(body, lanes)?),
                (rows, true) => drop(self.rows(rows, body, lanes)?),
                (kind::TABLE_MAP, false) => self.stop_mapped(body, || {
                    stops_table("an XA transaction is larger than what can be kept until its end").remedy(BACKFILL)
                })?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// An XID as statements write it: `X'67',X'62',1`, in lower case.
fn xid(reader: &mut Reader<'_>) -> Result<String> {
    let format = reader.u32()?;
    let (global, branch) = (reader.u32()? as usize, reader.u32()? as usize);
    let mut text = String::new();
    for part in [reader.take(global)?, reader.take(branch)?] {
        text.push_str("x'");
        for byte in part {
            // writing to a String can't fail
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("',");
    }
    let _ = write!(text, "{format}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xid_is_written_as_in_statements() {
        let mut body = 1_u32.to_le_bytes().to_vec();
        body.extend_from_slice(&2_u32.to_le_bytes());
        body.extend_from_slice(&0_u32.to_le_bytes());
        body.extend_from_slice(b"x1");
        assert_eq!(xid(&mut Reader::new(&body)).unwrap(), "x'7831',x'',1");
        assert!(xid(&mut Reader::new(&body[..13])).is_err());
    }
}
