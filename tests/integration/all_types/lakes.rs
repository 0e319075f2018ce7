//! The same rows by the snapshot into one lake table and by the binlog into another: both tables have the same columns with the same values, and what
//! the server's own SELECT says.

use super::{assert_same, columns, fill, server_text, shape, without_key_and_marker};
use crate::lake::LakeTable;
use crate::mysql::{Flavour, Options, Server, eventually};
use crate::service::Pipeline;
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int32Type;
use binlake::event::{TableId, TableSchema};

/// The source's columns of a lake table, in their order, sorted by `id`.
fn rows(table: &LakeTable, schema: &TableSchema) -> Option<RecordBatch> {
    let batches = table.batches(None).ok()?;
    let all = concat_batches(&batches.first()?.schema(), &batches).ok()?;
    let indices: Vec<usize> = schema.columns.iter().map(|column| all.schema().index_of(&column.name).unwrap()).collect();
    let ids = all.column_by_name("id").unwrap().as_primitive::<Int32Type>().values();
    let mut order: Vec<u32> = (0..u32::try_from(all.num_rows()).unwrap()).collect();
    order.sort_by_key(|i| ids[*i as usize]);
    Some(take_record_batch(&all.project(&indices).unwrap(), &UInt32Array::from(order)).unwrap())
}

async fn holds(table: &LakeTable, schema: &TableSchema, count: usize) -> RecordBatch {
    let mut found = None;
    eventually(&format!("{} has {count} rows", schema.table), async || {
        found = rows(table, schema);
        found.as_ref().is_some_and(|rows| rows.num_rows() == count)
    })
    .await;
    found.unwrap()
}

async fn both_lakes_agree(server: &Server, flavour: Flavour) {
    server.create_repl_user().await;
    let database = server.create_database("lakes").await;
    let mut root = server.client().await;
    let count = fill(&mut root, &database, flavour).await;
    let stored: Vec<String> =
        columns(flavour).iter().filter(|column| !column.is_generated()).map(|column| format!("`{}`", column.name)).collect();
    let names = stored.join(", ");
    let pipeline = Pipeline::new(server, &format!("[[table]]\nsource = \"{database}.*\"\n"));
    let (a, b) = (pipeline.table(&database, "a"), pipeline.table(&database, "b"));
    let (shape_of_a, shape_of_b) =
        (shape(server, &TableId::new(&database, "a")).await, shape(server, &TableId::new(&database, "b")).await);

    let service = pipeline.run();
    let snapshot = holds(&a, &shape_of_a, count).await;
    eventually("the empty table is in the lake", async || !b.instants().is_empty()).await;
    // each row by a statement for all, by one of its own, changed, and moved by its key
    root.run(&format!("INSERT INTO b (id, {names}) SELECT id, {names} FROM a")).await;
    for row in 0..count {
        root.run(&format!("INSERT INTO b (id, {names}) SELECT id + 1000, {names} FROM a WHERE id = {row}")).await;
    }
    root.run("UPDATE b SET marker = COALESCE(marker, 0) + 1 WHERE id >= 1000").await;
    root.run(&format!("INSERT INTO b (id, {names}) SELECT id + 2000, {names} FROM a")).await;
    root.run("UPDATE b SET id = id + 1000 WHERE id >= 2000 ORDER BY id DESC").await;
    root.run("INSERT INTO b (id) VALUES (4000)").await;
    holds(&b, &shape_of_b, 3 * count + 1).await;
    root.run("DELETE FROM b WHERE id = 4000").await;
    let followed = holds(&b, &shape_of_b, 3 * count).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();

    assert_eq!(snapshot.schema(), followed.schema(), "both have the same columns of the same types");
    assert_same(&snapshot, &followed.slice(0, count), "INSERT … SELECT");
    let without = without_key_and_marker;
    assert_same(&without(&snapshot), &without(&followed.slice(count, count)), "single inserts, updated");
    assert_same(&without(&snapshot), &without(&followed.slice(2 * count, count)), "rows whose key changed");
    server_text::assert_says_the_same(&mut root, &shape_of_a.table, &shape_of_a, &snapshot).await;
    server_text::assert_says_the_same(&mut root, &shape_of_b.table, &shape_of_b, &followed).await;
    // and the program's own comparison of source and lake
    let verified = pipeline.answer(&["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_lake_on_mysql() {
    both_lakes_agree(Server::shared(Flavour::MySql), Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_lake_on_mariadb() {
    both_lakes_agree(&Server::start(Options::mariadb()), Flavour::MariaDb).await;
}
