//! The same questions to one history, asked by `binlake query` and by the macros in DuckDB.

use super::{OPTIONS, ask, duckdb_python};
use crate::merge::{CHECKPOINT_KEY, HISTORY_START_KEY, HistoryShape, OPEN_END};
use crate::publish::Publisher;
use crate::query::{AtPosition, QueryOptions};
use crate::table::{CommitRequest, Lake, LakeUrl, SortedChanges, Table};
use crate::time::Timestamp;
use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

/// The history of one key, (7, `x, "y"`) of the columns (code, name), which the table has the other way round. The price was 10, is 11 since February, and that is
/// known since 20 January.
async fn lake(folder: &std::path::Path) -> Lake {
    let lake = Lake::create(&LakeUrl::File(folder.to_owned())).unwrap();
    let rows = Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("code", DataType::Int32, false),
        Field::new("price", DataType::Int32, true),
    ]);
    let key = ["code", "name"].map(str::to_owned);
    let shape = HistoryShape::new(&"shop.prices".parse().unwrap(), &rows, &key, None).unwrap();
    let time = |text: &str| match text {
        "∞" => OPEN_END,
        text => Timestamp::parse(&format!("2026-{text}")).unwrap().as_micros(),
    };
    let versions = [
        (11, ["02-01", "∞", "01-20", "∞"], "_open"),
        (10, ["01-01", "02-01", "01-20", "∞"], "bounded"),
        (10, ["01-01", "∞", "01-10", "01-20"], "closed-2026-01"),
    ];
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["x, \"y\""; 3])),
        Arc::new(Int32Array::from(vec![7; 3])),
        Arc::new(Int32Array::from_iter_values(versions.map(|version| version.0))),
    ];
    for end in 0..4 {
        let times = versions.map(|version| time(version.1[end]));
        columns.push(Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")));
    }
    columns.push(Arc::new(StringArray::from_iter_values(versions.map(|version| version.2))));
    let piece = SortedChanges {
        rows: RecordBatch::try_new(shape.columns().clone(), columns).unwrap(),
        is_delete: BooleanArray::from(vec![false; 3]),
    };
    let base = lake.table_path("shop", "prices_history");
    let mut table = Table::create(lake.store().clone(), base, &shape.spec(), OPTIONS()).await.unwrap();
    let checkpoint = include_str!("../../../tests/data/state/checkpoint-v1.json").trim();
    let request = CommitRequest {
        columns: shape.columns().clone(),
        record_key: None,
        fill: None,
        truncate: false,
        changes: Box::new(std::iter::once(Ok(piece))),
        ordering: None,
        extra_metadata: BTreeMap::from([
            (CHECKPOINT_KEY.to_owned(), checkpoint.to_owned()),
            (HISTORY_START_KEY.to_owned(), "2026-01-10T00:00:00Z".to_owned()),
        ]),
    };
    table.commit(request).await.unwrap();
    let mut publisher = Publisher::open(lake.clone());
    publisher.refresh().await.unwrap();
    publisher.write().await.unwrap();
    lake
}

#[tokio::test]
async fn a_history_is_asked_by_functions() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let asked = async |sql: &str| {
        let answer = ask(&lake, QueryOptions::default(), &sql.replace("PRICES", "'shop.prices_history'")).await;
        answer.map(|csv| csv.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
    };
    // in the order of the key, not of the table; the versions in the order in which they came to be known
    let all = ["10,2026-01-10T00:00:00Z", "10,2026-01-20T00:00:00Z", "11,2026-01-20T00:00:00Z"];
    let sql = "SELECT price, _system_from FROM history(PRICES, 7, 'x, \"y\"')";
    assert_eq!(asked(sql).await.unwrap(), all);
    let changes = asked("SELECT _change, price FROM changes(PRICES, '2026-01-01', '2026-01-31') c").await.unwrap();
    assert_eq!(changes, ["added,10", "removed,10", "added,10", "added,11"]);
    let own = asked("SELECT price FROM history(PRICES, 7, 'x, \"y\"') ORDER BY price DESC LIMIT 1").await.unwrap();
    assert_eq!(own, ["11"]);
    assert_eq!(asked("SELECT count(*) FROM history(Shop.Prices_History, 7, 'X')").await.unwrap(), ["0"]);
    assert_eq!(asked("SELECT price FROM as_of(PRICES, now(), current_timestamp)").await.unwrap(), ["11"]);
    assert_eq!(asked("SELECT price FROM as_of(PRICES, '2026-01-15T00:00', '2026-02-10')").await.unwrap(), ["10"]);
    let open = "SELECT price FROM shop.prices_history WHERE _system_to = '9999-12-31 23:59:59.999999' ORDER BY price";
    assert_eq!(asked(open).await.unwrap(), ["10", "11"], "an open end can be written");
    for (sql, said) in [
        ("SELECT * FROM history(PRICES, 'x', 7)", "function=history column=code"),
        ("SELECT * FROM history(PRICES, 7.5, 'x')", "function=history column=code"),
        ("SELECT * FROM history(PRICES, 7)", "history('shop.prices_history', code, name)"),
        ("SELECT * FROM as_of(PRICES, system => '2026-01-15')", "have no names"),
        ("SELECT * FROM as_of(PRICES, '2026-13-01', NULL)", "can't be read function=as_of time='2026-13-01'"),
        ("SELECT * FROM as_of(PRICES, '2026-01-05', NULL)", "doesn't go back so far"),
        ("SELECT * FROM diff(PRICES, '2026-02-10', '2026-01-05', '2026-01-31')", "history_start=2026-01-10"),
    ] {
        let error = asked(sql).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{sql}: {error}");
        assert!(error.to_string().contains(said), "{sql}: {error}");
    }
    // a date is no GTID of this source, whatever it looks like
    let at_position: AtPosition = "2026-01-15".parse().unwrap();
    let options = QueryOptions { at_position: Some(at_position), ..QueryOptions::default() };
    let error = ask(&lake, options, "SELECT * FROM shop.prices_history").await.unwrap_err();
    assert!(error.to_string().contains("of another kind"), "{error}");
}

#[tokio::test]
async fn macros_answer_alike_whatever_the_sessions_time_zone_is() {
    let Some(python) = duckdb_python() else {
        eprintln!("no Python with duckdb: BINLAKE_PYTHON names one in `make test`");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let script = "import duckdb, sys\n\
        c = duckdb.connect()\n\
        c.execute(open(sys.argv[1]).read())\n\
        c.execute(\"SET TimeZone = 'Europe/Berlin'\")\n\
        for question in sys.argv[2:]:\n    \
            print(sorted(row[0] for row in c.execute('SELECT price FROM shop.prices_' + question).fetchall()))\n";
    let questions = [
        ("history_of(7, 'x, \"y\"')", "[10, 10, 11]"),
        ("as_of('2026-01-20', '2026-02-01')", "[11]"),
        ("as_of('2026-01-19 23:59:59', '2026-02-01')", "[10]"),
        ("as_of('2026-01-20T00:30:00+01:00', TIMESTAMPTZ '2026-02-01 00:00:00+00')", "[10]"),
        ("as_of(NULL, NULL)", "[10, 11]"),
        ("as_of_valid('2026-02-01')", "[11]"),
        ("as_of_valid('2026-01-31T23:59:59Z')", "[10]"),
        ("as_of_system(DATE '2026-01-20')", "[10, 11]"),
        ("changes('2026-01-10', '2026-01-20')", "[10, 10, 11]"),
        ("diff('2026-02-01', '2026-01-19', now())", "[10, 11]"),
        ("now", "[11]"),
    ];
    let views = std::path::Path::new(lake.url()).join("views.sql");
    let output = Command::new(python).args(["-c", script]).arg(views).args(questions.map(|question| question.0)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let wanted: Vec<&str> = questions.iter().map(|question| question.1).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{text}");
}
