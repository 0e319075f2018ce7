//! Which room of `src/` may use which: the arrows of the design, checked on the source text.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms that it may use besides itself and the ones open to all.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "config",
            "pipeline",
            "query",
            "source",
            "table",
            "state",
            "admin",
            "stream",
            "event",
            "merge",
            "publish",
            "format",
            "transform",
            "lookup",
        ],
    ),
    (
        "config",
        &["source", "stream", "merge", "table", "state", "admin", "event", "format", "publish", "transform", "lookup", "deliver"],
    ),
    (
        "pipeline",
        &[
            "config",
            "source",
            "stream",
            "merge",
            "table",
            "publish",
            "state",
            "event",
            "format",
            "transform",
            "lookup",
            "query",
            "deliver",
        ],
    ),
    ("admin", &["pipeline", "state", "query", "event"]),
    ("query", &["table", "merge", "transform"]),
    ("publish", &["table", "merge"]),
    ("merge", &["event", "table", "transform", "lookup", "format"]),
    ("transform", &["lookup"]),
    ("lookup", &["event", "format"]),
    ("deliver", &["event"]),
    ("source", &["event", "merge"]),
    ("stream", &["event", "format"]),
    ("format", &["event"]),
    ("state", &["event"]),
    ("table", &[]),
    ("event", &[]),
];

/// What every room may use.
const OPEN: &[&str] = &["error", "time", "metrics", "setting", "cloud"];

/// More than this, and a file has two thoughts in it.
const MOST_LINES: usize = 470;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    let room = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    found.into_iter().map(|path| (room(&path), path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code without comments and without the tests at its end.
fn code(text: &str) -> String {
    let production = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    production.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms that `crate::room…` and `crate::{room…, room…}` name.
fn used(code: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for (place, _) in code.match_indices("crate::").chain(code.match_indices("binlake::")) {
        let rest = &code[place..];
        let rest = rest.split_once("::").unwrap().1;
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(name(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    rooms.insert(name(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        rooms.insert(name(item.trim()));
    }
    rooms
}

#[test]
fn rooms_use_only_what_the_arrows_allow() {
    let mut broken = Vec::new();
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    for (room, path, text) in sources() {
        // a room's tests may look at what other rooms make of its work
        let is_test = path.iter().skip_while(|part| *part != "src").any(|part| part == "tests" || part == "tests.rs");
        if room == "lib" || is_test || OPEN.contains(&room.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == room) else {
            broken.push(format!("{} is in a room without arrows: add it to ARROWS, or move it", path.display()));
            continue;
        };
        for other in used(&code(&text)) {
            let fine = other == room || allowed.contains(&other.as_str()) || OPEN.contains(&other.as_str());
            if rooms.contains(other.as_str()) && !fine {
                broken.push(format!("{} uses {other}, which {room} may not", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_open_rooms_use_no_other() {
    for (room, path, text) in sources() {
        if OPEN.contains(&room.as_str()) {
            let strange: Vec<String> = used(&code(&text)).into_iter().filter(|other| !OPEN.contains(&other.as_str())).collect();
            assert!(strange.is_empty(), "{} uses {strange:?}", path.display());
        }
    }
}

#[test]
fn a_file_holds_one_thought() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|(_, path, text)| {
            let lines = text.lines().count();
            (lines > MOST_LINES).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split these by thought: {}", long.join(", "));
}

#[test]
fn no_file_is_named_for_nothing() {
    for (_, path, _) in sources() {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
        for vague in ["utils", "util", "common", "types", "helpers", "helper", "base", "misc"] {
            assert!(stem != vague && folder != vague, "{} says nothing about what it holds", path.display());
        }
    }
}

#[test]
fn every_stub_is_finished() {
    for (_, path, text) in sources() {
        for stub in ["todo!(", "unimplemented!("] {
            assert!(!code(&text).contains(stub), "{} has {stub}…)", path.display());
        }
    }
}
