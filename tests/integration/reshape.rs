//! A change of shape that stopped a table: a backfill gives the lake's table the source's new shape, columns, types and key. What it was before can
//! still be read as of then, by every reader.

use crate::capture::Scene;
use crate::lake::{LakeTable, Values};
use crate::readers::{compare, duckdb, hudi_rs};
use crate::service::source_rows;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

/// A table, what is done to it, and rows for it afterwards.
struct Change {
    table: &'static str,
    columns: &'static str,
    before: &'static str,
    alter: &'static str,
    after: &'static str,
}

const CHANGES: [Change; 8] = [
    Change {
        table: "dropped",
        columns: "id INT PRIMARY KEY, gone INT, v VARCHAR(20)",
        before: "(1, 10, 'a'), (2, NULL, 'b'), (3, 30, 'c')",
        alter: "DROP COLUMN gone",
        after: "(4, 'd')",
    },
    Change {
        table: "renamed",
        columns: "id INT PRIMARY KEY, v VARCHAR(20)",
        before: "(1, 'a'), (2, NULL)",
        alter: "RENAME COLUMN v TO w",
        after: "(4, 'd')",
    },
    Change {
        table: "narrower",
        columns: "id BIGINT PRIMARY KEY, n BIGINT, d DECIMAL(20,4)",
        before: "(1, 5000000000, 1.2345), (2, 7, 2)",
        alter: "MODIFY id INT, MODIFY n INT, MODIFY d DECIMAL(8,2)",
        after: "(4, -7, 9.99)",
    },
    Change {
        table: "retyped",
        columns: "id INT PRIMARY KEY, v VARCHAR(20), t DATETIME",
        before: "(1, '12', '2026-01-02 03:04:05'), (2, '-7', NULL)",
        alter: "MODIFY v DOUBLE, MODIFY t DATE",
        after: "(4, 0.5, '2026-11-21')",
    },
    // the same name, but another column
    Change {
        table: "remade",
        columns: "id INT PRIMARY KEY, v INT, w INT",
        before: "(1, 1, 1), (2, 2, 2)",
        alter: "DROP COLUMN v, ADD COLUMN v DATE",
        after: "(4, 4, '2026-11-21')",
    },
    Change {
        table: "wider_key",
        columns: "id INT, v VARCHAR(20) NOT NULL, PRIMARY KEY (id)",
        before: "(1, 'a'), (2, 'b')",
        alter: "DROP PRIMARY KEY, ADD PRIMARY KEY (v, id)",
        after: "(1, 'd')",
    },
    Change {
        table: "other_key",
        columns: "id INT, v VARCHAR(20) NOT NULL, PRIMARY KEY (id)",
        before: "(1, 'a'), (2, 'b')",
        alter: "DROP PRIMARY KEY, DROP COLUMN id, ADD PRIMARY KEY (v)",
        after: "('d')",
    },
    Change {
        table: "parts",
        columns: "id INT, land VARCHAR(20), v INT, PRIMARY KEY (id)",
        before: "(1, 'a b', 1), (2, 'ü', 2), (3, 'a b', 3), (4, NULL, 4)",
        alter: "DROP COLUMN v, DROP PRIMARY KEY, MODIFY id BIGINT, ADD PRIMARY KEY (id)",
        after: "(-5000000000, 'ü')",
    },
];

/// Tables that have a column of another type afterwards.
const RETYPED: [&str; 3] = ["narrower", "retyped", "remade"];

/// What a table was.
struct Moment {
    instant: String,
    columns: Vec<String>,
    rows: Vec<Values>,
}

/// Every live file has the same columns of the same types.
fn assert_one_shape(table: &LakeTable) {
    let shape = |path| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().schema().to_string();
    let shapes: BTreeSet<String> = table.base_files(None).unwrap().into_iter().map(shape).collect();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
}

/// The rows of a JSON answer.
fn values(answer: &str, columns: &[String]) -> Vec<Values> {
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(answer).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(|text| text.replace('T', " ").trim_end_matches('Z').to_owned());
    rows.iter().map(|row| columns.iter().map(|column| text(&row[column])).collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_gives_the_new_shape_and_the_old_one_stays_readable() {
    let mut scene = Scene::new("reshape").await;
    let database = scene.database.clone();
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&format!("{config}[[table]]\nsource = \"{database}.parts\"\npartition_by = \"land\"\n"));
    for Change { table, columns, before, .. } in &CHANGES {
        scene.run(&[&format!("CREATE TABLE {table} ({columns})"), &format!("INSERT INTO {table} VALUES {before}")]).await;
    }
    let names: Vec<&str> = CHANGES.iter().map(|change| change.table).collect();
    let service = scene.pipeline.run();
    scene.catches_up(&names).await;
    let mut moments: BTreeMap<&str, Moment> = BTreeMap::new();
    for table in &names {
        let (columns, rows) = source_rows(scene.server, &database, table).await;
        let instant = scene.pipeline.table(&database, table).instants().pop().unwrap();
        moments.insert(table, Moment { instant, columns, rows });
    }
    // half of them while it runs, half while it is stopped
    let (live, stopped) = CHANGES.split_at(CHANGES.len() / 2);
    for Change { table, alter, after, .. } in live {
        // what no longer fits makes room first
        scene.run(&[if *table == "narrower" { "UPDATE narrower SET n = 1" } else { "DO 0" }]).await;
        scene.run(&[&format!("ALTER TABLE {table} {alter}"), &format!("INSERT INTO {table} VALUES {after}")]).await;
        assert!(scene.stops(table).await.contains("backfill"), "{}", scene.pipeline.log_tail());
    }
    scene.ends_well(service);
    for Change { table, alter, after, .. } in stopped {
        scene
            .run(&["SET sql_mode = ''", &format!("ALTER TABLE {table} {alter}"), &format!("INSERT INTO {table} VALUES {after}")])
            .await;
    }
    let service = scene.pipeline.run();
    for table in stopped {
        assert!(scene.stops(table.table).await.contains("backfill"), "{}", scene.pipeline.log_tail());
    }
    scene.ends_well(service);

    let tables: Vec<String> = names.iter().map(|table| format!("{database}.{table}")).collect();
    let backfill: Vec<&str> = ["backfill"].into_iter().chain(tables.iter().flat_map(|table| ["--table", table])).collect();
    scene.pipeline.ok(&backfill);
    let service = scene.pipeline.run();
    scene.catches_up(&names).await;
    scene
        .run(&[
            "DELETE FROM dropped WHERE id = 2",
            "UPDATE renamed SET w = 'neu' WHERE id = 2",
            "UPDATE narrower SET n = 8 WHERE id = 2",
            "INSERT INTO retyped VALUES (9, -0.25, NULL)",
            "ALTER TABLE remade ADD COLUMN more INT NOT NULL DEFAULT 5",
            "UPDATE wider_key SET v = 'e' WHERE v = 'a'",
            "DELETE FROM other_key WHERE v = 'b'",
            "UPDATE parts SET land = '' WHERE id = 1",
        ])
        .await;
    scene.catches_up(&names).await;
    scene.ends_well(service);
    let verified = scene.pipeline.answer(&["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);

    let views = scene.pipeline.lake().join("views.sql");
    for table in names {
        let lake = scene.pipeline.table(&database, table);
        assert_one_shape(&lake);
        let folder = lake.folder().display().to_string();
        let (columns, rows) = source_rows(scene.server, &database, table).await;
        compare("hudi-rs", table, &rows, hudi_rs(&folder, &columns, &[]));
        compare("DuckDB", table, &rows, duckdb(&views, &format!("{database}.{table}"), &columns));
        // as of before the change: all columns with their values by our own query; by hudi-rs, which reads all instants with the newest columns and
        // types, those that are still the same
        let Moment { instant, columns: former, rows } = &moments[table];
        let texts: Vec<String> = former.iter().map(|column| format!("CAST({column} AS VARCHAR) AS {column}")).collect();
        let sql = format!("SELECT {} FROM {database}.{table}", texts.join(", "));
        let answer = scene.pipeline.ok(&["query", "--format", "json", "--as-of", instant, &sql]);
        compare("binlake as of before", table, rows, values(&answer, former));
        let is_kept = |i: &usize| columns.contains(&former[*i]) && !RETYPED.contains(&table);
        let kept: Vec<usize> = (0..former.len()).filter(is_kept).collect();
        let names: Vec<String> = kept.iter().map(|i| former[*i].clone()).collect();
        let mut expected: Vec<Values> = rows.iter().map(|row| kept.iter().map(|i| row[*i].clone()).collect()).collect();
        expected.sort();
        if !kept.is_empty() {
            compare("hudi-rs as of before", table, &expected, hudi_rs(&folder, &names, &["--as-of", instant]));
        }
    }
}
