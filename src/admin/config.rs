//! `[admin]`: the HTTP interface.

use serde::Deserialize;
use std::net::SocketAddr;

/// `[admin]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where it listens: `127.0.0.1:8300`, or `off`. Left out, it takes 127.0.0.1:8300 if that is free.
    pub listen: Option<Listen>,
}

/// Where the HTTP interface listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On this address.
    On(SocketAddr),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        let text = text.replace("localhost:", "127.0.0.1:");
        text.parse().map(Listen::On).map_err(|_| format!("`{text}` is not an address; write 127.0.0.1:8300 or off"))
    }
}
