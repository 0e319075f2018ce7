//! The binlog as it comes from the server: connection, packets, events.
//!
//! The connection is our own, and only as much of one as a replica needs (log in, set variables, ask for the binlog): the client library's binlog
//! stream holds a whole decompressed transaction in memory, swallows one that it can't decompress, checks no checksums and panics on a short event.
//! Everything else that talks to the server goes through `mysql_async`.

mod dump;
pub(crate) mod event;
mod file;
pub(crate) mod gtid_event;
mod login;
pub(crate) mod mariadb;
pub(crate) mod payload;
pub(crate) mod query_event;
pub(crate) mod rows_event;
pub(crate) mod table_map;
mod tls;
mod wire;

pub use dump::{BinlogConnection, DumpSettings, binlog_gap};
pub use file::BinlogFile;
pub(super) use login::{certified_name, is_error, log_in, run_statement, server_error};
pub(super) use wire::Wire;
