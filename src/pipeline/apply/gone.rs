//! Tables that go by other rules: each has all up to the cut at which it goes, also where who had it was killed before it came there.
//!
//! Whoever begins looks for tables that the rules in force don't have, and that lack some of what lies before that cut: it begins by the rules that have them, once
//! more, and ends at the cut. What a table has its last commit says. One that had no commit yet is known by its lease, where workers share the tables; else the
//! checkpoints of the others say from where on it must be read, for its sake as well. A table that can't come there (it was stopped at the source, or its copy was
//! under way) is tried once; then it is written down that it has ended.

use super::Ground;
use crate::error::{Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::pipeline::rules::{Passed, RulesBook};
use crate::pipeline::share::Need;

/// What becomes of tables that the rules in force don't have.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Gone {
    /// Which of the [`RulesBook::candidates`] must be begun by, at least: 0 where all have ended.
    pub(super) least: usize,
    /// Those that lack some of what lies before the cuts at which they go.
    behind: Vec<(TableId, CutPoint)>,
    /// The others, with the cuts at which they went.
    pub(super) ended: Vec<(TableId, CutPoint)>,
}

impl Gone {
    /// Those that lack something.
    pub(super) fn behind(&self) -> impl Iterator<Item = &TableId> {
        self.behind.iter().map(|(table, _)| table)
    }

    /// Whether the loop may go on without what they lack: the stream no longer has it.
    pub(super) fn can_be_left(&self, error: &Error) -> bool {
        error.kind() == Kind::Corrupt && !self.behind.is_empty()
    }

    /// They end where they are.
    pub(super) async fn leave(&self, book: &RulesBook, passed: &Passed, error: &Error) {
        for (table, at) in &self.behind {
            tracing::warn!(%table, cut = %at, %error, "the table ends before this cut: the stream can't be read from where it stands");
            passed.tables([table.clone()], *at);
            book.note_ended(&noted(table), *at).await;
        }
    }
}

/// Looks at those of `tables` that the rules in force don't have; beside each is what its lease says that it needs of the stream.
pub(super) async fn gone(
    ground: &Ground,
    book: &RulesBook,
    passed: &Passed,
    tables: impl IntoIterator<Item = (TableId, Option<Need>)>,
) -> Result<Gone> {
    let known = book.tables_before(book.newest());
    let mut found = Gone::default();
    for (table, need) in tables {
        let Some(last) = known.iter().position(|(_, rules)| rules.rule_for(&table).is_some()).filter(|last| *last > 0) else {
            continue;
        };
        let Some(at) = known[last - 1].0 else { continue };
        if !passed.has(&table, at) && is_behind(ground, &table, need, at).await? && !book.has_ended(&noted(&table), at).await? {
            found.least = found.least.max(last);
            found.behind.push((table, at));
        } else {
            found.ended.push((table, at));
        }
    }
    Ok(found)
}

/// The same of all that the lake has.
pub(super) async fn gone_of_lake(ground: &Ground, book: &RulesBook, passed: &Passed) -> Result<Gone> {
    if book.tables_before(book.newest()).len() < 2 {
        return Ok(Gone::default());
    }
    let tables = ground.lake.tables().await?;
    gone(ground, book, passed, tables.into_iter().map(|table| (table, None))).await
}

/// Whether a table has commits of this stream, and none at the cut or behind it; or none at all, while its lease says that it needs what lies before the cut.
async fn is_behind(ground: &Ground, table: &TableId, need: Option<Need>, at: CutPoint) -> Result<bool> {
    Ok(match ground.lake.checkpoint(table).await? {
        Some(checkpoint) => checkpoint.stream_id == ground.log.identity().stream_id && checkpoint.at() < at,
        None => need.is_some_and(|need| need.lies_before(at)),
    })
}

/// What the book calls a table that has ended.
pub(super) fn noted(table: &TableId) -> String {
    format!("table {table}")
}
