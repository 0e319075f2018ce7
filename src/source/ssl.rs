//! TLS as the source's URL asks for it, in MySQL's own words: `?ssl-mode=verify_identity&ssl-ca=/etc/mysql/ca.pem`.

use crate::error::{Error, Result};
use mysql_async::SslOpts;
use std::path::{Path, PathBuf};
use url::Url;

const MODE: &str = "ssl-mode";
const CA: &str = "ssl-ca";

/// How the connections to the source are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Disabled,
    /// Encrypted, whoever answers.
    Required,
    /// With a certificate that a trusted authority signed.
    VerifyCa,
    /// With such a certificate for the host that the URL names.
    VerifyIdentity,
}

/// What a URL says of TLS in these words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ssl {
    /// `None`: not encrypted.
    pub(super) options: Option<SslOpts>,
    /// The file of the authority that is trusted, and no other; `None`: the well-known ones.
    pub(super) authority: Option<PathBuf>,
}

/// Takes `ssl-mode` and `ssl-ca` out of a URL. `None`: it has neither.
pub(super) fn take_ssl(url: &Url) -> Result<(Url, Option<Ssl>), String> {
    let (mut mode, mut authority) = (None, None);
    let mut rest = Vec::new();
    for (key, value) in url.query_pairs() {
        match &*key {
            MODE => mode = Some(mode_of(&value)?),
            CA => authority = Some(PathBuf::from(&*value)),
            _ => rest.push((key.into_owned(), value.into_owned())),
        }
    }
    let mut bare = url.clone();
    bare.set_query(None);
    if !rest.is_empty() {
        bare.query_pairs_mut().extend_pairs(rest);
    }
    let options = match (mode, authority) {
        (None, None) => return Ok((bare, None)),
        (Some(Mode::Disabled), None) => None,
        (Some(Mode::Required), None) => {
            Some(SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true))
        }
        (Some(mode @ (Mode::VerifyCa | Mode::VerifyIdentity)), authority) => {
            let options = SslOpts::default().with_danger_skip_domain_validation(mode == Mode::VerifyCa);
            return Ok((bare, Some(Ssl { options: Some(options), authority })));
        }
        (_, Some(_)) => return Err(format!("`{CA}` is for {MODE}=verify_ca and {MODE}=verify_identity alone")),
    };
    Ok((bare, Some(Ssl { options, authority: None })))
}

impl Ssl {
    /// For a connection; reads the authority's file.
    pub(super) fn load(self) -> Result<Option<SslOpts>> {
        let Some(path) = self.authority else { return Ok(self.options) };
        let certificates = std::fs::read(&path).map_err(|error| {
            Error::config("the file of `ssl-ca` can't be read")
                .caused_by(error)
                .with("path", path.display())
                .with("key", "source.url")
                .remedy("name a readable PEM file; a relative path starts at the configuration's folder")
        })?;
        let trusted = |options: SslOpts| options.with_root_certs(vec![certificates.into()]).with_disable_built_in_roots(true);
        Ok(self.options.map(trusted))
    }
}

/// Makes the path of `ssl-ca` one that starts at `folder`, unless it is absolute.
pub(super) fn resolve_ca(url: &mut Url, folder: &Path) {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().any(|(key, _)| key == CA) {
        let resolved = |(key, value): (String, String)| match key == CA {
            true => (key, folder.join(value).display().to_string()),
            false => (key, value),
        };
        url.query_pairs_mut().clear().extend_pairs(pairs.into_iter().map(resolved));
    }
}

fn mode_of(text: &str) -> Result<Mode, String> {
    match text.to_ascii_lowercase().as_str() {
        "disabled" => Ok(Mode::Disabled),
        "required" => Ok(Mode::Required),
        "verify_ca" => Ok(Mode::VerifyCa),
        "verify_identity" => Ok(Mode::VerifyIdentity),
        _ => Err(format!("`{MODE}={text}` isn't known; write disabled, required, verify_ca or verify_identity")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(query: &str) -> Result<(Url, Option<Ssl>), String> {
        take_ssl(&Url::parse(&format!("mysql://u:p@h/{query}")).unwrap())
    }

    #[test]
    fn modes_are_mysqls_own() {
        assert_eq!(taken("").unwrap().1, None);
        let (url, ssl) = taken("?ssl-mode=DISABLED&tcp_nodelay=true").unwrap();
        assert_eq!((url.as_str(), ssl), ("mysql://u:p@h/?tcp_nodelay=true", Some(Ssl { options: None, authority: None })));
        let ssl = |query| taken(query).unwrap().1.unwrap();
        assert!(ssl("?ssl-mode=required").options.unwrap().accept_invalid_certs());
        let verified = ssl("?ssl-mode=verify_ca&ssl-ca=/no/ca.pem");
        let options = verified.options.clone().unwrap();
        assert!(!options.accept_invalid_certs() && options.skip_domain_validation());
        let error = verified.load().unwrap_err().to_string();
        assert!(error.contains("path=/no/ca.pem"), "{error}");
        let options = ssl("?ssl-mode=verify_identity").load().unwrap().unwrap();
        assert!(!options.skip_domain_validation() && !options.disable_built_in_roots());
        for wrong in ["?ssl-mode=preferred", "?ssl-ca=/ca.pem", "?ssl-mode=required&ssl-ca=/ca.pem"] {
            assert!(taken(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_authoritys_path_starts_at_the_configurations_folder() {
        let mut url = Url::parse("mysql://u@h/?ssl-mode=verify_ca&ssl-ca=tls/ca.pem").unwrap();
        resolve_ca(&mut url, Path::new("/etc/binlake"));
        assert_eq!(url.query_pairs().last().unwrap().1, "/etc/binlake/tls/ca.pem");
        let mut plain = Url::parse("mysql://u@h/?require_ssl=true").unwrap();
        resolve_ca(&mut plain, Path::new("/etc"));
        assert_eq!(plain.as_str(), "mysql://u@h/?require_ssl=true");
    }
}
