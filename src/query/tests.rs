//! Statements over tables that were written by commits, and what is said about statements that can't be answered.

mod histories;

use super::{AsOf, Engine, OutputFormat, QueryOptions, write_rows};
use crate::error::Result;
use crate::publish::Publisher;
use crate::table::{CommitRequest, Lake, LakeUrl, SortedChanges, Table, TableOptions, TableSpec};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

const OPTIONS: fn() -> TableOptions = || TableOptions {
    target_file_bytes: 1 << 20,
    retained_commits: 10,
    rewrite_threads: 1,
    memory_bytes: 16 << 20,
    writer_name: "test".into(),
};

fn columns(wide: bool) -> SchemaRef {
    let price = if wide { DataType::Int64 } else { DataType::Int32 };
    let mut fields = vec![Field::new("id", DataType::Int32, false), Field::new("TicketPrice", price, true)];
    if wide {
        fields.push(Field::new("note", DataType::Utf8, true));
    }
    fields.push(Field::new("_commit_ts", DataType::Int64, true));
    fields.push(Field::new("sport", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Rows of (sport, id, price), sorted by sport and id.
fn request(wide: bool, rows: &[(&str, i32, i32)]) -> CommitRequest {
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.1)));
    let sports: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.2))));
    let mut arrays = vec![ids];
    if wide {
        arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.2)))));
        arrays.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("it's {}", row.1)))));
    } else {
        arrays.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.2))));
    }
    arrays.extend([times, sports]);
    let piece = SortedChanges {
        rows: RecordBatch::try_new(columns(wide), arrays).unwrap(),
        is_delete: BooleanArray::from(vec![false; rows.len()]),
    };
    let changes: Vec<Result<SortedChanges>> = vec![Ok(piece)];
    CommitRequest {
        columns: columns(wide),
        record_key: None,
        fill: None,
        truncate: false,
        changes: Box::new(changes.into_iter()),
        ordering: None,
        extra_metadata: BTreeMap::from([("binlake.checkpoint".to_owned(), checkpoint(if wide { 9 } else { 5 }))]),
    }
}

/// The sample's checkpoint, of a source that has `transactions` transactions.
fn checkpoint(transactions: u64) -> String {
    include_str!("../../tests/data/state/checkpoint-v1.json").trim().replace(":1-5\"", &format!(":1-{transactions}\""))
}

/// A lake with `Shop.Tickets` (two commits, the second with a new column and a wider one) and two tables called `orders`.
async fn lake(folder: &std::path::Path) -> (Lake, Vec<String>) {
    let lake = Lake::create(&LakeUrl::File(folder.join("it's a lake"))).unwrap();
    let spec = |database: &str, name: &str| TableSpec {
        database: database.into(),
        name: name.into(),
        columns: columns(false),
        record_key: vec!["id".into()],
        sort_prefix: Vec::new(),
        ordering_field: "_commit_ts".into(),
        partition_columns: vec!["sport".into()],
    };
    let mut publisher = Publisher::open(lake.clone());
    let mut instants = Vec::new();
    for (database, name) in [("Shop", "Tickets"), ("shop", "orders"), ("store", "orders")] {
        let base = lake.table_path(database, name);
        let mut table = Table::create(lake.store().clone(), base, &spec(database, name), OPTIONS()).await.unwrap();
        let first = table.commit(request(false, &[("golf", 1, 10), ("golf", 2, 20), ("nba", 3, 30)])).await.unwrap();
        if name == "Tickets" {
            let second = table.commit(request(true, &[("golf", 2, 500), ("polo", 4, 40)])).await.unwrap();
            instants = vec![first.instant.to_string(), second.instant.to_string()];
        }
        publisher.table(database, name, &table.columns(), table.record_key(), &table.slices(None).unwrap());
    }
    publisher.write().await.unwrap();
    // what the commits said is what the tables say
    let views = std::path::Path::new(lake.url()).join("views.sql");
    let written = std::fs::read_to_string(&views).unwrap();
    std::fs::write(&views, "lost").unwrap();
    let mut publisher = Publisher::open(lake.clone());
    publisher.refresh().await.unwrap();
    publisher.write().await.unwrap();
    assert_eq!(std::fs::read_to_string(&views).unwrap(), written);
    // undone by a worker that had read the file before: the lake says what it is to be
    std::fs::write(&views, written.split("\n-- table: store.orders").next().unwrap()).unwrap();
    assert!(!publisher.write().await.unwrap());
    assert_eq!(std::fs::read_to_string(&views).unwrap(), written);
    (lake, instants)
}

async fn ask(lake: &Lake, options: QueryOptions, sql: &str) -> Result<String> {
    let (schema, rows) = Engine::new(lake.clone(), options).query(sql).await?;
    let mut out = Vec::new();
    write_rows(schema, rows, OutputFormat::Csv, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_statement_sees_the_table_as_of_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, instants) = lake(folder.path()).await;
    let now = QueryOptions::default();
    let then = |text: &str| QueryOptions { as_of: Some(text.parse::<AsOf>().unwrap()), ..QueryOptions::default() };
    let all = "SELECT * FROM Shop.Tickets ORDER BY id";
    assert_eq!(
        ask(&lake, now.clone(), all).await.unwrap(),
        "id,TicketPrice,note,_commit_ts,sport\n1,10,,10,golf\n2,500,it's 2,500,golf\n3,30,,30,nba\n4,40,it's 4,40,polo\n"
    );
    let before = "id,TicketPrice,_commit_ts,sport\n1,10,10,golf\n2,20,20,golf\n3,30,30,nba\n";
    assert_eq!(ask(&lake, then(&instants[0]), all).await.unwrap(), before);
    let gtid = |number: u64| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}");
    assert_eq!(ask(&lake, then(&gtid(4)), all).await.unwrap(), before);
    assert!(ask(&lake, then(&gtid(6)), all).await.unwrap().contains("2,500,"));
    let not_yet = ask(&lake, then(&gtid(10)), all).await.unwrap_err();
    assert!(not_yet.to_string().contains("doesn't have that position yet"), "{not_yet}");
    // names with capitals, without quotes; a bare name; a filter, an expression, a join with itself
    let sql = "SELECT a.ticketprice, count(*) n FROM tickets a JOIN TICKETS b ON a.sport = b.sport WHERE a.id = 2 GROUP BY 1";
    assert_eq!(ask(&lake, now.clone(), sql).await.unwrap(), "TicketPrice,n\n500,2\n");
    let sql = "WITH t AS (SELECT sport FROM shop.orders WHERE sport > 'h') SELECT count(*) AS n FROM t";
    assert_eq!(ask(&lake, now.clone(), sql).await.unwrap(), "n\n1\n");
    let sql = "SELECT DISTINCT _hoodie_commit_time FROM Tickets WHERE id = 2";
    let meta = QueryOptions { meta_columns: true, ..QueryOptions::default() };
    assert_eq!(ask(&lake, meta, sql).await.unwrap(), format!("_hoodie_commit_time\n{}\n", instants[1]));
    assert_eq!(ask(&lake, now, "SELECT 1 + 1 AS two").await.unwrap(), "two\n2\n");
}

#[tokio::test]
async fn parts_of_dates_and_times_have_the_names_that_people_know() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::create(&LakeUrl::File(folder.path().join("lake"))).unwrap();
    let time = "TIMESTAMP '2026-11-21 14:05:09.5'";
    let utc = format!("arrow_cast({time}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
    for of in [time, &utc, "'2026-11-21 14:05:09'"] {
        let sql = format!("SELECT year({of}), quarter({of}), month({of}), day({of}), hour({of}), minute({of}), second({of})");
        assert!(ask(&lake, QueryOptions::default(), &sql).await.unwrap().ends_with("\n2026,4,11,21,14,5,9\n"), "{of}");
    }
    let sql = "SELECT month(DATE '1969-12-31') AS m, hour(NULL) AS h";
    assert_eq!(ask(&lake, QueryOptions::default(), sql).await.unwrap(), "m,h\n12,\n");
    let wrong = ask(&lake, QueryOptions::default(), "SELECT hour(14)").await.unwrap_err().to_string();
    assert!(wrong.contains("hour is of a date or a time, not of Int64"), "{wrong}");
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, instants) = lake(folder.path()).await;
    let mut shown = String::new();
    for (sql, as_of) in [
        ("SELECT * FROM orders", None),
        ("SELECT * FROM shop.ordres", None),
        ("SELECT * FROM nowhere.at_all", None),
        ("SELECT nothing FROM shop.orders", None),
        ("SELECT sport FROM shop.orders GROUP BY id", None),
        ("SELEC 1", None),
        ("SELECT 'open", None),
        ("SELECT nofunction(1)", None),
        ("DROP TABLE shop.orders", None),
        ("INSERT INTO shop.orders VALUES (1)", None),
        ("SELECT * FROM shop.orders; SELECT 1", None),
        ("SELECT CAST(sport AS INT) FROM shop.orders WHERE sport = 'golf'", None),
        ("SELECT * FROM Tickets", Some("2001-01-01")),
        ("SELECT * FROM Tickets", Some("no:position")),
    ] {
        let options = QueryOptions { as_of: as_of.map(|text: &str| text.parse().unwrap()), ..QueryOptions::default() };
        let error = ask(&lake, options, sql).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{sql}");
        shown.push_str(&format!("{sql}\n  {}\n", error.to_string().replace(&instants[0], "<first instant>")));
    }
    insta::assert_snapshot!(shown);
    let files = walk(&lake, "store/orders");
    std::fs::write(&files[0], b"PAR1 damaged").unwrap();
    let error = ask(&lake, QueryOptions::default(), "SELECT sum(id) FROM store.orders").await.unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
}

fn walk(lake: &Lake, table: &str) -> Vec<std::path::PathBuf> {
    let base = std::path::Path::new(lake.url()).join(table);
    let partitions = std::fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = partitions.flat_map(|partition| std::fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

/// Python with duckdb: what `make` prepared, or any that has it. Without one there is nothing to test with.
fn duckdb_python() -> Option<String> {
    let named = std::env::var("BINLAKE_PYTHON").ok();
    let has_duckdb = |python: &String| {
        let probe = Command::new(python).args(["-c", "import duckdb"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    named.into_iter().chain(["python3".to_owned()]).find(has_duckdb)
}

#[tokio::test]
async fn duckdb_reads_the_views_from_any_folder() {
    let Some(python) = duckdb_python() else {
        eprintln!("no Python with duckdb: BINLAKE_PYTHON names one in `make test`");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (lake, _) = lake(folder.path()).await;
    let script = "import duckdb, sys\n\
        c = duckdb.connect()\n\
        c.execute(open(sys.argv[1]).read())\n\
        print(c.sql('FROM \"Shop\".\"Tickets\" ORDER BY id').fetchall())\n\
        print(c.sql('DESCRIBE \"Shop\".\"Tickets\"').fetchall()[1][:2])\n\
        print(c.sql('SELECT count(*) FROM store.orders').fetchall())\n";
    let views = std::path::Path::new(lake.url()).join("views.sql");
    let output = Command::new(python).args(["-c", script]).arg(views).current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        text,
        "[(1, 10, None, 10, 'golf'), (2, 500, \"it's 2\", 500, 'golf'), (3, 30, None, 30, 'nba'), (4, 40, \"it's 4\", 40, 'polo')]\n\
         ('TicketPrice', 'BIGINT')\n[(3,)]\n"
    );
}
