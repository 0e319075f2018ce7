//! ④ Rows up to a cut become what a table must hold.
//!
//! [`TablePending`] collects one table's sections lane by lane; [`Fold`] is what a commit takes from it: the last change of each
//! (partition path, key), sorted, in the lake's columns ([`LakeShape`]), read from memory and from sorted runs on local disk.
//! A table's transform runs between the fold and the table: on the last change of each key, in the lake's own order. [`HistoryInput`] folds all changes into
//! the table's history, where it has one, [`ChildInput`] brings the elements of lists into the table's children. [`Checkpoint`] is what the commit carries about the stream and the source. [`TableRules`] say which tables, and how.

mod asked_position;
mod checkpoint;
mod children;
mod fold;
mod heap;
mod history;
mod kway;
mod late;
mod letters;
mod order;
mod partition;
mod pending;
mod piece;
mod reapply;
mod rule;
mod shape;
mod spill;
mod transformed;

pub use asked_position::{AskedPosition, CommitPlace, FIRST_WINDOW_KEY};
pub use checkpoint::{
    CHECKPOINT_KEY, CHILD_KEY, Checkpoint, HISTORY_START_KEY, PARTITIONED_KEY, POSITION_KEY, Resume, SnapshotStage, TRANSFORMED_KEY,
};
pub use children::{Changes, ChildClaim, ChildInput, ChildShape};
pub use fold::Fold;
pub use history::{
    BaseRows, ENDS_KEY, Ends, HISTORY_SUFFIX, HistoryChanges, HistoryInput, HistoryRule, HistoryShape, Late, OPEN_END, OnInvalid,
    PLACE, Questions, SYSTEM_FROM, SYSTEM_TO, Unit, VALID_FROM, VALID_TO, athena_questions, erasable, history_of, is_history,
    is_own_column,
};
pub use late::{LateRows, follow_orderings, letter_cell};
pub use letters::{LetterSink, ROW_LETTERS_SUFFIX, RowLetter, row_letters_key, row_letters_spec};
pub use pending::{Committed, TablePending};
pub use reapply::ReapplyInput;
pub use rule::{PartitionBy, PartitionField, PartitionFunction, TablePattern, TableRule, TableRules, TinyInt1, Treatment};
pub use shape::{COMMIT_TS, LakeShape, POSITION};
pub use spill::SpillFolder;

#[cfg(test)]
mod tests;
