//! Where lookups' items may be: files of Parquet, tables of SQLite, and a DynamoDB that throttles, which is never taken for one without the item.

use crate::fake_http::FakeHttp;
use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use binlake::error::Kind;
use binlake::lookup::{Lookup, LookupConfig};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn lookup(config: &str) -> Lookup {
    let config: LookupConfig = toml::from_str(config).unwrap();
    config.check().unwrap();
    Lookup::new("country", config)
}

/// A column's values as text, sorted.
fn shown(lookup: &Lookup, column: &str) -> Vec<String> {
    let content = lookup.content().unwrap();
    let column = content.rows().column_by_name(column).unwrap();
    let text = |i| arrow::util::display::array_value_to_string(column, i).unwrap();
    let mut all: Vec<String> = (0..column.len()).map(text).collect();
    all.sort();
    all
}

#[tokio::test]
async fn items_of_parquet_and_sqlite_have_their_types() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("country.parquet");
    let rows = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(vec![Some("India"), None])) as ArrayRef),
        ("people", Arc::new(Int64Array::from(vec![1_400_000_000, 5]))),
        ("area", Arc::new(Decimal128Array::from(vec![328_726_300, 1]).with_precision_and_scale(12, 2).unwrap())),
        ("since", Arc::new(TimestampMillisecondArray::from(vec![0, 1]))),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let of_parquet = lookup(&format!("url = 'file:{}'", path.display()));
    of_parquet.read().await.unwrap();
    assert_eq!(shown(&of_parquet, "name"), ["", "India"]);
    assert_eq!(shown(&of_parquet, "area"), ["0.01", "3287263.00"]);
    assert_eq!(shown(&of_parquet, "since")[0], "1970-01-01T00:00:00.001Z");
    // a declared type that doesn't fit is said, with lookup and attribute
    let wrong = lookup(&format!("url = 'file:{}'\ncolumns = {{ name = 'int' }}", path.display()));
    let error = wrong.read().await.unwrap_err().to_string();
    assert!(
        error.contains("lookup=country attribute=name") && error.contains("item=number 1") && !error.contains("India"),
        "{error}"
    );

    let path = folder.path().join("any.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("CREATE TABLE country (name TEXT, people INTEGER, area REAL, note); INSERT INTO country VALUES ('India', 7, 1.5, NULL), ('Peru', 5, 2, 'x')")
        .unwrap();
    let of_sqlite = lookup(&format!("url = 'sqlite:{}#country'", path.display()));
    of_sqlite.read().await.unwrap();
    assert_eq!(shown(&of_sqlite, "note"), ["", "x"]);
    let content = of_sqlite.content().unwrap();
    assert_eq!(content.rows().column_by_name("people").unwrap().as_primitive::<Int64Type>().value(0), 7);
    file.execute_batch("UPDATE country SET people = 'many' WHERE name = 'Peru'").unwrap();
    let error = of_sqlite.read().await.unwrap_err().to_string();
    assert!(error.contains("lookup=country item=area:2") || error.contains("attribute=people"), "{error}");
    assert!(!error.contains("many"), "{error}");
    assert_eq!(of_sqlite.content().unwrap().rows().num_rows(), 2, "what was read before stays in use");
}

const JSON: &str = "application/x-amz-json-1.0";

fn throttled() -> (u16, &'static str, String) {
    (400, JSON, json!({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"}).to_string())
}

fn refused() -> (u16, &'static str, String) {
    (400, JSON, json!({"__type": "com.amazonaws.dynamodb.v20120810#AccessDeniedException", "message": "no"}).to_string())
}

fn on(fake: &FakeHttp, more: &str) -> Lookup {
    lookup(&format!("url = 'dynamodb://countries?region=us-east-1&endpoint={}'\n{more}", fake.endpoint))
}

/// What the fake has to say is one part of four: the whole isn't there until all of them are.
#[tokio::test]
async fn a_scan_that_is_throttled_is_asked_again_and_one_that_fails_changes_nothing() {
    let is_refused = Arc::new(AtomicUsize::new(0));
    let (refuses, asked) = (is_refused.clone(), AtomicUsize::new(0));
    let fake = FakeHttp::start(move |request| {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let segment = body["Segment"].as_u64().unwrap();
        if segment == 2 && refuses.load(Ordering::SeqCst) == 1 {
            return refused();
        }
        if segment == 1 && asked.fetch_add(1, Ordering::SeqCst) < 2 {
            return throttled();
        }
        (200, JSON, json!({"Items": [{"name": {"S": format!("n{segment}")}, "people": {"N": "1"}}], "Count": 1}).to_string())
    });
    let countries = on(&fake, "");
    countries.read().await.unwrap();
    assert_eq!(shown(&countries, "name"), ["n0", "n1", "n2", "n3"]);
    is_refused.store(1, Ordering::SeqCst);
    let error = countries.read().await.unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert_eq!(shown(&countries, "name"), ["n0", "n1", "n2", "n3"], "an item that can't be read is not one that is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_left_unprocessed_are_asked_for_again() {
    let rounds = Arc::new(Mutex::new(Vec::new()));
    let seen = rounds.clone();
    let fake = FakeHttp::start(move |request| {
        if request.header("x-amz-target").ends_with("DescribeTable") {
            let table = json!({"TableName": "countries", "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "name", "AttributeType": "S"}]});
            return (200, JSON, json!({"Table": table}).to_string());
        }
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let keys = body["RequestItems"]["countries"]["Keys"].as_array().unwrap().clone();
        let mut rounds = seen.lock().unwrap();
        rounds.push(keys.len());
        if rounds.len() == 2 {
            return throttled();
        }
        if keys.iter().any(|key| key["name"]["S"] == "forbidden") {
            return refused();
        }
        // one at a time; there is no Chad
        let (first, left) = keys.split_first().unwrap();
        let there = if first["name"]["S"] == "Chad" { vec![] } else { vec![json!({"name": first["name"], "people": {"N": "7"}})] };
        let unprocessed = if left.is_empty() { json!({}) } else { json!({"countries": {"Keys": left}}) };
        (200, JSON, json!({"Responses": {"countries": there}, "UnprocessedKeys": unprocessed}).to_string())
    });
    let countries = Arc::new(on(&fake, "mode = 'get'\ncolumns = { name = 'string', people = 'int' }"));
    countries.read().await.unwrap();
    let get = async |names: &[&str]| {
        let keys: Vec<Vec<String>> = names.iter().map(|name| vec![(*name).to_owned()]).collect();
        let countries = countries.clone();
        tokio::task::spawn_blocking(move || countries.get(&["name"], &keys)).await.unwrap()
    };
    let found = get(&["India", "Chad", "Peru"]).await.unwrap();
    assert_eq!(found.rows().num_rows(), 2);
    assert_eq!(*rounds.lock().unwrap(), [3, 2, 2, 1], "what was left, and what was throttled, is asked for again");
    // answers are kept, that there is no item as well
    assert_eq!(get(&["Chad", "India"]).await.unwrap().rows().num_rows(), 1);
    assert_eq!(rounds.lock().unwrap().len(), 4);
    // what can't be read is an error, not a missing item
    let error = get(&["forbidden"]).await.unwrap_err();
    assert_ne!(error.kind(), Kind::Data, "{error}");
    assert_eq!(rounds.lock().unwrap().last(), Some(&1));
}
