//! Binlake replicates MySQL tables into a data lake: continuously, exactly once, in the order in which the source committed.
//!
//! # Follow one UPDATE
//!
//! Somebody runs `UPDATE ticket_activity SET ticket_price = 500 WHERE ticketactivity_id = 46` on MySQL.
//!
//! 1. **The server** writes the row's before and after images to its binlog when the transaction commits. [`source`] holds a
//!    replication connection, and reads the transaction's GTID event, the TABLE_MAP with the columns' names and types, and the rows event.
//! 2. **Decode** ([`source`]): the row's bytes go straight into Arrow column builders, one set for each table and [`event::Lane`];
//!    the key's hash chooses the lane. The change is one row of a [`event::ChangeBatch`] from here to the file.
//! 3. **A cut** ([`pipeline`]): about once a second, at the end of a transaction, the capture loop closes all builders and puts the same
//!    [`event::Cut`] on every lane: all before it is whole.
//! 4. **The stream** ([`stream`]): chunks (zstd Arrow IPC) are appended to an [`stream::EventLog`], one in flight a lane, each with its
//!    epoch and gapless index, so that repeats, gaps and a second producer are noticed.
//! 5. **The merge** ([`merge`]): a reader collects the rows up to a cut; per table it keeps the last change of each key, sorts them, spills what
//!    exceeds its memory, and skips transactions that the table already has. Where the table has a [`transform`], its rows become what its SELECT says,
//!    joined with [`lookup`]s.
//! 6. **The table** ([`table`]): the file groups whose key range holds ticket 46 are rewritten with the changed row; then one completed instant on the
//!    Hudi timeline makes the new files, the checkpoint and the source's position visible together.
//! 7. **Publish** ([`publish`]): what readers need besides: the DuckDB views.
//! 8. **A query** ([`query`], or Athena, Spark, DuckDB, Trino) sees the ticket's new price, `_commit_ts` and `_position`.
//!
//! [`error`], [`time`], [`metrics`], [`setting`] and [`cloud`] (Amazon's clients) serve all rooms; [`config`] composes the rooms' own configuration; [`state`] keeps what may be lost;
//! [`admin`] answers over HTTP; [`cli`] holds the commands. `tests/architecture.rs` checks which room may use which.

pub mod admin;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod deliver;
pub mod error;
pub mod event;
pub mod format;
pub mod lookup;
pub mod merge;
pub mod metrics;
pub mod pipeline;
pub mod publish;
pub mod query;
pub mod setting;
pub mod source;
pub mod state;
pub mod stream;
pub mod table;
pub mod time;
pub mod transform;
