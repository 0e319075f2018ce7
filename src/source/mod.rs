//! ② MySQL in: server checks, catalog and DDL, binlog, row images, snapshot.
//!
//! - [`connect`], [`connection_options`], [`ServerInfo`]: connections, the server's kind and position, and its errors in our words.
//! - [`load_catalog`]: the tables that the rules select, with their shapes and keys.
//! - [`Value`], [`BatchBuilder`], [`LaneRouter`]: rows of typed values become columns; the binlog decoder and the snapshot share them.

mod binlog;
mod builder;
mod bytes;
mod catalog;
mod catalog_type;
mod charset;
mod charset_table;
mod columns;
mod config;
mod connect;
mod decode;
mod server;
mod value;
mod value_rules;

pub use binlog::{BinlogConnection, DumpSettings};
pub use builder::{BatchBuilder, LaneRouter};
pub use catalog::{Catalog, CatalogTable, SplitColumn, Wanted, load_catalog, load_table, no_such_table};
pub use config::{OnGap, SourceConfig, parse_mysql_url};
pub use connect::{connect, connection_options, server_code, source_error};
pub use server::{Flavor, ServerInfo};
pub use value::{Value, write_time};
