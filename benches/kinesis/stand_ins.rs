//! The stand-ins for Kinesis that benchmarks use, each started once and gone with this process.

#![allow(unreachable_pub, reason = "a module of a benchmark")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// One of them.
#[derive(Debug)]
pub struct StandIn {
    /// What it is called.
    pub name: &'static str,
    port: u16,
    /// Kills it when this process ends, however it ends: the shell's standard input is a pipe from here.
    keeper: Child,
}

const KEEPER: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & server=$!; trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $server"#;

impl StandIn {
    /// All of them.
    pub fn all() -> &'static [StandIn; 2] {
        static ALL: OnceLock<[StandIn; 2]> = OnceLock::new();
        ALL.get_or_init(|| [StandIn::kinesis_local(), StandIn::ministack()])
    }

    fn kinesis_local() -> Self {
        let main = script("scripts/kinesis.sh", &[]);
        let (port, tls) = (free_port(), free_port());
        Self::start("kinesis-local", port, |command| {
            command
                .arg("node")
                .arg(&main)
                .env("KINESIS_MOCK_PLAIN_PORT", port.to_string())
                .env("KINESIS_MOCK_TLS_PORT", tls.to_string())
                .env("KINESIS_MOCK_CERT_PATH", Path::new(&main).with_file_name("server.json"))
                .env("SHARD_LIMIT", "1000")
                .env("LOG_LEVEL", "ERROR");
        })
    }

    fn ministack() -> Self {
        script("scripts/python.sh", &["benches/ministack.txt", "ministack"]);
        let cache = std::env::var_os("BINLAKE_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/binlake"));
        let port = free_port();
        Self::start("ministack", port, |command| {
            command.arg(cache.join("ministack/bin/ministack")).env("GATEWAY_PORT", port.to_string()).env("SERVICES", "kinesis");
        })
    }

    fn start(name: &'static str, port: u16, with: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).stdin(Stdio::piped());
        with(&mut command);
        let stand_in = Self { name, port, keeper: command.spawn().unwrap() };
        for _ in 0..1200 {
            if answers(port) {
                return stand_in;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{name} doesn't answer");
    }

    /// What stands in a URL behind `endpoint=`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// CPU seconds of it and its children so far.
    pub fn cpu(&self) -> f64 {
        let mut family = vec![self.keeper.id()];
        let mut seconds = 0.0;
        while let Some(pid) = family.pop() {
            seconds += cpu_seconds(pid);
            for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        seconds
    }
}

/// CPU seconds of a process so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Any answer at all.
fn answers(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut byte = [0];
    connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_ok()
        && connection.read_exact(&mut byte).is_ok()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a set-up script prints.
fn script(name: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(name)).args(arguments).current_dir(root).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
