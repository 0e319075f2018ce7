//! Every column type at its edges, read by the snapshot and by the binlog: both give the same columns, and what the server's own SELECT says.

mod columns;
mod lakes;
mod server_text;

use crate::mysql::{Client, Flavour, Options, Server};
use crate::snapshot::Request;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int32Type;
use binlake::event::{ChangeBatch, Operation, Section, SourcePosition, TableId, TableSchema, TableState};
use binlake::source::{
    BinlogConnection, BinlogReader, CaptureRule, DumpSettings, LaneBuffers, Progress, SelectTables, ServerInfo, TrackedTables,
    Wanted, connect, connection_options, load_table,
};
use columns::columns;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the binlog ends now.
async fn position(server: &Server) -> (ServerInfo, SourcePosition) {
    let options = connection_options(&Url::parse(&server.repl_url()).unwrap()).unwrap();
    let mut conn = connect(&options, TIMEOUT).await.unwrap();
    let info = ServerInfo::read(&mut conn).await.unwrap();
    let position = info.read_position(&mut conn).await.unwrap();
    (info, position)
}

/// The table's shape by the catalog.
async fn shape(server: &Server, table: &TableId) -> TableSchema {
    let options = connection_options(&Url::parse(&server.repl_url()).unwrap()).unwrap();
    let mut conn = connect(&options, TIMEOUT).await.unwrap();
    load_table(&mut conn, table, &Wanted::default()).await.unwrap().schema
}

/// All of a table's changes in the binlog from `from` until `until`.
async fn changes(
    server: &Server,
    info: &ServerInfo,
    schema: TableSchema,
    from: SourcePosition,
    until: &SourcePosition,
) -> Vec<ChangeBatch> {
    let options = connection_options(&Url::parse(&server.repl_url()).unwrap()).unwrap();
    let settings = DumpSettings {
        server_id: DumpSettings::random_server_id(),
        connect_timeout: TIMEOUT,
        read_timeout: TIMEOUT,
        heartbeat_interval: Duration::from_millis(500),
    };
    let mut connection = BinlogConnection::open(&options, info, &from, &settings).await.unwrap();
    // others use the server, too
    let wanted = schema.table.clone();
    let select: SelectTables = Arc::new(move |table| (*table == wanted).then(CaptureRule::default));
    let mut tables = TrackedTables::new(select, 4, false);
    let known = schema.clone();
    tables.put(Arc::new(schema), TableState::Live).unwrap();
    let mut reader = BinlogReader::new(tables, from, binlake::time::Timestamp::now());
    let mut lanes = LaneBuffers::new(4, 1 << 20);
    while reader.position().coordinates < until.coordinates {
        while connection.has_buffered_event() && reader.position().coordinates < until.coordinates {
            let event = connection.buffered_event().unwrap().unwrap();
            let mut progress = reader.feed(&event, &mut lanes).unwrap();
            while progress == Progress::More {
                progress = reader.resume(&mut lanes).unwrap();
            }
        }
        if reader.position().coordinates < until.coordinates {
            connection.fill().await.unwrap();
        }
    }
    for (table, state) in reader.tables().states() {
        assert_eq!(state, TableState::Live, "{table}");
    }
    let mut sections: Vec<Section> = Vec::new();
    while let Some((_, full)) = lanes.take_full() {
        sections.extend(full);
    }
    sections.extend(lanes.take_rest().unwrap().into_iter().flatten());
    sections
        .into_iter()
        .map(|section| match section {
            Section::Rows(batch) => batch,
            Section::NewShape { schema, .. } => {
                let pairs = known.columns.iter().zip(&schema.columns).filter(|(known, new)| known != new);
                panic!("the binlog's shape is another than the catalog's: {:?}", pairs.collect::<Vec<_>>());
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The rows with one operation, in the order of the first column.
fn rows_of(batches: &[ChangeBatch], operation: Operation) -> RecordBatch {
    let parts: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| {
            let wanted: Vec<u32> =
                (0_u32..).zip(batch.operations.values()).filter(|(_, code)| **code == operation.code()).map(|(i, _)| i).collect();
            take_record_batch(&batch.rows, &UInt32Array::from(wanted)).unwrap()
        })
        .collect();
    let all = concat_batches(&parts[0].schema(), &parts).unwrap();
    let ids = all.column(0).as_primitive::<Int32Type>().values();
    let mut order: Vec<u32> = (0..u32::try_from(all.num_rows()).unwrap()).collect();
    order.sort_by_key(|i| ids[*i as usize]);
    take_record_batch(&all, &UInt32Array::from(order)).unwrap()
}

/// Compares column by column, so that a difference names its column and row.
fn assert_same(left: &RecordBatch, right: &RecordBatch, what: &str) {
    assert_eq!(left.num_rows(), right.num_rows(), "{what}");
    for (i, field) in left.schema().fields().iter().enumerate() {
        let (ours, theirs): (&ArrayRef, &ArrayRef) = (left.column(i), right.column(i));
        for row in 0..ours.len() {
            let (left, right) = (ours.slice(row, 1), theirs.slice(row, 1));
            assert!(left.as_ref() == right.as_ref(), "{what}: column {} row {row}\n{left:?}\n{right:?}", field.name());
        }
        assert!(ours.as_ref() == theirs.as_ref(), "{what}: column {}", field.name());
    }
}

/// Makes the tables `a` (snapshotted) and `b` (followed), the same rows in both.
async fn fill(root: &mut Client, database: &str, flavour: Flavour) -> usize {
    let columns = columns(flavour);
    let definitions: Vec<String> = columns.iter().map(|column| format!("`{}` {}", column.name, column.definition)).collect();
    // dates that don't exist, too
    root.run("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'").await;
    root.run(&format!("USE {database}")).await;
    for table in ["a", "b"] {
        root.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, {}) CHARACTER SET utf8mb4", definitions.join(", "))).await;
    }
    let rows = columns.iter().map(|column| column.values.len()).max().unwrap() + 1;
    let stored: Vec<_> = columns.iter().filter(|column| !column.is_generated()).collect();
    let names: Vec<String> = stored.iter().map(|column| format!("`{}`", column.name)).collect();
    for row in 0..rows {
        let values: Vec<&str> = stored.iter().map(|column| column.values.get(row).map_or("NULL", String::as_str)).collect();
        root.run(&format!("INSERT INTO a (id, {}) VALUES ({row}, {})", names.join(", "), values.join(", "))).await;
    }
    rows
}

async fn both_paths_agree(server: &Server, mariadb_or_mysql: Flavour) {
    server.create_repl_user().await;
    let database = server.create_database("types").await;
    let mut root = server.client().await;
    let rows = fill(&mut root, &database, mariadb_or_mysql).await;
    let columns = columns(mariadb_or_mysql);
    let stored: Vec<String> =
        columns.iter().filter(|column| !column.is_generated()).map(|column| format!("`{}`", column.name)).collect();
    let names = stored.join(", ");
    let (a, b) = (TableId::new(&database, "a"), TableId::new(&database, "b"));

    let (info, from) = position(server).await;
    // three images of each row: one statement, then one by one; updated; deleted
    root.run(&format!("INSERT INTO b (id, {names}) SELECT id, {names} FROM a")).await;
    let middle = position(server).await.1;
    for row in 0..rows {
        root.run(&format!("INSERT INTO b (id, {names}) SELECT id + 1000, {names} FROM a WHERE id = {row}")).await;
    }
    root.run("UPDATE b SET marker = COALESCE(marker, 0) + 1 WHERE id >= 1000").await;
    root.run("DELETE FROM b WHERE id >= 1000").await;
    let until = position(server).await.1;

    let outcome = Request::new(server.repl_url(), &database, &["a"]).read().await.unwrap();
    assert_eq!(outcome.failed, Default::default());
    let snapshot = rows_of(&outcome.batches[&a], Operation::Read);
    assert_eq!(snapshot.num_rows(), rows);

    let shape_of_b = shape(server, &b).await;
    assert_eq!(shape_of_b.columns, shape(server, &a).await.columns);
    let first = changes(server, &info, shape_of_b.clone(), from, &middle).await;
    assert!(first.iter().all(|batch| *batch.schema == shape_of_b), "the table map and the catalog say the same shape");
    let inserted = rows_of(&first, Operation::Create);
    assert_same(&snapshot, &inserted, "INSERT … SELECT");

    let second = changes(server, &info, shape_of_b, middle, &until).await;
    let created = rows_of(&second, Operation::Create);
    assert_same(&without_key_and_marker(&snapshot), &without_key_and_marker(&created), "single inserts");
    let updated = rows_of(&second, Operation::Update);
    assert_same(&without_key_and_marker(&snapshot), &without_key_and_marker(&updated), "after images of updates");
    let deleted = rows_of(&second, Operation::Delete);
    assert_same(&without_key_and_marker(&snapshot), &without_key_and_marker(&deleted), "before images of deletes");
    assert_same(&updated, &deleted, "an update's after image is the delete's before image");

    server_text::assert_says_the_same(&mut root, &a, &outcome.batches[&a][0].schema, &snapshot).await;
}

fn without_key_and_marker(batch: &RecordBatch) -> RecordBatch {
    let keep: Vec<usize> = batch
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !["id", "marker"].contains(&field.name().as_str()))
        .map(|(i, _)| i)
        .collect();
    batch.project(&keep).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql() {
    both_paths_agree(Server::shared(Flavour::MySql), Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql_with_compressed_transactions() {
    let server = Server::start(Options { compression: true, ..Options::default() });
    both_paths_agree(&server, Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb() {
    both_paths_agree(Server::shared(Flavour::MariaDb), Flavour::MariaDb).await;
}
