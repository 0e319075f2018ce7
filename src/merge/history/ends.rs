//! Which transactions did what a history has at some times: those that may have left nothing but ends.
//!
//! A version says which transaction brought it. That one has ended another, by a DELETE, no row says; so the commit does, for as long as it is retained: where
//! transactions are many, it leaves it out.

use super::fold::HistoryFold;
use super::servers::Servers;
use super::source_order::{Came, SystemTimes};
use crate::error::{Area, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key in a history's `extraMetadata` of the positions of transactions that may have left nothing but ends.
pub const ENDS_KEY: &str = "binlake.ends";
const VERSION: u32 = 1;
/// Most that a commit names.
pub(in crate::merge) const MOST: usize = 500;

/// The positions of transactions by their system time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    version: u32,
    /// System time in microseconds, position as text.
    ends: Vec<(i64, String)>,
}

/// A transaction that may have left nothing but ends.
pub(in crate::merge) type End = (Came, String);

impl Ends {
    /// Of all changes of a commit; `None`: there are none, or too many. `any`: not only a DELETE may be one.
    pub(super) fn of(all: &HistoryFold, any: bool, servers: &Servers, times: &SystemTimes) -> Option<Self> {
        let mut ends = BTreeMap::new();
        let mut note = |(came, position): End| {
            ends.insert(times.of(servers.order(came.epoch, came.order)), position);
            ends.len() <= MOST
        };
        for piece in &all.pieces {
            if !piece.ends(any).all(&mut note) {
                return None;
            }
        }
        for run in &all.runs {
            let of_run = run.ends.as_ref().filter(|_| !any || run.transactions.is_empty())?;
            if !of_run.iter().cloned().all(&mut note) {
                return None;
            }
        }
        for truncated in &all.truncations {
            note((truncated.came, truncated.position.clone()));
        }
        let ends: Vec<(i64, String)> = ends.into_iter().collect();
        (!ends.is_empty()).then_some(Self { version: VERSION, ends })
    }

    /// The positions by their system times in microseconds.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &str)> {
        self.ends.iter().map(|(time, position)| (*time, position.as_str()))
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("a commit's ends can't be written").caused_by(error))
    }

    /// From JSON; `None`: of a version that isn't known.
    ///
    /// # Errors
    /// `Corrupt` for what is none.
    pub fn from_json(text: &str) -> Result<Option<Self>> {
        let read: Self = serde_json::from_str(text).map_err(|error| {
            Error::new(Area::Lake, Kind::Corrupt, "what a history's commit says of ends can't be read").caused_by(error)
        })?;
        Ok((read.version == VERSION).then_some(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_version_1_is_read_and_written_alike() {
        let sample = include_str!("../../../tests/data/state/history-ends-v1.json").trim();
        let ends = Ends::from_json(sample).unwrap().unwrap();
        assert_eq!(ends.iter().next(), Some((1_790_000_000_123_456, "3e11fa47-71ca-11e1-9e33-c80aa9429562:78")));
        assert_eq!(ends.to_json().unwrap(), sample);
        assert_eq!(Ends::from_json(r#"{"version":2,"ends":[]}"#).unwrap(), None);
        assert_eq!(Ends::from_json("{}").unwrap_err().kind(), Kind::Corrupt);
    }
}
