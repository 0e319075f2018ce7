//! ④ A row as the table's SQL wants it: one `SELECT` a table, run on each micro-batch of after images.
//!
//! `transform = "SELECT t.*, upper(t.name) AS shout FROM input t LEFT JOIN country c ON t.location = c.countryname WHERE t.price > 0"`
//!
//! [`Transform`] is the statement as the configuration has it, checked as far as it can be without a table: it must be *row-wise*, so that a row's
//! result depends on the row and on the lookups alone, whatever batch it comes in, and *repeatable*, so that a replay gives the same rows.
//! [`BoundTransform`] is the same for one shape of a table: names resolved, types known, expressions compiled; made once a shape, not once a batch.
//!
//! DataFusion plans, coerces and evaluates; the joins are ours: a left join with a lookup whose join key is unique is one look into a hash map a row, it keeps the
//! rows' order (a plan of the engine's wouldn't), and it never multiplies rows.
//!
//! **Why no row is lost or stays by mistake.** The key's columns pass unchanged, so a delete needs no evaluation: it passes by its key. A row that
//! `WHERE` drops becomes a delete of its key, because an earlier version of it may be in the table. A row whose expression fails is never passed over: its table stops,
//! or ([`OnError`]) it is a [`Failure`], which becomes a dead letter, and its key is deleted like that of a row which `WHERE` drops.

mod bind;
mod calendar;
mod engine;
mod fault;
mod function;
mod join;
mod lake_type;
mod of_row;
mod outputs;
mod reapply;
mod rows;
mod spelling;
mod statement;
mod times;

#[cfg(test)]
mod tests;

pub use bind::{BoundTransform, OutputColumn};
pub use calendar::calendar_functions;
pub use join::ROWS_WAIT;
pub use reapply::Reapplied;
pub use rows::{Failure, Frozen, Transformed};
pub(crate) use spelling::Spelling;
pub use statement::{OnError, Transform};
pub(crate) use times::in_microseconds;
