//! How the configuration names one of Amazon's resources.

use std::collections::BTreeMap;
use url::Url;

/// A resource of Amazon's: `kinesis://tickets-cdc?region=eu-west-1&endpoint=http://127.0.0.1:4568`, `dynamodb://binlake-state?region=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsUrl {
    scheme: String,
    /// The stream's or table's name.
    pub name: String,
    /// Where it is; without it, what the environment or the profile says.
    pub region: Option<String>,
    /// Another server than Amazon's own.
    pub endpoint: Option<Url>,
    /// The profile in `~/.aws/config` that has the credentials (an assumed role, for example).
    pub profile: Option<String>,
    /// What else stands after `?`: the service's own options.
    pub options: BTreeMap<String, String>,
}

impl AwsUrl {
    /// Reads `scheme://name?region=…&endpoint=…&profile=…`; other options come into `options`, and whoever knows the service checks them.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write.
    pub fn parse(text: &str, scheme: &str) -> Result<Self, String> {
        let url = Self::parse_of_account(text, scheme)?;
        if url.name.is_empty() {
            return Err(format!("`{text}` has no name of a {scheme} resource; write {scheme}://name?region=…"));
        }
        Ok(url)
    }

    /// The same for what an account has one of: the name may be missing.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write.
    pub fn parse_of_account(text: &str, scheme: &str) -> Result<Self, String> {
        let example = || format!("write {scheme}://name?region=…");
        let rest = text
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .ok_or_else(|| format!("`{text}` is no {scheme}: URL; {}", example()))?;
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name = name.trim_end_matches('/');
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.len() > 255 || !name.chars().all(is_fit) {
            return Err(format!("`{name}` is no name of a {scheme} resource (letters, digits, `_`, `-`, `.`); {}", example()));
        }
        let mut options = BTreeMap::new();
        for (option, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if value.is_empty() {
                return Err(format!("the option `{option}` in `{text}` has no value; leave it out, or give it one"));
            }
            if options.insert(option.clone().into_owned(), value.into_owned()).is_some() {
                return Err(format!("the option `{option}` stands twice in `{text}`; leave one out"));
            }
        }
        let endpoint = match options.remove("endpoint") {
            None => None,
            Some(endpoint) => Some(
                Url::parse(&endpoint)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                    .ok_or_else(|| format!("`{endpoint}` is no endpoint; write endpoint=http://127.0.0.1:4568"))?,
            ),
        };
        Ok(Self {
            scheme: scheme.to_owned(),
            name: name.to_owned(),
            region: options.remove("region"),
            endpoint,
            profile: options.remove("profile"),
            options,
        })
    }

    /// Takes an option of the service's own.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn take_option<T: std::str::FromStr>(&mut self, option: &str) -> Result<Option<T>, String> {
        let Some(value) = self.options.remove(option) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("`{value}` is no value for the option `{option}`"))
    }

    /// After all known options were taken.
    ///
    /// # Errors
    /// If one is left.
    pub fn no_other_options(&self, known: &[&str]) -> Result<(), String> {
        match self.options.keys().next() {
            None => Ok(()),
            Some(option) => {
                let all: Vec<&str> = ["region", "endpoint", "profile"].iter().chain(known).copied().collect();
                Err(format!("there is no option `{option}` in a {}: URL; there are {}", self.scheme, all.join(", ")))
            }
        }
    }
}

/// The URL without the service's own options.
impl std::fmt::Display for AwsUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.name)?;
        let region = self.region.as_ref().map(|region| ("region", region.as_str()));
        let endpoint = self.endpoint.as_ref().map(|endpoint| ("endpoint", endpoint.as_str().trim_end_matches('/')));
        for (number, (option, value)) in region.into_iter().chain(endpoint).enumerate() {
            write!(f, "{}{option}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown() {
        let text = "kinesis://tickets-cdc?region=eu-west-1&endpoint=http://127.0.0.1:4568";
        let mut url = AwsUrl::parse(&format!("{text}&profile=p&shards=4"), "kinesis").unwrap();
        assert_eq!(
            (url.name.as_str(), url.region.as_deref(), url.profile.as_deref()),
            ("tickets-cdc", Some("eu-west-1"), Some("p"))
        );
        assert_eq!(url.to_string(), text);
        assert!(url.no_other_options(&[]).unwrap_err().contains("`shards`"));
        assert_eq!(url.take_option::<u32>("shards"), Ok(Some(4)));
        assert_eq!(url.no_other_options(&[]), Ok(()));
        assert_eq!(AwsUrl::parse("dynamodb://state", "dynamodb").unwrap().to_string(), "dynamodb://state");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("kinesis:name", "write kinesis://name"),
            ("kinesis://", "has no name"),
            ("kinesis://a/b", "no name"),
            ("kinesis://a?endpoint=127.0.0.1", "no endpoint"),
            ("kinesis://a?region=", "no value"),
            ("kinesis://a?region=x&region=y", "twice"),
            ("dynamodb://a", "no kinesis: URL"),
        ] {
            let said = AwsUrl::parse(text, "kinesis").unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        let mut url = AwsUrl::parse("kinesis://a?shards=many", "kinesis").unwrap();
        assert!(url.take_option::<u32>("shards").is_err());
    }
}
