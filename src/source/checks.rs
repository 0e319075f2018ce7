//! What the source must be like for Binlake to replicate it: one named check a fact, each with what is expected, what is there, and the remedy.
//!
//! The checks are pure: they judge a [`ServerInfo`], [`super::Grants`] and catalog entries. `binlake doctor` prints all findings, `binlake run` refuses to
//! start on the first failure.

use super::catalog::{Catalog, CatalogTable};
use super::server::{Flavor, ServerInfo};
use crate::error::{Area, Error, Kind, Result};
use crate::event::{SourcePosition, TableId};

/// Binlogs should outlive a weekend's stop of Binlake.
const SHORTEST_RETENTION_SECONDS: u64 = 24 * 3600;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// It works, with a disadvantage.
    Warning,
    /// It can't work.
    Failure,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// The setting, privilege or table that was checked.
    pub subject: String,
    /// What it is, and what it must be if that is something else.
    pub said: String,
    /// What the operator does about it; empty where all is well.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn ok(subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject: subject.into(), said: said.into(), remedy: String::new() }
    }

    /// It works, with a disadvantage.
    pub fn warning(subject: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, subject: subject.into(), said: said.into(), remedy: remedy.into() }
    }

    /// It can't work.
    pub fn failure(subject: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, subject: subject.into(), said: said.into(), remedy: remedy.into() }
    }

    /// A failure that an error describes.
    pub fn from_error(subject: impl Into<String>, error: &Error) -> Self {
        let (subject, text) = (subject.into(), error.to_string());
        let said = text.strip_suffix(error.advice()).map_or(text.as_str(), |said| said.trim_end_matches([' ', ';']));
        // what the subject says needn't be said again
        let said = said.replace(&format!(" table={subject}"), "");
        Self::failure(subject, said, error.advice())
    }
}

/// The first failure among `findings` as an error; `Ok` if there is none.
pub fn refuse_on_failure(findings: &[Finding]) -> Result<()> {
    match findings.iter().find(|finding| finding.verdict == Verdict::Failure) {
        None => Ok(()),
        Some(finding) => Err(Error::new(Area::Source, Kind::Refused, format!("{}: {}", finding.subject, finding.said))
            .remedy(format!("{} (`binlake doctor` checks it all)", finding.remedy))),
    }
}

/// All checks of the server's settings.
pub fn check_server(info: &ServerInfo) -> Vec<Finding> {
    let mut findings = vec![ensure_version(info), ensure_binlog(info)];
    if !info.is_on("log_bin") {
        return findings;
    }
    findings.extend([
        ensure_row_format(info),
        ensure_full_row_image(info),
        ensure_full_row_metadata(info),
        ensure_whole_json(info),
        ensure_gtids(info),
        ensure_server_id(info),
        ensure_retention(info),
    ]);
    findings.extend(ensure_replica_writes_binlog(info));
    findings
}

/// MySQL 8.0 or newer, MariaDB 10.6 or newer.
pub(super) fn ensure_version(info: &ServerInfo) -> Finding {
    let (name, oldest) = match info.flavor {
        Flavor::MySql => ("MySQL", (8, 0, 0)),
        Flavor::MariaDb => ("MariaDB", (10, 6, 0)),
    };
    let (major, minor, patch) = info.version;
    let version = format!("{name} {major}.{minor}.{patch}");
    if info.version >= oldest {
        return Finding::ok("server", version);
    }
    Finding::failure("server", format!("{version} is too old"), format!("upgrade to {name} {}.{} or newer", oldest.0, oldest.1))
}

/// `log_bin = ON`.
pub(super) fn ensure_binlog(info: &ServerInfo) -> Finding {
    if info.is_on("log_bin") {
        return Finding::ok("log_bin", "ON");
    }
    let remedy = match info.is_rds() {
        true => "set a backup retention of at least one day: RDS writes a binlog then",
        false => "put `log_bin = binlog` under [mysqld] in the server's my.cnf, and restart it",
    };
    Finding::failure("log_bin", "is OFF, must be ON", remedy)
}

/// `binlog_format = ROW`.
pub(super) fn ensure_row_format(info: &ServerInfo) -> Finding {
    // servers that know nothing but ROW may have dropped the variable
    if info.variable("binlog_format").is_empty() {
        return Finding::ok("binlog_format", "ROW");
    }
    must_be(info, "binlog_format", "ROW")
}

/// `binlog_row_image = FULL`.
pub(super) fn ensure_full_row_image(info: &ServerInfo) -> Finding {
    must_be(info, "binlog_row_image", "FULL")
}

/// `binlog_row_metadata = FULL`: names, signedness, character sets, members and keys are in the binlog then.
pub(super) fn ensure_full_row_metadata(info: &ServerInfo) -> Finding {
    must_be(info, "binlog_row_metadata", "FULL")
}

fn must_be(info: &ServerInfo, name: &str, expected: &str) -> Finding {
    let actual = info.variable(name);
    if actual.eq_ignore_ascii_case(expected) {
        return Finding::ok(name, expected);
    }
    let actual = if actual.is_empty() { "missing" } else { actual };
    Finding::failure(name, format!("is {actual}, must be {expected}"), set(info, name, &format!("'{expected}'")))
}

/// `binlog_row_value_options` without PARTIAL_JSON: whole values are in the binlog.
pub(super) fn ensure_whole_json(info: &ServerInfo) -> Finding {
    const NAME: &str = "binlog_row_value_options";
    if info.variable(NAME).is_empty() {
        return Finding::ok(NAME, "''");
    }
    Finding::failure(NAME, format!("is {}, must be ''", info.variable(NAME)), set(info, NAME, "''"))
}

/// `gtid_mode = ON`: a position that holds on another server after a failover.
pub(super) fn ensure_gtids(info: &ServerInfo) -> Finding {
    match info.flavor {
        Flavor::MariaDb => Finding::ok("gtid", "MariaDB's own"),
        Flavor::MySql if info.variable("gtid_mode") == "ON" => Finding::ok("gtid_mode", "ON"),
        Flavor::MySql => Finding::warning(
            "gtid_mode",
            format!("is {}: after a failover to another server, tables are copied anew", info.variable("gtid_mode")),
            "set enforce_gtid_consistency and gtid_mode to ON, step by step as the manual says",
        ),
    }
}

/// A `server_id`, without which a server sends no binlog.
pub(super) fn ensure_server_id(info: &ServerInfo) -> Finding {
    match info.variable("server_id") {
        "" | "0" => Finding::failure("server_id", "is 0, must be a number of its own", set(info, "server_id", "1")),
        id => Finding::ok("server_id", id),
    }
}

/// Binlogs that are kept for at least a day.
pub(super) fn ensure_retention(info: &ServerInfo) -> Finding {
    const NAME: &str = "binlog_expire_logs_seconds";
    let days: Option<f64> = info.variable("expire_logs_days").parse().ok();
    let seconds: u64 = match (info.variable(NAME).parse(), days) {
        (Ok(0), Some(days)) if days > 0.0 => (days * 86_400.0) as u64,
        (Ok(seconds), _) => seconds,
        (Err(_), days) => (days.unwrap_or(0.0) * 86_400.0) as u64,
    };
    if info.is_rds() {
        return Finding::warning(
            "binlog retention",
            "is RDS's own setting, which isn't visible here",
            "check with CALL mysql.rds_show_configuration; set at least 24: CALL mysql.rds_set_configuration('binlog retention hours', 72)",
        );
    }
    match seconds {
        0 => Finding::ok(NAME, "0: kept for ever"),
        kept if kept < SHORTEST_RETENTION_SECONDS => Finding::warning(
            NAME,
            format!("is {kept}: if Binlake stops for longer than {}, changes are lost to it", duration(kept)),
            set(info, NAME, "259200"),
        ),
        kept => Finding::ok(NAME, format!("{kept}: {}", duration(kept))),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} seconds"),
        60..3600 => format!("{} minutes", seconds / 60),
        3600..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// On a replica: `log_replica_updates`, else its binlog lacks what comes from its own source.
pub(super) fn ensure_replica_writes_binlog(info: &ServerInfo) -> Option<Finding> {
    let name = ["log_replica_updates", "log_slave_updates"].into_iter().find(|name| !info.variable(name).is_empty())?;
    if info.is_on(name) {
        return Some(Finding::ok(name, "ON"));
    }
    let said = "is OFF: if this server is a replica, its binlog lacks what it gets from its source";
    Some(Finding::warning(name, said, format!("put `{name} = ON` in its my.cnf if it is a replica, and restart it")))
}

fn set(info: &ServerInfo, name: &str, value: &str) -> String {
    match (info.is_rds(), info.flavor) {
        (true, _) => format!("set {name} = {value} in the instance's parameter group"),
        (false, Flavor::MySql) => format!("SET PERSIST {name} = {value};"),
        (false, Flavor::MariaDb) => format!("SET GLOBAL {name} = {value}; and the same in its my.cnf"),
    }
}

/// The selected tables: each has a key and types that the lake knows; `missing` are named by rules and don't exist.
pub fn check_tables(catalog: &Catalog, missing: &[TableId]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = missing
        .iter()
        .map(|table| Finding::from_error(table.to_string(), &super::catalog::no_such_table(table)))
        .chain(catalog.refused.iter().map(|(table, error)| Finding::from_error(table.to_string(), error)))
        .collect();
    findings.extend(catalog.tables.values().map(ensure_table));
    findings
}

/// A table in a storage engine with transactions.
pub(super) fn ensure_table(table: &CatalogTable) -> Finding {
    let name = table.schema.table.to_string();
    let key: Vec<&str> =
        table.schema.key.iter().filter_map(|i| table.schema.columns.get(*i)).map(|column| column.name.as_str()).collect();
    let said = format!("{} columns, key {}, about {} rows", table.schema.columns.len(), key.join(", "), table.estimated_rows);
    if table.is_transactional() {
        return Finding::ok(name, said);
    }
    let engine = if table.engine.is_empty() { "no known engine" } else { table.engine.as_str() };
    Finding::warning(
        name,
        format!("{said}; {engine} has no transactions: a snapshot of it is whole only once the binlog is past it"),
        "convert it to InnoDB if it changes while it is copied",
    )
}

/// Whether the server still has the binlog from `position` on: `purged` is its `gtid_purged`, `oldest_file` its first binlog.
pub fn ensure_position_is_kept(
    info: &ServerInfo,
    position: &SourcePosition,
    purged: &crate::event::GtidSet,
    oldest_file: &str,
) -> Finding {
    const SUBJECT: &str = "position";
    const REMEDY: &str = "run `binlake backfill` to copy the tables anew, and keep binlogs for longer";
    match &position.gtid_set {
        Some(ours) if info.flavor == Flavor::MySql => {
            let gap = purged.subtract(ours);
            if gap.is_empty() {
                return Finding::ok(SUBJECT, "the binlog from where capture goes on is there");
            }
            Finding::failure(SUBJECT, format!("the server has purged transactions that weren't read: {gap}"), REMEDY)
        }
        _ if position.lineage != info.lineage => {
            let said = "was read from another server, and file and offset mean nothing on this one";
            Finding::failure(SUBJECT, said, "connect to the server that was read before, or run `binlake backfill`")
        }
        _ => {
            let oldest = crate::event::BinlogCoordinates { file: oldest_file.into(), offset: 0 };
            if position.coordinates.file_number() >= oldest.file_number() {
                return Finding::ok(SUBJECT, "the binlog from where capture goes on is there");
            }
            let said = format!("the server has purged {}; its oldest binlog is {oldest_file}", position.coordinates.file);
            Finding::failure(SUBJECT, said, REMEDY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, variables: &[(&str, &str)]) -> ServerInfo {
        let good = [
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("binlog_row_value_options", ""),
            ("gtid_mode", "ON"),
            ("server_id", "1"),
            ("server_uuid", "3e11fa47-71ca-11e1-9e33-c80aa9429562"),
            ("binlog_expire_logs_seconds", "2592000"),
            ("log_replica_updates", "ON"),
        ];
        let variables = good.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServerInfo::from_parts(version.into(), variables)
    }

    fn worst(version: &str, variables: &[(&str, &str)]) -> Finding {
        let findings = check_server(&info(version, variables));
        findings.into_iter().rev().max_by_key(|finding| finding.verdict).unwrap()
    }

    #[test]
    fn each_setting_is_judged_with_its_remedy() {
        assert_eq!(worst("9.7.0", &[]).verdict, Verdict::Ok);
        let cases: &[(&str, &str, Verdict, &str)] = &[
            ("log_bin", "OFF", Verdict::Failure, "log_bin = binlog"),
            ("binlog_format", "MIXED", Verdict::Failure, "SET PERSIST binlog_format = 'ROW';"),
            ("binlog_row_image", "NOBLOB", Verdict::Failure, "'FULL'"),
            ("binlog_row_metadata", "MINIMAL", Verdict::Failure, "'FULL'"),
            ("binlog_row_value_options", "PARTIAL_JSON", Verdict::Failure, "''"),
            ("gtid_mode", "OFF", Verdict::Warning, "gtid_mode to ON"),
            ("server_id", "0", Verdict::Failure, "server_id"),
            ("binlog_expire_logs_seconds", "3600", Verdict::Warning, "259200"),
            ("log_replica_updates", "OFF", Verdict::Warning, "log_replica_updates = ON"),
        ];
        for (name, value, verdict, remedy) in cases {
            let found = worst("8.4.6", &[(name, value)]);
            assert_eq!((found.subject.as_str(), found.verdict), (*name, *verdict), "{found:?}");
            assert!(found.remedy.contains(remedy), "{found:?}");
        }
        assert_eq!(worst("5.7.44", &[]).subject, "server");
        assert_eq!(worst("10.5.9-MariaDB", &[]).said, "MariaDB 10.5.9 is too old");
        let rds = worst("8.0.40", &[("basedir", "/rdsdbbin/mysql-8.0.40/"), ("binlog_format", "MIXED")]);
        assert!(rds.remedy.contains("parameter group"), "{rds:?}");
    }

    #[test]
    fn a_failure_refuses_the_start_with_one_line() {
        let error = refuse_on_failure(&check_server(&info("8.4.6", &[("binlog_row_metadata", "MINIMAL")]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "binlog_row_metadata: is MINIMAL, must be FULL; SET PERSIST binlog_row_metadata = 'FULL'; (`binlake doctor` checks it all)"
        );
        assert_eq!(error.exit_code(), 3);
        assert!(refuse_on_failure(&check_server(&info("8.4.6", &[("gtid_mode", "OFF")]))).is_ok());
    }

    #[test]
    fn a_purged_position_is_seen_by_set_or_by_file() {
        let with_gtids = info("8.4.6", &[]);
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let position = |set: Option<&str>, file: &str| SourcePosition {
            lineage: with_gtids.lineage.clone(),
            coordinates: crate::event::BinlogCoordinates { file: file.into(), offset: 4 },
            gtid_set: set.map(|set| set.parse().unwrap()),
        };
        let purged = format!("{uuid}:1-7").parse().unwrap();
        let verdict = |position: &SourcePosition| ensure_position_is_kept(&with_gtids, position, &purged, "binlog.000007").verdict;
        assert_eq!(verdict(&position(Some(&format!("{uuid}:1-9")), "binlog.000001")), Verdict::Ok);
        assert_eq!(verdict(&position(Some(&format!("{uuid}:1-6")), "binlog.000009")), Verdict::Failure);
        assert_eq!(verdict(&position(None, "binlog.000007")), Verdict::Ok);
        assert_eq!(verdict(&position(None, "binlog.000006")), Verdict::Failure);
        let other = SourcePosition { lineage: crate::event::Lineage("other".into()), ..position(None, "binlog.000009") };
        assert_eq!(verdict(&other), Verdict::Failure);
    }
}
