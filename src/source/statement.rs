//! Statements in the binlog: where transactions begin and end, and what DDL does to the tables.

use super::binlog::event::Event;
use super::binlog::query_event::{QueryEvent, parse_query};
use super::ddl::{Clause, Effect, effects};
use super::ddl_apply::{Altered, alter};
use super::lanes::LaneBuffers;
use super::reader::{BinlogReader, Progress};
use super::shape::{BACKFILL, DROPPED, RENAMED};
use super::tracked::stops_table;
use crate::error::{Error, Kind, Result};
use crate::event::{Section, TableId};

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
                if is(0, "XA") {
                    transaction.xa.get_or_insert_default();
                }
            }
            return Ok(Progress::Onward);
        }
        if is(0, "XA") && (is(1, "COMMIT") || is(1, "ROLLBACK")) {
            if self.transaction.is_none() {
                self.open_without_gtid(event, start);
            }
            return self.xa_end(sql, lanes);
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
        self.ddl(&query, lanes)?;
        Ok(match &self.transaction {
            // CREATE TABLE … SELECT stands among the transaction's rows
            Some(transaction) if !transaction.is_standalone => Progress::Onward,
            _ => self.end(),
        })
    }

    fn ddl(&mut self, query: &QueryEvent<'_>, lanes: &mut LaneBuffers) -> Result<()> {
        if !self.concerns_us(&query.sql, query.database) {
            return Ok(());
        }
        for effect in effects(&query.sql, query.database) {
            match effect {
                Effect::Truncate(table) => {
                    if let Some(number) = self.followed(&table)? {
                        let section =
                            Section::Truncate { table: self.tables.get(number)?.schema.table.clone(), stamp: self.stamp() };
                        lanes.push_to_all(number, &section)?;
                    }
                }
                Effect::Create { table, replaces: false, may_exist } => {
                    if !may_exist {
                        self.tables.made(&table);
                    }
                }
                Effect::Create { table, .. } => {
                    self.stop_named(&table, "the table was replaced by another", BACKFILL)?;
                    self.tables.made(&table);
                }
                Effect::Drop(table) => {
                    self.tables.unmade(&table);
                    self.stop_named(&table, "the table was dropped", DROPPED)?;
                }
                Effect::DropDatabase(database) => {
                    let ours: Vec<TableId> = (self.tables.iter())
                        .map(|(_, tracked)| tracked.schema.table.clone())
                        .filter(|table| table.database().eq_ignore_ascii_case(&database))
                        .collect();
                    ours.iter().try_for_each(|table| self.stop_named(table, "the table's database was dropped", DROPPED))?;
                }
                Effect::Rename { from, to } => {
                    self.tables.unmade(&from);
                    self.tables.unmade(&to);
                    self.stop_named(&from, "the table was renamed", RENAMED)?;
                    self.stop_named(
                        &to,
                        "another table was renamed to this one (as tools for online schema changes do)",
                        BACKFILL,
                    )?;
                }
                Effect::Alter { table, clauses } => {
                    if clauses.contains(&Clause::Rename) {
                        self.tables.unmade(&table);
                    }
                    if let Some(number) = self.followed(&table)? {
                        self.alter(number, &clauses, query, lanes)?;
                    }
                }
                Effect::Rows(table) => {
                    if let Some(number) = self.followed(&table)? {
                        self.stop(number, statement_based())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a statement may name one of our tables: most don't, and needn't be read.
    fn concerns_us(&self, sql: &str, database: &str) -> bool {
        let sql = sql.to_lowercase();
        // one that is made may be ours from now on
        sql.contains("create")
            || self.tables.iter().any(|(_, tracked)| {
                let table = &tracked.schema.table;
                let names_database =
                    sql.contains(&table.database().to_lowercase()) || table.database().eq_ignore_ascii_case(database);
                names_database && (sql.contains(&table.name().to_lowercase()) || sql.trim_start().starts_with("drop"))
            })
    }

    /// The number of a table whose events count.
    fn followed(&self, table: &TableId) -> Result<Option<usize>> {
        match self.tables.number(table) {
            Some(number) if self.tables.get(number)?.is_followed() && !self.is_covered(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    fn stop_named(&mut self, table: &TableId, what: &'static str, remedy: &'static str) -> Result<()> {
        match self.followed(table)? {
            Some(number) => self.stop(number, stops_table(what).remedy(remedy)),
            None => Ok(()),
        }
    }

    fn alter(&mut self, number: usize, clauses: &[Clause], query: &QueryEvent<'_>, lanes: &mut LaneBuffers) -> Result<()> {
        let tracked = self.tables.get(number)?;
        match alter(&tracked.schema, &tracked.rule, clauses, query.is_strict) {
            Ok(Altered::Same) => Ok(()),
            Ok(Altered::NewShape { schema, fill }) => self.new_shape(number, schema, fill, lanes),
            Err(error) if error.kind() == Kind::Data => self.stop(number, error),
            Err(error) => Err(error),
        }
    }
}

fn statement_based() -> Error {
    stops_table("rows were changed by a statement that was logged as text")
        .remedy("set binlog_format = ROW on the server and for all sessions, then run `binlake backfill --table` for it")
}
