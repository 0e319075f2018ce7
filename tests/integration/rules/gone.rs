//! What goes by other rules has all up to the cut at which it goes, and nothing behind it, also where who had it was killed before it came there.

use super::{MAPPING, Stage};
use crate::mysql::eventually;
use crate::transforms::{comes_to, shown};

fn tables(database: &str, names: &[&str]) -> String {
    names.iter().map(|name| format!("[[table]]\nsource = '{database}.{name}'\n")).collect()
}

/// The files by which readers hold the stream.
fn readers(stage: &Stage) -> usize {
    let entries = std::fs::read_dir(stage.pipeline.path().join("data/stream")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("released.")).count()
}

fn rows_in_lake(stage: &Stage, table: &str) -> Vec<String> {
    shown(&stage.pipeline, &stage.database, table, &["id", "value"])
}

/// `run` was stopped, and a capture alone took up the rules: the next `run` gives the table and the delivery what they lack, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_and_a_delivery_end_at_the_cut() {
    let all = |database: &str| {
        let delivery = format!("[[deliver]]\nsource = '{database}.stays'\nto = 'sqlite:./data/items.db'\nmapping = 'stock.json'\n");
        format!("{}{delivery}", tables(database, &["stays", "goes"]))
    };
    let mut stage = Stage::new("rules_gone", &["stays", "goes"], |_| String::new()).await;
    let database = stage.database.clone();
    std::fs::write(stage.pipeline.path().join("stock.json"), MAPPING).unwrap();
    stage.base = stage.base.replace("[state]", "[state]\nlease_duration = \"2s\"");
    stage.write(&all(&database));
    let service = stage.pipeline.run();
    for table in ["stays", "goes"] {
        comes_to(&stage.pipeline, &database, table, &["id", "value"], &["1 one", "2 two"]).await;
    }
    eventually("the items are there", async || stage.items() == ["1 one", "2 two"]).await;
    assert_eq!(readers(&stage), 2);
    service.kill();
    // captured, and in nobody's commit when the rules change
    let capture = stage.pipeline.start(&["capture"]);
    for table in ["stays", "goes"] {
        stage.change(table).await;
    }
    let last = format!("seen {}", stage.next);
    eventually("the changes are on the stream", async || stage.pipeline.answer(&["stream", "tail"]).out.contains(&last)).await;
    let (goes, delivered) = (stage.rows_at_source("goes").await, stage.rows_at_source("stays").await);
    stage.write(&tables(&database, &["stays"]));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    for table in ["stays", "goes"] {
        stage.change(table).await;
    }
    assert!(capture.terminate().success(), "{}", stage.pipeline.log_tail());
    assert_eq!(rows_in_lake(&stage, "goes"), ["1 one", "2 two"], "nobody has merged yet");
    let service = stage.pipeline.run();
    stage.pipeline.catches_up(stage.server, &database, "stays").await;
    eventually("the delivery ends at the cut", async || stage.items() == delivered).await;
    eventually("the table ends at the cut", async || rows_in_lake(&stage, "goes") == goes).await;
    eventually("the delivery holds the stream no longer", async || readers(&stage) == 1).await;
    // a later start finds that both have ended
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    let service = stage.pipeline.run();
    stage.change("stays").await;
    stage.pipeline.catches_up(stage.server, &database, "stays").await;
    assert_eq!((rows_in_lake(&stage, "goes"), stage.items(), readers(&stage)), (goes, delivered, 1));
    // both come back, with what happened meanwhile
    stage.write(&all(&database));
    assert_eq!(stage.apply(&["stays"], &[]).code, 0);
    stage.pipeline.catches_up(stage.server, &database, "goes").await;
    let expected = stage.rows_at_source("stays").await;
    eventually("all is delivered", async || stage.items() == expected).await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}

/// Both workers stand still while the rules change, and one never wakes up: the other gives all tables what they lack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_workers_the_other_finishes_the_tables() {
    let names = ["a", "b", "c", "d"];
    let mut stage = Stage::new("rules_gone_shared", &names, |database| tables(database, &names)).await;
    let database = stage.database.clone();
    stage.base = stage.base.replace("[state]", "[state]\nlease_duration = \"2s\"");
    stage.write(&tables(&database, &names));
    let capture = stage.pipeline.start(&["capture"]);
    eventually("there is a stream", async || stage.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = stage.pipeline.start(&["merge"]);
    for table in names {
        comes_to(&stage.pipeline, &database, table, &["id", "value"], &["1 one", "2 two"]).await;
    }
    let second = stage.pipeline.start(&["merge"]);
    eventually("both have tables", async || stage.pipeline.log().matches("handed over").count() >= 2).await;
    for table in names {
        stage.change(table).await;
        stage.pipeline.catches_up(stage.server, &database, table).await;
    }
    stage.pipeline.pause(&first);
    stage.pipeline.pause(&second);
    let mut expected = Vec::new();
    for table in names {
        stage.change(table).await;
        expected.push(stage.rows_at_source(table).await);
    }
    let last = format!("seen {}", stage.next);
    eventually("the changes are on the stream", async || stage.pipeline.answer(&["stream", "tail"]).out.contains(&last)).await;
    stage.write(&tables(&database, &["a"]));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    for table in names {
        stage.change(table).await;
    }
    first.kill();
    second.signal("CONT");
    stage.pipeline.catches_up(stage.server, &database, "a").await;
    for (table, expected) in names.iter().zip(&expected).skip(1) {
        eventually("the table ends at the cut", async || rows_in_lake(&stage, table) == *expected).await;
    }
    // nobody has them any more, and they stay as they are
    eventually("their leases end", async || {
        stage.pipeline.log().matches("the table has ended, and its lease with it").count() >= 3
    })
    .await;
    stage.change("a").await;
    stage.pipeline.catches_up(stage.server, &database, "a").await;
    for (table, expected) in names.iter().zip(&expected).skip(1) {
        assert_eq!(rows_in_lake(&stage, table), *expected, "{table}");
    }
    for service in [capture, second] {
        assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    }
    stage.pipeline.assert_calm_log();
}

/// The first commit of a table can't be made, and who tries it is killed; a delivery comes and goes while nobody delivers: another worker makes both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_no_commit_yet_is_made_by_another() {
    let mut stage = Stage::new("rules_gone_first", &["stays", "goes"], |_| String::new()).await;
    let database = stage.database.clone();
    std::fs::write(stage.pipeline.path().join("stock.json"), MAPPING).unwrap();
    stage.base = stage.base.replace("[state]", "[state]\nlease_duration = \"2s\"");
    stage.write(&tables(&database, &["stays"]));
    let capture = stage.pipeline.start(&["capture"]);
    eventually("there is a stream", async || stage.pipeline.path().join("data/stream/stream.json").exists()).await;
    let first = stage.pipeline.start(&["merge"]);
    comes_to(&stage.pipeline, &database, "stays", &["id", "value"], &["1 one", "2 two"]).await;
    // a folder where the new table's file of properties is to be
    let in_the_way = stage.pipeline.path().join(format!("data/lake/{database}/goes/.hoodie/hoodie.properties"));
    std::fs::create_dir_all(&in_the_way).unwrap();
    stage.write(&tables(&database, &["stays", "goes"]));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    stage.change("goes").await;
    eventually("the table gets no commit", async || stage.pipeline.log().contains("a file of the table is missing")).await;
    first.kill();
    let goes = stage.rows_at_source("goes").await;
    let delivery = format!("[[deliver]]\nsource = '{database}.stays'\nto = 'sqlite:./data/items.db'\nmapping = 'stock.json'\n");
    stage.write(&format!("{}{delivery}", tables(&database, &["stays"])));
    assert_eq!(stage.apply(&[], &[]).code, 0);
    stage.change("goes").await;
    stage.change("stays").await;
    let delivered = stage.rows_at_source("stays").await;
    stage.write(&tables(&database, &["stays"]));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    stage.change("stays").await;
    std::fs::remove_dir(in_the_way).unwrap();
    let second = stage.pipeline.start(&["merge"]);
    eventually("the table ends at its cut", async || rows_in_lake(&stage, "goes") == goes).await;
    eventually("the delivery ends at its cut", async || stage.items() == delivered).await;
    eventually("the lease ends", async || stage.pipeline.log().contains("the table has ended, and its lease with it")).await;
    stage.change("stays").await;
    stage.pipeline.catches_up(stage.server, &database, "stays").await;
    assert_eq!((rows_in_lake(&stage, "goes"), stage.items()), (goes, delivered));
    for service in [capture, second] {
        assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    }
}

/// The only table goes before anybody has begun to merge: it has all up to the cut even so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_table_ends_at_its_cut_though_nobody_had_begun() {
    let mut stage = Stage::new("rules_gone_last", &["goes"], |database| tables(database, &["goes"])).await;
    let database = stage.database.clone();
    std::fs::write(stage.pipeline.path().join("stock.json"), MAPPING).unwrap();
    let capture = stage.pipeline.start(&["capture"]);
    stage.change("goes").await;
    let last = format!("seen {}", stage.next);
    eventually("the changes are on the stream", async || stage.pipeline.answer(&["stream", "tail"]).out.contains(&last)).await;
    let goes = stage.rows_at_source("goes").await;
    stage.write(&format!("[[deliver]]\nsource = '{database}.goes'\nto = 'sqlite:./data/items.db'\nmapping = 'stock.json'\n"));
    let applied = stage.apply(&[], &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    stage.change("goes").await;
    assert!(capture.terminate().success(), "{}", stage.pipeline.log_tail());
    let delivered = stage.rows_at_source("goes").await;
    for _ in 0..2 {
        let service = stage.pipeline.run();
        eventually("the table ends at its cut", async || rows_in_lake(&stage, "goes") == goes).await;
        eventually("all is delivered", async || stage.items() == delivered).await;
        assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    }
    assert_eq!(rows_in_lake(&stage, "goes"), goes);
    stage.pipeline.assert_calm_log();
}
