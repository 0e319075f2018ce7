//! GTIDs and their sets, for MySQL (`uuid[:tag]:number`) and MariaDB (`domain-server-sequence`).
//!
//! Sources: MySQL 8.4 reference manual, "GTID Format and Storage"; MariaDB knowledge base, "Global Transaction ID".

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// One transaction's global identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gtid {
    /// MySQL's: the originating server, an optional tag (8.3 and newer), and the transaction's number there (from 1).
    MySql {
        /// The originating server's `server_uuid`.
        uuid: Uuid,
        /// The tag, empty for none.
        tag: String,
        /// The transaction's number.
        number: u64,
    },
    /// MariaDB's.
    MariaDb {
        /// The replication domain.
        domain: u32,
        /// The originating server's `server_id`.
        server: u32,
        /// The transaction's number in its domain.
        sequence: u64,
    },
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql { uuid, tag, number } if tag.is_empty() => write!(f, "{uuid}:{number}"),
            Gtid::MySql { uuid, tag, number } => write!(f, "{uuid}:{tag}:{number}"),
            Gtid::MariaDb { domain, server, sequence } => write!(f, "{domain}-{server}-{sequence}"),
        }
    }
}

/// A set of GTIDs: MySQL's as disjoint intervals a source and tag; MariaDB's as the last sequence (with its server) a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    /// (uuid, tag) → sorted, disjoint, non-adjacent intervals, both ends inclusive.
    mysql: BTreeMap<(Uuid, String), Vec<(u64, u64)>>,
    /// domain → server → last sequence.
    mariadb: BTreeMap<u32, BTreeMap<u32, u64>>,
}
