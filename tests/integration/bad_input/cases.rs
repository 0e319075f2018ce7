//! The mistakes, in the order of the data: configuration, source, stream, lake.

use super::{Case, failed};
use crate::lake::LakeTable;
use crate::mysql::{Flavour, Options, Server};
use crate::service::{Answer, Pipeline};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) type Outcome = Result<Case, String>;

/// What a case uses: a server with a small table, `items` (id, name).
pub(super) struct Ground {
    pub(super) server: &'static Server,
    pub(super) database: String,
}

impl Ground {
    async fn new() -> Self {
        let server = Server::shared(Flavour::MySql);
        server.create_repl_user().await;
        let database = server.create_database("bad").await;
        let ground = Ground { server, database };
        ground.sql("CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40))").await;
        ground.sql("INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')").await;
        ground.sql("CREATE TABLE orders (id INT PRIMARY KEY, doc JSON)").await;
        ground.sql("INSERT INTO orders VALUES (1, '{\"sku\": \"a\"}')").await;
        ground
    }

    async fn sql(&self, statement: &str) {
        let mut client = self.server.client().await;
        client.run(&format!("USE {}", self.database)).await;
        client.run(statement).await;
    }

    pub(super) fn rule(&self) -> String {
        format!("[[table]]\nsource = \"{}.items\"\n", self.database)
    }

    /// A pipeline whose lake has the table already.
    async fn filled(&self, lake: &str) -> Pipeline {
        let pipeline = Pipeline::with_lake(self.server, lake, &self.rule());
        let service = pipeline.run();
        pipeline.catches_up(self.server, &self.database, "items").await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
        pipeline
    }

    /// After the mistake is mended: the service goes on, and nothing is lost.
    async fn goes_on(&self, pipeline: &Pipeline) {
        self.sql("REPLACE INTO items VALUES (3, UUID()), (9, UUID())").await;
        let service = pipeline.run();
        pipeline.catches_up(self.server, &self.database, "items").await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    }

    fn table(&self, pipeline: &Pipeline) -> LakeTable {
        pipeline.table(&self.database, "items")
    }
}

/// Runs the service, which must end by itself.
pub(super) fn run(pipeline: &Pipeline) -> Answer {
    pipeline.answer(&["run", "--log-level", "off"])
}

pub(super) async fn all() -> Vec<Outcome> {
    let ground = Ground::new().await;
    let mut outcomes = configuration(&ground);
    outcomes.extend(super::made_of_rows::all(&ground));
    outcomes.extend(super::rules::applied(&ground).await);
    outcomes.extend(super::rules::children(&ground).await);
    outcomes.extend(connection(&ground).await);
    outcomes.extend(server_settings().await);
    outcomes.push(purged_binlog().await);
    outcomes.extend(stream(&ground).await);
    outcomes.extend(two_writers(&ground).await);
    outcomes.push(file_in_the_way(&ground).await);
    outcomes.push(damaged_base_file(&ground).await);
    outcomes.extend(disks(&ground).await);
    outcomes
}

fn configuration(ground: &Ground) -> Vec<Outcome> {
    let url = ground.server.repl_url();
    let of = |text: &str| run(&Pipeline::from_text(text));
    let unknown_key = format!("[source]\nurl = \"{url}\"\n[lake]\ncommit_intervall = \"1s\"\n{}", ground.rule());
    let no_variable = format!("[source]\nurl = \"mysql://repl:${{NOT_SET_ANYWHERE}}@127.0.0.1\"\n{}", ground.rule());
    let unknown_table = Pipeline::with_source(&url, "", &ground.rule().replace("items", "itms"));
    let unknown_key_column = Pipeline::with_source(&url, "", &(ground.rule() + "key = [\"idd\"]\n"));
    let unknown_partition_column = Pipeline::with_source(&url, "", &(ground.rule() + "partition_by = \"year(sold)\"\n"));
    let no_time = Pipeline::with_source(&url, "", &(ground.rule() + "history = { valid_time = \"since\" }\n"));
    let no_position = no_time.answer(&["query", "SELECT 1", "--at-position", "yesterday"]);
    vec![
        failed("A misspelt key in binlake.toml", of(&unknown_key), 2, &["commit_intervall", "commit_interval"]),
        failed("An environment variable that isn't set", of(&no_variable), 2, &["NOT_SET_ANYWHERE"]),
        failed("A table that the source doesn't have", run(&unknown_table), 3, &["itms"]),
        failed("A key column that the table doesn't have", run(&unknown_key_column), 2, &["idd", "items"]),
        failed("A valid time that the table doesn't have", run(&no_time), 2, &["since", "items"]),
        failed("A position that is none", no_position, 2, &["--at-position", "yesterday"]),
        failed("A partition column that the table doesn't have", run(&unknown_partition_column), 2, &["sold", "items"]),
    ]
}

async fn connection(ground: &Ground) -> Vec<Outcome> {
    ground.sql("CREATE USER IF NOT EXISTS poor@'%' IDENTIFIED BY 'secret'").await;
    ground.sql(&format!("GRANT SELECT ON {}.* TO poor@'%'", ground.database)).await;
    let of = |url: &str| run(&Pipeline::with_source(url, "", &ground.rule()));
    let url = ground.server.repl_url();
    vec![
        failed("A wrong password", of(&url.replace("secret", "wrong")), 3, &["repl", "Access denied"]),
        failed("A user without the grant to replicate", of(&url.replace("repl", "poor")), 3, &["REPLICATION", "grant"]),
    ]
}

/// A server of its own that is set up wrongly.
async fn wrong_server(title: &'static str, options: Options, mentions: &[&str]) -> Outcome {
    let server = Server::start(options);
    server.create_repl_user().await;
    let mut client = server.client().await;
    client.run("CREATE DATABASE shop").await;
    client.run("CREATE TABLE shop.items (id INT PRIMARY KEY)").await;
    failed(title, run(&Pipeline::new(&server, "[[table]]\nsource = \"shop.*\"\n")), 3, mentions)
}

async fn server_settings() -> Vec<Outcome> {
    let options = Options::default;
    vec![
        wrong_server("A server without a binlog", options().with("--skip-log-bin"), &["log_bin"]).await,
        wrong_server("A binlog of statements", options().with("--binlog-format=STATEMENT"), &["binlog_format", "ROW"]).await,
        wrong_server("Row images without all columns", Options { row_image: "MINIMAL", ..options() }, &["binlog_row_image"]).await,
        wrong_server(
            "JSON updates that hold only what changed",
            options().with("--binlog-row-value-options=PARTIAL_JSON"),
            &["binlog_row_value_options", "PARTIAL_JSON"],
        )
        .await,
        wrong_server("Table maps without names", Options { row_metadata: "MINIMAL", ..options() }, &["binlog_row_metadata"]).await,
    ]
}

async fn purged_binlog() -> Outcome {
    let server: &'static Server = Box::leak(Box::new(Server::start(Options::default())));
    server.create_repl_user().await;
    let ground = Ground { server, database: server.create_database("bad").await };
    ground.sql("CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40))").await;
    let pipeline = ground.filled("").await;
    ground.sql("INSERT INTO items VALUES (1, 'lost')").await;
    ground.sql("FLUSH BINARY LOGS").await;
    server.client().await.purge_binlogs().await;
    let answer = run(&pipeline);
    assert_eq!(ground.table(&pipeline).record_keys(None).len(), 0, "the lake must stay as it was");
    server.kill();
    failed("A binlog that was purged before it was read", answer, 3, &["purged"])
}

fn segments(pipeline: &Pipeline) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![pipeline.path().join("data/stream")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    // The largest hold the records; locks and notes beside them are small.
    found.sort_by_key(|path| fs::metadata(path).unwrap().len());
    found
}

async fn stream(ground: &Ground) -> Vec<Outcome> {
    let pipeline = ground.filled("").await;
    let segment = segments(&pipeline).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let attempt = |title, bytes: &[u8]| {
        fs::write(&segment, bytes).unwrap();
        failed(title, run(&pipeline), 4, &["data/stream", ".segment"])
    };
    let truncated = attempt("A truncated segment file of the stream", &whole[..whole.len() - 7]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0xFF;
    let damaged = attempt("A damaged segment file of the stream", &flipped);
    fs::write(&segment, &whole).unwrap();
    ground.goes_on(&pipeline).await;
    // Without the stream's files: the lake's own checkpoint says where to go on.
    fs::remove_dir_all(pipeline.path().join("data/stream")).unwrap();
    ground.goes_on(&pipeline).await;
    vec![truncated, damaged]
}

async fn two_writers(ground: &Ground) -> Vec<Outcome> {
    let first = ground.filled("").await;
    let service = first.run();
    ground.sql("INSERT INTO items VALUES (4, 'four')").await;
    first.catches_up(ground.server, &ground.database, "items").await;
    let same_stream = run(&first);
    ground.sql("INSERT INTO items VALUES (5, 'five')").await;
    first.catches_up(ground.server, &ground.database, "items").await;
    // another folder for the stream, but the same lake
    let lake = format!("url = \"file:{}\"\n", first.lake().display());
    let second = Pipeline::with_lake(ground.server, &lake, &ground.rule());
    // changes keep coming, or the second might start when the first has committed them all, and find nothing to do
    let (server, database) = (ground.server, ground.database.clone());
    let changes = tokio::spawn(async move {
        let mut client = server.client().await;
        loop {
            client.run(&format!("REPLACE INTO {database}.items VALUES (6, UUID())")).await;
        }
    });
    let same_lake = tokio::task::block_in_place(|| run(&second));
    changes.abort();
    ground.sql("INSERT INTO items VALUES (7, 'seven')").await;
    first.catches_up(ground.server, &ground.database, "items").await;
    assert!(service.terminate().success(), "{}", first.log_tail());
    vec![
        failed("A second `binlake run` on the same folders", same_stream, 4, &["data/stream"]),
        failed("A second `binlake run` on the same lake, with a stream of its own", same_lake, 5, &["items", "pid"]),
    ]
}

async fn file_in_the_way(ground: &Ground) -> Outcome {
    let pipeline = Pipeline::new(ground.server, &ground.rule());
    fs::create_dir_all(pipeline.path().join("data")).unwrap();
    fs::write(pipeline.lake(), "in the way").unwrap();
    let answer = run(&pipeline);
    fs::remove_file(pipeline.lake()).unwrap();
    ground.goes_on(&pipeline).await;
    failed("A lake folder that can't be made", answer, 5, &["data/lake"])
}

async fn damaged_base_file(ground: &Ground) -> Outcome {
    let pipeline = ground.filled("").await;
    let table = ground.table(&pipeline);
    let before = table.instants();
    let file = table.base_files(None).unwrap().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    ground.sql("UPDATE items SET name = 'touched' WHERE id = 1").await;
    let answer = run(&pipeline);
    let base_file = file.file_name().unwrap().to_str().unwrap();
    let outcome = failed("A damaged base file", answer, 5, &[base_file, "items"]);
    assert_eq!(table.instants(), before, "nothing may be committed over a damaged file");
    fs::write(&file, whole).unwrap();
    ground.goes_on(&pipeline).await;
    outcome
}

/// A file system of its own; unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this process may not mount.
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("binlake-disk-").tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Disk(folder))
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status().unwrap();
        assert!(done.success());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

async fn disks(ground: &Ground) -> Vec<Outcome> {
    let Some(disk) = Disk::mount("size=4m") else {
        println!("skipped: a full and a read-only disk, for this process may not mount (run the tests as root)");
        return Vec::new();
    };
    let lake = format!("url = \"file:{}/lake\"\n", disk.path().display());
    let pipeline = Pipeline::with_lake(ground.server, &lake, &ground.rule());
    let table = LakeTable::new(disk.path().join("lake").join(&ground.database).join("items"));
    let count = async |sql: &str| {
        let service = pipeline.run();
        let expected: usize = ground.server.client().await.value(sql).await.parse().unwrap();
        crate::mysql::eventually("the lake has all rows", async || {
            table.values(None, &["id"]).is_ok_and(|rows| rows.len() == expected)
        })
        .await;
        assert!(service.terminate().success(), "{}", pipeline.log_tail());
    };
    let all = format!("SELECT COUNT(*) FROM {}.items", ground.database);
    count(&all).await;

    disk.remount("ro");
    ground.sql("INSERT INTO items VALUES (100, 'read-only')").await;
    let read_only = failed("A read-only lake folder", run(&pipeline), 5, &["lake"]);
    disk.remount("rw");
    count(&all).await;

    let instants = table.instants();
    fs::write(disk.path().join("filler"), vec![0; 4 << 20]).ok(); // as much as there is room
    ground.sql("INSERT INTO items VALUES (101, 'full')").await;
    let full = failed("A full disk under the lake", run(&pipeline), 5, &["lake"]);
    assert_eq!(table.instants(), instants);
    fs::remove_file(disk.path().join("filler")).unwrap();
    count(&all).await;
    vec![read_only, full]
}
