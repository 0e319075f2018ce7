//! As of when a query sees the lake.

use crate::error::{Error, Result};
use crate::merge::{CHECKPOINT_KEY, Checkpoint};
use crate::table::{CompletedInstant, InstantTime, TableView};
use crate::time::Timestamp;
use std::fmt;
use std::str::FromStr;

/// As of when a table is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf {
    text: String,
    moment: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Moment {
    /// A moment on the lake's clock: a table is seen as its last commit with an instant at or before it left it.
    ///
    /// The clock is that of the instants (when Binlake began the commit), as in Hudi's `as.of.instant`. It runs behind the source's by the commit
    /// interval at most; the source's own time of each row is in `_commit_ts`.
    Instant(InstantTime),
    /// A position of the source: a table is seen as the first commit that has all of it left it.
    Position,
}

impl FromStr for AsOf {
    type Err = Error;

    /// Reads an instant (17 digits), a time (RFC 3339, or `2026-11-21 14:00:00[.ffffff]` and `2026-11-21` as UTC),
    /// or a position as `_position` has it: a GTID or GTID set, or file:offset.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let instant = match InstantTime::parse(text) {
            Some(instant) => Some(instant),
            None if starts_with_date(text) => Timestamp::parse(text).and_then(InstantTime::from_timestamp),
            None => None,
        };
        let moment = match instant {
            Some(instant) => Moment::Instant(instant),
            // whether it is one is judged by the table's checkpoint, which knows the kind
            None if text.contains([':', '-']) && !text.contains(char::is_whitespace) => Moment::Position,
            None => return Err(wrong(text)),
        };
        Ok(Self { text: text.to_owned(), moment })
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `2026-11-21…`; MariaDB's GTID `0-1-15` isn't one.
fn starts_with_date(text: &str) -> bool {
    let date = text.as_bytes().get(..10).unwrap_or_default();
    date.len() == 10
        && date.iter().enumerate().all(|(i, byte)| if matches!(i, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() })
}

fn wrong(text: &str) -> Error {
    Error::config(format!("`{text}` is neither an instant nor a time nor a position"))
        .with("option", "--as-of")
        .remedy("write 17 digits (see `binlake timeline`), a time as 2026-11-21T14:00:00Z, or a GTID")
}

impl AsOf {
    /// The time; `None`: it is a position.
    pub(super) fn time(&self) -> Option<Timestamp> {
        match &self.moment {
            // an instant has milliseconds: a time as it was written has more
            Moment::Instant(instant) => Timestamp::parse(&self.text).or_else(|| instant.to_timestamp()),
            Moment::Position => None,
        }
    }

    /// Whether it is the very instant of a commit of the table that can still be read: then that commit is meant, whatever is known by now.
    pub(super) fn is_commit_of(&self, view: &TableView) -> bool {
        let Moment::Instant(instant) = &self.moment else { return false };
        let is_written = InstantTime::parse(&self.text).is_some();
        is_written && view.instants().iter().any(|known| known.instant == *instant) && view.slices(Some(instant)).is_ok()
    }

    /// The latest instant of the table that counts.
    pub(super) async fn resolve(&self, view: &TableView) -> Result<InstantTime> {
        match &self.moment {
            Moment::Instant(instant) => match view.instants().first() {
                Some(first) if first.instant <= *instant => Ok(instant.clone()),
                // what is cleaned away is another error: the table's own
                Some(_) if view.earliest_queryable().is_some() => Ok(instant.clone()),
                Some(first) => Err(self.before(format!("its first is {}", first.instant))),
                None => Err(self.before("it has no commit at all yet".into())),
            },
            Moment::Position => self.first_with_position(view).await,
        }
    }

    fn before(&self, remedy: String) -> Error {
        Error::config("the table had no commit then").with("as_of", &self.text).remedy(remedy)
    }

    /// Positions only grow from commit to commit, but for those behind which the table went back, so that halving finds the first that has it.
    async fn first_with_position(&self, view: &TableView) -> Result<InstantTime> {
        let instants: Vec<&CompletedInstant> = view.instants().iter().filter(|completed| !completed.is_undone).collect();
        let (mut low, mut high) = (0, instants.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.is_covered(view, instants[middle]).await? {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        match instants.get(low) {
            Some(first) => Ok(first.instant.clone()),
            None => Err(Error::config("the table doesn't have that position yet")
                .with("as_of", &self.text)
                .remedy("ask again after the next commit")),
        }
    }

    async fn is_covered(&self, view: &TableView, instant: &CompletedInstant) -> Result<bool> {
        let extra = view.commit_extra_metadata(instant).await?;
        // another writer's commit says nothing: it counts with the next of ours
        let Some(json) = extra.get(CHECKPOINT_KEY) else { return Ok(false) };
        Checkpoint::from_json(json)?.covers(&self.text).ok_or_else(|| wrong(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_times_and_positions() {
        let instant = |text: &str| match text.parse::<AsOf>().unwrap().moment {
            Moment::Instant(instant) => instant.as_str().to_owned(),
            Moment::Position => "position".to_owned(),
        };
        assert_eq!(instant("20261121141230755"), "20261121141230755");
        assert_eq!(instant("2026-11-21T14:12:30.755Z"), "20261121141230755");
        assert_eq!(instant("2026-11-21T15:12:30.755+01:00"), "20261121141230755");
        assert_eq!(instant("2026-11-21"), "20261121000000000");
        assert_eq!(instant("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"), "position");
        assert_eq!(instant("binlog.000042:1337"), "position");
        assert_eq!(instant("0-1-15"), "position");
        let error = "yesterday".parse::<AsOf>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("yesterday"), "{error}");
    }
}
