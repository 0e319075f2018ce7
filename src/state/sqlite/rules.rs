//! Revisions of rules in SQLite.

use super::SqliteStore;
use crate::error::Result;
use crate::state::{RulesRevision, RulesStatus};
use rusqlite::{OptionalExtension, Row, params};

impl SqliteStore {
    pub(in crate::state) async fn newest_rules(&self, pipeline: &str) -> Result<Option<(u64, RulesStatus)>> {
        let pipeline = pipeline.to_owned();
        self.with(move |connection| {
            let mut statement =
                connection.prepare("SELECT number, status FROM rules WHERE pipeline = ?1 ORDER BY number DESC LIMIT 1")?;
            let found =
                statement.query_row([pipeline], |row| Ok((unsigned(row.get(0)?), RulesStatus::of(&row.get::<_, String>(1)?))));
            found.optional()
        })
        .await
    }

    pub(in crate::state) async fn rules(&self, pipeline: &str) -> Result<Vec<RulesRevision>> {
        let pipeline = pipeline.to_owned();
        self.with(move |connection| {
            let mut statement = connection.prepare(
                "SELECT pipeline, number, content, hash, author, origin, difference, proposed_at, status, decided_at, cut, position, reason
                 FROM rules WHERE pipeline = ?1 ORDER BY number",
            )?;
            statement.query_map([pipeline], revision)?.collect()
        })
        .await
    }

    pub(in crate::state) async fn add_rules(&self, revision: &RulesRevision) -> Result<bool> {
        let new = revision.clone();
        self.with(move |connection| {
            let added = connection.execute(
                "INSERT INTO rules (pipeline, number, content, hash, author, origin, difference, proposed_at, status, decided_at, cut, position, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
                params![
                    new.pipeline,
                    signed(new.number),
                    new.content,
                    new.hash,
                    new.author,
                    new.origin,
                    new.difference,
                    new.proposed_at,
                    new.status.text(),
                    new.decided_at,
                    new.since.map(|cut| cut.to_string()),
                    new.position,
                    new.reason
                ],
            )?;
            Ok(added == 1)
        })
        .await
    }

    pub(in crate::state) async fn decide_rules(&self, decided: &RulesRevision) -> Result<bool> {
        let now = decided.clone();
        self.with(move |connection| {
            let changed = connection.execute(
                "UPDATE rules SET status = ?3, decided_at = ?4, cut = ?5, position = ?6, reason = ?7
                 WHERE pipeline = ?1 AND number = ?2 AND status = 'Proposed'",
                params![
                    now.pipeline,
                    signed(now.number),
                    now.status.text(),
                    now.decided_at,
                    now.since.map(|cut| cut.to_string()),
                    now.position,
                    now.reason
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    pub(in crate::state) async fn rules_note(&self, pipeline: &str, name: &str) -> Result<Option<String>> {
        let (pipeline, name) = (pipeline.to_owned(), name.to_owned());
        self.with(move |connection| {
            let query = "SELECT value FROM rules_notes WHERE pipeline = ?1 AND name = ?2";
            connection.query_row(query, params![pipeline, name], |row| row.get(0)).optional()
        })
        .await
    }

    pub(in crate::state) async fn note_rules(&self, pipeline: &str, name: &str, value: &str) -> Result<()> {
        let (pipeline, name, value) = (pipeline.to_owned(), name.to_owned(), value.to_owned());
        self.with(move |connection| {
            let noted = connection.execute(
                "INSERT INTO rules_notes (pipeline, name, value) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = ?3",
                params![pipeline, name, value],
            );
            noted.map(|_| ())
        })
        .await
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn revision(row: &Row<'_>) -> rusqlite::Result<RulesRevision> {
    Ok(RulesRevision {
        pipeline: row.get(0)?,
        number: unsigned(row.get(1)?),
        content: row.get(2)?,
        hash: row.get(3)?,
        author: row.get(4)?,
        origin: row.get(5)?,
        difference: row.get(6)?,
        proposed_at: row.get(7)?,
        status: RulesStatus::of(&row.get::<_, String>(8)?),
        decided_at: row.get(9)?,
        since: row.get::<_, Option<String>>(10)?.and_then(|cut| cut.parse().ok()),
        position: row.get(11)?,
        reason: row.get(12)?,
    })
}
