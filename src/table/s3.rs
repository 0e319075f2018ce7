//! The lake on S3: what its URL may say, and the store that comes of it.
//!
//! | option | what |
//! |---|---|
//! | `region` | the bucket's; else `AWS_REGION` |
//! | `endpoint` | another server than Amazon's |
//! | `path_style` | `true`: the bucket in the path instead of the host's name |
//! | `profile` | the profile in `~/.aws/config` that has the credentials |
//! | `role_arn`, `external_id`, `role_session_name`, `sts_endpoint` | a role that is assumed with these credentials |
//! | `sse` | `AES256`, `aws:kms` or `aws:kms:dsse`: how new objects are encrypted; else as the bucket says |
//! | `kms_key_id`, `bucket_key` | the key of `aws:kms`, and whether a bucket key saves calls of it |
//! | `request_payer` | `requester`: who reads and writes pays, not the bucket's owner |
//! | `unsigned_payload` | `true`: bodies aren't signed (TLS protects them) |
//! | `anonymous` | `true`: no credentials, for a public bucket that is only read |

use super::s3_credentials::SdkCredentials;
use crate::error::{Area, Error, Kind, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What may stand after `?`.
const OPTIONS: [&str; 14] = [
    "region",
    "endpoint",
    "path_style",
    "profile",
    "role_arn",
    "external_id",
    "role_session_name",
    "sts_endpoint",
    "sse",
    "kms_key_id",
    "bucket_key",
    "request_payer",
    "unsigned_payload",
    "anonymous",
];

/// The options that are yes or no.
const SWITCHES: [&str; 4] = ["path_style", "bucket_key", "unsigned_payload", "anonymous"];

/// What is wrong with the options, and what to write.
pub(super) fn check(options: &BTreeMap<String, String>) -> std::result::Result<(), String> {
    if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(format!("a lake's URL has no option `{unknown}`; it may have {}", OPTIONS.join(", ")));
    }
    let value = |name: &str| options.get(name).map(String::as_str);
    for name in SWITCHES {
        if value(name).is_some_and(|value| !matches!(value, "true" | "false")) {
            return Err(format!("the option `{name}` is yes or no; write {name}=true or leave it out"));
        }
    }
    if value("sse").is_some_and(|sse| !matches!(sse, "AES256" | "aws:kms" | "aws:kms:dsse")) {
        return Err("the option `sse` is not a way of encryption; write sse=AES256, sse=aws:kms or sse=aws:kms:dsse".into());
    }
    let is_kms = value("sse").is_some_and(|sse| sse.starts_with("aws:kms"));
    if (value("kms_key_id").is_some() || value("bucket_key").is_some()) && !is_kms {
        return Err("kms_key_id and bucket_key are for sse=aws:kms; add it, or leave them out".into());
    }
    if value("request_payer").is_some_and(|payer| payer != "requester") {
        return Err("the option `request_payer` has one value; write request_payer=requester or leave it out".into());
    }
    for dependent in ["external_id", "role_session_name", "sts_endpoint"] {
        if value(dependent).is_some() && value("role_arn").is_none() {
            return Err(format!("{dependent} is for a role that is assumed; add role_arn=…, or leave it out"));
        }
    }
    if value("role_arn").is_some_and(|arn| !arn.starts_with("arn:")) {
        return Err("the option `role_arn` is no ARN; write role_arn=arn:aws:iam::123456789012:role/name".into());
    }
    Ok(())
}

/// The store of `bucket`.
pub(super) fn open(bucket: &str, options: &BTreeMap<String, String>) -> Result<AmazonS3> {
    // of the environment's settings the ones that aren't credentials: these come by the SDK's chain
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let value = |name: &str| options.get(name).cloned();
    let is_on = |name: &str| options.get(name).is_some_and(|value| value == "true");
    let variable = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    if let Some(region) = value("region").or_else(|| variable(&["AWS_REGION", "AWS_DEFAULT_REGION"])) {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = value("endpoint").or_else(|| variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])) {
        builder = builder.with_allow_http(endpoint.starts_with("http:")).with_endpoint(endpoint);
    }
    if options.contains_key("path_style") {
        builder = builder.with_virtual_hosted_style_request(!is_on("path_style"));
    }
    for (option, key) in
        [("sse", "aws_server_side_encryption"), ("kms_key_id", "aws_sse_kms_key_id"), ("bucket_key", "aws_sse_bucket_key_enabled")]
    {
        if let Some(value) = value(option) {
            let key: AmazonS3ConfigKey =
                key.parse().map_err(|error: object_store::Error| Error::bug("an S3 option is unknown").caused_by(error))?;
            builder = builder.with_config(key, value);
        }
    }
    if options.contains_key("request_payer") {
        builder = builder.with_request_payer(true);
    }
    if is_on("unsigned_payload") {
        builder = builder.with_unsigned_payload(true);
    }
    builder = match is_on("anonymous") {
        true => builder.with_skip_signature(true),
        false => builder.with_credentials(Arc::new(SdkCredentials::new(bucket, options))),
    };
    builder.build().map_err(|error| {
        Error::new(Area::Lake, Kind::Refused, "the bucket's settings don't fit together")
            .caused_by(error)
            .remedy("give region=… (and endpoint=…) in lake.url")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }

    #[test]
    fn options_that_fit_and_options_that_do_not() {
        for fine in [
            "",
            "region=eu-west-1&endpoint=http://127.0.0.1:9000&path_style=true",
            "sse=aws:kms&kms_key_id=arn:aws:kms:eu-west-1:1:key/2&bucket_key=true&request_payer=requester",
            "sse=AES256&profile=lake&role_arn=arn:aws:iam::1:role/r&external_id=x&role_session_name=binlake",
            "anonymous=true",
        ] {
            check(&options(fine)).unwrap();
            open("b", &options(fine)).unwrap();
        }
        for (wrong, part) in [
            ("regoin=x", "no option `regoin`"),
            ("path_style=yes", "path_style=true"),
            ("sse=kms", "sse=aws:kms"),
            ("kms_key_id=x", "add it"),
            ("external_id=x", "role_arn"),
            ("role_arn=r", "arn:aws:iam"),
            ("request_payer=true", "requester"),
        ] {
            let said = check(&options(wrong)).unwrap_err();
            assert!(said.contains(part), "{wrong}: {said}");
        }
    }
}
