//! The state store is lost: what is in force, and what is asked for, is known from the stream and the lake, and the file doesn't take its place.

use super::{Stage, of_era};
use crate::mysql::eventually;
use crate::transforms::{comes_to, shown};

/// Deletes the SQLite file.
fn lose_state(stage: &Stage) {
    for entry in std::fs::read_dir(stage.pipeline.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("state.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_outlive_the_state_store() {
    let mut stage = Stage::new("rules_lost", &["t"], |database| of_era(&format!("{database}.t"), "one")).await;
    let table = format!("{}.t", stage.database);
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &stage.database, "t", &["id", "era"], &["1 one", "2 one"]).await;
    let mut eras = vec!["one"];
    for era in ["two", "three"] {
        stage.change("t").await;
        stage.write(&of_era(&table, era));
        let applied = stage.apply(&["t"], &[]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
        eras.push(era);
    }
    // in force is what the file doesn't say
    assert_eq!(stage.apply(&["t"], &["--rollback"]).code, 0);
    eras.push("two");
    stage.change("t").await;
    let effects = stage.effects();
    let listed = stage.pipeline.ok(&["rules", "--format", "json"]);
    service.kill();
    lose_state(&stage);
    stage.change("t").await;
    let service = stage.pipeline.run();
    stage.change("t").await;
    stage.each_row_is_of_its_era("t", &effects, &eras).await;
    assert!(stage.pipeline.log().contains("the state store has lost revisions of the rules"));
    assert_eq!(stage.pipeline.ok(&["rules", "--format", "json"]), listed);
    // rolled back to what was before, which the lost store knew
    let rolled_back = stage.apply(&["t"], &["--rollback"]);
    assert_eq!(rolled_back.code, 0, "{}{}", rolled_back.out, rolled_back.err);
    stage.change("t").await;
    eras.push("three");
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &eras).await;
    // lost while a proposal waits that no cut names
    service.kill();
    stage.write(&of_era(&table, "four"));
    let waiting = stage.pipeline.answer(&["apply", "--timeout", "0s"]);
    assert_eq!(waiting.code, 1, "{}{}", waiting.out, waiting.err);
    lose_state(&stage);
    // commands look at once, several: each finds all of it
    let listed = std::thread::scope(|scope| {
        let looks: Vec<_> = (0..4).map(|_| scope.spawn(|| stage.pipeline.ok(&["rules"]))).collect();
        looks.into_iter().map(|look| look.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(listed.iter().all(|one| one.contains("6  proposed") && *one == listed[0]), "{listed:?}");
    lose_state(&stage);
    let service = stage.pipeline.run();
    eventually("the proposal is in force", async || stage.effects().len() == 5).await;
    stage.change("t").await;
    eras.push("four");
    let effects = stage.effects();
    stage.each_row_is_of_its_era("t", &effects, &eras).await;
    // with the stream lost as well, the lake goes on from its commits, and by the rules that were in force
    let rolled_back = stage.apply(&["t"], &["--rollback"]);
    assert_eq!(rolled_back.code, 0, "{}{}", rolled_back.out, rolled_back.err);
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    lose_state(&stage);
    std::fs::remove_dir_all(stage.pipeline.path().join("data/stream")).unwrap();
    stage.change("t").await;
    let service = stage.pipeline.run();
    let last = format!("{} three", stage.next);
    eventually("rows are of the rules in force", async || {
        shown(&stage.pipeline, &stage.database, "t", &["id", "era"]).contains(&last)
    })
    .await;
    stage.pipeline.catches_up(stage.server, &stage.database, "t").await;
    assert!(
        stage.pipeline.ok(&["rules", "1"]).contains("from      revision 7 of the stream before"),
        "{}",
        stage.pipeline.ok(&["rules", "1"])
    );
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}
