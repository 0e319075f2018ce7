//! One conduct for every state store: SQLite in a file, DynamoDB (Amazon's Local). And DynamoDB's refusals, said so that one can act on them.

use crate::dynamodb::{DynamoDb, client};
use crate::fake_http::FakeHttp;
use binlake::error::Kind;
use binlake::event::{Epoch, TableId};
use binlake::state::{
    CommitCount, Lease, LeaseKey, RulesDecision, RulesRevision, RulesStatus, RunLabel, RunStatus, StateConfig, StateStore,
    StateUrl, TRIM_HORIZON, WorkerId,
};
use std::collections::HashSet;

/// Opens one store, again and again, as several processes do.
trait Opened {
    async fn open(&self) -> StateStore;
}

struct Sqlite(tempfile::TempDir);

impl Opened for Sqlite {
    async fn open(&self) -> StateStore {
        let url = StateUrl::Sqlite(self.0.path().join("state.db"));
        StateStore::open(&StateConfig { url, ..StateConfig::default() }).await.unwrap()
    }
}

struct Dynamo {
    server: &'static DynamoDb,
    table: String,
}

impl Opened for Dynamo {
    async fn open(&self) -> StateStore {
        StateStore::over_dynamodb(self.server.client().await, &self.table).await.unwrap()
    }
}

async fn sqlite() -> Sqlite {
    Sqlite(tempfile::tempdir().unwrap())
}

async fn dynamo() -> Dynamo {
    Dynamo { server: DynamoDb::shared().await, table: format!("state-{}", uuid::Uuid::new_v4()) }
}

/// The facts that hold for each.
macro_rules! suite {
    ($store:ident: $($fact:ident),+ $(,)?) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $fact() {
                    super::$fact(super::$store().await).await;
                }
            )+
        }
    };
}

suite!(sqlite: epochs_rise_above_all_that_was_seen, nobody_gets_an_epoch_twice, a_lease_is_made_once, a_write_needs_the_counter_that_was_read,
    of_many_who_take_a_lease_one_wins, leases_are_listed_by_their_beginning, a_run_adds_up_and_ends, a_stopped_table_goes_on_with_its_next_commit, the_newest_runs_come_first,
    rules_are_proposed_and_decided_once);
suite!(dynamo: epochs_rise_above_all_that_was_seen, nobody_gets_an_epoch_twice, a_lease_is_made_once, a_write_needs_the_counter_that_was_read,
    of_many_who_take_a_lease_one_wins, leases_are_listed_by_their_beginning, a_run_adds_up_and_ends, a_stopped_table_goes_on_with_its_next_commit, the_newest_runs_come_first,
    rules_are_proposed_and_decided_once);

async fn epochs_rise_above_all_that_was_seen(at: impl Opened) {
    let store = at.open().await;
    assert_eq!(store.known_epoch("s").await.unwrap(), None);
    assert_eq!(store.take_epoch("s", None).await.unwrap(), Epoch(1));
    assert_eq!(store.take_epoch("s", Some(Epoch(1))).await.unwrap(), Epoch(2));
    assert_eq!(store.take_epoch("s", Some(Epoch(7))).await.unwrap(), Epoch(8));
    assert_eq!(store.take_epoch("s", Some(Epoch(3))).await.unwrap(), Epoch(9));
    assert_eq!(store.take_epoch("other", None).await.unwrap(), Epoch(1));
    assert_eq!(at.open().await.known_epoch("s").await.unwrap(), Some(Epoch(9)));
}

async fn nobody_gets_an_epoch_twice(at: impl Opened) {
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = at.open().await;
        takers.spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..5 {
                taken.push(store.take_epoch("s", Some(Epoch(3))).await.unwrap());
            }
            taken
        });
    }
    let taken: Vec<Epoch> = takers.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 20, "{taken:?}");
}

fn key(name: &str) -> LeaseKey {
    LeaseKey(name.into())
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.into())
}

async fn a_lease_is_made_once(at: impl Opened) {
    let store = at.open().await;
    let lease = Lease::new(key("p/table/s.t"));
    assert!(store.create_lease(&lease).await.unwrap());
    assert!(!store.create_lease(&lease.clone().taken_by(&worker("a"))).await.unwrap());
    let found = at.open().await.leases("p/").await.unwrap();
    assert_eq!(found, [lease]);
    assert_eq!((found[0].checkpoint.as_str(), &found[0].owner), (TRIM_HORIZON, &None));
}

async fn a_write_needs_the_counter_that_was_read(at: impl Opened) {
    let (one, other) = (at.open().await, at.open().await);
    let new = Lease::new(key("p/x")).taken_by(&worker("a"));
    one.create_lease(&new).await.unwrap();
    let mut asked = new.clone().asked_by(&worker("b"));
    asked.checkpoint = "1.17@3:99".into();
    asked.committed_checkpoint = Some("1.16@3:44".into());
    assert!(one.update_lease(&asked, new.counter).await.unwrap());
    // the other has not seen it
    assert!(!other.update_lease(&new.clone().renewed(), new.counter).await.unwrap());
    assert!(!other.delete_lease(&new.key, new.counter).await.unwrap());
    assert_eq!(other.leases("p/").await.unwrap(), [asked.clone()]);
    assert!(other.update_lease(&asked.clone().given_back(), asked.counter).await.unwrap());
    let free = one.leases("p/").await.unwrap().remove(0);
    assert_eq!((&free.owner, &free.checkpoint_owner), (&None, &None));
    assert!(one.delete_lease(&free.key, free.counter).await.unwrap());
    assert!(!one.update_lease(&free.clone().renewed(), free.counter).await.unwrap(), "what is gone isn't made again");
    assert_eq!(other.leases("p/").await.unwrap(), []);
}

async fn of_many_who_take_a_lease_one_wins(at: impl Opened) {
    let store = at.open().await;
    for round in 0..5 {
        let lease = Lease::new(key(&format!("p/{round}")));
        store.create_lease(&lease).await.unwrap();
        let mut takers = tokio::task::JoinSet::new();
        for taker in 0..6 {
            let (store, lease) = (at.open().await, lease.clone());
            takers.spawn(async move {
                let me = worker(&format!("w{taker}"));
                store.update_lease(&lease.clone().taken_by(&me), lease.counter).await.unwrap().then_some(me)
            });
        }
        let winners: Vec<WorkerId> = takers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        let found = store.leases(&lease.key.0).await.unwrap();
        assert_eq!(found[0].owner.as_ref(), winners.first());
    }
}

async fn leases_are_listed_by_their_beginning(at: impl Opened) {
    let store = at.open().await;
    for name in ["p/b", "p/a", "p%/a", "q/a", "P/a", "p"] {
        store.create_lease(&Lease::new(key(name))).await.unwrap();
    }
    // an epoch is no lease, though it may lie beside them
    store.take_epoch("p", None).await.unwrap();
    let names = |leases: Vec<Lease>| leases.into_iter().map(|lease| lease.key.0).collect::<Vec<_>>();
    assert_eq!(names(store.leases("p/").await.unwrap()), ["p/a", "p/b"]);
    assert_eq!(names(store.leases("p%").await.unwrap()), ["p%/a"]);
    assert_eq!(store.leases("").await.unwrap().len(), 6);
}

async fn a_run_adds_up_and_ends(at: impl Opened) {
    let store = at.open().await;
    let run = RunLabel::begin("p", "merge");
    let table: TableId = "shop.orders".parse().unwrap();
    for (instant, position) in [("20260101000000000", "binlog.000001:4"), ("20260101000001000", "binlog.000001:9")] {
        let commit =
            CommitCount { inserted: 2, updated: 1, position: position.into(), instant: instant.into(), ..CommitCount::default() };
        store.count_commit(&run, &table, &commit).await.unwrap();
    }
    let going = store.runs("p", 10).await.unwrap();
    assert_eq!((going.len(), going[0].status.as_str(), &going[0].ended_at), (1, "Running", &None));
    store.end_run(&run, RunStatus::Failed, Some("the disk is full")).await.unwrap();
    let rows = at.open().await.runs("p", 10).await.unwrap();
    assert_eq!((rows[0].rows_inserted, rows[0].rows_updated, rows[0].rows_deleted, rows[0].commits), (4, 2, 0, 2));
    assert_eq!((rows[0].table.as_str(), rows[0].command.as_str(), &rows[0].run_id), ("shop.orders", "merge", &run.run_id));
    assert_eq!((rows[0].status.as_str(), rows[0].position.as_deref()), ("Failed", Some("binlog.000001:9")));
    assert_eq!((rows[0].ended_at.is_some(), rows[0].error.as_deref()), (true, Some("the disk is full")));
    // what has ended stays as it is
    store.end_run(&run, RunStatus::Complete, None).await.unwrap();
    assert_eq!(store.runs("p", 10).await.unwrap(), rows);
    assert_eq!(store.runs("q", 10).await.unwrap(), []);
}

async fn a_stopped_table_goes_on_with_its_next_commit(at: impl Opened) {
    let store = at.open().await;
    let run = RunLabel::begin("p", "run");
    store.begin_run(&run).await.unwrap();
    let tables: [TableId; 2] = ["s.a".parse().unwrap(), "s.b".parse().unwrap()];
    let commit = |instant: &str| CommitCount { instant: instant.into(), ..CommitCount::default() };
    store.count_commit(&run, &tables[0], &commit("1")).await.unwrap();
    for table in &tables {
        store.fail_table(&run, table, "a row can't be read").await.unwrap();
    }
    store.count_commit(&run, &tables[1], &commit("2")).await.unwrap();
    store.end_run(&run, RunStatus::Complete, None).await.unwrap();
    let rows = at.open().await.runs("p", 10).await.unwrap();
    let said = |table: &str| {
        let row = rows.iter().find(|row| row.table == table).unwrap();
        (row.status.clone(), row.error.clone(), row.commits, row.ended_at.is_some())
    };
    assert_eq!(said("s.a"), ("Failed".into(), Some("a row can't be read".into()), 1, true));
    assert_eq!(said("s.b"), ("Complete".into(), None, 1, true));
    assert_eq!(said(""), ("Complete".into(), None, 0, true));
}

async fn the_newest_runs_come_first(at: impl Opened) {
    let store = at.open().await;
    let tables: [TableId; 2] = ["s.a".parse().unwrap(), "s.b".parse().unwrap()];
    let mut runs = Vec::new();
    for _ in 0..3 {
        let run = RunLabel::begin("p", "run");
        for table in &tables {
            store.count_commit(&run, table, &CommitCount { instant: "1".into(), ..CommitCount::default() }).await.unwrap();
        }
        runs.insert(0, run.run_id);
    }
    let found = store.runs("p", 5).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|row| row.run_id.as_str()).collect();
    assert_eq!(ids, [&runs[0], &runs[0], &runs[1], &runs[1], &runs[2]]);
}

async fn rules_are_proposed_and_decided_once(at: impl Opened) {
    let (one, other) = (at.open().await, at.open().await);
    assert_eq!((one.newest_rules("p").await.unwrap(), one.rules("p").await.unwrap()), (None, vec![]));
    let proposal = |number, hash: &str| RulesRevision {
        content: format!("content of {hash}"),
        hash: hash.into(),
        difference: "+ table s.t".into(),
        ..RulesRevision::proposal("p", number, "me@here", "file x")
    };
    let (first, second) = (proposal(1, "a"), proposal(2, "b"));
    let from_the_start = first.clone().decided(RulesDecision::InForce { since: None, position: None });
    assert!(one.add_rules(&from_the_start).await.unwrap());
    assert!(one.add_rules(&second).await.unwrap());
    let late = RulesRevision { author: "you@there".into(), ..proposal(2, "c") };
    assert!(!other.add_rules(&late).await.unwrap(), "the number is taken");
    assert_eq!(other.newest_rules("p").await.unwrap(), Some((2, RulesStatus::Proposed)));
    assert_eq!(other.rules("p").await.unwrap(), [from_the_start.clone(), second.clone()]);
    let since = Some("3/17".parse().unwrap());
    let in_force = second.clone().decided(RulesDecision::InForce { since, position: Some("uuid:1-5".into()) });
    assert!(one.decide_rules(&in_force).await.unwrap());
    let refused = second.decided(RulesDecision::Refused("too late".into()));
    assert!(!other.decide_rules(&refused).await.unwrap(), "it is decided");
    assert_eq!(other.rules("p").await.unwrap(), [from_the_start, in_force]);
    let third = proposal(3, "c");
    one.add_rules(&third).await.unwrap();
    let refused = third.decided(RulesDecision::Refused("no such table".into()));
    assert!(one.decide_rules(&refused).await.unwrap());
    assert_eq!(one.rules("p").await.unwrap()[2], refused);
    assert_eq!(one.newest_rules("p").await.unwrap(), Some((3, RulesStatus::Refused)));
    assert_eq!((one.newest_rules("q").await.unwrap(), one.runs("p", 9).await.unwrap()), (None, vec![]));
    for value in ["one", "two"] {
        one.note_rules("p", "file:x", value).await.unwrap();
    }
    assert_eq!(other.rules_note("p", "file:x").await.unwrap().as_deref(), Some("two"));
    assert_eq!((other.rules_note("p", "y").await.unwrap(), other.rules_note("q", "file:x").await.unwrap()), (None, None));
}

/// Answers each call of DynamoDB with the error code that `answer` names for its action.
fn refusing(answer: fn(&str) -> &'static str) -> String {
    let fake = FakeHttp::start(move |asked| {
        let action = asked.header("x-amz-target").rsplit('.').next().unwrap_or_default();
        let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{}","message":"said of {action}"}}"#, answer(action));
        (400, "application/x-amz-json-1.0", body)
    });
    fake.endpoint
}

#[tokio::test]
async fn a_missing_permission_names_itself_and_the_remedy() {
    let endpoint = refusing(|action| if action == "DescribeTable" { "ResourceNotFoundException" } else { "AccessDeniedException" });
    let error = StateStore::over_dynamodb(client(&endpoint, 1).await, "binlake-state").await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (Kind::Refused, 2));
    let line = error.to_string();
    assert!(line.contains("said of CreateTable") && line.contains("table=binlake-state"), "{line}");
    assert!(line.contains("grant dynamodb:CreateTable, or make the table with the string keys leaseKey"), "{line}");
    let endpoint = refusing(|_| "AccessDeniedException");
    let error = StateStore::over_dynamodb(client(&endpoint, 1).await, "binlake-state").await.unwrap_err();
    assert!(error.to_string().contains("give the role or user the right"), "{error}");
}

#[tokio::test]
async fn a_throttle_and_a_server_that_is_away_pass() {
    let endpoint = refusing(|_| "ProvisionedThroughputExceededException");
    let error = StateStore::over_dynamodb(client(&endpoint, 1).await, "binlake-state").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    let error = StateStore::over_dynamodb(client("http://127.0.0.1:9", 1).await, "binlake-state").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
}

#[tokio::test]
async fn a_table_of_something_else_is_left_alone() {
    let at = dynamo().await;
    at.open().await;
    // the audit's table has other keys than leases need
    let error = StateStore::over_dynamodb(at.server.client().await, &format!("{}-runs", at.table)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let line = error.to_string();
    assert!(line.contains("found=pipeline,run needed=leaseKey") && line.contains("name another table"), "{line}");
}
