//! The real `binlake` binary over a folder of its own: configuration, data, log. Gone when the test is gone.

#![allow(dead_code)] // each topic uses its own part of the harness

use super::lake::{LakeTable, Values};
use super::mysql::{PATIENCE, Server, within};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINLAKE: &str = env!("CARGO_BIN_EXE_binlake");

/// The pause between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);

/// A folder with a `binlake.toml`.
#[derive(Debug)]
pub(crate) struct Pipeline {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// With `BINLAKE_KEEP` set, the folder of a test that fails stays, to be looked at.
impl Drop for Pipeline {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("BINLAKE_KEEP").is_some() {
            println!("{} is kept", self.folder.path().display());
            self.folder.disable_cleanup(true);
        }
    }
}

impl Pipeline {
    /// A pipeline from `server` with quick commits; `tables` is the configuration's `[[table]]` sections.
    pub(crate) fn new(server: &Server, tables: &str) -> Self {
        Self::with_source(&server.repl_url(), "", tables)
    }

    /// As [`Pipeline::new`], with lines for `[lake]`.
    pub(crate) fn with_lake(server: &Server, lake: &str, tables: &str) -> Self {
        Self::with_source(&server.repl_url(), lake, tables)
    }

    /// With any source.
    pub(crate) fn with_source(url: &str, lake: &str, tables: &str) -> Self {
        let mut lake = lake.to_owned();
        for (key, value) in [("url", "\"file:./data/lake\""), ("commit_interval", "\"200ms\""), ("target_file_size", "\"1MiB\"")] {
            if !lake.lines().any(|line| line.trim_start().starts_with(key)) {
                lake += &format!("{key} = {value}\n");
            }
        }
        Self::from_text(&format!(
            "[source]\nurl = \"{url}\"\nheartbeat_interval = \"200ms\"\n[stream]\nurl = \"file:./data/stream\"\nlanes = 4\n\
             cut_interval = \"50ms\"\n[lake]\n{lake}[state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"off\"\n{tables}"
        ))
    }

    /// With any configuration.
    pub(crate) fn from_text(text: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("binlake-pipeline-").tempdir().unwrap();
        fs::write(folder.path().join("binlake.toml"), text).unwrap();
        Pipeline { folder, environment: Vec::new() }
    }

    /// With a variable in the environment of every command.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The folder of the configuration.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration's text.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path().join("binlake.toml")).unwrap()
    }

    /// Changes the configuration.
    pub(crate) fn set_config(&self, text: &str) {
        fs::write(self.path().join("binlake.toml"), text).unwrap();
    }

    /// The lake's folder.
    pub(crate) fn lake(&self) -> PathBuf {
        self.path().join("data/lake")
    }

    /// A table of the lake, as files.
    pub(crate) fn table(&self, database: &str, name: &str) -> LakeTable {
        LakeTable::new(self.lake().join(database).join(name))
    }

    /// The service's log, of all its runs.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("service.log")).unwrap_or_default()
    }

    fn command(&self, program: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(arguments).arg("-c").arg(self.path().join("binlake.toml")).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end; one that hangs is killed, so that the test ends.
    pub(crate) fn answer(&self, arguments: &[&str]) -> Answer {
        let patience = PATIENCE.as_secs().to_string();
        self.command(&["timeout", "--signal=KILL", &patience, BINLAKE], arguments).output().unwrap().into()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.answer(arguments);
        assert_eq!(answer.code, 0, "binlake {} said: {}{}", arguments.join(" "), answer.out, answer.err);
        answer.out
    }

    /// Starts `binlake run`.
    pub(crate) fn run(&self) -> Service {
        self.start(&["run"])
    }

    /// Starts a command that goes on until it is stopped; its output goes to the log.
    pub(crate) fn start(&self, arguments: &[&str]) -> Service {
        let log = File::options().create(true).append(true).open(self.path().join("service.log")).unwrap();
        let child = self.command(&[BINLAKE], arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Service { keeper: keep(&child), child }
    }

    /// Waits until the lake table holds what `SELECT * FROM` the source's table gives, with no key twice. The source must be at rest.
    pub(crate) async fn catches_up(&self, server: &Server, database: &str, name: &str) {
        self.catches_up_in(PATIENCE, server, database, name).await;
    }

    /// The same with another patience, for a stream that has much behind.
    pub(crate) async fn catches_up_in(&self, patience: Duration, server: &Server, database: &str, name: &str) {
        let (columns, expected) = source_rows(server, database, name).await;
        let columns: Vec<&str> = std::iter::once("_hoodie_record_key").chain(columns.iter().map(String::as_str)).collect();
        let table = self.table(database, name);
        let (mut last, mut keys) = (Vec::new(), BTreeSet::new());
        let same = within(patience, async || {
            keys.clear();
            let rows = table.values(None, &columns).unwrap_or_default(); // a file that was just cleaned away: look again
            let row = |mut row: Values| {
                keys.insert(row.remove(0));
                row
            };
            last = rows.into_iter().map(row).collect();
            last.sort();
            last == expected && !table.instants().is_empty()
        });
        if !same.await {
            panic!("{database}.{name}: {}\n{}", difference(&expected, &last), self.log_tail());
        }
        assert_eq!(keys.len(), last.len(), "{database}.{name} holds a key twice");
    }

    /// SIGSTOP, at a moment when the process holds no lock of the state store's file: all others would wait for it, too.
    pub(crate) fn pause(&self, service: &Service) {
        let until = Instant::now() + PATIENCE;
        loop {
            service.signal("STOP");
            while !service.stands_still() {
                std::thread::sleep(LOOK);
            }
            if self.state_can_be_written() {
                return;
            }
            service.signal("CONT");
            assert!(Instant::now() < until, "the state store is never free");
        }
    }

    fn state_can_be_written(&self) -> bool {
        let path = self.path().join("data/state.db");
        if !path.exists() {
            return true;
        }
        let file = rusqlite::Connection::open(path).unwrap();
        file.busy_timeout(Duration::from_secs(1)).unwrap();
        file.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
    }

    /// An ERROR means that a person must look, and nothing here is a reason; nor may anything panic.
    pub(crate) fn assert_calm_log(&self) {
        let log = self.log();
        let alarm = log.lines().find(|line| line.contains("ERROR") || line.starts_with("error: ") || line.contains("panicked at"));
        assert!(alarm.is_none(), "in the log: {alarm:?}");
    }

    /// The end of the service's log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// A source table's columns, and its rows as `SELECT *` gives them, sorted.
pub(crate) async fn source_rows(server: &Server, database: &str, name: &str) -> (Vec<String>, Vec<Values>) {
    let mut client = server.client().await;
    let columns = client.rows(&format!("SHOW COLUMNS FROM {database}.{name}")).await;
    let mut rows = client.rows(&format!("SELECT * FROM {database}.{name}")).await;
    for (i, column) in columns.iter().enumerate() {
        // The server prints as many digits as the column has; readers know only the value.
        if column[1].as_ref().is_some_and(|kind| kind.starts_with("timestamp(") || kind.starts_with("datetime(")) {
            rows.iter_mut().filter_map(|row| row[i].as_mut()).for_each(|text| *text = without_zeros(text));
        }
    }
    rows.sort();
    (columns.into_iter().map(|mut column| column.remove(0).unwrap()).collect(), rows)
}

/// `12:00:00.500000` → `12:00:00.5`.
pub(crate) fn without_zeros(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

/// Adds to a file, in whatever folder.
pub(crate) fn append(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The first rows that two sorted sets of rows don't share.
pub(crate) fn difference(expected: &[Values], found: &[Values]) -> String {
    let missing: Vec<_> = expected.iter().filter(|row| found.binary_search(row).is_err()).take(3).collect();
    let surplus: Vec<_> = found.iter().filter(|row| expected.binary_search(row).is_err()).take(3).collect();
    format!("{} rows expected, {} found; missing {missing:?}; not expected {surplus:?}", expected.len(), found.len())
}

/// A running `binlake`. Dropped: killed.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    keeper: Child,
}

/// Kills the process when this one ends, however it ends: the shell's standard input is a pipe from here.
fn keep(child: &Child) -> Child {
    let script = "trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $1";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "keeper", &child.id().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Service {
    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and waits for the end. A process that has only just begun is given the time to listen for it.
    pub(crate) fn terminate(self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while !self.listens() {
            assert!(Instant::now() < until, "it doesn't listen to SIGTERM");
            std::thread::sleep(LOOK);
        }
        self.signal("TERM");
        self.wait()
    }

    /// Whether it would see a SIGTERM, or has ended.
    fn listens(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let caught = line("SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
        const TERM: u32 = 15;
        caught & (1 << (TERM - 1)) != 0 || line("State:").is_none_or(|state| state.starts_with('Z'))
    }

    /// Whether all of its threads are stopped.
    fn stands_still(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        threads.flatten().all(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("T");
            state.trim().starts_with(['T', 'Z', 'X'])
        })
    }

    /// Waits for the end, at most as long as a hung test should live.
    pub(crate) fn wait(mut self) -> ExitStatus {
        // A process that hangs must not hang the tests: after a while it is killed, and the status says so.
        let (pid, tenths) = (self.pid().to_string(), (PATIENCE.as_secs() * 10).to_string());
        let script =
            "i=0; while kill -0 $1 2>/dev/null && [ $i -lt $2 ]; do sleep 0.1; i=$((i+1)); done; [ $i -lt $2 ] || kill -9 $1";
        let mut watchdog =
            Command::new("sh").args(["-c", script, "watchdog", &pid, &tenths]).stderr(Stdio::null()).spawn().unwrap();
        let status = self.child.wait().unwrap();
        watchdog.kill().ok();
        watchdog.wait().ok();
        status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let stdin: Option<ChildStdin> = self.keeper.stdin.take();
        self.keeper.kill().ok(); // it must not kill a stranger with the same number later
        drop(stdin);
        self.keeper.wait().ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
