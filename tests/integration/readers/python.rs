//! Runs the scripts of `tests/readers/` with the Python environment that `scripts/python.sh` makes.

use crate::lake::Values;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of the set-up's tools.
pub(super) fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/binlake");
    std::env::var_os("BINLAKE_CACHE").map_or_else(home, PathBuf::from)
}

pub(super) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Python with the readers' packages; made at the first call.
fn python() -> PathBuf {
    let script = Command::new(repository("scripts/python.sh")).arg(repository("tests/readers/requirements.txt")).status();
    assert!(script.unwrap().success(), "scripts/python.sh failed");
    cache().join("python/bin/python")
}

/// What boto3 sees of a table in Glue's catalog (see the script); `how` is `show`, or `annotate COLUMN`.
pub(crate) fn glue(endpoint: &str, how: &[&str], table: &str) -> serde_json::Value {
    let output = Command::new(python())
        .arg(repository("tests/readers/read_glue.py"))
        .args([&[endpoint, table], how].concat())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "read_glue.py {how:?} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A line of JSON as a row.
pub(super) fn row(line: &str) -> Values {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

fn rows(script: &str, arguments: &[&str]) -> Vec<Values> {
    let output = Command::new(python())
        .arg(repository("tests/readers").join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script} {arguments:?} failed");
    String::from_utf8(output.stdout).unwrap().lines().map(row).collect()
}

/// The table's rows by hudi-rs; `how` is nothing, `--as-of INSTANT` or `--since INSTANT`.
pub(crate) fn hudi_rs(table: &str, columns: &[String], how: &[&str]) -> Vec<Values> {
    rows("read_hudi_rs.py", &[&[table, &columns.join(",")], how].concat())
}

/// A view's rows by DuckDB.
pub(crate) fn duckdb(views: &Path, view: &str, columns: &[String]) -> Vec<Values> {
    rows("read_duckdb.py", &[&views.display().to_string(), view, &columns.join(",")])
}

/// The Parquet files below a folder that have a text, and where: as pyarrow and DuckDB see them.
pub(crate) fn files_with(folder: &Path, text: &str) -> Vec<Values> {
    rows("find_text.py", &[&folder.display().to_string(), text])
}

/// The local S3 server: it takes a port and says which.
pub(crate) fn moto() -> [PathBuf; 2] {
    [python(), repository("tests/readers/local_s3.py")]
}
