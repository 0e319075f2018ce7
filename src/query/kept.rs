//! Whether a history still follows its table, or was switched off: then what it says ends there, and must not pass for what is known now.

use crate::error::{Error, Result};
use crate::merge::{CHECKPOINT_KEY, Checkpoint};
use crate::table::{COMMITTED_WITH, TableView};
use crate::time::Timestamp;

/// The last checkpoint of a history that its table has gone on without; `None`: the history has all that the table has, or gets it at this moment.
///
/// # Errors
/// If the table's last commit can't be read.
pub async fn left_behind_at(table: &TableView, history: &TableView) -> Result<Option<Checkpoint>> {
    let of = |view: &TableView| view.extra_metadata(CHECKPOINT_KEY).map(Checkpoint::from_json).transpose();
    let (Some(of_table), Some(of_history)) = (of(table)?, of(history)?) else { return Ok(None) };
    if of_table.stream_id == of_history.stream_id && of_table.at() <= of_history.at() {
        return Ok(None);
    }
    let folder = history.folder();
    // of a commit on both the table's instant is there first
    for instant in table.instants().iter().rev() {
        let extra = table.commit_extra_metadata(instant).await?;
        if extra.contains_key(CHECKPOINT_KEY) {
            let with = extra.get(COMMITTED_WITH).into_iter().flat_map(|with| with.split(','));
            let mut instants = with.filter_map(|with| with.rsplit_once('@')).filter(|(table, _)| *table == folder);
            let last = history.instants().last().map_or("", |last| last.instant.as_str());
            // an erasure takes part of every history, and brings it no further
            return Ok(if instants.any(|(_, instant)| last < instant) { None } else { Some(of_history) });
        }
    }
    Ok(Some(of_history))
}

/// The last moment of which a history that was left behind knows.
pub fn known_until(last: &Checkpoint) -> Timestamp {
    last.system_time.map_or(last.source_commit_time, |time| time.max(last.source_commit_time))
}

/// What is asked lies behind it.
pub(super) fn not_kept(database: &str, history: &str, until: Timestamp) -> Error {
    Error::config("the table's history was switched off, and knows nothing of that time")
        .with("table", format!("{database}.{history}"))
        .with("known_until", until)
        .remedy("ask as of an earlier time, or set `history` in the table's [[table]] again")
}
