//! Transforms of MySQL tables.

use crate::mysql::{Flavour, PATIENCE, Server, eventually, within};
use crate::service::Pipeline;

/// The rows of a lake table as text, sorted.
pub(crate) fn shown(pipeline: &Pipeline, database: &str, table: &str, columns: &[&str]) -> Vec<String> {
    let rows = pipeline.table(database, table).values(None, columns).unwrap_or_default();
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" ")
    };
    let mut rows: Vec<String> = rows.into_iter().map(text).collect();
    rows.sort();
    rows
}

/// Waits until a lake table has these rows.
pub(crate) async fn comes_to(pipeline: &Pipeline, database: &str, table: &str, columns: &[&str], expected: &[&str]) {
    let mut last = Vec::new();
    let is_there = within(PATIENCE, async || {
        last = shown(pipeline, database, table, columns);
        last == expected
    });
    assert!(is_there.await, "expected {expected:#?}, found {last:#?}\n{}", pipeline.log_tail());
}

#[tokio::test]
async fn a_transformed_table_through_every_kind_of_change() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("transform").await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database};
             CREATE TABLE sales (id INT PRIMARY KEY, Buyer VARCHAR(40), card VARCHAR(20), price DECIMAL(10,2), sold DATE, state VARCHAR(10));
             INSERT INTO sales VALUES (1, 'Ada', '4111111111111234', 10.50, '2025-03-01', 'paid'), (2, 'Bo', NULL, 0, '2025-04-01', 'open'),
                                      (3, 'Cy', '4000', 7, '2026-01-01', 'paid')"
        ))
        .await;
    let rules = format!(
        "[[table]]\nsource = '{database}.sales'\npartition_by = 'year(sold)'\ntransform = '''\n\
         SELECT t.*, upper(buyer) AS shout, mask(card, 4) AS masked, price * 2 AS twice\nFROM input t\nWHERE state <> 'open' '''\n"
    );
    let pipeline = Pipeline::new(server, &rules);
    let service = pipeline.run();
    let columns = ["id", "shout", "masked", "twice", "sold_year"];
    let expect = async |expected: &[&str]| comes_to(&pipeline, &database, "sales", &columns, expected).await;
    expect(&["1 ADA ************1234 21.00 2025", "3 CY 4000 14.00 2026"]).await;
    // passes the filter now, and no longer, and in another partition
    client
        .run_all(
            "UPDATE sales SET state = 'paid', price = 3 WHERE id = 2; UPDATE sales SET state = 'open' WHERE id = 1;
             UPDATE sales SET sold = '2024-12-31' WHERE id = 3",
        )
        .await;
    expect(&["2 BO NULL 6.00 2025", "3 CY 4000 14.00 2024"]).await;
    // another key, a deleted row, one that never passes
    client
        .run_all("UPDATE sales SET id = 30 WHERE id = 3; DELETE FROM sales WHERE id = 2; INSERT INTO sales (id, state) VALUES (9, 'open')")
        .await;
    expect(&["30 CY 4000 14.00 2024"]).await;
    // a new column comes with t.*
    client
        .run_all(
            "ALTER TABLE sales ADD COLUMN seats INT DEFAULT 2; INSERT INTO sales VALUES (4, 'Di', '5', 1, '2026-02-02', 'paid', 7)",
        )
        .await;
    let with_seats = ["id", "shout", "seats"];
    comes_to(&pipeline, &database, "sales", &with_seats, &["30 CY 2", "4 DI 7"]).await;
    // killed and started again: the same
    service.kill();
    client.run("INSERT INTO sales VALUES (5, 'Ed', '5', 1, '2026-02-02', 'paid', 8)").await;
    let service = pipeline.run();
    comes_to(&pipeline, &database, "sales", &with_seats, &["30 CY 2", "4 DI 7", "5 ED 8"]).await;
    let asked = pipeline.ok(&[
        "query",
        &format!("SELECT shout, _commit_ts IS NOT NULL AS at FROM {database}.sales WHERE id = 4"),
        "--format",
        "csv",
    ]);
    assert_eq!(asked.trim(), "shout,at\nDI,true");
    let verified = pipeline.ok(&["verify"]);
    assert!(verified.contains("equal, 3 rows") && verified.contains("as its transform has them"), "{verified}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn a_row_that_can_not_be_transformed_stops_its_table_alone() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("transform_fails").await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database};
             CREATE TABLE good (id INT PRIMARY KEY, v INT); CREATE TABLE bad (id INT PRIMARY KEY, v VARCHAR(10));
             INSERT INTO good VALUES (1, 1); INSERT INTO bad VALUES (1, '5')"
        ))
        .await;
    let rules = format!(
        "[[table]]\nsource = '{database}.good'\n[[table]]\nsource = '{database}.bad'\n\
         transform = 'SELECT id, CAST(v AS INT) AS number FROM input'\n"
    );
    let pipeline = Pipeline::new(server, &rules);
    let service = pipeline.run();
    comes_to(&pipeline, &database, "bad", &["id", "number"], &["1 5"]).await;
    client.run_all("INSERT INTO bad VALUES (77, 'secret'); INSERT INTO good VALUES (2, 2)").await;
    comes_to(&pipeline, &database, "good", &["id", "v"], &["1 1", "2 2"]).await;
    let said = || pipeline.log().lines().find(|line| line.contains("a row's transform fails")).map(str::to_owned);
    eventually("the table is stopped", async || said().is_some()).await;
    let said = said().unwrap();
    assert!(said.contains(&format!("table={database}.bad")) && said.contains("column=number key=id:77"), "{said}");
    assert!(said.contains("position=") && !pipeline.log().contains("secret"), "{said}");
    let state = || {
        let listed = pipeline.ok(&["tables", "--format", "csv"]);
        let line = listed.lines().find(|line| line.starts_with(&format!("{database}.bad,")))?;
        line.split(',').nth(6).map(str::to_owned)
    };
    eventually("the list of tables says it", async || state().as_deref() == Some("stopped")).await;
    // the row is corrected, and the table comes back
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    client.run("UPDATE bad SET v = '8' WHERE id = 77").await;
    pipeline.ok(&["backfill", "--table", &format!("{database}.bad")]);
    comes_to(&pipeline, &database, "bad", &["id", "number"], &["1 5", "77 8"]).await;
    assert_eq!(state().as_deref(), Some("live"));
}

#[tokio::test]
async fn a_transform_that_does_not_fit_its_table_is_refused_at_the_start() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("transform_refused").await;
    server.client().await.run(&format!("CREATE TABLE {database}.sales (id INT PRIMARY KEY, price INT)")).await;
    let rules = format!("[[table]]\nsource = '{database}.sales'\ntransform = 'SELECT id, prise + 1 AS p FROM input'\n");
    let pipeline = Pipeline::new(server, &rules);
    let answer = pipeline.answer(&["run"]);
    assert_eq!(answer.code, 2, "{}", answer.err);
    assert!(answer.err.contains("there is no column `prise` sql=1:12"), "{}", answer.err);
    assert!(answer.err.contains("did you mean `price`?"), "{}", answer.err);
}

#[tokio::test]
async fn a_table_is_partitioned_by_what_its_transform_computes() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("transform_partition").await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE sales (id INT PRIMARY KEY, city VARCHAR(20), sold DATETIME, price INT);
             INSERT INTO sales VALUES (1, 'oslo', '2025-01-01', 5), (2, 'Bern', '2026-01-01', 6), (3, NULL, NULL, 0)"
        ))
        .await;
    let rules = format!(
        "[[table]]\nsource = '{database}.sales'\npartition_by = 'area, year(delivered)'\ntransform = '''\n\
         SELECT id, price, upper(substr(city, 1, 1)) AS area, sold + INTERVAL '3 days' AS delivered FROM input WHERE price > 0 '''\n"
    );
    let pipeline = Pipeline::new(server, &rules);
    let service = pipeline.run();
    let columns = ["id", "price", "area", "delivered_year"];
    let expect = async |expected: &[&str]| comes_to(&pipeline, &database, "sales", &columns, expected).await;
    expect(&["1 5 O 2025", "2 6 B 2026"]).await;
    // into another partition, by either expression; by a column that neither reads; out of the table and back
    client
        .run_all(
            "UPDATE sales SET city = 'Bergen' WHERE id = 1; UPDATE sales SET sold = '2026-12-30' WHERE id = 2;
             UPDATE sales SET price = 7 WHERE id = 1; UPDATE sales SET city = 'Köln', price = 1 WHERE id = 3",
        )
        .await;
    expect(&["1 7 B 2025", "2 6 B 2027", "3 1 K NULL"]).await;
    client
        .run_all("UPDATE sales SET price = 0, city = 'Rom' WHERE id = 3; DELETE FROM sales WHERE id = 1; UPDATE sales SET id = 20 WHERE id = 2")
        .await;
    expect(&["20 6 B 2027"]).await;
    service.kill();
    client.run_all("UPDATE sales SET price = 4 WHERE id = 3; UPDATE sales SET city = 'Ulm' WHERE id = 20").await;
    let service = pipeline.run();
    expect(&["20 6 U 2027", "3 4 R NULL"]).await;
    assert_eq!(pipeline.table(&database, "sales").record_keys(None).len(), 2, "no row stayed in its old partition");
    assert!(pipeline.lake().join(format!("{database}/sales/area=U/delivered_year=2027")).is_dir());
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
    // with another expression rows would be looked for elsewhere: all of them are written anew
    pipeline.set_config(&pipeline.config().replace("upper(substr(city, 1, 1))", "lower(city)"));
    let service = pipeline.run();
    client.run("UPDATE sales SET price = 9 WHERE id = 20").await;
    eventually("it is said", async || pipeline.log().contains("the expression by which the table is partitioned has changed"))
        .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.ok(&["backfill", "--table", &format!("{database}.sales")]);
    expect(&["20 9 ulm 2027", "3 4 rom NULL"]).await;
}
