//! What a lake's URL may say about S3, and where its credentials come from: by the requests that arrive.

use crate::fake_http::{Asked, FakeHttp};
use crate::service::Pipeline;
use binlake::table::{Lake, LakeUrl};
use object_store::ObjectStoreExt;
use object_store::path::Path;

const EMPTY_BUCKET: &str =
    "<?xml version=\"1.0\"?><ListBucketResult><Name>lake</Name><IsTruncated>false</IsTruncated></ListBucketResult>";

/// An empty bucket; and whoever gives credentials, for a role, a container or an instance.
fn bucket() -> FakeHttp {
    let keys = |name: &str| {
        format!(
            r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{name}","SecretAccessKey":"s","Token":"token-of-{name}","Expiration":"2099-01-01T00:00:00Z"}}"#
        )
    };
    FakeHttp::start(move |asked: &Asked| {
        match asked.target.as_str() {
        "/container" => (200, "application/json", keys("CONTAINER")),
        "/latest/api/token" => (200, "text/plain", "imds".into()),
        "/latest/meta-data/iam/security-credentials/" => (200, "text/plain", "lake-role".into()),
        "/latest/meta-data/iam/security-credentials/lake-role" => (200, "application/json", keys("INSTANCE")),
        "/" if asked.body.contains("Action=AssumeRole") => (
            200,
            "text/xml",
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>A:binlake</AssumedRoleId>\
             <Arn>arn:aws:sts::1:assumed-role/lake/binlake</Arn></AssumedRoleUser><Credentials><AccessKeyId>ASSUMED</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>token-of-ASSUMED</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>"
                .into(),
        ),
        _ if asked.method == "PUT" => (200, "text/plain", String::new()),
        _ => (200, "application/xml", EMPTY_BUCKET.into()),
    }
    })
}

/// `binlake tables` over the bucket, with these options and environment; gives the requests for the bucket itself, and the others.
fn tables(fake: &FakeHttp, options: &str, environment: &[(&str, &str)]) -> (Vec<Asked>, Vec<Asked>) {
    let url = format!("s3://lake/p?region=eu-west-1&endpoint={}{options}", fake.endpoint);
    let mut pipeline = Pipeline::from_text(&format!(
        "[source]\nurl = \"mysql://u@127.0.0.1:1\"\n[lake]\nurl = \"{url}\"\n[[table]]\nsource = \"a.*\"\n"
    ))
    // nothing of this machine's
    .environment("AWS_CONFIG_FILE", "/dev/null")
    .environment("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    for (name, value) in environment {
        pipeline = pipeline.environment(name, value);
    }
    pipeline.ok(&["tables"]);
    let (bucket, others): (Vec<Asked>, Vec<Asked>) = fake.asked().into_iter().partition(|asked| asked.target.contains("list-type"));
    assert!(!bucket.is_empty());
    (bucket, others)
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "ENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "s")];

#[test]
fn the_environments_keys_sign_for_the_region() {
    let (bucket, _) = tables(&bucket(), "", &KEYS);
    let signed = bucket[0].header("authorization");
    assert!(signed.contains("Credential=ENVIRONMENT/") && signed.contains("/eu-west-1/s3/"), "{signed}");
    assert!(bucket[0].target.starts_with("/lake?"), "{}", bucket[0].target);
    assert_eq!(bucket[0].header("x-amz-request-payer"), "");
}

#[test]
fn a_role_is_assumed_with_them() {
    let options = "&role_arn=arn:aws:iam::1:role/lake&external_id=from-us&role_session_name=nightly";
    let fake = bucket();
    let (bucket, others) = tables(&fake, &format!("{options}&sts_endpoint={}", fake.endpoint), &KEYS);
    assert_eq!(others.len(), 1, "once for all calls: {others:?}");
    assert!(others[0].header("authorization").contains("Credential=ENVIRONMENT/"), "{others:?}");
    for part in ["RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Flake", "ExternalId=from-us", "RoleSessionName=nightly"] {
        assert!(others[0].body.contains(part), "{}", others[0].body);
    }
    assert!(bucket[0].header("authorization").contains("Credential=ASSUMED/"));
    assert_eq!(bucket[0].header("x-amz-security-token"), "token-of-ASSUMED");
}

#[test]
fn a_container_and_an_instance_have_their_own() {
    let fake = bucket();
    let (asked, _) = tables(&fake, "", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/container", fake.endpoint))]);
    assert!(asked[0].header("authorization").contains("Credential=CONTAINER/"));
    assert_eq!(asked[0].header("x-amz-security-token"), "token-of-CONTAINER");
    let fake = bucket();
    let (asked, _) = tables(&fake, "", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", fake.endpoint.as_str())]);
    assert!(asked[0].header("authorization").contains("Credential=INSTANCE/"));
}

#[test]
fn without_credentials_it_is_refused_in_a_line() {
    let fake = bucket();
    let url = format!("s3://lake/p?region=eu-west-1&endpoint={}", fake.endpoint);
    let pipeline = Pipeline::from_text(&format!(
        "[source]\nurl = \"mysql://u@127.0.0.1:1\"\n[lake]\nurl = \"{url}\"\n[[table]]\nsource = \"a.*\"\n"
    ))
    .environment("AWS_CONFIG_FILE", "/dev/null")
    .environment("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    .environment("AWS_EC2_METADATA_DISABLED", "true");
    let answer = pipeline.answer(&["tables", "--log-level", "off"]);
    assert_eq!(answer.code, 5, "{}", answer.err);
    assert!(answer.err.contains("check the credentials"), "{}", answer.err);
    assert_eq!(fake.asked().len(), 0);
}

#[test]
fn the_requester_pays_and_the_bucket_stands_in_the_path() {
    let (bucket, _) = tables(&bucket(), "&request_payer=requester&path_style=true", &KEYS);
    assert_eq!(bucket[0].header("x-amz-request-payer"), "requester");
    assert!(bucket[0].target.starts_with("/lake?"), "{}", bucket[0].target);
}

#[tokio::test]
async fn new_objects_are_encrypted_with_the_key() {
    let fake = bucket();
    let key = "arn:aws:kms:eu-west-1:1:key/2";
    let url = format!(
        "s3://lake/p?region=eu-west-1&anonymous=true&endpoint={}&sse=aws:kms&kms_key_id={key}&bucket_key=true",
        fake.endpoint
    );
    let lake = Lake::open(&LakeUrl::try_from(url).unwrap()).unwrap();
    lake.store().put(&Path::from("p/object"), "x".into()).await.unwrap();
    let put = fake.asked().remove(0);
    assert_eq!((put.method.as_str(), put.header("authorization")), ("PUT", ""));
    assert_eq!(put.header("x-amz-server-side-encryption"), "aws:kms");
    assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
    assert_eq!(put.header("x-amz-server-side-encryption-bucket-key-enabled"), "true");
}
