//! The lake on S3: the whole way against a local server that speaks its protocol (moto, from PyPI), and the property that a commit rests on.

use crate::lake::LakeTable;
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::moto;
use crate::service::{Pipeline, source_rows};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A local S3 with one empty bucket, `lake`. Gone when dropped, or when this process ends.
pub(crate) struct S3 {
    keeper: Child,
    port: u16,
}

/// Runs the server with its log on our pipe; kills it when standard input ends.
const KEEPER: &str =
    r#""$@" </dev/null & server=$!; exec >/dev/null 2>&1; trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $server"#;

impl S3 {
    pub(crate) fn start() -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args(moto())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It takes a free port and says which: ` * Running on http://127.0.0.1:40001`.
        let mut log = BufReader::new(keeper.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "moto ended");
            if let Some((_, port)) = line.split_once("http://127.0.0.1:") {
                break port.trim().parse().unwrap();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.write_all(b"PUT /lake HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        S3 { keeper, port }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn store(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name("lake")
            .with_region("us-east-1")
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .unwrap()
    }

    /// Copies everything below `prefix` into a folder.
    pub(crate) async fn download(&self, prefix: &str, folder: &std::path::Path) -> object_store::Result<()> {
        let store = self.store();
        let objects: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await?;
        for object in objects {
            let bytes = store.get(&object.location).await?.bytes().await?;
            let file = folder.join(object.location.as_ref());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        Ok(())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_an_object_one_wins() {
    let s3 = S3::start();
    let store = Arc::new(s3.store());
    for round in 0..10 {
        let path = Path::from(format!("race/{round}"));
        let writers = (0..8u8).map(|writer| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move {
                store.put_opts(&path, vec![writer; 64].into(), PutOptions::from(PutMode::Create)).await.map(|_| writer)
            })
        });
        let answers: Vec<_> = futures::stream::iter(writers).buffer_unordered(8).map(Result::unwrap).collect().await;
        let winners: Vec<u8> = answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap()[0], winners[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_on_s3_equals_the_source() {
    let s3 = S3::start();
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("s3").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    client
        .run_all(
            "CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40), sold DATETIME);
             INSERT INTO items VALUES (1,'one','2025-01-01'), (2,'two','2026-01-01'), (3,NULL,'2026-02-02')",
        )
        .await;
    let lake = format!("url = \"s3://lake/some/prefix?region=us-east-1&endpoint={}\"\n", s3.endpoint());
    let rules = format!("[[table]]\nsource = \"{database}.*\"\npartition_by = \"year(sold)\"\n");
    let pipeline = Pipeline::with_lake(server, &lake, &rules)
        .environment("AWS_ACCESS_KEY_ID", "test")
        .environment("AWS_SECRET_ACCESS_KEY", "test");

    let equal = async |what: &str| {
        let (columns, expected) = source_rows(server, &database, "items").await;
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        eventually(what, async || {
            let folder = tempfile::tempdir().unwrap();
            // An object that goes between listing and reading: look again.
            if s3.download("some/prefix", folder.path()).await.is_err() {
                return false;
            }
            let table = LakeTable::new(folder.path().join("some/prefix").join(&database).join("items"));
            let mut rows = table.values(None, &columns).unwrap_or_default();
            rows.sort();
            rows == expected
        })
        .await;
    };
    let service = pipeline.run();
    equal("the snapshot").await;
    client.run("UPDATE items SET name = 'two and more', sold = '2025-05-05' WHERE id = 2").await;
    client.run("DELETE FROM items WHERE id = 1").await;
    equal("the changes").await;
    service.kill();
    client.run("INSERT INTO items VALUES (4, 'four', '2024-04-04')").await;
    let service = pipeline.run();
    equal("what came after a kill").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let printed = pipeline.ok(&["query", "--format", "csv", &format!("SELECT id, name FROM {database}.items ORDER BY id")]);
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["id,name", "2,two and more", "3,", "4,four"]);
}
