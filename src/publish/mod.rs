//! ⑥ What readers need after a commit.
//!
//! Today the DuckDB views ([`Publisher`] keeps `<lake>/views.sql`); a Glue catalog entry will have its file beside `duckdb`, fed by the same
//! [`Publisher::table`] calls. All of it is made from the table's timeline, never the truth itself: it can be lost and written anew.

mod duckdb;
mod publisher;

pub use duckdb::view_statement;
pub use publisher::Publisher;
