//! `binlake erase`: no file of the lake has anything of the person any more, neither in pages nor in dictionaries nor in footers.

use super::versions;
use crate::capture::Scene;
use crate::lake::Values;
use crate::mysql::{Flavour, Server, eventually};
use crate::readers::files_with;
use bytes::Bytes;
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Whether a file has these bytes anywhere: as they are, or in a page once it is unpacked.
fn holds(path: &Path, wanted: &[u8]) -> bool {
    let has = |bytes: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
    let bytes = match fs::read(path) {
        Ok(bytes) => Bytes::from(bytes),
        // a running service has deleted or renamed it meanwhile
        Err(error) if error.kind() == ErrorKind::NotFound => return false,
        Err(error) => panic!("{error}: {}", path.display()),
    };
    if has(&bytes) {
        return true;
    }
    if path.extension().is_none_or(|extension| extension != "parquet") {
        return false;
    }
    let reader = SerializedFileReader::new(bytes).unwrap();
    (0..reader.num_row_groups()).any(|group| {
        let group = reader.get_row_group(group).unwrap();
        (0..group.num_columns()).any(|column| {
            let pages = group.get_column_page_reader(column).unwrap();
            pages.map(Result::unwrap).any(|page: Page| has(page.buffer()))
        })
    })
}

fn holders(scene: &Scene, wanted: &str) -> Vec<PathBuf> {
    holders_in(&scene.pipeline.lake().join(&scene.database), wanted)
}

pub(super) fn holders_in(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(folder, &mut all);
    all.into_iter().filter(|path| holds(path, wanted.as_bytes())).collect()
}

#[tokio::test]
async fn a_person_is_gone_from_every_file() {
    let mut scene = Scene::on(Server::shared(Flavour::MySql), "history_erased", "history = true\n").await;
    scene.run(&["CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(40), city VARCHAR(40))"]).await;
    let others: Vec<String> = (100..400).map(|id| format!("({id}, 'Person {id}', 'City {}')", id % 7)).collect();
    scene.run(&[&format!("INSERT INTO people VALUES (42, 'Zaphod Beeblebrox', 'Betelgeuse'), {}", others.join(", "))]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["people"]).await;
    for statement in [
        "UPDATE people SET city = 'Magrathea' WHERE id = 42",
        "UPDATE people SET city = 'Elsewhere' WHERE id IN (150, 250)",
        "UPDATE people SET city = 'Milliways' WHERE id = 42",
        "DELETE FROM people WHERE id = 42",
        "UPDATE people SET city = 'Nowhere' WHERE id = 150",
    ] {
        scene.run(&[statement]).await;
        scene.catches_up(&["people"]).await;
    }
    let table = format!("{}.people", scene.database);
    scene.ends_well(service);
    let before = versions(&scene, "people", &["id"]);
    assert!(!holders(&scene, "Zaphod").is_empty() && !holders(&scene, "Magrathea").is_empty());
    assert!(!files_with(&scene.pipeline.lake(), "Zaphod").is_empty());
    let answer = scene.pipeline.answer(&["erase", &table, "42", "9999"]);
    assert!(answer.code == 0 && !answer.err.contains("the stream has"), "{}", answer.err);
    let said = answer.out;
    assert_eq!(files_with(&scene.pipeline.lake(), "Zaphod"), Vec::<Values>::new());
    let gone = before.iter().filter(|row| row[0].as_deref() == Some("42")).count();
    assert!(said.contains(&format!("{gone} versions")), "{said}");
    for wanted in ["Zaphod", "Beeblebrox", "Betelgeuse", "Magrathea", "Milliways"] {
        assert_eq!(holders(&scene, wanted), Vec::<PathBuf>::new(), "{wanted}");
    }
    let expected: Vec<_> = before.into_iter().filter(|row| row[0].as_deref() != Some("42")).collect();
    assert_eq!(versions(&scene, "people", &["id"]), expected);
    assert!(!holders(&scene, "Person 150").is_empty(), "the others stay");
    super::assert_at_one_cut(&scene, "people");
    let state = rusqlite::Connection::open(scene.pipeline.path().join("data/state.db")).unwrap();
    let audit = "SELECT sum(rows_deleted) FROM runs WHERE command = 'erase' AND status = 'Complete'";
    assert_eq!(state.query_row(audit, [], |row| row.get::<_, i64>(0)).unwrap(), gone as i64);
    let runs = scene.pipeline.ok(&["runs", "--table", &format!("{table}_history")]);
    assert!(runs.lines().any(|line| line.starts_with("erase")), "{runs}");
    // the service goes on from where it was
    let service = scene.pipeline.run();
    scene.run(&["INSERT INTO people VALUES (43, 'Ford', 'Guildford')"]).await;
    scene.catches_up(&["people"]).await;
    scene.ends_well(service);
    let wrong = scene.pipeline.answer(&["erase", &table, "no number"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    // what lies on the stream would bring a person back
    let capture = scene.pipeline.start(&["capture"]);
    scene.run(&["INSERT INTO people VALUES (44, 'Trillian', 'Islington')"]).await;
    eventually("the stream has it", async || scene.pipeline.answer(&["stream", "tail"]).out.contains("Trillian")).await;
    scene.ends_well(capture);
    let answer = scene.pipeline.answer(&["erase", &table, "44"]);
    assert!(
        answer.out.contains("erased 0 rows") && answer.err.contains("the stream has changes that the table lacks"),
        "{}",
        answer.err
    );
}

#[tokio::test]
async fn a_running_service_erases_for_whoever_asks() {
    running_service_erases(Flavour::MySql, "history_asked").await;
}

#[tokio::test]
async fn a_running_service_on_mariadb_erases() {
    running_service_erases(Flavour::MariaDb, "history_asked_mariadb").await;
}

async fn running_service_erases(flavour: Flavour, name: &str) {
    let mut scene = Scene::on(Server::shared(flavour), name, "history = true\n").await;
    scene.run(&["CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(40), city VARCHAR(40))"]).await;
    scene.run(&["INSERT INTO people VALUES (42, 'Zaphod Beeblebrox', 'Betelgeuse'), (43, 'Ford Prefect', 'Guildford')"]).await;
    let service = scene.pipeline.run();
    scene.catches_up(&["people"]).await;
    // the service goes on meanwhile; what it has not committed yet is no way back
    scene.run(&["UPDATE people SET city = 'Magrathea'", "DELETE FROM people WHERE id = 42"]).await;
    let table = format!("{}.people", scene.database);
    let said = scene.pipeline.ok(&["erase", &table, "42"]);
    assert!(said.contains("erased 0 rows") && !said.contains(" 0 versions"), "{said}");
    for wanted in ["Zaphod", "Betelgeuse"] {
        assert_eq!(holders(&scene, wanted), Vec::<PathBuf>::new(), "{wanted}");
    }
    scene
        .run(&[
            "INSERT INTO people VALUES (44, 'Tricia McMillan', 'Islington')",
            "UPDATE people SET city = 'Magrathea 2' WHERE id = 43",
        ])
        .await;
    scene.catches_up(&["people"]).await;
    assert!(versions(&scene, "people", &["id"]).iter().all(|row| row[0].as_deref() != Some("42")));
    assert_eq!(scene.pipeline.ok(&["query", &format!("SELECT count(*) FROM {table}"), "--format", "csv"]), "count(*)\n2\n");
    super::assert_at_one_cut(&scene, "people");
    let wrong = scene.pipeline.answer(&["erase", &table, "no number"]);
    assert!(wrong.code != 0 && wrong.err.contains("is no key of the table"), "{} {}", wrong.code, wrong.err);
    scene.ends_well(service);
    let state = rusqlite::Connection::open(scene.pipeline.path().join("data/state.db")).unwrap();
    let audit = "SELECT count(DISTINCT run_id) FROM runs WHERE command = 'erase' AND status = 'Complete'";
    assert_eq!(state.query_row(audit, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    let left = "SELECT count(*) FROM leases WHERE leaseKey LIKE '%/erase/%'";
    assert_eq!(state.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "the keys aren't kept");
    scene.pipeline.assert_calm_log();
}
