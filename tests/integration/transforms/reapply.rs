//! `on_change = "reapply"`: rows that are there already follow their lookup.

use super::of_source::{comes_to, shown};
use super::sales::sales;
use crate::service::Pipeline;

const TABLE: &str = "partition_by = 'year'\ntransform = '''SELECT t.id, t.location AS place, t.year, upper(t.note) AS note, c.name, concat(t.location, '/', c.name) AS both
FROM input t LEFT JOIN country c ON t.location = c.country'''\n[lookup.country]\nurl = 'file:country.csv'\non_change = 'reapply'\n";
const COLUMNS: [&str; 5] = ["id", "place", "note", "name", "both"];

#[tokio::test]
async fn rows_follow_their_items() {
    let (server, database, mut client) = sales("reapply").await;
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\n{TABLE}"));
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "country,name\nIndia,IN\nUSA,US\n").unwrap();
    let service = pipeline.run();
    let expect = async |rows: &[&str]| comes_to(&pipeline, &database, "sales", &COLUMNS, rows).await;
    expect(&["1 India A IN India/IN", "2 Chad B NULL Chad/", "3 NULL C NULL /", "4 USA D US USA/US", "5 India E IN India/IN"])
        .await;
    let positions = || shown(&pipeline, &database, "sales", &["id", "_position", "_commit_ts"]);
    let before = positions();
    // an item changes, one comes, one goes; the source says nothing
    std::fs::write(&file, "country,name\nIndia,IND\nChad,TD\n").unwrap();
    expect(&["1 India A IND India/IND", "2 Chad B TD Chad/TD", "3 NULL C NULL /", "4 USA D NULL USA/", "5 India E IND India/IND"])
        .await;
    assert_eq!(positions(), before, "the rows are still of their transactions");
    // changes and other items at once, a row that goes, and one that moves
    std::fs::write(&file, "country,name\nIndia,IN\nChad,CH\nUSA,US\n").unwrap();
    client.run_all("UPDATE sales SET location = 'Chad' WHERE id = 1; DELETE FROM sales WHERE id = 5; UPDATE sales SET year = 2024 WHERE id = 2").await;
    expect(&["1 Chad A CH Chad/CH", "2 Chad B CH Chad/CH", "3 NULL C NULL /", "4 USA D US USA/US"]).await;
    // what changes while nobody is there
    service.kill();
    std::fs::write(&file, "country,name\nChad,TCD\n").unwrap();
    let service = pipeline.run();
    expect(&["1 Chad A TCD Chad/TCD", "2 Chad B TCD Chad/TCD", "3 NULL C NULL /", "4 USA D NULL USA/"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    // the same items again, in another order, are no change
    let joined_anew = || pipeline.log().matches("rows were joined anew").count();
    let before = joined_anew();
    std::fs::write(&file, "country,name\n\"Chad\",TCD\n").unwrap();
    let service = pipeline.run();
    client.run("INSERT INTO sales VALUES (9, 'Chad', 2026, 'z')").await;
    expect(&["1 Chad A TCD Chad/TCD", "2 Chad B TCD Chad/TCD", "3 NULL C NULL /", "4 USA D NULL USA/", "9 Chad Z TCD Chad/TCD"])
        .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(joined_anew(), before);
    assert!(!pipeline.log().contains("it takes too long to finish"), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn a_history_has_a_version_of_it() {
    let (server, database, mut client) = sales("reapply_history").await;
    let table = format!("[[table]]\nsource = '{database}.sales'\nhistory = true\n{TABLE}");
    let pipeline = Pipeline::new(server, &table.replace("partition_by = 'year'\n", ""));
    let file = pipeline.path().join("country.csv");
    std::fs::write(&file, "country,name\nIndia,IN\nUSA,US\n").unwrap();
    let service = pipeline.run();
    let rows = |table: &str| shown(&pipeline, &database, table, &["id", "name"]);
    comes_to(&pipeline, &database, "sales", &["id", "name"], &["1 IN", "2 NULL", "3 NULL", "4 US", "5 IN"]).await;
    std::fs::write(&file, "country,name\nIndia,IN\nUSA,USA\n").unwrap();
    comes_to(&pipeline, &database, "sales", &["id", "name"], &["1 IN", "2 NULL", "3 NULL", "4 USA", "5 IN"]).await;
    // one that was corrected, one that was true until then
    let versions = ["1 IN", "2 NULL", "3 NULL", "4 US", "4 US", "4 USA", "5 IN"];
    comes_to(&pipeline, &database, "sales_history", &["id", "name"], &versions).await;
    client.run("UPDATE sales SET note = 'later' WHERE id = 4").await;
    comes_to(&pipeline, &database, "sales", &["id", "note"], &["1 A", "2 B", "3 C", "4 LATER", "5 E"]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(rows("sales_history").len(), versions.len() + 2);
    pipeline.assert_calm_log();
}

#[tokio::test]
async fn what_can_not_be_applied_anew_is_refused_at_the_start() {
    let (server, database, _) = sales("reapply_refused").await;
    for (select, said) in [
        (
            "SELECT t.id, c.name FROM input t LEFT JOIN country c ON t.location = c.country",
            "it needs the column `location`, which the table doesn't have",
        ),
        (
            "SELECT t.id, t.location, concat(t.note, c.name) AS x FROM input t LEFT JOIN country c ON t.location = c.country",
            "it needs the column `note`",
        ),
        ("SELECT t.* FROM input t LEFT JOIN country c ON t.location = c.country WHERE c.name IS NOT NULL", "WHERE reads a lookup"),
    ] {
        let lookup = "[lookup.country]\nurl = 'file:country.csv'\non_change = 'reapply'\ncolumns = { country = 'string', name = 'string' }\n";
        let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = '{database}.sales'\ntransform = '{select}'\n{lookup}"));
        let answer = pipeline.answer(&["run"]);
        assert_eq!(answer.code, 2, "{}", answer.err);
        assert!(answer.err.contains("the lookup `country` can't be applied anew: ") && answer.err.contains(said), "{}", answer.err);
    }
}
