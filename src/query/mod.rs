//! ⑦ SQL over the lake: DataFusion over the slices of a table at one instant.
//!
//! [`Engine`] answers one statement. Each table that it names is opened once, so that a statement sees each table as of one instant
//! however long it runs; [`AsOf`] says as of when, and [`AtPosition`] puts all tables at one position of the source. Hudi's own `_hoodie_…` columns are hidden unless asked for.

mod as_of;
mod at_position;
mod by_history;
mod call;
mod engine;
mod find_table;
mod history;
mod kept;
mod lake_table;
mod output;
mod row_count;
#[cfg(test)]
mod tests;
mod views;

pub use as_of::AsOf;
pub use at_position::AtPosition;
pub use engine::{Engine, QueryOptions};
pub use find_table::find_table;
pub use kept::{known_until, left_behind_at};
pub use output::{OutputFormat, write_rows, write_rows_within};
pub use row_count::row_count;
