//! What an operator gets wrong: each gives one line that says what, where and the remedy, the right exit code, and loses nothing.
//!
//! The lines are collected in `docs/failures.md`; `BINLAKE_UPDATE=1` writes them anew.

mod cases;
mod made_of_rows;
mod rules;

use crate::service::Answer;
use regex::Regex;
use std::fmt::Write;
use std::path::Path;

/// One wrong thing, and what `binlake` said.
#[derive(Debug)]
struct Case {
    title: &'static str,
    /// How it is told.
    told: String,
    line: String,
}

/// Checks the answer of a command that had to fail, and keeps its line.
fn failed(title: &'static str, answer: Answer, code: i32, mentions: &[&str]) -> Result<Case, String> {
    println!("{title}: exit code {}\n  {}", answer.code, answer.err.trim_end());
    let said = |fault: &str| Err(format!("{title}: {fault}; exit code {}, stderr:\n{}", answer.code, answer.err));
    let lines: Vec<&str> = answer.err.lines().collect();
    let [line] = lines[..] else { return said("not one line") };
    if answer.code != code {
        return said(&format!("exit code {code} is right"));
    }
    if let Some(lacking) = mentions.iter().find(|word| !line.contains(**word)) {
        return said(&format!("`{lacking}` isn't mentioned"));
    }
    if !line.contains("; ") {
        return said("no remedy");
    }
    Ok(Case { title, told: format!("Exit code {code}"), line: neutral(line) })
}

/// What is told of a row or a record that can't be taken, while the service goes on.
fn told(title: &'static str, how: &str, line: Option<&str>, mention: &str) -> Result<Case, String> {
    match line.filter(|line| line.contains(mention)) {
        Some(line) => Ok(Case { title, told: how.to_owned(), line: neutral(line) }),
        None => Err(format!("{title}: `{mention}` isn't mentioned: {line:?}")),
    }
}

/// Without what differs from run to run: folders, ports, identifiers, instants.
fn neutral(line: &str) -> String {
    let replacements = [
        (r"(/[^/ ]+)+/binlake-(pipeline|disk)-[A-Za-z0-9]+", "/srv/binlake"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:3306"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-\d+_\d+-\d+-\d+_\d{17}", "FILE"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "3E11FA47-71CA-11E1-9E33-C80AA9429562"),
        (r"\.binlake/\d{20}(#\d+)?", ".binlake/00000000000000000003"),
        (r"\b20\d{15}\b", "20261121141230755"),
        (r"\b(pid|process)([= ])\d+", "${1}${2}4711"),
        (r"\bhost=\S+ since=[^ ;]+", "host=lake-1 since=today"),
        (r"\bwho=[^ ;]+", "who=lake-1:pid"),
        (r":\d+(-\d+)?\b(:\d+-\d+)*", ":…"),
        (r"\b(offset|bytes|length|expected|found|actual|size)=\d+", "${1}=…"),
        (r"_\d+\b", ""),
    ];
    replacements
        .iter()
        .fold(line.to_owned(), |line, (pattern, with)| Regex::new(pattern).unwrap().replace_all(&line, *with).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_input_gives_one_line_and_its_exit_code() {
    let (mut cases, mut faults) = (Vec::new(), Vec::new());
    for result in cases::all().await {
        match result {
            Ok(case) => cases.push(case),
            Err(fault) => faults.push(fault),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));

    let mut page = String::from(
        "# What can go wrong, and what is said\n\nWritten by the test `bad_input`, which makes each of these mistakes with the real binary (`BINLAKE_UPDATE=1` writes \
         this page anew).\nEach gives one line: what, where, and after the semicolon the remedy. In every case the lake stays as it was, and the next \
         run goes on.\n\nExit codes: 1 the answer is no, 2 usage or configuration, 3 source, 4 stream, 5 lake.\n",
    );
    for Case { title, told, line } in &cases {
        writeln!(page, "\n## {title}\n{told}:\n\n    {line}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failures.md");
    if std::env::var_os("BINLAKE_UPDATE").is_some() {
        std::fs::write(path, page).unwrap();
    } else {
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, written, "docs/failures.md is out of date: run this test with BINLAKE_UPDATE=1");
    }
}
