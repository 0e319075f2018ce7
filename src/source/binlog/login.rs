//! Logging in: the handshake, and statements that answer OK.

use super::wire::{Socket, Wire, lost};
use crate::error::{Area, Error, Kind, Result};
use bytes::Bytes;
use mysql_async::Opts;
use mysql_async::consts::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

const MAX_PACKET_BYTES: u32 = 1 << 30;
const UTF8MB4_GENERAL_CI: u8 = 45;
const COM_QUERY: u8 = 3;
const REFUSES: &str = "the source refuses the connection";

/// Connects and logs in.
pub(in crate::source) async fn log_in(options: &Opts, connect_timeout: Duration, read_timeout: Duration) -> Result<Wire> {
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let session = async {
        let (socket, is_local) = open(options).await.map_err(lost)?;
        Login { options, is_private: is_local, nonce: Vec::new() }.run(Wire::new(socket, read_timeout)).await
    };
    match tokio::time::timeout(connect_timeout, session).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Area::Source, Kind::Transient, "the source doesn't answer")
            .remedy("check that the server runs, and that the network lets this machine through")),
    }
    .map_err(|error| error.with("server", place).with("user", options.user().unwrap_or_default()))
}

/// A name that the server's certificate is for, if it isn't for the host that is asked for; the certificate's authority is checked.
pub(in crate::source) async fn certified_name(options: &Opts, connect_timeout: Duration) -> Result<Option<String>> {
    let (socket, _) = open(options).await.map_err(lost)?;
    let mut wire = Wire::new(socket, connect_timeout);
    let packet = wire.packet().await?;
    if is_error(&packet) {
        return Err(server_error(&packet, REFUSES));
    }
    let greeting: HandshakePacket<'_> = ParseBuf(&packet).parse(()).map_err(not_mysql)?;
    request_tls(&mut wire, greeting.capabilities() & (CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_SSL)).await?;
    super::tls::encrypt_and_look(wire.into_socket(), options).await.map(|(_, name)| name)
}

/// Says that TLS follows.
async fn request_tls(wire: &mut Wire, capabilities: CapabilityFlags) -> Result<()> {
    if !capabilities.contains(CapabilityFlags::CLIENT_SSL) {
        return Err(Error::new(Area::Source, Kind::Refused, "the server has no TLS, and the source's URL demands it")
            .remedy("set up TLS on the server, or write ssl-mode=disabled in [source] url"));
    }
    send_struct(wire, &SslRequest::new(capabilities, MAX_PACKET_BYTES, UTF8MB4_GENERAL_CI)).await
}

async fn open(options: &Opts) -> io::Result<(Box<dyn Socket>, bool)> {
    if let Some(path) = options.socket() {
        return Ok((Box::new(UnixStream::connect(path).await?), true));
    }
    let stream = TcpStream::connect((options.ip_or_hostname(), options.tcp_port())).await?;
    stream.set_nodelay(true)?;
    Ok((Box::new(stream), false))
}

/// A server's error as ours.
pub(in crate::source) fn server_error(packet: &[u8], what: &'static str) -> Error {
    let code = packet.get(1..3).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
    let text = packet.get(3..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    let message = mysql_async::ServerError { code, message: String::from_utf8_lossy(text).into_owned(), state: String::new() };
    crate::source::source_error(mysql_async::Error::Server(message), what)
}

/// Whether a packet is the server's error.
pub(in crate::source) fn is_error(packet: &[u8]) -> bool {
    packet.first() == Some(&0xff)
}

struct Login<'a> {
    options: &'a Opts,
    /// Whether nobody can listen: a local socket, or TLS.
    is_private: bool,
    nonce: Vec<u8>,
}

impl Login<'_> {
    async fn run(&mut self, mut wire: Wire) -> Result<Wire> {
        let packet = wire.packet().await?;
        if is_error(&packet) {
            return Err(server_error(&packet, REFUSES));
        }
        let greeting: HandshakePacket<'_> = ParseBuf(&packet).parse(()).map_err(not_mysql)?;
        self.nonce = greeting.nonce();
        self.nonce.resize(20, 0);
        let mut wanted = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_PLUGIN_AUTH;
        if self.options.ssl_opts().is_some() {
            wanted |= CapabilityFlags::CLIENT_SSL;
        }
        let capabilities = wanted & greeting.capabilities();
        if wanted.contains(CapabilityFlags::CLIENT_SSL) {
            request_tls(&mut wire, capabilities).await?;
            let (sequence, timeout) = (wire.sequence(), wire.read_timeout());
            let socket = super::tls::encrypt(wire.into_socket(), self.options).await?;
            wire = Wire::new(socket, timeout).with_sequence(sequence);
            self.is_private = true;
        }
        let mut plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let proof = self.proof(&plugin)?;
        let response = HandshakeResponse::new(
            Some(proof),
            (8, 0, 0),
            self.options.user().map(str::as_bytes),
            None::<&[u8]>,
            Some(plugin.clone()),
            capabilities,
            None,
            MAX_PACKET_BYTES,
        );
        send_struct(&mut wire, &response).await?;
        loop {
            let packet = wire.packet().await?;
            match packet.first() {
                Some(0x00) => return Ok(wire),
                Some(0xff) => return Err(server_error(&packet, REFUSES)),
                Some(0xfe) if packet.len() > 1 => {
                    let switch: AuthSwitchRequest<'_> = ParseBuf(&packet).parse(()).map_err(not_mysql)?;
                    self.nonce = switch.plugin_data().to_vec();
                    plugin = switch.auth_plugin().into_owned();
                    let proof = self.proof(&plugin)?;
                    wire.send(&proof).await?;
                }
                Some(0x01) => self.continue_sha2(&mut wire, &packet).await?,
                _ => return Err(not_mysql(io::Error::other("an unknown answer to the login"))),
            }
        }
    }

    fn proof(&self, plugin: &AuthPlugin<'_>) -> Result<Vec<u8>> {
        let refused = |what: &'static str| {
            Error::new(Area::Source, Kind::Refused, what)
                .remedy("create the user with caching_sha2_password or mysql_native_password")
        };
        match plugin {
            AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword => {}
            AuthPlugin::MysqlClearPassword if self.is_private && self.options.enable_cleartext_plugin() => {}
            AuthPlugin::MysqlClearPassword => {
                return Err(refused("the server asks for the password in clear text")
                    .remedy("use TLS (ssl-mode=verify_identity) and enable_cleartext_plugin=true in the source's URL"));
            }
            _ => return Err(refused("the user's way of authentication isn't supported")),
        }
        let proof = plugin.gen_data(self.options.pass(), &self.nonce);
        let mut bytes = Vec::new();
        if let Some(proof) = proof {
            proof.serialize(&mut bytes);
        }
        Ok(bytes)
    }

    /// `caching_sha2_password`: done, or the server wants the password itself (over a private channel, or encrypted with its key).
    async fn continue_sha2(&self, wire: &mut Wire, packet: &[u8]) -> Result<()> {
        if packet.get(1) != Some(&4) {
            return Ok(());
        }
        let mut password = self.options.pass().unwrap_or_default().as_bytes().to_vec();
        password.push(0);
        if self.is_private {
            return wire.send(&password).await;
        }
        wire.send(&[2]).await?;
        let key = wire.packet().await?;
        let key = key.get(1..).filter(|key| key.starts_with(b"-----BEGIN PUBLIC KEY")).ok_or_else(|| {
            Error::new(Area::Source, Kind::Refused, "the server sends no key to encrypt the password with")
                .remedy("use TLS: add ?ssl-mode=required to the source's URL")
        })?;
        let nonce = self.nonce.iter().cycle();
        password.iter_mut().zip(nonce).for_each(|(byte, salt)| *byte ^= salt);
        wire.send(&mysql_common::crypto::encrypt(&password, key)).await
    }
}

fn not_mysql(error: io::Error) -> Error {
    Error::new(Area::Source, Kind::Refused, "what answers is not a MySQL server").caused_by(error)
}

async fn send_struct(wire: &mut Wire, packet: &impl MySerialize) -> Result<()> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    wire.send(&bytes).await
}

/// Sends a command that the server answers with OK.
pub(in crate::source) async fn execute(wire: &mut Wire, payload: &[u8], what: &'static str) -> Result<Bytes> {
    wire.command(payload).await?;
    let packet = wire.packet().await?;
    if is_error(&packet) { Err(server_error(&packet, what)) } else { Ok(packet) }
}

/// Runs a statement that has no result rows.
pub(in crate::source) async fn run_statement(wire: &mut Wire, sql: &str) -> Result<()> {
    let payload = [&[COM_QUERY], sql.as_bytes()].concat();
    execute(wire, &payload, "the source refuses a setting of the session").await.map_err(|error| error.with("statement", sql))?;
    Ok(())
}
