//! GTIDs and their sets, for MySQL (`uuid[:tag]:number`), MariaDB (`domain-server-sequence`), and records of others' streams (`shard#number`).
//!
//! Sources: MySQL 8.4 reference manual, "GTID Format and Storage"; MariaDB knowledge base, "Global Transaction ID".

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
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
    /// A record of a stream that another system writes: each is a transaction of its own, and the shards are read independently.
    Record {
        /// The shard, or the file.
        shard: Arc<str>,
        /// The record's number there, from 1, counted from where it was first read.
        number: u64,
    },
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql { uuid, tag, number } if tag.is_empty() => write!(f, "{uuid}:{number}"),
            Gtid::MySql { uuid, tag, number } => write!(f, "{uuid}:{tag}:{number}"),
            Gtid::MariaDb { domain, server, sequence } => write!(f, "{domain}-{server}-{sequence}"),
            Gtid::Record { shard, number } => write!(f, "{}#{number}", escaped(shard)),
        }
    }
}

/// A shard's name without what separates GTIDs and their parts.
fn escaped(shard: &str) -> String {
    let mut text = String::with_capacity(shard.len());
    for c in shard.chars() {
        match c {
            '%' => text.push_str("%25"),
            '#' => text.push_str("%23"),
            ',' => text.push_str("%2c"),
            c => text.push(c),
        }
    }
    text
}

fn unescaped(text: &str) -> Arc<str> {
    text.replace("%2c", ",").replace("%23", "#").replace("%25", "%").into()
}

/// A set of GTIDs: MySQL's as disjoint intervals a source and tag; MariaDB's as the last sequence of each server in each domain.
///
/// MariaDB counts a domain's sequence upwards across servers, so "the last one is n" stands for all up to n; a server that isn't named is judged by
/// the domain's highest sequence. The text form is the server's own (`gtid_executed`, `gtid_binlog_state`) on one line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    /// (uuid, tag) → sorted, disjoint, non-adjacent intervals, both ends inclusive.
    mysql: BTreeMap<(Uuid, String), Vec<(u64, u64)>>,
    /// domain → server → last sequence.
    mariadb: BTreeMap<u32, BTreeMap<u32, u64>>,
    /// shard → the number of the last record: all up to it are in the set.
    records: BTreeMap<Arc<str>, u64>,
}

impl GtidSet {
    /// Whether no transaction is in the set.
    pub fn is_empty(&self) -> bool {
        self.mysql.is_empty() && self.mariadb.is_empty() && self.records.is_empty()
    }

    /// Whether `gtid` is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match gtid {
            Gtid::MySql { uuid, tag, number } => {
                let Some(intervals) = self.mysql.get(&(*uuid, tag.clone())) else { return false };
                let after = intervals.partition_point(|(first, _)| first <= number);
                after > 0 && intervals.get(after - 1).is_some_and(|(_, last)| number <= last)
            }
            Gtid::MariaDb { domain, server, sequence } => self.mariadb_covers(*domain, *server, *sequence),
            Gtid::Record { shard, number } => self.records.get(shard).is_some_and(|last| number <= last),
        }
    }

    fn mariadb_covers(&self, domain: u32, server: u32, sequence: u64) -> bool {
        let Some(servers) = self.mariadb.get(&domain) else { return false };
        match servers.get(&server) {
            Some(last) => sequence <= *last,
            None => servers.values().max().is_some_and(|last| sequence <= *last),
        }
    }

    /// Adds one transaction.
    pub fn add(&mut self, gtid: &Gtid) {
        match gtid {
            Gtid::MySql { uuid, tag, number } => {
                let intervals = self.mysql.entry((*uuid, tag.clone())).or_default();
                match intervals.last_mut() {
                    Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
                    _ => add_interval(intervals, *number, *number),
                }
            }
            Gtid::MariaDb { domain, server, sequence } => {
                let last = self.mariadb.entry(*domain).or_default().entry(*server).or_default();
                *last = (*last).max(*sequence);
            }
            Gtid::Record { shard, number } => {
                let last = self.records.entry(Arc::clone(shard)).or_default();
                *last = (*last).max(*number);
            }
        }
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &GtidSet) {
        for (source, intervals) in &other.mysql {
            let ours = self.mysql.entry(source.clone()).or_default();
            intervals.iter().for_each(|(first, last)| add_interval(ours, *first, *last));
        }
        for (domain, servers) in &other.mariadb {
            let ours = self.mariadb.entry(*domain).or_default();
            for (server, sequence) in servers {
                let last = ours.entry(*server).or_default();
                *last = (*last).max(*sequence);
            }
        }
        for (shard, number) in &other.records {
            let last = self.records.entry(Arc::clone(shard)).or_default();
            *last = (*last).max(*number);
        }
    }

    /// What is in this set and not in `other`. (Of MariaDB's: the servers' last sequences that `other` doesn't cover.)
    #[must_use]
    pub fn subtract(&self, other: &GtidSet) -> GtidSet {
        let mut rest = GtidSet::default();
        for (source, intervals) in &self.mysql {
            let left = match other.mysql.get(source) {
                Some(taken) => subtract_intervals(intervals, taken),
                None => intervals.clone(),
            };
            if !left.is_empty() {
                rest.mysql.insert(source.clone(), left);
            }
        }
        for (domain, servers) in &self.mariadb {
            for (server, sequence) in servers {
                if !other.mariadb_covers(*domain, *server, *sequence) {
                    rest.mariadb.entry(*domain).or_default().insert(*server, *sequence);
                }
            }
        }
        let ahead = self.records.iter().filter(|(shard, number)| other.records.get(*shard).is_none_or(|last| last < *number));
        rest.records = ahead.map(|(shard, number)| (Arc::clone(shard), *number)).collect();
        rest
    }

    /// The part of the sources (servers with their tags, domains, shards) that `other` names.
    #[must_use]
    pub fn of_sources(&self, other: &GtidSet) -> GtidSet {
        let mut part = self.clone();
        part.mysql.retain(|source, _| other.mysql.contains_key(source));
        part.mariadb.retain(|domain, _| other.mariadb.contains_key(domain));
        part.records.retain(|shard, _| other.records.contains_key(shard));
        part
    }

    /// Whether a set of one kind (MySQL's, MariaDB's, a stream's of records) can have transactions of the other's.
    pub fn is_like(&self, other: &GtidSet) -> bool {
        let is_both = |is_empty: fn(&GtidSet) -> bool| !is_empty(self) && !is_empty(other);
        let is_any_empty = self.is_empty() || other.is_empty();
        is_any_empty
            || is_both(|set| set.mysql.is_empty())
            || is_both(|set| set.mariadb.is_empty())
            || is_both(|set| set.records.is_empty())
    }

    /// Whether all of this set is in `other`.
    pub fn is_subset(&self, other: &GtidSet) -> bool {
        self.subtract(other).is_empty()
    }

    /// MySQL's sources: uuid, tag, and intervals with both ends inclusive.
    pub fn mysql_sources(&self) -> impl Iterator<Item = (Uuid, &str, &[(u64, u64)])> {
        self.mysql.iter().map(|((uuid, tag), intervals)| (*uuid, tag.as_str(), intervals.as_slice()))
    }

    /// MariaDB's last transaction of each domain, as `slave_connect_state` wants it.
    pub fn mariadb_position(&self) -> Vec<Gtid> {
        let last = |servers: &BTreeMap<u32, u64>| servers.iter().map(|(server, sequence)| (*sequence, *server)).max();
        self.mariadb
            .iter()
            .filter_map(|(domain, servers)| {
                last(servers).map(|(sequence, server)| Gtid::MariaDb { domain: *domain, server, sequence })
            })
            .collect()
    }

    /// Removes empty sources, so that equal sets compare equal.
    fn normalized(mut self) -> Self {
        self.mysql.retain(|_, intervals| !intervals.is_empty());
        self.mariadb.retain(|_, servers| !servers.is_empty());
        self
    }
}

/// Adds `first..=last` to sorted, disjoint, non-adjacent intervals.
fn add_interval(intervals: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    let from = intervals.partition_point(|(_, end)| end.saturating_add(1) < first);
    let to = intervals.partition_point(|(start, _)| *start <= last.saturating_add(1));
    let (mut low, mut high) = (first, last);
    for (start, end) in intervals.get(from..to).unwrap_or_default() {
        low = low.min(*start);
        high = high.max(*end);
    }
    intervals.splice(from..to.max(from), [(low, high)]);
}

fn subtract_intervals(intervals: &[(u64, u64)], taken: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    for &(mut first, last) in intervals {
        let mut whole = true;
        for &(start, end) in taken {
            if end < first || start > last {
                continue;
            }
            if start > first {
                left.push((first, start - 1));
            }
            whole = end < last;
            first = end.saturating_add(1);
        }
        if whole {
            left.push((first, last));
        }
    }
    left
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Uuid> = None;
        for ((uuid, tag), intervals) in &self.mysql {
            if before != Some(uuid) {
                write!(f, "{}{uuid}", if before.is_some() { "," } else { "" })?;
            }
            before = Some(uuid);
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (first, last) in intervals {
                if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
            }
        }
        let mut separator = if before.is_some() { "," } else { "" };
        for (domain, servers) in &self.mariadb {
            for (server, sequence) in servers {
                write!(f, "{separator}{domain}-{server}-{sequence}")?;
                separator = ",";
            }
        }
        for (shard, number) in &self.records {
            write!(f, "{separator}{}#{number}", escaped(shard))?;
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = String;

    /// Reads MySQL's `uuid[:tag]:n[-m]…,…` and MariaDB's `domain-server-sequence,…`, with white space as the servers print it.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = GtidSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part.contains(':') && !part.contains('#') {
                set.parse_mysql(part)?;
            } else {
                set.add(&part.parse::<Gtid>()?);
            }
        }
        Ok(set.normalized())
    }
}

impl GtidSet {
    fn parse_mysql(&mut self, part: &str) -> Result<(), String> {
        let wrong = || format!("`{part}` is not a GTID set");
        let mut fields = part.split(':').map(str::trim);
        let uuid = Uuid::parse_str(fields.next().ok_or_else(wrong)?).map_err(|_| wrong())?;
        let mut tag = String::new();
        for field in fields {
            if field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                tag = field.to_ascii_lowercase();
                continue;
            }
            let (first, last) = field.split_once('-').unwrap_or((field, field));
            let first: u64 = first.trim().parse().map_err(|_| wrong())?;
            let last: u64 = last.trim().parse().map_err(|_| wrong())?;
            if first == 0 {
                return Err(wrong());
            }
            if first <= last {
                add_interval(self.mysql.entry((uuid, tag.clone())).or_default(), first, last);
            }
        }
        Ok(())
    }
}

impl FromStr for Gtid {
    type Err = String;

    /// Reads `uuid[:tag]:number` or `domain-server-sequence`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a GTID");
        let text = text.trim();
        if let Some((shard, number)) = text.rsplit_once('#') {
            let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
            return Ok(Gtid::Record { shard: unescaped(shard), number });
        }
        if let Some((uuid, rest)) = text.split_once(':') {
            let uuid = Uuid::parse_str(uuid.trim()).map_err(|_| wrong())?;
            let (tag, number) = rest.rsplit_once(':').unwrap_or(("", rest));
            let number = number.trim().parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
            return Ok(Gtid::MySql { uuid, tag: tag.trim().to_ascii_lowercase(), number });
        }
        let mut fields = text.split('-');
        let (Some(domain), Some(server), Some(sequence), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(wrong());
        };
        Ok(Gtid::MariaDb {
            domain: domain.parse().map_err(|_| wrong())?,
            server: server.parse().map_err(|_| wrong())?,
            sequence: sequence.parse().map_err(|_| wrong())?,
        })
    }
}

impl TryFrom<String> for GtidSet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<GtidSet> for String {
    fn from(set: GtidSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
#[path = "gtid_tests.rs"]
mod tests;
