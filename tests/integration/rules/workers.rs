//! Several workers, and kills: the same cut for all.

use super::{Stage, of_era};
use crate::dynamodb::DynamoDb;
use crate::mysql::eventually;
use crate::service::Service;
use crate::transforms::comes_to;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_change_at_the_same_cut() {
    change_under_two_workers("rules_workers", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_change_at_the_same_cut_by_leases_in_dynamodb() {
    let endpoint = DynamoDb::shared().await.endpoint();
    let state = format!("dynamodb://rules-{}?region=us-east-1&endpoint={endpoint}", uuid::Uuid::new_v4());
    change_under_two_workers("rules_dynamodb", Some(state)).await;
}

async fn change_under_two_workers(topic: &str, state: Option<String>) {
    let tables = ["a", "b", "c", "d"];
    let mut stage = Stage::new(topic, &tables, |database| of_era(&format!("{database}.*"), "one")).await;
    stage.base = stage.base.replace("[state]", "[state]\nlease_duration = \"2s\"");
    if let Some(state) = state {
        // no credentials are looked at
        stage.base = stage.base.replace("sqlite:./data/state.db", &state);
    }
    stage.write(&of_era(&format!("{}.*", stage.database), "one"));
    let capture = stage.pipeline.start(&["capture"]);
    eventually("there is a stream", async || stage.pipeline.path().join("data/stream/stream.json").exists()).await;
    let standby = stage.pipeline.start(&["capture"]);
    let workers = [stage.pipeline.start(&["merge"]), stage.pipeline.start(&["merge"])];
    for table in tables {
        comes_to(&stage.pipeline, &stage.database, table, &["id", "era"], &["1 one", "2 one"]).await;
        stage.change(table).await;
    }
    stage.write(&of_era(&format!("{}.*", stage.database), "two"));
    let applied = stage.apply(&tables, &[]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    for table in tables {
        stage.change(table).await;
    }
    let effects = stage.effects();
    for table in tables {
        stage.each_row_is_of_its_era(table, &effects, &["one", "two"]).await;
    }
    // a capture that stood by has read the file before, and goes on by what was applied since
    capture.kill();
    let capture = standby;
    for table in tables {
        stage.change(table).await;
    }
    let effects = stage.effects();
    for table in tables {
        stage.each_row_is_of_its_era(table, &effects, &["one", "two"]).await;
    }
    // one dies between a proposal and its effect, and the other goes on alone
    let [first, second] = workers;
    stage.write(&of_era(&format!("{}.*", stage.database), "three"));
    assert!(stage.apply(&tables, &["--timeout", "0s"]).code < 2);
    first.kill();
    eventually("it is in force", async || stage.effects().len() == 2).await;
    for table in tables {
        stage.change(table).await;
    }
    let effects = stage.effects();
    for table in tables {
        stage.each_row_is_of_its_era(table, &effects, &["one", "two", "three"]).await;
    }
    end(&stage, [capture, second]);
}

/// Kills the service at each step between the proposal and its effect; after the last start all is as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_proposal_and_effect_nothing_is_mixed() {
    let mut stage = Stage::new("rules_killed", &["t"], |database| of_era(&format!("{database}.t"), "era 0")).await;
    let mut service = stage.pipeline.run();
    comes_to(&stage.pipeline, &stage.database, "t", &["id", "era"], &["1 era 0", "2 era 0"]).await;
    let mut eras = vec!["era 0".to_owned()];
    for round in 1..=4 {
        let era = format!("era {round}");
        stage.write(&of_era(&format!("{}.t", stage.database), &era));
        stage.change("t").await;
        let revision = round + 1;
        let said = match round {
            // before anyone has seen it
            1 => None,
            // as soon as the capture has come to it, as the cut is there, and as the merge is behind it
            2 => Some("the capture begins anew".to_owned()),
            3 => Some(format!("the rules are in force revision={revision}")),
            _ => Some(format!("the merge goes on by these rules revision={revision}")),
        };
        let answer = stage.apply(&["t"], &["--timeout", "0s"]);
        assert!(answer.code < 2, "{}{}", answer.out, answer.err);
        if let Some(said) = said {
            eventually("it has come so far", async || {
                stage.change("t").await;
                stage.pipeline.log().contains(&said)
            })
            .await;
        }
        service.kill();
        stage.change("t").await;
        service = stage.pipeline.run();
        eras.push(era);
        eventually("it is in force", async || stage.effects().len() == round as usize).await;
        stage.change("t").await;
        let (effects, eras) = (stage.effects(), eras.iter().map(String::as_str).collect::<Vec<_>>());
        stage.each_row_is_of_its_era("t", &effects, &eras).await;
    }
    assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    stage.pipeline.assert_calm_log();
}

/// Both end as they should.
fn end(stage: &Stage, services: impl IntoIterator<Item = Service>) {
    for service in services {
        assert!(service.terminate().success(), "{}", stage.pipeline.log_tail());
    }
    stage.pipeline.assert_calm_log();
}
