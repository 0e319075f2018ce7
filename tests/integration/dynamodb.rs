//! DynamoDB Local, Amazon's own stand-in: one for the whole test binary, gone with it. `scripts/dynamodb.sh` gets it.

use crate::mysql::{PATIENCE, free_port, within};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Builder, Credentials};
use binlake::cloud::{AwsUrl, Calls, sdk_config};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A running server.
#[derive(Debug)]
pub(crate) struct DynamoDb {
    port: u16,
    /// Its standard input is a pipe from here: when this process ends, it kills the server.
    _keeper: Child,
}

const KEEPER: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & server=$!; trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $server"#;

impl DynamoDb {
    /// The server that all tests share; each uses tables of its own names.
    pub(crate) async fn shared() -> &'static DynamoDb {
        static SHARED: OnceLock<DynamoDb> = OnceLock::new();
        let server = SHARED.get_or_init(Self::start);
        let answers = || async { TcpStream::connect(("127.0.0.1", server.port)).is_ok() };
        assert!(within(PATIENCE, answers).await, "DynamoDB Local doesn't answer");
        server
    }

    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/dynamodb.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "scripts/dynamodb.sh failed");
        let folder = String::from_utf8(output.stdout).unwrap();
        let port = free_port();
        let keeper = Command::new("sh")
            .current_dir(folder.trim())
            .args(["-c", KEEPER, "keeper", "java", "-Xmx256m", "-Djava.library.path=lib", "-cp", "lib/*"])
            .arg("com.amazonaws.services.dynamodbv2.local.main.ServerRunner")
            .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        DynamoDb { port, _keeper: keeper }
    }

    /// What stands in a URL behind `endpoint=`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `to` of a delivery with a table of owners of its own.
    pub(crate) fn deliveries(&self) -> String {
        format!("dynamodb://deliveries-{}?region=us-east-1&endpoint={}", uuid::Uuid::new_v4(), self.endpoint())
    }

    /// A client with credentials of its own.
    pub(crate) async fn client(&self) -> Client {
        client(&self.endpoint(), 5).await
    }
}

/// A client of whatever answers at `endpoint`, which tries each call so often.
pub(crate) async fn client(endpoint: &str, attempts: u32) -> Client {
    let url = AwsUrl::parse(&format!("dynamodb://any?region=us-east-1&endpoint={endpoint}"), "dynamodb").unwrap();
    let config = sdk_config(&url, &Calls::retried(attempts)).await.unwrap();
    let credentials = Credentials::new("test", "test", None, None, "test");
    Client::from_conf(Builder::from(&config).credentials_provider(credentials).build())
}
