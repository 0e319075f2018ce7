//! `[admin]`: the HTTP interface.

use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `[admin]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where it listens: `127.0.0.1:8300`, or `off`. Left out, it takes 127.0.0.1:8300 if that is free.
    pub listen: Option<Listen>,
}

/// Where it listens if the configuration doesn't say.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8300);

impl AdminConfig {
    /// The address that it listens on; `None`: nowhere.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.listen {
            Some(Listen::Off) => None,
            Some(Listen::On(address)) => Some(address),
            None => Some(DEFAULT_ADDRESS),
        }
    }
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
