//! ② MySQL in: server checks, catalog and DDL, binlog, row images, snapshot.
//!
//! - [`connect`], [`connection_options`], [`ServerInfo`]: connections, the server's kind and position, and its errors in our words.
//! - [`load_catalog`]: the tables that the rules select, with their shapes and keys.
//! - [`Snapshot`]: all rows of tables at one point, in chunks.
//! - [`check_server`], [`check_grants`], [`check_tables`]: what the source must be like, with the remedies.
//! - [`Value`], [`BatchBuilder`], [`LaneRouter`]: rows of typed values become columns; the binlog decoder and the snapshot share them.

mod binlog;
mod builder;
mod bytes;
mod cascades;
mod catalog;
mod catalog_type;
mod charset;
mod charset_differences;
mod charset_table;
mod checks;
mod checks_grants;
mod columns;
mod comments;
mod config;
mod connect;
mod ddl;
mod ddl_apply;
mod ddl_column;
mod ddl_fill;
mod decode;
mod lanes;
mod partial;
mod reader;
mod reader_tables;
#[cfg(test)]
mod recorded_tests;
mod rows;
mod server;
mod shape;
mod snapshot;
mod snapshot_point;
mod snapshot_read;
mod snapshot_session;
mod snapshot_split;
mod snapshot_value;
mod snapshot_work;
mod sql;
mod ssl;
mod statement;
mod tracked;
mod value;
mod value_rules;
mod xa;

pub use binlog::{BinlogConnection, BinlogFile, DumpSettings, binlog_gap};
pub use builder::{BatchBuilder, LaneRouter};
pub use cascades::{Cascade, read_cascades};
pub use catalog::{Catalog, CatalogTable, NO_KEY_COLUMN, SplitColumn, Wanted, load_catalog, load_table, no_such_table};
pub use checks::{Finding, Verdict, check_server, check_tables, ensure_position_is_kept, refuse_on_failure};
pub use checks_grants::{Grants, check_grants};
pub use comments::{Comments, read_comments};
pub use config::{OnGap, SourceConfig, parse_mysql_url};
pub use connect::{connect, connection_options, server_code, source_error};
pub use lanes::LaneBuffers;
pub use reader::{BinlogReader, Progress};
pub use server::{Flavor, ServerInfo};
pub use snapshot::{Snapshot, SnapshotEvent, SnapshotPlan, TablePlan};
pub use tracked::{CaptureRule, RowCounts, SelectTables, TrackedTables};
pub use value::{Value, write_time};
