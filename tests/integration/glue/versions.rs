//! ministack's Glue refuses what was made from a version that is no longer the newest (moto takes it): `make test-glue`.

use super::config;
use crate::kinesis::proxy::{Fate, Proxy};
use crate::mysql::{eventually, free_port};
use crate::readers::glue;
use arrow::datatypes::{DataType, Field, Schema};
use binlake::publish::{CatalogEntry, Described, GlueCatalog, Registered};
use serde_json::json;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// ministack with Glue alone. Gone when this process ends.
struct Ministack {
    port: u16,
    _keeper: Child,
}

const KEEPER: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & server=$!; trap '' INT TERM HUP; while read -r line; do :; done; kill -9 $server"#;

impl Ministack {
    async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = Command::new(root.join("scripts/python.sh")).arg(root.join("benches/ministack.txt")).arg("ministack").status();
        assert!(made.unwrap().success());
        let cache = std::env::var("BINLAKE_CACHE").unwrap_or_else(|_| format!("{}/.cache/binlake", std::env::var("HOME").unwrap()));
        let port = free_port();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &format!("{cache}/ministack/bin/ministack")])
            .env("GATEWAY_PORT", port.to_string())
            .env("SERVICES", "glue")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let ministack = Self { port, _keeper: keeper };
        eventually("ministack answers", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        ministack
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_changes_between_our_look_and_our_change_stays() {
    if std::env::var_os("BINLAKE_TEST_GLUE").is_none() {
        println!("set BINLAKE_TEST_GLUE, or run `make test-glue`");
        return;
    }
    let ministack = Ministack::start().await;
    let direct = format!("http://127.0.0.1:{}", ministack.port);
    let person = direct.clone();
    let mut updates = 0;
    let judge = Box::new(move |call: &str| {
        updates += usize::from(call == "UpdateTable");
        if call == "UpdateTable" && updates == 1 {
            glue(&person, &["annotate", "id"], "d.t");
        }
        Fate::Works
    });
    let proxy = Proxy::start(ministack.port, judge).await;
    let config = config(&proxy.endpoint());
    let described = |columns: &Schema| {
        let entry = Described {
            database: "d",
            name: "t",
            location: "s3://b/d/t",
            columns,
            partition_columns: &[],
            comment: "",
            column_comments: &config.parameters,
            parameters: &config.parameters,
        };
        CatalogEntry::describe(&entry, [""]).unwrap()
    };
    let id = || Field::new("id", DataType::Int32, false);
    let mut catalog = GlueCatalog::open(&config).await.unwrap();
    let made = catalog.register(&described(&Schema::new(vec![id()]))).await.unwrap();
    assert!(made.is_created && !made.is_updated);

    let more = Schema::new(vec![id(), Field::new("name", DataType::Utf8, true)]);
    let changed = catalog.register(&described(&more)).await.unwrap();
    assert_eq!(changed, Registered { is_updated: true, ..Registered::default() });
    assert_eq!(proxy.count("UpdateTable"), 2, "the first was of a version that was no longer the newest: {:?}", proxy.counts());
    let found = glue(&direct, &["show"], "d.t");
    let columns = found["columns"].as_array().unwrap();
    assert!(
        columns.contains(&json!(["id", "int", "said by a person"])) && columns.contains(&json!(["name", "string", ""])),
        "{found}"
    );
    assert_eq!((&found["parameters"]["team"], &found["description"]), (&json!("sales"), &json!("described by a person")));
}
