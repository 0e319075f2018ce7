//! History: every version of every row, in valid time (when it was true) and in system time (when the source recorded it).
//!
//! - what a change does to a key's versions: `versions`, pure; which rules a table has: [`HistoryRule`], `valid_time`;
//! - when: `source_order`, `servers`; all changes of a key in their order: `changes`;
//! - which versions there are: `join` asks the history table's own ([`HistoryShape`] says where they lie), never the current table (`known`: all of them, where rows were reset);
//! - what the history table gets: `output`, `sorter`, put together by [`HistoryInput`]; `ends`: which transactions left no row.

mod changes;
mod ends;
mod erasable;
mod fold;
mod join;
mod keys;
mod known;
mod output;
mod questions;
mod refused;
mod rule;
mod same;
mod servers;
mod shape;
mod sorter;
mod source_order;
#[cfg(test)]
mod table_tests;
mod valid_time;
mod versions;
#[cfg(test)]
mod versions_tests;

pub use ends::{ENDS_KEY, Ends};
pub(in crate::merge) use ends::{End, MOST as MOST_ENDS};
pub use erasable::erasable;
pub use fold::{BaseRows, HistoryChanges, HistoryInput};
pub(in crate::merge) use fold::{HistoryFold, Truncated};
pub use questions::{Questions, athena_questions, is_own_column};
pub use rule::{HistoryRule, OnInvalid, Unit};
pub use shape::{HISTORY_SUFFIX, HistoryShape, PLACE, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO, history_of, is_history};
pub(in crate::merge) use source_order::{Came, SourceOrder, Trace};
pub use versions::{Late, OPEN_END};
