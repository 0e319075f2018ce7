//! Lookups of every kind, joined with rows.

use super::of_source::comes_to;
use super::sales::{JOIN, sales};
use crate::dynamodb::DynamoDb;
use crate::mysql::eventually;
use crate::service::Pipeline;

/// What a lookup reads is seen in the admin interface; here by its effect alone.
#[tokio::test]
async fn a_file_counts_from_the_next_batch_once_it_changes() {
    let (server, database, mut client) = sales("lookup_file").await;
    let pipeline = Pipeline::new(
        server,
        &format!("[[table]]\nsource = '{database}.sales'\n{JOIN}[lookup.country]\nurl = 'file:country.csv'\n"),
    );
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "code,countryname,combinedname\nIN,India,IN-India\nUS,USA,US-USA\n").unwrap();
    let service = pipeline.run();
    let columns = ["id", "location", "combinedname"];
    let first = ["1 India IN-India", "2 Chad NULL", "3 NULL NULL", "4 USA US-USA", "5 India IN-India"];
    comes_to(&pipeline, &database, "sales", &columns, &first).await;
    std::fs::write(&file, "code,countryname,combinedname\nIN,India,IN-IND-India\nTD,Chad,TD-Chad\n").unwrap();
    // later rows have the new names as soon as it was read, earlier ones keep theirs
    let mut id = 10;
    eventually("a new row has the new name", async || {
        client.run(&format!("REPLACE INTO sales (id, location) VALUES ({id}, 'Chad')")).await;
        id += 1;
        super::of_source::shown(&pipeline, &database, "sales", &columns).iter().any(|row| row.ends_with("TD-Chad"))
    })
    .await;
    let rows = super::of_source::shown(&pipeline, &database, "sales", &columns);
    assert!(first.iter().all(|row| rows.contains(&(*row).to_owned())), "{rows:?}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn rows_wait_for_their_items_where_the_lookup_says_so() {
    let (server, database, _) = sales("lookup_hold").await;
    let lookup = "[lookup.country]\nurl = 'file:country.json'\nmissing = 'hold'\n";
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\n{JOIN}{lookup}"));
    let file = pipeline.path().join("country.json");
    let india = r#"{"countryname": "India", "combinedname": "IN-India"}"#;
    std::fs::write(&file, india).unwrap();
    let service = pipeline.run();
    eventually("rows wait", async || pipeline.log().contains("rows wait for items that their lookup lacks")).await;
    assert!(pipeline.table(&database, "sales").instants().is_empty(), "nothing is committed without them");
    let others = [("Chad", "TD-"), ("USA", "US-")].map(|(name, code)| india.replace("India", name).replace("IN-", code));
    std::fs::write(&file, format!("{india}\n{}", others.join("\n"))).unwrap();
    let columns = ["id", "combinedname"];
    comes_to(&pipeline, &database, "sales", &columns, &["1 IN-India", "2 TD-Chad", "3 NULL", "4 US-USA", "5 IN-India"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

/// Rows that wait for their items keep neither the service from ending nor other rules from counting.
#[tokio::test]
async fn nothing_waits_for_rows_that_wait() {
    let (server, database, _) = sales("lookup_let_go").await;
    let lookup = "[lookup.country]\nurl = 'file:country.json'\nmissing = 'hold'\n";
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\n{JOIN}{lookup}"));
    std::fs::write(pipeline.path().join("country.json"), r#"{"countryname": "India", "combinedname": "IN-India"}"#).unwrap();
    let waits = async |times: usize| {
        eventually("rows wait", async || pipeline.log().matches("rows wait for items that their lookup lacks").count() >= times)
            .await;
    };
    let let_go = || pipeline.log().matches("what waits for items is read again by the next loop").count();
    let service = pipeline.run();
    waits(1).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(let_go(), 1, "{}", pipeline.log_tail());
    let before = pipeline.log().matches("rows wait for items").count();
    let service = pipeline.run();
    waits(before + 1).await;
    pipeline.set_config(&pipeline.config().replace("missing = 'hold'", "missing = 'null'"));
    pipeline.ok(&["apply"]);
    let columns = ["id", "combinedname"];
    comes_to(&pipeline, &database, "sales", &columns, &["1 IN-India", "2 NULL", "3 NULL", "4 NULL", "5 IN-India"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}

#[tokio::test]
async fn items_of_a_large_table_are_got_by_their_key() {
    let endpoint = DynamoDb::shared().await.endpoint();
    let (server, database, mut client) = sales("lookup_get").await;
    // more keys than one call takes
    let rows: Vec<String> = (100..400).map(|i| format!("({i}, 'country {i}')")).collect();
    client.run(&format!("INSERT INTO sales (id, location) VALUES {}", rows.join(","))).await;
    // no item can have this key, and DynamoDB refuses to look for it
    client.run("INSERT INTO sales (id, location) VALUES (90, '')").await;
    let table = format!("countries-{}", uuid::Uuid::new_v4());
    let dynamodb = DynamoDb::shared().await.client().await;
    let key = |name: &str| {
        use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement, KeyType, ScalarAttributeType};
        let definition =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap();
        (definition, KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Hash).build().unwrap())
    };
    let (definition, element) = key("countryname");
    let create = dynamodb.create_table().table_name(&table).attribute_definitions(definition).key_schema(element);
    create.billing_mode(aws_sdk_dynamodb::types::BillingMode::PayPerRequest).send().await.unwrap();
    let text = |text: String| aws_sdk_dynamodb::types::AttributeValue::S(text);
    for i in (100..400).step_by(2).map(|i| format!("country {i}")).chain(["India".to_owned()]) {
        let put = dynamodb.put_item().table_name(&table).item("countryname", text(i.clone()));
        put.item("combinedname", text(format!("got {i}"))).send().await.unwrap();
    }
    let lookup = format!(
        "[lookup.country]\nurl = 'dynamodb://{table}?region=us-east-1&endpoint={endpoint}'\nmode = 'get'\ncache_items = 50\n\
         columns = {{ countryname = 'string', combinedname = 'string' }}\n"
    );
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\n{JOIN}{lookup}"));
    let service = pipeline.run();
    let columns = ["id", "combinedname"];
    let mut expected = ["1 got India", "2 NULL", "3 NULL", "4 NULL", "5 got India", "90 NULL"].map(str::to_owned).to_vec();
    expected.extend((100..400).map(|i| if i % 2 == 0 { format!("{i} got country {i}") } else { format!("{i} NULL") }));
    expected.sort();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    comes_to(&pipeline, &database, "sales", &columns, &expected).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
