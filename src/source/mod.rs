//! ② MySQL in: server checks, catalog and DDL, binlog, row images, snapshot.
//!
//! - [`Value`], [`BatchBuilder`], [`LaneRouter`]: rows of typed values become columns; the binlog decoder and the snapshot share them.

mod builder;
mod columns;
mod config;
mod value;

pub use builder::{BatchBuilder, LaneRouter};
pub use config::{OnGap, SourceConfig, parse_mysql_url};
pub use value::{Value, write_time};
