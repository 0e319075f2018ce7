//! What is wrong with rules that are changed while the service runs, and with lists whose elements are rows of their own.

use super::cases::{Ground, Outcome, run};
use super::{failed, told};
use crate::mysql::eventually;
use crate::service::{Answer, Pipeline};

/// What `apply` refuses.
pub(super) async fn applied(ground: &Ground) -> Vec<Outcome> {
    let pipeline = Pipeline::new(ground.server, "");
    let base = pipeline.config();
    let write = |rules: &str| pipeline.set_config(&format!("{base}{rules}"));
    let apply = |rules: &str| {
        write(rules);
        pipeline.answer(&["apply", "--log-level", "off"])
    };
    let rule = ground.rule();
    let mut found = Vec::new();
    found.push(failed("Rules for a pipeline that never ran", apply(&rule), 2, &["no service", "binlake run"]));
    let service = pipeline.run();
    pipeline.catches_up(ground.server, &ground.database, "items").await;
    let gone = rule.replace("items", "itms");
    let cases = [
        ("Rules with a table that the source doesn't have", format!("{rule}{gone}"), ["itms", "grant SELECT"]),
        ("Rules that change a table's key", format!("{rule}key = [\"name\"]\n"), ["key=key", "binlake backfill"]),
        (
            "Rules that need the table's rows anew",
            format!("{rule}partition_by = \"name\"\n"),
            ["key=partition_by", "binlake backfill"],
        ),
        (
            "Rules that give a column another type",
            format!("{rule}transform = \"SELECT id, 7 AS name FROM input\"\n"),
            ["column=name", "AS"],
        ),
        (
            "Rules beside a change that needs a restart",
            format!("[[scale]]\nat = \"0 7 * * *\"\nworkers = 2\n{rule}"),
            ["key=scale", "stop the service"],
        ),
    ];
    found.extend(cases.map(|(title, rules, mentions)| failed(title, apply(&rules), 2, &mentions)));
    write(&rule);
    let rollback = |arguments: &[&str]| pipeline.answer(&[&["apply", "--log-level", "off", "--rollback"], arguments].concat());
    found.push(failed("A rollback where there is nothing before", rollback(&[]), 2, &["no revision", "binlake rules"]));
    found.push(failed("A rollback to a revision that never was", rollback(&["7"]), 2, &["revision=7", "binlake rules"]));
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    let items = format!("{}.items", ground.database);
    let first = pipeline.table(&ground.database, "items").instants().remove(0);
    let back = |arguments: &[&str]| pipeline.answer(&[arguments, &["--log-level", "off"]].concat());
    for (title, arguments, mentions) in [
        (
            "A restore to a commit that isn't there",
            &["restore", &items, "20200101000000000"][..],
            ["no commit", "binlake timeline"],
        ),
        ("A rollback of the first commit", &["rollback", &items, &first], ["no commit before", "binlake backfill"]),
        ("A restore to what is no instant", &["restore", &items, "yesterday"], ["yesterday", "17 digits"]),
    ] {
        found.push(failed(title, back(arguments), 2, &mentions));
    }
    // nobody takes it up
    write(&format!("{rule}zero_dates = \"error\"\n"));
    let waiting = pipeline.answer(&["apply", "--log-level", "off", "--timeout", "0s"]);
    let said = waiting.out.lines().last().unwrap_or_default().to_owned();
    found.push(failed("Rules that no service takes up", Answer { err: said, ..waiting }, 1, &["no service", "binlake rules"]));
    let second = apply(&format!("{rule}invalid_text = \"replace\"\n"));
    found.push(failed("Rules that are proposed while others wait", second, 2, &["revision=2", "wait"]));
    let listed = pipeline.ok(&["rules"]);
    assert_eq!(listed.lines().count(), 3, "nothing but what waits was written down: {listed}");
    found
}

/// Children that can't be, and lists that they can't be made of.
pub(super) async fn children(ground: &Ground) -> Vec<Outcome> {
    let fed = |children: &str| {
        Pipeline::from_text(&format!(
            "[lake]\nurl = \"file:./data/lake\"\ncommit_interval = \"100ms\"\n[state]\nurl = \"sqlite:./data/state.db\"\n[admin]\nlisten = \"off\"\n\
             [[table]]\nstream = \"jsonl:./in/\"\nname = \"shop.orders\"\nkey = [\"id\"]\ncolumns = {{ id = \"int\" }}\n{children}"
        ))
    };
    let of_items = "[table.children.items]\ncolumns = { sku = \"string\" }\n";
    let mut found = vec![
        failed("Children without the columns of their elements", run(&of_source(ground, "")), 2, &["children.doc", "`columns`"]),
        failed(
            "Children with a key that isn't declared",
            run(&fed("[table.children.items]\ncolumns = { sku = \"string\" }\nkey = [\"skuu\"]\n")),
            2,
            &["skuu", "add it"],
        ),
        failed(
            "Children whose column is the parent's key",
            run(&fed("[table.children.items]\ncolumns = { id = \"string\" }\n")),
            2,
            &["`id` twice"],
        ),
    ];
    // records whose lists can't be read are dead letters
    let pipeline = fed(&format!("{of_items}key = [\"sku\"]\n"));
    std::fs::create_dir_all(pipeline.path().join("in")).unwrap();
    let records = [
        (r#"{"id": 1, "items": {"sku": "a"}}"#, "A list that is no list", "no list"),
        (r#"{"id": 2, "items": [7]}"#, "An element that is no object", "no object"),
        (r#"{"id": 3, "items": [{"qty": 1}]}"#, "An element without its key", "`sku` is missing"),
        (r#"{"id": 4, "items": [{"sku": "a"}, {"sku": "a"}]}"#, "Two elements of one key", "same key"),
    ];
    let lines: String = records.iter().map(|(record, ..)| format!("{record}\n")).collect();
    std::fs::write(pipeline.path().join("in/a.jsonl"), lines).unwrap();
    let service = pipeline.run();
    let letters = || -> Vec<serde_json::Value> {
        serde_json::from_str(&pipeline.answer(&["dead-letter", "list", "--format", "json"]).out).unwrap_or_default()
    };
    eventually("all are dead letters", async || letters().len() == records.len()).await;
    let letters = letters();
    for (_, title, mention) in records {
        let reason = letters.iter().filter_map(|letter| letter["reason"].as_str()).find(|reason| reason.contains(mention));
        found.push(told(title, "A dead letter (`binlake dead-letter list`)", reason, mention));
    }
    assert!(service.terminate().success(), "{}", pipeline.log_tail());
    // rows of MySQL aren't records that somebody could send again: the table stops
    let pipeline = of_source(ground, "columns = { sku = \"string\" }\n");
    let service = pipeline.run();
    let stopped = "the table is stopped; the others go on table=";
    eventually("the table stops", async || pipeline.log().contains(stopped)).await;
    let log = pipeline.log();
    let line = log.lines().find(|line| line.contains(stopped)).and_then(|line| line.split_once(" error=")).map(|(_, error)| error);
    found.push(told("A list that is no list, in a table of MySQL", "The table stops, and the service's log says", line, "no list"));
    drop(service);
    found
}

/// A table `orders` with a JSON column that holds no list, and rules that take it for one.
fn of_source(ground: &Ground, children: &str) -> Pipeline {
    let rule = ground.rule().replace("items", "orders");
    Pipeline::new(ground.server, &format!("{rule}[table.children.doc]\n{children}"))
}
