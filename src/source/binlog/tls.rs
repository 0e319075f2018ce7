//! TLS around the binlog connection, with the options of the source's URL.

use super::wire::Socket;
use crate::error::{Area, Error, Kind, Result};
use mysql_async::{Opts, SslOpts};
use std::sync::{Arc, OnceLock};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Puts TLS around `socket`.
pub(super) async fn encrypt(socket: Box<dyn Socket>, options: &Opts) -> Result<Box<dyn Socket>> {
    encrypt_and_look(socket, options).await.map(|(socket, _)| socket)
}

/// Puts TLS around `socket`; also gives a name that the server's certificate is for, if that isn't the one that was asked for.
pub(super) async fn encrypt_and_look(socket: Box<dyn Socket>, options: &Opts) -> Result<(Box<dyn Socket>, Option<String>)> {
    let ssl = options.ssl_opts().cloned().unwrap_or_default();
    let domain = ssl.tls_hostname_override().unwrap_or_else(|| options.ip_or_hostname()).to_owned();
    let other_name = Arc::new(OnceLock::new());
    let config = configure(&ssl, Arc::clone(&other_name)).await?;
    let name = ServerName::try_from(domain).map_err(refused)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(refused)?;
    Ok((Box::new(stream), other_name.get().cloned()))
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Area::Source, Kind::Refused, "TLS with the source fails").caused_by(error).remedy(crate::source::connect::TLS)
}

async fn configure(ssl: &SslOpts, other_name: Arc<OnceLock<String>>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if !ssl.disable_built_in_roots() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for file in ssl.root_certs() {
        let pem = file.read().await.map_err(refused)?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(refused)?).map_err(refused)?;
        }
    }
    let roots = Arc::new(roots);
    let mut config = ClientConfig::builder().with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
    let verifier = Verifier {
        accept_any: ssl.accept_invalid_certs(),
        accept_any_name: ssl.skip_domain_validation(),
        other_name,
        strict: WebPkiServerVerifier::builder(roots).build().map_err(refused)?,
    };
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(config)
}

/// A name as the verifier shows it, `DnsName("db.example.com")` or `IpAddress(127.0.0.1)`, as a name to ask for.
fn plain_name(shown: &str) -> Option<String> {
    let (kind, inner) = shown.strip_suffix(')')?.split_once('(')?;
    let name = match kind {
        "DnsName" => inner.trim_matches('"').replace('*', "any"),
        "IpAddress" => inner.to_owned(),
        _ => return None,
    };
    ServerName::try_from(name.as_str()).is_ok().then_some(name)
}

/// The strict check, less what the URL's options leave out.
#[derive(Debug)]
struct Verifier {
    accept_any: bool,
    accept_any_name: bool,
    /// A name that the certificate is for, where that isn't the one that was asked for.
    other_name: Arc<OnceLock<String>>,
    strict: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.accept_any {
            return Ok(ServerCertVerified::assertion());
        }
        match self.strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
                if self.accept_any_name =>
            {
                if let Some(name) = presented.iter().find_map(|name| plain_name(name)) {
                    // set once a connection
                    let _ = self.other_name.set(name);
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName)) if self.accept_any_name => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_the_verifier_shows() {
        for (shown, name) in [
            ("DnsName(\"db.example.com\")", Some("db.example.com")),
            ("DnsName(\"*.example.com\")", Some("any.example.com")),
            ("IpAddress(127.0.0.1)", Some("127.0.0.1")),
            ("DirectoryName", None),
            ("Unsupported(0x81)", None),
        ] {
            assert_eq!(plain_name(shown).as_deref(), name, "{shown}");
        }
    }
}
