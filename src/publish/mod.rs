//! ⑥ What readers need after a commit.
//!
//! [`Publisher`] keeps `<lake>/views.sql` for DuckDB; [`GlueCatalog`] keeps a table's entry in Glue, as [`CatalogEntry`] describes it, and
//! [`athena_statements`], [`spark_statements`] say the same as SQL. All of it is made from the table's timeline, never the truth itself: it can be lost
//! and written anew.

mod catalog_entry;
mod config;
mod ddl;
mod duckdb;
mod glue;
mod publisher;

pub use catalog_entry::{CatalogColumn, CatalogEntry, Described};
pub use config::{CatalogConfig, DatabaseName, GlueUrl};
pub use ddl::{athena_statements, spark_statements};
pub use duckdb::duckdb_statements;
pub use glue::{GlueCatalog, Registered};
pub use publisher::Publisher;
