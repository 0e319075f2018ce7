//! A private kinesis-local, shared by this process's tests and gone with it.

use crate::mysql::free_port;
use binlake::cloud::{AwsUrl, Calls, sdk_config};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A running kinesis-local.
#[derive(Debug)]
pub(crate) struct StandIn {
    port: u16,
    /// Kills it when this process ends, however it ends: the shell's standard input is a pipe from here. It ignores SIGTERM.
    _keeper: Child,
}

const KEEPER: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & server=$!; trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $server"#;

impl StandIn {
    /// The one of this process.
    pub(crate) fn shared() -> &'static StandIn {
        static SHARED: OnceLock<StandIn> = OnceLock::new();
        SHARED.get_or_init(StandIn::start)
    }

    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kinesis.sh");
        let found = Command::new(script).output().unwrap();
        assert!(found.status.success(), "scripts/kinesis.sh: {}", String::from_utf8_lossy(&found.stderr));
        let main = String::from_utf8(found.stdout).unwrap();
        let (plain, tls) = (free_port(), free_port());
        let main = Path::new(main.trim());
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER, "keeper", "node"])
            .arg(main)
            .env("KINESIS_MOCK_PLAIN_PORT", plain.to_string())
            .env("KINESIS_MOCK_TLS_PORT", tls.to_string())
            .env("KINESIS_MOCK_CERT_PATH", main.with_file_name("server.json"))
            .env("SHARD_LIMIT", "100000")
            .env("LOG_LEVEL", "ERROR")
            .stdin(Stdio::piped());
        for state in
            ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT", "REGISTER_STREAM_CONSUMER"]
        {
            command.env(format!("{state}_DURATION"), "50ms");
        }
        let server = Self { port: plain, _keeper: command.spawn().unwrap() };
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&self) {
        for _ in 0..1200 {
            if let Ok(mut connection) = std::net::TcpStream::connect(("127.0.0.1", self.port)) {
                use std::io::Write;
                connection.write_all(b"GET /healthcheck HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
                let mut answer = String::new();
                if connection.read_to_string(&mut answer).is_ok() && answer.contains(" 200") {
                    return;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("kinesis-local doesn't answer");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client of the SDK's own.
    pub(crate) async fn client(&self) -> aws_sdk_kinesis::Client {
        let url = AwsUrl::parse(&format!("kinesis://any?endpoint={}", self.endpoint()), "kinesis").unwrap();
        aws_sdk_kinesis::Client::new(&sdk_config(&url, &Calls::retried(5)).await.unwrap())
    }
}
