//! Private MySQL and MariaDB servers for the tests: a fresh data folder each, a free port, gone when the test binary is gone.
//!
//! `scripts/mysql.sh` finds the server and prepares a template of the data folder, which each [`Server`] copies. A server runs under a small
//! shell that holds one end of a pipe: when the test process ends, however it ends, the pipe closes, and the shell kills the server
//! and removes its folder. Nothing here waits by sleeping: the server's own log says when it is ready.

#![allow(dead_code)] // each topic uses its own part of the harness

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flavour {
    MySql,
    MariaDb,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::MySql => "mysql",
            Flavour::MariaDb => "mariadb",
        }
    }

    /// The program and the template of a data folder beside it; made by the script at the first call.
    fn program(self) -> PathBuf {
        static FOUND: Mutex<Option<HashMap<Flavour, PathBuf>>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found
            .get_or_insert_default()
            .entry(self)
            .or_insert_with(|| {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mysql.sh");
                let output = Command::new(script).arg(self.name()).stderr(Stdio::inherit()).output().unwrap();
                assert!(output.status.success(), "scripts/mysql.sh {} failed", self.name());
                PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
            })
            .clone()
    }
}

/// How a server is started. The defaults are what Binlake wants: GTIDs, ROW, FULL images and metadata.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) flavour: Flavour,
    /// MySQL: `gtid_mode`. (MariaDB has its GTIDs always.)
    pub(crate) gtid: bool,
    /// `binlog_row_metadata`: FULL or MINIMAL.
    pub(crate) row_metadata: &'static str,
    /// `binlog_row_image`: FULL, MINIMAL or NOBLOB.
    pub(crate) row_image: &'static str,
    /// MySQL: `binlog_transaction_compression`; MariaDB: `log_bin_compress`.
    pub(crate) compression: bool,
    /// Any other options, as `--name=value`; they come last and win.
    pub(crate) extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flavour: Flavour::MySql,
            gtid: true,
            row_metadata: "FULL",
            row_image: "FULL",
            compression: false,
            extra: Vec::new(),
        }
    }
}

impl Options {
    /// MariaDB with the defaults.
    pub(crate) fn mariadb() -> Self {
        Options { flavour: Flavour::MariaDb, ..Options::default() }
    }

    /// With one more option of the server's, as `--name=value`.
    pub(crate) fn with(mut self, option: impl Into<String>) -> Self {
        self.extra.push(option.into());
        self
    }

    fn arguments(&self) -> Vec<String> {
        let on = |yes: bool| if yes { "ON" } else { "OFF" };
        let mut arguments: Vec<String> = [
            "--bind-address=127.0.0.1",
            "--log-bin=binlog",
            "--server-id=1",
            "--default-time-zone=+00:00",
            // A crash of the machine may lose what a test wrote; a crash of the server may not.
            "--innodb-flush-log-at-trx-commit=2",
            "--sync-binlog=0",
            "--innodb-buffer-pool-size=64M",
            "--performance-schema=OFF",
            "--max-connections=200",
            "--max-allowed-packet=1G",
            "--character-set-server=utf8mb4",
        ]
        .map(String::from)
        .to_vec();
        arguments.push(format!("--binlog-row-metadata={}", self.row_metadata));
        arguments.push(format!("--binlog-row-image={}", self.row_image));
        match self.flavour {
            Flavour::MySql => {
                arguments.extend(["--mysqlx=OFF", "--innodb-redo-log-capacity=64M"].map(String::from));
                arguments.push(format!("--gtid-mode={}", on(self.gtid)));
                arguments.push(format!("--enforce-gtid-consistency={}", on(self.gtid)));
                arguments.push(format!("--binlog-transaction-compression={}", on(self.compression)));
            }
            Flavour::MariaDb => {
                arguments.extend(["--skip-ssl", "--binlog-format=ROW", "--gtid-strict-mode=ON"].map(String::from));
                arguments.push(format!("--log-bin-compress={}", on(self.compression)));
            }
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// A running server. Dropped: killed, and its folder removed.
#[derive(Debug)]
pub(crate) struct Server {
    options: Options,
    port: u16,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    /// The shell: when its standard input closes, it kills the server.
    shell: Child,
    /// Copies the server's log to a file; ends with the server.
    log: JoinHandle<()>,
}

/// Runs the server; kills it when standard input ends. The shell's own standard error is closed, so that the server's end is seen.
const KEEPER: &str = r#"
folder=$1; shift
"$@" </dev/null &
server=$!
exec >/dev/null 2>&1
trap '' INT TERM HUP
while read -r line; do [ "$line" != keep ] || folder=; done
kill -9 $server
wait
[ -z "$folder" ] || rm -rf "$folder"
"#;

impl Server {
    /// Starts a server of its own for a test.
    pub(crate) fn start(options: Options) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("binlake-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let template = options.flavour.program().with_file_name("template");
        let status = Command::new("cp").arg("-a").arg("--reflink=auto").arg(template).arg(folder.join("data")).status();
        assert!(status.unwrap().success(), "the data folder's template can't be copied");
        for _ in 0..5 {
            let port = free_port();
            let server = Server { options: options.clone(), port, folder: folder.clone(), process: Mutex::new(None) };
            match server.launch() {
                Ok(()) => return server,
                // Somebody else took the port in between: once more with another.
                Err(log) if log.contains("Address already in use") => server.forget(),
                Err(log) => panic!("the server doesn't start:\n{log}"),
            }
        }
        panic!("no free port was found in five tries");
    }

    /// The server that all tests share which need nothing special; started at the first call.
    pub(crate) fn shared(flavour: Flavour) -> &'static Server {
        static MYSQL: OnceLock<Server> = OnceLock::new();
        static MARIADB: OnceLock<Server> = OnceLock::new();
        match flavour {
            Flavour::MySql => MYSQL.get_or_init(|| Server::start(Options::default())),
            Flavour::MariaDb => MARIADB.get_or_init(|| Server::start(Options::mariadb())),
        }
    }

    fn launch(&self) -> Result<(), String> {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&self.folder).arg(self.options.flavour.program());
        command.arg(format!("--datadir={}", self.data_folder().display()));
        command.arg(format!("--port={}", self.port));
        command.arg(format!("--socket={}", self.folder.join("socket").display()));
        command.arg(format!("--secure-file-priv={}", self.folder.display()));
        command.arg(format!("--pid-file={}", self.pid_file().display()));
        // The machine's superuser has to be named; others run it as themselves.
        if fs::metadata(&self.folder).is_ok_and(|folder| std::os::unix::fs::MetadataExt::uid(&folder) == 0) {
            command.arg("--user=root");
        }
        command.args(self.options.arguments());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let output = shell.stderr.take().unwrap();
        let (log_file, port) = (self.log_file(), self.port);
        let log = std::thread::spawn(move || copy_log(output, &log_file, port, &ready));
        *self.process.lock().unwrap() = Some(Process { shell, log });
        is_ready.recv().map_err(|_| fs::read_to_string(self.log_file()).unwrap_or_default())
    }

    /// Ends the server and waits until it is gone; its data stay.
    fn end(&self) {
        let Some(mut process) = self.process.lock().unwrap().take() else { return };
        let mut stdin = process.shell.stdin.take().unwrap();
        stdin.write_all(b"keep\n").ok();
        drop(stdin);
        process.shell.wait().ok();
        process.log.join().ok();
    }

    fn forget(&self) {
        self.end();
    }

    /// `kill -9`; the data folder stays, for [`Server::restart`].
    pub(crate) fn kill(&self) {
        self.end();
    }

    /// An orderly shutdown; the data folder stays, for [`Server::restart`].
    pub(crate) async fn stop(&self) {
        if let Ok(mut connection) = Conn::new(self.opts("root", "")).await {
            connection.query_drop("SHUTDOWN").await.ok();
        }
        let process = self.process.lock().unwrap().take();
        if let Some(Process { mut shell, log }) = process {
            log.join().ok(); // the log ends when the server does
            let mut stdin = shell.stdin.take().unwrap();
            stdin.write_all(b"keep\n").ok();
            drop(stdin);
            shell.wait().ok();
        }
    }

    /// Starts it again on the same port and data, after [`Server::kill`] or [`Server::stop`].
    pub(crate) fn restart(&self) {
        self.launch().unwrap_or_else(|log| panic!("the server doesn't start again:\n{log}"));
    }

    /// Starts it again with other options.
    pub(crate) fn restart_with(&mut self, options: Options) {
        self.options = options;
        self.restart();
    }

    /// Its TCP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        fs::read_to_string(self.pid_file()).unwrap().trim().parse().unwrap()
    }

    /// Its data folder, with the binlog files.
    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the server said.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("server.pid")
    }

    /// Its flavour.
    pub(crate) fn flavour(&self) -> Flavour {
        self.options.flavour
    }

    /// The configuration's `[source] url` for the user `repl`, as [`Server::create_repl_user`] makes it.
    pub(crate) fn repl_url(&self) -> String {
        format!("mysql://repl:secret@127.0.0.1:{}", self.port)
    }

    /// A URL for root, who has no password.
    pub(crate) fn root_url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port)
    }

    fn opts(&self, user: &str, password: &str) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some(user))
            .pass(Some(password))
            .prefer_socket(false)
            .max_allowed_packet(Some(1 << 30))
    }

    /// A connection as root.
    pub(crate) async fn client(&self) -> Client {
        self.client_as("root", "").await
    }

    /// A connection as any user.
    pub(crate) async fn client_as(&self, user: &str, password: &str) -> Client {
        Client { connection: Conn::new(self.opts(user, password)).await.expect("the server refuses the connection") }
    }

    /// Makes the user `repl` (password `secret`) with the rights that Binlake asks for; harmless when it exists.
    pub(crate) async fn create_repl_user(&self) {
        let mut root = self.client().await;
        root.run("CREATE USER IF NOT EXISTS repl@'%' IDENTIFIED BY 'secret'").await;
        root.run("GRANT SELECT, RELOAD, LOCK TABLES, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'%'")
            .await;
        if self.options.flavour == Flavour::MariaDb {
            root.run("GRANT BINLOG MONITOR ON *.* TO repl@'%'").await;
        }
    }

    /// Makes an empty database with a name of its own, so that tests can share a server, and returns the name.
    pub(crate) async fn create_database(&self, topic: &str) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{topic}_{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.client().await.run(&format!("CREATE DATABASE {name}")).await;
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log: {}", fs::read_to_string(self.log_file()).unwrap_or_default());
        }
        self.end();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Copies the log into a file, and says once when the server listens on `port`.
fn copy_log(output: ChildStderr, file: &Path, port: u16, ready: &mpsc::Sender<()>) {
    let mut file = File::options().create(true).append(true).open(file).unwrap();
    let listens = format!("port: {port} ");
    let mut ready = Some(ready.clone());
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}").ok();
        if format!("{line} ").contains(&listens)
            && let Some(ready) = ready.take()
        {
            ready.send(()).ok();
        }
    }
}

/// A connection for the tests' SQL; every error is a panic that shows the statement.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Conn,
}

impl Client {
    /// Runs one statement.
    pub(crate) async fn run(&mut self, sql: &str) {
        if let Err(error) = self.connection.query_drop(sql).await {
            panic!("{error}\nin: {}", &sql.chars().take(500).collect::<String>());
        }
    }

    /// Runs statements separated by `;` at the end of a line.
    pub(crate) async fn run_all(&mut self, sql: &str) {
        for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            self.run(statement.trim_end_matches(';')).await;
        }
    }

    /// Runs a statement that may fail, and returns the server's error.
    pub(crate) async fn try_run(&mut self, sql: &str) -> Result<(), mysql_async::Error> {
        self.connection.query_drop(sql).await
    }

    /// All rows, each value as the server prints it; `None` is NULL.
    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows: Vec<Row> = self.connection.query(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
        rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
    }

    /// The first column of the first row.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        rows.first().and_then(|row| row.first()?.clone()).unwrap_or_else(|| panic!("no value from: {sql}"))
    }

    /// Deletes all binlogs but the newest. A connection that read one and is gone holds it until the server has noticed.
    pub(crate) async fn purge_binlogs(&mut self) {
        eventually("the binlog is purged", async || {
            let last = self.rows("SHOW BINARY LOGS").await.pop().unwrap().remove(0).unwrap();
            // refused, or done in part with a warning, while somebody reads
            let _ = self.try_run(&format!("PURGE BINARY LOGS TO '{last}'")).await;
            self.rows("SHOW BINARY LOGS").await.len() == 1
        })
        .await;
    }

    /// The connection itself.
    pub(crate) fn connection(&mut self) -> &mut Conn {
        &mut self.connection
    }
}

/// A value of the text protocol: always bytes or NULL.
fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        }),
        other => Some(other.as_sql(true)),
    }
}

/// A port that is free, and stays so until the server that is told to take it does: it lies below those that the system gives to whoever asks for any, so
/// that neither another test's connection nor its server comes upon it by chance.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // where two runs of the tests are beside each other, each begins elsewhere
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + ((u32::from(start) + u32::from(taken)) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// The same as an address to listen on.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// As long as a hung test should live; a machine that has other things to do needs some of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Asks each 20 ms until `holds` says yes; whether it did so within `patience`.
pub(crate) async fn within<F: AsyncFnMut() -> bool>(patience: Duration, mut holds: F) -> bool {
    let asked = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(patience, asked).await.is_ok()
}

/// Waits until `holds` says yes, at most as long as a hung test should live.
pub(crate) async fn eventually<F: AsyncFnMut() -> bool>(what: &str, holds: F) {
    assert!(within(PATIENCE, holds).await, "after three minutes still not: {what}");
}

#[tokio::test]
async fn the_servers_start_with_the_options_they_were_given() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let mut client = server.client_as("repl", "secret").await;
    assert_eq!(client.value("SELECT @@gtid_mode").await, "ON");
    assert_eq!(client.value("SELECT @@binlog_row_metadata").await, "FULL");
    assert!(server.data_folder().join("binlog.000001").exists());

    let server = Server::start(Options { gtid: false, row_image: "MINIMAL", ..Options::default() });
    assert_eq!(server.client().await.value("SELECT CONCAT(@@gtid_mode, @@binlog_row_image)").await, "OFFMINIMAL");
    server.kill();
    server.restart();
    server.stop().await;
    server.restart();
    assert_eq!(server.client().await.value("SELECT 1").await, "1");

    let server = Server::shared(Flavour::MariaDb);
    server.create_repl_user().await;
    let mut client = server.client_as("repl", "secret").await;
    assert!(client.value("SELECT VERSION()").await.contains("MariaDB"));
    assert_eq!(client.value("SELECT @@binlog_row_metadata").await, "FULL");
}
