//! What kind of server the source is, and where its binlog ends.

use super::connect::source_error;
use crate::error::{Area, Error, Kind, Result};
use crate::event::{BinlogCoordinates, GtidSet, Lineage, SourcePosition};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::collections::BTreeMap;

/// MySQL (and its builds: Percona, RDS, Aurora) or MariaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// The server's kind, version, identity, and the settings that matter to a replica.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// `VERSION()` as the server writes it.
    pub version_text: String,
    /// Major, minor, patch.
    pub version: (u16, u16, u16),
    /// The identity that binlog coordinates belong to.
    pub lineage: Lineage,
    /// Global variables by lower-case name; those that the server doesn't have are missing.
    pub variables: BTreeMap<String, String>,
}

const VARIABLES: &[&str] = &[
    "aurora_version",
    "basedir",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_expire_logs_seconds",
    "binlog_checksum",
    "binlog_transaction_compression",
    "enforce_gtid_consistency",
    "expire_logs_days",
    "gtid_mode",
    "gtid_purged",
    "gtid_strict_mode",
    "innodb_native_foreign_keys",
    "log_bin",
    "log_bin_compress",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "max_allowed_packet",
    "read_only",
    "server_id",
    "server_uuid",
    "version_comment",
];

impl ServerInfo {
    /// Asks the server.
    pub async fn read(conn: &mut Conn) -> Result<Self> {
        let failed = |error| source_error(error, "the server's settings can't be read");
        let version_text: String = conn
            .query_first("SELECT VERSION()")
            .await
            .map_err(failed)?
            .ok_or_else(|| Error::new(Area::Source, Kind::Refused, "the server doesn't say its version"))?;
        let list = VARIABLES.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let rows: Vec<(String, String)> =
            conn.query(format!("SHOW GLOBAL VARIABLES WHERE variable_name IN ({list})")).await.map_err(failed)?;
        let variables: BTreeMap<String, String> =
            rows.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Self::from_parts(version_text, variables))
    }

    /// Puts it together from `VERSION()` and the global variables. Pure.
    pub fn from_parts(version_text: String, variables: BTreeMap<String, String>) -> Self {
        let comment = variables.get("version_comment").map(String::as_str).unwrap_or_default();
        let is_mariadb = [&version_text, comment].iter().any(|text| text.to_ascii_lowercase().contains("mariadb"));
        let flavor = if is_mariadb { Flavor::MariaDb } else { Flavor::MySql };
        // MariaDB may put 5.5.5- before its own version, for old clients
        let digits = if is_mariadb { version_text.trim_start_matches("5.5.5-") } else { &version_text };
        let mut numbers = digits.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let identity = match flavor {
            Flavor::MySql => variables.get("server_uuid"),
            Flavor::MariaDb => variables.get("server_id"),
        };
        let lineage = Lineage(identity.cloned().unwrap_or_default());
        Self { flavor, version_text, version, lineage, variables }
    }

    /// The value of a global variable; empty where the server doesn't have it.
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether a variable is on (`ON`, `1`, or a mode that begins with `ON`).
    pub fn is_on(&self, name: &str) -> bool {
        let value = self.variable(name);
        value == "1" || value.to_ascii_uppercase().starts_with("ON")
    }

    /// Whether positions on this server are GTID sets. (Each transaction of MariaDB has one; MySQL's need `gtid_mode`.)
    pub fn has_gtids(&self) -> bool {
        match self.flavor {
            Flavor::MySql => self.is_on("gtid_mode"),
            Flavor::MariaDb => true,
        }
    }

    /// Whether it is Amazon RDS or Aurora, where settings are made in parameter groups and the global lock is refused.
    pub fn is_rds(&self) -> bool {
        self.variable("basedir").contains("/rdsdbbin") || !self.variable("aurora_version").is_empty()
    }

    /// Whether names of databases and tables are compared without regard to case.
    pub fn ignores_case_of_names(&self) -> bool {
        !matches!(self.variable("lower_case_table_names"), "" | "0")
    }

    /// Where the binlog ends now. While other sessions commit, the coordinates may be ahead of what a read sees; the GTID set is not.
    pub async fn read_position(&self, conn: &mut Conn) -> Result<SourcePosition> {
        // the set first: it must never be ahead of what the caller reads afterwards
        let gtid_set = match self.flavor {
            Flavor::MySql => self.executed(conn).await?,
            Flavor::MariaDb => None,
        };
        let coordinates = self.read_coordinates(conn).await?;
        let gtid_set = match self.flavor {
            Flavor::MySql => gtid_set,
            Flavor::MariaDb => Some(self.mariadb_gtid_set(conn, &coordinates).await?),
        };
        Ok(SourcePosition { lineage: self.lineage.clone(), coordinates, gtid_set })
    }

    /// A position that has all that is committed now, and no more than what is committed when this returns; it costs the server little, so it may be asked often.
    /// (For [`Self::read_position`] MariaDB reads its newest binlog file.)
    pub async fn read_end(&self, conn: &mut Conn) -> Result<SourcePosition> {
        let gtid_set = match self.flavor {
            Flavor::MySql => self.executed(conn).await?,
            Flavor::MariaDb => Some(self.read_gtid_set(conn, "SELECT @@GLOBAL.gtid_binlog_pos").await?),
        };
        let coordinates = self.read_coordinates(conn).await?;
        Ok(SourcePosition { lineage: self.lineage.clone(), coordinates, gtid_set })
    }

    /// What MySQL has executed, where it has GTIDs.
    async fn executed(&self, conn: &mut Conn) -> Result<Option<GtidSet>> {
        match self.has_gtids() {
            true => self.read_gtid_set(conn, "SELECT @@GLOBAL.gtid_executed").await.map(Some),
            false => Ok(None),
        }
    }

    async fn read_coordinates(&self, conn: &mut Conn) -> Result<BinlogCoordinates> {
        let statement = match self.flavor {
            Flavor::MySql if self.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        };
        let row: Option<Row> =
            conn.query_first(statement).await.map_err(|error| source_error(error, "the server's binlog position can't be read"))?;
        let mut row = row.ok_or_else(binlog_off)?;
        let file: Option<String> = row.take(0);
        let offset: Option<u64> = row.take(1);
        let (Some(file), Some(offset)) = (file, offset) else { return Err(binlog_off()) };
        Ok(BinlogCoordinates { file: file.into(), offset })
    }

    /// MariaDB's GTID position at `coordinates`.
    pub(super) async fn mariadb_gtid_set(&self, conn: &mut Conn, coordinates: &BinlogCoordinates) -> Result<GtidSet> {
        // file names come from the server and hold no quotes
        let sql = format!("SELECT BINLOG_GTID_POS('{}', {})", coordinates.file, coordinates.offset);
        self.read_gtid_set(conn, &sql).await
    }

    pub(super) async fn read_gtid_set(&self, conn: &mut Conn, sql: &str) -> Result<GtidSet> {
        let text: Option<Option<String>> =
            conn.query_first(sql).await.map_err(|error| source_error(error, "the server's GTID set can't be read"))?;
        let text = text.flatten().unwrap_or_default();
        text.parse().map_err(|error: String| {
            Error::new(Area::Source, Kind::Refused, "the server's GTID set can't be parsed").caused_by(error)
        })
    }
}

fn binlog_off() -> Error {
    Error::new(Area::Source, Kind::Refused, "the server writes no binlog")
        .remedy("set `log_bin` in the server's configuration and restart it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, variables: &[(&str, &str)]) -> ServerInfo {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServerInfo::from_parts(version.to_owned(), variables)
    }

    #[test]
    fn flavors_and_versions() {
        let mysql = info("9.7.0", &[("server_uuid", "u"), ("server_id", "1"), ("gtid_mode", "ON_PERMISSIVE")]);
        assert_eq!((mysql.flavor, mysql.version, mysql.lineage.0.as_str()), (Flavor::MySql, (9, 7, 0), "u"));
        assert!(mysql.has_gtids());
        let rds = info("8.0.36-debug", &[("gtid_mode", "OFF_PERMISSIVE"), ("lower_case_table_names", "1")]);
        assert!(!rds.has_gtids() && rds.ignores_case_of_names());
        let maria = info("5.5.5-10.11.19-MariaDB-0+deb12u1-log", &[("server_id", "7")]);
        assert_eq!((maria.flavor, maria.version, maria.lineage.0.as_str()), (Flavor::MariaDb, (10, 11, 19), "7"));
        assert!(maria.has_gtids());
        assert_eq!(info("x", &[]).version, (0, 0, 0));
    }
}
