//! Scenario S2 as it is written, with a stand-in for each of Amazon's services: impressions on Kinesis, a MySQL table without a primary key kept in DynamoDB by a
//! DMS mapping, the two joined into a table on S3 that Glue knows. Then four names change in MySQL; nothing is restarted.

use super::s2::{self, COLUMNS, MAPPING, NEW, OLD, make_countries, rename_countries};
use crate::dynamodb::DynamoDb;
use crate::formats::credentials;
use crate::kinesis::{OnKinesis, StandIn};
use crate::mysql::{Flavour, PATIENCE, Server, eventually, free_address, within};
use crate::readers::{duckdb, glue, hudi_rs};
use crate::s3::S3;
use crate::service::Pipeline;
use crate::surface::ask;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The stream of impressions.
struct Impressions {
    client: aws_sdk_kinesis::Client,
    name: String,
    url: String,
}

impl Impressions {
    async fn new() -> Self {
        let url = OnKinesis::new(StandIn::shared().endpoint(), 2).fresh_url();
        let name = url.aws.name.clone();
        let text = format!("kinesis://{name}?endpoint={}&create=2", StandIn::shared().endpoint());
        Self { client: StandIn::shared().client().await, name, url: text }
    }

    async fn put(&self, impression: &Value) {
        let data = Blob::new(impression.to_string().into_bytes());
        self.client.put_record().stream_name(&self.name).partition_key("impressions").data(data).send().await.unwrap();
    }

    /// What Amazon's own client reads from TRIM_HORIZON on: each record is an object.
    async fn all(&self) -> Vec<Map<String, Value>> {
        let mut all = Vec::new();
        for shard in self.client.list_shards().stream_name(&self.name).send().await.unwrap().shards() {
            let first = self.client.get_shard_iterator().stream_name(&self.name).shard_id(shard.shard_id());
            let first = first.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
            let mut next = first.shard_iterator;
            while let Some(iterator) = next {
                let page = self.client.get_records().shard_iterator(iterator).send().await.unwrap();
                all.extend(page.records().iter().map(|record| serde_json::from_slice(record.data().as_ref()).unwrap()));
                next = page.next_shard_iterator.filter(|_| page.millis_behind_latest != Some(0));
            }
        }
        all
    }
}

/// The row that an impression must have become, where the lookup had these items.
fn row(impression: &Map<String, Value>, items: &[(&str, &str, &str)]) -> (String, Vec<Option<String>>) {
    let text = |name: &str| match &impression[name] {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let country = text("country").unwrap();
    let item = items.iter().find(|(name, ..)| *name == country);
    let mut row: Vec<_> = COLUMNS[..9].iter().map(|name| text(name)).collect();
    row.push(item.map(|(_, code, _)| (*code).to_owned()));
    row.push(item.map(|(_, _, name)| (*name).to_owned()));
    (text("uuid").unwrap(), row)
}

fn expected(impressions: &[Map<String, Value>], items: &[(&str, &str, &str)]) -> BTreeMap<String, Vec<Option<String>>> {
    impressions.iter().map(|impression| row(impression, items)).collect()
}

fn config(server: &Server, database: &str, s3: &S3, dynamodb: &str, impressions: &Impressions, address: &str) -> Pipeline {
    let control = format!("binlake-deliveries-{}", uuid::Uuid::new_v4());
    let tables = format!(
        "[catalog]\nurl = \"glue://?region=us-east-1&endpoint={s3}\"\n\
         [[deliver]]\nsource = \"{database}.country_lookup_table\"\nto = \"dynamodb://{control}?region=us-east-1&endpoint={dynamodb}\"\n\
         mapping = \"country-task.json\"\n\
         [lookup.country]\nurl = \"dynamodb://tgt_{database}?region=us-east-1&endpoint={dynamodb}\"\nrefresh = \"500ms\"\n\
         {table}",
        s3 = s3.endpoint(),
        table = s2::impressions(&format!("{}&poll=50ms", impressions.url)),
    );
    let lake = format!("url = \"s3://lake/s2?region=us-east-1&endpoint={}\"\ncommit_interval = \"2s\"\n", s3.endpoint());
    let pipeline = credentials(Pipeline::with_lake(server, &lake, &tables));
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let mapping = MAPPING.replace("DATABASE", database).replace("TARGET", &format!("tgt_{database}"));
    std::fs::write(pipeline.path().join("country-task.json"), mapping).unwrap();
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impressions_from_kinesis_joined_with_dynamodb_on_s3_and_in_glue() {
    let (s3, impressions) = (S3::start(), Impressions::new().await);
    let dynamodb = DynamoDb::shared().await.endpoint();
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("s2").await;
    let mut client = server.client().await;
    make_countries(&mut client, &database).await;
    let address = free_address();
    let pipeline = config(server, &database, &s3, &dynamodb, &impressions, &address);
    let generate = |rows: &str| {
        let said = pipeline.ok(&[
            "generate",
            "--workload",
            "impressions",
            "--target",
            "kinesis",
            "--rows",
            rows,
            "--url",
            &impressions.url,
        ]);
        assert!(said.starts_with(&format!("accepted    {rows} of {rows} records in ")), "{said}");
    };
    // read from TRIM_HORIZON: these are there before anybody reads
    generate("300");
    let first = impressions.all().await;
    assert_eq!(first.len(), 300);
    assert!(first.iter().all(|impression| impression["uuid"].is_u64()));
    let month = |impression: &Map<String, Value>| impression["impressiontime"].as_str().unwrap()[5..7].parse::<u32>().unwrap();
    assert!(first.iter().any(|impression| month(impression) > 12), "some months are none");

    let folder = tempfile::tempdir().unwrap();
    let read = async || {
        let fresh = tempfile::tempdir_in(folder.path()).unwrap();
        // an object that goes between listing and reading: look again
        s3.download("s2", fresh.path()).await.ok()?;
        let table = crate::lake::LakeTable::new(fresh.path().join("s2/mydev/impressions"));
        let rows = table.values(None, &COLUMNS).unwrap_or_default();
        Some(rows.into_iter().map(|row| (row[0].clone().unwrap(), row)).collect::<BTreeMap<_, _>>())
    };
    let mut service = pipeline.run();
    let mut wanted = expected(&first, &OLD);
    let mut found = None;
    let is_there = within(PATIENCE, async || {
        found = read().await;
        found.as_ref() == Some(&wanted)
    });
    assert!(is_there.await, "{:?}\n{}", found.iter().flatten().next(), pipeline.log_tail());

    rename_countries(&mut client).await;
    // until impressions have seen all four: the items aren't read at one moment
    let (mut probes, mut number) = (Vec::new(), 1);
    let has_new = within(PATIENCE, async || {
        for (country, ..) in NEW {
            let mut probe = first[0].clone();
            probe["uuid"] = json!(number);
            probe["country"] = json!(country);
            impressions.put(&Value::Object(probe)).await;
            probes.push(number.to_string());
            number += 1;
        }
        found = read().await;
        NEW.iter().all(|(.., name)| found.iter().flatten().any(|(_, row)| row[10].as_deref() == Some(*name)))
    });
    assert!(has_new.await, "{}", pipeline.log_tail());
    generate("100");
    let known = |impression: &Map<String, Value>| {
        let uuid = impression["uuid"].to_string();
        wanted.contains_key(&uuid) || probes.contains(&uuid)
    };
    let later: Vec<_> = impressions.all().await.into_iter().filter(|impression| !known(impression)).collect();
    assert_eq!(later.len(), 100);
    wanted.extend(expected(&later, &NEW));
    let is_there = within(PATIENCE, async || {
        found = read().await.map(|rows| rows.into_iter().filter(|(uuid, _)| !probes.contains(uuid)).collect());
        found.as_ref() == Some(&wanted)
    });
    assert!(is_there.await, "later ones have the new names, earlier ones keep theirs: {}", pipeline.log_tail());

    let (_, status) = ask(&address, "/status").await.unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["tables"][format!("dynamodb.tgt_{database}")]["state"], "live", "{status}");
    assert!(service.is_running(), "nothing was restarted");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();

    // Glue has it
    let entry = glue(&s3.endpoint(), &["show"], "mydev.impressions");
    let columns = COLUMNS.map(|name| json!([name, "string", ""])).to_vec();
    let own = [json!(["_commit_ts", "timestamp", ""]), json!(["_position", "string", ""])];
    assert_eq!(entry["columns"].as_array().unwrap()[5..], [columns, own.to_vec()].concat());
    assert_eq!(entry["location"], "s3://lake/s2/mydev/impressions");

    // as others read it
    s3.download("s2", folder.path()).await.unwrap();
    let lake = folder.path().join("s2");
    let views = std::fs::read_to_string(lake.join("views.sql")).unwrap().replace("s3://lake/s2", lake.to_str().unwrap());
    std::fs::write(lake.join("views.sql"), views).unwrap();
    let names = COLUMNS.map(str::to_owned);
    let table = lake.join("mydev/impressions");
    for rows in [hudi_rs(table.to_str().unwrap(), &names, &[]), duckdb(&lake.join("views.sql"), "mydev.impressions", &names)] {
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row[0].clone().unwrap(), row)).collect();
        let rows: BTreeMap<_, _> = rows.into_iter().filter(|(uuid, _)| !probes.contains(uuid)).collect();
        assert!(rows == wanted, "{} rows, {} wanted", rows.len(), wanted.len());
    }
    eventually("the items are what DMS would have made", async || {
        let scanned = DynamoDb::shared().await.client().await.scan().table_name(format!("tgt_{database}")).send().await.unwrap();
        let mut names: Vec<_> = scanned.items().iter().map(|item| item["combinedname"].as_s().unwrap().clone()).collect();
        names.sort();
        names == ["CA-CAN-Canada", "CN-CHN-China", "IN-IND-India", "US-USA-US"]
            && scanned.items().iter().all(|item| item.len() == 3)
    })
    .await;
}
