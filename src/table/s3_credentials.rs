//! Credentials for S3 by the SDK's own chain: environment, profile, single sign-on, web identity, container, instance; and roles that are assumed with them.

use crate::cloud::{AwsUrl, Calls, sdk_config};
use async_trait::async_trait;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_dynamodb::config::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, OnceCell};

/// So long before they run out, credentials are renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);
/// Credentials that don't say when they run out are asked for again after this time: they may have been replaced.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(900);
/// How often the SDK tries a call for credentials.
const ATTEMPTS: u32 = 4;
/// What the role's log calls us.
const SESSION_NAME: &str = "binlake";

/// Gives credentials, and fresh ones in time.
#[derive(Debug)]
pub(super) struct SdkCredentials {
    bucket: String,
    options: BTreeMap<String, String>,
    /// Made at the first call: the chain may ask the network for the region.
    chain: OnceCell<SharedCredentialsProvider>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    credential: Arc<AwsCredential>,
    runs_out: Option<SystemTime>,
    renew_at: SystemTime,
}

impl SdkCredentials {
    pub(super) fn new(bucket: &str, options: &BTreeMap<String, String>) -> Self {
        Self { bucket: bucket.to_owned(), options: options.clone(), chain: OnceCell::new(), known: Mutex::new(None) }
    }

    async fn chain(&self) -> Result<SharedCredentialsProvider, String> {
        let option = |name: &str| self.options.get(name).map(String::as_str);
        let mut url = AwsUrl::parse("sts://credentials", "sts")?;
        url.region = option("region").map(str::to_owned);
        url.profile = option("profile").map(str::to_owned);
        url.endpoint = match option("sts_endpoint") {
            Some(endpoint) => Some(url::Url::parse(endpoint).map_err(|error| format!("sts_endpoint: {error}"))?),
            None => None,
        };
        // a stand-in's bucket may be in no region; credentials don't care
        if url.region.is_none() && option("endpoint").is_some() && std::env::var_os("AWS_REGION").is_none() {
            url.region = Some("us-east-1".to_owned());
        }
        let config = sdk_config(&url, &Calls::retried(ATTEMPTS)).await.map_err(|error| error.to_string())?;
        let chain = config.credentials_provider().ok_or("the SDK has no chain of credentials")?;
        let Some(role) = option("role_arn") else { return Ok(chain) };
        let mut assumed =
            AssumeRoleProvider::builder(role).configure(&config).session_name(option("role_session_name").unwrap_or(SESSION_NAME));
        if let Some(id) = option("external_id") {
            assumed = assumed.external_id(id);
        }
        Ok(SharedCredentialsProvider::new(assumed.build_from_provider(chain).await))
    }

    async fn fetch(&self) -> Result<Known, String> {
        let chain = self.chain.get_or_try_init(|| self.chain()).await?;
        let fresh = chain.provide_credentials().await.map_err(|error| chain_of(&error))?;
        let now = SystemTime::now();
        let renew_at = match fresh.expiry() {
            Some(runs_out) => runs_out.checked_sub(RENEWED_BEFORE).unwrap_or(now).max(now + Duration::from_secs(1)),
            None => now + ASKED_AGAIN_AFTER,
        };
        let credential = AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        };
        Ok(Known { credential: Arc::new(credential), runs_out: fresh.expiry(), renew_at })
    }
}

/// An error with all that caused it: the outer ones alone say little.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let now = SystemTime::now();
        if let Some(known) = known.as_ref().filter(|known| now < known.renew_at) {
            return Ok(known.credential.clone());
        }
        match self.fetch().await {
            Ok(fresh) => Ok(known.insert(fresh).credential.clone()),
            Err(said) => match known.as_ref() {
                // what gives them out is away: the old ones may serve a little longer
                Some(known) if known.runs_out.is_none_or(|runs_out| now < runs_out) => Ok(known.credential.clone()),
                Some(_) => Err(object_store::Error::Generic { store: "S3", source: said.into() }),
                None => Err(object_store::Error::Unauthenticated { path: self.bucket.clone(), source: said.into() }),
            },
        }
    }
}
