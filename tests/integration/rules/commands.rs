//! Commands go by the revision in force, and say where the file has other rules.

use super::{Stage, of_era};
use crate::transforms::comes_to;

const OTHERS: &str = "the service goes by other rules than the file has";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_go_by_the_rules_in_force() {
    let two = |database: &str| format!("{}[[table]]\nsource = '{database}.u'\n", of_era(&format!("{database}.t"), "one"));
    let mut stage = Stage::new("rules_commands", &["t", "u"], |database| of_era(&format!("{database}.t"), "one")).await;
    let database = stage.database.clone();
    // before there is a service the file counts
    let alone = of_era(&format!("{database}.t"), "one");
    let doctor = stage.pipeline.answer(&["doctor"]);
    assert!(doctor.code == 0 && !doctor.out.contains("revision"), "{}{}", doctor.out, doctor.err);
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &database, "t", &["id", "era"], &["1 one", "2 one"]).await;
    let agreed = stage.pipeline.answer(&["verify"]);
    assert!(agreed.code == 0 && agreed.out.contains(&format!("{database}.t: equal")), "{}{}", agreed.out, agreed.err);
    assert!(!agreed.err.contains(OTHERS), "{}", agreed.err);
    // u comes; then the file is as it was, and says nothing of it
    stage.write(&two(&database));
    assert_eq!(stage.apply(&["t"], &[]).code, 0);
    comes_to(&stage.pipeline, &database, "u", &["id", "value"], &["1 one", "2 two"]).await;
    stage.write(&alone);
    let said = |arguments: &[&str]| {
        let answer = stage.pipeline.answer(arguments);
        assert_eq!(answer.code, 0, "{arguments:?}: {}{}", answer.out, answer.err);
        assert!(answer.err.contains(OTHERS) && answer.err.contains("revision=2"), "{arguments:?}: {}", answer.err);
        answer.out
    };
    let verified = said(&["verify"]);
    assert!(verified.contains(&format!("{database}.u: equal, 2 rows")), "{verified}");
    assert!(said(&["verify", "--table", &format!("{database}.u")]).contains("u: equal"));
    assert!(said(&["tables"]).contains(&format!("{database}.u ")));
    let ddl = said(&["ddl", "--engine", "spark", &format!("{database}.u")]);
    assert!(ddl.contains(&format!("`{database}`.`u`")), "{ddl}");
    said(&["dead-letter", "list"]);
    let doctor = stage.pipeline.answer(&["doctor"]);
    assert!(doctor.code == 0 && doctor.out.contains("2 is in force, and the file has others"), "{}", doctor.out);
    assert!(
        doctor.out.contains(&format!("{database}.u ")) && doctor.out.lines().all(|line| line.chars().count() <= 80),
        "{}",
        doctor.out
    );
    // with the service stopped, and its state store gone, lake and stream say it
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    std::fs::remove_file(stage.pipeline.path().join("data/state.db")).unwrap();
    assert!(said(&["verify"]).contains(&format!("{database}.u: equal")));
    assert!(!stage.pipeline.path().join("data/state.db").exists(), "looking makes nothing");
    // who has the lake alone
    std::fs::rename(stage.pipeline.path().join("data/stream"), stage.pipeline.path().join("data/elsewhere")).unwrap();
    assert!(said(&["ddl", "--engine", "spark", &format!("{database}.u")]).contains("u"));
    // where rules stay as they are, so does the line
    stage.write(&two(&database));
    let same = stage.pipeline.answer(&["tables"]);
    assert!(same.code == 0 && !same.err.contains(OTHERS), "{}", same.err);
    stage.pipeline.assert_calm_log();
}
