//! TLS around the binlog connection, with the options of the source's URL.

use super::wire::Socket;
use crate::error::{Area, Error, Kind, Result};
use mysql_async::{Opts, SslOpts};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Puts TLS around `socket`.
pub(super) async fn encrypt(socket: Box<dyn Socket>, options: &Opts) -> Result<Box<dyn Socket>> {
    let ssl = options.ssl_opts().cloned().unwrap_or_default();
    let domain = ssl.tls_hostname_override().unwrap_or_else(|| options.ip_or_hostname()).to_owned();
    let config = configure(&ssl).await?;
    let name = ServerName::try_from(domain).map_err(refused)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(refused)?;
    Ok(Box::new(stream))
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Area::Source, Kind::Refused, "TLS with the source fails").caused_by(error).remedy(
        "check the server's certificate; verify_ca=false or verify_identity=false in the source's URL accept another one or another name",
    )
}

async fn configure(ssl: &SslOpts) -> Result<ClientConfig> {
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
        strict: WebPkiServerVerifier::builder(roots).build().map_err(refused)?,
    };
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(config)
}

/// The strict check, less what the URL's options leave out.
#[derive(Debug)]
struct Verifier {
    accept_any: bool,
    accept_any_name: bool,
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
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.accept_any_name => Ok(ServerCertVerified::assertion()),
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
