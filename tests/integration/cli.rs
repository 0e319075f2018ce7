//! The command line itself: help, usage errors, exit codes, log formats. No server is needed.

use super::service::Pipeline;

const CONFIG: &str = "[source]\nurl = \"mysql://repl:${NOT_SET_ANYWHERE}@127.0.0.1:1\"\n[[table]]\nsource = \"shop.*\"\n";

#[test]
fn every_command_has_help_that_fits_80_columns() {
    let pipeline = Pipeline::from_text(CONFIG).environment("COLUMNS", "80");
    for command in [
        "",
        "run",
        "capture",
        "merge",
        "backfill",
        "query",
        "tables",
        "timeline",
        "rollback",
        "savepoint",
        "restore",
        "clean",
        "cluster",
        "ddl",
        "verify",
        "doctor",
        "stream",
        "stream tail",
        "generate",
        "demo",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = pipeline.ok(&arguments);
        let too_wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(too_wide.is_empty(), "binlake {command} --help: {too_wide:?}");
        assert!(help.contains("Usage: binlake"), "{help}");
    }
    assert!(pipeline.ok(&["--version"]).starts_with("binlake "));
}

#[test]
fn a_wrong_command_line_or_configuration_exits_with_2() {
    let pipeline = Pipeline::from_text(CONFIG);
    for arguments in [
        &["frobnicate"][..],
        &["run", "--no-such-option"],
        &["query"],
        &["query", "SELECT 1", "--format", "xml"],
        &["query", "SELECT 1", "--as-of", "yesterday"],
        &["query", "SELECT 1", "--valid-at", "soon"],
        &["rollback", "shop.orders", "yesterday"],
        &["savepoint", "shop.orders", "--delete"],
        &["restore", "shop.orders"],
        &["cluster"],
        &["run", "--log-level", "b=l=u=b"],
    ] {
        let answer = pipeline.answer(arguments);
        assert_eq!(answer.code, 2, "binlake {} said: {}{}", arguments.join(" "), answer.out, answer.err);
        assert!(!answer.err.is_empty());
    }
    // the password's variable isn't set
    let answer = pipeline.answer(&["run"]);
    assert_eq!((answer.code, answer.err.lines().count()), (2, 1), "{}", answer.err);
    assert!(answer.err.contains("NOT_SET_ANYWHERE") && answer.err.contains("binlake.toml:2"), "{}", answer.err);
}

#[test]
fn an_error_is_one_line_in_both_formats() {
    let pipeline = Pipeline::from_text(CONFIG);
    let text = pipeline.answer(&["query", "SELECT 1"]);
    assert_eq!((text.code, text.err.lines().count()), (5, 1), "{}", text.err);
    assert!(text.err.starts_with("error: there is no lake"), "{}", text.err);
    let json = pipeline.answer(&["query", "SELECT 1", "--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((line["level"].as_str(), line["exit_code"].as_u64()), (Some("ERROR"), Some(5)), "{line}");
}

#[test]
fn an_empty_lake_needs_no_source() {
    let pipeline = Pipeline::from_text(CONFIG);
    std::fs::create_dir_all(pipeline.path().join("data/lake")).unwrap();
    assert_eq!(pipeline.ok(&["tables"]), "the lake has no table yet\n");
    assert_eq!(pipeline.ok(&["tables", "--format", "json"]), "[]\n");
    assert_eq!(pipeline.ok(&["query", "SELECT 6 * 7 AS answer", "--format", "csv"]), "answer\n42\n");
    let answer = pipeline.answer(&["timeline", "shop.orders"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("the lake has no table yet"), "{}", answer.err);
}

/// As with `| head`.
#[test]
fn who_has_read_enough_ends_a_command_without_a_word() {
    let pipeline = Pipeline::from_text(&CONFIG.replace("${NOT_SET_ANYWHERE}", "x"));
    std::fs::create_dir_all(pipeline.path().join("data/lake")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_binlake"))
        .args(["tables", "-c"])
        .arg(pipeline.path().join("binlake.toml"))
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}
