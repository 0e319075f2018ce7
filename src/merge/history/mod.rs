//! History: every version of every row, in valid time (when it was true) and in system time (when the source recorded it).
//!
//! - what a change does to a key's versions: `versions`, pure; which rules a table has: [`HistoryRule`], `valid_time`;
//! - when: `source_order`; all changes of a key in their order: `changes`;
//! - which versions there are: `join` asks the history table's own ([`HistoryShape`] says where they lie), never the current table;
//! - what the history table gets: `output`, `sorter`, put together by [`HistoryInput`].

mod changes;
mod erasable;
mod fold;
mod join;
mod keys;
mod output;
mod questions;
mod refused;
mod rule;
mod same;
mod shape;
mod sorter;
mod source_order;
#[cfg(test)]
mod table_tests;
mod valid_time;
mod versions;
#[cfg(test)]
mod versions_tests;

pub use erasable::erasable;
pub use fold::{BaseRows, HistoryChanges, HistoryInput};
pub(in crate::merge) use fold::{HistoryFold, Truncated};
pub use questions::{Questions, athena_questions, is_own_column};
pub use rule::{HistoryRule, OnInvalid, Unit};
pub use shape::{HISTORY_SUFFIX, HistoryShape, PLACE, SYSTEM_FROM, SYSTEM_TO, VALID_FROM, VALID_TO, history_of, is_history};
pub(in crate::merge) use source_order::{SourceOrder, Trace};
pub use versions::{Late, OPEN_END};
