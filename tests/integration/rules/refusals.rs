//! What can't be applied is said in a line, with exit code 2, and changes nothing.

use super::{Stage, of_era};
use crate::transforms::comes_to;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_revisions_are_refused_in_a_line() {
    let mut stage = Stage::new("rules_refused", &["t"], |database| of_era(&format!("{database}.t"), "one")).await;
    let database = stage.database.clone();
    let refused = |rules: &str, expected: &str| {
        stage.write(rules);
        let answer = stage.pipeline.answer(&["apply"]);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{expected}: {}", answer.err);
        assert!(answer.err.contains(expected) && answer.err.lines().count() == 1, "{expected}: {}", answer.err);
    };
    let one = of_era(&format!("{database}.t"), "one");
    refused(&one, "no service has run with this configuration yet");
    let service = stage.pipeline.run();
    comes_to(&stage.pipeline, &database, "t", &["id", "era"], &["1 one", "2 one"]).await;
    refused(&one.replace("'one' AS era", "vlaue AS era"), "did you mean `value`?");
    refused(&one.replace("FROM input", "FROM input LEFT JOIN x ON x.id = input.id"), "which is no lookup");
    refused(&format!("{one}[[table]]\nsource = '{database}.absent'\n"), "absent");
    refused(&one.replace("transform", "key = ['value']\ntransform"), "key=key; it changes what rows are");
    refused(&one.replace("transform", "partition_by = 'value'\ntransform"), "key=partition_by");
    refused(&one.replace("'one' AS era", "7 AS era"), "can't get that type");
    refused(&format!("[[scale]]\nat = '0 0 * * *'\nworkers = 1\n{one}"), "key=scale");
    let answer = stage.pipeline.answer(&["apply", "--rollback"]);
    assert!(answer.code == 2 && answer.err.contains("there is no revision before"), "{}", answer.err);
    // nothing of it was written down
    stage.write(&one);
    assert_eq!(stage.pipeline.ok(&["rules"]).lines().count(), 2);
    stage.change("t").await;
    comes_to(&stage.pipeline, &database, "t", &["id", "era"], &["1 one", "101 one", "2 one"]).await;
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}
