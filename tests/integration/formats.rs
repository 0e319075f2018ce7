//! Streams in other systems' formats: written beside the systems' own, and read back.

mod broken_feed;
mod children;
mod dead_letters;
mod debezium;
mod fed_only;
mod impressions;
mod inferred;
mod json;
mod kpl;
mod on_kinesis;
mod raw_order;
mod shared_feeds;

pub(crate) use on_kinesis::credentials;

use crate::mysql::{Flavour, Server};
use crate::service::Pipeline;

/// Everything that a capture can say: a snapshot, each operation, a moved key, a truncation, new columns, a transaction of several tables.
async fn lake_equals_source_over(stream: &str) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("formats").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    client
        .run("CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50), price DECIMAL(10,2), at DATETIME(3), blob_ BLOB, big BIGINT UNSIGNED)")
        .await;
    client.run("CREATE TABLE log (name VARCHAR(20), no INT, PRIMARY KEY (name, no))").await;
    client.run("INSERT INTO orders VALUES (1,'a',1.50,'2026-11-21 10:11:12.345',x'00ff',18446744073709551615),(2,NULL,NULL,NULL,NULL,0)").await;
    client.run("INSERT INTO log VALUES ('gone', 1)").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    pipeline.set_config(&pipeline.config().replace("[stream]\n", &format!("[stream]\n{stream}")));
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "orders").await;
    pipeline.catches_up(server, &database, "log").await;
    client.run("INSERT INTO orders VALUES (3,'größe 🦀',-0.01,'1969-12-31 23:59:59.999',x'',1)").await;
    client.run("UPDATE orders SET price = 500, note = 'changed' WHERE id = 1").await;
    client.run("UPDATE orders SET id = 20 WHERE id = 2").await;
    client.run("TRUNCATE TABLE log").await;
    pipeline.catches_up(server, &database, "orders").await;
    pipeline.catches_up(server, &database, "log").await;
    service.kill();
    client.run("START TRANSACTION").await;
    client.run("INSERT INTO log VALUES ('a', 1), ('a', 2), ('b', 1)").await;
    client.run("DELETE FROM orders WHERE id = 3").await;
    client.run("COMMIT").await;
    client.run("ALTER TABLE orders ADD COLUMN extra DECIMAL(6,3) NOT NULL DEFAULT 1.25").await;
    client.run("INSERT INTO orders (id, extra) VALUES (4, 2)").await;
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "orders").await;
    pipeline.catches_up(server, &database, "log").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    let tail = pipeline.ok(&["stream", "tail", "--table", &format!("{database}.orders")]);
    assert!(tail.contains(r#""op":"u""#) && tail.contains("größe 🦀"), "{tail}");
}

#[tokio::test]
async fn dms_json() {
    lake_equals_source_over("format = \"dms-json\"\n").await;
}

#[tokio::test]
async fn dms_json_aggregated() {
    lake_equals_source_over("format = \"dms-json\"\naggregate = \"kpl\"\n").await;
}

#[tokio::test]
async fn debezium_json() {
    lake_equals_source_over("format = \"debezium-json\"\n").await;
}

#[tokio::test]
async fn debezium_json_with_schemas_and_transactions_aggregated() {
    lake_equals_source_over(
        "format = \"debezium-json\"\naggregate = \"kpl\"\ndebezium = { schemas = true, transaction_metadata = true, topic_prefix = \"shop\" }\n",
    )
    .await;
}
