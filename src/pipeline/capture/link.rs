//! The way to the source: connections to the binlog, after a look at whether the server still has it.

use crate::error::{Area, Error, Kind, Result};
use crate::event::{GtidSet, SourcePosition};
use crate::source::{BinlogConnection, DumpSettings, Flavor, ServerInfo, binlog_gap, connect, source_error};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};

/// How to connect to the binlog.
#[derive(Debug, Clone)]
pub struct Link {
    /// Server, user, password, TLS.
    pub options: Opts,
    /// How to read the binlog.
    pub settings: DumpSettings,
}

impl Link {
    /// Asks for the binlog from `position` on; `None`: another server than the position's answers. It may have all of it, but its coordinates are
    /// others, so it is for a new producer to go on there.
    ///
    /// # Errors
    /// `Conflict` where the server no longer has it, or never had.
    pub async fn open(&self, position: &SourcePosition) -> Result<Option<BinlogConnection>> {
        let mut conn = connect(&self.options, self.settings.connect_timeout).await?;
        let info = ServerInfo::read(&mut conn).await?;
        check_position(&mut conn, &info, position).await?;
        // the connection is not used again: a failed good-bye means nothing
        let _ = conn.disconnect().await;
        if info.lineage != position.lineage {
            return Ok(None);
        }
        BinlogConnection::open(&self.options, &info, position, &self.settings).await.map(Some)
    }
}

/// Whether the server can send its binlog from `position` on. An error of kind `Conflict` says that it can't.
pub(super) async fn check_position(conn: &mut Conn, info: &ServerInfo, position: &SourcePosition) -> Result<()> {
    let Some(ours) = &position.gtid_set else {
        if info.lineage != position.lineage {
            return Err(Error::new(Area::Source, Kind::Conflict, "the server is another one than before, and without GTIDs its binlog has other positions")
                .with("server", &info.lineage.0)
                .with("expected", &position.lineage.0)
                .remedy("connect to the former server, or run `binlake backfill` to take a new snapshot; gtid_mode = ON lets servers take over"));
        }
        return Ok(());
    };
    if info.flavor == Flavor::MariaDb {
        return Ok(());
    }
    if !info.has_gtids() {
        return Err(Error::new(Area::Source, Kind::Conflict, "the server has GTIDs off, and had them on before")
            .remedy("set gtid_mode = ON on the server again, or run `binlake backfill` to take a new snapshot"));
    }
    let purged = gtids(conn, "SELECT @@GLOBAL.gtid_purged").await?;
    judge(ours, &purged, &gtids(conn, "SELECT @@GLOBAL.gtid_executed").await?)
}

/// Whether a server that has purged and executed these transactions can go on for who has `ours`.
fn judge(ours: &GtidSet, purged: &GtidSet, executed: &GtidSet) -> Result<()> {
    let lost = purged.subtract(ours);
    if !lost.is_empty() {
        return Err(
            binlog_gap("the server no longer has the binlog from the position where the capture must go on").with("purged", lost)
        );
    }
    let unknown = ours.subtract(executed);
    if !unknown.is_empty() {
        return Err(binlog_gap(
            "the server doesn't know the position where the capture must go on: it was reset, or lost transactions",
        )
        .with("unknown", unknown));
    }
    Ok(())
}

async fn gtids(conn: &mut Conn, sql: &str) -> Result<GtidSet> {
    let text: Option<String> =
        conn.query_first(sql).await.map_err(|error| source_error(error, "the server's GTID set can't be read"))?;
    text.unwrap_or_default()
        .parse()
        .map_err(|error: String| Error::new(Area::Source, Kind::Refused, "the server's GTID set can't be parsed").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purged_and_lost_transactions_are_told_apart() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let set = |text: &str| format!("{A}:{text}").parse::<GtidSet>().unwrap();
        assert!(judge(&set("1-10"), &set("1-10"), &set("1-20")).is_ok());
        let purged = judge(&set("1-10"), &set("1-12"), &set("1-20")).unwrap_err();
        assert!(purged.to_string().contains("no longer has") && purged.to_string().contains("11-12"), "{purged}");
        let reset = judge(&set("1-10"), &GtidSet::default(), &set("1-3")).unwrap_err();
        assert!(reset.to_string().contains("doesn't know") && reset.to_string().contains("4-10"), "{reset}");
        assert_eq!((purged.exit_code(), reset.exit_code()), (3, 3));
    }
}
