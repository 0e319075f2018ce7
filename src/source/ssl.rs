//! TLS as the source's URL asks for it, in MySQL's own words: `?ssl-mode=verify_identity&ssl-ca=/etc/mysql/ca.pem`.

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

/// Takes `ssl-mode` and `ssl-ca` out of a URL. `None`: the URL doesn't speak of TLS in these words.
pub(super) fn take_ssl(url: &Url) -> Result<(Url, Option<Option<SslOpts>>), String> {
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
            Some(match authority {
                // the authority that is named, and no other
                Some(path) => options.with_root_certs(vec![path.into()]).with_disable_built_in_roots(true),
                None => options,
            })
        }
        (_, Some(_)) => return Err(format!("`{CA}` is for {MODE}=verify_ca and {MODE}=verify_identity alone")),
    };
    Ok((bare, Some(options)))
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

    fn taken(query: &str) -> Result<(Url, Option<Option<SslOpts>>), String> {
        take_ssl(&Url::parse(&format!("mysql://u:p@h/{query}")).unwrap())
    }

    #[test]
    fn modes_are_mysqls_own() {
        assert_eq!(taken("").unwrap().1, None);
        let (url, options) = taken("?ssl-mode=DISABLED&tcp_nodelay=true").unwrap();
        assert_eq!((url.as_str(), options), ("mysql://u:p@h/?tcp_nodelay=true", Some(None)));
        let options = |query| taken(query).unwrap().1.unwrap().unwrap();
        assert!(options("?ssl-mode=required").accept_invalid_certs());
        let verified = options("?ssl-mode=verify_ca&ssl-ca=/ca.pem");
        assert!(!verified.accept_invalid_certs() && verified.skip_domain_validation() && verified.disable_built_in_roots());
        let verified = options("?ssl-mode=verify_identity");
        assert!(!verified.skip_domain_validation() && !verified.disable_built_in_roots());
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
