//! Amazon's services: the one place where their clients are made, and where their errors become ours.
//!
//! [`AwsUrl`] is how the configuration names a resource (`kinesis://name?region=…&endpoint=…`, `dynamodb://name?…`). [`sdk_config`] makes what each of
//! Amazon's clients is built from: credentials by the SDK's default chain (environment, profile, web identity, container, instance), TLS by ring,
//! and patience as [`Calls`] says. A server on this machine (`endpoint=http://127.0.0.1:…`) is given made-up ones, unless there are some in the environment. [`Failure::of`] tells why a call failed, as far as a caller must know.

mod aws_url;
mod dynamodb;
mod failure;

pub use aws_url::AwsUrl;
pub use dynamodb::{DynamoNumber, MOST_KEY_BYTES};
pub use failure::{Failure, error_of};

use crate::error::{Error, Result};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::Credentials;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use std::time::Duration;

/// Stand-ins of Amazon's services take any region.
const REGION_OF_STAND_INS: &str = "us-east-1";

/// They take any credentials as well.
const STAND_IN: &str = "binlake";

/// How a client calls.
#[derive(Debug, Clone)]
pub struct Calls {
    /// How often the SDK itself tries a call: 1 where the caller tries again.
    pub attempts: u32,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
}

impl Calls {
    /// Each call once: the caller knows better when, and with what, it tries again.
    pub fn once() -> Self {
        Self { attempts: 1, connect_timeout: Duration::from_secs(5), attempt_timeout: Duration::from_secs(30) }
    }

    /// As Amazon's clients do by themselves: up to `attempts` times, with growing pauses.
    pub fn retried(attempts: u32) -> Self {
        Self { attempts, ..Self::once() }
    }

    /// The same with another time for one attempt.
    #[must_use]
    pub fn within(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = attempt_timeout;
        self
    }
}

/// What each of Amazon's clients is made from: `aws_sdk_kinesis::Client::new(&sdk_config(…).await?)`. Connections belong to it and to the runtime in which
/// it is used first. Credentials are fetched at the first call.
///
/// # Errors
/// `Config` if no region is named anywhere.
pub async fn sdk_config(url: &AwsUrl, calls: &Calls) -> Result<SdkConfig> {
    let retries =
        if calls.attempts <= 1 { RetryConfig::disabled() } else { RetryConfig::standard().with_max_attempts(calls.attempts) };
    let timeouts =
        TimeoutConfig::builder().connect_timeout(calls.connect_timeout).operation_attempt_timeout(calls.attempt_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
        .retry_config(retries)
        .timeout_config(timeouts)
        // an idle subscription is no stalled one, and all other calls end by their timeout
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = region_of(url) {
        loader = loader.region(Region::new(region));
    }
    if let Some(endpoint) = &url.endpoint {
        loader = loader.endpoint_url(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(profile) = &url.profile {
        loader = loader.profile_name(profile);
    } else if is_stand_in(url) && std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
        loader = loader.credentials_provider(Credentials::new(STAND_IN, STAND_IN, None, None, "stand-in"));
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(Error::config("no AWS region is named").with("url", url).remedy("add ?region=… to the URL, or set AWS_REGION"));
    }
    Ok(config)
}

/// The region where it needn't be asked for: the SDK asks environment, profile and instance.
fn region_of(url: &AwsUrl) -> Option<String> {
    let named = || std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok();
    let stand_ins = || is_stand_in(url).then(|| named().unwrap_or_else(|| REGION_OF_STAND_INS.to_owned()));
    url.region.clone().or_else(stand_ins)
}

/// Whether the URL means a server on this machine: not Amazon's, so no credentials of Amazon's are looked for.
fn is_stand_in(url: &AwsUrl) -> bool {
    let host = url.endpoint.as_ref().and_then(|endpoint| endpoint.host());
    host.is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_becomes_a_client() {
        let url = AwsUrl::parse("kinesis://s?region=eu-west-1&endpoint=http://127.0.0.1:4568", "kinesis").unwrap();
        let config = sdk_config(&url, &Calls::once()).await.unwrap();
        assert_eq!(config.region().map(AsRef::as_ref), Some("eu-west-1"));
        assert_eq!(config.endpoint_url(), Some("http://127.0.0.1:4568"));
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
    }

    #[tokio::test]
    async fn nobody_answers() {
        let url = AwsUrl::parse("kinesis://s?region=eu-west-1&endpoint=http://127.0.0.1:9", "kinesis").unwrap();
        let config = sdk_config(&url, &Calls::once()).await.unwrap();
        let client = aws_sdk_kinesis::Client::new(&config);
        let error = client.list_streams().send().await.unwrap_err();
        assert_eq!(Failure::of(&error), Failure::NoAnswer);
        let error = error_of(crate::error::Area::Stream, "the streams can't be listed", &error);
        assert!(error.is_transient(), "{error}");
    }
}
