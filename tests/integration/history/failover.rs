//! Another server takes over: the places in its binlog are others, and what it commits comes after all of the former one's.

use super::{at, expected, versions};
use crate::capture::Scene;
use crate::mysql::{Client, Options, Server, eventually, free_address};
use crate::service::Pipeline;
use crate::surface::ask;
use binlake::event::TableState;
use binlake::stream::{EmbeddedLog, find_last_cut};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// An address behind which one server stands, then another.
struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
    links: Arc<Mutex<Vec<TcpStream>>>,
    valve: Arc<Valve>,
}

/// Lets so many bytes of what the servers say pass.
#[derive(Default)]
struct Valve {
    left: Mutex<Option<usize>>,
    opened: Condvar,
}

impl Valve {
    fn pass(&self, bytes: usize) {
        let mut left = self.left.lock().unwrap();
        while *left == Some(0) {
            left = self.opened.wait(left).unwrap();
        }
        *left = left.map(|left| left.saturating_sub(bytes));
    }

    fn set(&self, left: Option<usize>) {
        *self.left.lock().unwrap() = left;
        self.opened.notify_all();
    }
}

impl Forwarder {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let forwarder = Self {
            port: listener.local_addr().unwrap().port(),
            target: Arc::new(AtomicU16::new(port)),
            links: Arc::default(),
            valve: Arc::default(),
        };
        let (target, links, valve) = (forwarder.target.clone(), forwarder.links.clone(), forwarder.valve.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // nobody switches between the two: a link to the former server would stay
                let mut links = links.lock().unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))) else { continue };
                for (from, to, valve) in [(&near, &far, None), (&far, &near, Some(valve.clone()))] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    links.push(from.try_clone().unwrap());
                    thread::spawn(move || carry(from, to, valve));
                }
            }
        });
        forwarder
    }

    fn switch(&self, port: u16) {
        let mut links = self.links.lock().unwrap();
        self.target.store(port, Ordering::SeqCst);
        for link in links.drain(..) {
            // it may be closed already
            let _ = link.shutdown(Shutdown::Both);
        }
        self.valve.set(None);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, valve: Option<Arc<Valve>>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if let Some(valve) = &valve {
            valve.pass(count);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A server and its replica; they end with this process.
async fn pair(tables: &str) -> (&'static Server, Client, &'static Server, Client) {
    let first: &'static Server = Box::leak(Box::new(Server::start(Options::default())));
    let second: &'static Server = Box::leak(Box::new(Server::start(Options::default().with("--server-id=2"))));
    first.create_repl_user().await;
    let mut client = first.client().await;
    client.run("CREATE DATABASE f").await;
    for _ in 0..5 {
        client.run("FLUSH BINARY LOGS").await;
    }
    client.run_all(&format!("USE f; {tables}")).await;
    let mut other = second.client().await;
    let replicate = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'repl', SOURCE_PASSWORD = 'secret', \
         SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        first.port()
    );
    other.run(&replicate).await;
    other.run("START REPLICA").await;
    (first, client, second, other)
}

/// The replica has all, and is one no longer.
async fn promote(client: &mut Client, replica: &mut Client) {
    let all = executed(client).await;
    eventually("the replica has all", async || executed(replica).await == all).await;
    replica.run("STOP REPLICA").await;
    replica.run("USE f").await;
}

async fn executed(client: &mut Client) -> String {
    client.value("SELECT @@gtid_executed").await.replace('\n', "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_commits_comes_after() {
    let (first, client, second, mut other) = pair("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    let forwarder = Forwarder::to(first.port());
    let url = format!("mysql://repl:secret@127.0.0.1:{}", forwarder.port);
    // all that comes after the first commit comes in one
    let pipeline = Pipeline::with_source(&url, "commit_interval = \"1h\"\n", "[[table]]\nsource = \"f.t\"\nhistory = true\n");
    let address = free_address();
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let mut scene = Scene { server: first, database: "f".into(), pipeline, client };
    let service = scene.pipeline.run();
    eventually("the first commit is there", async || !scene.pipeline.table("f", "t").instants().is_empty()).await;
    let reads = async |wanted: &str| {
        eventually("it is captured", async || {
            let Some((_, status)) = ask(&address, "/status").await else { return false };
            serde_json::from_str::<Value>(&status).unwrap()["position"] == wanted
        })
        .await;
    };
    let mut changes: BTreeMap<i32, Vec<(String, Option<String>)>> = BTreeMap::new();
    for number in 0..12 {
        if number == 6 {
            let all = executed(&mut scene.client).await;
            reads(&all).await;
            promote(&mut scene.client, &mut other).await;
            forwarder.switch(second.port());
            std::mem::swap(&mut scene.client, &mut other);
        }
        let time = format!("2035-01-01 00:00:{number:02}");
        at(&mut scene, &time).await;
        let (key, value) = (number % 4, number);
        scene.run(&[&format!("REPLACE INTO t VALUES ({key}, {value})")]).await;
        changes.entry(key).or_default().push((time, Some(value.to_string())));
    }
    let all = executed(&mut scene.client).await;
    assert_eq!(all.matches(':').count(), 2, "of both: {all}");
    reads(&all).await;
    scene.ends_well(service);
    assert!(scene.pipeline.log().contains("another server took over"), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
    let table = scene.pipeline.table("f", "t");
    let has_rows =
        |instant: &String| table.commit(instant)["partitionToWriteStats"].as_object().is_some_and(|stats| !stats.is_empty());
    assert_eq!(table.instants().iter().filter(|instant| has_rows(instant)).count(), 1, "in one commit");
    // the system times are the commit times: of both servers, in their order
    assert_eq!(versions(&scene, "t", &["id", "v"]), expected(&changes));
}

/// Rows that the snapshot has read, and whether more remain, as the last whole cut says.
async fn read_so_far(pipeline: &Pipeline) -> Option<(u64, bool)> {
    let log = EmbeddedLog::open_to_read(&pipeline.path().join("data/stream")).ok()??;
    let (_, cut) = find_last_cut(&log).await.ok()?.cut?;
    match cut.tables.get(&"f.t".parse().unwrap())? {
        TableState::Snapshot(progress) => Some((progress.rows_read, !progress.remaining_chunks.is_empty())),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_meets_another_server_begins_anew() {
    let rows = "SET cte_max_recursion_depth = 5000; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20), filling VARCHAR(1000)); \
                INSERT INTO t WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 4000) SELECT id, 'old', REPEAT('x', 1000) FROM n; \
                CREATE TABLE small (id INT PRIMARY KEY); INSERT INTO small VALUES (1)";
    let (first, mut client, second, mut other) = pair(rows).await;
    let forwarder = Forwarder::to(first.port());
    let url = format!("mysql://repl:secret@127.0.0.1:{}", forwarder.port);
    let pipeline =
        Pipeline::with_source(&url, "", "[[table]]\nsource = \"f.t\"\nhistory = true\n[[table]]\nsource = \"f.small\"\n");
    let config = pipeline.config();
    pipeline.set_config(&config.replace("[stream]", "snapshot_connections = 1\nsnapshot_chunk_rows = 100\n[stream]"));
    forwarder.valve.set(Some(1_500_000));
    let service = pipeline.run();
    // what the valve lets pass is some of the rows: no more comes
    eventually("the snapshot is in its middle", async || {
        read_so_far(&pipeline).await.is_some_and(|(rows, has_more)| rows > 0 && has_more)
    })
    .await;
    // of the first half, and of the second
    for change in ["UPDATE t SET v = 'before' WHERE id IN (1, 3999)", "DELETE FROM t WHERE id IN (2, 3998)"] {
        client.run(change).await;
    }
    promote(&mut client, &mut other).await;
    other.run("UPDATE t SET v = 'between' WHERE id IN (3, 3997)").await;
    forwarder.switch(second.port());
    pipeline.catches_up(second, "f", "t").await;
    pipeline.catches_up(second, "f", "small").await;
    other.run("UPDATE t SET v = 'after' WHERE id IN (4, 3996)").await;
    pipeline.catches_up(second, "f", "t").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert!(pipeline.log().contains("its snapshot begins anew"), "{}", pipeline.log_tail());
    // no version is of a row that only the first server's snapshot had
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for version in pipeline.table("f", "t_history").values(None, &["id", "v"]).unwrap() {
        let [id, value] = [0, 1].map(|column| version[column].clone().unwrap());
        known.entry(id).or_default().insert(value);
    }
    let of =
        |id: i32| known.get(&id.to_string()).map(|values| values.iter().cloned().collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let found = [1, 2, 3, 4, 5, 3996, 3997, 3998, 3999].map(of);
    assert_eq!(found, ["before", "", "between", "after old", "old", "after old", "between", "", "before"]);
    assert_eq!(known.len(), 3998);
    pipeline.assert_calm_log();
}
