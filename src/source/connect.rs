//! Connections to the source for everything but its binlog, and the server's errors in our words.

use super::binlog::certified_name;
use super::ssl::take_ssl;
use crate::error::{Area, Error, Kind, Result};
use mysql_async::{Conn, IoError, Opts, OptsBuilder};
use std::time::Duration;
use url::Url;

/// The largest packet that the protocol has: rows with wide columns must pass.
const MAX_PACKET_BYTES: usize = 1 << 30;

/// What the operator does where TLS fails.
pub(super) const TLS: &str = "name the authority of the server's certificate by ssl-ca in [source] url; ssl-mode=verify_ca accepts it for any host, ssl-mode=required accepts any";

/// The options of a connection to `url` (`mysql://user:password@host:port?ssl-mode=…&ssl-ca=…`).
pub fn connection_options(url: &Url) -> Result<Opts> {
    let (url, ssl) = take_ssl(url).map_err(|said| Error::config(said).with("key", "source.url"))?;
    let opts = Opts::from_url(url.as_str()).map_err(|_| {
        // the library's message may repeat the URL, which holds the password
        Error::config("the source's URL can't be used").remedy("write mysql://user:password@host:3306 in [source] url")
    })?;
    let builder = OptsBuilder::from_opts(opts)
        .max_allowed_packet(Some(MAX_PACKET_BYTES))
        .prefer_socket(Some(false))
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .stmt_cache_size(Some(0));
    Ok(match ssl {
        Some(ssl) => builder.ssl_opts(ssl.load()?).into(),
        None => builder.into(),
    })
}

/// Connects, within `timeout`.
pub async fn connect(options: &Opts, timeout: Duration) -> Result<Conn> {
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let connecting = async {
        let options = named_as_certified(options, timeout).await?;
        Conn::new(options).await.map_err(|error| source_error(error, "the source can't be connected"))
    };
    let connected = tokio::time::timeout(timeout, connecting).await;
    let result = match connected {
        Ok(result) => result,
        Err(_) => Err(Error::new(Area::Source, Kind::Transient, "the source doesn't answer")
            .remedy("check that the server runs, and that the network lets this machine through")),
    };
    result.map_err(|error| error.with("server", place).with("user", options.user().unwrap_or_default()))
}

/// Where the certificate may be for any host, the library still checks the name: it is given one that the certificate has.
async fn named_as_certified(options: &Opts, timeout: Duration) -> Result<Opts> {
    let Some(ssl) = options.ssl_opts().filter(|ssl| ssl.skip_domain_validation() && !ssl.accept_invalid_certs()) else {
        return Ok(options.clone());
    };
    Ok(match certified_name(options, timeout).await? {
        Some(name) => {
            OptsBuilder::from_opts(options.clone()).ssl_opts(ssl.clone().with_danger_tls_hostname_override(Some(name))).into()
        }
        None => options.clone(),
    })
}

/// The number of a server's error, if `error` is one.
pub fn server_code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(error) => Some(error.code),
        _ => None,
    }
}

/// The server's or the client library's error as ours: `what` says what was tried.
pub fn source_error(error: mysql_async::Error, what: &'static str) -> Error {
    let (kind, remedy) = match &error {
        mysql_async::Error::Server(server) => classify(server.code),
        mysql_async::Error::Io(error) if is_tls(error) => (Kind::Refused, Some(TLS)),
        mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer) => {
            (Kind::Refused, Some("set up TLS on the server, or write ssl-mode=disabled in [source] url"))
        }
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(mysql_async::DriverError::ConnectionClosed) => {
            (Kind::Transient, Some("check that the server runs, and that host and port are right"))
        }
        mysql_async::Error::Url(_) => (Kind::Config, None),
        _ => (Kind::Refused, None),
    };
    let ours = Error::new(Area::Source, kind, what);
    let ours = match error {
        // the enclosing errors say nothing but `Input/output error`, twice
        mysql_async::Error::Io(IoError::Io(error)) => ours.caused_by(error),
        error => ours.caused_by(error),
    };
    match remedy {
        Some(remedy) => ours.remedy(remedy),
        None => ours,
    }
}

/// Whether it is about certificates, keys and ciphers rather than the network.
fn is_tls(error: &IoError) -> bool {
    match error {
        IoError::Tls(_) => true,
        IoError::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>()),
    }
}

const ER_TABLE_DEF_CHANGED: u16 = 1412;

/// What the caller and the operator do about a server's error.
fn classify(code: u16) -> (Kind, Option<&'static str>) {
    match code {
        1045 | 1698 => (Kind::Refused, Some("correct user and password in [source] url")),
        1044 | 1142 | 1143 | 1227 | 1370 => (Kind::Refused, Some("grant the user what `binlake doctor` prints")),
        // too many connections, shutdown, lock waits, deadlock, killed, lost connections, out of resources, user's limits
        1040 | 1041 | 1053 | 1080 | 1129 | 1152..=1161 | 1184 | 1203 | 1205 | 1213 | 1226 | 1317 | 1927 | 3024 | 3169 | 4031 => {
            (Kind::Transient, None)
        }
        1049 | 1051 | 1054 | 1109 | 1146 | ER_TABLE_DEF_CHANGED => {
            (Kind::Data, Some("the table was changed or dropped meanwhile: run `binlake backfill --table` for it"))
        }
        _ => (Kind::Refused, None),
    }
}

/// Whether the server says that a table isn't any more what the transaction's view of the data knows: altered, or emptied.
pub(super) fn is_redefined(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<mysql_async::Error>());
    source.and_then(server_code) == Some(ER_TABLE_DEF_CHANGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> Error {
        let error = mysql_async::ServerError { code, message: "m".into(), state: "HY000".into() };
        source_error(mysql_async::Error::Server(error), "it failed")
    }

    #[test]
    fn kinds_say_what_to_do_next() {
        assert_eq!(server(1045).kind(), Kind::Refused);
        assert!(server(1045).advice().contains("password"));
        assert!(server(1205).is_transient());
        assert_eq!(server(1146).kind(), Kind::Data);
        let io = mysql_async::Error::Io(std::io::Error::other("reset").into());
        assert!(source_error(io, "it failed").is_transient());
    }

    #[test]
    fn options_never_show_a_password() {
        let url = Url::parse("mysql://u:s3cret@h:99999x/").err();
        assert!(url.is_some(), "such a URL isn't even one");
        let url = Url::parse("mysql://u:s3cret@h/?nonsense=1").unwrap();
        let error = connection_options(&url).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
