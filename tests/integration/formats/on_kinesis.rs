//! Formats on Kinesis: written to it by the capture, and records of others read from it, aggregated or not.

use crate::kinesis::StandIn;
use crate::mysql::{Flavour, PATIENCE, Server, within};
use crate::service::Pipeline;
use aws_sdk_kinesis::primitives::Blob;
use binlake::format::{UserRecord, aggregate};

pub(crate) fn credentials(pipeline: Pipeline) -> Pipeline {
    pipeline
        .environment("AWS_ACCESS_KEY_ID", "test")
        .environment("AWS_SECRET_ACCESS_KEY", "test")
        .environment("AWS_REGION", "us-east-1")
}

#[tokio::test(flavor = "multi_thread")]
async fn dms_json_travels_over_kinesis() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("onkinesis").await;
    let mut client = server.client().await;
    client.run(&format!("CREATE TABLE {database}.orders (id INT PRIMARY KEY, note VARCHAR(50))")).await;
    client.run(&format!("INSERT INTO {database}.orders VALUES (1,'a'),(2,NULL)")).await;
    let pipeline = credentials(Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n")));
    let url = format!("kinesis://t{}?endpoint={}&create=2&poll=20ms", uuid::Uuid::new_v4(), StandIn::shared().endpoint());
    let config = pipeline.config().replace("url = \"file:./data/stream\"", &format!("url = \"{url}\"\nformat = \"dms-json\""));
    pipeline.set_config(&config.replace("cut_interval = \"50ms\"", "cut_interval = \"500ms\""));
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "orders").await;
    client.run(&format!("UPDATE {database}.orders SET note = 'changed' WHERE id = 2")).await;
    client.run(&format!("DELETE FROM {database}.orders WHERE id = 1")).await;
    pipeline.catches_up(server, &database, "orders").await;
    service.kill();
    client.run(&format!("INSERT INTO {database}.orders VALUES (3,'after the kill')")).await;
    let service = pipeline.run();
    pipeline.catches_up(server, &database, "orders").await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_fed_by_plain_and_aggregated_records() {
    let stand_in = StandIn::shared();
    let client = stand_in.client().await;
    let name = format!("t{}", uuid::Uuid::new_v4());
    client.create_stream().stream_name(&name).shard_count(2).send().await.unwrap();
    let is_active = within(PATIENCE, async || {
        let summary = client.describe_stream_summary().stream_name(&name).send().await.unwrap();
        let summary = summary.stream_description_summary.unwrap();
        summary.stream_status.as_str() == "ACTIVE"
    });
    assert!(is_active.await);
    let pipeline = credentials(Pipeline::from_text(&format!(
        "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"off\"\n\
         [[table]]\nstream = \"kinesis://{name}?endpoint={}&poll=20ms\"\nname = \"mydev.impressions\"\n\
         columns = {{ uuid = \"string\", country = \"string\" }}\nkey = [\"uuid\"]\n\
         [table.children.sites]\nkey = [\"url\"]\ncolumns = {{ url = \"string\" }}\n",
        stand_in.endpoint()
    )));
    let put = async |key: &str, data: Vec<u8>| {
        client.put_record().stream_name(&name).partition_key(key).data(Blob::new(data)).send().await.unwrap();
    };
    let rows = || {
        let mut rows = pipeline.table("mydev", "impressions").values(None, &["uuid", "country"]).unwrap_or_default();
        rows.sort();
        rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    put("a", br#"{"uuid": 1, "country": "Canada", "sites": [{"url": "a"}, {"url": "b"}]}"#.to_vec()).await;
    let service = pipeline.run();
    assert!(within(PATIENCE, async || rows() == ["1 Canada"]).await, "{:?}\n{}", rows(), pipeline.log_tail());
    let user =
        |text: &str| UserRecord { partition_key: "a".into(), explicit_hash_key: None, bytes: text.as_bytes().to_vec().into() };
    let all = [
        user(r#"{"uuid": 1, "country": "changed"}"#),
        user(r#"{"uuid": 2, "country": "Chad", "sites": [{"url": "c"}]}"#),
        user("bad"),
    ];
    put("a", aggregate(&all).to_vec()).await;
    service.kill();
    put("b", br#"{"uuid": 3, "country": "India"}"#.to_vec()).await;
    let service = pipeline.run();
    let expected = ["1 changed", "2 Chad", "3 India"];
    assert!(within(PATIENCE, async || rows() == expected).await, "{:?}\n{}", rows(), pipeline.log_tail());
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert!(pipeline.ok(&["dead-letter", "list"]).contains("not JSON"));
    let sites = pipeline.table("mydev", "impressions_sites").values(None, &["uuid", "url"]).unwrap();
    assert_eq!(sites, [[Some("2".to_owned()), Some("c".to_owned())]]);
}
