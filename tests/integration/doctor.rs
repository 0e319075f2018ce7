//! `binlake doctor` and `binlake generate` as a user runs them.

use crate::mysql::{Options, Server};
use std::path::Path;
use std::process::{Command, Output};

fn binlake(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binlake")).current_dir(folder).args(arguments).output().unwrap()
}

fn write_config(folder: &Path, url: &str, tables: &str) {
    let text = format!(
        "[source]\nurl = \"{url}\"\n[lake]\nurl = \"file:./lake\"\n[stream]\nurl = \"file:./stream\"\n[state]\nurl = \"sqlite:./state.db\"\n{tables}"
    );
    std::fs::write(folder.join("binlake.toml"), text).unwrap();
}

/// Exit code and standard output; no line is longer than a terminal.
fn doctor(folder: &Path) -> (Option<i32>, String) {
    let output = binlake(folder, &["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_server_gets_0_and_each_lack_a_1_with_its_line() {
    let server = Server::start(Options { gtid: false, row_metadata: "MINIMAL", ..Options::default() });
    server.create_repl_user().await;
    let folder = tempfile::tempdir().unwrap();
    let root = server.root_url();
    let made = binlake(folder.path(), &["generate", "--workload", "tickets", "--rows", "1500", "--url", &root]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout).starts_with("1500 inserted, 0 updated, 0 deleted"));
    let mut client = server.client().await;
    assert_eq!(client.value("SELECT COUNT(*) FROM sports.ticket_activity").await, "1500");

    write_config(folder.path(), &server.repl_url(), "[[table]]\nsource = \"sports.ticket_activity\"\n");
    let (code, text) = doctor(folder.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAIL  binlog_row_metadata        is MINIMAL, must be FULL"), "{text}");
    assert!(text.contains("-> SET PERSIST binlog_row_metadata = 'FULL';"), "{text}");

    client.run("SET PERSIST binlog_row_metadata = 'FULL'").await;
    let (code, text) = doctor(folder.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok    sports.ticket_activity     11 columns, key ticketactivity_id"), "{text}");
    assert!(text.ends_with("All is as it must be (1 warning).\n"), "{text}");
    assert!(!folder.path().join("lake").exists(), "looking makes nothing");

    for (keys, said) in [
        ("transform = \"SELECT prise, ticketactivity_id FROM input\"", "there is no column `prise`"),
        ("history = { valid_time = \"since\" }", "`history` names a column that the table"),
        ("partition_by = \"year(sold)\"", "`partition_by` names a column that the"),
        ("[table.children.lines]\ncolumns = { sku = \"string\" }", "`children` names a column that the table"),
    ] {
        let tables = format!("[[table]]\nsource = \"sports.ticket_activity\"\n{keys}\n");
        write_config(folder.path(), &server.repl_url(), &tables);
        let (code, text) = doctor(folder.path());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&format!("FAIL  sports.ticket_activity     {said}")), "{text}");
        assert!(!text.contains("ok    sports.ticket_activity"), "{text}");
    }

    client
        .run_all(
            "CREATE USER poor@'%' IDENTIFIED BY 'secret';\nGRANT SELECT ON sports.* TO poor@'%';\n\
             CREATE TABLE sports.no_key (a INT);\nCREATE TABLE sports.big (id INT PRIMARY KEY, a SET('x') CHARACTER SET swe7);",
        )
        .await;
    let poor = server.repl_url().replace("repl:", "poor:");
    write_config(folder.path(), &poor, "[[table]]\nsource = \"sports.*\"\n[[table]]\nsource = \"sports.gone\"\n");
    let (code, text) = doctor(folder.path());
    assert_eq!(code, Some(1), "{text}");
    for line in [
        "FAIL  REPLICATION SLAVE          is not granted: the binlog can't be read",
        "FAIL  REPLICATION CLIENT         is not granted: the binlog's position can't",
        "FAIL  RELOAD                     is not granted, and there are no GTIDs: no",
        "FAIL  sports.gone                the table doesn't exist, or the user may not",
        "FAIL  sports.no_key              the table has no primary key",
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'binlake'@'%';",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }

    write_config(folder.path(), &server.repl_url().replace("secret", "wrong"), "[[table]]\nsource = \"sports.*\"\n");
    let (code, text) = doctor(folder.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAIL  connection") && text.contains("-> correct user and password in [source] url"), "{text}");
    assert!(!text.contains("wrong"), "a password is never shown: {text}");
    let sql = binlake(folder.path(), &["doctor", "--sql", "mariadb"]);
    assert!(String::from_utf8_lossy(&sql.stdout).contains("BINLOG MONITOR"));
}
