//! Who writes: the identity that a writer leaves in the fence log, so that two of them can be told apart and named to the operator.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// One writing session of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WriterIdentity {
    /// Unique to the session.
    pub(super) id: Uuid,
    /// What it calls itself, as `binlake run`.
    pub(super) name: String,
    /// Its process.
    pub(super) pid: u32,
    /// Its machine's name.
    pub(super) host: String,
    /// Since when.
    pub(super) since: Timestamp,
    /// What tells the process from a later one of the same number on the same machine; empty where the system doesn't say.
    #[serde(default)]
    pub(super) process: String,
}

impl WriterIdentity {
    /// This process, as a new session.
    pub(super) fn new(name: &str) -> Self {
        let pid = std::process::id();
        let process = process_mark(pid).unwrap_or_default();
        Self { id: Uuid::new_v4(), name: name.to_owned(), pid, host: host_name(), since: Timestamp::now(), process }
    }

    /// Nobody that is known.
    pub(super) fn unknown() -> Self {
        let name = || "unknown".to_owned();
        Self { id: Uuid::nil(), name: name(), pid: 0, host: name(), since: Timestamp::default(), process: String::new() }
    }

    /// Whether this is a session of another process of this machine that still runs. Of other machines nothing is known: false.
    pub(super) fn is_alive_beside_us(&self) -> bool {
        self.pid != std::process::id()
            && self.host == host_name()
            && !self.process.is_empty()
            && process_mark(self.pid).is_some_and(|mark| mark == self.process)
    }
}

impl fmt::Display for WriterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {} on {} since {})", self.name, self.pid, self.host, self.since)
    }
}

fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// The boot and the moment in it at which a running process started (Linux: `/proc/<pid>/stat`, fields 3 and 22).
/// `None` for a process that has ended, also where its parent hasn't noticed yet.
fn process_mark(pid: u32) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the command's name, in parentheses, may hold anything
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?;
    (!matches!(state, "Z" | "X" | "x")).then(|| format!("{}/{started}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_no_other_writer() {
        let us = WriterIdentity::new("binlake run");
        assert!(!us.is_alive_beside_us());
        let stored: WriterIdentity = serde_json::from_str(&serde_json::to_string(&us).unwrap()).unwrap();
        assert_eq!(stored, us);
        assert!(us.to_string().starts_with("binlake run (pid "), "{us}");
    }

    #[test]
    fn a_process_that_ended_is_no_writer() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other =
            WriterIdentity { pid: child.id(), process: process_mark(child.id()).unwrap_or_default(), ..WriterIdentity::new("x") };
        // without /proc nothing is known of other processes
        assert_eq!(other.is_alive_beside_us(), !other.process.is_empty());
        let elsewhere = WriterIdentity { host: "another".to_owned(), ..other.clone() };
        assert!(!elsewhere.is_alive_beside_us());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!other.is_alive_beside_us());
    }
}
