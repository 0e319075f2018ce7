//! Several processes on one pipeline: captures of which one leads, mergers that share the tables by leases. Killed, stopped, paused, joined by others:
//! the lake ends equal to the source, and each table is applied by one at a time.

mod chaos;
mod histories;
mod kcl;
mod operations;

use crate::mysql::{Client, Flavour, Server, eventually};
use crate::service::{Pipeline, Service};
use std::collections::BTreeSet;

/// Tables `t0`, `t1`, …: (id, value).
struct Scene {
    server: &'static Server,
    database: String,
    client: Client,
    pipeline: Pipeline,
    tables: Vec<String>,
    next: u64,
}

impl Scene {
    async fn new(tables: usize) -> Self {
        let server = Server::shared(Flavour::MySql);
        server.create_repl_user().await;
        let database = server.create_database("cluster").await;
        let mut client = server.client().await;
        client.run(&format!("USE {database}")).await;
        let tables: Vec<String> = (0..tables).map(|number| format!("t{number}")).collect();
        for table in &tables {
            client.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, value VARCHAR(40))")).await;
            client.run(&format!("INSERT INTO {table} VALUES (1, 'one'), (2, 'two')")).await;
        }
        let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
        let scene = Scene { server, database, client, pipeline, tables, next: 100 };
        scene.set("[state]", "[state]\nlease_duration = \"2s\"");
        scene
    }

    /// Changes the configuration.
    fn set(&self, text: &str, by: &str) {
        let config = self.pipeline.config();
        assert!(config.contains(text), "{config}");
        self.pipeline.set_config(&config.replacen(text, by, 1));
    }

    /// A change in each table.
    async fn change(&mut self) {
        self.next += 1;
        for table in &self.tables {
            let id = self.next;
            self.client.run(&format!("INSERT INTO {table} VALUES ({id}, 'row {id}')")).await;
            self.client.run(&format!("UPDATE {table} SET value = 'seen {id}' WHERE id = 1")).await;
        }
    }

    async fn catches_up(&self) {
        for table in &self.tables {
            self.pipeline.catches_up(self.server, &self.database, table).await;
        }
    }

    /// The processes that made the newest commit of each table.
    fn writers(&self) -> Vec<String> {
        self.tables.iter().map(|table| self.pipeline.table(&self.database, table).writer().to_string()).collect()
    }

    /// Waits until changes are applied by these processes and no other, each with its fair part.
    async fn is_shared_by(&mut self, services: &[&Service]) {
        let expected: BTreeSet<String> = services.iter().map(|service| service.pid().to_string()).collect();
        let most = self.tables.len().div_ceil(services.len());
        for _ in 0..60 {
            self.change().await;
            self.catches_up().await;
            let writers = self.writers();
            let is_fair = expected.iter().all(|pid| (1..=most).contains(&writers.iter().filter(|writer| *writer == pid).count()));
            if is_fair && writers.iter().all(|writer| expected.contains(writer)) {
                return;
            }
        }
        panic!("not shared by {expected:?}: {:?}\n{}", self.writers(), self.pipeline.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capture_and_merge_apart_and_the_stream_is_released() {
    let mut scene = Scene::new(2).await;
    scene.set("[stream]", "[stream]\nsegment_size = \"4KiB\"\nretention = \"1ms\"\nretention_size = \"0\"");
    let mut capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let mut merge = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    let first = segments(&scene.pipeline);
    for round in 0..4 {
        scene.change().await;
        scene.catches_up().await;
        // each in turn, and the other goes on
        if round % 2 == 0 {
            capture.kill();
            scene.change().await;
            capture = scene.pipeline.start(&["capture"]);
        } else {
            merge.kill();
            scene.change().await;
            merge = scene.pipeline.start(&["merge"]);
        }
    }
    scene.catches_up().await;
    for _ in 0..200 {
        if first.is_disjoint(&segments(&scene.pipeline)) {
            break;
        }
        scene.change().await;
        scene.catches_up().await;
    }
    assert!(first.is_disjoint(&segments(&scene.pipeline)), "{first:?} are still there");
    scene.change().await;
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    assert!(merge.terminate().success(), "{}", scene.pipeline.log_tail());
    // what had not been read yet when the signal came is the next ones'
    let both = ["capture", "merge"].map(|half| scene.pipeline.start(&[half]));
    scene.change().await;
    scene.catches_up().await;
    for half in both {
        assert!(half.terminate().success(), "{}", scene.pipeline.log_tail());
    }
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_tables_and_take_over() {
    let mut scene = Scene::new(5).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&first]).await;
    let second = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&first, &second]).await;
    // killed: the other takes over when the leases run out
    first.kill();
    scene.is_shared_by(&[&second]).await;
    let third = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&second, &third]).await;
    // told to stop: it commits and gives back
    assert!(second.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.is_shared_by(&[&third]).await;
    // a table that is new
    scene.client.run("CREATE TABLE late (id INT PRIMARY KEY, value VARCHAR(40))").await;
    scene.tables.push("late".into());
    scene.is_shared_by(&[&third]).await;
    assert!(third.terminate().success() && capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_is_fenced_and_gives_way() {
    let mut scene = Scene::new(3).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let sleeper = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&sleeper]).await;
    scene.pipeline.pause(&sleeper);
    let other = scene.pipeline.start(&["merge"]);
    scene.is_shared_by(&[&other]).await;
    sleeper.signal("CONT");
    scene.is_shared_by(&[&sleeper, &other]).await;
    assert!(sleeper.terminate().success() && other.terminate().success(), "{}", scene.pipeline.log_tail());
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_stands_by_and_takes_over() {
    let mut scene = Scene::new(1).await;
    let leader = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let merge = scene.pipeline.start(&["merge"]);
    scene.catches_up().await;
    let mut standby = scene.pipeline.start(&["capture"]);
    eventually("the second stands by", async || scene.pipeline.log().contains("standing by: another captures")).await;
    leader.kill();
    scene.change().await;
    scene.catches_up().await;
    assert!(standby.is_running());
    // and by the quick way: the leader gives the lead back
    let third = scene.pipeline.start(&["capture"]);
    assert!(standby.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.change().await;
    scene.catches_up().await;
    assert!(third.terminate().success() && merge.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_store_costs_nothing_but_time() {
    let mut scene = Scene::new(3).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let workers = [scene.pipeline.start(&["merge"]), scene.pipeline.start(&["merge"])];
    scene.is_shared_by(&[&workers[0], &workers[1]]).await;
    workers.into_iter().for_each(Service::kill);
    capture.kill();
    scene.change().await;
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(scene.pipeline.path().join("data").join(file)).ok();
    }
    let capture = scene.pipeline.start(&["capture"]);
    let workers = [scene.pipeline.start(&["merge"]), scene.pipeline.start(&["merge"])];
    scene.is_shared_by(&[&workers[0], &workers[1]]).await;
    assert!(workers.map(|worker| worker.terminate().success()).iter().all(|well| *well), "{}", scene.pipeline.log_tail());
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_stand_by_where_fewer_are_asked_for() {
    let mut scene = Scene::new(4).await;
    let capture = scene.pipeline.start(&["capture"]);
    eventually("there is a stream", async || scene.pipeline.path().join("data/stream/stream.json").exists()).await;
    let workers = [scene.pipeline.start(&["merge"]), scene.pipeline.start(&["merge"])];
    scene.is_shared_by(&[&workers[0], &workers[1]]).await;
    assert_eq!(scene.pipeline.ok(&["scale", "--workers", "1"]), "workers  all -> 1\n");
    let mut only = None;
    for _ in 0..60 {
        scene.change().await;
        scene.catches_up().await;
        let writers: BTreeSet<String> = scene.writers().into_iter().collect();
        if let ([only_one], true) = (writers.iter().collect::<Vec<_>>().as_slice(), writers.len() == 1) {
            only = workers.iter().position(|worker| worker.pid().to_string() == **only_one);
            break;
        }
    }
    let only = only.unwrap_or_else(|| panic!("{:?}\n{}", scene.writers(), scene.pipeline.log_tail()));
    let seat = format!(":{}:", workers[only].pid());
    eventually("it has the seat", async || {
        let shown = scene.pipeline.ok(&["scale"]);
        shown.starts_with("workers  1\n") && shown.contains(&seat)
    })
    .await;
    // who has the seat dies: the other takes it, and the tables
    let mut workers = Vec::from(workers);
    workers.remove(only).kill();
    scene.is_shared_by(&[&workers[0]]).await;
    assert_eq!(scene.pipeline.ok(&["scale", "--workers", "all"]), "workers  1 -> all\n");
    workers.push(scene.pipeline.start(&["merge"]));
    scene.is_shared_by(&[&workers[0], &workers[1]]).await;
    // shards are Kinesis's
    let answer = scene.pipeline.answer(&["scale", "--shards", "2"]);
    assert_eq!(answer.code, 2, "{}", answer.err);
    // by the clock: the rule whose time came last is brought about when the capture starts
    let rule = "[[scale]]\nat = \"* * * * *\"\nworkers = 1\n[[table]]";
    scene.set("[[table]]", rule);
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    let capture = scene.pipeline.start(&["capture"]);
    eventually("one has a seat", async || scene.pipeline.ok(&["scale"]).starts_with("workers  1\n")).await;
    for worker in workers {
        assert!(worker.terminate().success(), "{}", scene.pipeline.log_tail());
    }
    assert!(capture.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.pipeline.assert_calm_log();
}

/// The names of the stream's segments.
fn segments(pipeline: &Pipeline) -> BTreeSet<String> {
    let names = std::fs::read_dir(pipeline.path().join("data/stream")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name.ends_with(".segment")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_merge_stopped_holds_no_stream_and_comes_back() {
    let mut scene = Scene::new(1).await;
    let database = scene.database.clone();
    scene.client.run("CREATE TABLE odd (code INT PRIMARY KEY, value VARCHAR(40))").await;
    scene.client.run("INSERT INTO odd VALUES (1, 'one'), (2, 'two')").await;
    scene.set("[stream]", "[stream]\nsegment_size = \"4KiB\"\nretention = \"1ms\"\nretention_size = \"0\"");
    let service = scene.pipeline.run();
    scene.catches_up().await;
    scene.pipeline.catches_up(scene.server, &database, "odd").await;
    let first = segments(&scene.pipeline);
    // a name that is ours: the merge can't give the lake's table this column
    scene.client.run("ALTER TABLE odd ADD COLUMN _commit_ts INT").await;
    scene.client.run("INSERT INTO odd VALUES (4, 'four', 4)").await;
    eventually("the table is stopped", async || scene.pipeline.log().contains("the table is stopped; the others go on")).await;
    for _ in 0..300 {
        scene.change().await;
        scene.catches_up().await;
        if first.is_disjoint(&segments(&scene.pipeline)) {
            break;
        }
    }
    assert!(first.is_disjoint(&segments(&scene.pipeline)), "{first:?} are still there");
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    // the others go on, though the stream no longer has what this one lacks
    let service = scene.pipeline.run();
    scene.change().await;
    scene.catches_up().await;
    eventually("it says so", async || scene.pipeline.log().contains("the stream no longer has what the table lacks")).await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
    scene.client.run("ALTER TABLE odd DROP COLUMN _commit_ts").await;
    scene.client.run("INSERT INTO odd VALUES (3, 'three')").await;
    scene.pipeline.ok(&["backfill", "--table", &format!("{database}.odd")]);
    scene.pipeline.catches_up(scene.server, &database, "odd").await;
    let service = scene.pipeline.run();
    scene.client.run("UPDATE odd SET value = 'drei' WHERE code = 3").await;
    scene.change().await;
    scene.catches_up().await;
    scene.pipeline.catches_up(scene.server, &database, "odd").await;
    assert!(service.terminate().success(), "{}", scene.pipeline.log_tail());
}
