//! The integration tests: one binary, a module a topic.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod all_types;
mod bad_input;
mod capture;
mod cli;
mod cluster;
mod crash;
mod doctor;
mod dynamodb;
mod event_log_suite;
mod fake_http;
mod formats;
mod glue;
mod going_back;
mod history;
mod kinesis;
mod lake;
mod model;
mod mysql;
mod random;
mod readers;
mod reshape;
mod rules;
mod s3;
mod s3_options;
mod service;
mod snapshot;
mod snapshot_under_ddl;
mod state_suite;
mod statements;
mod surface;
mod tls;
mod transforms;
