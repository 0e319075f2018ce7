//! Each way in which a configuration can be wrong, and what is said about it.

use super::*;
use std::fmt::Write;

const FOUR_LINES: &str = "[source]\nurl = \"mysql://repl@127.0.0.1\"\n[[table]]\nsource = \"shop.*\"\n";

fn read(text: &str) -> Result<Config> {
    let variable = |name: &str| (name == "PASSWORD").then(|| "hush".to_owned());
    Config::parse(Path::new("conf/binlake.toml"), text, Needs::All, &variable)
}

#[test]
fn four_lines_are_enough() {
    let config = read(FOUR_LINES).unwrap();
    assert_eq!(config.lake.url, LakeUrl::File("conf/data/lake".into()));
    assert_eq!(config.stream.lanes, 16);
    assert_eq!(config.lake.commit_interval(), std::time::Duration::from_secs(10));
    assert_eq!(config.state.url, StateUrl::Sqlite("conf/data/state.db".into()));
}

#[test]
fn the_contracts_example_is_read_but_for_what_comes_later() {
    let text = r#"
        [source]
        url = "mysql://repl:${PASSWORD}@127.0.0.1:3306"
        [stream]
        url = "file:./data/stream"
        lanes = 16
        format = "binlake"
        [lake]
        url = "file:./data/lake"
        commit_interval = "10s"
        [state]
        url = "sqlite:./data/state.db"
        [admin]
        listen = "127.0.0.1:8300"
        [[table]]
        source = "shop.ticket_activity"
        key = ["ticketactivity_id"]
        partition_by = "year(start_date)"
    "#;
    let config = read(text).unwrap();
    assert_eq!(config.source.url.expose().password(), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn a_query_needs_no_password() {
    let text = FOUR_LINES.replace("repl@", "repl:${NONE}@");
    assert!(read(&text).is_err());
    let config = Config::parse(Path::new("binlake.toml"), &text, Needs::Lake, &|_| None).unwrap();
    assert_eq!(config.lake.url, LakeUrl::File("data/lake".into()));
}

#[test]
fn every_error_says_what_where_and_the_remedy() {
    let with = |section: &str| format!("{FOUR_LINES}{section}\n");
    let child = |section: &str| with(&format!("[table.children.items]\n{section}"));
    let fed = |section: &str| {
        let columns = "columns = { id = 'int', list = 'array<int>', items = 'json' }";
        format!("[[table]]\nstream = 'jsonl:a/'\nname = 'a.b'\nkey = ['id']\n{columns}\n[table.children.{section}\n")
    };
    let ring = |of_b: &str, b: &str| {
        let joins = |other: &str| format!("transform = 'SELECT t.id FROM input t LEFT JOIN {other} j ON t.id = j.id'\n");
        format!(
            "{}[[table]]\nsource = 's.a'\n{}[[table]]\n{b}\n{}[lookup.a]\nurl = 'table:s.a'\ncolumns = {{ id = 'int' }}\n[lookup.b]\nurl = 'table:s.b'\n{of_b}\n",
            FOUR_LINES.split("[[table]]").next().unwrap_or_default(),
            joins("b"),
            joins("a"),
        )
    };
    let cases = [
        ("unknown key", with("[lake]\ncommit_intervall = '10s'")),
        ("unknown section", with("[lakes]\nurl = 'file:./x'")),
        ("unknown key of a table", with("partition = 'a'")),
        ("nothing like it", with("[admin]\nzzz = 1")),
        ("missing url", "[source]\n[[table]]\nsource = 'a.b'\n".into()),
        ("missing source section", "[[table]]\nsource = 'a.b'\n".into()),
        ("no table", "[source]\nurl = 'mysql://u@h'\n".into()),
        ("wrong type", with("[stream]\nlanes = 'many'")),
        ("wrong duration", with("[lake]\ncommit_interval = '10'")),
        ("wrong size", with("[lake]\nmemory = '1 quart'")),
        ("wrong choice", with("zero_dates = 'nul'")),
        ("wrong table name", FOUR_LINES.replace("shop.*", "shop")),
        ("wrong glob", FOUR_LINES.replace("shop.*", "shop.[a")),
        ("wrong regex", FOUR_LINES.replace("shop.*", "/shop.(/")),
        ("wrong partition function", with("partition_by = 'week(day)'")),
        ("wrong source url", FOUR_LINES.replace("mysql:", "postgres:")),
        ("wrong lake url", with("[lake]\nurl = 'gs://bucket'")),
        ("wrong lake option", with("[lake]\nurl = 's3://bucket?regoin=x'")),
        ("wrong address", with("[admin]\nlisten = '8300'")),
        ("a variable that isn't set", FOUR_LINES.replace("repl@", "repl:${NONE}@")),
        ("a file that isn't there", FOUR_LINES.replace("repl@", "repl:${file:none}@")),
        ("not toml", with("[lake")),
        ("twice the same key", with("[lake]\nurl = 'file:a'\nurl = 'file:b'")),
        ("transform is not row-wise", with("transform = 'SELECT id, count(*) AS n FROM input GROUP BY id'")),
        ("transform is no SQL", with("transform = 'SELEC * FROM input'")),
        ("transform joins no lookup", with("transform = 'SELECT t.* FROM input t LEFT JOIN contry c ON t.a = c.a'\n[lookup.country]\nurl = 'file:c.csv'")),
        ("transform of declared columns", "[[table]]\nstream = 'jsonl:a/'\nname = 'a.b'\nkey = ['id']\ncolumns = { id = 'int' }\ntransform = 'SELECT id, price FROM input'".into()),
        ("a history that is no history", with("history = { valid_tme = 'updated_at' }")),
        ("a history whose times nobody can read", with("history = { valid_time = 'updated_at', format = 'YYYY-MM-DD' }")),
        ("a child of MySQL's without columns", child("key = ['sku']")),
        ("a child's dead letters beside MySQL", child("columns = { sku = 'string' }\nbad_values = 'dead_letter'")),
        ("a child's name beside a pattern", child("name = 'shop.lines'\ncolumns = { sku = 'string' }")),
        ("a child with a history", child("columns = { sku = 'string' }\nhistory = true")),
        ("a child's unknown key", child("columns = { sku = 'string' }\nordering = 'sku'")),
        ("a child's key that isn't declared", child("columns = { sku = 'string' }\nkey = ['code']")),
        ("a child of numbers", fed("list]")),
        ("a child's column that its parent's key has", fed("items]\ncolumns = { id = 'int' }")),
        ("a child in another database", fed("items]\nname = 'c.items'")),
        ("a child called as its parent", fed("items]\nname = 'a.b'")),
        ("a child called as another table", format!("{}[[table]]\nstream = 'jsonl:a/'\nname = 'a.b_items'\nkey = ['id']", fed("items]"))),
        ("wrong lookup url", with("[lookup.country]\nurl = 'redis:country'")),
        ("wrong lookup file", with("[lookup.country]\nurl = 'file:country.xls'")),
        ("wrong lookup key", with("[lookup.country]\nurl = 'file:c.csv'\nmising = 'null'")),
        ("wrong lookup policy", with("[lookup.country]\nurl = 'file:c.csv'\nmissing = 'nul'")),
        ("wrong lookup type", with("[lookup.country]\nurl = 'file:c.csv'\ncolumns = { code = 'varchar' }")),
        ("a ring that waits for itself", ring("columns = { id = 'int' }\nmissing = 'hold'", "source = 's.b'")),
        ("a ring of dead letters", ring("columns = { id = 'int' }\nmissing = 'dead_letter'", "source = 's.b'").replace("url = 'table:s.a'", "url = 'table:s.a'\nmissing = 'dead_letter'")),
        ("a ring of unknown columns", ring("", "source = 's.b'")),
        ("a ring of two streams", ring("columns = { id = 'int' }", "stream = 'jsonl:b/'\nname = 's.b'\nkey = ['id']\ncolumns = { id = 'int' }")),
        ("a delivery to nowhere", with("[[deliver]]\nsource = 'a.b'")),
        ("kinesis option", with("[stream]\nurl = 'kinesis://x?shards=4'")),
        ("plain JSON is not written", with("[stream]\nformat = 'json'")),
        ("wrong state url", with("[state]\nurl = 'dynamodb:x'")),
        ("a catalog for a folder", with("[catalog]\nurl = 'glue://?region=eu-west-1'")),
        ("wrong catalog", with("[catalog]\nurl = 'hive://x'")),
        ("one name for all databases", with("[catalog]\nurl = 'glue://'\ndatabase = 'lake'")),
        ("too many lanes", with("[stream]\nlanes = 5000")),
        ("heartbeat too rare", FOUR_LINES.replace("[[table]]", "heartbeat_interval = '2m'\n[[table]]")),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        let error = read(&text).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{name}");
        writeln!(shown, "{name}:\n  {error}").unwrap();
    }
    insta::assert_snapshot!(shown);
}

/// The examples of the documents are configurations that are read.
#[test]
fn the_documents_examples_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = |text: &'static str, kind: &str| -> Vec<&'static str> {
        let fence = format!("```{kind}\n");
        text.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
    };
    let documents =
        [include_str!("../../docs/transforms.md"), include_str!("../../docs/lookups.md"), include_str!("../../docs/deliveries.md")];
    let mut read = 0;
    for document in documents {
        for mapping in blocks(document, "json") {
            std::fs::write(folder.path().join("country-task.json"), mapping).unwrap();
        }
        for example in blocks(document, "toml") {
            let table = if example.contains("[[table]]") { "" } else { "[[table]]\nsource = 'other.*'\n" };
            let text = format!("[source]\nurl = 'mysql://repl@127.0.0.1'\n{example}\n{table}");
            Config::parse(&folder.path().join("binlake.toml"), &text, Needs::All, &|_| None).unwrap();
            read += 1;
        }
    }
    assert_eq!(read, 3);
}
