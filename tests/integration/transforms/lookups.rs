//! Lookups of every kind, joined with rows.

use super::of_source::comes_to;
use crate::mysql::{Flavour, Server, eventually};
use crate::service::Pipeline;

const JOIN: &str =
    "transform = 'SELECT t.id, t.location, c.combinedname FROM input t LEFT JOIN country c ON t.location = c.countryname'\n";

async fn sales(topic: &str) -> (&'static Server, String, crate::mysql::Client) {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database(topic).await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE sales (id INT PRIMARY KEY, location VARCHAR(40));
             INSERT INTO sales VALUES (1, 'India'), (2, 'Chad'), (3, NULL)"
        ))
        .await;
    (server, database, client)
}

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
    let first = ["1 India IN-India", "2 Chad NULL", "3 NULL NULL"];
    comes_to(&pipeline, &database, "sales", &columns, &first).await;
    std::fs::write(&file, "code,countryname,combinedname\nIN,India,IN-IND-India\nTD,Chad,TD-Chad\n").unwrap();
    // later rows have the new names as soon as it was read, earlier ones keep theirs
    let mut id = 10;
    eventually("a new row has the new name", async || {
        client.run(&format!("REPLACE INTO sales VALUES ({id}, 'Chad')")).await;
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
async fn another_replicated_table_is_joined() {
    let (server, database, mut client) = sales("lookup_table").await;
    client.run("CREATE TABLE country (countryname VARCHAR(40) PRIMARY KEY, combinedname VARCHAR(40))").await;
    client.run("INSERT INTO country VALUES ('India', 'IN-India')").await;
    let pipeline = Pipeline::new(
        server,
        &format!(
            "[[table]]\nsource = '{database}.country'\n[[table]]\nsource = '{database}.sales'\n{JOIN}\
             [lookup.country]\nurl = 'table:{database}.country'\nrefresh = '100ms'\n"
        ),
    );
    let service = pipeline.run();
    let columns = ["id", "location", "combinedname"];
    comes_to(&pipeline, &database, "sales", &columns, &["1 India IN-India", "2 Chad NULL", "3 NULL NULL"]).await;
    let verified = pipeline.ok(&["verify"]);
    assert!(verified.contains("without combinedname (not of the source's row alone)"), "{verified}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
}
