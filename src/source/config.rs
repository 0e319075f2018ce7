//! `[source]`: the MySQL server.

use super::ssl::{resolve_ca, take_ssl};
use crate::setting::{SecretUrl, duration};
use serde::{Deserialize, Deserializer};
use std::path::Path;
use std::time::Duration;
use url::Url;

/// `[source]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `mysql://user:password@host:port`, and after it, where TLS is wanted, `?ssl-mode=verify_identity&ssl-ca=ca.pem`.
    #[serde(deserialize_with = "mysql_url")]
    pub url: SecretUrl,
    /// The `server_id` under which the capture registers as a replica; unique among the server's replicas. Default: made from the process.
    #[serde(default)]
    pub server_id: Option<u32>,
    /// Connections that a snapshot reads with at once.
    #[serde(default = "default_snapshot_connections")]
    pub snapshot_connections: usize,
    /// Rows of a table that a snapshot reads in one range of keys; after a crash it goes on with the next range.
    #[serde(default = "default_snapshot_chunk_rows")]
    pub snapshot_chunk_rows: u64,
    /// How long to wait for the server to accept a connection.
    #[serde(default = "default_connect_timeout", deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it counts as dead. Heartbeats come more often than this.
    #[serde(default = "default_read_timeout", deserialize_with = "duration")]
    pub read_timeout: Duration,
    /// How often the server sends a heartbeat while nothing happens.
    #[serde(default = "default_heartbeat_interval", deserialize_with = "duration")]
    pub heartbeat_interval: Duration,
    /// What to do when the server no longer has the binlog from where the capture must go on.
    #[serde(default)]
    pub on_gap: OnGap,
}

/// What to do when the binlog from where the capture must go on is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Stop with an error that names the gap.
    #[default]
    Stop,
    /// Take a new snapshot of every table.
    Resnapshot,
}

impl SourceConfig {
    /// For pipelines without a source: names no server.
    ///
    /// # Errors
    /// `Bug` if the defaults don't fit together.
    pub fn none() -> crate::error::Result<Self> {
        let text = "url = \"mysql://nobody@localhost\"";
        toml::from_str(text).map_err(|error| crate::error::Error::bug("the source's defaults can't be read").caused_by(error))
    }
}

fn default_snapshot_connections() -> usize {
    4
}

fn default_snapshot_chunk_rows() -> u64 {
    100_000
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_read_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_heartbeat_interval() -> Duration {
    Duration::from_secs(1)
}

fn mysql_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretUrl, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_mysql_url(&text).map_err(serde::de::Error::custom)
}

/// Reads a source's URL. The message of an error doesn't repeat the text: it may hold a password.
pub fn parse_mysql_url(text: &str) -> Result<SecretUrl, String> {
    const FORM: &str = "write mysql://user:password@host:3306";
    let url = Url::parse(text).map_err(|error| format!("the URL can't be read ({error}); {FORM}"))?;
    if url.scheme() != "mysql" {
        return Err(format!("`{}:` is not a source; {FORM} (MariaDB as well)", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("the URL names no host; {FORM}"));
    }
    if url.username().is_empty() {
        return Err(format!("the URL names no user; {FORM}"));
    }
    take_ssl(&url)?;
    Ok(SecretUrl::new(url))
}

impl SourceConfig {
    /// Makes paths start at the configuration's folder.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let mut url = self.url.expose().clone();
        resolve_ca(&mut url, folder);
        self.url = SecretUrl::new(url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert!(parse_mysql_url("mysql://repl@127.0.0.1").is_ok());
        assert!(parse_mysql_url("mysql://repl:a%40b@[::1]:3306/shop").is_ok());
        for wrong in ["", "127.0.0.1:3306", "postgres://u@h", "mysql://127.0.0.1", "mysql:///x", "mysql://u@h?ssl-mode=maybe"] {
            assert!(parse_mysql_url(wrong).is_err(), "{wrong}");
        }
    }
}
