//! Foreign keys that change rows without a trace in the binlog.
//!
//! Where InnoDB itself carries out ON DELETE CASCADE and its like, the rows that it changes in the referring table are in no event: a replica is expected to do the
//! same by itself. MySQL does so up to 9.5 (and later with `innodb_native_foreign_keys = ON`), MariaDB always. Newer MySQL logs these rows.

use super::catalog::Catalog;
use super::checks::Finding;
use super::connect::{server_code, source_error};
use super::server::{Flavor, ServerInfo};
use super::sql::quote_table;
use crate::error::Result;
use crate::event::TableId;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// A foreign key by which a change of one table changes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cascade {
    /// The table whose rows are changed.
    pub table: TableId,
    /// The constraint.
    pub constraint: String,
    /// What it does, as `ON DELETE CASCADE`.
    pub rules: String,
}

impl Cascade {
    /// What `binlake doctor` says about it.
    pub fn finding(&self) -> Finding {
        let said =
            format!("{} ({}): the rows that it changes are not in the binlog, so the lake keeps them", self.rules, self.constraint);
        Finding::warning(
            self.table.to_string(),
            said,
            "drop the rule and change the rows by statements or triggers, or upgrade to MySQL 9.6; `binlake verify` shows what differs",
        )
    }
}

/// Whether cascades leave no events on this server.
fn hides_cascades(info: &ServerInfo) -> bool {
    match info.flavor {
        Flavor::MariaDb => true,
        Flavor::MySql => info.version < (9, 6, 0) || info.is_on("innodb_native_foreign_keys"),
    }
}

/// The foreign keys of the catalog's tables whose effects are not in the binlog. (`information_schema` shows them to few users; SHOW CREATE
/// TABLE needs what reading the rows needs.)
pub async fn read_cascades(conn: &mut Conn, info: &ServerInfo, catalog: &Catalog) -> Result<Vec<Cascade>> {
    let mut found = Vec::new();
    if !hides_cascades(info) {
        return Ok(found);
    }
    for (table, _) in catalog.tables.iter().filter(|(_, entry)| entry.engine.eq_ignore_ascii_case("innodb")) {
        let sql = format!("SHOW CREATE TABLE {}", quote_table(table));
        // bytes: a binary column's default stands in it as it is
        let row: Option<(Vec<u8>, Vec<u8>)> = match conn.query_first(sql).await {
            // dropped in this moment
            Err(error) if server_code(&error) == Some(1146) => continue,
            row => row.map_err(|error| source_error(error, "the table's definition can't be read").with("table", table))?,
        };
        let (_, statement) = row.unwrap_or_default();
        found.extend(cascades_of(table, &String::from_utf8_lossy(&statement)));
    }
    Ok(found)
}

/// From the text of SHOW CREATE TABLE, which has a line for each constraint.
fn cascades_of(table: &TableId, statement: &str) -> Vec<Cascade> {
    let lines = statement.lines().map(str::trim_start).filter_map(|line| line.strip_prefix("CONSTRAINT `"));
    let cascade = |line: &str| {
        let (constraint, rest) = line.split_once("` FOREIGN KEY ")?;
        let does = |event: &str| {
            let (_, rule) = rest.rsplit_once(&format!(" ON {event} "))?;
            let action = ["CASCADE", "SET NULL", "SET DEFAULT"].into_iter().find(|action| rule.starts_with(action))?;
            Some(format!("ON {event} {action}"))
        };
        let rules = ["DELETE", "UPDATE"].into_iter().filter_map(does).collect::<Vec<_>>().join(" ");
        (!rules.is_empty()).then(|| Cascade { table: table.clone(), constraint: constraint.to_owned(), rules })
    };
    lines.filter_map(cascade).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_mysql_alone_logs_cascades() {
        let info = |version: &str, native: &str| {
            let variables = [("innodb_native_foreign_keys".to_owned(), native.to_owned())].into();
            ServerInfo::from_parts(version.to_owned(), variables)
        };
        assert!(!hides_cascades(&info("9.7.4", "OFF")));
        assert!(hides_cascades(&info("9.7.4", "ON")));
        assert!(hides_cascades(&info("8.4.3", "")));
        assert!(hides_cascades(&info("10.11.18-MariaDB", "")));
    }

    #[test]
    fn constraints_are_found_in_the_tables_definition() {
        let statement = "CREATE TABLE `c` (\n  `id` int COMMENT 'CONSTRAINT `x` FOREIGN KEY ON DELETE CASCADE',\n  PRIMARY KEY (`id`),\n\
             \u{20} CONSTRAINT `a` FOREIGN KEY (`p`) REFERENCES `parent` (`id`) ON DELETE CASCADE ON UPDATE SET NULL,\n\
             \u{20} CONSTRAINT `b` FOREIGN KEY (`q`) REFERENCES `parent` (`id`) ON DELETE NO ACTION,\n\
             \u{20} CONSTRAINT `d` FOREIGN KEY (`r`) REFERENCES `parent` (`id`),\n  CONSTRAINT `e` CHECK (`id` > 0)\n) ENGINE=InnoDB";
        let found = cascades_of(&TableId::new("s", "c"), statement);
        assert_eq!(
            found.iter().map(|found| (found.constraint.as_str(), found.rules.as_str())).collect::<Vec<_>>(),
            [("a", "ON DELETE CASCADE ON UPDATE SET NULL")]
        );
    }
}
