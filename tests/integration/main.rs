//! The integration tests: one binary, a module a topic.

mod lake;
mod mysql;
mod service;
