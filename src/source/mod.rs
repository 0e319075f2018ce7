//! ② MySQL in: server checks, catalog and DDL, binlog, row images, snapshot.
