//! `binlake doctor`: is all as it must be, and if not, what to do.

mod feeds;
mod places;
mod report;

use super::{Answer, Global};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{GtidSet, SourcePosition, TableId};
use crate::merge::{TableRules, TinyInt1};
use crate::pipeline::{RulesBeside, delivery_name, misfits_of, rules_in_force, unfit, unreadable};
use crate::source::{
    Cascade, Catalog, Finding, Flavor, Grants, ServerInfo, Verdict, Wanted, check_grants, check_server, check_tables, connect,
    connection_options, ensure_position_is_kept, load_catalog, read_cascades, source_error,
};
use crate::table::Lake;
use clap::{Args, ValueEnum};
use feeds::check_feeds;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use places::{check_catalog, check_lake, check_state, check_stream};
use report::{Report, Section};
use std::collections::BTreeSet;

/// SQL that makes the source's user.
const MYSQL_USER: &str = include_str!("../../migrations/source/mysql.sql");
const MARIADB_USER: &str = include_str!("../../migrations/source/mariadb.sql");

/// Checks server, grants, tables, stream and lake, and says each remedy
///
/// Exit code 0: all is as it must be. 1: something isn't, and what to do about
/// it is said. Warnings don't make it a 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  binlake doctor
  binlake doctor --sql mysql     the SQL that makes the source's user")]
pub(super) struct Doctor {
    /// Only print the SQL that makes the source's user, with its grants
    #[arg(long, value_name = "SERVER")]
    sql: Option<Server>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// MySQL 8.0 and newer
    Mysql,
    /// MariaDB 10.6 and newer
    Mariadb,
}

impl Doctor {
    pub(super) async fn run(self, global: &Global) -> Result<Answer> {
        match self.sql {
            Some(Server::Mysql) => print!("{MYSQL_USER}"),
            Some(Server::Mariadb) => print!("{MARIADB_USER}"),
            None => {
                let report = examine(global.config()?).await;
                print!("{report}");
                if report.failures() > 0 {
                    return Ok(Answer::No);
                }
            }
        }
        Ok(Answer::Done)
    }
}

/// Looks at everything. What can't be looked at is a finding as well.
async fn examine(config: Config) -> Report {
    let mut report = Report::default();
    let file = config;
    let config = &by_rules(&file, &mut report).await;
    // an edited file counts from the next start on, so it is looked at as well
    let both = [config, &file];
    let both = if config.rules_text() == file.rules_text() { &both[..1] } else { &both[..] };
    if both.iter().any(|config| config.has_source()) {
        examine_capture(config, both, &mut report).await;
    }
    let mut feeds = check_feeds(config).await;
    for config in &both[1..] {
        let others = check_feeds(config).await;
        feeds.extend(others.into_iter().filter(|(title, _)| feeds.iter().all(|(known, _)| known != title)).collect::<Vec<_>>());
    }
    for (title, findings) in feeds {
        report.sections.push(Section::new(title, findings));
    }
    report.sections.push(Section::new(format!("lake {}", config.lake.url), check_lake(&config.lake.url).await));
    if let Some(catalog) = &config.catalog {
        report.sections.push(Section::new(format!("catalog {}", catalog.url), check_catalog(catalog).await));
    }
    report.sections.push(Section::new(format!("state {}", config.state.url), check_state(&config.state).await));
    report
}

/// The rules in force; says whether the file has others.
async fn by_rules(file: &Config, report: &mut Report) -> Config {
    const SUBJECT: &str = "revision";
    let (finding, ruled) = match rules_in_force(file.clone(), Lake::open(&file.lake.url).ok().as_ref()).await {
        Ok(RulesBeside { revision: None, config, .. }) => return config,
        Ok(RulesBeside { revision: Some(revision), config, difference }) if difference.is_empty() => {
            (Finding::ok(SUBJECT, format!("{revision} is in force, and the file has the same rules")), config)
        }
        Ok(RulesBeside { revision: Some(revision), config, .. }) => {
            let said = format!("{revision} is in force, and the file has others; what follows is of both");
            (
                Finding::warning(
                    SUBJECT,
                    said,
                    "`binlake apply --dry-run` shows in what they differ, `binlake apply` makes the file's count",
                ),
                config,
            )
        }
        Err(error) => (Finding::from_error(SUBJECT, &error), file.clone()),
    };
    report.sections.push(Section::new("rules", vec![finding]));
    ruled
}

/// The source, and the stream into which it is captured.
async fn examine_capture(config: &Config, both: &[&Config], report: &mut Report) {
    let (stream, last) = check_stream(config).await;
    let title = format!("source {}", config.source.url);
    match check_source(config, both, last.as_ref(), report, &title).await {
        Ok(()) => {}
        Err(error) => {
            report.sections.push(Section::new(title, vec![Finding::from_error("connection", &error)]));
            report.user_sql = Some(MYSQL_USER);
        }
    }
    report.sections.push(Section::new(format!("stream {}", config.stream.url), stream));
}

async fn check_source(
    config: &Config,
    both: &[&Config],
    last: Option<&SourcePosition>,
    report: &mut Report,
    title: &str,
) -> Result<()> {
    let options = connection_options(config.source.url.expose())?;
    let mut conn = connect(&options, config.source.connect_timeout).await?;
    let info = ServerInfo::read(&mut conn).await?;
    let mut findings = check_server(&info);
    let captured: Vec<TableRules> = both.iter().map(|config| config.captured()).collect();
    let select = |table: &TableId| {
        let rule = captured.iter().find_map(|rules| rules.rule_for(table))?;
        Some(Wanted { key: rule.key.clone(), tinyint1_is_bool: rule.tinyint1 == TinyInt1::Bool })
    };
    let catalog = load_catalog(&mut conn, select).await?;
    let named: Vec<TableId> = catalog.tables.keys().chain(catalog.refused.iter().map(|(table, _)| table)).cloned().collect();
    let grants = check_grants(&info, &Grants::read(&mut conn).await?, &named);
    if grants.iter().any(|finding| finding.verdict != Verdict::Ok) {
        report.user_sql = Some(match info.flavor {
            Flavor::MySql => MYSQL_USER,
            Flavor::MariaDb => MARIADB_USER,
        });
    }
    findings.extend(grants);
    if let Some(position) = last {
        findings.push(match read_oldest(&mut conn, &info).await {
            Ok((purged, oldest)) => ensure_position_is_kept(&info, position, &purged, &oldest),
            Err(error) => Finding::from_error("position", &error),
        });
    }
    report.sections.push(Section::new(title, findings));
    let exact: BTreeSet<&TableId> = captured.iter().flat_map(TableRules::exact_tables).collect();
    let missing: Vec<TableId> = exact.into_iter().filter(|table| !named.contains(table)).cloned().collect();
    let mut tables = table_findings(both, &catalog, &missing);
    match read_cascades(&mut conn, &info, &catalog).await {
        Ok(cascades) => tables.extend(cascades.iter().map(Cascade::finding)),
        Err(error) => tables.push(Finding::from_error("foreign keys", &error)),
    }
    report.sections.push(Section::new("tables", tables));
    let deliveries = delivery_findings(both, &catalog);
    if !deliveries.is_empty() {
        report.sections.push(Section::new("deliveries", deliveries));
    }
    // all was asked; how the connection ends doesn't matter
    let _ = conn.disconnect().await;
    Ok(())
}

fn table_findings(both: &[&Config], catalog: &Catalog, missing: &[TableId]) -> Vec<Finding> {
    let mut findings = check_tables(catalog, missing);
    let wrong =
        both.iter().flat_map(|config| unfit(catalog, &config.tables).into_iter().chain(unreadable(catalog, &config.tables)));
    for (table, error) in wrong {
        let finding = Finding::from_error(table.to_string(), &error);
        findings.retain(|known| known.subject != finding.subject || (known.verdict != Verdict::Ok && *known != finding));
        findings.push(finding);
    }
    let mut looked_at = BTreeSet::new();
    let rules = both.iter().flat_map(|config| config.tables.rules());
    for rule in rules.filter(|rule| looked_at.insert(rule.source.to_string())) {
        let is_used = |table: &TableId| rule.source.matches(table) || missing.contains(table);
        let all = catalog.tables.keys().chain(catalog.refused.iter().map(|(table, _)| table)).chain(missing);
        if !all.into_iter().any(is_used) {
            findings.push(Finding::warning(
                rule.source.to_string(),
                "no table of the server is meant by it",
                "correct `source` in its rule, or make the table; new tables are taken up when capture starts",
            ));
        }
    }
    findings
}

/// Whether the mappings fit the tables.
fn delivery_findings(both: &[&Config], catalog: &Catalog) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for config in both {
        for delivered in &config.deliver {
            let subject = delivery_name(delivered).to_string();
            let said = match misfits_of(delivered, config, catalog).as_slice() {
                [] => vec![Finding::ok(&subject, format!("its rules fit {}", delivered.mapping.source))],
                misfits => misfits.iter().map(|error| Finding::from_error(&subject, error)).collect(),
            };
            findings.extend(said.into_iter().filter(|one| !findings.contains(one)).collect::<Vec<_>>());
        }
    }
    findings
}

/// What the server no longer has: `gtid_purged`, and the oldest binlog file that is left.
async fn read_oldest(conn: &mut Conn, info: &ServerInfo) -> Result<(GtidSet, String)> {
    let failed = |error| source_error(error, "the server's binlogs can't be listed");
    let purged: Option<String> = match info.flavor {
        Flavor::MySql => conn.query_first("SELECT @@GLOBAL.gtid_purged").await.map_err(failed)?,
        Flavor::MariaDb => None,
    };
    let oldest: Option<Row> = conn.query_first("SHOW BINARY LOGS").await.map_err(failed)?;
    let oldest: Option<String> = oldest.and_then(|mut row| row.take(0));
    let purged =
        purged.unwrap_or_default().parse().map_err(|error: String| Error::bug("gtid_purged can't be read").caused_by(error))?;
    Ok((purged, oldest.unwrap_or_default()))
}
