//! Another server takes over: the places in its binlog are others, and what it commits comes after all of the former one's.

use super::{at, expected, versions};
use crate::capture::Scene;
use crate::mysql::{Client, Options, Server, eventually, free_address};
use crate::service::Pipeline;
use crate::surface::ask;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// An address behind which one server stands, then another.
struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
    links: Arc<Mutex<Vec<TcpStream>>>,
}

impl Forwarder {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let forwarder =
            Self { port: listener.local_addr().unwrap().port(), target: Arc::new(AtomicU16::new(port)), links: Arc::default() };
        let (target, links) = (forwarder.target.clone(), forwarder.links.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // nobody switches between the two: a link to the former server would stay
                let mut links = links.lock().unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    links.push(from.try_clone().unwrap());
                    thread::spawn(move || carry(from, to));
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
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

async fn executed(client: &mut Client) -> String {
    client.value("SELECT @@gtid_executed").await.replace('\n', "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_commits_comes_after() {
    // they end with this process
    let first: &'static Server = Box::leak(Box::new(Server::start(Options::default())));
    let second: &'static Server = Box::leak(Box::new(Server::start(Options::default().with("--server-id=2"))));
    first.create_repl_user().await;
    let mut client = first.client().await;
    client.run("CREATE DATABASE f").await;
    for _ in 0..5 {
        client.run("FLUSH BINARY LOGS").await;
    }
    client.run_all("USE f; CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    let mut other = second.client().await;
    let replicate = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'repl', SOURCE_PASSWORD = 'secret', \
         SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        first.port()
    );
    other.run(&replicate).await;
    other.run("START REPLICA").await;
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
            eventually("the replica has all", async || executed(&mut other).await == all).await;
            other.run("STOP REPLICA").await;
            other.run("USE f").await;
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
