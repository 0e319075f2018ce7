//! Scenario S2, run as written: a MySQL table without a primary key becomes items; impressions, as plain JSON, are joined with them and upserted; then
//! the names change in MySQL, and later impressions have the new ones.

use super::of_source::shown;
use super::s2::{COLUMNS, MAPPING, NEW, OLD, impressions, make_countries, rename_countries};
use crate::dynamodb::DynamoDb;
use crate::mysql::{Flavour, PATIENCE, Server, eventually, free_address, within};
use crate::readers::{duckdb, hudi_rs};
use crate::service::{Pipeline, append};
use crate::surface::ask;

/// Where the items are.
struct Items {
    to: String,
    lookup: String,
    target: String,
}

fn impression(uuid: u64, country: &str) -> String {
    format!(
        "{{\"uuid\": {uuid}, \"country\": \"{country}\", \"itemtype\": \"Snacks\", \"saleschannel\": \"Online\", \"orderpriority\": \"C\", \"orderdate\": \
         \"2/15/11\", \"region\": \"Asia\", \"shipdate\": \"3/1/11\", \"unitssold\": \"5\", \"unitprice\": \"1.5\", \"unitcost\": \"1\", \"totalrevenue\": \"7.5\", \
         \"totalcost\": \"5\", \"totalprofit\": \"2.5\", \"impressiontime\": \"2026-{}-01 00:00:00\"}}\n",
        uuid % 15 + 1
    )
}

fn add(pipeline: &Pipeline, lines: &str) {
    append(&pipeline.path().join("impressions/all.jsonl"), lines);
}

const COUNTRIES: [&str; 5] = ["India", "USA", "Canada", "China", "Chad"];
const SEEN: [&str; 2] = ["uuid", "combinedname"];

async fn run_as_written(topic: &str, items: &Items) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let mut client = server.client().await;
    make_countries(&mut client, &database).await;
    let address = free_address();
    let tables = format!(
        "[[deliver]]\nsource = '{database}.country_lookup_table'\nto = '{}'\nmapping = 'country-task.json'\n\
         [lookup.country]\nurl = '{}'\nrefresh = '300ms'\n{}",
        items.to,
        items.lookup,
        impressions("jsonl:./impressions/")
    );
    let pipeline = Pipeline::new(server, &tables);
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let mapping = MAPPING.replace("DATABASE", &database).replace("TARGET", &items.target);
    std::fs::write(pipeline.path().join("country-task.json"), mapping).unwrap();
    // the impressions may be there before the lookup: they wait for it
    add(&pipeline, &(0..50).map(|i| impression(1000 + i, COUNTRIES[i as usize % 5])).collect::<String>());
    let service = pipeline.run();
    let rows = || shown(&pipeline, "mydev", "impressions", &SEEN);
    eventually("all impressions are there", async || rows().len() == 50).await;
    let name = |items: &[(&str, &str, &str); 4], i: usize| items.get(i % 5).map_or("NULL", |(.., name)| *name).to_owned();
    let first: Vec<String> = (0..50).map(|i| format!("{} {}", 1000 + i, name(&OLD, i))).collect();
    assert_eq!(rows(), first, "{}", pipeline.log_tail());

    rename_countries(&mut client).await;
    // until impressions have seen all four: the items aren't read at one moment
    let mut next = 2000;
    let has_new = within(PATIENCE, async || {
        for (country, ..) in NEW {
            add(&pipeline, &impression(next, country));
            next += 1;
        }
        let rows = rows();
        NEW.iter().all(|(.., name)| rows.iter().any(|row| row.ends_with(name)))
    });
    assert!(has_new.await, "no impression has a new name: {:?}\n{}", rows().last(), pipeline.log_tail());
    add(&pipeline, &(0..5).map(|i| impression(9000 + i, COUNTRIES[i as usize])).collect::<String>());
    let later: Vec<String> = (0..5).map(|i| format!("{} {}", 9000 + i, name(&NEW, i))).collect();
    eventually("later impressions have the new names", async || rows().iter().filter(|row| later.contains(row)).count() == 5).await;
    assert!(first.iter().all(|row| rows().contains(row)), "earlier rows keep their names");

    let (_, status) = ask(&address, "/status").await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let lookup = &status["lookups"][0];
    assert_eq!((&lookup["name"], &lookup["items"]), (&"country".into(), &4.into()), "{status}");
    assert!(lookup["hits"].as_u64() >= Some(44) && lookup["misses"].as_u64() >= Some(11), "{status}");
    let place = items.to.split(':').next().unwrap();
    assert_eq!(status["tables"][format!("{place}.{}", items.target)]["state"], "live", "{status}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    // as others read it
    let asked = pipeline.ok(&["query", "SELECT * FROM mydev.impressions LIMIT 1", "--format", "csv"]);
    let columns = format!("{},_commit_ts,_position", COLUMNS.join(","));
    assert_eq!(asked.lines().next(), Some(columns.as_str()));
    let wanted = SEEN.map(str::to_owned);
    let folder = pipeline.table("mydev", "impressions").folder().to_owned();
    for found in
        [hudi_rs(folder.to_str().unwrap(), &wanted, &[]), duckdb(&pipeline.lake().join("views.sql"), "mydev.impressions", &wanted)]
    {
        let mut found: Vec<String> = found
            .into_iter()
            .map(|row| row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" "))
            .collect();
        found.sort();
        assert_eq!(found, rows());
    }
}

#[tokio::test]
async fn impressions_with_items_in_a_file() {
    let items = Items {
        to: "sqlite:./data/items.db".into(),
        lookup: "sqlite:./data/items.db#tgt_country_lookup_table".into(),
        target: "tgt_country_lookup_table".into(),
    };
    run_as_written("s2_file", &items).await;
}

#[tokio::test]
async fn impressions_with_items_in_dynamodb() {
    let endpoint = DynamoDb::shared().await.endpoint();
    let id = uuid::Uuid::new_v4();
    let target = format!("tgt_country_lookup_table-{id}");
    let items = Items {
        to: format!("dynamodb://binlake-deliveries-{id}?region=us-east-1&endpoint={endpoint}"),
        lookup: format!("dynamodb://{target}?region=us-east-1&endpoint={endpoint}"),
        target: target.clone(),
    };
    run_as_written("s2_dynamodb", &items).await;
    // the items are what DMS would have made, with nothing of ours in them
    let scanned = DynamoDb::shared().await.client().await.scan().table_name(&target).send().await.unwrap();
    let mut found: Vec<Vec<String>> = scanned
        .items()
        .iter()
        .map(|item| {
            let mut attributes: Vec<String> =
                item.iter().map(|(name, value)| format!("{name}={}", value.as_s().unwrap())).collect();
            attributes.sort();
            attributes
        })
        .collect();
    found.sort();
    assert_eq!(found[0], ["code=CA", "combinedname=CA-CAN-Canada", "countryname=Canada"]);
    assert_eq!(found.len(), 4);
}
