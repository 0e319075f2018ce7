//! Dead letters beside histories: erased with their person, and tried again once they can be read.

use super::erased::holders_in;
use super::{OPEN_END, at, some, versions};
use crate::capture::Scene;
use crate::lake::Values;
use crate::mysql::{Flavour, Server, eventually, free_address};
use crate::readers::files_with;
use crate::service::Pipeline;
use crate::surface::{ask, post, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// The records of the dead letters, sorted.
fn letters(pipeline: &Pipeline) -> Vec<String> {
    let list = pipeline.answer(&["dead-letter", "list", "--format", "json", "--limit", "1000"]);
    // there may be no lake yet
    let all: Vec<Value> = if list.code == 5 { Vec::new() } else { serde_json::from_str(&list.out).unwrap() };
    let mut found: Vec<String> = all.iter().map(|letter| letter["record"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

fn assert_gone(pipeline: &Pipeline, wanted: &str) {
    assert_eq!(holders_in(&pipeline.lake(), wanted), Vec::<PathBuf>::new(), "{wanted}");
    assert_eq!(files_with(&pipeline.lake(), wanted), Vec::<Values>::new(), "{wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_rows_are_erased_with_their_person() {
    let server = Server::shared(Flavour::MySql);
    server.create_repl_user().await;
    let database = server.create_database("erased_letters").await;
    let mut client = server.client().await;
    client
        .run_all(&format!(
            "USE {database}; CREATE TABLE members (id INT PRIMARY KEY, name VARCHAR(40), since VARCHAR(20)); \
             CREATE TABLE seats (hall VARCHAR(9), seat INT, name VARCHAR(40), v VARCHAR(20), PRIMARY KEY (hall, seat)); \
             INSERT INTO members VALUES (42, 'Zaphod Beeblebrox', '2026-01-01'), (43, 'Ford Prefect', 'x'), (44, 'Born in 42', 'soon'); \
             INSERT INTO seats VALUES ('A', 42, 'Zaphod Beeblebrox', 'soon'), ('B', 42, 'Ford Prefect', 'soon'), ('C', 1, 'Arthur Dent', '1')"
        ))
        .await;
    let pipeline = Pipeline::new(
        server,
        &format!(
            "[[table]]\nsource = '{database}.members'\nhistory = {{ valid_time = 'since', on_invalid_valid_time = 'dead_letter' }}\n\
             [[table]]\nsource = '{database}.seats'\n\
             transform = 'SELECT hall, seat, name, CAST(v AS INT) AS number FROM input'\non_error = 'dead_letter'\n"
        ),
    );
    let address = free_address();
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let service = pipeline.run();
    eventually("four letters", async || letters(&pipeline).len() == 4).await;
    client.run("UPDATE members SET since = 'never' WHERE id = 42").await;
    eventually("five letters", async || letters(&pipeline).len() == 5).await;
    let (members, seats) = (format!("{database}.members"), format!("{database}.seats"));
    refused(&pipeline, &address, &members).await;

    let body = format!("{{\"table\": \"{members}\", \"keys\": [42]}}");
    let (status, said) = post(&address, "/erase", &body).await;
    assert_eq!(status, 202, "{said}");
    let mut shown = Value::Null;
    eventually("it is done", async || {
        let status: Value = serde_json::from_str(&ask(&address, "/status").await.unwrap().1).unwrap();
        shown = status["erasures"][0].clone();
        shown["state"] == "done" || shown["state"] == "failed"
    })
    .await;
    let said = ["state", "table", "keys", "rows", "letters"].map(|key| shown[key].to_string());
    assert_eq!(said, ["\"done\"", &format!("\"{members}\""), "1", "0", "1"], "{shown}");
    assert!(shown["versions"].as_u64().is_some_and(|versions| versions > 0), "{shown}");
    // the service goes on with both tables
    client.run_all("UPDATE seats SET v = '2' WHERE hall = 'C'; UPDATE members SET since = '2026-02-02' WHERE id = 43").await;
    eventually("43 is a row", async || letters(&pipeline).len() == 3).await;
    let erased = pipeline.ok(&["erase", &seats, "A,42"]);
    assert!(erased.contains("erased 0 rows") && erased.contains(" 1 dead letters"), "{erased}");
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    for wanted in ["Zaphod", "Beeblebrox"] {
        assert_gone(&pipeline, wanted);
    }
    let left = letters(&pipeline);
    assert!(left.len() == 2 && left[0].contains("\"B\"") && left[1].contains("Born in 42"), "{left:?}");
    let state = rusqlite::Connection::open(pipeline.path().join("data/state.db")).unwrap();
    let kept = "SELECT count(*) FROM leases WHERE leaseKey LIKE '%/erase/%' AND checkpoint LIKE '%\"42\"%'";
    assert_eq!(state.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "the keys aren't kept");
    pipeline.assert_calm_log();
}

/// What can't be erased is refused in a line, by the service as by the command.
async fn refused(pipeline: &Pipeline, address: &str, members: &str) {
    let body = |keys: &str| format!("{{\"table\": \"{members}\", \"keys\": {keys}}}");
    for (body, status, said) in [
        ("{\"table\": \"no.such\", \"keys\": [1]}".to_owned(), 404, "no.such isn't among this pipeline's tables"),
        ("{\"table\": \"members\", \"keys\": [1]}".to_owned(), 400, "members"),
        (body("[\"Zaphod\"]"), 422, "`Zaphod` is no key of the table"),
        (body("[]"), 422, "there is no key to erase"),
        (body("[[[1]]]"), 422, "a key is text, a number, or a list of these"),
        (body("[[1, \"a,b\"]]"), 422, "`1,\"a,b\"` is no key of the table"),
        ("{\"table\": 1}".to_owned(), 422, "send JSON such as"),
        (String::new(), 400, "send JSON such as"),
    ] {
        let (code, answer) = post(address, "/erase", &body).await;
        assert!(code == status && answer.contains(said) && answer.lines().count() == 1, "{body}: {code} {answer}");
    }
    let text = body("[42]");
    let head = format!(
        "POST /erase HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}",
        text.len()
    );
    assert_eq!(request(address, &format!("{head}\r\n\r\n{text}")).await.unwrap().0, 415, "as a foreign page could send it");
    let (database, name) = members.split_once('.').unwrap();
    let table = pipeline.table(database, name);
    let savepoint = table.folder().join(format!(".hoodie/{}.savepoint", table.instants().pop().unwrap()));
    fs::write(&savepoint, "").unwrap();
    let (code, answer) = post(address, "/erase", &text).await;
    let command = pipeline.answer(&["erase", members, "42"]);
    fs::remove_file(&savepoint).unwrap();
    assert!(code == 409 && answer.contains("a savepoint keeps files of before"), "{code} {answer}");
    assert!(command.code == 5 && command.err.contains("a savepoint keeps files of before"), "{}", command.err);
}

#[tokio::test]
async fn letters_of_records_are_erased_as_far_as_they_say_whose_they_are() {
    let table = "name = \"mydev.people\"\nkey = [\"id\"]\ncolumns = { id = \"int\", name = \"string\", at = \"date\" }\n";
    let pipeline = Pipeline::from_text(&format!(
        "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n\
         [admin]\nlisten = \"off\"\n[[table]]\nstream = \"jsonl:./in/\"\n{table}"
    ));
    fs::create_dir_all(pipeline.path().join("in")).unwrap();
    let records = [
        r#"{"id": 42, "name": "Zaphod Beeblebrox", "at": "2026-01-01"}"#,
        r#"{"id": 42, "name": "Zaphod Beeblebrox", "at": "never"}"#,
        r#"{"id": 42, "name": "Zaphod Beebleb"#,
        r#"{"id": 7, "name": "Born in 42", "at": "never"}"#,
        r#"{"id": 420, "name": "Ford"#,
    ];
    fs::write(pipeline.path().join("in/a.jsonl"), records.map(|record| format!("{record}\n")).concat()).unwrap();
    let service = pipeline.run();
    eventually("they are letters", async || letters(&pipeline).len() == 4).await;
    // read once more in vain: a copy of each lies beside the table of letters
    pipeline.ok(&["dead-letter", "retry", "--table", "mydev.people"]);
    let copies = || holders_in(&pipeline.lake(), &STANDARD.encode(records[1])).len();
    assert_eq!(copies(), 1);
    eventually("the lot is read", async || {
        pipeline.ok(&["dead-letter", "retry", "--table", "mydev.people"]).contains("are read once more")
    })
    .await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_eq!(letters(&pipeline).len(), 4);
    // the second lot has not been read, or has: both is well
    let said = pipeline.ok(&["erase", "mydev.people", "42"]);
    assert!(said.contains("erased 1 rows") && said.contains(" 2 dead letters"), "{said}");
    for wanted in ["Zaphod", "Beebleb"] {
        assert_gone(&pipeline, wanted);
    }
    assert_eq!(copies(), 0);
    let address = free_address();
    pipeline.set_config(&pipeline.config().replace("listen = \"off\"", &format!("listen = \"{address}\"")));
    let service = pipeline.run();
    let newer = r#"{"id": 8, "name": "Arthur", "at": "2026-01-01"}"#;
    fs::write(pipeline.path().join("in/b.jsonl"), format!("{newer}\n")).unwrap();
    let rows = || pipeline.table("mydev", "people").values(None, &["id"]).unwrap_or_default();
    eventually("it goes on", async || rows() == [some(&["8"])]).await;
    eventually("the lots are read", async || {
        let left = letters(&pipeline);
        left.len() == 2 && left[0].contains("420") && left[1].contains("Born in 42")
    })
    .await;
    assert_gone(&pipeline, "Zaphod");
    // the same of the running service: what came before it was asked goes first
    let bad = r#"{"id": 8, "name": "Tricia McMillan", "at": "never"}"#;
    fs::write(pipeline.path().join("in/c.jsonl"), format!("{bad}\n")).unwrap();
    eventually("it is a letter", async || letters(&pipeline).len() == 3).await;
    let (status, said) = post(&address, "/erase", r#"{"table": "mydev.people", "keys": ["8"]}"#).await;
    assert_eq!(status, 202, "{said}");
    fs::write(pipeline.path().join("in/d.jsonl"), format!("{}\n", records[0].replace("42", "9"))).unwrap();
    eventually("it is done", async || {
        let status: Value = serde_json::from_str(&ask(&address, "/status").await.unwrap().1).unwrap();
        let shown = &status["erasures"][0];
        assert_ne!(shown["state"], "failed", "{shown}");
        shown["state"] == "done" && shown["rows"] == 1 && shown["letters"] == 1
    })
    .await;
    eventually("it goes on", async || rows() == [some(&["9"])]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert_gone(&pipeline, "Tricia");
    assert_gone(&pipeline, "Arthur");
    pipeline.assert_calm_log();
}

/// What the service says of the last request, once it is answered.
async fn answered(address: &str) -> Value {
    let mut shown = Value::Null;
    eventually("it is answered", async || {
        let Some((200, status)) = ask(address, "/status").await else { return false };
        let status: Value = serde_json::from_str(&status).unwrap();
        shown = status["erasures"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        shown["state"] == "done" || shown["state"] == "failed"
    })
    .await;
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_table_that_never_got_a_row_the_letters_are_erased() {
    let address = free_address();
    let pipeline = Pipeline::from_text(&format!(
        "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n\
         [admin]\nlisten = \"{address}\"\n[[table]]\nstream = \"jsonl:./in/\"\nname = \"mydev.people\"\nkey = [\"id\"]\n\
         [[table]]\nstream = \"jsonl:./seats/\"\nname = \"mydev.seats\"\nkey = [\"hall\", \"seat\"]\n\
         [[table]]\nstream = \"jsonl:./changes/\"\nname = \"mydev.changes\"\nformat = \"dms-json\"\n"
    ));
    // nothing says which columns there are: without a record that can be read there is no table
    let broken = r#"{"id": 42, "name": "Zaphod"#;
    for (folder, records) in [
        ("in", vec![broken, r#"{"id": 42, "name": "Zaphod Beeblebrox", "at": "#, r#"{"id": 43, "name": "Ford Prefect"#]),
        ("seats", vec![r#"{"hall": "A", "seat": 42, "at": "Trillian"#, r#"{"hall": "B", "seat": 42, "at": "soon"#]),
        ("changes", vec![r#"{"data": {"id": 77, "name": "Marvin"#]),
    ] {
        fs::create_dir_all(pipeline.path().join(folder)).unwrap();
        fs::write(pipeline.path().join(folder).join("a.jsonl"), records.join("\n") + "\n").unwrap();
    }
    let service = pipeline.run();
    eventually("they are letters", async || letters(&pipeline).len() == 6).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    assert!(!pipeline.lake().join("mydev").exists(), "no table has a row");
    // a copy of each lies beside the letters
    pipeline.ok(&["dead-letter", "retry", "--table", "mydev.people"]);
    let said = pipeline.ok(&["erase", "people", "42", "9999"]);
    assert!(said.starts_with("mydev.people: erased 0 rows") && said.contains(" 2 dead letters"), "{said}");
    assert_gone(&pipeline, "Zaphod");
    assert_eq!(holders_in(&pipeline.lake(), &STANDARD.encode(broken)), Vec::<PathBuf>::new());
    // where nobody knows the key's columns
    let said = pipeline.ok(&["erase", "mydev.changes", "77"]);
    assert!(said.contains(" 1 dead letters"), "{said}");
    assert_gone(&pipeline, "Marvin");
    let state = rusqlite::Connection::open(pipeline.path().join("data/state.db")).unwrap();
    let audit =
        "SELECT sum(rows_deleted) FROM runs WHERE command = 'erase' AND status = 'Complete' AND table_name LIKE '%mydev.people'";
    assert_eq!(state.query_row(audit, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    for (table, key, said) in [
        ("mydev.nobody", "42", "there is no table `mydev.nobody`"),
        ("mydev.seats", "A", "`A` is no key of the table key=hall,seat"),
    ] {
        let wrong = pipeline.answer(&["erase", table, key]);
        assert!(wrong.code == 2 && wrong.err.contains(said) && wrong.err.lines().count() == 1, "{} {}", wrong.code, wrong.err);
    }

    // the same of a service that has met nothing of the table but letters
    let service = pipeline.run();
    let mut said = (0, String::new());
    eventually("it takes requests", async || {
        // nobody listens yet, or the service still starts
        if ask(&address, "/healthz").await.is_some() {
            said = post(&address, "/erase", r#"{"table": "mydev.seats", "keys": ["A"]}"#).await;
        }
        said.0 == 422
    })
    .await;
    assert!(said.1.contains("`A` is no key of the table"), "{said:?}");
    let (status, said) = post(&address, "/erase", r#"{"table": "mydev.seats", "keys": ["A,42"]}"#).await;
    assert_eq!(status, 202, "{said}");
    let shown = answered(&address).await;
    assert_eq!(["state", "rows", "letters"].map(|key| shown[key].to_string()), ["\"done\"", "0", "1"], "{shown}");
    assert_gone(&pipeline, "Trillian");
    // and it goes on: what comes now is a row
    let newer = r#"{"id": 43, "name": "Ford Prefect", "at": "2026-01-01"}"#;
    fs::write(pipeline.path().join("in/b.jsonl"), format!("{newer}\n")).unwrap();
    let rows = || pipeline.table("mydev", "people").values(None, &["id"]).unwrap_or_default();
    eventually("it goes on", async || rows() == [some(&["43"])]).await;
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    // a history that is only asked for yet is nobody's hindrance
    pipeline.set_config(&pipeline.config().replace("name = \"mydev.people\"\n", "name = \"mydev.people\"\nhistory = true\n"));
    let said = pipeline.ok(&["erase", "mydev.people", "43"]);
    assert!(said.contains("erased 1 rows, 0 versions") && said.contains(" 1 dead letters"), "{said}");
    assert_gone(&pipeline, "Prefect");
    assert!(letters(&pipeline).len() == 1 && letters(&pipeline)[0].contains("soon"));
    pipeline.assert_calm_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_tried_again_comes_in_late() {
    let rule = "history = { valid_time = \"effective\", on_invalid_valid_time = \"dead_letter\" }\n";
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "letters_retried", rule).await;
    scene.run(&["CREATE TABLE t (id INT PRIMARY KEY, v INT, effective VARCHAR(20))"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["t"]).await;
    at(&mut scene, "2035-02-01").await;
    scene.run(&["INSERT INTO t VALUES (1, 10, '2035-01-01'), (2, 20, '2035-01-01'), (3, 30, '2035-01-01')"]).await;
    scene.catches_up(&["t"]).await;
    at(&mut scene, "2035-03-01").await;
    scene.run(&["UPDATE t SET v = v + 1, effective = IF(id = 1, '01/20/35', 'nonsense') WHERE id < 3"]).await;
    eventually("they are letters", async || letters(&scene.pipeline).len() == 2).await;
    // the table's commit follows
    let rows = || scene.pipeline.table(&scene.database, "t").values(None, &["id", "v"]).unwrap_or_default();
    eventually("they are no rows", async || rows() == [some(&["3", "30"])]).await;
    service.kill();
    // mended, and started anew
    let config = scene.pipeline.config();
    scene.pipeline.set_config(&config.replace("valid_time = \"effective\"", "valid_time = \"effective\", format = \"%m/%d/%y\""));
    let service = scene.pipeline.run();
    let table = format!("{}.t", scene.database);
    let said = scene.pipeline.ok(&["dead-letter", "retry", "--table", &table]);
    assert!(said.starts_with(&format!("2 rows of {table} are tried once more\n")), "{said}");
    eventually("what can be read is none", async || letters(&scene.pipeline).len() == 1).await;
    assert!(letters(&scene.pipeline)[0].contains("nonsense"));
    let day = |text: &str| if text == "∞" { OPEN_END.to_owned() } else { format!("2035-{text}") };
    let of = |scene: &Scene, id: &str| -> Vec<Values> {
        let all = versions(scene, "t", &["id", "v"]);
        all.into_iter().filter(|row| row[0].as_deref() == Some(id)).map(|row| row[1..].to_vec()).collect()
    };
    let version =
        |v: &str, from: &str, to: &str, known: &str, until: &str| some(&[v, &day(from), &day(to), &day(known), &day(until)]);
    // known as soon as it could be: behind all that was known by then
    let (first, second, then) = ("02-01 00:00:00", "03-01 00:00:00", "03-01 00:00:00.000001");
    let (new_year, twentieth) = ("01-01 00:00:00", "01-20 00:00:00");
    let expected = [
        version("10", new_year, twentieth, then, "∞"),
        version("10", new_year, second, second, then),
        version("10", new_year, "∞", first, second),
        version("11", twentieth, "∞", then, "∞"),
    ];
    eventually("the history has it", async || of(&scene, "1").len() == 4).await;
    assert_eq!(of(&scene, "1"), expected);
    // the other one counts from the commit on, as other rules say, and the row that was never a letter stays as it is
    let lenient = scene.pipeline.config().replace("\"dead_letter\"", "\"system_time\"");
    scene.pipeline.set_config(&lenient);
    let applied = scene.pipeline.answer(&["apply"]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    scene.pipeline.ok(&["dead-letter", "retry", "--table", &table]);
    eventually("no letter is left", async || letters(&scene.pipeline).is_empty()).await;
    eventually("the history has it", async || of(&scene, "2").iter().any(|row| row[0].as_deref() == Some("21"))).await;
    assert_eq!(of(&scene, "3"), [version("30", new_year, "∞", first, "∞")]);
    assert_eq!(of(&scene, "1"), expected);
    scene.catches_up(&["t"]).await;
    scene.ends_well(service);
    scene.pipeline.assert_calm_log();
}
