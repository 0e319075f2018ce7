//! `docs/configuration.md` names each key, no other, and its default.

use super::*;
use crate::format::{ChildSpecs, DebeziumOptions};
use crate::merge::HistoryRule;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// The keys and defaults of the table that follows `heading`.
fn documented(heading: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = PAGE.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let rows = rest.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let cells = |row: &'static str| row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect::<Vec<_>>();
    rows.map(cells).map(|cells| (cells[0].trim_matches('`'), cells[1])).collect()
}

/// Compares the table behind `heading` with what `T` takes; each of `bases` has what `T` needs, and is enough for some of the keys.
fn compare<T: DeserializeOwned + Debug>(heading: &str, bases: &[&str]) {
    let documented = documented(heading);
    let unknown = toml::from_str::<T>(&format!("{}\nzzz = 1\n", bases[0])).unwrap_err().to_string();
    let (_, names) = unknown.split_once("expected").unwrap_or_else(|| panic!("{heading}: {unknown}"));
    let taken: BTreeSet<&str> = names.split('`').skip(1).step_by(2).collect();
    assert_eq!(documented.iter().map(|(key, _)| *key).collect::<BTreeSet<_>>(), taken, "{heading}");
    for (key, default) in documented {
        let Some(value) =
            default.strip_prefix('`').and_then(|default| default.strip_suffix('`')).filter(|value| !value.contains('`'))
        else {
            continue;
        };
        let read = |base: &str, more: &str| toml::from_str::<T>(&format!("{base}\n{more}")).map(|read| format!("{read:?}"));
        let same = bases.iter().any(|base| {
            let without = read(base, "").unwrap_or_else(|error| panic!("{heading} {base}: {error}"));
            read(base, &format!("{key} = {value}")).is_ok_and(|with| with == without)
        });
        assert!(same, "{heading}: the default of {key} is not {value}");
    }
}

#[test]
fn the_page_has_each_key_with_its_default() {
    #[derive(Debug, Deserialize)]
    struct Children {
        #[allow(dead_code, reason = "read by Debug")]
        children: ChildSpecs,
    }
    compare::<SourceConfig>("## `[source]`", &["url = 'mysql://u@h'"]);
    compare::<StreamConfig>("## `[stream]`", &[""]);
    compare::<DebeziumOptions>("`[stream.debezium]`", &[""]);
    compare::<LakeConfig>("## `[lake]`", &[""]);
    compare::<StateConfig>("## `[state]`", &[""]);
    compare::<AdminConfig>("## `[admin]`", &[""]);
    compare::<CatalogConfig>("## `[catalog]`", &["url = 'glue://?region=eu-west-1'"]);
    compare::<ScaleRule>("## `[[scale]]`", &["at = '0 0 * * *'"]);
    let plain = "stream = 'jsonl:./x/'\nname = 'd.t'\ncolumns = { a = 'string' }\nkey = ['a']";
    compare::<TableEntry>("## `[[table]]`", &["source = 'd.t'\ntransform = 'SELECT * FROM input'", plain]);
    compare::<HistoryRule>("A `history`", &[""]);
    compare::<Children>("A `[table.children.PATH]`", &["[children.x]\ncolumns = { a = 'string' }"]);
    compare::<LookupConfig>("## `[lookup.NAME]`", &["url = 'file:a.csv'"]);
    compare::<DeliverConfig>("## `[[deliver]]`", &["source = 'd.t'\nto = 'sqlite:a.db'\nmapping = 'm.json'"]);
}

/// The examples that are indented and begin with a section; those in fences are read by the other tests.
#[test]
fn the_pages_examples_are_read() {
    let pages = [
        (include_str!("../../README.md"), 1),
        (include_str!("../../docs/catalog.md"), 1),
        (include_str!("../../docs/formats.md"), 3),
        (include_str!("../../docs/history.md"), 1),
        (include_str!("../../docs/kinesis.md"), 1),
        (include_str!("../../docs/several-machines.md"), 2),
        (include_str!("../../docs/transforms.md"), 1),
    ];
    for (page, count) in pages {
        let is_example = |block: &&str| block.trim_start_matches('\n').starts_with("    [");
        let examples: Vec<&str> = page.split("\n\n").filter(is_example).collect();
        assert_eq!(examples.len(), count, "{examples:#?}");
        for example in examples {
            let rest = [
                ("[source]", "url = 'mysql://repl@127.0.0.1'"),
                ("[[table]]", "source = 'other.*'"),
                ("[stream]", "url = 'kinesis://s?region=eu-west-1'"),
            ];
            let missing = rest.iter().filter(|(section, _)| !example.contains(section));
            let missing: Vec<String> = missing.map(|(section, keys)| format!("{section}\n{keys}")).collect();
            let text = format!("{example}\n{}\n", missing.join("\n"));
            let read = Config::parse(Path::new("binlake.toml"), &text, Needs::All, &|_| Some("x".into()));
            read.unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }
}
