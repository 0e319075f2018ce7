//! A private MySQL for the demo: its own data folder, a free port on 127.0.0.1, gone with the process.
//!
//! The server runs under a small shell that holds one end of a pipe. When this process ends, however it ends (also by `kill -9`), the pipe
//! closes, and the shell kills the server and removes the folder.

use crate::error::{Area, Error, Kind, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the server may take to answer. A first start on a slow disk takes some ten seconds.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How often it is asked meanwhile.
const START_POLL: Duration = Duration::from_millis(100);

/// Runs the server (the arguments from the second on) and, when standard input ends, kills it and removes the folder (the first argument).
const KEEPER: &str = r#"
folder=$1; shift
"$@" </dev/null &
server=$!
trap '' INT TERM HUP
while read -r line; do [ "$line" != keep ] || folder=; done
if [ -n "$folder" ]; then kill -9 $server; else kill $server; fi
wait
[ -z "$folder" ] || rm -rf "$folder"
"#;

/// A server program on this machine.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    /// What it says about itself, as `MySQL 9.7.0`.
    pub(super) version: String,
    is_mariadb: bool,
}

impl Program {
    /// The first server found: `$BINLAKE_MYSQLD`, `$MYSQLD`, on the PATH, where the distribution's packages put it, what `make` unpacked.
    pub(super) fn find() -> Result<Self> {
        let named =
            ["BINLAKE_MYSQLD", "MYSQLD"].into_iter().find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
        if let Some(path) = named {
            return Self::ask(Path::new(&path)).ok_or_else(|| {
                Error::config("the MySQL server that the environment names doesn't run")
                    .with("path", path.display())
                    .remedy("let BINLAKE_MYSQLD name a mysqld, or unset it")
            });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
        let cache = std::env::var_os("BINLAKE_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/binlake")));
        folders.extend(cache.iter().flat_map(|cache| [cache.join("mysql"), cache.join("mariadb")]));
        ["mysqld", "mariadbd"]
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
            .filter(|path| path.is_file())
            .find_map(|path| Self::ask(&path))
            .ok_or_else(|| {
                Error::config("there is no MySQL server on this machine")
                    .remedy("run `make demo`, which gets one; or install mysql-server or mariadb-server; or set BINLAKE_MYSQLD")
            })
    }

    fn ask(path: &Path) -> Option<Self> {
        let output =
            Command::new(path).arg("--version").stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_once("Ver ")?.1.split([' ', '-']).next()?.to_owned();
        let is_mariadb = text.contains("MariaDB");
        let name = if is_mariadb { "MariaDB" } else { "MySQL" };
        Some(Self { path: path.to_owned(), version: format!("{name} {number}"), is_mariadb })
    }

    /// The program with what keeps the machine's option files out, and lets the superuser run it.
    fn arguments(&self, folder: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        // a script (as `make` writes) names its options itself, and this one must come first
        if !is_script(&self.path) {
            arguments.push("--no-defaults".to_owned());
        }
        arguments.push(format!("--datadir={}", folder.join("data").display()));
        if fs::metadata(folder).is_ok_and(|folder| folder.uid() == 0) {
            arguments.push("--user=root".to_owned());
        }
        arguments
    }

    /// Makes an empty data folder, root without a password.
    fn initialise(&self, folder: &Path) -> Result<()> {
        let failed = |what: String| {
            Error::new(Area::Source, Kind::Refused, "the private server's data folder can't be made").with("reason", what)
        };
        let data = folder.join("data");
        let template = self.path.with_file_name("template");
        let mut command = if template.is_dir() {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(&template).arg(&data);
            copy
        } else if self.is_mariadb {
            let mut install = Command::new("mariadb-install-db");
            install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            install.args(self.arguments(folder).iter().filter(|argument| *argument != "--no-defaults"));
            install
        } else {
            let mut initialise = Command::new(&self.path);
            initialise.args(self.arguments(folder)).arg("--initialize-insecure");
            initialise
        };
        let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(failed(first_error(&text)))
    }
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start == b"#!"
}

/// The first line of a server's log that is an error, else the last line.
fn first_error(log: &str) -> String {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next_back().unwrap_or("it says nothing");
    lines.find(|line| line.contains("[ERROR]")).unwrap_or(last).to_owned()
}

/// A running private server. Dropped: killed, and its folder removed.
#[derive(Debug)]
pub(super) struct Server {
    keeper: Child,
    port: u16,
}

impl Server {
    /// Starts one in `folder`, which is removed with it.
    pub(super) async fn start(program: &Program, folder: &Path) -> Result<Self> {
        program.initialise(folder)?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| Error::new(Area::Source, Kind::Refused, "no free port on 127.0.0.1").caused_by(error))?
            .port();
        let log = folder.join("mysqld.log");
        let mut server = Self { keeper: spawn(program, folder, port, &log)?, port };
        server.wait(&log).await?;
        Ok(server)
    }

    async fn wait(&mut self, log: &Path) -> Result<()> {
        let refused = |what: &'static str| {
            let text = fs::read_to_string(log).unwrap_or_default();
            Error::new(Area::Source, Kind::Refused, what)
                .with("log", first_error(&text))
                .remedy("try another mysqld with BINLAKE_MYSQLD")
        };
        let ready = async {
            loop {
                if Conn::new(self.opts()).await.is_ok() {
                    return true;
                }
                let text = fs::read_to_string(log).unwrap_or_default();
                if text.contains("Aborting") || text.contains("Shutdown complete") {
                    return false;
                }
                tokio::time::sleep(START_POLL).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("the private server doesn't start")),
            Err(_) => Err(refused("the private server doesn't answer")),
        }
    }

    /// `[source] url` for its root user.
    pub(super) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port)
    }

    /// A connection as root.
    pub(super) async fn connect(&self) -> Result<Conn> {
        let mut connection =
            Conn::new(self.opts()).await.map_err(|error| failed("the private server refuses the connection", error))?;
        connection
            .query_drop("SET time_zone = '+00:00'")
            .await
            .map_err(|error| failed("the private server refuses a statement", error))?;
        Ok(connection)
    }

    fn opts(&self) -> OptsBuilder {
        OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.port).user(Some("root")).prefer_socket(false)
    }

    /// Ends the server; `keep`: in order, and its folder stays.
    pub(super) fn stop(mut self, keep: bool) {
        self.end(keep);
    }

    fn end(&mut self, keep: bool) {
        if let Some(mut pipe) = self.keeper.stdin.take() {
            if keep {
                let _ = pipe.write_all(b"keep\n");
            }
            drop(pipe);
            let _ = self.keeper.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// An error of the private server.
pub(super) fn failed(what: &'static str, error: mysql_async::Error) -> Error {
    Error::new(Area::Source, Kind::Refused, what).caused_by(error)
}

fn spawn(program: &Program, folder: &Path, port: u16, log: &Path) -> Result<Child> {
    let failed =
        |error: std::io::Error| Error::new(Area::Source, Kind::Refused, "the private server can't be started").caused_by(error);
    let mut command = Command::new("sh");
    command.args([OsStr::new("-c"), OsStr::new(KEEPER), OsStr::new("keeper"), folder.as_os_str(), program.path.as_os_str()]);
    command.args(program.arguments(folder));
    command.arg(format!("--port={port}")).arg(format!("--socket={}", folder.join("mysqld.sock").display()));
    command.arg(format!("--pid-file={}", folder.join("mysqld.pid").display()));
    command.arg(format!("--secure-file-priv={}", folder.display()));
    command.args([
        "--bind-address=127.0.0.1",
        "--server-id=1",
        "--log-bin=binlog",
        "--binlog-row-metadata=FULL",
        "--binlog-row-image=FULL",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=2",
        "--sync-binlog=0",
        "--performance-schema=OFF",
    ]);
    match program.is_mariadb {
        true => command.args(["--binlog-format=ROW", "--gtid-strict-mode=ON"]),
        false => command.args(["--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"]),
    };
    let log = File::create(log).map_err(failed)?;
    command.stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    // a group of its own: Ctrl-C in the terminal is for us, and the server outlives it until we are done
    command.process_group(0).spawn().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_a_log_is_what_is_shown() {
        let log = "[System] starting\n[ERROR] [MY-1] no space left\n[ERROR] Aborting\n[System] shutdown\n\n";
        assert_eq!(first_error(log), "[ERROR] [MY-1] no space left");
        assert_eq!(first_error("one\ntwo\n"), "two");
        assert_eq!(first_error(""), "it says nothing");
    }
}
