//! Rows with an order of their own of which some become dead letters or are dropped: the newest of each key decides, wherever it is.

use super::dead_letters::{has_letters, letters};
use super::of_source::comes_to;
use crate::mysql::{PATIENCE, within};
use crate::random::Random;
use crate::service::Pipeline;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

const TABLE: &str = "[lake]\nurl = 'file:./data/lake'\ncommit_interval = '100ms'\n[state]\nurl = 'sqlite:./data/state.db'\n[admin]\nlisten = 'off'\n\
    [[table]]\nstream = 'jsonl:./in/'\nname = 'mydev.t'\nformat = 'json'\nkey = ['id']\nordering = 'at'\n\
    columns = { id = 'int', at = { type = 'date', format = 'M/d/yy' }, v = 'string' }\n\
    transform = '''SELECT id, at, CAST(v AS INT) AS number FROM input WHERE v <> 'dropped' '''\non_error = 'dead_letter'\n";

/// The pipeline, and the file that feeds its table.
fn fed() -> (Pipeline, File) {
    let pipeline = Pipeline::from_text(TABLE);
    let folder = pipeline.path().join("in");
    std::fs::create_dir_all(&folder).unwrap();
    let file = File::options().create(true).append(true).open(folder.join("all.jsonl")).unwrap();
    (pipeline, file)
}

#[tokio::test]
async fn the_newest_row_decides_though_it_is_a_dead_letter() {
    let (pipeline, mut file) = fed();
    let mut add = |records: &[(u32, u32, &str)]| {
        let line = |(id, month, v): &(u32, u32, &str)| format!("{{\"id\": {id}, \"at\": \"{month}/1/11\", \"v\": \"{v}\"}}\n");
        file.write_all(records.iter().map(line).collect::<String>().as_bytes()).unwrap();
    };
    let service = pipeline.run();
    let expect = async |rows: &[&str], ids: &[i64]| {
        comes_to(&pipeline, "mydev", "t", &["id", "at", "number"], rows).await;
        has_letters(&pipeline, ids).await;
    };
    let month = |id: i64| letters(&pipeline)[&id].1["at"].as_str().unwrap()[5..7].to_owned();
    add(&[(1, 10, "bad"), (2, 5, "7"), (3, 5, "7")]);
    expect(&["2 2011-05-01 7", "3 2011-05-01 7"], &[1]).await;
    // what is late changes nothing: a good row against a letter, a bad one against a letter, a bad one and one that is dropped against a row
    let late = [(1, 9, "3"), (1, 8, "worse"), (2, 4, "bad"), (3, 4, "dropped")];
    add(&late);
    add(&[(9, 1, "1")]);
    expect(&["2 2011-05-01 7", "3 2011-05-01 7", "9 2011-01-01 1"], &[1]).await;
    assert_eq!(month(1), "10", "the letter is the newest row's");
    // also for who starts anew
    service.kill();
    let service = pipeline.run();
    add(&late);
    add(&[(9, 2, "2")]);
    expect(&["2 2011-05-01 7", "3 2011-05-01 7", "9 2011-02-01 2"], &[1]).await;
    assert_eq!(month(1), "10");
    // what is newer, or as new and later, takes its place, and all in one batch do alike
    add(&[(1, 10, "bad, too"), (2, 6, "bad"), (2, 5, "8"), (3, 6, "dropped"), (4, 2, "bad"), (4, 1, "4"), (9, 2, "3")]);
    expect(&["9 2011-02-01 3"], &[1, 2, 4]).await;
    assert_eq!(letters(&pipeline)[&1].1["v"], "bad, too");
    // of what was dropped nothing is kept: an older one that passes comes in
    add(&[(4, 3, "44"), (3, 4, "30")]);
    expect(&["3 2011-04-01 30", "4 2011-03-01 44", "9 2011-02-01 3"], &[1, 2]).await;
    add(&[(3, 6, "dropped")]);
    expect(&["4 2011-03-01 44", "9 2011-02-01 3"], &[1, 2]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    // tried again, they come in by their own rank
    pipeline.set_config(&pipeline.config().replace("CAST(v AS INT)", "COALESCE(TRY_CAST(v AS INT), -1)"));
    let service = pipeline.run();
    pipeline.ok(&["dead-letter", "retry", "--table", "mydev.t"]);
    let rows = ["1 2011-10-01 -1", "2 2011-06-01 -1", "4 2011-03-01 44", "9 2011-02-01 3"];
    expect(&rows, &[]).await;
    add(&[(1, 9, "5"), (2, 5, "5"), (9, 2, "4")]);
    let rows = ["1 2011-10-01 -1", "2 2011-06-01 -1", "4 2011-03-01 44", "9 2011-02-01 4"];
    expect(&rows, &[]).await;
    add(&[(1, 11, "11")]);
    expect(&["1 2011-11-01 11", "2 2011-06-01 -1", "4 2011-03-01 44", "9 2011-02-01 4"], &[]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}

/// Good and bad rows of few keys in any order, with ties, in batches as they fall, through kills: table and letters are each key's newest row.
#[tokio::test]
async fn whatever_the_order_the_newest_row_is_in_the_table_or_a_letter() {
    let (pipeline, mut file) = fed();
    let mut random = Random::from_environment("LATE_SEED");
    let mut newest: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    let mut service = pipeline.run();
    for round in 0..8 {
        for number in 0..30 {
            let (id, month) = (random.below(12), 1 + random.below(12));
            let value = if random.below(3) == 0 { format!("bad {round} {number}") } else { format!("{}", round * 100 + number) };
            file.write_all(format!("{{\"id\": {id}, \"at\": \"{month}/1/11\", \"v\": \"{value}\"}}\n").as_bytes()).unwrap();
            // of equal ones the later wins
            if newest.get(&id).is_none_or(|(present, _)| *present <= month) {
                newest.insert(id, (month, value));
            }
        }
        if round % 3 == 1 {
            service.kill();
            service = pipeline.run();
        }
        let (bad, good): (Vec<_>, Vec<_>) = newest.iter().partition(|(_, (_, value))| value.starts_with("bad"));
        let mut rows: Vec<String> = good.iter().map(|(id, (month, value))| format!("{id} 2011-{month:02}-01 {value}")).collect();
        rows.sort();
        comes_to(&pipeline, "mydev", "t", &["id", "at", "number"], &rows.iter().map(String::as_str).collect::<Vec<_>>()).await;
        has_letters(&pipeline, &bad.iter().map(|(id, _)| **id as i64).collect::<Vec<_>>()).await;
        let mut found = BTreeMap::new();
        // a letter may take another's place after ids and rows are as they will be
        let newest = within(PATIENCE, async || {
            found = letters(&pipeline);
            bad.iter().all(|(id, (_, value))| found.get(&(**id as i64)).is_some_and(|letter| letter.1["v"] == value.as_str()))
        });
        assert!(newest.await, "round {round}: {bad:?} expected, {found:?} found\n{}", pipeline.log_tail());
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    pipeline.assert_calm_log();
}
