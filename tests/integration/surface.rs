//! What an operator sees of a running service: the admin interface, the lists of tables and commits, queries as of a position, `verify`.

use super::mysql::{Flavour, PATIENCE, Server, eventually, free_address};
use super::service::Pipeline;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The answer's status and body; `None` while nobody listens.
pub(crate) async fn ask(address: &str, path: &str) -> Option<(u16, String)> {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

/// Asks for something by JSON.
pub(crate) async fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json");
    request(address, &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await.expect("nobody listens")
}

pub(crate) async fn request(address: &str, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

async fn scene(topic: &str) -> (&'static Server, String) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.Orders (Id INT PRIMARY KEY, Note VARCHAR(50), Price DECIMAL(10,2))")).await;
    client.run(&format!("INSERT INTO {database}.Orders VALUES (1,'a',1.50),(2,NULL,2),(3,'ü',3)")).await;
    (server, database)
}

#[tokio::test]
async fn an_operator_sees_what_runs() {
    let (server, database) = scene("surface").await;
    let mut client = server.client().await;
    let address = free_address();
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let service = pipeline.run();
    eventually("/readyz says 200", async || ask(&address, "/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    assert_eq!(ask(&address, "/healthz").await.unwrap().0, 200);
    pipeline.catches_up(server, &database, "Orders").await;

    // what the server has by now may be others' as well
    let before = {
        let orders = pipeline.table(&database, "Orders");
        let last = orders.commit(&orders.instants().pop().unwrap());
        last["extraMetadata"]["binlake.position"].as_str().unwrap().to_owned()
    };
    client.run(&format!("UPDATE {database}.Orders SET Price = 500 WHERE Id = 2")).await;
    pipeline.catches_up(server, &database, "Orders").await;
    let table = format!("{database}.Orders");
    let price = |arguments: &[&str]| {
        let sql = format!("SELECT price FROM {database}.orders WHERE ID = 2");
        pipeline.ok(&[&["query", &sql, "--format", "csv"], arguments].concat())
    };
    assert_eq!(price(&[]), "Price\n500.00\n");
    assert_eq!(price(&["--as-of", &before]), "Price\n2.00\n");

    let timeline: Value = serde_json::from_str(&pipeline.ok(&["timeline", &table, "--format", "json"])).unwrap();
    let rows = |operation: &str| timeline.as_array().unwrap().iter().map(|line| line[operation].as_u64().unwrap()).sum::<u64>();
    assert_eq!((rows("inserted"), rows("updated"), rows("deleted")), (3, 1, 0), "{timeline}");
    let first = timeline[0]["instant"].as_str().unwrap();
    assert_eq!(price(&["--as-of", first]), "Price\n2.00\n");
    let tables: Value = serde_json::from_str(&pipeline.ok(&["tables", "--format", "json"])).unwrap();
    assert_eq!((tables[0]["table"].as_str(), tables[0]["rows"].as_u64()), (Some(table.as_str()), Some(3)), "{tables}");
    assert_eq!(tables[0]["state"], "live", "{tables}");

    // what is in the lake is counted a moment later
    eventually("the update is counted", async || {
        let status: Value = serde_json::from_str(&ask(&address, "/status").await.unwrap().1).unwrap();
        status["tables"][&table]["updated"] == 1
    })
    .await;
    let line = format!("binlake_committed_rows_total{{table=\"{table}\",operation=\"u\"}} 1");
    eventually("the metrics have it", async || {
        let (_, metrics) = ask(&address, "/metrics").await.unwrap();
        metrics.contains(&line) && metrics.contains("binlake_freshness_seconds_bucket")
    })
    .await;
    // cleaning keeps the file before the last commit's, so that there must be a third
    client.run(&format!("UPDATE {database}.Orders SET Note = 'z' WHERE Id = 1")).await;
    pipeline.catches_up(server, &database, "Orders").await;
    assert_eq!(pipeline.answer(&["clean", &table]).code, 5, "the service has the table");
    assert!(service.terminate().success());

    let cleaned = pipeline.ok(&["clean", &table, "--retain", "1"]);
    assert!(cleaned.starts_with(&format!("{table}: ")) && !cleaned.contains(": 0 files"), "{cleaned}");
    assert_eq!(price(&[]), "Price\n500.00\n");
    let sql = format!("SELECT * FROM {table}");
    let gone = pipeline.answer(&["query", &sql, "--as-of", first]);
    assert_eq!(gone.code, 5, "{}{}", gone.out, gone.err);
}

#[tokio::test]
async fn verify_lists_the_keys_that_differ() {
    let (server, database) = scene("verify").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    pipeline.ok(&["backfill"]);
    let equal = pipeline.ok(&["verify"]);
    assert!(equal.starts_with(&format!("{database}.Orders: equal, 3 rows, at ")), "{equal}");
    // the service is stopped, and the source goes on
    let mut client = server.client().await;
    client.run(&format!("UPDATE {database}.Orders SET Note = 'b', Price = NULL WHERE Id = 1")).await;
    client.run(&format!("DELETE FROM {database}.Orders WHERE Id = 2")).await;
    client.run(&format!("INSERT INTO {database}.Orders VALUES (4,'d',4)")).await;
    let answer = pipeline.answer(&["verify", "--wait", "0s"]);
    assert_eq!(answer.code, 1, "{}", answer.err);
    let keys: Vec<&str> = answer.out.lines().skip(1).collect();
    assert_eq!(keys, ["  Id=1  differs in Note, Price", "  Id=2  only in the lake", "  Id=4  missing in the lake"]);
    let unknown = pipeline.answer(&["verify", "--table", "no.such"]);
    assert_eq!(unknown.code, 2, "{}", unknown.err);

    // with a service that catches up, and a source that doesn't rest, all is equal
    let service = pipeline.run();
    let (done, over) = tokio::sync::watch::channel(false);
    let writing = async {
        for i in 5.. {
            client.run(&format!("INSERT INTO {database}.Orders VALUES ({i},'x',1)")).await;
            client.run(&format!("UPDATE {database}.Orders SET Price = Price + 1 WHERE Id > {i} - 50")).await;
            if *over.borrow() {
                break;
            }
        }
    };
    let verify = async {
        let folder = pipeline.path().join("binlake.toml");
        // the service has only just been started
        let wait = format!("{}s", PATIENCE.as_secs());
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_binlake"));
        let output = command.args(["verify", "--wait", &wait, "-c"]).arg(folder).output().await.unwrap();
        done.send_replace(true);
        output
    };
    let ((), output) = tokio::join!(writing, verify);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    pipeline.catches_up(server, &database, "Orders").await;
    assert!(service.terminate().success());
    assert!(pipeline.ok(&["verify"]).contains(": equal, "));
}

#[tokio::test]
async fn a_running_service_copies_tables_anew_when_it_is_asked() {
    let (server, database) = scene("asked").await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.other (id INT PRIMARY KEY, v INT)")).await;
    client.run(&format!("INSERT INTO {database}.other VALUES (1, 1), (2, 2)")).await;
    let address = free_address();
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "Orders").await;
    pipeline.catches_up(server, &database, "other").await;
    // a second service has the address taken because the first is at work; another pipeline's only finds it taken
    let second = pipeline.answer(&["run", "--log-level", "off"]);
    assert_eq!((second.code, second.err.lines().count()), (4, 1), "{}", second.err);
    assert!(
        second.err.contains("another process works on this pipeline") && second.err.contains("stop it first"),
        "{}",
        second.err
    );
    let other = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    other.set_config(&other.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let taken = other.answer(&["run", "--log-level", "off"]);
    assert_eq!((taken.code, taken.err.lines().count()), (2, 1), "{}", taken.err);
    assert!(taken.err.contains("key=admin.listen"), "{}", taken.err);

    client.run(&format!("ALTER TABLE {database}.Orders DROP COLUMN Note")).await;
    client.run(&format!("INSERT INTO {database}.Orders VALUES (4, 4)")).await;
    let stopped = async || ask(&address, "/status").await.unwrap().1.contains("a column was dropped");
    eventually("the table is stopped", stopped).await;

    // the command says how to ask
    let table = format!("{database}.Orders");
    let refused = pipeline.answer(&["backfill", "--table", &table, "--log-level", "off"]);
    assert_eq!((refused.code, refused.err.lines().count()), (4, 1), "{}", refused.err);
    assert!(refused.err.contains(&format!("curl -X POST http://{address}/backfill")), "{}", refused.err);
    for (body, status) in [("{\"tables\": []}", 400), ("{\"tables\": [\"no.such\"]}", 404), ("{\"table\": []}", 422), ("x", 400)] {
        let (code, said) = post(&address, "/backfill", body).await;
        assert_eq!(code, status, "{body}: {said}");
    }
    // one that can't be done is said, and the service goes on
    let broken = format!("{{\"tables\": [\"{database}.other\"], \"where\": \"no_such_column = 1\"}}");
    assert_eq!(post(&address, "/backfill", &broken).await.0, 202);
    let is_about_it = |line: &str| line.contains("ERROR") && line.contains("no_such_column");
    eventually("it is said", async || pipeline.log().lines().any(is_about_it)).await;
    let both = format!("{{\"tables\": [\"{table}\", \"{database}.other\"]}}");
    assert_eq!(post(&address, "/backfill", &both).await.0, 202);
    client.run(&format!("UPDATE {database}.other SET v = v + 1")).await;
    pipeline.catches_up(server, &database, "Orders").await;
    pipeline.catches_up(server, &database, "other").await;
    client.run(&format!("UPDATE {database}.other SET v = v + 1")).await;
    client.run(&format!("DELETE FROM {database}.Orders WHERE Id = 1")).await;
    pipeline.catches_up(server, &database, "Orders").await;
    pipeline.catches_up(server, &database, "other").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

/// Somebody who wants to begin anew with a table: what the stream still has of it is not all of it.
#[tokio::test]
async fn a_table_whose_folder_was_removed_is_copied_anew() {
    let (server, database) = scene("removed").await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.other (id INT PRIMARY KEY, v INT)")).await;
    client.run(&format!("INSERT INTO {database}.other VALUES (1, 1), (2, 2)")).await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "Orders").await;
    pipeline.catches_up(server, &database, "other").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    std::fs::remove_dir_all(pipeline.lake().join(&database).join("other")).unwrap();
    client.run(&format!("UPDATE {database}.other SET v = 9 WHERE id = 2")).await;
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "other").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert!(pipeline.ok(&["verify"]).contains(": equal, "));
}

/// Where the stream no longer has what any table lacks, a copy of all of them brings them back: the remedy that is named.
#[tokio::test]
async fn a_lake_that_is_gone_is_made_anew_though_the_stream_begins_later() {
    let (server, database) = scene("lake_gone").await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.other (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)")).await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    let short = "[stream]\nretention = \"1ms\"\nretention_size = \"1KB\"\nsegment_size = \"10KB\"\n";
    pipeline.set_config(&pipeline.config().replace("[stream]\n", short));
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "Orders").await;
    for _ in 0..5 {
        let rows = "SELECT SHA2(RAND(), 512) FROM information_schema.columns LIMIT 200";
        client.run(&format!("INSERT INTO {database}.other (v) {rows}")).await;
        pipeline.catches_up(server, &database, "other").await;
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());

    std::fs::remove_dir_all(pipeline.lake()).unwrap();
    let refused = pipeline.answer(&["run", "--log-level", "off"]);
    assert_eq!((refused.code, refused.err.lines().count()), (4, 1), "{}", refused.err);
    assert!(refused.err.contains("take all tables anew with `binlake backfill`"), "{}", refused.err);
    pipeline.ok(&["backfill"]);
    let service = pipeline.run();
    client.run(&format!("INSERT INTO {database}.other (v) VALUES ('new')")).await;
    pipeline.catches_up(server, &database, "other").await;
    pipeline.catches_up(server, &database, "Orders").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert!(pipeline.ok(&["verify"]).contains(": equal, "));
}

#[tokio::test]
async fn capture_and_merge_as_processes_of_their_own() {
    let (server, database) = scene("apart").await;
    let mut client = server.client().await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    let early = pipeline.answer(&["merge", "--log-level", "off"]);
    assert_eq!((early.code, early.err.lines().count()), (4, 1), "{}", early.err);
    assert!(early.err.contains("there is no stream yet"), "{}", early.err);
    let capture = pipeline.start(&["capture"]);
    eventually("the snapshot is on the stream", async || pipeline.log().contains("the snapshot is complete")).await;
    let merge = pipeline.start(&["merge"]);
    pipeline.catches_up(server, &database, "Orders").await;
    client.run(&format!("UPDATE {database}.Orders SET Price = Price + 1")).await;
    pipeline.catches_up(server, &database, "Orders").await;
    // one of them is gone for a while, then the other
    assert!(merge.terminate().success(), "{}", pipeline.log_tail());
    client.run(&format!("INSERT INTO {database}.Orders VALUES (4, 'while the merge stands', 4)")).await;
    let merge = pipeline.start(&["merge"]);
    pipeline.catches_up(server, &database, "Orders").await;
    assert!(capture.terminate().success(), "{}", pipeline.log_tail());
    client.run(&format!("INSERT INTO {database}.Orders VALUES (5, 'while the capture stands', 5)")).await;
    let capture = pipeline.start(&["capture"]);
    pipeline.catches_up(server, &database, "Orders").await;
    assert!(capture.terminate().success() && merge.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
