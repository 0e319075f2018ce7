//! The user's privileges, from `SHOW GRANTS`, and whether they suffice.

use super::checks::Finding;
use super::connect::source_error;
use super::server::{Flavor, ServerInfo};
use crate::error::Result;
use crate::event::TableId;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::collections::BTreeSet;

/// What the user may do, where.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    user: String,
    lines: Vec<Grant>,
}

/// One line: privileges on a database pattern and a table, `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    privileges: BTreeSet<String>,
    database: String,
    table: String,
}

impl Grants {
    /// Asks the server, the active roles' privileges included.
    pub async fn read(conn: &mut Conn) -> Result<Self> {
        let failed = |error| source_error(error, "the user's privileges can't be read");
        let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await.map_err(failed)?;
        let mut lines: Vec<String> = conn.query("SHOW GRANTS").await.map_err(failed)?;
        // MySQL lists a role's privileges only when asked for; other servers list them, or have no roles
        if let Ok(Some(Some(roles))) = conn.query_first::<Option<String>, _>("SELECT CURRENT_ROLE()").await
            && roles.contains('`')
        {
            lines = conn.query(format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}")).await.map_err(failed)?;
        }
        Ok(Self::parse(&user.unwrap_or_default(), &lines))
    }

    /// From `CURRENT_USER()` and the lines of `SHOW GRANTS`. Lines that don't grant privileges on tables are left out.
    pub fn parse(current_user: &str, lines: &[String]) -> Self {
        let (name, host) = current_user.rsplit_once('@').unwrap_or((current_user, "%"));
        let user = format!("'{name}'@'{host}'");
        Self { user, lines: lines.iter().filter_map(|line| parse_line(line)).collect() }
    }

    /// The user, quoted for SQL.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether a privilege is held on everything.
    pub fn has(&self, privilege: &str) -> bool {
        self.lines.iter().any(|grant| grant.database == "*" && grant.holds(privilege))
    }

    /// Whether a privilege is held on `table`.
    pub fn has_on(&self, privilege: &str, table: &TableId) -> bool {
        self.lines.iter().any(|grant| {
            grant.holds(privilege)
                && (grant.database == "*" || is_like(&grant.database, table.database()))
                && (grant.table == "*" || grant.table == table.name())
        })
    }
}

impl Grant {
    fn holds(&self, privilege: &str) -> bool {
        self.privileges.contains(privilege) || self.privileges.contains("ALL PRIVILEGES")
    }
}

/// ``GRANT SELECT, RELOAD ON `shop`.* TO `repl`@`%` ``.
fn parse_line(line: &str) -> Option<Grant> {
    let rest = line.strip_prefix("GRANT ")?;
    let (privileges, rest) = rest.split_once(" ON ")?;
    let (place, _) = rest.split_once(" TO ")?;
    let (database, place) = take_name(place)?;
    let (table, _) = take_name(place.strip_prefix('.')?)?;
    let privileges = privileges.split(',').map(|privilege| privilege.trim().to_ascii_uppercase()).collect();
    Some(Grant { privileges, database, table })
}

/// A name, perhaps in backquotes, and what follows it.
fn take_name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('`') else {
        let end = text.find(['.', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('`')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

/// Whether `name` matches a grant's database: `%` and `_` are wild, `\` takes that from them.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut characters = pattern.chars();
    match characters.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = characters.as_str();
            (0..=name.len()).filter(|end| name.is_char_boundary(*end)).any(|end| is_like(rest, &name[end..]))
        }
        Some(first) => {
            let (wanted, rest) = match first {
                '_' => (None, characters.as_str()),
                '\\' => (characters.next(), characters.as_str()),
                other => (Some(other), characters.as_str()),
            };
            let mut name = name.chars();
            name.next().is_some_and(|actual| wanted.is_none_or(|wanted| wanted == actual)) && is_like(rest, name.as_str())
        }
    }
}

/// The privileges: to read the binlog, its position, the tables, and to take a snapshot's point.
pub fn check_grants(info: &ServerInfo, grants: &Grants, tables: &[TableId]) -> Vec<Finding> {
    vec![
        ensure_replication_grants(info, grants, true),
        ensure_replication_grants(info, grants, false),
        ensure_select(grants, tables),
        ensure_snapshot_lock(info, grants, tables),
    ]
}

fn ensure_replication_grants(info: &ServerInfo, grants: &Grants, is_slave: bool) -> Finding {
    let (privileges, purpose): (&[&str], &str) = match (is_slave, info.flavor) {
        (true, _) => (&["REPLICATION SLAVE"], "the binlog can't be read"),
        (false, Flavor::MySql) => (&["REPLICATION CLIENT", "SUPER"], "the binlog's position can't be read"),
        (false, Flavor::MariaDb) => (&["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"], "the binlog's position can't be read"),
    };
    let wanted = privileges.first().copied().unwrap_or_default();
    if privileges.iter().any(|privilege| grants.has(privilege)) {
        return Finding::ok(wanted, "granted");
    }
    Finding::failure(wanted, format!("is not granted: {purpose}"), format!("GRANT {wanted} ON *.* TO {};", grants.user()))
}

/// SELECT on each table.
pub(super) fn ensure_select(grants: &Grants, tables: &[TableId]) -> Finding {
    match tables.iter().find(|table| !grants.has_on("SELECT", table)) {
        None => Finding::ok("SELECT", "granted"),
        Some(table) => Finding::failure(
            "SELECT",
            format!("is not granted on {table}: its rows can't be copied"),
            format!("GRANT SELECT ON {table} TO {};", grants.user()),
        ),
    }
}

/// RELOAD, or LOCK TABLES, or GTIDs: a way to one point for a snapshot.
pub(super) fn ensure_snapshot_lock(info: &ServerInfo, grants: &Grants, tables: &[TableId]) -> Finding {
    let may_lock_tables = tables.iter().all(|table| grants.has_on("LOCK TABLES", table));
    if ["RELOAD", "FLUSH_TABLES"].iter().any(|privilege| grants.has(privilege)) && !info.is_rds() {
        return Finding::ok("RELOAD", "granted: snapshots begin with a short global lock");
    }
    let remedy = format!("GRANT RELOAD ON *.* TO {};", grants.user());
    match (info.flavor, may_lock_tables, info.has_gtids()) {
        (Flavor::MariaDb, ..) => Finding::ok("snapshot", "begins without a lock"),
        (Flavor::MySql, true, _) => Finding::ok("LOCK TABLES", "granted: snapshots begin with short table locks"),
        (Flavor::MySql, false, true) => {
            Finding::warning("RELOAD", "is not granted: snapshots begin without a lock, fenced by GTIDs", remedy)
        }
        (Flavor::MySql, false, false) => {
            Finding::failure("RELOAD", "is not granted, and there are no GTIDs: no snapshot can be taken", remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Verdict;

    fn grants(lines: &[&str]) -> Grants {
        Grants::parse("repl@%", &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn privileges_on_everything_on_databases_and_on_tables() {
        let grants = grants(&[
            "GRANT RELOAD, REPLICATION SLAVE ON *.* TO `repl`@`%`",
            "GRANT SELECT ON `shop\\_1`.* TO `repl`@`%`",
            "GRANT SELECT, LOCK TABLES ON `s%`.* TO `repl`@`%` WITH GRANT OPTION",
            "GRANT SELECT (`a`, `b`), INSERT ON `other`.`or``ders` TO `repl`@`%`",
            "GRANT `role`@`%` TO `repl`@`%`",
            "GRANT BACKUP_ADMIN ON *.* TO `repl`@`%`",
        ]);
        assert_eq!(grants.user(), "'repl'@'%'");
        assert!(grants.has("RELOAD") && grants.has("REPLICATION SLAVE") && grants.has("BACKUP_ADMIN"));
        assert!(!grants.has("SELECT") && !grants.has("RELO"));
        let on = |privilege, table: &str| grants.has_on(privilege, &table.parse().unwrap());
        assert!(on("SELECT", "shop_1.orders") && on("LOCK TABLES", "sales.x") && on("RELOAD", "any.thing"));
        assert!(!on("LOCK TABLES", "other.x"));
        assert!(on("INSERT", "other.or`ders") && !on("INSERT", "other.orders"));
        assert!(!on("SELECT", "other.or`ders"), "some columns are not all");
    }

    #[test]
    fn all_privileges_and_older_quotes() {
        let grants = grants(&["GRANT ALL PRIVILEGES ON *.* TO 'root'@'localhost' IDENTIFIED BY PASSWORD 'x' WITH GRANT OPTION"]);
        assert!(grants.has("RELOAD") && grants.has_on("SELECT", &"a.b".parse().unwrap()));
    }

    #[test]
    fn database_patterns() {
        assert!(is_like("shop\\_1", "shop_1") && !is_like("shop\\_1", "shopx1") && is_like("shop_1", "shopx1"));
        assert!(is_like("%", "") && is_like("a%c", "abbc") && !is_like("a%c", "abb") && is_like("größe", "größe"));
    }

    fn info(gtid: &str) -> ServerInfo {
        let variables = [("gtid_mode".to_owned(), gtid.to_owned())].into_iter().collect();
        ServerInfo::from_parts("8.4.6".into(), variables)
    }

    #[test]
    fn grants_are_judged_by_what_they_are_for() {
        let tables = ["shop.orders".parse().unwrap()];
        let judge = |grants: &[&str], gtid: &str| -> Vec<(String, Verdict)> {
            let lines: Vec<String> = grants.iter().map(|grant| format!("GRANT {grant} TO `r`@`%`")).collect();
            let findings = check_grants(&info(gtid), &Grants::parse("r@%", &lines), &tables);
            findings.into_iter().map(|finding| (finding.subject, finding.verdict)).collect()
        };
        let all = judge(&["SELECT, RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.*"], "OFF");
        assert!(all.iter().all(|(_, verdict)| *verdict == Verdict::Ok), "{all:?}");
        let some = judge(&["REPLICATION SLAVE ON *.*", "SELECT, LOCK TABLES ON `shop`.*"], "OFF");
        assert_eq!(some[1], ("REPLICATION CLIENT".into(), Verdict::Failure));
        assert_eq!(some[3], ("LOCK TABLES".into(), Verdict::Ok));
        assert_eq!(judge(&["SELECT ON `shop`.*"], "ON")[3].1, Verdict::Warning);
        assert_eq!(judge(&["SELECT ON `shop`.*"], "OFF")[3].1, Verdict::Failure);
        assert_eq!(judge(&["SELECT ON `shop`.`items`"], "OFF")[2].1, Verdict::Failure);
    }
}
