//! The Glue catalog, kept by a running service; moto is the stand-in, boto3 looks. What moto doesn't do (refuse a stale version) is tried against a
//! server of our own, and in `make test-glue` against ministack.

mod versions;

use crate::fake_http::FakeHttp;
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::glue;
use crate::s3::S3;
use crate::service::Pipeline;
use arrow::datatypes::{DataType, Field, Schema};
use binlake::publish::{CatalogConfig, CatalogEntry, DatabaseName, Described, GlueCatalog, GlueUrl, Registered};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn pipeline(server: &Server, s3: &S3, database: &str, catalog: &str) -> Pipeline {
    let lake = format!("url = \"s3://lake/some/prefix?region=us-east-1&endpoint={}\"\n", s3.endpoint());
    let rest = format!(
        "[catalog]\nurl = \"glue://?region=us-east-1&endpoint={}\"\ndatabase = \"lake_{{database}}\"\n{catalog}\
         [[table]]\nsource = \"{database}.*\"\npartition_by = \"year(sold)\"\nhistory = true\n",
        s3.endpoint()
    );
    Pipeline::with_lake(server, &lake, &rest).environment("AWS_ACCESS_KEY_ID", "test").environment("AWS_SECRET_ACCESS_KEY", "test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_registered_and_follows_its_columns_and_partitions() {
    let s3 = S3::start();
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("Glue").await;
    let mut client = server.client().await;
    client.run(&format!("USE {database}")).await;
    client
        .run_all(
            "CREATE TABLE Items (id INT PRIMARY KEY, Price DECIMAL(12,2), name VARCHAR(40) COMMENT 'as the customer''s called', sold DATETIME) COMMENT 'what we sell';
             INSERT INTO Items VALUES (1,1.5,'one','2025-01-01'), (2,2,'two','2026-01-01'), (3,NULL,NULL,NULL)",
        )
        .await;
    let pipeline = pipeline(server, &s3, &database, "[catalog.parameters]\nowner = \"ops\"\n");
    let entry = format!("lake_{}.items", database.to_lowercase());
    let location = format!("s3://lake/some/prefix/{database}/Items");
    let show = || glue(&s3.endpoint(), &["show"], &entry);

    let service = pipeline.run();
    eventually("the catalog's entry", async || show().is_object()).await;
    eventually("its partitions", async || show()["partitions"].as_array().unwrap().len() == 3).await;
    let found = show();
    let meta = |name: &str| json!([format!("_hoodie_{name}"), "string", ""]);
    assert_eq!(
        found["columns"],
        json!([
            meta("commit_time"),
            meta("commit_seqno"),
            meta("record_key"),
            meta("partition_path"),
            meta("file_name"),
            ["id", "int", ""],
            ["price", "decimal(12,2)", ""],
            ["name", "string", "as the customer's called"],
            ["sold", "timestamp", ""],
            ["_commit_ts", "timestamp", ""],
            ["_position", "string", ""],
        ])
    );
    assert_eq!(found["keys"], json!([["sold_year", "int", ""]]));
    assert_eq!((&found["location"], &found["type"]), (&json!(location), &json!("EXTERNAL_TABLE")));
    assert_eq!(found["description"], "what we sell");
    let class = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let formats: Vec<_> = found["formats"].as_array().unwrap().iter().filter_map(|name| class(name.as_str()?)).collect();
    assert_eq!(formats, ["HoodieParquetInputFormat", "MapredParquetOutputFormat", "ParquetHiveSerDe"]);
    assert_eq!(
        (&found["parameters"]["owner"], &found["parameters"]["spark.sql.sources.provider"]),
        (&json!("ops"), &json!("hudi"))
    );
    let schema: Value = serde_json::from_str(found["parameters"]["spark.sql.sources.schema.part.0"].as_str().unwrap()).unwrap();
    assert_eq!(schema["fields"][6]["name"], "Price");
    let partition = |value: &str, columns| json!([[value], format!("{location}/sold_year={value}"), columns]);
    assert_eq!(
        found["partitions"],
        json!([partition("2025", 11), partition("2026", 11), partition("__HIVE_DEFAULT_PARTITION__", 11)])
    );

    // commits that change neither columns nor partitions leave it alone
    let versions = found["versions"].clone();
    client.run("UPDATE Items SET name = 'two and more' WHERE id = 2").await;
    eventually("the change", async || {
        pipeline.ok(&["query", "--format", "csv", &format!("SELECT name FROM {database}.\"Items\" WHERE id = 2")]).contains("more")
    })
    .await;
    assert_eq!(show()["versions"], versions);

    // what people write there stays; a new column comes, a partition comes, another goes
    glue(&s3.endpoint(), &["annotate", "price"], &entry);
    client.run("ALTER TABLE Items ADD COLUMN note TEXT").await;
    client.run("INSERT INTO Items VALUES (4, 4, 'four', '2024-04-04', 'new')").await;
    client.run("DELETE FROM Items WHERE id = 3").await;
    eventually("the new column and partitions", async || {
        let found = show();
        let names = found["columns"].as_array().unwrap().iter().any(|column| column[0] == "note");
        names && found["partitions"] == json!([partition("2024", 12), partition("2025", 12), partition("2026", 12)])
    })
    .await;
    let found = show();
    assert_eq!(found["columns"][6], json!(["price", "decimal(12,2)", "said by a person"]));
    assert_eq!((&found["parameters"]["team"], &found["description"]), (&json!("sales"), &json!("described by a person")));
    // a table that comes while the service runs has its comments at once
    let other = server.create_database("GlueLive").await;
    client.run(&format!("CREATE TABLE {other}.late (id INT PRIMARY KEY COMMENT 'counts') COMMENT 'came live'")).await;
    client.run(&format!("INSERT INTO {other}.late VALUES (1)")).await;
    pipeline.set_config(&format!("{}[[table]]\nsource = \"{other}.late\"\n", pipeline.config()));
    pipeline.ok(&["apply"]);
    let late = format!("lake_{}.late", other.to_lowercase());
    eventually("the entry of the table that came", async || {
        let found = glue(&s3.endpoint(), &["show"], &late);
        found["description"] == "came live" && found["columns"][5] == json!(["id", "int", "counts"])
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());

    // the same as SQL
    let sql = pipeline.ok(&["ddl", "--engine", "athena", &format!("{database}.Items")]);
    assert!(sql.contains(&format!("CREATE EXTERNAL TABLE IF NOT EXISTS `lake_{}`.`items`", database.to_lowercase())), "{sql}");
    let of_history = pipeline.ok(&["ddl", "--engine", "athena", &format!("{database}.Items_history")]);
    for wanted in
        ["`items_history`", "CREATE OR REPLACE VIEW", "PREPARE items_as_of FROM", "PREPARE items_history_of FROM", "_place=_open"]
    {
        assert!(of_history.contains(wanted), "{wanted}: {of_history}");
    }
    assert!(of_history.contains(&format!("FROM \"lake_{}\".\"items_history\" h", database.to_lowercase())), "{of_history}");
    assert!(!sql.contains("PREPARE"), "{sql}");
    assert!(sql.contains(&format!("PARTITION (`sold_year` = '2024') LOCATION '{location}/sold_year=2024'")), "{sql}");
}

fn config(endpoint: &str) -> CatalogConfig {
    CatalogConfig {
        url: GlueUrl::try_from(format!("glue://?region=us-east-1&endpoint={endpoint}")).unwrap(),
        database: DatabaseName::try_from("{database}".to_owned()).unwrap(),
        parameters: BTreeMap::new(),
    }
}

/// A catalog with one table, which another changes at the moment when we first do.
fn contended() -> FakeHttp {
    let version = Mutex::new(1);
    FakeHttp::start(move |asked| {
        let mut version = version.lock().unwrap();
        let answer = match asked.header("x-amz-target") {
            "AWSGlue.GetTable" => json!({"Table": {
                "Name": "t", "VersionId": version.to_string(), "Retention": 0, "PartitionKeys": [], "Parameters": {"n": version.to_string()},
                "StorageDescriptor": {"Location": "s3://b/d/t", "Columns": []},
            }}),
            "AWSGlue.UpdateTable" if asked.body.contains("\"VersionId\":\"1\"") => {
                *version += 1;
                return (
                    400,
                    "application/x-amz-json-1.1",
                    json!({"__type": "ConcurrentModificationException", "Message": "x"}).to_string(),
                );
            }
            _ => json!({}),
        };
        (200, "application/x-amz-json-1.1", answer.to_string())
    })
}

#[tokio::test]
async fn of_two_who_change_an_entry_the_later_looks_again() {
    let fake = contended();
    let config = config(&fake.endpoint);
    let columns = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
    let described = |location| Described {
        database: "d",
        name: "t",
        location,
        columns: &columns,
        partition_columns: &[],
        comment: "",
        column_comments: &config.parameters,
        parameters: &config.parameters,
    };
    let mut catalog = GlueCatalog::open(&config).await.unwrap();
    let table = CatalogEntry::describe(&described("s3://b/d/t"), [""]).unwrap();
    let registered = catalog.register(&table).await.unwrap();
    assert_eq!(registered, Registered { is_updated: true, ..Registered::default() });
    let updates: Vec<String> = fake
        .asked()
        .into_iter()
        .filter(|asked| asked.header("x-amz-target") == "AWSGlue.UpdateTable")
        .map(|asked| asked.body)
        .collect();
    assert_eq!(updates.len(), 2);
    // made from what the other had written, whose parameter stays
    assert!(updates[1].contains("\"VersionId\":\"2\"") && updates[1].contains("\"n\":\"2\""), "{}", updates[1]);

    // the same again costs no call
    let calls = fake.asked().len();
    assert_eq!(catalog.register(&table).await.unwrap(), Registered::default());
    assert_eq!(fake.asked().len(), calls);

    // an entry of somebody else's is left alone
    let other = CatalogEntry::describe(&described("s3://b/elsewhere/t"), [""]).unwrap();
    let error = catalog.register(&other).await.unwrap_err();
    assert!(error.to_string().contains("another table of this name"), "{error}");
    assert!(fake.asked().iter().filter(|asked| asked.header("x-amz-target") == "AWSGlue.UpdateTable").count() == 2);
}

/// A catalog with one table of one partition, which refuses the first change of that; and drops both when it is told to.
fn refusing() -> (FakeHttp, Arc<AtomicBool>) {
    let is_dropped = Arc::new(AtomicBool::new(false));
    let drops = is_dropped.clone();
    let storage = |location: &str| json!({"Location": location, "Columns": []});
    let table = json!({"Name": "t", "PartitionKeys": [{"Name": "p", "Type": "int", "Comment": ""}], "StorageDescriptor": storage("s3://b/d/t")});
    let state = Mutex::new((table, storage("s3://b/d/t/p=1"), true));
    let fake = FakeHttp::start(move |asked| {
        let (table, partition, is_refused) = &mut *state.lock().unwrap();
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let answer = match asked.header("x-amz-target") {
            "AWSGlue.GetTable" if drops.swap(false, Ordering::SeqCst) => {
                *partition = Value::Null;
                let gone = json!({"__type": "EntityNotFoundException", "Message": "x"});
                return (400, "application/x-amz-json-1.1", gone.to_string());
            }
            "AWSGlue.GetTable" => json!({"Table": table}),
            "AWSGlue.UpdateTable" => {
                *table = body["TableInput"].clone();
                json!({})
            }
            "AWSGlue.GetPartitions" if partition.is_null() => json!({"Partitions": []}),
            "AWSGlue.GetPartitions" => json!({"Partitions": [{"Values": ["1"], "StorageDescriptor": partition}]}),
            "AWSGlue.BatchUpdatePartition" if std::mem::take(is_refused) => {
                json!({"Errors": [{"PartitionValueList": ["1"], "ErrorDetail": {"ErrorCode": "InternalServiceException", "ErrorMessage": "x"}}]})
            }
            "AWSGlue.BatchUpdatePartition" => {
                *partition = body["Entries"][0]["PartitionInput"]["StorageDescriptor"].clone();
                json!({})
            }
            _ => json!({}),
        };
        (200, "application/x-amz-json-1.1", answer.to_string())
    });
    (fake, is_dropped)
}

/// A process may end, or fail, between the table's change and its partitions': they follow nevertheless.
#[tokio::test]
async fn partitions_follow_the_columns_though_a_change_of_them_fails() {
    let (fake, is_dropped) = refusing();
    let config = config(&fake.endpoint);
    let entry = |names: &[&str]| {
        let columns: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Int32, true)).collect();
        let described = Described {
            database: "d",
            name: "t",
            location: "s3://b/d/t",
            columns: &Schema::new(columns),
            partition_columns: &["p".to_owned()],
            comment: "",
            column_comments: &config.parameters,
            parameters: &config.parameters,
        };
        CatalogEntry::describe(&described, ["p=1"]).unwrap()
    };
    let calls = |name: &str| fake.asked().iter().filter(|asked| asked.header("x-amz-target") == format!("AWSGlue.{name}")).count();
    let changes = || calls("BatchUpdatePartition");
    let mut catalog = GlueCatalog::open(&config).await.unwrap();
    let error = catalog.register(&entry(&["id", "p"])).await.unwrap_err();
    assert!(error.to_string().contains("a partition in the catalog can't be changed"), "{error}");
    catalog.register(&entry(&["id", "p"])).await.unwrap();
    assert_eq!(changes(), 2, "the table's entry was right by then, the partition's not");
    let mut other = GlueCatalog::open(&config).await.unwrap();
    other.register(&entry(&["id", "p"])).await.unwrap();
    assert_eq!(changes(), 2, "all is as it is to be");
    catalog.register(&entry(&["id", "name", "p"])).await.unwrap();
    assert_eq!(changes(), 3);
    // somebody has dropped the table
    is_dropped.store(true, Ordering::SeqCst);
    let registered = catalog.register(&entry(&["id", "name", "more", "p"])).await.unwrap();
    assert_eq!((registered.is_created, registered.partitions_added, calls("BatchCreatePartition")), (true, 1, 1));
}
