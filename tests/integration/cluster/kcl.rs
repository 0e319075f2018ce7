//! `make test-kcl`: the Kinesis Client Library's own code reads our lease table, takes one of our leases and renews it; and we take it back.

use crate::dynamodb::DynamoDb;
use binlake::state::{Lease, LeaseKey, Observer, StateStore, Take, WorkerId, plan_together};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

const DURATION: Duration = Duration::from_secs(10);

/// A lease table, and the library's code at it.
struct Library {
    folder: String,
    endpoint: String,
    table: String,
}

impl Library {
    /// `None` where the test isn't asked for.
    async fn new() -> Option<Self> {
        if std::env::var_os("BINLAKE_TEST_KCL").is_none() {
            println!("set BINLAKE_TEST_KCL, or run `make test-kcl`");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kcl.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "scripts/kcl.sh failed");
        Some(Library {
            folder: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            endpoint: DynamoDb::shared().await.endpoint(),
            table: format!("kcl-{}", uuid::Uuid::new_v4()),
        })
    }

    /// Runs a command of `tests/kcl/Leases.java`; gives its lines, cut at tabs.
    fn run(&self, command: &[&str]) -> Vec<Vec<String>> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kcl/Leases.java");
        let output = Command::new("java")
            .args(["-Xmx256m", "-cp", &format!("{}/lib/*", self.folder)])
            .arg(source)
            .args([self.endpoint.as_str(), self.table.as_str()])
            .args(command)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_and_we_share_a_lease_table() {
    let Some(library) = Library::new().await else { return };
    let store = StateStore::over_dynamodb(DynamoDb::shared().await.client().await, &library.table).await.unwrap();
    let (us, them) = (WorkerId("us".into()), WorkerId("java-worker".into()));
    let ours = Lease::new(LeaseKey("p/table/s.a".into())).taken_by(&us);
    let mut free = Lease::new(LeaseKey("p/table/s.b".into()));
    free.committed_checkpoint = Some("1.2@3:4".into());
    for lease in [&ours, &free] {
        assert!(store.create_lease(lease).await.unwrap());
    }
    // it reads what we wrote
    let mut listed = library.run(&["list"]);
    listed.sort();
    assert_eq!(
        listed,
        [vec!["p/table/s.a", "us", "1", "1", "TRIM_HORIZON"], vec!["p/table/s.b", "null", "0", "0", "TRIM_HORIZON"]]
    );
    // it takes a lease that is free, and renews it
    assert_eq!(library.run(&["take", "p/table/s.b", "java-worker"]), [["true", "1"]]);
    let mut observer = Observer::default();
    let start = Instant::now();
    let leases = store.leases("p/").await.unwrap();
    observer.observe(&leases, start);
    assert_eq!((leases[1].owner.as_ref(), leases[1].counter), (Some(&them), 1));
    assert_eq!(leases[1].committed_checkpoint, free.committed_checkpoint, "what is ours stays");
    assert_eq!(library.run(&["renew", "p/table/s.b", "java-worker", "1"]), [["true", "2"]]);
    let leases = store.leases("p/").await.unwrap();
    observer.observe(&leases, start + DURATION);
    let alone: Vec<usize> = (0..leases.len()).collect();
    let plan = |observer: &Observer, now| plan_together(&leases, &alone, &us, observer, now, DURATION);
    assert_eq!(plan(&observer, start + DURATION), [], "it lives: we have our part");
    // it is gone: we take over, and what it still wants to write is refused
    let later = start + 2 * DURATION;
    observer.observe(&leases, later);
    assert_eq!(plan(&observer, later), [Take::Free(leases[1].key.clone())]);
    assert!(store.update_lease(&leases[1].clone().taken_by(&us), leases[1].counter).await.unwrap());
    assert_eq!(library.run(&["renew", "p/table/s.b", "java-worker", "2"])[0][0], "false");
    let listed = library.run(&["list"]);
    let taken = listed.iter().find(|row| row[0] == "p/table/s.b").unwrap();
    assert_eq!(taken[1..3], ["us", "3"]);
}
